"""One code, many array libraries: what a GPU would not forgive, shown without one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from refimpl import (
    adaptive_clipping,
    clipping,
    layers,
    losses,
    optimizers,
    proximal,
    pruning,
    regularization,
)
from refimpl.backends import CAPABILITIES

xp = pytest.importorskip("array_api_strict")

HOST_READS = ("__bool__", "__float__", "__int__", "__index__", "__complex__")


@pytest.fixture
def no_host_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every question about a value an error: on a GPU it would stop and wait."""

    def refuse(self: Any) -> Any:
        raise AssertionError("a value was brought to the host")

    array = type(xp.asarray(1.0))
    for name in HOST_READS:
        monkeypatch.setattr(array, name, refuse)


@pytest.fixture
def device() -> Iterator[Any]:
    has = CAPABILITIES["array_api_strict"]
    xp.set_array_api_strict_flags(
        data_dependent_shapes=has.data_dependent_shapes, boolean_indexing=has.boolean_indexing
    )
    yield xp.Device("device1")
    xp.reset_array_api_strict_flags()


def strict(values: Any, device: Any, dtype: Any = None) -> Any:
    return xp.asarray(np.asarray(values), device=device, dtype=dtype or xp.float32)


def gradients(device: Any) -> list[Any]:
    return [strict([[3, -1], [0.5, 2]], device), None, strict([-4, 0.25], device)]


HOT_PATH: dict[str, Callable[[list[Any], Any], Any]] = {
    "clip_value": lambda grads, d: clipping.clip_value(grads, -1.0, 0.5),
    "clip_norm": lambda grads, d: clipping.clip_norm(grads, 1.0),
    "clip_global_norm": lambda grads, d: clipping.clip_global_norm(grads, 1.0),
    "clip_global_norm-inf": lambda grads, d: clipping.clip_global_norm(grads, 1.0, float("inf")),
    "clip_global_norm-eps": lambda grads, d: clipping.clip_global_norm(
        grads, 1.0, eps=1e-6, eps_at="denominator", nonfinite="multiply"
    ),
    "clip_norm-1": lambda grads, d: clipping.clip_norm(grads, 1.0, 1.0),
    "clip_unitwise": lambda grads, d: adaptive_clipping.clip_unitwise(grads, grads, 0.1, -1),
    "clip_per_example": lambda grads, d: adaptive_clipping.clip_per_example(
        [grads[0], None, grads[2]], 1.0
    ),
    "clip_per_example-tensor": lambda grads, d: adaptive_clipping.clip_per_example(
        grads, 1.0, reduction="sum", scope="tensor"
    ),
    "apply_mask": lambda grads, d: pruning.apply_mask(grads[0], grads[0] > 0),
    "prox_l1": lambda grads, d: regularization.prox_l1([grads[0]], 0.5, 1.0),
}


@pytest.mark.usefixtures("no_host_reads")
@pytest.mark.parametrize("name", HOT_PATH)
def test_hot_path_reads_no_value(name: str, device: Any) -> None:
    HOT_PATH[name](gradients(device), device)


@pytest.mark.usefixtures("no_host_reads")
@pytest.mark.parametrize(
    "optimizer",
    [
        optimizers.sgd(0.1, momentum=0.9, weight_decay=0.1),
        optimizers.adam(0.1, weight_decay=0.1, amsgrad=True),
        optimizers.adamw(0.1),
        optimizers.rmsprop(0.1, momentum=0.9, centered=True),
        optimizers.adagrad(0.1),
        optimizers.sgd(0.1, momentum=0.9, nesterov=True),
        optimizers.adamw(0.1, weight_decay=0.1, amsgrad=True),
        proximal.ista(lambda params, step: regularization.prox_l1(params, 0.1, step), 0.1),
        proximal.fista(lambda params, step: regularization.prox_l1(params, 0.1, step), 0.1),
    ],
)
def test_optimiser_step_reads_no_value(optimizer: Any, device: Any) -> None:
    params = [strict([[1.0, 2], [3, 4]], device), strict([5.0], device), strict([6.0, 7], device)]
    state = optimizer.init(params)
    for _ in range(2):
        params, state = optimizer.update(params, gradients(device), state)
    masks = [params[0] > 0, None, params[2] < 0]
    state = optimizers.mask_state(state, masks)
    assert all(p.device == device for p in params)


@pytest.mark.parametrize("name", HOT_PATH)
def test_results_stay_on_the_device(name: str, device: Any) -> None:
    def check(result: Any) -> None:
        if isinstance(result, list | tuple):
            for part in result:
                check(part)
        elif result is not None:
            assert result.device == device

    check(HOT_PATH[name](gradients(device), device))


@pytest.mark.parametrize("name", HOT_PATH)
def test_a_device_without_float64_is_enough(name: str) -> None:
    small = xp.Device("no_float64")
    HOT_PATH[name](gradients(small), small)


def test_layers_and_losses_run_without_float64() -> None:
    small = xp.Device("no_float64")
    rng = np.random.default_rng(3)
    x = strict(rng.normal(size=(2, 5, 4, 2)), small)
    y, back = layers.conv2d(
        x, strict(rng.normal(size=(3, 2, 2, 3)), small), padding=((1, 0), (0, 1))
    )
    back(y * 0.5)
    pooled, back = layers.max_pool2d(y, window=(2, 2))
    back(pooled * 0.25)
    flat, _ = layers.flatten(pooled)
    targets = xp.asarray(np.array([1, 0]), device=small, dtype=xp.int64)
    loss, gradient = losses.softmax_cross_entropy(flat, targets)
    assert loss.dtype == xp.float32
    assert gradient().device == small


def test_read_only_arrays_are_enough() -> None:
    grads = [np.array([3.0, -4.0]), np.array([[1.0]])]
    for grad in grads:
        grad.setflags(write=False)
    copies = [grad.copy() for grad in grads]
    clipping.clip_global_norm(grads, 1.0)
    clipping.clip_value(grads, -1.0, 1.0)
    optimizer = optimizers.adamw(0.1, weight_decay=0.5)
    params, state = optimizer.update(grads, grads, optimizer.init(grads))
    optimizer.update(params, grads, state)
    for grad, copy in zip(grads, copies, strict=True):
        np.testing.assert_array_equal(grad, copy)


@pytest.mark.usefixtures("no_host_reads")
def test_the_guard_sees_a_host_read(device: Any) -> None:
    with pytest.raises(AssertionError, match="brought to the host"):
        clipping.clip_global_norm(gradients(device), 1.0, nonfinite="reject")
