"""The oracle of penalties and proximal maps against autograd in float64, minimisation and hand computation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from conformance.cases import ALL, Cases, tensor
from conformance.operation import Expectation, Value, map_tensors
from conformance.operations import load
from conformance.oracle.regularization import soft_threshold

torch = pytest.importorskip("torch")


def expect(name: str, weights: Any, setting: Any = None, dtype: str = "float64", **p: Any) -> Any:
    """Return what the oracle expects of float64 weights."""
    cases = Cases(name)
    cases.add("case", "", "", {"weights": weights}, p, (dtype,))
    return load(name).expect(cases.made[0], setting)


def tensors(expected: Expectation, output: str) -> Any:
    return map_tensors(lambda leaf: leaf.tensor, expected.outputs[output])


@pytest.mark.parametrize(
    ("name", "term"),
    [("penalty.l1", lambda w: 0.3 * w.abs().sum()), ("penalty.l2", lambda w: 0.3 * (w**2).sum())],
)
def test_penalties_are_those_of_autograd(name: str, term: Any) -> None:
    rng = np.random.default_rng(3)
    weights = [rng.normal(size=(2, 3)), rng.normal(size=(4,)), np.zeros(2)]
    leaves = [torch.tensor(w, requires_grad=True) for w in weights]
    value = sum(term(w) for w in leaves)
    value.backward()
    expected = expect(name, weights, strength=0.3)
    np.testing.assert_allclose(tensors(expected, "value"), value.item(), rtol=1e-14)
    for got, leaf in zip(tensors(expected, "grads"), leaves, strict=True):
        np.testing.assert_allclose(got, leaf.grad.numpy(), rtol=1e-14)


def test_dials_by_hand() -> None:
    weights = [tensor(-2, 0, 3)]
    plain = expect("penalty.l1", weights, strength=0.5)
    assert tensors(plain, "value") == 2.5
    assert tensors(plain, "grads")[0].tolist() == [-0.5, 0.0, 0.5]
    plus = expect("penalty.l1", weights, {"sign_of_zero": "plus_one"}, strength=0.5)
    assert tensors(plus, "grads")[0].tolist() == [-0.5, 0.5, 0.5]
    assert tensors(expect("penalty.l2", weights, strength=0.5), "value") == 6.5
    half = expect("penalty.l2", weights, {"half": True}, strength=0.5)
    assert tensors(half, "value") == 3.25
    assert tensors(half, "grads")[0].tolist() == [-1.0, 0.0, 1.5]
    narrow = expect("penalty.l2", weights, {"hyperparameters": "float32"}, strength=0.1)
    assert tensors(narrow, "value") == 13 * float(np.float32(0.1))


@pytest.mark.parametrize("dtype", ALL)
def test_value_is_wide_and_gradient_is_not(dtype: str) -> None:
    expected = expect("penalty.l2", [tensor(300, -400)], dtype=dtype, strength=1.0)
    assert tensors(expected, "value").dtype == (np.float64 if dtype == "float64" else np.float32)
    assert float(tensors(expected, "value")) == pytest.approx(250000, rel=1e-2)
    assert tensors(expected, "grads")[0].dtype.name == dtype


def test_prox_minimises_its_own_objective() -> None:
    rng = np.random.default_rng(4)
    weights = rng.normal(size=50)
    got = tensors(expect("prox.l1", [weights], strength=0.6, step=0.7), "weights")[0]
    grid = np.linspace(-4, 4, 160001)
    for w, x in zip(weights, got, strict=True):
        best = grid[np.argmin(0.5 * (grid - w) ** 2 + 0.42 * np.abs(grid))]
        assert x == pytest.approx(best, abs=1e-4)
    shrunk = torch.nn.functional.softshrink(torch.from_numpy(weights), 0.42).numpy()
    np.testing.assert_allclose(got, shrunk, atol=1e-15)


def test_exact_thresholds_are_compared_bit_for_bit() -> None:
    rounded = expect("prox.l1", [tensor(0.25, -0.25, 1)], strength=0.3, step=0.7)
    assert rounded.outputs["weights"][0].ulp == 4, "0.3 times 0.7 is rounded"
    leaf = expect("prox.l1", [tensor(0.25, -0.25, 1)], strength=0.5, step=0.5).outputs["weights"][0]
    assert leaf.ulp == 0
    assert not np.signbit(leaf.tensor).any()
    signed = expect(
        "prox.l1", [tensor(0.25, -0.25, 1)], {"zero_sign": "of_weight"}, strength=0.5, step=0.5
    ).outputs["weights"][0]
    assert np.signbit(signed.tensor).tolist() == [False, True, False]


def test_what_is_well_below_the_threshold_must_be_zero() -> None:
    settings = {"strength": 0.3, "step": 1.0, "zero_sign": "positive"}
    value = soft_threshold(np.array([0.29, 0.3, 1.0], np.float32), settings)
    assert isinstance(value, Value)
    assert value.scale is not None
    scale = [float(x) for x in value.scale]
    assert scale[0] == 0.0
    assert scale[1] > 0.0, "0.3 is at the threshold, within rounding"
    assert scale[2] == pytest.approx(1.3)
