"""The search on made-up score surfaces: what it returns, how often it errs, what it costs.

The surfaces run from tasks where freezing costs nothing to such where only the lightest is bearable; see
`simulated_scores`. Rates are over a fixed set of worlds, so that a change of the method that errs more often is seen.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_scores import World, candidates, measured_world, question, search, world

from alue_bench.contract.errors import UsageError
from alue_bench.contract.task import Labels
from alue_bench.evaluation.additive import additive
from alue_bench.evaluation.metrics import metrics
from alue_bench.searching.candidates import Amount, parse_amount, parse_share
from alue_bench.searching.observations import (
    Evaluation,
    SeedNoise,
    by_replicate,
    left_out_by_sums,
    left_out_scores,
    paired_loss,
    seed_noise,
)
from alue_bench.searching.policy import Decision, Question, Step, ahead, decide
from alue_bench.searching.runs import SearchGrid
from alue_bench.searching.state import Done, SearchState
from alue_bench.searching.surface import fit

WORLDS = range(40)


def within(of: World, asked: Question, part: float = 1.0) -> list[str]:
    """The candidates that truly lose no more than the tolerance, or a part of it."""
    limit = part * asked.tolerance.of(of.full)
    return [c.name for c in of.options if of.loss(c.name) <= limit + 1e-12]


class TestWithoutNoise:
    @pytest.fixture(scope="class")
    def searched(self) -> list[tuple[World, Question, Decision]]:
        worlds = [world(draw, noise=0) for draw in WORLDS]
        return [(w, question(w), search(w, question(w))[0]) for w in worlds]

    def test_the_answer_is_always_within_the_tolerance(self, searched: list[tuple[World, Question, Decision]]) -> None:
        for of, asked, decision in searched:
            assert decision.best.candidate.name in within(of, asked)

    def test_it_is_nearly_the_cheapest_such(self, searched: list[tuple[World, Question, Decision]]) -> None:
        excess = []
        for of, asked, decision in searched:
            cheapest = min(c.cost for c in of.options if c.name in within(of, asked))
            excess.append(decision.best.candidate.cost - cheapest)
        assert np.mean(excess) < 0.05
        assert np.quantile(excess, 0.9) < 0.15


class TestWithTheNoiseOfSeedsAndExamples:
    @pytest.fixture(scope="class")
    def searched(self) -> list[tuple[World, Question, Decision]]:
        worlds = [world(1000 + draw) for draw in range(60)]
        return [(w, question(w), search(w, question(w))[0]) for w in worlds]

    def test_a_setting_beyond_tolerance_and_margin_is_returned_as_seldom_as_stated(
        self, searched: list[tuple[World, Question, Decision]]
    ) -> None:
        bad = 0
        for of, asked, decision in searched:
            limit = asked.tolerance.of(of.full) + asked.margin.of(of.full)
            bad += of.loss(decision.best.candidate.name) > limit
        assert bad / len(searched) <= 0.1  # the level

    def test_it_saves_more_often_than_not(self, searched: list[tuple[World, Question, Decision]]) -> None:
        """A search that always answers full would err never."""
        gains = [1 - decision.best.candidate.cost for _, _, decision in searched]
        possible = [1 - min(c.cost for c in of.options if c.name in within(of, asked)) for of, asked, _ in searched]
        assert np.mean(gains) > 0.5 * np.mean(possible)

    def test_more_is_not_spent_than_the_budget_allows(self, searched: list[tuple[World, Question, Decision]]) -> None:
        assert all(decision.spent <= asked.budget + 1e-6 for _, asked, decision in searched)
        # A quarter of the grid suffices most of the time to come to an end.
        assert np.mean([decision.exhausted for _, _, decision in searched]) < 0.7

    def test_short_runs_that_mislead_do_not_end_it(self) -> None:
        """On a real task, with a third of the epochs, freezing seemed to cost what it does not."""
        worlds = [measured_world(draw) for draw in range(40)]
        ends = [search(of, question(of)) for of in worlds]
        for _, evaluations in ends:
            assert any(not e.short and e.candidate != "full" for e in evaluations)
        budget = question(worlds[0]).budget
        assert np.mean([decision.spent for decision, _ in ends]) > 0.6 * budget
        answers = [decision.best.candidate.name for decision, _ in ends]
        assert np.mean([answer != "full" for answer in answers]) > 0.2
        assert np.mean([of.loss(answer) > 0.03 * of.full for of, answer in zip(worlds, answers, strict=True)]) <= 0.1

    def test_scores_that_do_not_fall_short_are_never_given_up_all(self) -> None:
        """If freezing costs no score, the search ends far below full fine-tuning's cost."""
        spent = []
        for draw in range(10):
            of = world(2000 + draw)
            of = replace(of, score=dict.fromkeys(of.score, of.full))
            spent.append(search(of, question(of))[0].best.candidate.cost)
        assert np.mean(spent) < 0.5


