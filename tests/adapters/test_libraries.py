"""Adapters of libraries that need not be here: one hand-computed answer of each operation."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest

from adapters.base import NotStarted
from conformance.formats import decode, encode
from conformance.operation import map_tensors
from conformance.participants import adapters, lacking


def run(name: str, operation: str, inputs: dict[str, Any], **params: Any) -> dict[str, Any]:
    if missing := lacking(adapters().get(name, f"adapters.{name}")):
        pytest.skip(f"{missing} is not installed")
    try:
        adapter = importlib.import_module(f"adapters.{name}").adapter
    except NotStarted as reason:
        pytest.skip(str(reason))
    request = {"operation": operation, "inputs": map_tensors(encode, inputs), "params": params}
    answer: dict[str, Any] = adapter.run(request)
    assert "outputs" in answer, answer
    return answer["outputs"]


def number(*values: Any, dtype: str = "float32") -> np.ndarray[Any, Any]:
    return np.array(values, dtype)


def close(tensor: Any, *values: Any, rtol: float = 1e-6) -> None:
    np.testing.assert_allclose(decode(tensor).astype(np.float64), values, rtol=rtol)


def test_thinc_clips_by_norm() -> None:
    found = run("thinc", "clip.norm", {"grads": [number(3, -4)]}, max_norm=1.0, ord=2)
    close(found["grads"][0], 0.6, -0.8)
    close(found["norms"][0], 5)


def test_thinc_steps_without_its_own_clip() -> None:
    # 10 - 0.5·(3 + 0.1·10): nothing has been limited to norm 1.
    steps = {"params": [number(10, 2)], "grads": [[number(3, -4)]]}
    options = {"lr": 0.5, "momentum": 0.0, "dampening": 0.0, "nesterov": False, "weight_decay": 0.1}
    close(run("thinc", "optim.sgd", steps, **options)["params"][0][0], 8, 3.9)


def test_thinc_transposes_its_weights() -> None:
    found = run(
        "thinc", "layer.dense",
        {"x": number([1, 2]), "weight": number([1, 0, 2], [0, 3, -1]), "bias": number(0.5, 0, -1),
         "dy": number([1, 2, -1])},
    )  # fmt: skip
    close(found["y"], [1.5, 6, -1])
    close(found["dx"], [-1, 7])
    close(found["dweight"], [1, 2, -1], [2, 4, -2])
    close(found["dbias"], 1, 2, -1)


def test_sklearn_thresholds_softly() -> None:
    # strength · step = 1: (3, -0.5, -2) -> (2, 0, -1)
    found = run("sklearn", "prox.l1", {"weights": [number(3, -0.5, -2)]}, strength=2.0, step=0.5)
    close(found["weights"][0], 2, 0, -1)


def test_sklearn_shrinks_rows_and_squares() -> None:
    # The row (3, 4) has norm 5, 1 - 1/5 of it stays; (0.6, 0) is inside.
    rows = {"weights": [number([3, 4], [0.6, 0])]}
    found = run("sklearn", "prox.group_lasso", rows, strength=1.0, step=1.0, axis=0)
    close(found["weights"][0], [2.4, 3.2], [0, 0])
    found = run("sklearn", "prox.l2", {"weights": [number(3, -1)]}, strength=0.5, step=0.5)
    close(found["weights"][0], 2, -2 / 3)
    net = run(
        "sklearn", "prox.elastic_net", {"weights": [number(3, -1, 5)]}, l1=1.0, l2=0.5, step=1.0
    )
    close(net["weights"][0], 1, 0, 2)


def test_timm_clips_each_unit_by_its_weights() -> None:
    # Columns are units: (3, 4) of norm 5 may have 0.1 · 5 against weights (0, 5); (0.03, 0) is inside.
    found = run(
        "timm", "clip.unitwise",
        {"grads": [number([3, 0.03], [4, 0])], "weights": [number([0, 2], [5, 1])]},
        clipping=0.1, unit_axis=-1, eps=1e-3,
    )  # fmt: skip
    close(found["grads"][0], [0.3, 0.03], [0.4, 0])


def test_opacus_clips_each_example() -> None:
    # (3, 4) becomes (0.6, 0.8) but for the 1e-6 in the divisor, (0.3, 0.4) stays; the mean of both.
    grads = {"grads": [number([3, 4], [0.3, 0.4])]}
    options: dict[str, Any] = {"max_norm": 1.0, "reduction": "mean", "scope": "all"}
    found = run("opacus", "clip.per_example", grads, **options)
    close(found["grads"][0], 0.45, 0.6, rtol=1e-6)
    close(found["norms"], 5, 0.5)


SGD = {"operation": "optim.sgd", "lr": 1.0}
TO_ONE = {"operation": "clip.global_norm", "max_norm": 1.0, "ord": 2}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["accelerate", "lightning"])
def test_a_loop_clips_the_mean_of_the_micro_batches(name: str) -> None:
    # The mean of (3, 0) and (0, 4) is (1.5, 2), of norm 2.5: a step of (0.6, 0.8) from (10, 0).
    micro = {"params": [number(10, 0)], "grads": [[[number(3, 0)], [number(0, 4)]]]}
    found = run(name, "train.step", micro, optimizer=SGD, clip=TO_ONE, accumulate="mean")
    close(found["total_norm"], 2.5)
    close(found["params"][0][0], 9.4, -0.8)


def test_torch_pruning_removes_the_slices_of_the_smallest_norm() -> None:
    # Columns of norm 5, 1 and 2; of three channels int(3 · 0.7) = 2 are left.
    weights = {"weights": number([3, 1, 0], [-4, 0, 2])}
    found = run("torch_pruning", "prune.structured", weights, amount=0.3, axis=1, ord=2)
    close(found["weights"], [3, 0, 0], [-4, 0, 2])


def test_torchao_keeps_two_of_four() -> None:
    weights, scores = number([5, -6, 7, 8]), number([0.4, 0.1, 0.2, 0.3])
    inputs = {"weights": weights, "scores": scores}
    found = run("torchao", "prune.n_m", inputs, n=2, m=4, axis=-1)
    close(found["weights"], [5, 0, 0, 8])
