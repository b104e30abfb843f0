"""Losses against float64 autograd, finite differences and numbers worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import array_api_strict
import ml_dtypes
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from refimpl.losses import mse, softmax_cross_entropy

NAN, INF = math.nan, math.inf


def draw(*shape: int, seed: int = 0, dtype: Any = np.float64) -> np.ndarray:
    """Return unequal numbers of both signs in an array that cannot be written to."""
    array = np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)
    array.flags.writeable = False
    return array


def classes(*indices: int) -> np.ndarray:
    array = np.array(indices, dtype=np.int64)
    array.flags.writeable = False
    return array


def numeric_gradient(loss: Any, x: np.ndarray) -> np.ndarray:
    gradient, step = np.zeros_like(x), 1e-6
    for index in np.ndindex(*x.shape):
        shift = np.zeros_like(x)
        shift[index] = step
        gradient[index] = (float(loss(x + shift)) - float(loss(x - shift))) / (2 * step)
    return gradient


class TestSoftmaxCrossEntropy:
    @pytest.mark.parametrize(("reduction", "share"), [("mean", 0.5), ("sum", 1.0)])
    def test_by_hand(self, reduction: str, share: float) -> None:
        # Powers 1 : 3 and 1 : 4, so the probabilities are quarters and fifths.
        logits = np.array([[0.0, math.log(3)], [math.log(4), 0.0]])
        loss, backprop = softmax_cross_entropy(logits, classes(0, 0), reduction)
        assert loss.shape == ()
        assert float(loss) == pytest.approx(share * (math.log(4) + math.log(5 / 4)), rel=1e-15)
        expected = share * np.array([[-0.75, 0.75], [-0.2, 0.2]])
        np.testing.assert_allclose(backprop(), expected, rtol=1e-15)

    @pytest.mark.parametrize("reduction", ["mean", "sum"])
    @pytest.mark.parametrize("scale", [1.0, 30.0])
    def test_against_autograd(self, reduction: str, scale: float) -> None:
        logits, targets = draw(5, 4) * scale, classes(3, 0, 2, 2, 1)
        loss, backprop = softmax_cross_entropy(logits, targets, reduction)
        leaf = torch.tensor(logits, requires_grad=True)
        expected = F.cross_entropy(leaf, torch.tensor(targets), reduction=reduction)
        expected.backward()
        assert leaf.grad is not None
        assert float(loss) == pytest.approx(expected.item(), rel=1e-14)
        np.testing.assert_allclose(backprop(), leaf.grad.numpy(), rtol=1e-12, atol=1e-14)

    @pytest.mark.parametrize("reduction", ["mean", "sum"])
    def test_against_finite_differences(self, reduction: str) -> None:
        logits, targets = draw(3, 4), classes(3, 0, 2)
        numeric = numeric_gradient(
            lambda z: softmax_cross_entropy(z, targets, reduction)[0], logits
        )
        gradient = softmax_cross_entropy(logits, targets, reduction)[1]()
        np.testing.assert_allclose(gradient, numeric, rtol=1e-6, atol=1e-9)

    def test_the_default_is_the_mean_over_the_examples(self) -> None:
        logits, targets = draw(5, 3), classes(0, 2, 1, 1, 0)
        mean, total = (softmax_cross_entropy(logits, targets, r)[0] for r in ("mean", "sum"))
        assert float(mean) == float(softmax_cross_entropy(logits, targets)[0])
        assert float(total) == pytest.approx(5 * float(mean), rel=1e-15)

    @pytest.mark.parametrize(
        ("target", "loss", "gradient"),
        [(0, 0.0, [0.0, 0.0, 0.0]), (1, 1000.0, [1.0, -1.0, 0.0]), (2, 2000.0, [1.0, 0.0, -1.0])],
    )
    def test_large_logits(self, target: int, loss: float, gradient: list[float]) -> None:
        logits = np.array([[1000.0, 0.0, -1000.0]], dtype=np.float32)
        value, backprop = softmax_cross_entropy(logits, classes(target))
        assert float(value) == loss
        assert backprop().tolist() == [gradient]

    def test_a_near_certain_example_keeps_its_loss_and_gradient(self) -> None:
        # exp(-20) is far below the float32 epsilon: log(1 + exp(-20)) would come out as 0.
        logits = np.array([[20.0, 0.0]], dtype=np.float32)
        value, backprop = softmax_cross_entropy(logits, classes(0))
        assert float(value) == pytest.approx(2.0611536e-9, rel=1e-6)
        np.testing.assert_allclose(backprop(), [[-2.0611536e-9, 2.0611536e-9]], rtol=1e-6)

    def test_a_shift_of_all_logits_changes_nothing(self) -> None:
        logits, targets = np.round(draw(3, 4) * 8) / 8, classes(3, 0, 2)
        first, second = (softmax_cross_entropy(z, targets) for z in (logits, logits + 512.0))
        assert float(first[0]) == float(second[0])
        np.testing.assert_array_equal(first[1](), second[1]())

    @pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
    @pytest.mark.parametrize(
        ("logits", "target", "loss", "gradient"),
        [
            ([-INF, 0.0, 0.0], 0, INF, [-1.0, 0.5, 0.5]),
            ([-INF, 0.0, 0.0], 1, math.log(2), [0.0, -0.5, 0.5]),
            ([INF, 0.0, 0.0], 0, NAN, [NAN, NAN, NAN]),
            ([INF, 0.0, 0.0], 1, NAN, [NAN, NAN, NAN]),
            ([-INF, -INF, -INF], 1, NAN, [NAN, NAN, NAN]),
            ([NAN, 0.0, 0.0], 1, NAN, [NAN, NAN, NAN]),
        ],
    )
    def test_nonfinite_logits(
        self, logits: list[float], target: int, loss: float, gradient: list[float]
    ) -> None:
        value, backprop = softmax_cross_entropy(np.array([logits]), classes(target))
        np.testing.assert_allclose(value, loss, rtol=1e-15)
        np.testing.assert_allclose(backprop(), [gradient], rtol=1e-15)

    def test_one_bad_example_does_not_spoil_the_gradient_of_another(self) -> None:
        logits = np.array([[NAN, 0.0], [0.0, math.log(3)]])
        gradient = softmax_cross_entropy(logits, classes(0, 1), "sum")[1]()
        np.testing.assert_allclose(gradient, [[NAN, NAN], [0.25, -0.25]], rtol=1e-15)

    def test_the_only_class_costs_nothing(self) -> None:
        value, backprop = softmax_cross_entropy(draw(3, 1), classes(0, 0, 0))
        assert float(value) == 0.0
        np.testing.assert_array_equal(backprop(), np.zeros((3, 1)))

    @pytest.mark.parametrize("target", [3, -1, -100])
    def test_rejects_a_class_out_of_range(self, target: int) -> None:
        with pytest.raises(ValueError, match="targets must be at least 0 and less than the 3"):
            softmax_cross_entropy(draw(2, 3), classes(0, target))

    @pytest.mark.parametrize(
        ("logits", "targets", "reduction", "message"),
        [
            (draw(2, 3), classes(0), "mean", r"targets must have shape \(2,\), got \(1,\)"),
            (draw(2, 3), classes(0, 1, 2), "mean", "targets must have shape"),
            (draw(2, 3), np.array([[0], [1]]), "mean", "targets must have shape"),
            (draw(3), classes(0, 1, 2), "mean", "logits must have shape"),
            (draw(2, 3, 4), classes(0, 1), "mean", "logits must have shape"),
            (draw(2, 3), np.array([0.0, 1.0]), "mean", "targets must be int64 class indices"),
            (draw(2, 3), np.array([0, 1], dtype=np.int32), "mean", "targets must be int64"),
            (
                np.ones((2, 3), dtype=np.int64),
                classes(0, 1),
                "mean",
                "logits must have a real floating",
            ),
            (draw(2, 3), classes(0, 1), "none", "reduction must be one of mean, sum, got 'none'"),
            (draw(0, 3), classes(), "mean", "at least one example"),
            (draw(2, 0), classes(0, 0), "sum", "at least one class"),
        ],
    )
    def test_rejects(self, logits: Any, targets: Any, reduction: str, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            softmax_cross_entropy(logits, targets, reduction)

    def test_the_sum_over_no_example_is_zero(self) -> None:
        value, backprop = softmax_cross_entropy(draw(0, 3), classes(), "sum")
        assert float(value) == 0.0
        assert backprop().shape == (0, 3)

    @pytest.mark.parametrize("reduction", ["mean", "sum"])
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_runs_on_the_strict_namespace_and_torch(self, reduction: str, dtype: Any) -> None:
        logits, targets = draw(3, 4, dtype=dtype), classes(3, 0, 2)
        value, backprop = softmax_cross_entropy(logits, targets, reduction)
        assert value.dtype == backprop().dtype == dtype
        for asarray in (array_api_strict.asarray, torch.tensor):
            other, other_backprop = softmax_cross_entropy(
                asarray(logits), asarray(targets), reduction
            )
            assert type(other) is type(other_backprop()) is type(asarray(logits))
            assert str(dtype.__name__) in str(other.dtype)
            assert float(other) == pytest.approx(float(value), rel=1e-6)
            np.testing.assert_allclose(
                np.asarray(other_backprop()), backprop(), rtol=1e-5, atol=1e-7
            )

    @pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
    def test_16_bits_give_a_float32_loss_and_a_gradient_rounded_once(self, dtype: Any) -> None:
        logits, targets = draw(3, 4).astype(dtype), classes(3, 0, 2)
        value, backprop = softmax_cross_entropy(logits, targets)
        wide, wide_backprop = softmax_cross_entropy(logits.astype(np.float32), targets)
        assert value.dtype == np.float32
        assert float(value) == float(wide)
        assert backprop().dtype == dtype
        np.testing.assert_array_equal(backprop(), wide_backprop().astype(dtype))

    def test_a_float16_loss_keeps_the_digits_of_float32(self) -> None:
        logits = np.array([[11.0, 0.0]], dtype=np.float16)
        value = softmax_cross_entropy(logits, classes(1))[0]
        assert float(value) == pytest.approx(11.0000167, rel=1e-7)
        assert float(value) != 11.0


class TestMse:
    @pytest.mark.parametrize(("reduction", "count"), [("mean", 6), ("sum", 1)])
    def test_by_hand(self, reduction: str, count: int) -> None:
        outputs = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
        targets = np.array([[1.0, 4.0, 2.0], [8.0, 5.0, 3.0]])
        loss, backprop = mse(outputs, targets, reduction)
        assert loss.shape == ()
        assert float(loss) == 30.0 / count
        expected = np.array([[0.0, -4.0, 2.0], [-8.0, 0.0, 6.0]]) / count
        np.testing.assert_array_equal(backprop(), expected)

    @pytest.mark.parametrize("reduction", ["mean", "sum"])
    def test_against_autograd(self, reduction: str) -> None:
        outputs, targets = draw(3, 4, 2), draw(3, 4, 2, seed=1)
        loss, backprop = mse(outputs, targets, reduction)
        leaf = torch.tensor(outputs, requires_grad=True)
        expected = F.mse_loss(leaf, torch.tensor(targets), reduction=reduction)
        expected.backward()
        assert leaf.grad is not None
        assert float(loss) == pytest.approx(expected.item(), rel=1e-14)
        np.testing.assert_allclose(backprop(), leaf.grad.numpy(), rtol=1e-14)

    def test_against_finite_differences(self) -> None:
        outputs, targets = draw(3, 4), draw(3, 4, seed=1)
        numeric = numeric_gradient(lambda y: mse(y, targets)[0], outputs)
        np.testing.assert_allclose(mse(outputs, targets)[1](), numeric, rtol=1e-6, atol=1e-9)

    def test_the_default_is_the_mean(self) -> None:
        outputs, targets = draw(3, 4), draw(3, 4, seed=1)
        assert float(mse(outputs, targets)[0]) == float(mse(outputs, targets, "mean")[0])
        assert float(mse(outputs, targets)[0]) != float(mse(outputs, targets, "sum")[0])

    @pytest.mark.parametrize(
        ("outputs", "targets", "reduction", "message"),
        [
            (draw(2, 1), draw(2), "mean", r"targets must have shape \(2, 1\), got \(2,\)"),
            (draw(2, 3), draw(1, 3), "mean", "targets must have shape"),
            (draw(2, 3), draw(), "mean", "targets must have shape"),
            (draw(2, 3), draw(2, 3, dtype=np.float32), "mean", "must have one dtype"),
            (
                draw(2, 3),
                np.ones((2, 3), dtype=np.int64),
                "mean",
                "targets must have a real floating",
            ),
            (draw(2, 3), draw(2, 3), "batch", "reduction must be one of mean, sum, got 'batch'"),
            (draw(0, 3), draw(0, 3), "mean", "at least one element"),
        ],
    )
    def test_rejects(self, outputs: Any, targets: Any, reduction: str, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            mse(outputs, targets, reduction)

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_runs_on_the_strict_namespace_and_torch(self, dtype: Any) -> None:
        outputs, targets = draw(3, 4, dtype=dtype), draw(3, 4, seed=1, dtype=dtype)
        value, backprop = mse(outputs, targets)
        assert value.dtype == backprop().dtype == dtype
        for asarray in (array_api_strict.asarray, torch.tensor):
            other, other_backprop = mse(asarray(outputs), asarray(targets))
            assert type(other) is type(other_backprop()) is type(asarray(outputs))
            assert float(other) == pytest.approx(float(value), rel=1e-6)
            np.testing.assert_allclose(np.asarray(other_backprop()), backprop(), rtol=1e-6)

    @pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
    def test_16_bits_give_a_float32_loss_and_a_gradient_rounded_once(self, dtype: Any) -> None:
        # 300 squared overflows float16, and 90000 + 0.984 is a number of neither 16-bit dtype.
        outputs, targets = (np.array(v, dtype=dtype) for v in ([300.0, 1.0078125], [0.0, 2.0]))
        value, backprop = mse(outputs, targets, "sum")
        assert value.dtype == np.float32
        assert float(value) == np.float32(90000 + 0.9921875**2)
        gradient = backprop()
        assert gradient.dtype == dtype
        assert gradient.astype(np.float64).tolist() == [600.0, -1.984375]

    @pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
    def test_16_bits_are_widened_before_they_are_subtracted(self, dtype: Any) -> None:
        # 2049 is a number of neither 16-bit dtype.
        outputs, targets = np.array([2048.0], dtype=dtype), np.array([-1.0], dtype=dtype)
        assert float(mse(outputs, targets)[0]) == 2049.0**2
