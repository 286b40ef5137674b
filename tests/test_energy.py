"""Energy is read from counters or not reported at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from alue_bench.measure.energy import POWERCAP, Energy


def package(folder: Path, name: str, microjoules: int, capacity: int = 10_000_000) -> Path:
    """A counter as Linux shows it."""
    path = folder / name
    path.mkdir(parents=True, exist_ok=True)
    (path / "energy_uj").write_text(f"{microjoules}\n")
    (path / "max_energy_range_uj").write_text(f"{capacity}\n")
    return path


def test_packages_are_added_up_and_their_parts_are_not(tmp_path: Path) -> None:
    for name in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0"):
        package(tmp_path, name, 1_000_000)
    with Energy("cpu", tmp_path) as energy:
        package(tmp_path, "intel-rapl:0", 3_500_000)
        package(tmp_path, "intel-rapl:1", 1_500_000)
        package(tmp_path, "intel-rapl:0:0", 9_000_000)
    assert energy.joules == {"cpu": pytest.approx(3.0)}


def test_a_counter_that_starts_again_is_followed(tmp_path: Path) -> None:
    package(tmp_path, "intel-rapl:0", 9_000_000)
    with Energy("cpu", tmp_path) as energy:
        package(tmp_path, "intel-rapl:0", 1_000_000)
    assert energy.joules == {"cpu": pytest.approx(2.0)}


def test_without_a_counter_nothing_is_reported(tmp_path: Path) -> None:
    with Energy("cpu", tmp_path / "nowhere") as energy:
        pass
    assert energy.joules == {}


@pytest.mark.skipif(not list(POWERCAP.glob("intel-rapl:*/energy_uj")), reason="this machine shows no energy counter")
def test_the_counter_of_this_machine_advances() -> None:
    with Energy("cpu") as energy:
        sum(range(3_000_000))
    assert all(joules > 0 for joules in energy.joules.values())
