"""The oracle of groups, projections and mixed penalties against a third source: autograd, renorm, grids."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from conformance.cases import Cases, tensor
from conformance.operation import map_tensors
from conformance.operations import load

torch = pytest.importorskip("torch")


def expect(name: str, weights: Any, setting: Any = None, dtype: str = "float64", **p: Any) -> Any:
    """Return the outputs that the oracle expects, as tensors."""
    cases = Cases(name)
    cases.add("case", "", "", {"weights": weights}, p, (dtype,))
    expected = load(name).expect(cases.made[0], setting)
    assert expected.rejects is None
    return map_tensors(lambda leaf: leaf.tensor, expected.outputs)


def random(*shape: int) -> Any:
    return np.random.default_rng(21).normal(size=shape)


@pytest.mark.parametrize("size_weight", ["none", "sqrt_size"])
def test_group_lasso_is_that_of_autograd(size_weight: str) -> None:
    weights = [random(3, 4, 2), random(2, 5)]
    leaves = [torch.tensor(w, requires_grad=True) for w in weights]
    roots = (1.0, 1.0) if size_weight == "none" else (6**0.5, 2**0.5)
    norms = (
        leaves[0].pow(2).sum((0, 2)).sqrt().sum() * roots[0],
        leaves[1].pow(2).sum(0).sqrt().sum() * roots[1],
    )
    value: Any = 0.4 * sum(norms)
    value.backward()
    setting = {"size_weight": size_weight}
    got = expect("penalty.group_lasso", weights, setting, strength=0.4, axis=1)
    np.testing.assert_allclose(got["value"], value.item(), rtol=1e-14)
    for grad, leaf in zip(got["grads"], leaves, strict=True):
        np.testing.assert_allclose(grad, leaf.grad.numpy(), rtol=1e-13)


@pytest.mark.parametrize("half", [False, True])
def test_elastic_net_is_that_of_autograd(half: bool) -> None:
    w = torch.tensor(random(4, 3), requires_grad=True)
    value = 0.3 * w.abs().sum() + (0.35 if half else 0.7) * (w**2).sum()
    value.backward()
    got = expect("penalty.elastic_net", [w.detach().numpy()], {"half": half}, l1=0.3, l2=0.7)
    np.testing.assert_allclose(got["value"], value.item(), rtol=1e-14)
    np.testing.assert_allclose(got["grads"][0], w.grad.numpy(), rtol=1e-14)


@pytest.mark.parametrize("half", [False, True])
def test_proximal_maps_minimise_their_objectives(half: bool) -> None:
    grid, factor = np.linspace(-4, 4, 400001), 0.5 if half else 1.0
    weights = random(12)
    l2 = expect("prox.l2", [weights], {"half": half}, strength=0.9, step=0.7)["weights"][0]
    net = expect("prox.elastic_net", [weights], {"half": half}, l1=0.5, l2=0.9, step=0.7)
    for w, a, b in zip(weights, l2, net["weights"][0], strict=True):
        near, squares = 0.5 * (grid - w) ** 2, 0.7 * 0.9 * factor * grid**2
        assert a == pytest.approx(grid[np.argmin(near + squares)], abs=3e-5)
        both = near + squares + 0.7 * 0.5 * np.abs(grid)
        assert b == pytest.approx(grid[np.argmin(both)], abs=3e-5)


def test_group_proximal_map_minimises_its_objective() -> None:
    w = np.array([[0.9, -1.2], [0.3, 0.4]])
    got = expect("prox.group_lasso", [w], strength=0.75, step=0.8, axis=0)["weights"][0]
    expected: Any = [[0.54, -0.72], [0, 0]]
    np.testing.assert_allclose(got, expected, rtol=1e-14)

    def objective(x: Any) -> Any:
        return 0.5 * ((x - w) ** 2).sum() + 0.6 * np.linalg.norm(x, axis=1).sum()

    rng = np.random.default_rng(5)
    for size in (1e-3, 0.1, 1.0):
        for _ in range(300):
            assert objective(got) <= objective(got + size * rng.normal(size=w.shape)) + 1e-15


def test_max_norm_is_that_of_renorm() -> None:
    w = random(4, 5, 3)
    for axis in (0, 1, 2):
        got = expect("project.max_norm", [w], {"eps": 1e-7}, max_norm=2.0, axis=axis)["weights"][0]
        expected = torch.renorm(torch.from_numpy(w), 2, axis, 2.0).numpy()
        np.testing.assert_allclose(got, expected, rtol=1e-14)


def test_l1_ball_meets_the_conditions_of_optimality() -> None:
    w = random(5, 6)
    got = expect("project.l1_ball", [w], radius=3.0)["weights"][0]
    assert np.abs(got).sum() == pytest.approx(3.0, rel=1e-14)
    moved = np.abs(w) - np.abs(got)
    theta = moved[got != 0]
    np.testing.assert_allclose(theta, theta[0], rtol=1e-12)
    assert theta[0] > 0
    assert (moved[got == 0] <= theta[0]).all()
    assert (np.sign(got)[got != 0] == np.sign(w)[got != 0]).all()


def test_l1_ball_by_bisection() -> None:
    w = random(40)
    low, high = 0.0, float(np.abs(w).max())
    for _ in range(200):
        middle = (low + high) / 2
        inside = np.maximum(np.abs(w) - middle, 0).sum() <= 2.2
        low, high = (low, middle) if inside else (middle, high)
    expected = np.sign(w) * np.maximum(np.abs(w) - high, 0)
    got = expect("project.l1_ball", [w], radius=2.2)["weights"][0]
    np.testing.assert_allclose(got, expected, atol=1e-14)


def test_hard_threshold_by_hand() -> None:
    w = [tensor(1, -2, 2, -0.5, 2)]
    ties: list[Any] = [
        ({}, [0, 0, 2, 0, 2]),
        ({"ties": "highest_index_first"}, [0, -2, 2, 0, 0]),
    ]
    for setting, expected in ties:
        got = expect("prox.hard_threshold", w, setting, count=2)["weights"][0]
        assert got.tolist() == expected
    for compare, expected in (("le", [0, -2, 2, 0, 2]), ("lt", [1, -2, 2, 0, 2])):
        got = expect("prox.hard_threshold", w, {"compare": compare}, threshold=1.0)["weights"][0]
        assert got.tolist() == expected
    product = expect("prox.hard_threshold", w, {"masking": "multiply"}, count=2)["weights"][0]
    assert np.signbit(product).tolist() == [False, True, False, True, False]


def test_count_keeps_the_nearest_sparse_vector() -> None:
    from itertools import combinations

    w = random(7)
    got = expect("prox.hard_threshold", [w], count=3)["weights"][0]
    distance = ((w - got) ** 2).sum()
    for support in combinations(range(7), 3):
        other = np.where(np.isin(np.arange(7), support), w, 0)
        assert distance <= ((w - other) ** 2).sum()


def test_threshold_is_rounded_to_16_bits_only_under_its_dial() -> None:
    w = [tensor(0.300048828125)]
    kept = expect("prox.hard_threshold", w, dtype="float16", threshold=0.3)["weights"][0]
    gone = expect(
        "prox.hard_threshold", w, {"threshold_dtype": "input_dtype"}, "float16", threshold=0.3
    )["weights"][0]
    assert kept.tolist() == [0.300048828125]
    assert gone.tolist() == [0.0]