class TestEnds:
    @settings(max_examples=25)
    @given(
        draw=st.integers(0, 10_000),
        layers=st.sampled_from([2, 4, 6]),
        share=st.floats(0.01, 1.5),
        noise=st.floats(0, 3),
        tolerance=st.sampled_from([Amount(0.0, True), Amount(0.01, True), Amount(0.05, False)]),
    )
    def test_any_search_ends_within_its_budget_and_never_asks_for_a_run_twice(
        self, draw: int, layers: int, share: float, noise: float, tolerance: Amount
    ) -> None:
        of = world(draw, noise=noise, layers=layers)
        asked = question(of, tolerance=tolerance, budget=share * sum(c.cost for c in of.options))
        decision, evaluations = search(of, asked)
        assert decision.spent <= asked.budget + 1e-6
        steps = Counter((e.candidate, e.replicate, e.short) for e in evaluations)
        assert max(steps.values(), default=0) <= 1
        assert decision.best.candidate == asked.full or decision.best.state == "supported"

    def test_a_budget_too_small_for_a_comparison_says_so_and_answers_full(self) -> None:
        of = world(3)
        decision, evaluations = search(of, question(of, budget=2.0))
        assert decision.best.candidate.name == "full"
        assert decision.best.loss is None
        assert decision.exhausted
        assert "budget" in decision.why
        decision, evaluations = search(of, question(of, budget=0.2))
        assert (evaluations, decision.exhausted, decision.best.candidate.name) == ([], True, "full")

    def test_an_interrupted_search_goes_on_as_if_it_had_not_been(self) -> None:
        of = world(5)
        asked = question(of)
        whole, evaluations = search(of, asked)
        for done in range(0, len(evaluations), 3):
            step = decide(asked, evaluations[:done]).step
            assert step is not None
            assert of.evaluation(step) == evaluations[done]
        assert decide(asked, evaluations) == whole

    def test_where_seeds_differ_too_much_it_stops_early_and_says_so(self) -> None:
        reasons = []
        for draw in range(20):
            of = world(draw)
            of = replace(of, score=dict.fromkeys(of.score, of.full), seed_sd=0.15 * of.full)
            decision, _ = search(of, question(of))
            if "seeds differ so much" in decision.why:
                reasons.append(decision)
        assert len(reasons) >= 3
        for decision in reasons:
            assert decision.best.candidate.name == "full"
            assert not decision.exhausted
        assert np.mean([decision.spent for decision in reasons]) < 11  # of twelve

    def test_candidates_whose_training_fails_are_left_out_and_paid_for(self) -> None:
        of = world(5)
        asked = question(of)
        _, evaluations = search(of, asked)
        before = next(i for i, e in enumerate(evaluations) if not e.short and e.candidate != "full")
        broken = decide(asked, evaluations[:before]).step
        assert broken is not None
        after = decide(asked, evaluations[:before], [broken])
        assert after.step is not None
        assert after.step.candidate != broken.candidate
        assert after.spent == pytest.approx(decide(asked, evaluations[:before]).spent + broken.cost)
        full = Step(asked.full, 0)
        assert decide(asked, [], [full]).step is None


