"""Weights of the classes in the loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from alue_bench import Labels, UsageError
from alue_bench.training.class_weights import check_class_weights, class_weights
from alue_bench.training.optimizer import loss_function

TWO = Labels.binary("rare", "common")
THREE = Labels.multiclass("a", "b=1,5", "absent")
MANY = Labels.multilabel("joy", "fear", "never", "always")


def test_balanced_are_those_of_scikit_learn() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    targets = np.array([0] * 3 + [1] * 9)
    expected = compute_class_weight("balanced", classes=np.array([0, 1]), y=targets)
    assert class_weights("balanced", TWO, targets) == pytest.approx(tuple(expected))
    assert class_weights("balanced", THREE, targets) == pytest.approx((*expected, 1.0))  # no train row has it


def test_balanced_of_several_labels_weigh_the_positive_examples() -> None:
    targets = np.array([[1, 0, 0, 1], [1, 1, 0, 1], [1, 0, 0, 1], [0, 0, 0, 1]], dtype="float32")
    assert class_weights("balanced", MANY, targets) == pytest.approx((1 / 3, 3.0, 1.0, 1.0))
    assert class_weights("fear=2", MANY, targets) == (1.0, 2.0, 1.0, 1.0)


def test_named_weights_keep_their_ratio_and_have_the_mean_one_over_the_train_rows() -> None:
    targets = np.array([0] * 3 + [1] * 9)
    weights = class_weights(" rare=4 , common=.5", TWO, targets)
    assert weights is not None
    assert weights[0] / weights[1] == pytest.approx(8)
    assert np.array(weights)[targets].mean() == pytest.approx(1)
    assert class_weights("b=1,5=3", THREE, targets) == pytest.approx((1 / 2.5, 3 / 2.5, 1 / 2.5))
    assert class_weights("none", TWO, targets) is None


@pytest.mark.parametrize(
    ("given", "labels", "said"),
    [
        ("balanced", Labels.regression(0, 1), "task 'mine' is a regression, which has no classes"),
        ("balance", TWO, "balance is neither balanced nor LABEL=WEIGHT"),
        ("rar=2", TWO, "task 'mine' has no label 'rar'; it has rare, common"),
        ("rare=2,,", TWO, "neither balanced nor"),
        ("rare=", TWO, "no number follows 'rare='"),
        ("rare=2x", TWO, "no number follows 'rare='"),
        ("rare=0", TWO, "the weight of 'rare' is 0; it must be above 0"),
        ("rare=1e999", TWO, "must be above 0"),
        ("rare=1,rare=2", TWO, "gives two weights to 'rare'"),
        ("", TWO, "--class-weights is empty"),
    ],
)
def test_what_makes_no_sense_is_a_sentence(given: str, labels: Labels, said: str) -> None:
    with pytest.raises(UsageError, match="--class-weights") as refused:
        check_class_weights(given, labels, "mine")
    assert said in str(refused.value)


@pytest.mark.parametrize("labels", [TWO, MANY], ids=["one label", "several"])
def test_the_loss_is_the_weighted_one_and_that_of_a_batch_is_the_sum_of_its_parts(labels: Labels) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, labels.outputs, generator=generator)
    targets = torch.tensor([0, 1, 1, 1, 0, 1]) if labels is TWO else (logits.flip(0) > 0).float()
    weights = torch.arange(1.0, 1 + labels.outputs)
    loss, plain = loss_function(labels, weights), loss_function(labels)
    assert loss(logits, targets) == pytest.approx(
        float(loss(logits[:2], targets[:2]) * 2 + loss(logits[2:], targets[2:]) * 4) / 6
    )
    one_by_one = torch.stack([plain(logits[i : i + 1], targets[i : i + 1]) for i in range(6)])
    if labels is TWO:
        assert loss(logits, targets) == pytest.approx(float((one_by_one * weights[targets]).mean()))
    assert loss_function(labels, torch.ones(labels.outputs))(logits, targets) == pytest.approx(
        float(plain(logits, targets))
    )
