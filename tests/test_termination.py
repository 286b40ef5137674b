"""SIGTERM ends the work as cleanly as Ctrl-C, wherever it arrives."""

from __future__ import annotations

import signal
import sys

import pytest

from alue_bench.executors.termination import Terminated, raise_if_terminated, stop_on_sigterm


class Finalised:
    """An object whose finaliser runs the given signal's handler, as when SIGTERM arrives while Python frees memory."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error

    def __del__(self) -> None:
        if self.error is not None:
            raise self.error
        signal.raise_signal(signal.SIGTERM)


def test_a_sigterm_in_a_finaliser_is_heeded_at_the_next_step_and_not_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    with stop_on_sigterm():
        Finalised()
        with pytest.raises(Terminated):
            raise_if_terminated()
    assert capsys.readouterr().err == ""
    assert sys.unraisablehook is sys.__unraisablehook__


def test_another_error_in_a_finaliser_is_still_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    with stop_on_sigterm():
        Finalised(ValueError("a fault of the library"))
    assert "ValueError: a fault of the library" in capsys.readouterr().err