class TestAhead:
    """The runs that a search may do at once."""

    @settings(max_examples=15)
    @given(
        draw=st.integers(0, 10_000),
        layers=st.sampled_from([2, 4, 6]),
        share=st.floats(0.01, 1.0),
        short_runs=st.booleans(),
    )
    def test_it_is_what_one_run_after_the_other_asks_for(
        self, draw: int, layers: int, share: float, short_runs: bool
    ) -> None:
        of = world(draw, layers=layers)
        asked = question(of, budget=share * sum(c.cost for c in of.options), short_runs=short_runs)
        decision, evaluations = search(of, asked)
        for done in range(len(evaluations)):
            foreseen = [of.evaluation(d.step) for d in ahead(asked, evaluations[:done]) if d.step]
            assert foreseen == evaluations[done : done + len(foreseen)]
            assert foreseen
        assert ahead(asked, evaluations) == ()
        assert decision.step is None

    def test_full_and_the_whole_first_look_behind_it(self) -> None:
        of = world(5)
        asked = question(of)
        steps = [decision.step for decision in ahead(asked, [])]
        assert len(steps) == 8
        assert [step.short for step in steps if step] == [False] + [True] * 7
        assert steps[0] == Step(asked.full, 0)
        # A candidate that fails in it changes nothing for the others; later runs are asked for one by one.
        broken = steps[2]
        assert broken is not None
        assert [d.step for d in ahead(asked, [], [broken])] == [step for step in steps if step != broken]
        assert len(ahead(asked, [of.evaluation(step) for step in steps if step])) == 1


class TestNothingLearnt:
    """Full fine-tuning at the score that ignoring the text gets."""

    @staticmethod
    def full(score: float, replicate: int = 0, trivial: float = 0.45, error: float = 0.02) -> Evaluation:
        return Evaluation("full", replicate, score, trivial=trivial, trivial_error=error)

    def test_it_ends_after_one_run_without_an_answer(self) -> None:
        asked = question(world(5))
        assert decide(asked, []).step == Step(asked.full, 0)
        ended = decide(asked, [self.full(0.46)])
        assert ended.step is None
        assert ended.spent == asked.full.cost
        assert ended.unlearnt is not None
        assert not ended.exhausted
        assert "its dev score 0.460 is not above the trivial score 0.450 by more than chance" in ended.why
        assert ahead(asked, [self.full(0.46)]) == ()

    def test_it_goes_on_where_full_is_above_by_more_than_chance(self) -> None:
        asked = question(world(5))
        assert decide(asked, [self.full(0.49)]).step is not None
        assert decide(asked, [self.full(0.49, error=0.1)]).step is None  # few examples
        assert decide(asked, [self.full(0.1, trivial=float("nan"))]).step is not None  # of an older version

    def test_further_seeds_count(self) -> None:
        """One seed of three that learns is no reference; two are."""
        asked = question(world(5))
        assert decide(asked, [self.full(s, r) for r, s in enumerate((0.75, 0.45, 0.45))]).unlearnt is not None
        assert decide(asked, [self.full(s, r) for r, s in enumerate((0.75, 0.45, 0.80))]).unlearnt is None

    def test_the_conclusion_and_the_document_have_no_answer(self) -> None:
        of = world(5)
        search = TestConclusion.search(of)
        searched = self.full(0.45)
        search.done.append(Done(Step(search.question.full, 0), "id", False, "", searched, lambda: searched, 1.0, 1.0))
        ended = search.decision()
        (said,) = search.conclusion(ended)
        assert said.startswith(
            "No answer: full did not learn: its dev score 0.450 is not above the trivial score 0.450,"
        )
        assert "try more data, more epochs or another --lr" in said
        document = search.as_dict(ended)
        assert (document["answer"], document["supported"], document["cost_of_full"]) == (None, False, None)
        assert document["nothing_learnt"]["trivial_score"] == 0.45


