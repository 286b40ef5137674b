"""Simulated sweeps: by the choosing seed the recommended setting looks too good, by fresh seeds it does not."""

from __future__ import annotations

import pytest

from benchmarks.verdicts.sweeps import WORLDS, main, simulate


@pytest.mark.parametrize("world", ["noisy frozen seeds", "seed SD 3 points"])
def test_only_fresh_seeds_tell_the_loss(world: str) -> None:
    outcomes = simulate(world, 120)
    naive, error = outcomes.bias(outcomes.naive)
    assert naive < -4 * error, "the choosing seed is lucky"
    confirmed, error = outcomes.bias(outcomes.confirmed)
    assert abs(confirmed) < 4 * error
    assert outcomes.coverage[0] > 0.85
    outcomes.confirmed = outcomes.naive
    assert not outcomes.holds, "the benchmark would notice"


def test_the_command_prints_a_line_for_each_world(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--simulations", "20", "--world", "flat"]) in (0, 1)
    said = capsys.readouterr().out
    assert "confirmed bias" in said
    assert "flat" in WORLDS
