from __future__ import annotations

from collections.abc import Callable
from typing import Any

import array_api_strict
import ml_dtypes
import numpy as np
import pytest

from refimpl import scores

torch = pytest.importorskip("torch")

# weights, gradients and expectations of a table that several libraries were run on
W = [[1.0, 2.0], [-3.0, -4.0]]
G = [[4.0, -3.0], [2.0, -1.0]]
LIBRARIES: list[Callable[[Any], Any]] = [
    np.asarray,
    array_api_strict.asarray,
    lambda v: torch.tensor(v, dtype=torch.float64),
]


def to_numpy(array: Any) -> np.ndarray[Any, Any]:
    return np.asarray(array)


@pytest.mark.parametrize("make", LIBRARIES, ids=["numpy", "strict", "torch"])
@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (lambda w, g: scores.magnitude(w), [[1, 2], [3, 4]]),
        (lambda w, g: scores.gradient(g), [[4, 3], [2, 1]]),
        (scores.taylor, [[4, 6], [6, 4]]),
        (scores.snip, [[0.2, 0.3], [0.3, 0.2]]),
        (scores.movement, [[-4, 6], [6, -4]]),
        (lambda w, g: scores.fisher(g), [[16, 9], [4, 1]]),
        (scores.obd, [[2, -6], [9, -8]]),
    ],
    ids=["magnitude", "gradient", "taylor", "snip", "movement", "fisher", "obd"],
)
def test_score_by_hand(score: Any, expected: Any, make: Any) -> None:
    (result,) = score([make(W)], [make(G)])
    np.testing.assert_allclose(to_numpy(result), expected, rtol=1e-15)


def test_snip_divides_by_the_sum_over_all_arrays() -> None:
    w: list[Any] = [
        np.array([2.0, -1.0]),
        None,
        np.array([[3.0]], dtype=np.float32),
        np.array([7.0]),
    ]
    g: list[Any] = [np.array([0.5, 4.0]), None, np.array([[-5.0]], dtype=np.float32), None]
    results: list[Any] = scores.snip(w, g)
    first, absent, second, without_gradient = results
    np.testing.assert_allclose(first, [0.05, 0.2])
    np.testing.assert_allclose(second, [[0.75]])
    assert second is not None
    assert second.dtype == np.float32
    assert absent is None
    assert without_gradient is None


def test_snip_of_zero_gradients_is_zero() -> None:
    (result,) = scores.snip([np.array([1.0, -2.0])], [np.zeros(2)])
    np.testing.assert_array_equal(to_numpy(result), [0.0, 0.0])


@pytest.mark.parametrize("make", LIBRARIES, ids=["numpy", "strict", "torch"])
def test_wanda_scales_each_input_by_its_norm(make: Any) -> None:
    # input 0 has norm 5, input 1 norm 13; three outputs
    weights = make([[1.0, -2.0, 3.0], [0.5, 1.0, -1.5]])
    activations = make([[3.0, 0.0], [4.0, 5.0], [0.0, -12.0]])
    (result,) = scores.wanda([weights], [activations])
    expected = np.array([[5, 10, 15], [6.5, 13, 19.5]])
    np.testing.assert_allclose(to_numpy(result), expected, rtol=1e-15)


def test_wanda_norm_does_not_overflow() -> None:
    x = np.array([[3e30, 1.0], [4e30, 0.0]], dtype=np.float32)
    (result,) = scores.wanda([np.array([[1e-30], [2.0]], dtype=np.float32)], [x])
    np.testing.assert_allclose(to_numpy(result), [[5.0], [2.0]], rtol=1e-6)


def test_absent_entries_stay_absent() -> None:
    one = np.array([-1.5, 2.0])
    assert scores.magnitude([None, one])[0] is None
    assert scores.gradient([one, None])[1] is None
    for score in (scores.taylor, scores.movement, scores.obd):
        first, second, third = score([one, None, one], [None, None, one])
        assert first is None
        assert second is None
        assert third is not None
    assert scores.wanda([one, None], [None, None]) == [None, None]
    assert scores.magnitude([]) == []


