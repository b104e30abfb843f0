"""Units taken out of models, and what is left: against masked models and counts by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from refimpl import compression, models

DENSE: list[dict[str, Any]] = [
    {"operation": "layer.dense", "units": 4},
    {"operation": "layer.relu"},
    {"operation": "layer.dense", "units": 3},
    {"operation": "layer.relu"},
    {"operation": "layer.dense", "units": 2},
]
CNN: list[dict[str, Any]] = [
    {"operation": "layer.conv2d", "filters": 5, "kernel": [3, 2]},
    {"operation": "layer.relu"},
    {"operation": "layer.conv2d", "filters": 4, "kernel": [2, 2]},
    {"operation": "layer.relu"},
    {"operation": "layer.max_pool2d", "window": [2, 2]},
    {"operation": "layer.flatten"},
    {"operation": "layer.dense", "units": 6},
    {"operation": "layer.tanh"},
    {"operation": "layer.dense", "units": 3},
]


def filled(model: list[dict[str, Any]], shape: tuple[int, ...]) -> list[Any]:
    rng = np.random.default_rng(3)
    return [rng.normal(size=p.shape) for p in models.initial_params(model, shape, 0, "float64")]


def outputs(model: Any, params: Any, shape: tuple[int, ...]) -> Any:
    return models.forward(model, params, np.random.default_rng(4).normal(size=(7, *shape)))[0]


def test_filters_and_units_go_and_the_outputs_stay() -> None:
    shape, params = (8, 7, 2), filled(CNN, (8, 7, 2))
    params[0][..., [1, 3]], params[1][[1, 3]] = 0, 0  # two filters that give zero
    params[2][..., 0], params[3][0] = 0, 0
    params[6][4, :] = 0  # a unit that nobody hears
    model, smaller = compression.remove_units(CNN, params, shape)
    assert [model[i].get("filters", model[i].get("units")) for i in (0, 2, 6)] == [3, 3, 5]
    # 8×7 → 6×6 → 5×5 → 2×2 pixels of 3 channels
    assert [p.shape for p in smaller[::2]] == [(3, 2, 2, 3), (2, 2, 3, 3), (12, 5), (5, 3)]
    np.testing.assert_allclose(
        outputs(model, smaller, shape), outputs(CNN, params, shape), rtol=1e-12, atol=1e-12
    )


def test_a_unit_with_a_bias_gives_a_constant_and_stays() -> None:
    params = filled(DENSE, (5,))
    params[0][:, 2] = 0
    assert params[1][2] != 0
    model, smaller = compression.remove_units(DENSE, params, (5,))
    assert model == DENSE
    assert all(a is b or np.array_equal(a, b) for a, b in zip(params, smaller, strict=True))


def test_a_silent_unit_stays_where_zero_does_not_stay_zero() -> None:
    sigmoid = [DENSE[0], {"operation": "layer.sigmoid"}, DENSE[4]]
    params = filled(sigmoid, (5,))
    params[0][:, 2], params[1][2] = 0, 0  # sigmoid(0) = 1/2
    model, _ = compression.remove_units(sigmoid, params, (5,))
    assert model[0]["units"] == 4


def test_a_unit_that_goes_takes_those_before_it_along() -> None:
    params = filled(DENSE, (5,))
    params[2][:, 1], params[3][1] = 0, 0
    params[2][0, [0, 2]] = 0  # the first hidden unit feeds only the one that goes
    model, smaller = compression.remove_units(DENSE, params, (5,))
    assert (model[0]["units"], model[2]["units"]) == (3, 2)
    np.testing.assert_allclose(
        outputs(model, smaller, (5,)), outputs(DENSE, params, (5,)), rtol=1e-12, atol=1e-12
    )


def test_a_layer_keeps_one_unit() -> None:
    params = [np.zeros_like(p) for p in filled(DENSE, (5,))]
    params[5][:] = [3.0, -1.0]
    model, smaller = compression.remove_units(DENSE, params, (5,))
    assert (model[0]["units"], model[2]["units"]) == (1, 1)
    np.testing.assert_array_equal(outputs(model, smaller, (5,)), [[3.0, -1.0]] * 7)


def test_the_bound_of_reordered_sums_by_hand() -> None:
    u = 2.0**-24
    layer: list[dict[str, Any]] = [{"operation": "layer.dense", "units": 1}]
    params = [np.array([[3.0], [-4.0]], np.float32), np.array([0.5], np.float32)]
    # three terms, of magnitudes 6, 4 and 0.5, and either evaluation may be off
    gamma = 3 * u / (1 - 3 * u)
    bound = compression.rounding_bound(layer, params, np.array([[2.0, 1.0]], np.float32))
    np.testing.assert_allclose(bound, [[2 * gamma * 10.5]], rtol=1e-12)
    # a second layer carries it on through |-2|, and adds its own: two terms, of |y|·2 and 1
    deeper: list[dict[str, Any]] = [
        *layer,
        {"operation": "layer.relu"},
        {"operation": "layer.dense", "units": 1},
    ]
    more = [*params, np.array([[-2.0]], np.float32), np.array([1.0], np.float32)]
    bound = compression.rounding_bound(deeper, more, np.array([[2.0, 1.0]], np.float32))
    first, gamma2 = 2 * gamma * 10.5, 2 * u / (1 - 2 * u)
    expected = 2 * first + 2 * gamma2 * (2 * (2.5 + first) + 1)
    np.testing.assert_allclose(bound, [[expected]], rtol=1e-12)


@pytest.mark.parametrize(("model", "shape"), [(DENSE, (5,)), (CNN, (8, 7, 2))])
def test_float32_stays_within_the_bound(model: Any, shape: tuple[int, ...]) -> None:
    params = filled(model, shape)
    narrow = [p.astype(np.float32) for p in params]
    x = np.random.default_rng(4).normal(size=(7, *shape)).astype(np.float32)
    wide = [p.astype(np.float64) for p in narrow]
    exact = models.forward(model, wide, x.astype(np.float64))[0]
    found = models.forward(model, narrow, x)[0] - exact
    bound = compression.rounding_bound(model, narrow, x)
    assert bound.shape == found.shape
    assert (abs(found) <= bound).all()
    assert bound.max() < 1e-2 * abs(exact).max()


def test_sizes_are_counted() -> None:
    params = filled(CNN, (8, 7, 2))
    params[2][:, :, 1, :] = 0
    # places × weights: 6·6·(3·2·2·5) + 5·5·(2·2·5·4) + (16·6) + (6·3)
    total = 36 * 60 + 25 * 80 + 96 + 18
    found = compression.sizes(CNN, params, (8, 7, 2))
    assert found.multiply_adds == total
    assert found.multiply_adds_nonzero == total - 25 * 2 * 2 * 4
    assert found.parameters == 60 + 5 + 80 + 4 + 96 + 6 + 18 + 3
    assert found.nonzero == found.parameters - 16
    assert found.bytes == 8 * found.parameters


def test_compressed_rows_by_hand_and_back() -> None:
    matrix = np.array([[0, 5, 0, -2], [0, 0, 0, 0], [-0.0, 0, 7, 1]], np.float32)
    csr = compression.to_csr(matrix)
    assert csr["data"].tolist() == [5, -2, 7, 1]
    assert csr["indices"].tolist() == [1, 3, 2, 3]
    assert csr["indptr"].tolist() == [0, 2, 2, 4]
    np.testing.assert_array_equal(compression.from_csr(csr, (3, 4)), matrix)
    for wrong in ({"indptr": csr["indptr"][:-1]}, {"indices": csr["indices"] + 3}):
        with pytest.raises(ValueError, match=r"not of a matrix of shape \(3, 4\)"):
            compression.from_csr({**csr, **wrong}, (3, 4))


def test_eight_bits_by_hand_and_back() -> None:
    weight = np.array([[127, 0, 0.5, 1e-44], [-2.5, 0, -1, 0], [3.5, 0, 0.25, 0]], np.float32)
    found = compression.quantize(weight)
    # Columns have the steps 1, none, 1/127 and one that float32 cannot hold; 2.5 and 3.5 are ties.
    np.testing.assert_array_equal(found["scale"], np.array([1, 1, 1 / 127, 1], np.float32))
    assert found["quantized"].tolist() == [[127, 0, 64, 0], [-2, 0, -127, 0], [4, 0, 32, 0]]
    assert found["quantized"].dtype == np.int8
    back = compression.dequantize(found)
    assert back.dtype == np.float32
    assert back[:, 0].tolist() == [127, -2, 4]
    with pytest.raises(ValueError, match="do not fit"):
        compression.dequantize({**found, "scale": found["scale"][1:]})
    for wrong, why in ((weight[0], "two axes"), (np.full((2, 2), np.inf), "not finite")):
        with pytest.raises(ValueError, match=why):
            compression.quantize(wrong)


def test_what_cannot_be_done_is_refused() -> None:
    grouped = [{**CNN[0], "groups": 2}, *CNN[1:]]
    with pytest.raises(ValueError, match="convolution in groups"):
        compression.remove_units(grouped, filled(CNN, (8, 7, 2)), (8, 7, 2))
    with pytest.raises(ValueError, match=r"with layer\.rnn"):
        compression.remove_units([{"operation": "layer.rnn", "units": 3}], [], (4, 2))
    with pytest.raises(ValueError, match="of a matrix"):
        compression.to_csr(np.zeros(3))
