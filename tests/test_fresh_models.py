"""A model that was loaded once and copied is the model that loading anew gives, to the last bit."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import ARCHITECTURES

from alue_bench.contract.model import Model
from alue_bench.contract.task import Labels
from alue_bench.measure.memory import MIB, PeakMemory
from alue_bench.planning.build import build_plan
from alue_bench.planning.request import PlanRequest
from alue_bench.running.run import execute
from alue_bench.training.pretrained.loading import Checkpoint, load_model, locate_checkpoint
from alue_bench.training.pretrained.model_cache import ModelCache

LABELS = Labels.multiclass("a", "b", "c")


def checkpoint_of(folder: Path) -> Checkpoint:
    return locate_checkpoint(Model(name="t", title="t", checkpoint=folder))


def assert_equal(one: Any, other: Any) -> None:
    mine, theirs = ({**dict(m.named_parameters()), **dict(m.named_buffers())} for m in (one, other))
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert one.config.to_dict() == other.config.to_dict()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_each_run_gets_what_loading_anew_gives_whatever_was_done_to_the_ones_before(
    architecture: str, tiny: Callable[[str], Path]
) -> None:
    checkpoint, models = checkpoint_of(tiny(architecture)), ModelCache()
    seeds = (1, 2, 1, 2, 1)
    for _ in seeds:
        models.expect(checkpoint, LABELS)
    before = torch.random.get_rng_state()
    for seed in seeds:
        model = models.model(checkpoint, LABELS, init_seed=seed)
        assert_equal(model, load_model(checkpoint, LABELS, init_seed=seed))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(7.0)  # as training does
    assert torch.equal(torch.random.get_rng_state(), before)


def test_one_model_is_kept_at_most_and_none_where_no_run_will_ask_for_it(tiny: Callable[[str], Path]) -> None:
    bert, electra, models = checkpoint_of(tiny("bert")), checkpoint_of(tiny("electra")), ModelCache()
    for checkpoint in (bert, bert, electra, electra):
        models.expect(checkpoint, LABELS)
    models.model(bert, LABELS, init_seed=1)
    assert models._template is not None
    models.model(electra, LABELS, init_seed=1)
    assert models._template.key == (electra, LABELS)
    models.model(electra, LABELS, init_seed=1)
    assert models._template is None
    models.model(bert, LABELS, init_seed=1)
    assert models._template is None


def test_what_travels_to_another_process_holds_no_weights(tiny_bert: Path) -> None:
    checkpoint, models = checkpoint_of(tiny_bert), ModelCache()
    models.expect(checkpoint, LABELS)
    models.expect(checkpoint, LABELS)
    models.model(checkpoint, LABELS, init_seed=1)
    sent = pickle.dumps(models)
    assert len(sent) < 5000
    assert_equal(pickle.loads(sent).model(checkpoint, LABELS, init_seed=1), load_model(checkpoint, LABELS, init_seed=1))


def test_the_copy_for_later_runs_is_no_memory_of_the_run_at_hand(tiny_bert: Path) -> None:
    """Else the first run of a plan, which keeps it, would take one model more than the last one, which has it."""
    checkpoint, models = checkpoint_of(tiny_bert), ModelCache()
    models.expect(checkpoint, LABELS)
    models.expect(checkpoint, LABELS)
    kept = []
    for _ in range(2):
        model = models.model(checkpoint, LABELS, init_seed=1)
        kept.append(models.kept_bytes)
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    assert kept == [sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()), 0]
    with PeakMemory("cpu") as all_of_it, PeakMemory("cpu", other_bytes=64 * MIB) as without:
        pass
    assert all_of_it.process_mib - without.process_mib == pytest.approx(64, abs=4)


@pytest.mark.usefixtures("folders_of_its_own")
def test_a_run_gives_the_same_alone_and_last_in_a_plan(tiny_bert: Path, registry: Any) -> None:
    def results(*strategies: str) -> list[Any]:
        hyper = {"epochs": 1, "max_length": 24, "lr": 1e-3, "batch_size": 8}
        request = PlanRequest(
            tasks=("anger",), models=(str(tiny_bert),), strategies=strategies, overrides=(("test", hyper),),
            sample=True, limit_train=24, limit_eval=16,
        )  # fmt: skip
        return [execute(planned.spec, planned.inputs)[0] for planned in build_plan(request, registry).runs]

    (alone,) = results("bottom1top1")
    last = results("full", "bottom2", "bottom1top1")[-1]
    assert list(alone.curves) == list(last.curves)
    assert (alone.predictions.scores == last.predictions.scores).all()
