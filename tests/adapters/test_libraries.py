"""Adapters of libraries that need not be here: one hand-computed answer of each operation.

A library that is not installed is asked in its environment where `secateurs env` made one, else not at all.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from adapters.base import Adapter, NotStarted
from conformance import environments
from conformance.formats import decode, encode
from conformance.operation import map_tensors
from conformance.participants import adapters, command, lacking
from conformance.protocol import Process


def run(name: str, operation: str, inputs: dict[str, Any], **params: Any) -> dict[str, Any]:
    request = {"operation": operation, "inputs": map_tensors(encode, inputs), "params": params}
    answer = ask(name, request)
    assert "outputs" in answer, answer
    outputs: dict[str, Any] = answer["outputs"]
    return outputs


def ask(name: str, request: dict[str, Any]) -> dict[str, Any]:
    module = adapters()[name]
    missing = lacking(module) or environments.absent(name)
    if missing and not environments.ready(name):
        pytest.skip(f"{missing} is not installed, and secateurs env {name} has not been run")
    if missing:
        return started(name).ask({"cmd": "run", "id": request["operation"], **request})
    try:
        adapter: Adapter = importlib.import_module(module).adapter
    except NotStarted as reason:
        pytest.skip(str(reason))
    return adapter.run(request)


@functools.cache
def started(name: str) -> Process:
    process = Process(command(name, adapters()[name]), 120)
    process.start()
    STARTED.append(process)
    return process


STARTED: list[Process] = []


@pytest.fixture(scope="module", autouse=True)
def _closing() -> Iterator[None]:
    yield
    for process in STARTED:
        process.close()


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


def test_pytorch_optimizer_clips_each_unit_by_its_weights() -> None:
    # Columns are units, as for timm below; rows are where the library itself has them.
    grads, weights = [number([3, 0.03], [4, 0])], [number([0, 2], [5, 1])]
    asked = {"grads": grads, "weights": weights}
    found = run("pytorch_optimizer", "clip.unitwise", asked, clipping=0.1, unit_axis=1, eps=1e-3)
    close(found["grads"][0], [0.3, 0.03], [0.4, 0])
    # Of three axes two have the units: (3, 4) along the middle axis, against weights (0, 5).
    asked = {"grads": [number([[3], [4]])], "weights": [number([[0], [5]])]}
    found = run(
        "pytorch_optimizer", "clip.unitwise", asked, clipping=0.1, unit_axis=[0, 2], eps=1e-3
    )
    close(found["grads"][0], [[0.3], [0.4]])


def test_pytorch_optimizer_measures_where_it_does_not_clip() -> None:
    found = run(
        "pytorch_optimizer", "clip.global_norm", {"grads": [number(3, -4)]}, max_norm=0.0, ord=2
    )
    close(found["grads"][0], 3, -4)
    close(found["total_norm"], 5)


def test_pytorch_optimizer_decays_through_the_gradient_or_beside_it() -> None:
    steps = {"params": [number(10, 2)], "grads": [[number(3, -4)], [number(1, 1)]]}
    plain = {"momentum": 0.0, "dampening": 0.0, "nesterov": False, "weight_decay": 0.1}
    found = run("pytorch_optimizer", "optim.sgd", steps, lr=[0.5, 1.0], **plain)
    # 10 - 0.5·(3 + 0.1·10), then 8 - (1 + 0.1·8)
    close(found["params"][0][0], 8, 3.9)
    close(found["params"][1][0], 6.2, 2.51)
    first = {"params": [number(10, 2)], "grads": [[number(3, -4)]]}
    adam = {"beta1": 0.9, "beta2": 0.99, "eps": 0.0, "weight_decay": 0.1, "amsgrad": False}
    # The first step of Adam is lr towards the sign; beside it 10 and 2 lose a twentieth.
    found = run("pytorch_optimizer", "optim.adam", first, lr=0.5, **adam)
    close(found["params"][0][0], 9.5, 2.5)
    found = run("pytorch_optimizer", "optim.adamw", first, lr=0.5, **adam)
    close(found["params"][0][0], 9, 2.4)


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


@pytest.mark.parametrize("name", ["mlx", "paddle"])
def test_both_tensors_are_clipped_by_their_joint_norm(name: str) -> None:
    # (3, -4) and (12) have norm 13 together; 1e-6 is added to it.
    grads = {"grads": [number(3, -4), number(12)]}
    found = run(name, "clip.global_norm", grads, max_norm=6.5, ord=2)
    close(found["grads"][0], 1.5, -2)
    close(found["grads"][1], 6)
    close(found["total_norm"], 13)


@pytest.mark.parametrize("name", ["mlx", "paddle", "tinygrad"])
def test_momentum_is_kept_from_step_to_step(name: str) -> None:
    # v = 3, then 0.5·3 - 1 = 0.5: 10 - 0.2·3 = 9.4, then 9.4 - 0.2·0.5 = 9.3
    steps = {"params": [number(10)], "grads": [[number(3)], [number(-1)]]}
    options = {"lr": 0.2, "momentum": 0.5, "dampening": 0.0, "nesterov": False, "weight_decay": 0.0}
    first, second = run(name, "optim.sgd", steps, **options)["params"]
    close(first[0], 9.4)
    close(second[0], 9.3)


@pytest.mark.parametrize("name", ["mlx", "paddle", "tinygrad"])
def test_cross_entropy_and_its_gradient(name: str) -> None:
    # Of e^0 and e^(ln 3), a quarter and three quarters.
    x, targets = number([0, np.log(3)]), np.array([1])
    found = run(name, "loss.softmax_cross_entropy", {"x": x, "targets": targets}, reduction="sum")
    close(found["loss"], -np.log(0.75))
    close(found["dx"], [0.25, -0.25])


def test_tinygrad_clips_by_value() -> None:
    found = run("tinygrad", "clip.value", {"grads": [number(3, -4, 0.5)]}, min=-1.0, max=2.0)
    close(found["grads"][0], 2, -1, 0.5)


@pytest.mark.slow
def test_tfmot_and_nncf_prune_the_smaller_half() -> None:
    for name in ("tfmot", "nncf"):
        inputs = {"weights": [number(5, -6, 7, 8)], "scores": [number(0.4, 0.1, 0.2, 0.3)]}
        found = run(name, "prune.fraction", inputs, amount=0.5, scope="tensor")
        close(found["weights"][0], 5, 0, 0, 8)
        assert decode(found["masks"][0]).tolist() == [True, False, False, True]


@pytest.mark.slow
def test_tfmot_keeps_some_of_the_neighbours_along_the_inputs() -> None:
    # Of the columns (4, 1, 3) and (2, 6, 5) the largest.
    weights = number([4, 2], [-1, 6], [3, -5])
    inputs = {"weights": weights, "scores": np.abs(weights)}
    found = run("tfmot", "prune.n_m", inputs, n=1, m=3, axis=0)
    close(found["weights"], [4, 0], [0, 6], [0, 0])


@pytest.mark.slow
def test_tfmot_prunes_blocks_by_mean_or_maximum() -> None:
    # Blocks of two in a row: means 3, 4, 2, 3.5 and maxima 5, 4, 3, 6; two of four go.
    weights = number([1, 5, 4, 4], [3, 1, 1, 6])
    inputs = {"weights": weights, "scores": weights}
    found = run("tfmot", "prune.block", inputs, block=[1, 2], amount=0.5, pool="mean")
    close(found["weights"], [0, 0, 4, 4], [0, 0, 1, 6])
    found = run("tfmot", "prune.block", inputs, block=[1, 2], amount=0.5, pool="max")
    close(found["weights"], [1, 5, 0, 0], [0, 0, 1, 6])


@pytest.mark.slow
def test_tfmot_raises_the_sparsity_as_a_cube() -> None:
    # 0.75 - 0.25·(1 - t/4)³ at 0 … 4, and 0.75 after that.
    options: dict[str, Any] = {"begin": 0, "end": 4, "initial": 0.5, "final": 0.75, "power": 3.0}
    found = run("tfmot", "schedule.polynomial", {}, frequency=2, steps=6, **options)
    close(found["sparsity"], 0.5, 0.64453125, 0.71875, 0.74609375, 0.75, 0.75)
    assert decode(found["updates"]).tolist() == [1, 0, 1, 0, 1, 0]


@pytest.mark.slow
def test_nncf_ranks_all_tensors_together_by_their_share_of_the_norm() -> None:
    # Divided by their tensors' norms 5 and 13: 0.6 and 0.8 against 5/13 and 12/13.
    inputs = {"weights": [number(3, 4), number(5, 12)], "scores": [number(3, 4), number(5, 12)]}
    found = run("nncf", "prune.fraction", inputs, amount=0.5, scope="global")
    close(found["weights"][0], 0, 4)
    close(found["weights"][1], 0, 12)