@pytest.mark.parametrize(
    ("array", "dtype"),
    [
        (np.array([300.0, -0.5], dtype=np.float16), np.float16),
        (np.array([300.0, -0.5], dtype=ml_dtypes.bfloat16), ml_dtypes.bfloat16),
        (np.array([300.0, -0.5], dtype=np.float32), np.float32),
    ],
)
def test_dtype_is_kept_and_sixteen_bits_are_widened(array: Any, dtype: Any) -> None:
    (magnitude,) = scores.magnitude([array])
    assert magnitude is not None
    assert magnitude.dtype == dtype
    np.testing.assert_array_equal(magnitude.astype(np.float32), [300.0, 0.5])
    # 300 * 300 overflows float16, 0.5 * 300 * (300 * 2**-10) does not
    (obd,) = scores.obd([array], [np.array([2.0**-10, 1.0]).astype(dtype)])
    assert obd is not None
    assert obd.dtype == dtype
    expected = np.array([43.9453125, 0.125]).astype(dtype)  # 0.5 * 90000 / 1024
    np.testing.assert_array_equal(obd, expected)


def test_torch_bfloat16() -> None:
    w = torch.tensor([3.0, -4.0], dtype=torch.bfloat16)
    (result,) = scores.taylor([w], [torch.tensor([-1.0, 0.5], dtype=torch.bfloat16)])
    assert result is not None
    assert result.dtype == torch.bfloat16
    assert result.tolist() == [3.0, 2.0]


def test_inputs_are_not_written_to() -> None:
    w, g = np.array(W), np.array(G)
    w.flags.writeable = g.flags.writeable = False
    for score in (scores.taylor, scores.snip, scores.movement, scores.obd):
        score([w], [g])
    scores.wanda([w], [g])
    np.testing.assert_array_equal(w, W)
    np.testing.assert_array_equal(g, G)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: scores.taylor([np.ones(2)], []), "same length"),
        (lambda: scores.taylor([np.ones(2)], [np.ones(3)]), "same shape"),
        (lambda: scores.snip([np.ones((2, 1))], [np.ones(2)]), "same shape"),
        (lambda: scores.magnitude([np.array([1, 2])]), "real floating"),
        (lambda: scores.gradient([np.array([1j])]), "real floating"),
        (lambda: scores.wanda([np.ones((2, 3))], [np.ones((4, 3))]), r"\(samples, in\)"),
        (lambda: scores.wanda([np.ones(2)], [np.ones((4, 2))]), r"\(in, out\)"),
    ],
)
def test_bad_inputs_are_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_obd_is_right_where_the_square_of_the_weight_is_not_representable() -> None:
    w = np.array([1e-25, 1e25], dtype=np.float32)
    h = np.array([1e30, 1e-30], dtype=np.float32)
    (result,) = scores.obd([w], [h])
    np.testing.assert_allclose(to_numpy(result), [5e-21, 5e19], rtol=1e-6)


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (lambda w, g: scores.taylor(w, g, form="squared"), [[16, 36], [36, 16]]),
        (lambda w, g: scores.snip(w, g, normalise="none"), [[4, 6], [6, 4]]),
        (lambda w, g: scores.snip(w, g, normalise="mean"), [[0.8, 1.2], [1.2, 0.8]]),
        (lambda w, g: scores.obd(w, g, half=False), [[4, -12], [18, -16]]),
        # activations [[4, -3], [2, -1]]: squared norms 20 and 10
        (
            lambda w, g: scores.wanda(w, g, activation_norm="squared_norm"),
            [[20, 40], [30, 40]],
        ),
        (
            lambda w, g: scores.wanda(w, g, activation_norm="root_mean_square"),
            [[10**0.5, 2 * 10**0.5], [3 * 5**0.5, 4 * 5**0.5]],
        ),
    ],
    ids=["taylor", "snip none", "snip mean", "obd", "wanda squared", "wanda rms"],
)
@pytest.mark.parametrize("make", LIBRARIES, ids=["numpy", "strict", "torch"])
def test_dial_by_hand(score: Any, expected: Any, make: Any) -> None:
    (result,) = score([make(W)], [make(G)])
    np.testing.assert_allclose(to_numpy(result), expected, rtol=1e-15)


def test_snip_of_nothing_may_be_undefined() -> None:
    w, g = [np.array([1.0, -2.0])], [np.array([0.0, -0.0])]
    with np.errstate(invalid="ignore"):
        (result,) = scores.snip(w, g, zero_over_zero="undefined")
    assert np.isnan(to_numpy(result)).all()
