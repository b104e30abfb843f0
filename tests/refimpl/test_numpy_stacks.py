"""A model of dense layers and ReLU in one loop, beside the same layer by layer."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from refimpl import bundles, models, numpy_stacks, optimizers


def normal(seed: int, shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def same_bits(one: Any, other: Any) -> None:
    assert one.dtype == other.dtype
    assert one.shape == other.shape
    assert one.tobytes() == other.tobytes()


DENSE, RELU = {"operation": "layer.dense", "units": 1}, {"operation": "layer.relu"}
FLATTEN = {"operation": "layer.flatten"}
STACKS: dict[str, list[dict[str, Any]]] = {
    "two layers": [DENSE, RELU, DENSE],
    "only dense": [DENSE, DENSE],
    "relu first and last": [RELU, DENSE, DENSE, RELU],
    "flattened": [FLATTEN, DENSE, RELU, DENSE],
    "flattened, relu first": [FLATTEN, RELU, DENSE, DENSE],
}


def layer_by_layer(monkeypatch: pytest.MonkeyPatch, function: Callable[[], Any]) -> Any:
    with monkeypatch.context() as patch:
        patch.setattr(numpy_stacks, "run", lambda *_: None)
        return function()


def gradients(model: Any, params: Any, x: Any, with_dx: bool) -> list[Any]:
    y, backprop, _ = models.run(model, params, x)
    dx, grads = backprop(normal(3, y.shape, y.dtype), with_dx=with_dx)
    return [y, dx, *grads]


@pytest.mark.parametrize("name", STACKS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("with_dx", [True, False])
@pytest.mark.parametrize("rows", [0, 1, 7])
def test_a_stack_of_dense_layers(
    name: str, dtype: str, with_dx: bool, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = [normal(i, s, dtype) for i, s in enumerate([(5, 4), (4,), (4, 3), (3,)])]
    x = normal(9, (rows, 5), dtype)
    if rows > 1:
        x[0, :3], x[1, 0] = [0.0, -0.0, np.nan], np.inf
    if FLATTEN in STACKS[name]:
        x = x.reshape(1, 5, rows).transpose(2, 0, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        assert numpy_stacks.run(STACKS[name], params, x) is not None
        got = gradients(STACKS[name], params, x, with_dx)
        known = layer_by_layer(monkeypatch, lambda: gradients(STACKS[name], params, x, with_dx))
    for one, other in zip(got, known, strict=True):
        assert (one is None) is (other is None)
        if one is not None:
            same_bits(one, other)


@pytest.mark.parametrize("name", STACKS)
def test_whoever_gets_the_output_of_a_stack_may_write_to_it(name: str) -> None:
    params = [normal(i, s) for i, s in enumerate([(5, 4), (4,), (4, 3), (3,)])]
    x, dy = normal(9, (7, 5)), normal(3, (7, 3))
    dx, grads = models.forward(STACKS[name], params, x)[1](dy)
    before = [dy.copy(), x.copy()]
    y, backprop = models.forward(STACKS[name], params, x)
    y[...] = -1.0
    again, others = backprop(dy)
    for one, other in zip([dx, *grads, *before], [again, *others, dy, x], strict=True):
        same_bits(one, other)


@pytest.mark.parametrize(
    ("model", "shapes", "dtype"),
    [
        ([RELU], [], "float32"),
        ([DENSE, {**RELU, "nan": "zero"}], [(5, 4), (4,)], "float32"),
        ([DENSE, {"operation": "layer.tanh"}], [(5, 4), (4,)], "float32"),
        ([DENSE], [(5, 4), (4,), (4,)], "float32"),
        ([DENSE], [(6, 4), (4,)], "float32"),
        ([DENSE], [(5, 4), (5,)], "float32"),
        ([DENSE, DENSE], [(5, 4), (4,)], "float32"),
        ([DENSE], [(5, 4), (4,)], "float16"),
        ([DENSE], [(5, 2**18), (2**18,)], "float32"),
        ([DENSE, FLATTEN, DENSE], [(5, 4), (4,), (4, 3), (3,)], "float32"),
        ([], [(5, 4), (4,)], "float32"),
    ],
    ids=[
        "no-parameter",
        "dial",
        "tanh",
        "too-many",
        "shape",
        "bias",
        "too-few",
        "16-bits",
        "large",
        "flattened-later",
        "no-layer",
    ],
)
def test_what_is_no_small_stack(model: Any, shapes: Any, dtype: str) -> None:
    params = [np.zeros(shape, dtype) for shape in shapes]
    assert numpy_stacks.run(model, params, np.zeros((7, 5), dtype)) is None


# What is found out of a model and of arrays that are cut so is kept until either changes.


def joined() -> Any:
    given = [normal(i, s) for i, s in enumerate([(5, 4), (4,), (4, 3), (3,)])]
    still = [np.zeros_like(p) for p in given]
    optimizer = optimizers.sgd(0.1)
    params, _ = optimizer.update(given, still, optimizer.init(given))
    assert bundles.intact(params) is not None
    return params


def as_layer_by_layer(
    monkeypatch: pytest.MonkeyPatch, model: Any, params: Any, x: Any, handled: bool = True
) -> None:
    known = layer_by_layer(monkeypatch, lambda: gradients(model, list(params), x, True))
    assert (numpy_stacks.run(model, params, x) is not None) is handled
    for one, other in zip(gradients(model, params, x, True), known, strict=True):
        same_bits(one, other)


def test_joined_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    params, x = joined(), normal(9, (7, 5))
    for model in (STACKS["two layers"], STACKS["only dense"], STACKS["two layers"]):
        for _ in range(2):
            as_layer_by_layer(monkeypatch, model, params, x)


def test_layers_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    params, x = joined(), normal(9, (7, 5))
    look = Mock(side_effect=numpy_stacks._layers)
    monkeypatch.setattr(numpy_stacks, "_layers", look)
    for rows in (7, 7, 6, 6):
        models.run(STACKS["two layers"], params, x[:rows])
    assert look.call_count == 2


def test_a_model_that_was_changed_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    params, x = joined(), normal(9, (7, 5))
    model = [dict(layer) for layer in STACKS["two layers"]]
    as_layer_by_layer(monkeypatch, model, params, x)
    model[1]["operation"] = "layer.tanh"
    as_layer_by_layer(monkeypatch, model, params, x, handled=False)


def test_an_input_of_another_shape_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    params, model = joined(), STACKS["two layers"]
    as_layer_by_layer(monkeypatch, model, params, normal(9, (7, 5)))
    as_layer_by_layer(monkeypatch, model, params, normal(9, (2, 5)))
    with pytest.raises(ValueError, match="weight must have shape"):
        models.run(model, params, normal(9, (7, 6)))


def test_other_dtypes_are_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow, model = joined(), STACKS["two layers"]
    as_layer_by_layer(monkeypatch, model, narrow, normal(9, (7, 5)))
    with pytest.raises(ValueError, match="all arrays must have one dtype"):
        models.run(model, narrow, normal(9, (7, 5), "float64"))
    # Cut as those are, of another dtype: as the state of an optimiser may be.
    wide = narrow.cut.part([narrow.wholes[0].astype("float64")])
    as_layer_by_layer(monkeypatch, model, wide, normal(9, (7, 5), "float64"))
    as_layer_by_layer(monkeypatch, model, narrow, normal(9, (7, 5)))


def test_a_parameter_that_was_replaced_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    params, model, x = joined(), STACKS["two layers"], normal(9, (7, 5))
    as_layer_by_layer(monkeypatch, model, params, x)
    params[2], params[3] = normal(4, (4, 2)), normal(5, (2,))
    as_layer_by_layer(monkeypatch, model, params, x)
