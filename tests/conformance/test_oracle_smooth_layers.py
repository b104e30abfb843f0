"""The oracle of smooth layers and of binary cross-entropy against PyTorch's float64 autograd and by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from conformance.cases import Case
from conformance.exact import ctx, exact, real
from conformance.operation import map_tensors
from conformance.operations import load
from conformance.oracle import recurrent
from conformance.oracle.activations import floored, sigmoid

Tensors = dict[str, Any]


def gradients(y: torch.Tensor, dy: Any, **inputs: torch.Tensor | None) -> Tensors:
    given = {name: x for name, x in inputs.items() if x is not None}
    found = torch.autograd.grad(y, list(given.values()), dy)
    return {"y": y} | {f"d{name}": g for name, g in zip(given, found, strict=True)}


def elementwise(function: Callable[..., torch.Tensor]) -> Callable[..., Tensors]:
    return lambda x, dy, **params: gradients(function(x, **params), dy, x=x)


def leaky_relu(x: torch.Tensor, slope: float) -> torch.Tensor:
    return torch.where(x > 0, x, slope * x)


def batch_norm(
    x: Any, scale: Any, shift: Any, running_mean: Any, running_var: Any, dy: Any, **p: Any
) -> Tensors:
    axes = tuple(range(x.ndim - 1))
    mean, var = running_mean, running_var
    learned = {"running_mean": mean, "running_var": var}
    if p["training"]:
        mean, var = x.mean(dim=axes), x.var(dim=axes, correction=0)
        new = {"running_mean": mean, "running_var": x.var(dim=axes, correction=1)}
        learned = {k: torch.lerp(learned[k], new[k], float(p["momentum"])) for k in learned}
    y = scale * (x - mean) / torch.sqrt(var + p["eps"]) + shift
    return gradients(y, dy, x=x, scale=scale, shift=shift) | learned


def rnn(x: Any, weight: Any, recurrent: Any, bias: Any, h0: Any, dy: Any, truncate: Any) -> Tensors:
    state, states = h0, []
    for t in range(x.shape[1]):
        state = state.detach() if truncate and t and t % truncate == 0 else state
        a = x[:, t] @ weight + state @ recurrent
        state = torch.tanh(a if bias is None else a + bias)
        states.append(state)
    y = torch.stack(states, dim=1)
    named = {"weight": weight, "recurrent": recurrent, "bias": bias, "h0": h0}
    return {"dbias": None} | gradients(y, dy, x=x, **named)


def binary_cross_entropy(x: Any, targets: Any, reduction: str) -> Tensors:
    loss = -(targets * F.logsigmoid(x) + (1 - targets) * F.logsigmoid(-x))
    loss = loss.mean() if reduction == "mean" else loss.sum()
    return {"loss": loss, "dx": torch.autograd.grad(loss, x)[0]}


THIRD: dict[str, Callable[..., Tensors]] = {
    "layer.leaky_relu": elementwise(leaky_relu),
    "layer.sigmoid": elementwise(torch.sigmoid),
    "layer.tanh": elementwise(torch.tanh),
    "layer.batch_norm": batch_norm,
    "layer.rnn": rnn,
    "loss.binary_cross_entropy": binary_cross_entropy,
}
LIMITS = {"infinite"}
"""Flags of the loss whose cases are limits, which PyTorch's formula does not take."""


def float64_cases() -> list[Any]:
    return [
        pytest.param(case, id=case.full_id)
        for name in THIRD
        for case in load(name).generate()
        if case.id.endswith("-f64") and not (name.startswith("loss") and LIMITS & set(case.flags))
    ]


@pytest.mark.parametrize("case", float64_cases())
def test_against_autograd(case: Case) -> None:
    expected = load(case.operation).expect(case)
    if expected.rejects is not None:
        return
    tensors = {
        name: None if x is None else torch.tensor(x, requires_grad=name not in ("dy", "targets"))
        for name, x in case.inputs.items()
    }
    found = THIRD[case.operation](**tensors, **case.params)
    for name, leaf in expected.outputs.items():
        got = found[name]
        if leaf is None:
            assert got is None
            continue
        wanted = leaf.tensor
        scale = np.abs(wanted) if leaf.scale is None else np.maximum(np.abs(wanted), leaf.scale)
        numbers = got.detach().numpy()
        with np.errstate(invalid="ignore"):
            close = np.abs(numbers - wanted) <= 64 * np.spacing(np.abs(scale)) + 1e-300
        same = (numbers == wanted) | (np.isnan(wanted) & np.isnan(numbers))
        assert np.all(close | same), (name, got, wanted)


