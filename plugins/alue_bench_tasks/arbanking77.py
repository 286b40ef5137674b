"""ArBanking77: the intents of questions to a bank, in Modern Standard Arabic and in four dialects.

The task `arbanking77` trains models on questions in Modern Standard Arabic and Palestinian, and tests them on questions
in Modern Standard Arabic. There is one further task for each of the four dialects, such as `arbanking77-saudi`. It has
only a test split, on which models trained on `arbanking77` are tested.
"""

from pathlib import Path

from alue_bench import DataFile, Delimited, Labels, Splits, Task

READ = Delimited(header=True, delimiter=",", quoted=True, text="text", target="label")
SOURCE = "ArBanking77, from its authors' repository"
LICENCE = "CC BY-SA 4.0"
CITATION = (
    "Mustafa Jarrar, Ahmet Birim, Mohammed Khalilia, Mustafa Erden and Sana Ghanem. 2023. ArBanking77: Intent "
    "Detection Neural Model and a New Dataset in Modern and Dialectical Arabic. In Proceedings of ArabicNLP 2023, "
    "pages 276-287."
)
OFFICIAL_METRIC = "micro-averaged F1"
# For each dialect, the part of its test file's name that identifies the dialect, and its BCP 47 code.
DIALECTS = {
    "palestinian": ("PAL", "ar-PS"),
    "saudi": ("Saudi", "ar-SA"),
    "moroccan": ("Moroccan", "ar-MA"),
    "tunisian": ("Tunisian", "ar-TN"),
}
INTENTS = (
    "آبل باي أو جوجل باي", "إرجاع الدفع بالبطاقة؟", "إعادة الشحن عن طريق رسوم التحويل المصرفي", "إلغاء التحويل",
    "ابتلاع البطاقة", "استرداد الأموال غير مرئي", "البطاقات والعملات المدعومة", "البطاقة الافتراضية لا تعمل",
    "البطاقة المفقودة أو المسروقة", "البطاقة لا تعمل", "التحقق من مصدر الأموال", "التعبئة عن طريق البطاقة",
    "التعبئة عن طريق شحن البطاقة", "الحصول على بطاقة احتياطية", "الحصول على بطاقة افتراضية",
    "الحصول على بطاقة افتراضية يمكن التخلص منها", "الحصول على بطاقة فعلية", "الدفع المباشر للدين غير معروف",
    "الدفع بالبطاقة المعلق", "الدفع بالبطاقة غير معترف به", "السحب النقدي غير معترف به", "الصرف عبر التطبيق",
    "المستفيد غير مسموح به", "الهاتف المفقود أو المسروق", "انتظار التحويل", "انهاء حساب", "بطاقة على وشك الانتهاء",
    "بطاقة مخترقة", "تحرير التفاصيل الشخصية", "تحصيل رسوم التحويل", "تحقق من تعبئة الرصيد", "تحقق من هويتي",
    "تعبئة الرصيد نقدًا أو بشيك", "تعبئة تلقائية", "تغيير رمز التعريف الشخصي", "تفعيل بطاقتي",
    "تقدير تسليم البطاقة", "تلقي الأموال", "تلقي مبلغ خاطئ من النقد", "تم التحصيل مرتين",
    "تم تحصيل رسوم الدفع بالبطاقة", "تم رفض الدفع بالبطاقة", "توقيت التحويل", "حد السن",
    "حدود البطاقة التي يمكن التخلص منها", "حدود التعبئة", "دعم أجهزة الصراف الآلي", "دعم البلد",
    "دعم العملات الورقية", "ربط البطاقة", "رسوم إضافية على كشف الحساب", "رسوم السحب النقدي", "رسوم الصرف",
    "رفض التحويل", "رفض السحب النقدي", "رمز التعريف الشخصي محظور", "سعر الصرف", "سعر الصرف الخاطئ للدفع بالبطاقة",
    "سعر صرف خاطئ للسحب النقدي", "طلب استرداد", "طلب بطاقة فعلية", "عادت تعبئة الرصيد", "عدم التلامس لا يعمل",
    "غير قادر على التحقق من الهوية", "فشل التحويل", "فشل التعبئة", "في انتظار التعبئة", "في انتظار السحب النقدي",
    "فيزا أو ماستر كارد", "قبول البطاقة", "لم يتم تحديث الرصيد بعد التحويل المصرفي",
    "لم يتم تحديث الرصيد بعد الشيك أو الإيداع النقدي", "لم يستلم المستلم التحويل", "لماذا التحقق من الهوية",
    "نسيان رمز المرور", "نقل إلى الحساب", "وصول البطاقة",
)  # fmt: skip


def file(part: str) -> DataFile:
    """Return the declaration of an official file; `part` is the end of its name, such as "MSA_test"."""
    return DataFile(f"arbanking77/Banking77_Arabized_{part}.csv", READ)


TASK = Task(
    name="arbanking77",
    title="Intents of questions to a bank",
    languages=("ar-PS", "arb"),
    labels=Labels.multiclass(*INTENTS),
    splits=Splits(
        train=file("MSA_PAL_train"),
        dev=file("MSA_PAL_val"),
        test=file("MSA_test"),
        protocol="official train and dev files in Modern Standard Arabic and Palestinian; test is the official test "
        "file in Modern Standard Arabic",
    ),
    source=SOURCE,
    licence=LICENCE,
    citation=CITATION,
    primary="f1_macro",
    official_metric=OFFICIAL_METRIC,
    companions={f"arbanking77-{dialect}": {} for dialect in DIALECTS},
    only_by_name=True,
    sample=Path(__file__).parent / "sample",
)


def _dialect(name: str) -> Task:
    """Return the task of a dialect, a key of `DIALECTS`: a test set for models trained on the task `arbanking77`."""
    part, language = DIALECTS[name]
    return Task(
        name=f"arbanking77-{name}",
        title=f"Intents of questions to a bank, {name.capitalize()}",
        languages=(language,),
        labels=TASK.labels,
        splits=Splits(test=file(f"{part}_test"), protocol=f"the official {name.capitalize()} test file"),
        source=SOURCE,
        licence=LICENCE,
        citation=CITATION,
        primary="f1_macro",
        official_metric=OFFICIAL_METRIC,
        only_by_name=True,
        sample=TASK.sample,
    )


IN_DIALECTS = tuple(_dialect(name) for name in DIALECTS)
