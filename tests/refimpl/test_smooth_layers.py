"""Activations, dropout, batch normalisation, the RNN and binary cross-entropy against other sources."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import array_api_strict
import ml_dtypes
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from refimpl import models
from refimpl.layers import batch_norm, dropout, leaky_relu, rnn, sigmoid, tanh
from refimpl.losses import binary_cross_entropy

NAN, INF = math.nan, math.inf


def draw(*shape: int, seed: int = 0, dtype: Any = np.float64) -> np.ndarray:
    """Return unequal numbers of both signs in an array that cannot be written to."""
    array = np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)
    array.flags.writeable = False
    return array


def assert_gradient(loss: Callable[[np.ndarray], Any], x: np.ndarray, dx: Any) -> None:
    """Compare a gradient with central differences, element by element."""
    numeric, step = np.zeros_like(x), 1e-6
    for index in np.ndindex(*x.shape):
        shift = np.zeros_like(x)
        shift[index] = step
        numeric[index] = (float(loss(x + shift)) - float(loss(x - shift))) / (2 * step)
    np.testing.assert_allclose(dx, numeric, rtol=1e-6, atol=1e-7)


def replaced(items: list[Any], index: int, item: Any) -> list[Any]:
    """Return a list with one item changed."""
    return [*items[:index], item, *items[index + 1 :]]


def leaky(x: Any) -> Any:
    return leaky_relu(x, slope=0.3)


ELEMENTWISE = [sigmoid, tanh, leaky]
"""Functions of one argument."""


class TestElementwise:
    @pytest.mark.parametrize("layer", ELEMENTWISE)
    def test_against_finite_differences(self, layer: Any) -> None:
        x, dy = draw(3, 4), draw(3, 4, seed=1)
        assert_gradient(lambda x: np.sum(layer(x)[0] * dy), x, layer(x)[1](dy))

    def test_sigmoid_by_hand(self) -> None:
        y, backprop = sigmoid(np.array([math.log(3), -math.log(4), 0.0]))
        np.testing.assert_allclose(y, [0.75, 0.2, 0.5], rtol=1e-15)
        np.testing.assert_allclose(backprop(np.array([16.0, -25.0, 8.0])), [3, -4, 2], rtol=1e-14)

    def test_sigmoid_keeps_its_digits_and_never_overflows(self) -> None:
        x = np.array([-700.0, 700.0, -1e308, INF, -INF])
        with np.errstate(over="raise", invalid="raise", divide="raise"):
            y, backprop = sigmoid(x)
            dx = backprop(np.ones(5))
        np.testing.assert_allclose(y, [math.exp(-700), 1, 0, 1, 0], rtol=1e-13)
        np.testing.assert_allclose(dx, [math.exp(-700), math.exp(-700), 0, 0, 0], rtol=1e-13)

    def test_tanh_by_hand(self) -> None:
        y, backprop = tanh(np.array([math.log(3), -math.log(2), 0.0, 1e-200, INF]))
        np.testing.assert_allclose(y, [0.8, -0.6, 0, 1e-200, 1], rtol=1e-15)
        np.testing.assert_allclose(backprop(np.full(5, 100.0)), [36, 64, 100, 100, 0], rtol=1e-14)

    def test_leaky_relu_at_zero_is_a_convention(self) -> None:
        x, dy = np.array([0.0, -2.0, 3.0]), np.array([5.0, 7.0, -11.0])
        for at_zero, first in (("slope", 1.25), ("one", 5.0)):
            y, backprop = leaky_relu(x, slope=0.25, at_zero=at_zero)
            np.testing.assert_array_equal(y, [0, -0.5, 3])
            np.testing.assert_array_equal(backprop(dy), [first, 1.75, -11])

    def test_leaky_relu_slope_through_float32(self) -> None:
        y, _ = leaky_relu(np.array([-1.0]), slope=0.1, hyperparameters="float32")
        assert y[0] == -float(np.float32(0.1)) != -0.1

    @pytest.mark.parametrize("slope", [NAN, INF])
    def test_leaky_relu_refuses_a_slope_that_is_not_finite(self, slope: float) -> None:
        with pytest.raises(ValueError, match="slope must be finite"):
            leaky_relu(np.zeros(2), slope=slope)

    @pytest.mark.parametrize("layer", ELEMENTWISE)
    def test_16_bits_are_rounded_once(self, layer: Any) -> None:
        x, dy = draw(40, dtype=np.float32), draw(40, seed=1, dtype=np.float32)
        for dtype in (np.float16, ml_dtypes.bfloat16):
            narrow, narrow_dy = x.astype(dtype), dy.astype(dtype)
            y, backprop = layer(narrow)
            wide, wide_backprop = layer(narrow.astype(np.float32))
            assert y.dtype == dtype
            np.testing.assert_array_equal(y, wide.astype(dtype))
            dx = wide_backprop(narrow_dy.astype(np.float32)).astype(dtype)
            np.testing.assert_array_equal(backprop(narrow_dy), dx)


class TestDropout:
    def test_by_hand(self) -> None:
        x, mask = np.array([3.0, -6.0, NAN, INF]), np.array([True, True, False, False])
        y, backprop = dropout(x, mask, rate=0.25)
        np.testing.assert_array_equal(y, [4, -8, 0, 0])
        np.testing.assert_array_equal(backprop(np.array([6.0, 1.5, INF, 7])), [8, 2, 0, 0])

    def test_rate_one_is_zeros_whatever_the_mask(self) -> None:
        y, backprop = dropout(draw(3), np.array([True, False, True]), rate=1)
        np.testing.assert_array_equal(y, np.zeros(3))
        np.testing.assert_array_equal(backprop(draw(3)), np.zeros(3))

    def test_expectation_is_the_input(self) -> None:
        mask = np.random.default_rng(5).random((20_000, 3)) >= 0.3
        y, _ = dropout(np.tile([1.0, -2.0, 3.0], (20_000, 1)), mask, rate=0.3)
        np.testing.assert_allclose(y.mean(axis=0), [1, -2, 3], rtol=0.03)

    @pytest.mark.parametrize("rate", [-0.1, 1.1, NAN])
    def test_refuses_a_rate_that_is_no_probability(self, rate: float) -> None:
        with pytest.raises(ValueError, match="rate must be"):
            dropout(np.zeros(2), np.ones(2, dtype=bool), rate=rate)

    def test_refuses_a_mask_that_would_broadcast_or_is_not_boolean(self) -> None:
        with pytest.raises(ValueError, match="same shape"):
            dropout(np.zeros((2, 3)), np.ones(3, dtype=bool), rate=0.5)
        with pytest.raises(ValueError, match="boolean"):
            dropout(np.zeros(3), np.ones(3), rate=0.5)


def batch_norm_arguments(*shape: int) -> list[np.ndarray]:
    channels = shape[-1]
    vectors = [draw(channels, seed=seed) for seed in (1, 2, 3)]
    return [draw(*shape) * 3 + 1, *vectors, np.abs(draw(channels, seed=4)) + 0.5]


class TestBatchNorm:
    def test_by_hand(self) -> None:
        x, one = np.array([[1.0], [3.0], [5.0], [7.0]]), np.ones(1)
        y, (mean, var), backprop = batch_norm(
            x, 2 * one, -one, 8 * one, one, eps=4.0, momentum=0.25
        )
        # The mean is 4, the variance 5, the unbiased one 20/3, the deviation 3.
        np.testing.assert_allclose(y[:, 0], [-3, -5 / 3, -1 / 3, 1], rtol=1e-15)
        np.testing.assert_allclose((mean[0], var[0]), (7, 0.75 + 5 / 3), rtol=1e-15)
        dx, dscale, dshift = backprop(np.array([[1.0], [0.0], [0.0], [0.0]]))
        np.testing.assert_allclose((dscale[0], dshift[0]), (-1, 1), rtol=1e-15)
        # dx = 2/3 (dy - 1/4 - normalised * dscale / 4)
        expected = [2 / 3 * (3 / 4 - 1 / 4)] + [
            2 / 3 * (-1 / 4 + n / 4) for n in (-1 / 3, 1 / 3, 1)
        ]
        np.testing.assert_allclose(dx[:, 0], expected, atol=1e-15)

    @pytest.mark.parametrize("shape", [(5, 3), (2, 3, 2, 4), (3, 4, 2)])
    @pytest.mark.parametrize("training", [True, False])
    def test_against_autograd(self, shape: tuple[int, ...], training: bool) -> None:
        arguments, dy = batch_norm_arguments(*shape), draw(*shape, seed=9)
        y, running, backprop = batch_norm(*arguments, training=training, eps=1e-3, momentum=0.2)
        x, scale, shift = (torch.tensor(a, requires_grad=True) for a in arguments[:3])
        mean, var = (torch.tensor(a) for a in arguments[3:])
        moved = x.movedim(-1, 1) if x.ndim > 2 else x
        expected = F.batch_norm(moved, mean, var, scale, shift, training, 0.2, 1e-3)
        expected = expected.movedim(1, -1) if x.ndim > 2 else expected
        gradients = torch.autograd.grad(expected, [x, scale, shift], torch.tensor(dy))
        found = (y, *running, *backprop(dy))
        for got, want in zip(found, (expected.detach(), mean, var, *gradients), strict=True):
            np.testing.assert_allclose(got, want.numpy(), rtol=1e-11, atol=1e-12)

    def test_against_finite_differences(self) -> None:
        arguments, dy = batch_norm_arguments(4, 2), draw(4, 2, seed=9)
        gradients = batch_norm(*arguments)[2](dy)
        for index, gradient in enumerate(gradients):

            def loss(a: np.ndarray, i: int = index) -> Any:
                return np.sum(batch_norm(*replaced(arguments, i, a))[0] * dy)

            assert_gradient(loss, arguments[index], gradient)

    def test_biased_running_variance(self) -> None:
        x, one = np.array([[1.0], [3.0]]), np.ones(1)
        for setting, expected in (("unbiased", 2.0), ("biased", 1.0)):
            _, (_, var), _ = batch_norm(x, one, one, one, one, momentum=1, running_variance=setting)
            assert var[0] == expected

    def test_evaluation_returns_the_running_values_themselves(self) -> None:
        arguments = batch_norm_arguments(3, 2)
        _, (mean, var), _ = batch_norm(*arguments, training=False)
        assert mean is arguments[3]
        assert var is arguments[4]

    def test_one_value_per_channel(self) -> None:
        arguments = batch_norm_arguments(1, 3)
        with pytest.raises(ValueError, match="at least 2 values per channel, got 1"):
            batch_norm(*arguments)
        y, _, _ = batch_norm(*arguments, running_variance="biased")
        np.testing.assert_array_equal(y, arguments[2][None])


def rnn_arguments(examples: int, steps: int, into: int, width: int) -> list[np.ndarray]:
    shapes = [(examples, steps, into), (into, width), (width, width), (width,), (examples, width)]
    return [draw(*shape, seed=seed) for seed, shape in enumerate(shapes)]


class TestRnn:
    def test_by_hand(self) -> None:
        # h1 = tanh(log 3) = 4/5; the second step sees a = -log 2, so h2 = -3/5.
        x = np.array([[[1.0], [2.0]]])
        weight, recurrent = (
            np.array([[math.log(3)]]),
            np.array([[-2.5 * math.log(3) - 1.25 * math.log(2)]]),
        )
        y, backprop = rnn(x, weight, recurrent, None, np.zeros((1, 1)))
        np.testing.assert_allclose(y.ravel(), [0.8, -0.6], rtol=1e-14)
        dx, dweight, drecurrent, dbias, dh0 = backprop(np.array([[[1.0], [25.0]]]))
        second = 25 * (1 - 0.36)
        first = (1 + second * recurrent[0, 0]) * (1 - 0.64)
        np.testing.assert_allclose(dx.ravel(), np.array([first, second]) * math.log(3), rtol=1e-13)
        np.testing.assert_allclose(dweight.ravel(), [first + 2 * second], rtol=1e-13)
        np.testing.assert_allclose(drecurrent.ravel(), [0.8 * second], rtol=1e-13)
        np.testing.assert_allclose(dh0.ravel(), [first * recurrent[0, 0]], rtol=1e-13)
        assert dbias is None

    @pytest.mark.parametrize("truncate", [None, 1, 2, 3, 5, 9])
    def test_against_autograd(self, truncate: int | None) -> None:
        arguments, dy = rnn_arguments(2, 5, 3, 4), draw(2, 5, 4, seed=9)
        y, backprop = rnn(*arguments, truncate=truncate)
        leaves = [torch.tensor(a, requires_grad=True) for a in arguments]
        x, weight, recurrent, bias, state = leaves
        states = []
        for t in range(5):
            if truncate and t and t % truncate == 0:
                state = state.detach()
            state = torch.tanh(x[:, t] @ weight + state @ recurrent + bias)
            states.append(state)
        expected = torch.stack(states, dim=1)
        np.testing.assert_allclose(y, expected.detach().numpy(), rtol=1e-13)
        gradients = torch.autograd.grad(expected, leaves, torch.tensor(dy))
        for got, want in zip(backprop(dy), gradients, strict=True):
            np.testing.assert_allclose(got, want.numpy(), rtol=1e-11, atol=1e-12)

    def test_against_finite_differences(self) -> None:
        arguments, dy = rnn_arguments(2, 3, 2, 3), draw(2, 3, 3, seed=9)
        gradients = rnn(*arguments)[1](dy)
        for index, gradient in enumerate(gradients):

            def loss(a: np.ndarray, i: int = index) -> Any:
                return np.sum(rnn(*replaced(arguments, i, a))[0] * dy)

            assert_gradient(loss, arguments[index], gradient)

    @pytest.mark.parametrize("empty", range(3), ids=["no example", "no input", "no unit"])
    def test_an_empty_axis(self, empty: int) -> None:
        examples, into, width = (
            0 if axis == empty else size for axis, size in enumerate((2, 3, 4))
        )
        arguments = rnn_arguments(examples, 3, into, width)
        y, backprop = rnn(*arguments)
        assert y.shape == (examples, 3, width)
        gradients = [np.asarray(gradient) for gradient in backprop(np.ones_like(y))]
        assert [g.shape for g in gradients] == [a.shape for a in arguments]
        if empty == 0:
            assert not any(g.any() for g in gradients)

    def test_gradients_explode_with_the_powers_of_the_recurrent_weight(self) -> None:
        dy = np.zeros((1, 20, 1))
        dy[0, -1] = 3.0
        zero = np.zeros((1, 1))
        _, backprop = rnn(np.zeros((1, 20, 1)), zero, np.full((1, 1), 4.0), None, zero)
        assert backprop(dy)[4][0, 0] == 3.0 * 4.0**20

    def test_refuses_no_step_and_a_truncation_below_one(self) -> None:
        with pytest.raises(ValueError, match="at least one step"):
            rnn(*rnn_arguments(2, 0, 3, 4))
        with pytest.raises(ValueError, match="truncate must be at least 1, got 0"):
            rnn(*rnn_arguments(2, 3, 3, 4), truncate=0)


class TestBinaryCrossEntropy:
    def test_by_hand(self) -> None:
        z, t = np.array([math.log(3), -math.log(4)]), np.array([1.0, 0.5])
        loss, backprop = binary_cross_entropy(z, t, "sum")
        expected = math.log(4 / 3) - 0.5 * math.log(0.2) - 0.5 * math.log(0.8)
        assert float(loss) == pytest.approx(expected, rel=1e-15)
        np.testing.assert_allclose(backprop(), [-0.25, -0.3], rtol=1e-14)

    @pytest.mark.parametrize("reduction", ["mean", "sum"])
    def test_against_autograd(self, reduction: str) -> None:
        z, t = draw(4, 3) * 5, np.random.default_rng(3).random((4, 3))
        loss, backprop = binary_cross_entropy(z, t, reduction)
        leaf = torch.tensor(z, requires_grad=True)
        expected = F.binary_cross_entropy_with_logits(leaf, torch.tensor(t), reduction=reduction)
        assert float(loss) == pytest.approx(expected.item(), rel=1e-13)
        (gradient,) = torch.autograd.grad(expected, leaf)
        np.testing.assert_allclose(backprop(), gradient.numpy(), rtol=1e-11, atol=1e-14)
        assert_gradient(lambda z: binary_cross_entropy(z, t, reduction)[0], z, backprop())

    def test_keeps_the_digits_of_a_tiny_loss(self) -> None:
        loss, _ = binary_cross_entropy(np.array([40.0]), np.array([1.0]))
        assert float(loss) == pytest.approx(math.exp(-40), rel=1e-14)

    @pytest.mark.parametrize(
        ("z", "t", "limit", "linear", "sigmoid_form"),
        [(INF, 1, 0, NAN, NAN), (INF, 0, INF, NAN, INF), (-INF, 0, 0, NAN, NAN), (-INF, 1, INF, INF, NAN)],
    )  # fmt: skip
    def test_infinite_logits(
        self, z: float, t: float, limit: float, linear: float, sigmoid_form: float
    ) -> None:
        for setting, expected in (
            ("limit", limit),
            ("linear_form", linear),
            ("sigmoid_form", sigmoid_form),
        ):
            with np.errstate(invalid="ignore"):
                loss, backprop = binary_cross_entropy(
                    np.array([z]), np.array([float(t)]), infinite_logit=setting
                )
            np.testing.assert_array_equal(loss, expected)
            np.testing.assert_array_equal(backprop(), [(z > 0) - t])

    def test_refuses_targets_that_are_no_probabilities(self) -> None:
        for target in (1.5, -0.5, NAN):
            with pytest.raises(ValueError, match="targets must be probabilities"):
                binary_cross_entropy(np.zeros(2), np.array([0.5, target]))
        loss, _ = binary_cross_entropy(np.zeros(1), np.full(1, 2.0), outside_targets="extrapolate")
        assert float(loss) == pytest.approx(math.log(2))


class TestPortability:
    @pytest.mark.parametrize("layer", ELEMENTWISE)
    def test_elementwise_on_strict_arrays(self, layer: Any) -> None:
        x, dy = draw(2, 3), draw(2, 3, seed=1)
        y, backprop = layer(array_api_strict.asarray(x.copy()))
        np.testing.assert_array_equal(np.asarray(y), layer(x)[0])
        dx = backprop(array_api_strict.asarray(dy.copy()))
        np.testing.assert_array_equal(np.asarray(dx), layer(x)[1](dy))

    @pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
    def test_batch_norm_and_rnn_on_torch(self, dtype: str) -> None:
        to = getattr(torch, dtype)
        y, running, backprop = batch_norm(
            *[torch.tensor(a).to(to) for a in batch_norm_arguments(4, 2)]
        )
        assert {v.dtype for v in (y, *running, *backprop(y))} == {to}
        y, rnn_backprop = rnn(*[torch.tensor(a).to(to) for a in rnn_arguments(2, 3, 2, 4)])
        gradients = [g for g in rnn_backprop(y) if g is not None]
        assert {v.dtype for v in (y, *gradients)} == {to}

    def test_batch_norm_dropout_rnn_and_loss_on_strict_arrays(self) -> None:
        strict = lambda a: array_api_strict.asarray(np.array(a))  # noqa: E731
        for function, arguments in (
            (batch_norm, batch_norm_arguments(4, 2)),
            (rnn, rnn_arguments(2, 3, 2, 4)),
            (lambda x, m: dropout(x, m, rate=0.5), [draw(3), draw(3) > 0]),
        ):
            y, *_, backprop = function(*[strict(a) for a in arguments])
            plain, *_, plain_backprop = function(*arguments)
            np.testing.assert_array_equal(np.asarray(y), plain)
            found, expected = (
                g if isinstance(g, tuple) else (g,) for g in (backprop(y), plain_backprop(plain))
            )
            for got, want in zip(found, expected, strict=True):
                np.testing.assert_allclose(np.asarray(got), np.asarray(want), rtol=1e-14)
        z, t = draw(4), np.array([0.0, 1.0, 0.5, 0.25])
        loss, gradient = binary_cross_entropy(strict(z), strict(t))
        assert float(loss) == float(binary_cross_entropy(z, t)[0])
        assert np.asarray(gradient()).shape == (4,)


class TestModel:
    MODEL = (
        {"operation": "layer.rnn", "units": 3, "truncate": 2},
        {"operation": "layer.leaky_relu", "slope": 0.25},
        {"operation": "layer.flatten"},
        {"operation": "layer.dense", "units": 2},
        {"operation": "layer.tanh"},
        {"operation": "layer.sigmoid"},
    )

    def test_recurrent_layers_have_three_parameters(self) -> None:
        params = models.initial_params(self.MODEL, (4, 5), seed=1, dtype="float64")
        assert [p.shape for p in params] == [(5, 3), (3, 3), (3,), (12, 2), (2,)]

    def test_gradient_of_every_parameter(self) -> None:
        model = ({**self.MODEL[0], "truncate": None}, *self.MODEL[1:])
        params = models.initial_params(model, (4, 5), seed=1, dtype="float64")
        x, targets = draw(2, 4, 5), np.array([[1.0, 0.0], [0.25, 0.75]])
        description = {"operation": "loss.binary_cross_entropy"}
        y, backprop = models.forward(model, params, x)
        _, grads = backprop(models.loss(description, y, targets)[1]())

        assert len(grads) == len(params)
        for index, (param, grad) in enumerate(zip(params, grads, strict=True)):

            def loss(p: np.ndarray, i: int = index) -> Any:
                y, _ = models.forward(model, replaced(params, i, p), x)
                return models.loss(description, y, targets)[0]

            assert_gradient(loss, param, grad)