class TestConclusion:
    @staticmethod
    def search(of: World) -> SearchState:
        asked = question(of)
        return SearchState("oold", "mini", "f1_macro", SearchGrid(of.options, {}, asked.layers, 1.0, 1), asked)

    @staticmethod
    def go_on(search: SearchState, of: World) -> None:
        """The next run."""
        step = search.decision().step
        assert step is not None
        evaluation = of.evaluation(step)
        search.done.append(Done(step, "id", False, "", evaluation, lambda: evaluation, step.cost, 1.0))

    def test_where_full_fails_with_a_further_seed_what_was_found_stands(self) -> None:
        of = world(1, noise=0.3)
        search = self.search(of)
        while search.decision().best.loss is None:
            self.go_on(search, of)
        decision = search.decision()
        assert decision.step is not None  # something cheaper is hoped for
        search.failed[Step(search.question.full, 5)] = "out of memory"
        ended = search.decision()
        assert (ended.step, ended.best) == (None, decision.best)
        said = search.conclusion(ended)
        assert said[0].startswith(f"Answer: {decision.best.candidate.name}, at ")
        assert "a cheaper setting may do as well: full failed with a further seed" in said[1]
        assert search.as_dict(ended)["supported"]

    def test_where_full_fails_with_the_first_one_there_is_no_answer(self) -> None:
        search = self.search(world(5))
        search.failed[Step(search.question.full, 0)] = "out of memory"
        assert search.conclusion(search.decision()) == [
            "No answer: full failed (out of memory), so there is no reference for other settings."
        ]


class TestLoss:
    NOISE = SeedNoise(2 * 0.01**2, 4)

    @staticmethod
    def runs(name: str, scores: list[float]) -> dict[int, Evaluation]:
        return by_replicate([Evaluation(name, r, s) for r, s in enumerate(scores)], name)

    def test_only_seeds_that_both_ran_with_count(self) -> None:
        base, own = self.runs("full", [0.8, 0.7, 0.9]), self.runs("bottom3", [0.7, 0.7])
        loss = paired_loss(base, own, self.NOISE)
        assert loss is not None
        assert (loss.mean, loss.pairs) == (pytest.approx(0.05), 2)
        assert paired_loss(base, {}, self.NOISE) is None

    def test_it_is_surer_with_more_seeds_and_less_sure_with_few_examples(self) -> None:
        few, many = (paired_loss(self.runs("full", [0.8] * n), self.runs("b", [0.7] * n), self.NOISE) for n in (2, 6))
        assert few is not None
        assert many is not None
        assert many.standard_error < few.standard_error
        assert many.upper(0.1) < few.upper(0.1)
        assert few.lower(0.1) < few.mean < few.upper(0.1)

    def test_the_jackknife_is_the_variance_of_a_mean_over_examples(self) -> None:
        rng = np.random.default_rng(1)
        right = rng.random(4000) < 0.7
        left_out = left_out_scores(len(right), lambda kept: float(right[kept].mean()))
        base = {0: Evaluation("full", 0, 1.0, tuple([1.0] * len(left_out)))}
        own = {0: Evaluation("b", 0, float(right.mean()), left_out)}
        loss = paired_loss(base, own, SeedNoise(0.0, 4))
        assert loss is not None
        assert loss.standard_error == pytest.approx(np.sqrt(0.7 * 0.3 / 4000), rel=0.25)

    def test_a_metric_of_sums_gives_the_same_scores(self) -> None:
        rng = np.random.default_rng(4)
        gold, predicted = rng.integers(0, 3, (2, 157))
        labels = Labels.multiclass("a", "b", "c")
        sums = additive("f1_macro", gold, predicted, labels)
        assert sums is not None
        slowly = left_out_scores(157, lambda kept: metrics(gold[kept], predicted[kept], labels)["f1_macro"])
        assert left_out_by_sums(sums.parts, sums.value) == pytest.approx(slowly)
        assert len(slowly) == 20

    def test_what_both_get_wrong_makes_no_difference_uncertain(self) -> None:
        shared = tuple(np.random.default_rng(2).normal(0.7, 0.01, 40))
        one = {0: Evaluation("full", 0, 0.7, shared)}
        loss = paired_loss(one, {0: Evaluation("b", 0, 0.7, shared)}, SeedNoise(0.0, 4))
        assert loss is not None
        assert (loss.mean, loss.standard_error, loss.upper(0.1)) == (0.0, 0.0, 0.0)

    def test_the_noise_of_seeds_is_pooled_over_candidates(self) -> None:
        rng = np.random.default_rng(3)
        runs = [
            Evaluation(name, r, 0.8 + rng.normal(0, 0.05))
            for name in ("full", *(f"bottom{n}" for n in range(1, 9)))
            for r in range(6)
        ]
        noise = seed_noise(runs, "full")
        assert noise.degrees == pytest.approx(4 + 8 * 5)
        assert np.sqrt(noise.of_one_run) == pytest.approx(0.05, rel=0.4)
        assert seed_noise([], "full").degrees == 4


