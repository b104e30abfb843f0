"""Layers against float64 autograd, finite differences and numbers worked out by hand."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import array_api_strict
import ml_dtypes
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from refimpl.layers import avg_pool2d, conv2d, dense, flatten, max_pool2d, relu

NAN, INF = math.nan, math.inf
PADDINGS = [((0, 0), (0, 0)), ((1, 1), (0, 0)), ((2, 0), (1, 3)), ((0, 1), (2, 0))]


def draw(*shape: int, seed: int = 0, dtype: Any = np.float64) -> np.ndarray:
    """Return unequal numbers of both signs in an array that cannot be written to."""
    generator = np.random.default_rng([seed, *shape])
    array = generator.standard_normal(shape).astype(dtype)
    array.flags.writeable = False
    return array


def image(rows: list[list[float]], dtype: Any = np.float64) -> np.ndarray:
    """Return one single-channel image as NHWC."""
    return np.array(rows, dtype=dtype)[None, :, :, None]


def plane(array: Any) -> np.ndarray:
    """Return the single channel of one image."""
    assert array.shape[0] == array.shape[3] == 1
    return np.asarray(array)[0, :, :, 0]


def leaf(array: np.ndarray) -> torch.Tensor:
    return torch.tensor(array, requires_grad=True)


def to_nchw(x: torch.Tensor) -> torch.Tensor:
    return x.permute(0, 3, 1, 2)


def to_nhwc(x: torch.Tensor) -> torch.Tensor:
    return x.permute(0, 2, 3, 1)


def pad_nchw(x: torch.Tensor, padding: Any, value: float = 0.0) -> torch.Tensor:
    (top, bottom), (left, right) = padding
    return F.pad(x, (left, right, top, bottom), value=value)


def assert_close(actual: Any, expected: Any, tolerance: float = 1e-12) -> None:
    if isinstance(expected, torch.Tensor):
        expected = expected.detach().numpy()
    assert tuple(actual.shape) == tuple(np.shape(expected))
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=tolerance, atol=tolerance)


def assert_gradient(loss: Callable[[np.ndarray], float], x: np.ndarray, dx: np.ndarray) -> None:
    """Compare a gradient with central differences, element by element."""
    numeric, step = np.zeros_like(x), 1e-6
    for index in np.ndindex(*x.shape):
        shift = np.zeros_like(x)
        shift[index] = step
        numeric[index] = (loss(x + shift) - loss(x - shift)) / (2 * step)
    np.testing.assert_allclose(dx, numeric, rtol=1e-6, atol=1e-7)


class TestDense:
    def test_by_hand(self) -> None:
        x, weight = np.array([[1.0, 2.0]]), np.array([[3.0, 5.0, 7.0], [11.0, 13.0, 17.0]])
        y, backprop = dense(x, weight, np.array([100.0, 200.0, 300.0]))
        dx, dweight, dbias = backprop(np.array([[1.0, -10.0, 100.0]]))
        assert y.tolist() == [[125.0, 231.0, 341.0]]
        assert dx.tolist() == [[653.0, 1581.0]]
        assert dweight.tolist() == [[1.0, -10.0, 100.0], [2.0, -20.0, 200.0]]
        assert dbias is not None
        assert dbias.tolist() == [1.0, -10.0, 100.0]

    @pytest.mark.parametrize("with_bias", [True, False])
    def test_against_autograd(self, with_bias: bool) -> None:
        x, weight, dy = draw(4, 3), draw(3, 5), draw(4, 5, seed=1)
        bias = draw(5) if with_bias else None
        y, backprop = dense(x, weight, bias)
        dx, dweight, dbias = backprop(dy)
        tx, tw = leaf(x), leaf(weight)
        tb = leaf(bias) if bias is not None else None
        ty = F.linear(tx, tw.T, tb)
        ty.backward(torch.tensor(dy))
        assert_close(y, ty)
        assert_close(dx, tx.grad)
        assert_close(dweight, tw.grad)
        if tb is None:
            assert dbias is None
        else:
            assert_close(dbias, tb.grad)

    def test_against_finite_differences(self) -> None:
        x, weight, bias, dy = draw(2, 3), draw(3, 4), draw(4), draw(2, 4, seed=1)
        dx, dweight, dbias = dense(x, weight, bias)[1](dy)
        assert_gradient(lambda v: float(np.sum(dense(v, weight, bias)[0] * dy)), x, dx)
        assert_gradient(lambda v: float(np.sum(dense(x, v, bias)[0] * dy)), weight, dweight)
        assert dbias is not None
        assert_gradient(lambda v: float(np.sum(dense(x, weight, v)[0] * dy)), bias, dbias)

    @pytest.mark.parametrize(
        ("shapes", "message"),
        [
            (((4, 3), (2, 5), (5,)), "weight must have shape"),
            (((4, 3), (3, 5), (3,)), "bias must have shape"),
            (((4, 3), (3, 5), (1, 5)), "bias must have shape"),
            (((3,), (3, 5), (5,)), "x must have shape"),
            (((4, 3), (3,), (5,)), "weight must have shape"),
        ],
    )
    def test_rejects_shapes(self, shapes: tuple[tuple[int, ...], ...], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            dense(*(draw(*shape) for shape in shapes))

    def test_rejects_dtypes(self) -> None:
        with pytest.raises(ValueError, match="x must have a real floating"):
            dense(np.ones((4, 3), dtype=np.int32), draw(3, 5), draw(5))
        with pytest.raises(ValueError, match="weight must have a real floating"):
            dense(draw(4, 3), draw(3, 5).astype(np.complex128), None)
        with pytest.raises(ValueError, match="must have one dtype"):
            dense(draw(4, 3), draw(3, 5, dtype=np.float32), draw(5))

    def test_rejects_an_upstream_gradient_that_does_not_fit(self) -> None:
        backprop = dense(draw(4, 3), draw(3, 5), draw(5))[1]
        with pytest.raises(ValueError, match=r"dy must have shape \(4, 5\)"):
            backprop(draw(1, 5))
        with pytest.raises(ValueError, match="dy must have the dtype of y"):
            backprop(draw(4, 5, dtype=np.float32))


def conv_in_torch(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, dy: np.ndarray, **options: Any
) -> list[torch.Tensor | None]:
    tx, tw = leaf(x), leaf(weight)
    tb = leaf(bias) if bias is not None else None
    padded = pad_nchw(to_nchw(tx), options.pop("padding"))
    y = to_nhwc(F.conv2d(padded, tw.permute(3, 2, 0, 1), tb, **options))
    y.backward(torch.tensor(dy))
    return [y, tx.grad, tw.grad, tb.grad if tb is not None else None]


class TestConv2d:
    def test_correlates_and_does_not_flip(self) -> None:
        x, weight = (
            image([[0.0, 0.0, 1.0, 0.0, 0.0]]),
            np.array([1.0, 2.0, 3.0]).reshape(1, 3, 1, 1),
        )
        y, _ = conv2d(x, weight, None, padding=((0, 0), (1, 1)))
        assert plane(y).tolist() == [[0.0, 3.0, 2.0, 1.0, 0.0]]

    def test_by_hand(self) -> None:
        x = image([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
        weight = np.array([[1.0, 10.0], [100.0, 1000.0]]).reshape(2, 2, 1, 1)
        y, backprop = conv2d(x, weight, np.array([0.5]))
        dx, dweight, dbias = backprop(image([[2.0, -3.0]]))
        assert plane(y).tolist() == [[5421.5, 6532.5]]
        assert plane(dx).tolist() == [[2.0, 17.0, -30.0], [200.0, 1700.0, -3000.0]]
        assert dweight[:, :, 0, 0].tolist() == [[-4.0, -5.0], [-7.0, -8.0]]
        assert dbias is not None
        assert dbias.tolist() == [-1.0]

    @pytest.mark.parametrize("padding", PADDINGS)
    @pytest.mark.parametrize("stride", [(1, 1), (2, 1), (2, 3)])
    @pytest.mark.parametrize("dilation", [(1, 1), (1, 2), (2, 1)])
    @pytest.mark.parametrize(("groups", "outputs"), [(1, 5), (2, 6), (4, 4)])
    def test_against_autograd(
        self, padding: Any, stride: Any, dilation: Any, groups: int, outputs: int
    ) -> None:
        x, weight, bias = draw(3, 7, 6, 4), draw(3, 2, 4 // groups, outputs), draw(outputs)
        options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        y, backprop = conv2d(x, weight, bias, **options)
        dy = draw(*y.shape, seed=1)
        expected = conv_in_torch(x, weight, bias, dy, **options)
        for actual, wanted in zip([y, *backprop(dy)], expected, strict=True):
            assert_close(actual, wanted)

    def test_without_bias(self) -> None:
        x, weight, dy = draw(2, 4, 5, 3), draw(2, 3, 3, 2), draw(2, 3, 3, 2, seed=1)
        y, backprop = conv2d(x, weight)
        dx, dweight, dbias = backprop(dy)
        expected = conv_in_torch(x, weight, None, dy, padding=((0, 0), (0, 0)))
        assert dbias is None
        for actual, wanted in zip([y, dx, dweight], expected[:3], strict=True):
            assert_close(actual, wanted)

    def test_against_finite_differences(self) -> None:
        x, weight, bias = draw(1, 4, 5, 2), draw(2, 3, 1, 4), draw(4)
        options: dict[str, Any] = {"stride": (2, 1), "padding": ((1, 0), (0, 2)), "groups": 2}
        y, backprop = conv2d(x, weight, bias, **options)
        dy = draw(*y.shape, seed=1)
        dx, dweight, dbias = backprop(dy)

        def loss(*arrays: np.ndarray) -> float:
            return float(np.sum(conv2d(*arrays, **options)[0] * dy))

        assert dbias is not None
        assert_gradient(lambda v: loss(v, weight, bias), x, dx)
        assert_gradient(lambda v: loss(x, v, bias), weight, dweight)
        assert_gradient(lambda v: loss(x, weight, v), bias, dbias)

    @pytest.mark.parametrize(
        "option",
        [
            {"stride": (2, 1)},
            {"stride": (1, 2)},
            {"padding": ((1, 0), (0, 0))},
            {"padding": ((0, 1), (0, 0))},
            {"padding": ((0, 0), (1, 0))},
            {"padding": ((0, 0), (0, 1))},
            {"dilation": (2, 1)},
            {"dilation": (1, 2)},
        ],
    )
    def test_every_option_changes_the_result(self, option: dict[str, Any]) -> None:
        x, weight = draw(1, 5, 6, 2), draw(2, 2, 2, 3)
        plain, changed = conv2d(x, weight)[0], conv2d(x, weight, **option)[0]
        assert plain.shape != changed.shape

    def test_groups_change_the_result(self) -> None:
        x, weight = draw(1, 5, 6, 4), draw(2, 2, 2, 6)
        halves = [
            conv2d(x[..., 2 * g :][..., :2], weight[..., 3 * g :][..., :3])[0] for g in (0, 1)
        ]
        assert_close(conv2d(x, weight, groups=2)[0], np.concatenate(halves, axis=-1))
        with pytest.raises(ValueError, match="x must have 1 group"):
            conv2d(x, weight)

    @pytest.mark.parametrize(
        ("option", "message"),
        [
            ({"stride": (0, 1)}, "stride must be two integers of at least 1"),
            ({"stride": 2}, "stride must be two integers"),
            ({"stride": (1, 1, 1)}, "stride must be two integers"),
            ({"stride": (1.0, 1)}, "stride must be two integers"),
            ({"stride": (True, 1)}, "stride must be two integers"),
            ({"dilation": (1, 0)}, "dilation must be two integers of at least 1"),
            ({"padding": ((-1, 0), (0, 0))}, "row padding must be two integers of at least 0"),
            ({"padding": ((0, 0), (0, -1))}, "column padding must be two integers of at least 0"),
            ({"padding": (1, 1)}, "row padding must be two integers"),
            ({"padding": 1}, "padding must be"),
            ({"groups": 3}, "groups must divide"),
            ({"groups": 0}, "groups must divide"),
            ({"groups": 1.0}, "groups must divide"),
            ({"dilation": (9, 1)}, "a window that spans 10 does not fit in 5"),
        ],
    )
    def test_rejects_parameters(self, option: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            conv2d(draw(2, 5, 6, 4), draw(2, 2, 4, 8), **option)

    @pytest.mark.parametrize(
        ("shapes", "message"),
        [
            (((5, 6, 4), (2, 2, 4, 3), (3,)), "x must have shape"),
            (((2, 5, 6, 4), (2, 4, 3), (3,)), "weight must have shape"),
            (((2, 5, 6, 4), (2, 2, 3, 3), (3,)), "x must have 1 group"),
            (((2, 5, 6, 4), (2, 2, 4, 3), (4,)), "bias must have shape"),
            (((2, 5, 6, 4), (0, 2, 4, 3), (3,)), "window must be two integers"),
            (((2, 5, 6, 4), (2, 7, 4, 3), (3,)), "a window that spans 7 does not fit in 6"),
        ],
    )
    def test_rejects_shapes(self, shapes: tuple[tuple[int, ...], ...], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            conv2d(*(draw(*shape) for shape in shapes))


def max_pool_in_torch(
    x: np.ndarray, dy: np.ndarray, padding: Any, **options: Any
) -> tuple[torch.Tensor, torch.Tensor | None]:
    tx = leaf(x)
    y = to_nhwc(F.max_pool2d(pad_nchw(to_nchw(tx), padding, -INF), **options))
    y.backward(torch.tensor(dy))
    return y, tx.grad


class TestMaxPool2d:
    @pytest.mark.parametrize("padding", PADDINGS)
    @pytest.mark.parametrize("stride", [(1, 1), (2, 1), (2, 3), None])
    @pytest.mark.parametrize("dilation", [(1, 1), (1, 2), (2, 1)])
    def test_against_autograd(self, padding: Any, stride: Any, dilation: Any) -> None:
        # Below 0, a padding of zeros would win; with integers, many windows hold ties.
        x = np.floor(draw(2, 7, 8, 3) * 2) - 9
        options = {"stride": stride, "padding": padding, "dilation": dilation}
        y, backprop = max_pool2d(x, window=(3, 2), **options)
        dy = draw(*y.shape, seed=1)
        ty, tdx = max_pool_in_torch(x, dy, kernel_size=(3, 2), **options)
        assert_close(y, ty)
        assert_close(backprop(dy), tdx)

    @pytest.mark.parametrize("size", range(3, 9))
    @pytest.mark.parametrize("stride", [1, 2, 3, 4])
    @pytest.mark.parametrize("pad", [0, 1])
    def test_ceil_mode_against_autograd(self, size: int, stride: int, pad: int) -> None:
        x = draw(2, size, size + 1, 2) - 9
        y, backprop = max_pool2d(
            x,
            window=(3, 2),
            stride=(stride, stride),
            padding=((pad, pad), (pad, pad)),
            ceil_mode=True,
        )
        dy, tx = draw(*y.shape, seed=1), leaf(x)
        ty = to_nhwc(F.max_pool2d(to_nchw(tx), (3, 2), stride, pad, ceil_mode=True))
        ty.backward(torch.tensor(dy))
        assert_close(y, ty)
        assert_close(backprop(dy), tx.grad)

    def test_ceil_mode_keeps_the_remainder(self) -> None:
        x = image([[5.0, 1.0, 4.0, 2.0, 3.0]])
        assert plane(max_pool2d(x, window=(1, 2))[0]).tolist() == [[5.0, 4.0]]
        assert plane(max_pool2d(x, window=(1, 2), ceil_mode=True)[0]).tolist() == [[5.0, 4.0, 3.0]]

    def test_ceil_mode_drops_a_window_that_would_start_in_the_padding(self) -> None:
        # Padded length 7, stride 2: windows would start at 0, 2, 4 and 6, and 6 is padding.
        x, padding = image([[5.0, 1.0, 4.0, 2.0, 3.0]]), ((0, 0), (1, 1))
        options: dict[str, Any] = {"window": (1, 2), "stride": (1, 2), "padding": padding}
        assert plane(max_pool2d(x, ceil_mode=True, **options)[0]).tolist() == [[5.0, 4.0, 3.0]]

    @pytest.mark.parametrize(
        ("ties", "expected"),
        [
            ("first", [[0.0, 14.0, 0.0], [0.0, 0.0, 0.0]]),
            ("all", [[0.0, 14.0, 0.0], [8.0, 14.0, 0.0]]),
            ("split", [[0.0, 8 / 3 + 3, 0.0], [8 / 3, 8 / 3 + 3, 0.0]]),
        ],
    )
    def test_ties(self, ties: str, expected: list[list[float]]) -> None:
        # The left window holds three equal maxima, the right one two; two pixels are in both.
        x = image([[1.0, 7.0, 2.0], [7.0, 7.0, 3.0]])
        y, backprop = max_pool2d(x, window=(2, 2), stride=(1, 1), ties=ties)
        assert plane(y).tolist() == [[7.0, 7.0]]
        np.testing.assert_allclose(plane(backprop(image([[8.0, 6.0]]))), expected, rtol=1e-15)

    def test_the_first_of_two_zeros_gives_its_sign(self) -> None:
        y, _ = max_pool2d(image([[-0.0, 0.0], [0.0, -0.0]]), window=(1, 2))
        assert np.signbit(plane(y)).tolist() == [[True], [False]]

    @pytest.mark.parametrize(
        ("nan", "ties", "value", "expected"),
        [
            ("propagate", "first", NAN, [[0.0, 6.0], [0.0, 0.0]]),
            ("propagate", "all", NAN, [[0.0, 6.0], [6.0, 0.0]]),
            ("propagate", "split", NAN, [[0.0, 3.0], [3.0, 0.0]]),
            ("ignore", "first", 3.0, [[0.0, 0.0], [0.0, 6.0]]),
            ("ignore", "all", 3.0, [[0.0, 0.0], [0.0, 6.0]]),
            ("ignore", "split", 3.0, [[0.0, 0.0], [0.0, 6.0]]),
        ],
    )
    def test_nan(self, nan: str, ties: str, value: float, expected: list[list[float]]) -> None:
        x = image([[1.0, NAN], [NAN, 3.0]])
        y, backprop = max_pool2d(x, window=(2, 2), nan=nan, ties=ties)
        np.testing.assert_array_equal(plane(y), [[value]])
        assert plane(backprop(image([[6.0]]))).tolist() == expected

    def test_a_window_of_nothing_but_nan(self) -> None:
        x = image([[NAN, NAN, 2.0, NAN]])
        for nan, value, expected in (
            ("propagate", [NAN, NAN], [5.0, 0.0, 0.0, -7.0]),
            ("ignore", [-INF, 2.0], [0.0, 0.0, -7.0, 0.0]),
        ):
            y, backprop = max_pool2d(x, window=(1, 2), nan=nan)
            np.testing.assert_array_equal(plane(y), [value])
            assert plane(backprop(image([[5.0, -7.0]]))).tolist() == [expected]

    @pytest.mark.parametrize(
        ("ties", "expected"),
        [("first", [3.0, 0.0]), ("all", [3.0, 3.0]), ("split", [1.5, 1.5])],
    )
    @pytest.mark.parametrize("nan", ["propagate", "ignore"])
    def test_padding_never_wins_against_minus_infinity(
        self, ties: str, expected: list[float], nan: str
    ) -> None:
        x, padding = image([[-INF, -INF]]), ((1, 1), (1, 0))
        y, backprop = max_pool2d(x, window=(3, 3), padding=padding, ties=ties, nan=nan)
        assert plane(y).tolist() == [[-INF]]
        assert plane(backprop(image([[3.0]]))).tolist() == [expected]

    @pytest.mark.filterwarnings("error")  # nothing may be divided by a count of 0
    @pytest.mark.parametrize("ties", ["first", "all", "split"])
    def test_a_window_wholly_in_padding_gives_minus_infinity_and_no_gradient(
        self, ties: str
    ) -> None:
        x, padding = image([[4.0, -2.0]]), ((0, 0), (2, 2))
        y, backprop = max_pool2d(x, window=(1, 2), padding=padding, ties=ties)
        assert plane(y).tolist() == [[-INF, 4.0, -INF]]
        assert plane(backprop(image([[11.0, 5.0, 13.0]]))).tolist() == [[5.0, 0.0]]

    def test_an_infinite_upstream_gradient_stays_in_its_place(self) -> None:
        backprop = max_pool2d(image([[1.0, 2.0, 3.0, 4.0]]), window=(1, 2))[1]
        np.testing.assert_array_equal(plane(backprop(image([[INF, NAN]]))), [[0, INF, 0, NAN]])

    def test_against_finite_differences(self) -> None:
        x = draw(1, 5, 4, 2)
        options: dict[str, Any] = {"window": (3, 2), "stride": (2, 1), "padding": ((1, 0), (0, 1))}
        y, backprop = max_pool2d(x, **options)
        dy = draw(*y.shape, seed=1)
        assert_gradient(lambda v: float(np.sum(max_pool2d(v, **options)[0] * dy)), x, backprop(dy))


class TestAvgPool2d:
    @pytest.mark.parametrize("count_padding", [False, True])
    @pytest.mark.parametrize("ceil_mode", [False, True])
    @pytest.mark.parametrize("stride", [(1, 1), (2, 1), (3, 4), None])
    @pytest.mark.parametrize("pads", [(0, 0), (1, 0), (1, 2)])
    @pytest.mark.parametrize("extents", [(5, 6), (6, 7), (7, 8)])
    def test_against_autograd(
        self, count_padding: bool, ceil_mode: bool, stride: Any, pads: Any, extents: Any
    ) -> None:
        x = draw(2, *extents, 3)
        y, backprop = avg_pool2d(
            x,
            window=(3, 4),
            stride=stride,
            padding=((pads[0], pads[0]), (pads[1], pads[1])),
            ceil_mode=ceil_mode,
            count_padding=count_padding,
        )
        dy, tx = draw(*y.shape, seed=1), leaf(x)
        ty = to_nhwc(F.avg_pool2d(to_nchw(tx), (3, 4), stride, pads, ceil_mode, count_padding))
        ty.backward(torch.tensor(dy))
        assert_close(y, ty)
        assert_close(backprop(dy), tx.grad)

    @pytest.mark.parametrize("count_padding", [False, True])
    @pytest.mark.parametrize("padding", PADDINGS)
    @pytest.mark.parametrize("dilation", [(1, 2), (2, 1)])
    def test_dilation_and_asymmetric_padding_against_convolution(
        self, count_padding: bool, padding: Any, dilation: Any
    ) -> None:
        """Torch has no dilated average: divide a convolution with ones by one of the ones."""
        x = draw(2, 7, 8, 3)
        options = {"stride": (2, 1), "dilation": dilation}
        y, backprop = avg_pool2d(
            x, window=(3, 2), padding=padding, count_padding=count_padding, **options
        )
        dy, tx, ones = draw(*y.shape, seed=1), leaf(x), torch.ones(1, 1, 7, 8, dtype=torch.float64)
        kernel = torch.ones(3, 1, 3, 2, dtype=torch.float64)
        total = F.conv2d(pad_nchw(to_nchw(tx), padding), kernel, groups=3, **options)
        counted = pad_nchw(ones, padding, value=float(count_padding))
        number = F.conv2d(counted, kernel[:1], **options)
        ty = to_nhwc(torch.where(number > 0, total / number.clamp(min=1), 0.0))
        ty.backward(torch.tensor(dy))
        assert_close(y, ty)
        assert_close(backprop(dy), tx.grad)

    @pytest.mark.parametrize(
        ("count_padding", "ceil_mode", "value", "dx"),
        [
            # Windows of 3 at 0, 2 and 4 of a padded length of 6: the last one overhangs by 1.
            (False, False, [3.0, 6.0], [6.0, 10.0, 4.0, 4.0]),
            (True, False, [2.0, 6.0], [4.0, 8.0, 4.0, 4.0]),
            (False, True, [3.0, 6.0, 9.0], [6.0, 10.0, 4.0, 34.0]),
            (True, True, [2.0, 6.0, 4.5], [4.0, 8.0, 4.0, 19.0]),
        ],
    )
    def test_by_hand(
        self, count_padding: bool, ceil_mode: bool, value: list[float], dx: list[float]
    ) -> None:
        x = image([[1.0, 5.0, 4.0, 9.0]])
        y, backprop = avg_pool2d(
            x,
            window=(1, 3),
            stride=(1, 2),
            padding=((0, 0), (1, 1)),
            ceil_mode=ceil_mode,
            count_padding=count_padding,
        )
        assert plane(y).tolist() == [value]
        assert plane(backprop(image([[12.0, 12.0, 30.0][: len(value)]]))).tolist() == [dx]

    @pytest.mark.parametrize("count_padding", [False, True])
    def test_a_window_wholly_in_padding_gives_zero(self, count_padding: bool) -> None:
        y, backprop = avg_pool2d(
            image([[4.0, -2.0]]),
            window=(1, 2),
            padding=((0, 0), (2, 2)),
            count_padding=count_padding,
        )
        assert plane(y).tolist() == [[0.0, 1.0, 0.0]]
        assert plane(backprop(image([[11.0, 5.0, 13.0]]))).tolist() == [[2.5, 2.5]]

    def test_against_finite_differences(self) -> None:
        x = draw(1, 5, 4, 2)
        options: dict[str, Any] = {"window": (2, 3), "stride": (2, 1), "padding": ((1, 0), (0, 1))}
        y, backprop = avg_pool2d(x, **options)
        dy = draw(*y.shape, seed=1)
        assert_gradient(lambda v: float(np.sum(avg_pool2d(v, **options)[0] * dy)), x, backprop(dy))


@pytest.mark.parametrize("pool", [max_pool2d, avg_pool2d])
class TestBothPools:
    def test_the_stride_defaults_to_the_window(self, pool: Any) -> None:
        x = draw(2, 7, 8, 3)
        assert_close(pool(x, window=(3, 2))[0], pool(x, window=(3, 2), stride=(3, 2))[0])
        assert pool(x, window=(3, 2))[0].shape == (2, 2, 4, 3)

    @pytest.mark.parametrize("mode", [False, True])
    def test_ceil_mode_never_takes_a_window_away(self, pool: Any, mode: bool) -> None:
        # As many windows fit as there are, some of them wholly in the padding: no remainder.
        y, _ = pool(draw(1, 1, 2, 1), window=(1, 2), padding=((0, 0), (0, 4)), ceil_mode=mode)
        assert y.shape == (1, 1, 3, 1)

    def test_ceil_mode_lets_a_window_reach_beyond_a_small_image(self, pool: Any) -> None:
        x = image([[3.0]])
        assert plane(pool(x, window=(2, 2), ceil_mode=True)[0]).tolist() == [[3.0]]
        with pytest.raises(ValueError, match="a window that spans 2 does not fit in 1"):
            pool(x, window=(2, 2))

    @pytest.mark.parametrize(
        ("option", "message"),
        [
            ({"window": (0, 2)}, "window must be two integers of at least 1"),
            ({"window": 2}, "window must be two integers"),
            ({"window": (2, 2), "stride": (0, 1)}, "stride must be two integers of at least 1"),
            ({"window": (2, 2), "dilation": (0, 1)}, "dilation must be two integers"),
            ({"window": (2, 2), "padding": ((0, 0), (-1, 0))}, "column padding must be two"),
            ({"window": (2, 2), "padding": ((0, 0),)}, "padding must be"),
            ({"window": (2, 2), "ceil_mode": 1}, "ceil_mode must be true or false"),
            ({"window": (6, 2)}, "a window that spans 6 does not fit in 5"),
        ],
    )
    def test_rejects_parameters(self, pool: Any, option: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            pool(draw(2, 5, 6, 3), **option)

    def test_rejects_arrays(self, pool: Any) -> None:
        with pytest.raises(ValueError, match="x must have shape"):
            pool(draw(5, 6, 3), window=(2, 2))
        with pytest.raises(ValueError, match="x must have a real floating"):
            pool(np.ones((1, 5, 6, 3), dtype=np.int64), window=(2, 2))
        with pytest.raises(ValueError, match="dy must have shape"):
            pool(draw(1, 5, 6, 3), window=(2, 2))[1](draw(1, 2, 2, 3))


def test_max_pool_rejects_unknown_settings() -> None:
    with pytest.raises(ValueError, match="ties must be one of first, all, split, got 'last'"):
        max_pool2d(draw(1, 5, 6, 3), window=(2, 2), ties="last")
    with pytest.raises(ValueError, match="nan must be one of propagate, ignore, got 'reject'"):
        max_pool2d(draw(1, 5, 6, 3), window=(2, 2), nan="reject")


def test_avg_pool_rejects_unknown_settings() -> None:
    with pytest.raises(ValueError, match="count_padding must be true or false, got 'no'"):
        avg_pool2d(draw(1, 5, 6, 3), window=(2, 2), count_padding="no")  # type: ignore[arg-type]


class TestRelu:
    def test_by_hand(self) -> None:
        x = np.array([[-2.0, -0.0, 0.0], [3.0, NAN, INF]])
        y, backprop = relu(x)
        np.testing.assert_array_equal(y, [[0.0, 0.0, 0.0], [3.0, NAN, INF]])
        assert not np.signbit(y).any()
        dx = backprop(np.array([[7.0, -11.0, NAN], [-13.0, 17.0, 19.0]]))
        assert dx.tolist() == [[0.0, 0.0, 0.0], [-13.0, 17.0, 19.0]]

    def test_against_autograd(self) -> None:
        x, dy = draw(3, 4, 2), draw(3, 4, 2, seed=1)
        y, backprop = relu(x)
        tx = leaf(x)
        ty = F.relu(tx)
        ty.backward(torch.tensor(dy))
        assert_close(y, ty)
        assert_close(backprop(dy), tx.grad)

    def test_rejects(self) -> None:
        with pytest.raises(ValueError, match="x must have a real floating"):
            relu(np.array([1, 2]))
        with pytest.raises(ValueError, match="dy must have shape"):
            relu(draw(3, 4))[1](draw(4))


class TestFlatten:
    def test_by_hand(self) -> None:
        x = np.arange(12.0).reshape(2, 3, 1, 2)
        y, backprop = flatten(x)
        assert y.tolist() == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]
        np.testing.assert_array_equal(backprop(-y), -x)

    @pytest.mark.parametrize(
        ("shape", "flat"), [((4,), (4, 1)), ((0, 3, 2), (0, 6)), ((2, 5), (2, 5))]
    )
    def test_shapes(self, shape: tuple[int, ...], flat: tuple[int, ...]) -> None:
        y, backprop = flatten(draw(*shape))
        assert y.shape == flat
        assert backprop(y).shape == shape

    def test_rejects(self) -> None:
        with pytest.raises(ValueError, match="x must have a leading batch axis"):
            flatten(np.array(1.0))
        with pytest.raises(ValueError, match=r"dy must have shape \(2, 6\)"):
            flatten(draw(2, 3, 2))[1](draw(2, 3, 2))


WINDOWS: dict[str, Any] = {"window": (3, 2), "stride": (2, 1), "padding": ((1, 0), (2, 1))}
KERNEL: dict[str, Any] = {"stride": (2, 1), "padding": ((1, 0), (2, 1)), "groups": 2}
LAYERS: dict[str, tuple[Callable[..., Any], list[tuple[int, ...]]]] = {
    "dense": (dense, [(5, 3), (3, 4), (4,)]),
    "dense without bias": (dense, [(5, 3), (3, 4)]),
    "conv2d": (lambda *a: conv2d(*a, **KERNEL), [(2, 6, 5, 4), (3, 2, 2, 6), (6,)]),
    "conv2d without bias": (lambda *a: conv2d(*a, **KERNEL), [(2, 6, 5, 4), (3, 2, 2, 6)]),
    **{
        f"max_pool2d {ties} {nan}": (
            lambda x, ties=ties, nan=nan: max_pool2d(x, **WINDOWS, ties=ties, nan=nan),
            [(2, 6, 5, 3)],
        )
        for ties, nan in itertools.product(("first", "all", "split"), ("propagate", "ignore"))
    },
    "avg_pool2d": (lambda x: avg_pool2d(x, **WINDOWS, ceil_mode=True), [(2, 6, 5, 3)]),
    "relu": (relu, [(2, 5, 3)]),
    "flatten": (flatten, [(2, 5, 3)]),
}


def run(name: str, convert: Callable[[np.ndarray], Any], dtype: Any = np.float64) -> list[Any]:
    """Return y and the gradients of a layer on converted arrays, from the same float32 numbers."""
    layer, shapes = LAYERS[name]
    arrays = [draw(*shape, dtype=np.float32).astype(dtype) for shape in shapes]
    y, backprop = layer(*map(convert, arrays))
    dy = draw(*y.shape, seed=1, dtype=np.float32).astype(dtype)
    return [y, *gradients(backprop(convert(dy)))]


def gradients(result: Any) -> list[Any]:
    """Return what backprop returned as a list, without the absent gradient of an absent bias."""
    return [dx for dx in (result if isinstance(result, tuple) else (result,)) if dx is not None]


def frozen(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


@pytest.mark.parametrize("name", LAYERS)
class TestEveryLayer:
    def test_writes_to_none_of_its_inputs(self, name: str) -> None:
        # A write to a frozen NumPy array raises; a tensor cannot be frozen, so it is compared.
        run(name, frozen)
        given: list[tuple[torch.Tensor, np.ndarray]] = []

        def remember(array: np.ndarray) -> torch.Tensor:
            given.append((torch.tensor(array), array))
            return given[-1][0]

        run(name, remember)
        assert len(given) >= 2
        for tensor, original in given:
            np.testing.assert_array_equal(tensor.numpy(), original)

    def test_backprop_can_be_called_twice(self, name: str) -> None:
        layer, shapes = LAYERS[name]
        y, backprop = layer(*(draw(*shape) for shape in shapes))
        dy = draw(*y.shape, seed=1)
        for first, second in zip(gradients(backprop(dy)), gradients(backprop(dy)), strict=True):
            np.testing.assert_array_equal(first, second)

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_runs_on_the_strict_namespace(self, name: str, dtype: Any) -> None:
        strict = run(name, array_api_strict.asarray, dtype)
        for array, expected in zip(strict, run(name, frozen, dtype), strict=True):
            assert type(array) is type(array_api_strict.asarray(0.0))
            assert expected.dtype == dtype
            np.testing.assert_allclose(np.asarray(array), expected, rtol=1e-6, atol=1e-6)

    def test_looks_at_no_value(self, name: str) -> None:
        # A tensor on the meta device has a shape and no values: reading one raises.
        results = run(name, lambda array: torch.tensor(array).to("meta"))
        for array, expected in zip(results, run(name, frozen), strict=True):
            assert array.device.type == "meta"
            assert tuple(array.shape) == expected.shape

    def test_runs_on_torch(self, name: str) -> None:
        results = run(name, lambda array: torch.tensor(array))
        for array, expected in zip(results, run(name, frozen), strict=True):
            assert isinstance(array, torch.Tensor)
            assert_close(array, expected)

    @pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
    def test_computes_16_bits_in_float32_and_rounds_once(self, name: str, dtype: Any) -> None:
        layer, shapes = LAYERS[name]
        arrays = [draw(*shape, dtype=np.float32).astype(dtype) for shape in shapes]
        wide_y, wide_backprop = layer(*(array.astype(np.float32) for array in arrays))
        y, backprop = layer(*map(frozen, arrays))
        dy = draw(*y.shape, seed=1, dtype=np.float32).astype(dtype)
        narrows = [y, *gradients(backprop(dy))]
        wides = [wide_y, *gradients(wide_backprop(dy.astype(np.float32)))]
        for narrow, wide in zip(narrows, wides, strict=True):
            assert narrow.dtype == dtype
            np.testing.assert_array_equal(narrow, wide.astype(dtype))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_runs_on_16_bit_torch(self, name: str, dtype: Any) -> None:
        numpy_dtype = np.float16 if dtype is torch.float16 else ml_dtypes.bfloat16

        def convert(array: np.ndarray) -> torch.Tensor:
            return torch.tensor(array.astype(np.float32)).to(dtype)

        expected = run(name, frozen, numpy_dtype)
        for array, wanted in zip(run(name, convert, numpy_dtype), expected, strict=True):
            assert array.dtype == dtype
            assert_close(array.to(torch.float32), wanted.astype(np.float32), tolerance=1e-2)


def test_a_16_bit_gradient_is_summed_in_float32() -> None:
    # In float16, 2048 + 1 is 2048: only a wide sum sees the small ones.
    dy = np.array([[2048.0], *[[1.0]] * 6], dtype=np.float16)
    x, weight = np.zeros((7, 1), dtype=np.float16), np.zeros((1, 1), dtype=np.float16)
    dbias = dense(x, weight, np.zeros(1, dtype=np.float16))[1](dy)[2]
    assert dbias is not None
    assert dbias.tolist() == [2054.0]
    peak = image([[0.0, 0.0, 1.0, 0.0, 0.0]], np.float16)
    backprop = max_pool2d(peak, window=(1, 3), stride=(1, 1))[1]
    dx = backprop(image([[2048.0, 1.0, 1.0]], np.float16))
    assert plane(dx).tolist() == [[0.0, 0.0, 2050.0, 0.0, 0.0]]
