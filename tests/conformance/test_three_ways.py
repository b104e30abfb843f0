"""Every backward pass three ways: the exact oracle, central differences, float64 autograd of PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from adapters.base import decode_writable
from adapters.refimpl import adapter as refimpl
from conformance.cases import Case, Cases, Stream, fixed
from conformance.formats import encode
from conformance.operation import map_tensors
from conformance.operations import load, names
from conformance.runner import request

torch = pytest.importorskip("torch")

random = Stream(4711)
STEP = 1e-6


def away(*shape: int) -> Any:
    """Return numbers of either sign, none so near to 0 or to another that a step crosses a kink."""
    count = int(np.prod(shape))
    ranks = np.array(random.permutation(count), dtype=np.float64)
    return ((ranks + 0.5) / count * 2 - 1 + 0.1 / count).reshape(shape)


def elementwise(**more: Any) -> dict[str, Any]:
    return {"x": away(3, 4), "dy": away(3, 4), **more}


IMAGES = {"x": away(2, 5, 4, 2)}
POOL = {"window": [2, 3], "stride": [2, 1], "dilation": [1, 1], "ceil_mode": False}
EACH: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "layer.dense": (
        {"x": away(3, 4), "weight": away(4, 2), "bias": away(2), "dy": away(3, 2)}, {},
    ),
    "layer.conv2d": (
        {**IMAGES, "weight": away(3, 2, 1, 4), "bias": away(4), "dy": away(2, 2, 4, 4)},
        {"stride": [2, 1], "padding": [[1, 0], [0, 1]], "dilation": [1, 1], "groups": 2},
    ),
    "layer.max_pool2d": (
        {**IMAGES, "dy": away(2, 3, 4, 2)}, {**POOL, "padding": [[1, 1], [1, 1]]},
    ),
    "layer.avg_pool2d": (
        {**IMAGES, "dy": away(2, 2, 2, 2)}, {**POOL, "padding": [[0, 0], [0, 0]]},
    ),
    "layer.relu": (elementwise(), {}),
    "layer.leaky_relu": (elementwise(), {"slope": 0.125}),
    "layer.sigmoid": (elementwise(), {}),
    "layer.tanh": (elementwise(), {}),
    "layer.flatten": ({"x": away(2, 3, 2), "dy": away(2, 6)}, {}),
    "layer.dropout": (elementwise(mask=fixed(away(3, 4) > -0.3, "bool")), {"rate": 0.25}),
    "layer.batch_norm": (
        {"x": away(5, 3), "scale": away(3), "shift": away(3), "running_mean": away(3),
         "running_var": away(3) ** 2, "dy": away(5, 3)},
        {"eps": 0.01, "momentum": 0.1, "training": True},
    ),
    "layer.rnn": (
        {"x": away(2, 4, 3), "weight": away(3, 2), "recurrent": away(2, 2), "bias": away(2),
         "h0": away(2, 2), "dy": away(2, 4, 2)},
        {"truncate": None},
    ),
    "loss.softmax_cross_entropy": ({"x": away(3, 4), "targets": fixed([2, 0, 3], "int64")},
                                   {"reduction": "mean"}),
    "loss.binary_cross_entropy": ({"x": away(3, 4), "targets": np.abs(away(3, 4))},
                                  {"reduction": "sum"}),
    "loss.mse": ({"x": away(3, 4), "targets": away(3, 4)}, {"reduction": "mean"}),
    "penalty.l1": ({"weights": [away(3, 4), away(5)]}, {"strength": 0.3}),
    "penalty.l2": ({"weights": [away(3, 4), away(5)]}, {"strength": 0.3}),
    "penalty.elastic_net": ({"weights": [away(3, 4), away(5)]}, {"l1": 0.3, "l2": 0.7}),
    "penalty.group_lasso": ({"weights": [away(3, 4), away(2, 5)]}, {"strength": 0.3, "axis": 0}),
}  # fmt: skip


def case(name: str) -> Case:
    made = Cases(name)
    inputs, params = EACH[name]
    made.add("three-ways", "", "", inputs, params, ("float64",))
    return made.made[0]


def answer(adapter: Any, asked: Case) -> dict[str, Any]:
    answered = adapter.run(request(asked))
    assert "outputs" in answered, answered
    return {name: decoded(tree) for name, tree in answered["outputs"].items()}


def decoded(tree: Any) -> Any:
    return [decoded(t) for t in tree] if isinstance(tree, list) else decode_writable(tree)


def scalar(asked: Case) -> float:
    """Return what the backward pass differentiates: Σ dy·y, the loss, or the penalty."""
    outputs = answer(refimpl, asked)
    if "y" in outputs:
        return float((asked.inputs["dy"] * outputs["y"]).sum())
    return float(outputs["loss" if "loss" in outputs else "value"])


def gradients(outputs: dict[str, Any]) -> dict[str, Any]:
    """Return the gradients by the input that they belong to."""
    if "grads" in outputs:
        return {"weights": outputs["grads"]}
    return {name[1:]: value for name, value in outputs.items() if name.startswith("d")}


def central(asked: Case, name: str, at: int | None) -> Any:
    original = asked.inputs[name] if at is None else asked.inputs[name][at]
    slopes = np.empty(original.size)
    for i in range(original.size):
        ends = []
        for sign in (1, -1):
            moved = original.copy()
            moved.reshape(-1)[i] += sign * STEP
            tree = moved if at is None else [
                moved if j == at else w for j, w in enumerate(asked.inputs[name])
            ]  # fmt: skip
            inputs = {**asked.inputs, name: tree}
            ends.append(scalar(Case(asked.operation, "moved", (), (), inputs, asked.params)))
        slopes[i] = (ends[0] - ends[1]) / (2 * STEP)
    return slopes.reshape(original.shape)


def test_the_table_has_every_backward_pass() -> None:
    there = {n for n in names() if n.startswith(("layer.", "loss.", "penalty."))}
    assert there == set(EACH)


@pytest.mark.parametrize("name", EACH)
def test_refimpl_is_the_oracle(name: str) -> None:
    asked = case(name)
    ours = gradients(answer(refimpl, asked))
    expected = load(name).expect(asked).outputs
    theirs = gradients(map_tensors(lambda leaf: leaf.tensor, expected))
    assert set(ours) == set(theirs)
    for each in ours:
        for a, b in zip(listed(ours[each]), listed(theirs[each]), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("name", EACH)
def test_refimpl_is_the_central_difference(name: str) -> None:
    asked = case(name)
    for each, value in gradients(answer(refimpl, asked)).items():
        for i, ours in enumerate(listed(value)):
            slopes = central(asked, each, i if isinstance(value, list) else None)
            np.testing.assert_allclose(ours, slopes, rtol=1e-7, atol=1e-8)
            assert np.abs(ours).max() > 1e-3, "the numbers must tell something"


@pytest.mark.parametrize("name", [n for n in EACH if n != "layer.dropout"])
def test_refimpl_is_autograd(name: str) -> None:
    from adapters.torch import adapter

    asked = case(name)
    ours, theirs = (gradients(answer(a, asked)) for a in (refimpl, adapter))
    assert set(ours) == set(theirs)
    for each in ours:
        for a, b in zip(listed(ours[each]), listed(theirs[each]), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


def test_dropout_is_autograd() -> None:
    asked = case("layer.dropout")
    x = torch.tensor(asked.inputs["x"], requires_grad=True)
    y = torch.where(torch.tensor(asked.inputs["mask"]), x / 0.75, torch.zeros(()).double())
    (expected,) = torch.autograd.grad(y, x, torch.tensor(asked.inputs["dy"]))
    ours = answer(refimpl, asked)["dx"]
    np.testing.assert_allclose(ours, expected.numpy(), rtol=1e-15)


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def test_a_wrong_gradient_would_be_seen() -> None:
    asked = case("layer.tanh")
    dx = gradients(answer(refimpl, asked))["x"]
    slopes = central(asked, "x", None)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(dx * (1 + 1e-6), slopes, rtol=1e-7, atol=1e-8)
    assert encode(dx)["dtype"] == "float64"
