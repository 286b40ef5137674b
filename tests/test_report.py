"""`alue-bench report`: what stands on the page, whatever is in the store."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CommandLine
from planted_runs import classes, plant, spec

from alue_bench.contract.task import Labels
from alue_bench.reporting.content import Item, Missing, Page, Paragraph, ReportTable, Sentence
from alue_bench.reporting.numbers import decimal, seconds
from alue_bench.reporting.page import PageRequest, build_page
from alue_bench.reporting.rendering import pictures, render_html, render_markdown
from alue_bench.reporting.run_figures import FigureLimits
from alue_bench.tracking.connection import Connection, connect
from alue_bench.tracking.reading import read_results

BINARY = Labels.binary("no", "yes")
GOLD = np.random.default_rng(0).integers(0, 2, 120)
STRATEGIES = {"full": 0.9, "bottom3top4": 0.88, "head-only": 0.55}
SEEDS = (42, 43, 44)

Put = Callable[..., str]


def put_in(connection: Connection) -> Put:
    """A run that is right for about a part of the examples, its time made up of strategy and seed."""

    def plant_one(task: str = "oold", strategy: str = "full", seed: int = 42, **more: Any) -> str:
        labels, gold = more.pop("labels", BINARY), more.pop("gold", GOLD)
        how = {key: more.pop(key) for key in ("more", "tags", "status", "keep_predictions") if key in more}
        rng = np.random.default_rng([seed, len(strategy), len(task)])
        accuracy = STRATEGIES.get(strategy, 0.7)
        how["more"] = {
            "runtime/train_s": 100 * accuracy + seed / 10,
            "selection/dev_score": accuracy,
            "params/trainable": 8.1e6 * accuracy,
            "flops/train": 7e11 * accuracy,
        } | how.get("more", {})
        predicted = classes(rng, gold.ravel(), accuracy, 2).reshape(gold.shape)
        return plant(connection, spec(task, strategy, seed, **more), labels, gold, predicted, **how)

    return plant_one


@pytest.fixture
def connection(store: str, experiment: str) -> Connection:
    return connect(store, experiment)


@pytest.fixture
def put(connection: Connection) -> Put:
    return put_in(connection)


@pytest.fixture
def page(connection: Connection) -> Callable[..., Page]:
    def build(**options: Any) -> Page:
        return build_page(read_results(connection), PageRequest(**options))

    return build


def items(page: Page, anchor: str) -> list[Item]:
    (section,) = [section for section in page.sections if section.anchor == anchor]
    return [item for block in section.blocks for item in block.items]


def table(page: Page, anchor: str) -> dict[tuple[str, str], list[str]]:
    """Entries by heading and row."""
    return {
        (group.heading, row.header): [cell.text for cell in row.cells]
        for item in items(page, anchor)
        if isinstance(item, ReportTable)
        for group in item.groups
        for row in group.rows
    }


def said(page: Page) -> list[Sentence]:
    return [sentence for item in items(page, "summary") for sentence in getattr(item, "sentences", ())]


class TestAStoreWithSeveralSeeds:
    @pytest.fixture(scope="class")
    def shared(self, store: str) -> Connection:
        connection = connect(store, "several seeds")
        put = put_in(connection)
        for task in ("anger", "oold", "mdd"):
            for strategy in STRATEGIES:
                for seed in SEEDS:
                    put(task, strategy, seed)
        return connection

    @pytest.fixture(scope="class")
    def page(self, shared: Connection) -> Page:
        return build_page(read_results(shared))

    @pytest.mark.parametrize(("task", "strategy"), [("anger", "full"), ("oold", "bottom3top4"), ("mdd", "head-only")])
    def test_has_the_numbers_that_a_hand_computation_gives(
        self, page: Page, shared: Connection, task: str, strategy: str
    ) -> None:
        import mlflow

        mlflow.set_tracking_uri(shared.uri)

        def column(strategy: str, metric: str) -> list[float]:
            recorded = mlflow.search_runs(
                experiment_names=["several seeds"],
                filter_string=f"params.task = '{task}' and params.strategy = '{strategy}'",
            )
            assert len(recorded) == 3
            return list(recorded.sort_values("params.seed")[f"metrics.{metric}"])

        scores, times = column(strategy, "test/f1_macro"), column(strategy, "runtime/train_s")
        score, change, _, time, time_change, speed_up, seeds, _ = table(page, "scores")[f"{task} · mini", strategy]
        assert score == decimal(statistics.fmean(scores))
        assert time == seconds(statistics.fmean(times))
        assert seeds == "3"
        if strategy != "full":
            base, base_times = column("full", "test/f1_macro"), column("full", "runtime/train_s")
            difference = statistics.fmean(scores) - statistics.fmean(base)
            assert change.replace("−", "-") == f"{difference:+.3f}"
            relative = statistics.fmean(a / b - 1 for a, b in zip(times, base_times, strict=True))
            assert time_change.replace("−", "-") == f"{100 * relative:+.0f} %"
            ratios = [base / ours for ours, base in zip(times, base_times, strict=True)]
            assert speed_up == f"{statistics.geometric_mean(ratios):.2f}×"

    def test_says_one_sentence_for_each_task_and_model(self, page: Page) -> None:
        sentences = {sentence.subject: sentence.text for sentence in said(page)}
        assert sentences.keys() == {"anger · mini", "oold · mini", "mdd · mini"}
        for text in sentences.values():
            assert text.startswith("bottom3top4 trains in 98 ± 0.0 % of the time of full (same session, 3 runs); its ")
            assert re.search(r"head-only .* lower than full's, \d+ % of what full learnt \(p [<=] 0\.\d+\)\.$", text)

    def test_has_every_section_filled_that_these_runs_can_fill(self, page: Page) -> None:
        empty = {s.anchor for s in page.sections if any(isinstance(i, Missing) for b in s.blocks for i in b.items)}
        # No sweep, no chosen layers, no curves in planted runs, no run of the models that the paper names, none scored
        # on another task, no tuning. Beside the figures of score against time, full fine-tuning at matched compute is
        # asked for.
        assert empty == {"grid", "choices", "curves", "paper", "out-of-domain", "tuned", "trade"}
        assert not page.notices

    def test_draws_each_task_and_the_results_across_tasks(self, page: Page) -> None:
        names = [picture.name for picture in pictures(page)]
        assert sum(name.startswith("trade-") for name in names) == 3
        assert sum(name.startswith("averages-") for name in names) == 2  # the paper's figure 2
        assert [name for name in names if name.startswith("across-")] == ["across-1-1-changes", "across-1-1-profile"]
        shown = table(page, "across")
        assert shown["mini", "head-only"][4] == "0 / 0 / 3"
        assert shown["", "full"][-1] == "100 %"
        assert len(set(names)) == len(names)

    def test_has_the_papers_numbers_beside_ours(self, page: Page) -> None:
        shown = table(page, "paper")
        assert shown["Table 1: Anger detection", "marbert"][::2] == ["0.825", "0.831", "+0.7 %", "23.4 %"]
        assert set(shown["Table 1: Anger detection", "marbert"][1::2]) == {"–"}
        ours = shown["Table 1: Anger detection", "mini"]
        scores = table(page, "scores")
        assert ours[1] == scores["anger · mini", "full"][0]
        assert ours[3] == scores["anger · mini", "bottom3top4"][0]

    def test_says_under_which_conditions(self, page: Page) -> None:
        shown = render_html(page)
        for fact in ("official files", "f1_macro", "42, 43, 44", "epochs 10"):
            assert fact in shown

    def test_is_the_same_in_markdown(self, page: Page) -> None:
        written = render_markdown(page, "figures")
        for text in ("Table 4: Dialect detection", "alue-bench sweep", *(sentence.subject for sentence in said(page))):
            assert text in written
        assert written.count("![") == len(list(pictures(page)))

    def test_compares_by_the_metric_that_is_asked_for(self, shared: Connection) -> None:
        page = build_page(read_results(shared), PageRequest(metric="accuracy"))
        runs = shared.client.search_runs([shared.experiment_id], "params.task = 'oold' and params.strategy = 'full'")
        expected = statistics.fmean(run.data.metrics["test/accuracy"] for run in runs)
        assert table(page, "scores")["oold · mini", "full"][0] == decimal(expected)
        assert "its accuracy is" in said(page)[0].text


class TestWhatIsSaidOf:
    def test_one_seed(self, put: Put, page: Callable[..., Page]) -> None:
        for strategy in STRATEGIES:
            put(strategy=strategy)
        shown = page()
        (sentence,) = said(shown)
        assert "with one seed, which may be due to chance" in sentence.text
        assert "inconclusive" not in sentence.text
        assert "±" not in sentence.text
        assert any("more than 1 seed" in notice for notice in shown.notices)

    def test_two_seeds(self, put: Put, page: Callable[..., Page]) -> None:
        for strategy in ("full", "head-only"):
            for seed in SEEDS[:2]:
                put(strategy=strategy, seed=seed)
        (sentence,) = said(page())
        assert "2 seeds, too few for a verdict" in sentence.text

    def test_a_strategy_without_its_baseline(self, put: Put, page: Callable[..., Page]) -> None:
        put(strategy="bottom3top4")
        (sentence,) = said(page())
        assert sentence.text.startswith("No run of full")

    def test_the_baseline_alone(self, put: Put, page: Callable[..., Page]) -> None:
        put(strategy="full")
        (sentence,) = said(page())
        assert sentence.text.startswith("Only full was run")

    def test_more_strategies_than_a_sentence_holds(self, put: Put, page: Callable[..., Page]) -> None:
        for number in range(6):
            put(
                strategy=f"bottom{number}" if number else "full",
                more={"runtime/train_s": 100.0 - 10 * number, "selection/dev_score": 0.9 if number < 4 else 0.5},
            )
        (sentence,) = said(page())
        assert sentence.text.startswith(
            "Of 6 settings the dev split recommends bottom3. bottom3 trains in 70 % of the time of full"
        )
        assert "it was chosen by these runs" in sentence.text
        assert "To confirm it: alue-bench run " in sentence.text

    @pytest.mark.parametrize(("tolerance", "chosen"), [(0.01, "bottom3top1"), (0.1, "bottom4top1")])
    def test_a_report_that_chooses_judges_by_other_seeds(
        self, put: Put, connection: Connection, tolerance: float, chosen: str
    ) -> None:
        """Both settings were lucky with the seeds of the grid; fresh ones, which one of them has, show its loss."""
        for cell in ("full", "bottom1", "bottom2", "bottom1top1", "bottom3top1", "bottom4top1"):
            dev, time = {"full": (0.9, 9.0), "bottom3top1": (0.9, 7.0), "bottom4top1": (0.85, 5.0)}.get(
                cell, (0.5, 9.5)
            )
            for seed in (42, 43, 44):
                put(strategy=cell, seed=seed, more={"runtime/train_s": time, "selection/dev_score": dev})
        for seed in (45, 46, 47):
            for cell in ("full", "bottom3top1"):
                put(strategy=cell, seed=seed, more={"runtime/train_s": 5.0, "selection/dev_score": 0.9})
        shown = build_page(read_results(connection), PageRequest(tolerance=tolerance))
        (sentence,) = said(shown)
        assert f"recommends {chosen}." in sentence.text
        maps = " ".join(item.text for item in items(shown, "grid") if isinstance(item, Paragraph))
        assert f"within {100 * tolerance:g}% of full's" in maps
        if chosen == "bottom3top1":
            assert "With seeds that took no part in the choice, bottom3top1 " in sentence.text
            assert "from 3 seeds that took no part in the choice" in maps
            fresh = read_results(connection).frame.query("seed > 44").groupby("strategy")["test/f1_macro"].mean()
            assert f"{fresh['bottom3top1']:.3f} against {fresh['full']:.3f} of full" in maps
        else:
            assert "not known before fresh seeds confirm it" in sentence.text
            for text in (sentence.text, maps):
                assert "--strategy bottom4top1 --seed 48" in text

    @pytest.mark.parametrize("undefined", ["selection/dev_score", "test/score"])
    def test_more_strategies_without_a_score_to_choose_by(
        self, undefined: str, put: Put, page: Callable[..., Page]
    ) -> None:
        for cell in ("full", "bottom1", "bottom2", "top1", "top2", "bottom1top1"):
            put(strategy=cell, more={undefined: float("nan")})
        shown = page()
        (sentence,) = said(shown)
        assert sentence.text == "6 settings, but no scores to choose one by."
        assert isinstance(items(shown, "grid")[0], Missing)

    def test_a_baseline_that_learnt_nothing(self, put: Put, page: Callable[..., Page]) -> None:
        """Neither that a strategy keeps its score, nor which setting to take: six are here, and make a map."""
        more = {"test/trivial_score": 0.95, "selection/trivial_score": 0.9, "selection/dev_score": 0.9}
        for cell in ("full", "bottom1", "bottom2", "top1", "top2", "bottom1top1"):
            put(strategy=cell, more=more)
        shown = page()
        (sentence,) = said(shown)
        assert sentence.text.startswith("full did not learn: its test score 0.")
        assert "so there is no verdict on any strategy; try more data" in sentence.text
        assert "trains in" not in sentence.text
        written = render_markdown(shown, "figures")
        assert "No recommendation for" in written
        assert "its dev score 0.900 is not above the trivial score 0.900; no setting can be recommended" in written
        assert "Recommended for" not in written

    def test_an_undefined_score(self, put: Put, page: Callable[..., Page]) -> None:
        put(strategy="full")
        put(strategy="bottom3top4", more={"test/f1_macro": float("nan"), "test/score": float("nan")})
        shown = page()
        assert table(shown, "scores")["oold · mini", "bottom3top4"][0] == "undefined"
        assert render_html(shown)


class TestAStoreWith:
    def test_nothing_says_what_would_fill_each_section(self, page: Callable[..., Page]) -> None:
        shown = page()
        assert "no finished run" in shown.lead
        for section in shown.sections:
            missing = [item for block in section.blocks for item in block.items if isinstance(item, Missing)]
            assert missing, section.title
            assert all(item.command.startswith("alue-bench ") for item in missing)
        assert len(table(shown, "paper")) == 28
        assert render_html(shown)
        assert render_markdown(shown, "figures")

    def test_failed_runs_only(self, put: Put, page: Callable[..., Page]) -> None:
        for seed in SEEDS:
            put(seed=seed, status="FAILED")
        shown = page()
        assert "no finished run" in shown.lead
        assert any("3 runs failed" in notice for notice in shown.notices)

    def test_foreign_runs(self, connection: Connection, put: Put, page: Callable[..., Page]) -> None:
        foreign = connection.client.create_run(connection.experiment_id, run_name="somebody else's")
        connection.client.log_metric(foreign.info.run_id, "test/f1_macro", 0.99)
        put()
        shown = page()
        assert any("1 run in the experiment was written by another program" in notice for notice in shown.notices)
        assert "1 finished run" in shown.lead

    def test_two_kinds_of_hardware_and_of_data_keeps_them_apart(self, put: Put, page: Callable[..., Page]) -> None:
        for strategy in ("full", "bottom3top4"):
            put(strategy=strategy)
            put(strategy=strategy, task="anger")
            put(strategy=strategy, tags={"hardware": "Another processor"}, providers={"other": "1"})
            put(strategy=strategy, source="sample", tags={"data.source": "sample"})
        shown = page()
        assert any("3 groups that are not comparable" in notice for notice in shown.notices)
        assert any("say nothing about the real tasks" in notice for notice in shown.notices)
        for section in shown.sections:
            filled = [block for block in section.blocks if not all(isinstance(i, Missing) for i in block.items)]
            if len(filled) > 1:
                assert len({block.heading for block in filled}) == len(filled)
        # No group has two tasks, and nothing is combined across groups.
        assert not [name for picture in pictures(shown) if (name := picture.name).startswith(("across-", "averages-"))]

    def test_recorded_steps_says_so_under_their_conditions(self, put: Put, page: Callable[..., Page]) -> None:
        put()
        put(seed=43, tags={"cuda_graphs": "yes", "device": "cuda", "precision": "bf16"})
        shown = render_html(page())
        assert "cuda, bf16, CUDA graphs" in shown
        assert "cpu, fp32" in shown
        assert "cpu, fp32, CUDA graphs" not in shown

    def test_rows_of_some_splits_tells_those_that_are_known(self, put: Put, page: Callable[..., Page]) -> None:
        put("mdd", "full", more={"data/train_rows": 500, "data/dev_rows": 60})
        put("mdd", "head-only", more={"data/train_rows": 500})
        shown = render_html(page())
        assert re.search(r"mdd 500 train, 60 dev, \d+ test", shown)
        assert re.search(r"mdd 500 train, \d+ test", shown)

    def test_two_recipes_keeps_them_apart_within_a_block(self, put: Put, page: Callable[..., Page]) -> None:
        for lr in (1e-5, 2e-5):
            for strategy in ("full", "bottom3top4"):
                put(strategy=strategy, hyper={"lr": lr})
        headings = {heading for heading, _ in table(page(), "scores")}
        assert len(headings) == 2
        assert all("lr" in heading for heading in headings)

    def test_a_grid_of_frozen_layers_draws_the_papers_figure(self, put: Put, page: Callable[..., Page]) -> None:
        for bottom in range(3):
            for top in range(3):
                name = f"bottom{bottom}top{top}" if bottom and top else f"bottom{bottom}" if bottom else f"top{top}"
                put("mdd", "full" if not bottom + top else name)
        names = [picture.name for picture in pictures(page())]
        assert [name for name in names if name.startswith("grid-")] == ["grid-1-1-score", "grid-1-1-time"]

    def test_grids_on_other_rows_or_by_another_recipe_draws_a_map_of_each(
        self, put: Put, page: Callable[..., Page]
    ) -> None:
        ways: list[dict[str, Any]] = [{}, {"test_rows": "a part of them"}, {"hyper": {"warmup": 0.1}}]
        for cell in ("full", "bottom1", "bottom2", "top1", "top2", "bottom1top1"):
            for way in ways:
                put("mdd", cell, **way)
        drawn = [picture for picture in pictures(page()) if re.fullmatch(r"grid-.*-score", picture.name)]
        assert len(drawn) == 3
        assert len({picture.alt.split(", 6 settings")[0] for picture in drawn}) == 3

    def test_regression_and_several_labels(self, put: Put, page: Callable[..., Page]) -> None:
        rng = np.random.default_rng(3)
        plant_regression(put, rng)
        names = Labels.multilabel("joy", "fear", "anger")
        for strategy in ("full", "bottom3top4"):
            put("sec", strategy, labels=names, gold=rng.integers(0, 2, (40, 3)))
        shown = page()
        assert sum(picture.name.startswith("predicted-") for picture in pictures(shown)) == 2
        assert "counts per label" in render_html(shown)

    def test_hostile_names_shows_them_as_text(self, put: Put, page: Callable[..., Page]) -> None:
        hostile = "<script>alert(1)</script>$x$"
        labels = Labels.binary("<i>no</i>", "<svg onload=alert(2)>")
        for strategy in ("full", hostile):
            put(
                strategy=strategy, model="<img src=x onerror=alert(3)>", tags={"hardware": "<b>bold</b>"}, labels=labels
            )
        shown = render_html(page())
        for markup in ("<script", "<img", "<b>", "<i>", "<svg onload"):
            assert markup not in shown
        assert "&lt;script&gt;alert(1)&lt;/script&gt;$x$" in shown
        assert "&lt;svg onload" in shown

    def test_predictions_that_are_gone_still_has_its_scores(self, put: Put, page: Callable[..., Page]) -> None:
        for strategy in ("full", "head-only"):
            for seed in SEEDS:
                put(strategy=strategy, seed=seed, keep_predictions=False)
        shown = page()
        assert ("oold · mini", "head-only") in table(shown, "scores")
        (sentence,) = said(shown)
        assert "not tested: predictions.csv" in sentence.text
        assert isinstance(items(shown, "confusion")[0], Missing)

    def test_more_than_a_page_holds_says_what_it_leaves_out(self, put: Put, page: Callable[..., Page]) -> None:
        for task in ("anger", "oold", "mdd"):
            for strategy in STRATEGIES:
                put(task, strategy)
        shown = page(figure_limits=FigureLimits(subjects=2, strategies=2, seeds=1))
        assert sum(picture.name.startswith("trade-") for picture in pictures(shown)) == 2
        text = render_html(shown)
        assert "Shown: 2 of 3 tasks and models" in text
        assert "Shown: 2 of 3 tasks and models, at most 2 of up to 3 strategies each" in text
        assert len(table(shown, "scores")) == 9


def plant_regression(put: Put, rng: np.random.Generator) -> None:
    labels = Labels.regression(0, 1)
    for strategy in ("full", "bottom3top4"):
        put("svreg", strategy, labels=labels, gold=rng.random(40))


class TestTheCommand:
    def test_writes_a_page_from_runs_that_were_really_done(
        self, run: CommandLine, alue_bench: CommandLine, store: str, experiment: str, tmp_path: Path, client: Any
    ) -> None:
        done = run("-s", "full", "-s", "bottom1top2", "--epochs", "2")
        assert done.code == 0, done.err
        out = alue_bench("report", "--tracking-uri", store, "--experiment", experiment, "-o", tmp_path / "p.html")
        assert out.code == 0, out.err
        shown = (tmp_path / "p.html").read_text(encoding="utf-8")
        assert "bottom1top2" in shown
        assert 'id="figure-curves-1-1"' in shown
        assert "Sample data" in shown or "sample data" in shown

        # The same, kept with the parent run, whose description leads to it.
        experiment_id = client.get_experiment_by_name(experiment).experiment_id
        (parent,) = client.search_runs([experiment_id], "tags.kind = 'plan'")
        kept = {file.path for file in client.list_artifacts(parent.info.run_id)}
        assert {"report.html", "figures", "plan.json", "results.json"} <= kept
        assert f"runs/{parent.info.run_id}/artifacts/report.html" in parent.data.tags["mlflow.note.content"]

        of_plan = alue_bench(
            "report", "--tracking-uri", store, "--experiment", experiment, "--parent", parent.info.run_id,
            "--metric", "accuracy", "--output", tmp_path / "p.md",
        )  # fmt: skip
        assert of_plan.code == 0, of_plan.err
        assert "accuracy" in (tmp_path / "p.md").read_text(encoding="utf-8")

    def test_the_baseline_comes_along_with_a_strategy(
        self, alue_bench: CommandLine, put: Put, store: str, experiment: str
    ) -> None:
        for strategy in STRATEGIES:
            put(strategy=strategy)
        where = ("--tracking-uri", store, "--experiment", experiment)
        done = alue_bench("report", *where, "-s", "bottom3top4", "-o", "page.md")
        assert done.code == 0, done.err
        shown = Path("page.md").read_text(encoding="utf-8")
        assert "of the time of full" in shown
        assert "2 strategies" in shown

    @pytest.mark.parametrize(
        ("arguments", "what"),
        [
            (["--output", "page.pdf"], "must end in .html or .md"),
            (["--parent", "nonsense"], "no run 'nonsense'"),
            (["--metric", "f1_nano"], "f1_nano"),
            (["--output", "no/such/folder/page.html"], "cannot be written"),
        ],
    )
    def test_says_in_a_sentence_what_is_wrong(
        self, alue_bench: CommandLine, put: Put, store: str, experiment: str, arguments: Sequence[str], what: str
    ) -> None:
        put()
        done = alue_bench("report", "--tracking-uri", store, "--experiment", experiment, *arguments)
        assert done.code == 2
        assert what in done.err
        assert "Traceback" not in done.err
