"""Sparse optimisation: optima of scikit-learn, proved rates, exact zeros."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import array_api_strict
import numpy as np
import pytest

from refimpl.optimizers import adam
from refimpl.proximal import fista, ista, iterative_hard_thresholding, least_squares, lipschitz
from refimpl.regularization import (
    penalty_group_lasso,
    penalty_l1,
    prox_elastic_net,
    prox_group_lasso,
    prox_l1,
)

torch = pytest.importorskip("torch")
ALPHA = 0.3


def problem(n: int = 40, features: int = 12) -> tuple[Any, Any]:
    """Return a regression whose columns have different scales and whose truth is sparse."""
    rng = np.random.default_rng(9)
    x = rng.normal(size=(n, features)) * np.linspace(0.5, 2, features)
    truth = np.where(np.arange(features) % 3 == 0, np.linspace(-2, 3, features), 0)
    return x, x @ truth + 0.5 * rng.normal(size=n)


def run(optimizer: Any, x: Any, y: Any, steps: int) -> list[Any]:
    """Return the iterates after each step, from zero weights."""
    params = [np.zeros(x.shape[1])]
    state = optimizer.init(params)
    iterates = [params[0]]
    for _ in range(steps):
        _, grad = least_squares(x, params[0], y)
        params, state = optimizer.update(params, [grad], state)
        iterates.append(state["iterate"][0])
    return iterates


def lasso_objective(x: Any, y: Any, w: Any) -> float:
    # written out: not the code under test
    return float(np.mean((x @ w - y) ** 2) / 2 + ALPHA * np.abs(w).sum())


def lasso_optimum(x: Any, y: Any) -> Any:
    linear_model = pytest.importorskip("sklearn.linear_model")
    model = linear_model.Lasso(alpha=ALPHA, fit_intercept=False, tol=1e-14, max_iter=100_000)
    return model.fit(x, y).coef_


@pytest.mark.parametrize("method", [ista, fista])
def test_lasso_reaches_the_optimum_of_scikit_learn(method: Any) -> None:
    x, y = problem()
    best = lasso_optimum(x, y)
    rate = 1 / float(lipschitz(x))
    got = run(method(partial(prox_l1, strength=ALPHA), rate), x, y, 800)[-1]
    np.testing.assert_allclose(got, best, atol=1e-9)
    np.testing.assert_array_equal(got == 0, best == 0)
    assert 0 < (got == 0).sum() < got.size


@pytest.mark.parametrize("method", [ista, fista])
def test_elastic_net_reaches_the_optimum_of_scikit_learn(method: Any) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, y = problem()
    ratio = 0.7
    model = linear_model.ElasticNet(
        alpha=ALPHA, l1_ratio=ratio, fit_intercept=False, tol=1e-14, max_iter=100_000
    )
    best = model.fit(x, y).coef_
    # scikit-learn: alpha * (ratio * |w|_1 + (1 - ratio) / 2 * |w|_2**2)
    prox = partial(prox_elastic_net, l1=ALPHA * ratio, l2=ALPHA * (1 - ratio), half=True)
    got = run(method(prox, 1 / float(lipschitz(x))), x, y, 800)[-1]
    np.testing.assert_allclose(got, best, atol=1e-9)
    np.testing.assert_array_equal(got == 0, best == 0)


def test_one_feature_by_hand() -> None:
    # x·x/n = 7.5 and x·y/n = 15, so the lasso's weight is (15 - 1) / 7.5
    x, y = np.array([[1.0], [2.0], [3.0], [4.0]]), np.array([2.0, 4.0, 6.0, 8.0])
    assert float(lipschitz(x)) == pytest.approx(7.5)
    value, grad = least_squares(x, np.array([1.0]), y)
    assert float(value) == 3.75
    assert grad.tolist() == [-7.5]
    first = run(ista(partial(prox_l1, strength=1.0), 1 / 7.5), x, y, 1)[-1]
    assert first[0] == pytest.approx(14 / 7.5)


def test_ista_keeps_its_rate_and_never_climbs() -> None:
    x, y = problem()
    best, constant = lasso_optimum(x, y), float(lipschitz(x))
    iterates = run(ista(partial(prox_l1, strength=ALPHA), 1 / constant), x, y, 60)
    gaps = [lasso_objective(x, y, w) - lasso_objective(x, y, best) for w in iterates]
    for k, gap in enumerate(gaps[1:], 1):
        assert gap <= constant * (best @ best) / (2 * k) + 1e-12
    assert all(after <= before + 1e-12 for before, after in pairwise(gaps))


def test_fista_keeps_its_rate_and_is_ahead_of_ista() -> None:
    x, y = problem(n=40, features=39)  # ill-conditioned, so that acceleration shows
    best, constant = lasso_optimum(x, y), float(lipschitz(x))
    prox = partial(prox_l1, strength=ALPHA)
    slow, fast = (run(method(prox, 1 / constant), x, y, 150) for method in (ista, fista))
    optimum = lasso_objective(x, y, best)
    for k, w in enumerate(fast[1:], 1):
        bound = 2 * constant * (best @ best) / (k + 1) ** 2
        assert lasso_objective(x, y, w) - optimum <= bound + 1e-12
    behind, ahead = (lasso_objective(x, y, runs[40]) - optimum for runs in (slow, fast))
    assert ahead < behind / 3


def test_fista_follows_the_recurrence_of_its_paper() -> None:
    x, y = problem()
    rate, prox = 0.05, partial(prox_l1, strength=ALPHA)
    got = run(fista(prox, rate), x, y, 5)
    before, point, t = np.zeros(12), np.zeros(12), 1.0
    for k in range(1, 6):
        moved = point - rate * x.T @ (x @ point - y) / len(y)
        now = np.sign(moved) * np.maximum(np.abs(moved) - ALPHA * rate, 0)
        following = (1 + (1 + 4 * t * t) ** 0.5) / 2
        point, before, t = now + (t - 1) / following * (now - before), now, following
        np.testing.assert_allclose(got[k], now, rtol=1e-12, atol=1e-15)


def test_group_lasso_solution_satisfies_the_conditions_of_optimality() -> None:
    rng = np.random.default_rng(10)
    x, outputs = rng.normal(size=(50, 6)), 3
    truth = rng.normal(size=(6, outputs)) * np.array([1, 0, 1, 0, 0, 1])[:, None]
    y = x @ truth + 0.3 * rng.normal(size=(50, outputs))
    optimizer = fista(partial(prox_group_lasso, strength=ALPHA, axis=0), 1 / float(lipschitz(x)))
    params = [np.zeros((6, outputs))]
    state = optimizer.init(params)
    for _ in range(400):
        _, grad = least_squares(x, params[0], y)
        params, state = optimizer.update(params, [grad], state)
    w = state["iterate"][0]
    _, grad = least_squares(x, w, y)
    zero = (w == 0).all(axis=1)
    assert zero.tolist() == [False, True, False, True, True, False]
    assert (np.linalg.norm(grad[zero], axis=1) <= ALPHA).all()
    slope: Any = penalty_group_lasso([w], ALPHA, 0)[1][0]
    np.testing.assert_allclose(grad[~zero], -slope[~zero], atol=1e-10)


def hadamard(size: int) -> Any:
    matrix: Any = np.ones((1, 1))
    while len(matrix) < size:
        matrix = np.kron(matrix, [[1, 1], [1, -1]])
    return matrix


@pytest.mark.parametrize("count", [1, 2])
def test_iterative_hard_thresholding_keeps_its_rate(count: int) -> None:
    # The identity beside a Hadamard matrix: coherence 1/sqrt(m), so by Gershgorin the restricted
    # isometry constant of 3s columns is at most (3s - 1)/sqrt(m), below 1/sqrt(32) here.
    m = 256 if count == 1 else 1024
    assert (3 * count - 1) / m**0.5 < 32**-0.5
    a = np.concatenate([np.eye(m), hadamard(m) / m**0.5], axis=1)
    truth = np.zeros(2 * m)
    truth[[m // 3, m + 5][:count]] = [2.0, -0.7][:count]
    b = a @ truth
    optimizer = iterative_hard_thresholding(count)
    params = [np.zeros(2 * m)]
    state = optimizer.init(params)
    for k in range(1, 15):
        params, state = optimizer.update(params, [a.T @ (a @ params[0] - b)], state)
        error = np.linalg.norm(params[0] - truth)
        assert error <= 2.0**-k * np.linalg.norm(truth) + 1e-14
        assert np.count_nonzero(params[0]) <= count


def test_subgradient_under_adam_never_gives_zeros_and_the_proximal_step_does() -> None:
    w0, rate, strength = np.array([0.003, -0.02, 0.5, -1.0]), 0.01, 1.0
    optimizer = adam(rate)
    params: Any = [w0]
    state = optimizer.init(params)
    for _ in range(500):
        _, grads = penalty_l1(params, strength)
        params, state = optimizer.update(params, grads, state)
        assert (params[0] != 0).all()
    assert (np.abs(params[0]) < 3 * rate).all(), "all came near zero, and stayed near it"

    params, state = [w0], optimizer.init([w0])
    for _ in range(500):
        params, state = optimizer.update(params, [np.zeros(4)], state)
        params = prox_l1(params, strength, rate)
    np.testing.assert_array_equal(params[0], np.zeros(4))
    assert not np.signbit(params[0]).any()


def test_first_steps_of_both_from_the_report() -> None:
    # w = 0.003 and a step of 0.01: the subgradient overshoots to -0.007, the proximal step stops
    w: Any = [np.array([0.003])]
    grads: Any = penalty_l1(w, 1.0)[1]
    moved: Any = prox_l1(w, 1.0, 0.01)
    assert 0.003 - 0.01 * grads[0][0] == pytest.approx(-0.007)
    assert moved[0][0] == 0.0


@pytest.mark.parametrize(
    "make",
    [np.asarray, array_api_strict.asarray, lambda v: torch.tensor(v, dtype=torch.float64)],
    ids=["numpy", "strict", "torch"],
)
def test_steps_by_hand_on_every_library(make: Any) -> None:
    w, g = make([3.0, -1.0, 0.25]), make([1.0, -4.0, 0.5])
    for method in (ista, fista):
        optimizer = method(partial(prox_l1, strength=1.0), 0.5)
        (got,), state = optimizer.update([w], [g], optimizer.init([w]))
        np.testing.assert_array_equal(np.asarray(got), [2.0, 0.5, 0.0])
        np.testing.assert_array_equal(np.asarray(state["iterate"][0]), [2.0, 0.5, 0.0])
    optimizer = iterative_hard_thresholding(1, 0.5)
    (got,), _ = optimizer.update([w], [g], optimizer.init([w]))
    np.testing.assert_array_equal(np.asarray(got), [2.5, 0.0, 0.0])
    assert float(lipschitz(make([[3.0, 0.0], [0.0, 1.0]]))) == pytest.approx(4.5)


def test_absent_gradient_leaves_parameter_and_state_alone() -> None:
    optimizer = fista(partial(prox_l1, strength=1.0), 0.5)
    params = [np.array([3.0]), np.array([2.0, -1.0], dtype=np.float16)]
    after, state = optimizer.update(params, [None, params[1]], optimizer.init(params))
    assert after[0] is params[0]
    assert state["step"] == [0, 1]
    assert after[1].dtype == np.float16
    assert state["iterate"][1].dtype == np.float32
    np.testing.assert_array_equal(after[1], [0.5, 0.0])


def test_rate_of_one_step_overrides_the_default() -> None:
    optimizer = ista(partial(prox_l1, strength=1.0), 0.5)
    (got,), _ = optimizer.update(
        [np.array([3.0])], [np.array([2.0])], optimizer.init([np.array([3.0])]), lr=0.25
    )
    assert got.tolist() == [2.25]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ista(partial(prox_l1, strength=1.0), -0.1), "lr must be"),
        (lambda: iterative_hard_thresholding(-1), "count must be at least 0"),
        (lambda: least_squares(np.ones((3, 2)), np.ones(2), np.ones((3, 1))), "same shape"),
        (lambda: least_squares(np.ones((3, 2)), np.ones(3), np.ones(3)), "x must be"),
        (lambda: least_squares(np.ones((0, 2)), np.ones(2), np.ones(0)), "n > 0"),
    ],
)
def test_bad_arguments_are_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
