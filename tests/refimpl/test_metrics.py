"""Validation metrics: hand-computed shares, and means that do not depend on how data are cut."""

from __future__ import annotations

from typing import Any

import array_api_strict
import numpy as np
import pytest

from refimpl import metrics, models

torch = pytest.importorskip("torch")

LIBRARIES: list[Any] = [np.asarray, array_api_strict.asarray, torch.tensor]
MODEL: list[dict[str, Any]] = [
    {"operation": "layer.dense", "units": 5},
    {"operation": "layer.relu"},
    {"operation": "layer.dense", "units": 3},
]
CROSS_ENTROPY = {"operation": "loss.softmax_cross_entropy"}


@pytest.mark.parametrize("make", LIBRARIES, ids=["numpy", "strict", "torch"])
@pytest.mark.parametrize(
    ("logits", "targets", "share"),
    [
        ([[0.1, 0.7, 0.2], [3.0, -1.0, 2.0], [-5.0, -3.0, -4.0]], [1, 2, 1], 2 / 3),
        ([[1.0, 1.0], [1.0, 1.0]], [0, 1], 0.5),  # the first of equals
        ([[float("nan"), 1.0], [0.0, float("nan")], [2.0, 1.0]], [0, 1, 0], 1 / 3),
        ([[float("nan"), 1.0], [0.0, float("nan")]], [1, 0], 0.0),
        ([[float("inf"), 1.0], [-float("inf"), -9.0]], [0, 1], 1.0),
    ],
)
def test_accuracy_by_hand(logits: Any, targets: Any, share: float, make: Any) -> None:
    result = metrics.accuracy(make(logits), make(targets))
    assert tuple(result.shape) == ()
    assert float(result) == pytest.approx(share, rel=1e-7)


def test_evaluation_does_not_depend_on_how_the_data_are_cut() -> None:
    rng = np.random.default_rng(3)
    params = models.initial_params(MODEL, (4,), seed=1, dtype="float64")
    x, targets = rng.normal(size=(10, 4)), rng.integers(0, 3, 10)
    whole = metrics.evaluate(MODEL, CROSS_ENTROPY, params, [(x, targets)])
    parts = [(x[a:b], targets[a:b]) for a, b in ((0, 6), (6, 6), (6, 9), (9, 10))]
    cut = metrics.evaluate(MODEL, CROSS_ENTROPY, params, parts)
    assert cut["loss"] == pytest.approx(whole["loss"], rel=1e-14)
    assert cut["accuracy"] == pytest.approx(whole["accuracy"], rel=1e-6)
    assert cut["examples"] == 10.0
    # from the formula: log-sum-exp less the target's logit, and the largest logit
    h = np.maximum(x @ params[0] + params[1], 0) @ params[2] + params[3]
    expected = np.log(np.exp(h).sum(1)) - h[np.arange(10), targets]
    assert whole["loss"] == pytest.approx(expected.mean(), rel=1e-12)
    assert whole["accuracy"] == pytest.approx((h.argmax(1) == targets).mean(), rel=1e-6)
    summed = metrics.evaluate(MODEL, {**CROSS_ENTROPY, "reduction": "sum"}, params, parts)
    assert summed["loss"] == pytest.approx(expected.sum(), rel=1e-12)
    means = [
        metrics.evaluate(MODEL, CROSS_ENTROPY, params, [p])["loss"] for p in parts if len(p[1])
    ]
    assert np.mean(means) != pytest.approx(whole["loss"], rel=1e-3), "the data must tell them apart"


def test_regression_has_no_accuracy() -> None:
    model = [{"operation": "layer.dense", "units": 2}]
    params = [np.array([[1.0, 0.5], [-1.0, 2.0]]), np.array([0.25, 0.0])]
    x, targets = np.array([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0]]), np.zeros((3, 2))
    batches = [(x[:2], targets[:2]), (x[2:], targets[2:])]
    result = metrics.evaluate(model, {"operation": "loss.mse"}, params, batches)
    y = [-0.75, 4.5, 3.25, 1.5, -0.75, 2.0]
    assert result == {"loss": pytest.approx(np.mean(np.square(y))), "examples": 3.0}


def test_nothing_to_evaluate_is_refused() -> None:
    params = models.initial_params(MODEL, (4,), seed=1)
    for batches in ([], [(np.zeros((0, 4)), np.zeros(0, np.int64))]):
        with pytest.raises(ValueError, match="there are no examples"):
            metrics.evaluate(MODEL, CROSS_ENTROPY, params, batches)
    with pytest.raises(ValueError, match="needs examples"):
        metrics.accuracy(np.zeros((0, 3)), np.zeros(0, np.int64))
    with pytest.raises(ValueError, match=r"logits must be \(N, C\)"):
        metrics.accuracy(np.zeros((2, 3)), np.zeros(3, np.int64))
