"""Projections and hard thresholding: by hand, against minimisation, and their edges."""

from __future__ import annotations

from typing import Any

import array_api_strict
import ml_dtypes
import numpy as np
import pytest

from refimpl.projections import hard_threshold, project_l1_ball, project_max_norm

torch = pytest.importorskip("torch")
NAN, INF = float("nan"), float("inf")
LIBRARIES: list[Any] = [
    np.asarray,
    array_api_strict.asarray,
    lambda v: torch.tensor(v, dtype=torch.float64),
]
libraries = pytest.mark.parametrize("make", LIBRARIES, ids=["numpy", "strict", "torch"])
W = [[3.0, -4.0], [0.0, 1.0]]


@libraries
@pytest.mark.parametrize(
    ("project", "expected"),
    [
        (lambda w: hard_threshold(w, count=2), [[3, -4], [0, 0]]),
        (lambda w: hard_threshold(w, count=1), [[0, -4], [0, 0]]),
        (lambda w: hard_threshold(w, threshold=1.0), [[3, -4], [0, 0]]),
        (lambda w: hard_threshold(w, threshold=1.0, compare="lt"), [[3, -4], [0, 1]]),
        (lambda w: project_max_norm(w, 2.5, 0), [[1.5, -2], [0, 1]]),
        (lambda w: project_max_norm(w, 1.5, 1), [[1.5, -6 / 17**0.5], [0, 1.5 / 17**0.5]]),
        (lambda w: project_max_norm(w, 2.0, (0, 1)), [[2, -2], [0, 1]]),
        (lambda w: project_max_norm(w, 13**0.5, []), np.array(W) * 0.5**0.5),
        (lambda w: project_max_norm(w, 0.0, 0), [[0, 0], [0, 0]]),
        # theta = (4 + 3 - 2)/2
        (lambda w: project_l1_ball(w, 2.0), [[0.5, -1.5], [0, 0]]),
        (lambda w: project_l1_ball(w, 7.0), [[8 / 3, -11 / 3], [0, 2 / 3]]),
        (lambda w: project_l1_ball(w, 0.0), [[0, 0], [0, 0]]),
    ],
)
def test_by_hand(project: Any, expected: Any, make: Any) -> None:
    w = make(W)
    (got,) = project([w])
    np.testing.assert_allclose(np.asarray(got), expected, rtol=1e-14, atol=1e-15)
    assert type(got) is type(w)
    np.testing.assert_array_equal(np.asarray(w), W)


@libraries
@pytest.mark.parametrize(
    "project",
    [
        lambda w: project_max_norm(w, 13.0, 0),
        lambda w: project_max_norm(w, INF, 0),
        lambda w: project_l1_ball(w, 26.0),
        lambda w: project_l1_ball(w, INF),
        lambda w: hard_threshold(w, count=6),
    ],
)
def test_inside_and_on_the_boundary_every_bit_stays(project: Any, make: Any) -> None:
    w = [[3.0, -4.0, 12.0], [-0.0, 4.9, -2.1]]
    (got,) = project([make(w)])
    assert np.asarray(got).tobytes() == np.array(w).tobytes()


def test_ties_drop_the_lowest_index_first() -> None:
    w: Any = np.array([1.0, -2.0, 2.0, 2.0, -0.0])
    assert hard_threshold([w], count=2)[0].tolist() == [0, 0, 2, 2, 0]  # type: ignore[union-attr]
    (other,) = hard_threshold([w], count=2, ties="highest_index_first")
    assert other is not None
    assert other.tolist() == [0, -2, 2, 0, 0]
    assert not np.signbit(other[4])


def test_nan_is_kept_by_hard_thresholding_and_poisons_its_group() -> None:
    w: Any = np.array([[NAN, 5.0], [3.0, 4.0]])
    (kept,) = hard_threshold([w], count=1)
    np.testing.assert_array_equal(kept, [[NAN, 0], [0, 0]])
    (kept,) = hard_threshold([w], threshold=4.5)
    np.testing.assert_array_equal(kept, [[NAN, 5], [0, 0]])
    (scaled,) = project_max_norm([w], 1.0, 0)
    np.testing.assert_allclose(np.asarray(scaled), [[NAN, NAN], [0.6, 0.8]])
    (ball,) = project_l1_ball([w], 1.0)
    assert ball is not None
    assert np.isnan(ball).all()


def test_l1_ball_is_the_nearest_point() -> None:
    rng = np.random.default_rng(12)
    w = rng.normal(size=(3, 4)) * 2
    got: Any = project_l1_ball([w], 2.5)[0]
    assert np.abs(got).sum() == pytest.approx(2.5)
    # any other point of the ball is on the far side: (w - p)·(q - p) <= 0
    for _ in range(2000):
        q = rng.normal(size=w.shape) * rng.exponential(size=w.shape)
        q *= 2.5 * rng.uniform() ** 0.1 / np.abs(q).sum()
        assert ((w - got) * (q - got)).sum() <= 1e-12
    for index in np.ndindex(w.shape):
        vertex = np.zeros(w.shape)
        vertex[index] = 2.5 * np.sign(w[index])
        assert ((w - got) * (vertex - got)).sum() <= 1e-12