def expect(operation: str, inputs: Tensors, setting: Tensors | None = None, **params: Any) -> Any:
    """Return the expected float64 arrays by name, or the reason of a refusal."""
    defaults = {p.name: p.default for p in load(operation).params}
    case = Case(operation, "by-hand", (), (), inputs, defaults | params)
    expected = load(operation).expect(case, setting)
    if expected.rejects is not None:
        return expected.rejects
    return map_tensors(lambda leaf: leaf.tensor, expected.outputs)


class TestByHand:
    def test_sigmoid_and_tanh(self) -> None:
        inputs = {"x": np.array([math.log(3)]), "dy": np.array([-16.0])}
        got = expect("layer.sigmoid", inputs)
        np.testing.assert_allclose((got["y"][0], got["dx"][0]), (0.75, -3), rtol=1e-15)
        got = expect("layer.tanh", inputs)
        np.testing.assert_allclose((got["y"][0], got["dx"][0]), (0.8, -5.76), rtol=1e-15)

    def test_leaky_relu(self) -> None:
        inputs = {"x": np.array([-2.0, 0, 3, np.nan]), "dy": np.array([5.0, 7, -11, 2])}
        got = expect("layer.leaky_relu", inputs, slope=0.25)
        np.testing.assert_array_equal(got["y"], [-0.5, 0, 3, np.nan])
        np.testing.assert_array_equal(got["dx"], [1.25, 1.75, -11, 0.5])
        got = expect("layer.leaky_relu", inputs, {"at_zero": "one"}, slope=0.25)
        np.testing.assert_array_equal(got["dx"], [1.25, 7, -11, 0.5])

    @pytest.mark.parametrize(
        ("rate", "setting", "y", "dx"),
        [
            (0.75, {}, [12, 0, 0], [-8, 0, 0]),
            (0, {}, [3, 0, 0], [-2, 0, 0]),
            (1, {}, [0, 0, 0], [0, 0, 0]),
            (0.75, {"dropped": "multiply"}, [12, np.nan, 0], [-8, 0, np.nan]),
            (1, {"dropped": "multiply"}, [0, np.nan, 0], [0, 0, np.nan]),
        ],
    )
    def test_dropout(self, rate: float, setting: Tensors, y: Any, dx: Any) -> None:
        inputs = {
            "x": np.array([3.0, np.inf, 1]), "mask": np.array([True, False, False]),
            "dy": np.array([-2.0, 5, np.nan]),
        }  # fmt: skip
        got = expect("layer.dropout", inputs, setting, rate=rate)
        np.testing.assert_array_equal(got["y"], y)
        np.testing.assert_array_equal(got["dx"], dx)

    def test_dropout_of_rate_one_may_be_refused(self) -> None:
        inputs = {"x": np.ones(1), "mask": np.ones(1, dtype=bool), "dy": np.ones(1)}
        assert (
            expect("layer.dropout", inputs, {"rate_one": "reject"}, rate=1)
            == "rate must be less than 1"
        )

    @pytest.mark.parametrize(("setting", "var"), [("unbiased", 29 / 12), ("biased", 2)])
    def test_batch_norm(self, setting: str, var: float) -> None:
        one = np.ones(1)
        inputs = {
            "x": np.array([[1.0], [3], [5], [7]]), "scale": 2 * one, "shift": -one, "running_mean": 8 * one,
            "running_var": one, "dy": np.array([[1.0], [0], [0], [0]]),
        }  # fmt: skip
        got = expect(
            "layer.batch_norm", inputs, {"running_variance": setting}, eps=4.0, momentum=0.25
        )
        np.testing.assert_allclose(got["y"][:, 0], [-3, -5 / 3, -1 / 3, 1], rtol=1e-15)
        np.testing.assert_allclose(got["running_var"], [var], rtol=1e-15)
        assert (got["running_mean"], got["dscale"], got["dshift"]) == (7, -1, 1)
        np.testing.assert_allclose(got["dx"][:, 0], np.array([6, -4, -2, 0]) / 18, atol=1e-16)

    @pytest.mark.parametrize(
        ("z", "t", "limit", "linear", "sigmoid_form"),
        [
            (np.inf, 1, 0, np.nan, np.nan), (np.inf, 0, np.inf, np.nan, np.inf),
            (-np.inf, 0, 0, np.nan, np.nan), (-np.inf, 1, np.inf, np.inf, np.nan),
        ],
    )  # fmt: skip
    def test_infinite_logits(
        self, z: float, t: float, limit: float, linear: float, sigmoid_form: float
    ) -> None:
        forms = {"limit": limit, "linear_form": linear, "sigmoid_form": sigmoid_form}
        inputs = {"x": np.array([z]), "targets": np.array([float(t)])}
        for form, loss in forms.items():
            got = expect("loss.binary_cross_entropy", inputs, {"infinite_logit": form})
            np.testing.assert_array_equal(got["loss"], loss)
            np.testing.assert_array_equal(got["dx"], [(z > 0) - t])

    @pytest.mark.parametrize("z", [np.inf, -np.inf, 1.5])
    def test_the_forms_are_what_pytorch_and_numpy_compute(self, z: float) -> None:
        for t in (0.0, 0.5, 1.0):
            inputs = {"x": np.array([z]), "targets": np.array([t])}
            got = expect("loss.binary_cross_entropy", inputs, {"infinite_logit": "sigmoid_form"})
            pytorch = F.binary_cross_entropy_with_logits(torch.tensor([z]), torch.tensor([t]))
            np.testing.assert_allclose(got["loss"], pytorch, rtol=1e-6)
            got = expect("loss.binary_cross_entropy", inputs, {"infinite_logit": "linear_form"})
            with np.errstate(invalid="ignore"):
                linear = np.maximum(z, 0) - np.float64(z) * t + np.log1p(np.exp(-np.abs(z)))
            np.testing.assert_allclose(got["loss"], linear, rtol=1e-14)

    def test_rnn_explodes_with_the_powers_of_u(self) -> None:
        dy = np.zeros((1, 9, 1))
        dy[0, -1] = 3.0
        zero = np.zeros((1, 1))
        inputs = {
            "x": np.zeros((1, 9, 1)),
            "weight": zero,
            "recurrent": zero + 4,
            "bias": None,
            "h0": zero,
        }
        assert expect("layer.rnn", {**inputs, "dy": dy})["dh0"] == 3.0 * 4.0**9
        # A cut between steps k and k + 1 leaves what goes back from the last step only inside its stretch.
        got = expect("layer.rnn", {**inputs, "dy": dy}, truncate=4)
        assert got["dh0"] == 0


def test_bounds_of_the_rnn_hold_for_float32() -> None:
    """What float32 makes of the recurrence stays within the bounds that the oracle carries along."""
    case = next(c for c in load("layer.rnn").generate() if c.id == "exploding-shear-f32")
    result = recurrent.rnn(case.inputs, case.params)
    single = {
        n: None if x is None else torch.tensor(x, requires_grad=n != "dy")
        for n, x in case.inputs.items()
    }
    found = rnn(**single, **case.params)
    for name in ("y", "dx", "dweight", "drecurrent", "dbias", "dh0"):
        off = np.abs(exact(found[name].detach().numpy()) - result[name].exact)
        assert np.all(off <= result[name].scale * real(2.0**-23)), name


def test_a_floor_only_where_an_exponential_would_overflow() -> None:
    tiny = exact(np.array([1e-40, 0.25]))
    assert floored(tiny, "float32")[0] == real(2.0**-126) * 2**23
    assert floored(tiny, "float32")[1] == real(0.25)
    assert floored(tiny, "float16")[0] == tiny[0]
    assert sigmoid(real(-1000.0)) == ctx.exp(-1000) / (1 + ctx.exp(-1000))
