"""The oracles of adaptive, per-example and complex clipping against PyTorch in float64 and by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from conformance.cases import Case, Stream, same_as, tensor
from conformance.operations import load

torch = pytest.importorskip("torch")

UNITWISE, PER_EXAMPLE = load("clip.unitwise"), load("clip.per_example")
GLOBAL, CLIPPED = load("clip.global_norm"), load("prune.clipped_gradient")


def expect(operation: Any, inputs: Any, params: Any, **setting: Any) -> dict[str, Any]:
    defaults = {p.name: p.default for p in operation.params if p.default is not None}
    case = Case(operation.id, "x", (), (), inputs, {**defaults, **params})
    outputs: dict[str, Any] = operation.expect(case, setting).outputs
    return outputs


@pytest.mark.parametrize("unit_axis", [0, 1, 2, -1, [0, 2], [2, 1], []])
def test_unitwise_is_renorm_of_each_unit(unit_axis: Any) -> None:
    random = Stream(5)
    g, w = random.uniform(3, 2, 4, low=-2), random.uniform(3, 2, 4)
    (leaf,) = expect(
        UNITWISE,
        {"grads": [g], "weights": [w]},
        {"clipping": 0.4, "unit_axis": unit_axis, "eps": 0.3},
    )["grads"]
    axes = [unit_axis] if isinstance(unit_axis, int) else unit_axis
    rest = tuple(i for i in range(3) if i not in [axis % 3 for axis in axes])
    a, b = torch.from_numpy(g), torch.from_numpy(w)
    limit = 0.4 * torch.linalg.vector_norm(b, dim=rest, keepdim=True).clamp(min=0.3)
    norm = torch.linalg.vector_norm(a, dim=rest, keepdim=True)
    wanted = torch.where(norm > limit, a * (limit / norm), a).numpy()
    assert not np.array_equal(wanted, g)
    np.testing.assert_allclose(leaf.tensor, wanted, rtol=1e-14)


def test_unitwise_of_published_numbers() -> None:
    """Optax and timm on w = [[3 0], [4 1]], g = [[6 0], [8 1]] with λ = 0.1, as they were observed."""
    inputs = {"grads": [tensor([6, 0], [8, 1])], "weights": [tensor([3, 0], [4, 1])]}
    for axis, wanted in (
        (1, [[0.3, 0], [0.4, 0.1]]),
        (0, [[0.3, 0], [0.40912664956540706, 0.05114083119567588]]),
    ):
        (leaf,) = expect(UNITWISE, inputs, {"clipping": 0.1, "unit_axis": axis})["grads"]
        np.testing.assert_allclose(leaf.tensor, wanted, rtol=1e-14)


def test_a_column_is_many_units_or_one() -> None:
    """(2, 1) kernels: timm has a norm a row, Optax squeezes first, as they were observed."""
    inputs = {"grads": [tensor([6], [8])], "weights": [tensor([1], [4])]}
    params = {"clipping": 0.1, "unit_axis": 0}
    for axes, wanted in (
        ("count", [[0.1], [0.4]]),
        ("squeeze", [[0.24738633753705966], [0.3298484500494129]]),
    ):
        (leaf,) = expect(UNITWISE, inputs, params, singleton_axes=axes)["grads"]
        np.testing.assert_allclose(leaf.tensor, wanted, rtol=1e-14)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("scope", ["all", "tensor"])
def test_per_example_is_clip_grad_norm_of_each_example(reduction: str, scope: str) -> None:
    random = Stream(6)
    a, b = random.uniform(4, 3, low=-2), random.uniform(4, 2, 2, low=-0.5)
    params = {"max_norm": 1.25, "reduction": reduction, "scope": scope}
    outputs = expect(PER_EXAMPLE, {"grads": [a, b]}, params)
    sums, norms = [np.zeros((3,)), np.zeros((2, 2))], []
    for example in zip(torch.from_numpy(a), torch.from_numpy(b), strict=True):
        groups = [example] if scope == "all" else [[t] for t in example]
        n = [torch.cat([t.ravel() for t in group]).norm() for group in groups]
        factors = [min(1.0, 1.25 / float(x)) for x in n] * (2 if scope == "all" else 1)
        sums = [s + f * t.numpy() for s, f, t in zip(sums, factors, example, strict=True)]
        norms.append([float(x) for x in n])
    for leaf, total in zip(outputs["grads"], sums, strict=True):
        np.testing.assert_allclose(
            leaf.tensor, total / (4 if reduction == "mean" else 1), rtol=1e-13
        )
    wanted = np.array(norms)[:, 0] if scope == "all" else np.array(norms).T
    np.testing.assert_allclose(outputs["norms"].tensor, wanted, rtol=1e-14)


def test_the_mean_of_clipped_gradients_is_not_the_clipped_mean() -> None:
    for grads, wanted in ((tensor([10], [0]), 0.5), (tensor([4], [-1]), 0.0)):
        (leaf,) = expect(PER_EXAMPLE, {"grads": [grads]}, {"max_norm": 1.0})["grads"]
        assert leaf.tensor == wanted


@pytest.mark.parametrize("order", [1, 2, 3, "inf"])
def test_complex_gradients_are_clipped_by_their_moduli(order: Any) -> None:
    random = Stream(7)
    z = [random.uniform(5) + 1j * random.uniform(5), random.uniform(2, 3) * (1 - 2j)]
    outputs = expect(GLOBAL, {"grads": z}, {"max_norm": 0.75, "ord": order})
    parameters = [torch.nn.Parameter(torch.zeros(g.shape, dtype=torch.complex128)) for g in z]
    for parameter, g in zip(parameters, z, strict=True):
        parameter.grad = torch.from_numpy(g.copy())
    total = torch.nn.utils.get_total_norm([p.grad for p in parameters], float(order))
    np.testing.assert_allclose(outputs["total_norm"].tensor, float(total), rtol=1e-14)
    for leaf, g in zip(outputs["grads"], z, strict=True):
        np.testing.assert_allclose(leaf.tensor, g * (0.75 / float(total)), rtol=1e-13)


def test_a_tied_weight_counts_once_or_twice() -> None:
    """[3 4] listed twice with c = 1: by hand 0.6 0.8; TensorFlow and PyTorch as they were observed."""
    inputs = {"grads": [tensor(3, 4), same_as(0)]}
    for duplicates, wanted, total in (
        ("once", [0.6, 0.8], 5.0),
        ("twice", [3 / 50**0.5, 4 / 50**0.5], 50**0.5),
        ("twice_in_place", [0.06, 0.08], 50**0.5),
    ):
        outputs = expect(GLOBAL, inputs, {"max_norm": 1.0}, duplicates=duplicates)
        for leaf in outputs["grads"]:
            np.testing.assert_allclose(leaf.tensor, wanted, rtol=1e-14)
        np.testing.assert_allclose(outputs["total_norm"].tensor, total, rtol=1e-14)


@pytest.mark.parametrize(("limit", "threshold"), [(1.5, 0.5), (0.5, 0.75), (2.0, 2.0), (1e9, 0.25)])
def test_clipped_gradient_is_clamp_then_threshold(limit: float, threshold: float) -> None:
    g = Stream(8).uniform(6, 7, low=-3, high=3)
    params = {"limit": limit, "threshold": threshold}
    (leaf,) = expect(CLIPPED, {"grads": [g]}, params)["grads"]
    clamped = torch.from_numpy(g).clamp(-limit, limit)
    assert np.array_equal(leaf.tensor, torch.nn.functional.hardshrink(clamped, threshold).numpy())


def test_each_logical_parameter_of_a_distributed_model_counts_once() -> None:
    """Norm² by hand: 9 + 16 of the shards, 144 of the replica, 100 of the tied weight, once each."""
    norm, tied = tensor(0, -12), tensor(8, 6)
    ranks = [
        [_shard("w", tensor([3.0])), _shard("n", norm, "replicated"), _shard("e", tied, "tied")],
        [_shard("w", tensor([-4.0])), _shard("n", norm, "replicated"), _shard("e", tied, "tied")],
    ]
    outputs = expect(load("dist.global_norm"), {"ranks": ranks}, {"max_norm": 1.0})
    total = (9 + 16 + 144 + 100) ** 0.5
    np.testing.assert_allclose(outputs["total_norm"].tensor, total, rtol=1e-15)
    for rank, shards in zip(ranks, outputs["shards"], strict=True):
        for shard, leaf in zip(rank, shards, strict=True):
            np.testing.assert_allclose(leaf.tensor, shard["tensor"] / total, rtol=1e-14)


def _shard(name: str, values: Any, placement: str = "sharded") -> dict[str, Any]:
    return {"name": name, "tensor": values, "placement": placement}