def test_the_radius_is_not_lost_beside_large_weights() -> None:
    w = np.array([3e8, -3e8, 1e8], dtype=np.float32)
    got: Any = project_l1_ball([w], 1.0)[0]
    assert got.tolist() == [0.5, -0.5, 0.0]
    top = float(np.finfo(np.float32).max)
    with np.errstate(over="ignore"):
        huge: Any = project_l1_ball([np.array([top, -top], dtype=np.float32)], 1.0)[0]
    assert huge.tolist() == [0.5, -0.5], "the 1-norm is not representable, the projection is"


def test_max_norm_agrees_with_torch_renorm() -> None:
    w = np.random.default_rng(13).normal(size=(4, 5, 3))
    for axis in (0, 1, 2):
        got: Any = project_max_norm([w], 2.0, axis, eps=1e-7)[0]
        expected = torch.renorm(torch.from_numpy(w), 2, axis, 2.0).numpy()
        np.testing.assert_allclose(got, expected, rtol=1e-13)


def test_norms_whose_squares_are_not_representable() -> None:
    w = np.array([[3e30, 4e30], [3e-30, 4e-30]], dtype=np.float32)
    got: Any = project_max_norm([w], 2.5e-30, 0)[0]
    np.testing.assert_allclose(got, np.array([[1.5e-30, 2e-30], [1.5e-30, 2e-30]]), rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_largest_and_smallest_numbers_have_a_norm(dtype: Any) -> None:
    info = np.finfo(dtype)
    for value in (info.max, info.tiny, info.smallest_subnormal):
        w = np.array([[-value, 0.0], [0.0, 0.0]], dtype=dtype)
        (got,) = project_max_norm([w], float(value), 0)
        assert got is not None
        assert got.tobytes() == w.tobytes()
        (zero,) = project_max_norm([w], 0.0, 0)
        np.testing.assert_array_equal(zero, np.zeros((2, 2)))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_16_bits_are_computed_in_float32_and_come_back(dtype: Any) -> None:
    w = np.array([[300.0, -400.0], [0.5, 0.25]], dtype=dtype)
    for got in (project_max_norm([w], 250.0, 0)[0], project_l1_ball([w], 700.0)[0]):
        assert got is not None
        assert got.dtype == dtype
        assert np.isfinite(got.astype(np.float64)).all()
    (scaled,) = project_max_norm([w], 250.0, 0)
    np.testing.assert_array_equal(scaled.astype(float), [[150, -200], [0.5, 0.25]])  # type: ignore[union-attr]
    (kept,) = hard_threshold([np.array([0.300048828125], dtype=np.float16)], threshold=0.3)
    assert kept is not None
    assert kept[0] != 0, "0.3 rounds to 0.300048828125 in float16, which is above 0.3"


def test_absent_and_empty_arrays() -> None:
    empty = np.zeros((0, 3))
    for project in (
        lambda w: hard_threshold(w, count=1),
        lambda w: project_max_norm(w, 1.0, 0),
        lambda w: project_l1_ball(w, 1.0),
    ):
        absent, got = project([None, empty])
        assert absent is None
        assert got is not None
        assert got.shape == (0, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda w: hard_threshold(w), "exactly one"),
        (lambda w: hard_threshold(w, count=1, threshold=0.5), "exactly one"),
        (lambda w: hard_threshold(w, count=-1), "count must be at least 0"),
        (lambda w: hard_threshold(w, threshold=-0.5), "threshold must be"),
        (lambda w: hard_threshold(w, threshold=NAN), "threshold must be"),
        (lambda w: hard_threshold(w, count=1, ties="keep_all"), "ties must be one of"),
        (lambda w: project_max_norm(w, -1.0, 0), "max_norm must be"),
        (lambda w: project_max_norm(w, NAN, 0), "max_norm must be"),
        (lambda w: project_max_norm(w, 1.0, 2), "axis must be one of the 2 axes"),
        (lambda w: project_max_norm(w, 1.0, [0, -2]), "each axis once"),
        (lambda w: project_l1_ball(w, -1.0), "radius must be"),
        (lambda w: project_l1_ball(w, NAN), "radius must be"),
        (lambda w: project_l1_ball([np.array([1, 2])], 1.0), "real floating-point"),
    ],
)
def test_bad_arguments_are_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        call([np.array(W)])
    assert "\n" not in str(caught.value)