class TestSurface:
    def test_it_passes_near_what_was_seen_and_knows_less_elsewhere(self) -> None:
        options = candidates(12)
        seen = {"full": 0.8, "bottom6top0": 0.76, "bottom12top0": 0.5}
        runs = [Evaluation(name, 0, score) for name, score in seen.items()]
        surface = fit(options, 12, runs, scale=0.8, noise_variance=0.005**2)
        places = {c.name: i for i, c in enumerate(options)}
        for name, score in seen.items():
            assert surface.mean[places[name]] == pytest.approx(0.8 - score, abs=0.02)
        assert surface.sd[places["full"]] == pytest.approx(0, abs=1e-6)
        assert surface.sd[places["bottom2top9"]] > surface.sd[places["bottom6top0"]]

    def test_whoever_freezes_more_is_no_likelier_to_be_good_enough(self) -> None:
        of = world(11)
        asked = question(of)
        _, evaluations = search(of, asked)
        chances = fit(of.options, asked.layers, evaluations, scale=of.full, noise_variance=of.seed_sd**2).likely_within(
            of.options, 0.01 * of.full
        )
        place = {(c.bottom, c.top): chance for c, chance in zip(of.options, chances, strict=True)}
        for (bottom, top), chance in place.items():
            for less in ((bottom - 1, top), (bottom, top - 1)):
                if less in place:
                    assert chance <= place[less] + 1e-12


class TestAmounts:
    def test_a_part_or_a_difference(self) -> None:
        assert parse_amount("--tolerance", "1%").of(0.5) == pytest.approx(0.005)
        assert parse_amount("--tolerance", "0.02").of(0.5) == 0.02
        assert (str(Amount(0.01, True)), str(Amount(0.02, False))) == ("1%", "0.02")
        assert (parse_share("--budget", "25%"), parse_share("--budget", "0.25")) == (0.25, 0.25)

    @pytest.mark.parametrize("text", ["", "much", "-1%", "100%", "1", "1 point", "nan"])
    def test_anything_else_is_refused_with_the_option_named(self, text: str) -> None:
        with pytest.raises(UsageError, match="--tolerance is"):
            parse_amount("--tolerance", text)

    @pytest.mark.parametrize("text", ["", "0", "0%", "-25%", "all"])
    def test_a_budget_is_above_nothing(self, text: str) -> None:
        with pytest.raises(UsageError, match="--budget is"):
            parse_share("--budget", text)
