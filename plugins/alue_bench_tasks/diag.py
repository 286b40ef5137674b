"""The task DIAG: a diagnostic test set for models trained on XNLI.

Each sentence pair tests whether the model handles one linguistic phenomenon, such as negation. The official file is not
public; ALUE computes the score of predictions that are submitted to its leaderboard.
"""

from pathlib import Path

from alue_bench import DataFile, Delimited, Labels, Splits, Submission, Task

TASK = Task(
    name="diag",
    title="Inference diagnostics",
    languages=("ar",),
    labels=Labels.multiclass("entailment", "neutral", "contradiction"),
    splits=Splits(
        test=DataFile(
            "diagnostic/diagnostic.tsv",
            # ALUE's baselines read the columns by position: identifier, first sentence, second sentence, label.
            Delimited(header=True, id=0, text=1, text_pair=2, target=3),
        ),
        protocol="the whole diagnostic file is the test split of a model trained on xnli",
    ),
    source="ALUE's organisers; the file is not public",
    licence="not stated by the publishers; not public",
    citation="Haitham Seelawi, Ibraheem Tuffaha, Mahmoud Gzawi, Wael Farhan, Bashar Talafha, Riham Badawi, "
    "Zyad Sober, Oday Al-Dweik, Abed Alhakim Freihat and Hussein Al-Natsheh. 2021. ALUE: Arabic Language "
    "Understanding Evaluation. In Proceedings of the Sixth Arabic Natural Language Processing Workshop, "
    "pages 173-184.",
    primary="mcc",
    official_metric="Matthews correlation coefficient",
    trained_on="xnli",
    submission=Submission(file="diagnostic.tsv", header=("pairID", "prediction"), id="row"),
    sample=Path(__file__).parent / "sample",
)
