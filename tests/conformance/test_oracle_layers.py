"""The oracle of layers and losses against hand-computed numbers, PyTorch in float64 and finite differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from conformance.cases import Case
from conformance.exact import exact, full, real
from conformance.formats import round_all
from conformance.operation import Expectation, map_tensors
from conformance.operations import load
from conformance.oracle import layers
from conformance.oracle.windows import place

Tensors = dict[str, Any]

GEOMETRY = {"stride": None, "padding": [[0, 0], [0, 0]], "dilation": [1, 1], "ceil_mode": False}


def image(*rows: Any) -> Any:
    return np.array(rows, dtype=np.float64).reshape(1, len(rows), -1, 1)


def expect(operation: str, inputs: Tensors, setting: Tensors | None = None, **params: Any) -> Any:
    """Return the expected float64 arrays by name, or the reason of a refusal."""
    defaults = {p.name: p.default for p in load(operation).params}
    case = Case(operation, "by-hand", (), (), inputs, defaults | params)
    return arrays(load(operation).expect(case, setting))


def arrays(expected: Expectation) -> Any:
    if expected.rejects is not None:
        return expected.rejects
    return map_tensors(lambda leaf: leaf.tensor, expected.outputs)


def float64_cases(operation: str) -> list[Any]:
    cases = [case for case in load(operation).generate() if case.id.endswith("-f64")]
    return [pytest.param(case, id=case.id) for case in cases]


class TestByHand:
    def test_dense(self) -> None:
        got = expect(
            "layer.dense",
            {
                "x": np.array([[1.0, 2.0], [3.0, -4.0]]),
                "weight": np.array([[1.0, 0.5, -1.0], [2.0, -3.0, 0.25]]),
                "bias": np.array([10.0, 20.0, 30.0]),
                "dy": np.array([[1.0, 2.0, 4.0], [-1.0, 0.5, 8.0]]),
            },
        )
        np.testing.assert_array_equal(got["y"], [[15, 14.5, 29.5], [5, 33.5, 26]])
        np.testing.assert_array_equal(got["dx"], [[-2, -3], [-8.75, -1.5]])
        np.testing.assert_array_equal(got["dweight"], [[-2, 3.5, 28], [6, 2, -24]])
        np.testing.assert_array_equal(got["dbias"], [0, 2.5, 12])

    def test_conv2d_correlates(self) -> None:
        got = expect(
            "layer.conv2d",
            {
                "x": image([0, 0, 1, 0, 0]),
                "weight": np.array([1.0, 2.0, 3.0]).reshape(1, 3, 1, 1),
                "bias": None,
                "dy": image([2, -1, 0.5, 0, 4]),
            },
            padding=[[0, 0], [1, 1]],
        )
        np.testing.assert_array_equal(got["y"].ravel(), [0, 3, 2, 1, 0])
        # dx[i] = Σ_k dy[i - k + 1] w[k]; dw[k] = dy at the place where tap k meets the lit pixel.
        np.testing.assert_array_equal(got["dx"].ravel(), [3, 4.5, -2, 5.5, 8])
        np.testing.assert_array_equal(got["dweight"].ravel(), [0, 0.5, -1])
        assert got["dbias"] is None

    def test_max_pool_ties_of_four_ones(self) -> None:
        inputs = {"x": np.ones((1, 2, 2, 1)), "dy": np.full((1, 1, 1, 1), 6.0)}
        for ties, dx in (("first", [6, 0, 0, 0]), ("all", [6] * 4), ("split", [1.5] * 4)):
            got = expect("layer.max_pool2d", inputs, {"ties": ties}, window=[2, 2])
            np.testing.assert_array_equal(got["dx"].ravel(), dx)

    def test_max_pool_overlapping_ties(self) -> None:
        inputs = {"x": np.ones((1, 3, 3, 1)), "dy": image([1, 2], [4, 8])}
        got = expect("layer.max_pool2d", inputs, window=[2, 2], stride=[1, 1])
        np.testing.assert_array_equal(got["dx"].ravel(), [1, 2, 0, 4, 8, 0, 0, 0, 0])

    @pytest.mark.parametrize(
        ("rows", "nan", "y", "dx"),
        [
            ([[1, np.nan], [2, 3]], "propagate", np.nan, [0, 5, 0, 0]),
            ([[1, np.nan], [2, 3]], "ignore", 3, [0, 0, 0, 5]),
            ([[1, np.nan], [np.nan, 3]], "propagate", np.nan, [0, 5, 0, 0]),
            ([[np.nan, 1], [2, 3]], "ignore", 3, [0, 0, 0, 5]),
            ([[np.nan, np.nan], [np.nan, np.nan]], "ignore", -np.inf, [0, 0, 0, 0]),
            ([[np.nan, -np.inf], [-np.inf, np.nan]], "ignore", -np.inf, [0, 5, 0, 0]),
            ([[-np.inf, -np.inf], [-np.inf, -np.inf]], "propagate", -np.inf, [5, 0, 0, 0]),
        ],
    )
    def test_max_pool_nan(self, rows: Any, nan: str, y: float, dx: Any) -> None:
        inputs = {"x": image(*rows), "dy": image([5])}
        got = expect("layer.max_pool2d", inputs, {"nan": nan}, window=[2, 2])
        np.testing.assert_array_equal(got["y"].ravel(), [y])
        np.testing.assert_array_equal(got["dx"].ravel(), dx)

    def test_max_pool_wholly_in_padding(self) -> None:
        inputs = {"x": image([-2]), "dy": image([3, 5])}
        got = expect("layer.max_pool2d", inputs, window=[1, 1], padding=[[0, 0], [1, 0]])
        np.testing.assert_array_equal(got["y"].ravel(), [-np.inf, -2])
        np.testing.assert_array_equal(got["dx"].ravel(), [5])

    @pytest.mark.parametrize(
        ("count_padding", "y", "dx"),
        [(False, [2, 4, 6], [1, 6, 6, 14]), (True, [1, 4, 3], [0.5, 6, 6, 7])],
    )
    def test_avg_pool_divisor(self, count_padding: bool, y: Any, dx: Any) -> None:
        # The windows are [. 2] [3 5] [6 .], where a dot is padding.
        inputs = {"x": image([2, 3, 5, 6]), "dy": image([1, 12, 14])}
        got = expect(
            "layer.avg_pool2d", inputs, {"count_padding": count_padding},
            window=[1, 2], stride=[1, 2], padding=[[0, 0], [1, 1]],
        )  # fmt: skip
        np.testing.assert_array_equal(got["y"].ravel(), y)
        np.testing.assert_array_equal(got["dx"].ravel(), dx)

    @pytest.mark.parametrize(
        ("padding", "count_padding", "y"),
        [
            # Windows of 3, two apart, on [1 2 4 8] with ceil_mode: the second overhangs by one.
            ([0, 0], False, [7 / 3, 6]),
            ([0, 0], True, [7 / 3, 6]),
            # One pixel of padding before: [. 1 2] and [2 4 8] fit exactly, so nothing is added.
            ([1, 0], False, [1.5, 14 / 3]),
            ([1, 0], True, [1, 14 / 3]),
            # Two before: [. . 1] [1 2 4] and [4 8 and one beyond].
            ([2, 0], False, [1, 7 / 3, 6]),
            ([2, 0], True, [1 / 3, 7 / 3, 6]),
        ],
    )
    def test_avg_pool_overhang_never_counts(
        self, padding: Any, count_padding: bool, y: Any
    ) -> None:
        inputs = {"x": image([1, 2, 4, 8]), "dy": np.zeros((1, 1, len(y), 1))}
        got = expect(
            "layer.avg_pool2d", inputs, {"count_padding": count_padding},
            window=[1, 3], stride=[1, 2], padding=[[0, 0], padding], ceil_mode=True,
        )  # fmt: skip
        np.testing.assert_allclose(got["y"].ravel(), y, rtol=1e-15)

    def test_avg_pool_wholly_in_padding_is_zero(self) -> None:
        inputs = {"x": image([4]), "dy": image([3, 5])}
        got = expect("layer.avg_pool2d", inputs, window=[1, 1], padding=[[0, 0], [1, 0]])
        np.testing.assert_array_equal(got["y"].ravel(), [0, 4])
        np.testing.assert_array_equal(got["dx"].ravel(), [5])

    def test_relu(self) -> None:
        inputs = {"x": np.array([-1, 0, 2, np.nan]), "dy": np.array([np.inf, 3.0, -5.0, 7.0])}
        for nan, y, dx in (("propagate", np.nan, 7), ("no_gradient", np.nan, 0), ("zero", 0, 0)):
            got = expect("layer.relu", inputs, {"nan": nan})
            np.testing.assert_array_equal(got["y"], [0, 0, 2, y])
            np.testing.assert_array_equal(got["dx"], [0, 0, -5, dx])

    def test_cross_entropy_of_large_logits(self) -> None:
        for target, loss in ((0, 0.0), (1, 1000.0), (2, 2000.0)):
            got = expect(
                "loss.softmax_cross_entropy",
                {"x": np.array([[1000.0, 0.0, -1000.0]]), "targets": np.array([target])},
            )
            assert got["loss"] == loss
            np.testing.assert_array_equal(got["dx"], [[1, 0, 0]] - np.eye(3)[[target]])

    def test_cross_entropy_of_two_equal_logits(self) -> None:
        got = expect(
            "loss.softmax_cross_entropy",
            {"x": np.array([[3.0, 3.0], [0.0, np.log(3.0)]]), "targets": np.array([1, 0])},
        )
        assert got["loss"] == pytest.approx((np.log(2) + np.log(4)) / 2, rel=1e-15)
        np.testing.assert_allclose(got["dx"], [[0.25, -0.25], [-0.375, 0.375]], rtol=1e-15)

    @pytest.mark.parametrize("target", [-1, 3, -100])
    def test_a_target_that_is_no_class(self, target: int) -> None:
        inputs = {"x": np.zeros((1, 3)), "targets": np.array([target])}
        assert "less than the 3 classes" in expect("loss.softmax_cross_entropy", inputs)

    def test_mse(self) -> None:
        inputs = {
            "x": np.array([[1.0, 2.0], [3.0, 5.0]]),
            "targets": np.array([[0.5, 4.0], [3.0, -1.0]]),
        }
        got = expect("loss.mse", inputs)
        assert got["loss"] == 40.25 / 4
        np.testing.assert_array_equal(got["dx"], [[0.25, -1], [0, 3]])
        got = expect("loss.mse", inputs, {"sum_of": "row_means"}, reduction="sum")
        assert got["loss"] == 40.25 / 2
        np.testing.assert_array_equal(got["dx"], [[0.5, -2], [0, 6]])

    def test_mse_does_not_broadcast(self) -> None:
        inputs = {"x": np.array([[1.0], [2.0]]), "targets": np.array([0.0, 1.0])}
        assert expect("loss.mse", inputs) == "targets must have shape (2, 1), got (2,)"


def torch_gradients(y: Any, dy: Any, **inputs: Any) -> Tensors:
    import torch

    grads = torch.autograd.grad(y, list(inputs.values()), torch.from_numpy(dy))
    found = {f"d{name}": grad for name, grad in zip(inputs, grads, strict=True)}
    return {name: t.detach().numpy() for name, t in {"y": y, **found}.items()}


def torch_dense(inputs: Tensors, params: Tensors) -> Tensors:
    import torch

    given = {n: torch.tensor(inputs[n], requires_grad=True) for n in ("x", "weight", "bias")
             if inputs[n] is not None}  # fmt: skip
    y = given["x"] @ given["weight"] + given.get("bias", 0.0)
    return torch_gradients(y, inputs["dy"], **given)


def torch_conv2d(inputs: Tensors, params: Tensors) -> Tensors:
    import torch

    given = {n: torch.tensor(inputs[n], requires_grad=True) for n in ("x", "weight", "bias")
             if inputs[n] is not None}  # fmt: skip
    (top, bottom), (left, right) = params["padding"]
    x = torch.nn.functional.pad(given["x"].permute(0, 3, 1, 2), (left, right, top, bottom))
    y = torch.nn.functional.conv2d(
        x, given["weight"].permute(3, 2, 0, 1).contiguous(), given.get("bias"),
        stride=params["stride"], dilation=params["dilation"], groups=params["groups"],
    )  # fmt: skip
    return torch_gradients(y.permute(0, 2, 3, 1), inputs["dy"], **given)


def torch_max_pool2d(inputs: Tensors, params: Tensors) -> Tensors:
    import torch

    (top, bottom), (left, right) = params["padding"]
    symmetric = (
        top == bottom <= params["window"][0] // 2 and left == right <= params["window"][1] // 2
    )
    if not symmetric and params["ceil_mode"]:
        pytest.skip("PyTorch pads symmetrically, and padding by hand changes what ceil_mode sees")
    x = torch.tensor(inputs["x"], requires_grad=True)
    image, padding = x.permute(0, 3, 1, 2), (top, left)
    if not symmetric:
        image = torch.nn.functional.pad(image, (left, right, top, bottom), value=-torch.inf)
        padding = (0, 0)
    y = torch.nn.functional.max_pool2d(
        image, params["window"], params.get("stride"), padding, params["dilation"],
        params["ceil_mode"],
    )  # fmt: skip
    return torch_gradients(y.permute(0, 2, 3, 1), inputs["dy"], x=x)


def torch_avg_pool2d(inputs: Tensors, params: Tensors) -> Tensors:
    import torch

    (top, bottom), (left, right) = params["padding"]
    if top != bottom or left != right or params["dilation"] != [1, 1]:
        pytest.skip("PyTorch's average pool pads symmetrically and does not dilate")
    x = torch.tensor(inputs["x"], requires_grad=True)
    y = torch.nn.functional.avg_pool2d(
        x.permute(0, 3, 1, 2), params["window"], params.get("stride"), (top, left),
        params["ceil_mode"], params.get("count_padding", False),
    )  # fmt: skip
    return torch_gradients(y.permute(0, 2, 3, 1), inputs["dy"], x=x)


def torch_elementwise(function: Callable[[Any], Any]) -> Callable[[Tensors, Tensors], Tensors]:
    def run(inputs: Tensors, params: Tensors) -> Tensors:
        import torch

        x = torch.tensor(inputs["x"], requires_grad=True)
        return torch_gradients(function(x), inputs["dy"], x=x)

    return run


def torch_loss(name: str) -> Callable[[Tensors, Tensors], Tensors]:
    def run(inputs: Tensors, params: Tensors) -> Tensors:
        import torch

        x, targets = torch.tensor(inputs["x"], requires_grad=True), torch.tensor(inputs["targets"])
        loss = getattr(torch.nn.functional, name)(x, targets, reduction=params["reduction"])
        (dx,) = torch.autograd.grad(loss, [x])
        return {"loss": loss.detach().numpy(), "dx": dx.numpy()}

    return run


REFERENCES: dict[str, Callable[[Tensors, Tensors], Tensors]] = {
    "layer.dense": torch_dense,
    "layer.conv2d": torch_conv2d,
    "layer.max_pool2d": torch_max_pool2d,
    "layer.avg_pool2d": torch_avg_pool2d,
    "layer.relu": torch_elementwise(lambda x: x.relu()),
    "layer.flatten": torch_elementwise(lambda x: x.reshape(x.shape[0], -1) if x.numel() else None),
    "loss.softmax_cross_entropy": torch_loss("cross_entropy"),
    "loss.mse": torch_loss("mse_loss"),
}

# PyTorch gives the gradient to the last NaN of a window, which no other library does.
OTHER_WINNER = {"nan-two-f64", "nan-all-f64", "nan-overlapping-f64"}


@pytest.mark.parametrize(
    ("operation", "case"),
    [
        pytest.param(name, *parameter.values, id=f"{name}/{parameter.id}")
        for name in REFERENCES
        for parameter in float64_cases(name)
    ],
)
def test_oracle_equals_torch(operation: str, case: Case) -> None:
    pytest.importorskip("torch")
    expected = load(operation).expect(case)
    if expected.rejects is not None or case.inputs["x"].size == 0 or case.id in OTHER_WINNER:
        pytest.skip("refused, empty, or a known difference: tested by hand")
    compare_with_torch(operation, case, {})


@pytest.mark.parametrize("case", float64_cases("layer.avg_pool2d"))
def test_oracle_equals_torch_counting_padding(case: Case) -> None:
    pytest.importorskip("torch")
    if load(case.operation).expect(case).rejects is not None or case.inputs["x"].size == 0:
        pytest.skip("refused or empty")
    compare_with_torch(case.operation, case, {"count_padding": True})


def compare_with_torch(operation: str, case: Case, setting: Tensors) -> None:
    expected = load(operation).expect(case, setting).outputs
    got = REFERENCES[operation](case.inputs, case.params | setting)
    for name, leaf in expected.items():
        if leaf is None:
            assert got.get(name) is None
            continue
        # The scale tells how large the terms were; PyTorch's float64 is good to a few parts in 1e16.
        scale = np.abs(leaf.tensor) if leaf.scale is None else leaf.scale
        bound = 1e-13 * np.nan_to_num(np.maximum(scale, np.abs(leaf.tensor)), posinf=0.0)
        with np.errstate(invalid="ignore"):
            close = np.abs(got[name] - leaf.tensor) <= bound
        same = (got[name] == leaf.tensor) | (np.isnan(got[name]) & np.isnan(leaf.tensor))
        assert np.all(close | same), (name, got[name], leaf.tensor)


def random(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).normal(size=shape)


def a_model(kind: Callable[[Any], Any], params: list[Any]) -> tuple[Any, list[Any]]:
    """Return the loss and all gradients of a small network, on exact numbers or on float64."""
    x, kernel, bias, weight = (kind(p) for p in params)
    rows, columns = place(
        x.shape, [2, 3], GEOMETRY | {"stride": [1, 1], "padding": [[1, 0], [0, 1]]}
    )
    y, convolved = layers.conv2d_forward(x, kernel, bias, rows, columns)
    y, rectified = layers.relu_forward(y)
    pools = place(y.shape, [2, 2], GEOMETRY | {"ceil_mode": True})
    y, largest = layers.max_pool2d_forward(y, *pools)
    averages = place(y.shape, [2, 1], GEOMETRY | {"stride": [1, 1]})
    y, averaged = layers.avg_pool2d_forward(y, *averages)
    y, flat = layers.flatten_forward(y)
    y, product = layers.dense_forward(y, weight, None)
    loss, softmax = layers.softmax_cross_entropy_forward(y, np.array([2, 0]))
    dy = layers.softmax_cross_entropy_backward(softmax)
    dy, dweight, _ = layers.dense_backward(product, dy)
    dy = layers.avg_pool2d_backward(averaged, layers.flatten_backward(flat, dy))
    dy = layers.relu_backward(rectified, layers.max_pool2d_backward(largest, dy))
    return loss, [*layers.conv2d_backward(convolved, dy), dweight]


PARAMETERS = [random(2, 4, 5, 2), random(2, 3, 2, 3), random(3), random(6, 3)]


class TestModel:
    """The functions put together, as the oracle of a whole model does."""

    def test_exact_and_float64_agree(self) -> None:
        loss, grads = a_model(exact, PARAMETERS)
        near, near_grads = a_model(np.asarray, PARAMETERS)
        assert near == pytest.approx(float(loss), rel=1e-14)
        for wanted, got in zip(grads, near_grads, strict=True):
            assert got.dtype == np.float64
            np.testing.assert_allclose(got, round_all(wanted, "float64"), rtol=1e-12, atol=1e-15)

    def test_gradients_are_differences_of_the_loss(self) -> None:
        _, grads = a_model(np.asarray, PARAMETERS)
        rng, step = np.random.default_rng(7), 1e-6
        for index, grad in enumerate(grads):
            direction = rng.normal(size=grad.shape)
            moved = [
                [p + sign * step * direction if i == index else p for i, p in enumerate(PARAMETERS)]
                for sign in (1, -1)
            ]
            up, down = (a_model(np.asarray, parameters)[0] for parameters in moved)
            slope = np.sum(grad * direction)
            assert (up - down) / (2 * step) == pytest.approx(slope, rel=1e-7, abs=1e-9)

    def test_dtype_of_selections_is_kept(self) -> None:
        x = random(1, 4, 4, 1).astype(np.float16)
        pooled, _ = layers.max_pool2d_forward(x, *place(x.shape, [2, 2], GEOMETRY))
        assert pooled.dtype == np.float16
        np.testing.assert_array_equal(
            pooled.ravel(), x.reshape(2, 2, 2, 2).max(axis=(1, 3)).ravel()
        )


def test_scale_of_cross_entropy_sees_the_terms() -> None:
    logits = exact(np.array([[1000.0, 999.0]]))
    scale, of_gradient = layers.softmax_cross_entropy_scale(logits, np.array([0]))
    log_sum = np.log1p(np.exp(-1.0))
    assert float(scale) == pytest.approx(1 + 1000 + log_sum + 1000, rel=1e-12)
    p = 1 / (1 + np.e)
    assert float(of_gradient[0, 1]) == pytest.approx(p * (1 + 1000 + log_sum + 999), rel=1e-12)
    assert float(of_gradient[0, 0]) > 1


def test_scale_of_cross_entropy_is_finite_for_masked_classes() -> None:
    logits = exact(np.array([[-np.inf, 0.0, 1.0]]))
    scale, of_gradient = layers.softmax_cross_entropy_scale(logits, np.array([1]))
    assert np.isfinite(float(scale))
    assert np.all(np.isfinite(round_all(of_gradient, "float64")))


def test_numbers_far_below_a_format_round_to_zero() -> None:
    tiny = full((2,), real(2.0) ** -(10**30))
    np.testing.assert_array_equal(round_all(tiny, "float32"), [0, 0])
    # Half of the smallest subnormal is a tie and goes to even; the next number above it does not.
    edge = full((1,), real(2.0**-150))
    assert round_all(edge, "float32") == 0
    assert round_all(edge * (1 + real(2.0**-40)), "float32") == np.float32(2.0**-149)
