"""The oracles of the scores against autograd, finite differences of a loss, and recorded runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from conformance.cases import Case, Stream
from conformance.operation import map_tensors
from conformance.operations import load

torch = pytest.importorskip("torch")

W, G, H = [1.0, 2.0, -3.0, -4.0], [4.0, -3.0, 2.0, -1.0], [0.0, 1.0, 2.0, -3.0]


def scores(name: str, setting: dict[str, Any] | None = None, **inputs: Any) -> list[Any]:
    arrays = {
        key: [None if t is None else np.asarray(t).astype(np.float64) for t in tensors]
        for key, tensors in inputs.items()
    }
    expected = load(name).expect(Case(name, "x", (), (), arrays, {}), setting or {})
    assert expected.rejects is None, expected.rejects
    result: list[Any] = map_tensors(lambda leaf: leaf.tensor, expected.outputs["scores"])
    return result


@pytest.mark.parametrize(
    ("name", "setting", "other", "recorded"),
    [
        # as Intel Neural Compressor, jaxpruner, Torch-Pruning and NNI were seen to score them
        ("score.taylor", {}, {"grads": [G]}, [4, 6, 6, 4]),
        ("score.taylor", {"form": "squared"}, {"grads": [G]}, [16, 36, 36, 16]),
        ("score.snip", {"normalise": "none"}, {"grads": [G]}, [4, 6, 6, 4]),
        ("score.snip", {"normalise": "mean"}, {"grads": [G]}, [0.8, 1.2, 1.2, 0.8]),
        ("score.snip", {}, {"grads": [G]}, [0.2, 0.3, 0.3, 0.2]),
        ("score.movement", {}, {"grads": [G]}, [-4, 6, 6, -4]),
        ("score.obd", {}, {"hessian": [H]}, [0, 2, 9, -24]),
        ("score.obd", {"half": False}, {"hessian": [H]}, [0, 4, 18, -48]),
    ],
)
def test_recorded_scores(name: str, setting: Any, other: Any, recorded: Any) -> None:
    np.testing.assert_allclose(scores(name, setting, weights=[W], **other)[0], recorded, rtol=1e-15)


def test_fisher_of_the_mean_gradient_is_not_the_mean() -> None:
    each = [scores("score.fisher", grads=[g])[0] for g in (G, H)]
    np.testing.assert_array_equal((each[0] + each[1]) / 2, [8, 5, 4, 5])
    np.testing.assert_array_equal(scores("score.fisher", grads=[[2, -1, 2, -2]])[0], [4, 1, 4, 4])


def test_taylor_and_obd_are_what_a_quadratic_loss_changes_by() -> None:
    # L(w) = g·w + ½·Σ h·w² around the weights: setting one weight to zero, exactly
    stream = Stream(5)
    w, g, h = (stream.uniform(5, low=-2.0, high=3.0) for _ in range(3))

    def loss(moved: Any) -> float:
        step = moved - w
        return float(g @ step + 0.5 * h @ (step * step))

    changes = np.array([loss(np.where(np.arange(5) == i, 0.0, w)) for i in range(5)])
    first = scores("score.movement", weights=[w], grads=[g])[0]
    second = scores("score.obd", weights=[w], hessian=[h])[0]
    np.testing.assert_allclose(changes, first + second, rtol=1e-12)
    np.testing.assert_allclose(
        np.abs(first), scores("score.taylor", weights=[w], grads=[g])[0], rtol=1e-15
    )


def test_movement_is_positive_where_a_step_of_descent_moves_away_from_zero() -> None:
    w, g = np.array([1.0, -2.0, 3.0, -0.5]), np.array([-1.0, 3.0, 0.25, -0.125])
    farther = np.abs(w - 0.01 * g) > np.abs(w)
    result = scores("score.movement", weights=[w], grads=[g])[0]
    np.testing.assert_array_equal(result > 0, farther)


def test_snip_is_the_sensitivity_to_a_mask_on_the_weights() -> None:
    # equation 6 of the paper: the derivative of the loss with respect to a mask, at a mask of ones
    stream = Stream(6)
    weights = [torch.tensor(stream.uniform(3, 4)), torch.tensor(stream.uniform(4, 2))]
    x, target = torch.tensor(stream.uniform(5, 3)), torch.tensor(stream.uniform(5, 2))
    masks = [torch.ones_like(w).requires_grad_() for w in weights]
    leaves = [w.clone().requires_grad_() for w in weights]

    def loss(layers: list[Any]) -> Any:
        return (torch.tanh(x @ layers[0]) @ layers[1] - target).square().mean()

    sensitivity = torch.autograd.grad(
        loss([w * m for w, m in zip(weights, masks, strict=True)]), masks
    )
    total = sum(s.abs().sum() for s in sensitivity)
    grads = torch.autograd.grad(loss(leaves), leaves)
    result = scores("score.snip", weights=list(weights), grads=list(grads))
    for got, s in zip(result, sensitivity, strict=True):
        np.testing.assert_allclose(got, (s.abs() / total).numpy(), rtol=1e-12)
    assert sum(r.sum() for r in result) == pytest.approx(1.0, rel=1e-14)


def test_obd_takes_the_diagonal_of_the_hessian() -> None:
    stream = Stream(7)
    w = torch.tensor(stream.uniform(4)).requires_grad_()
    a = torch.tensor(stream.uniform(6, 4))
    hessian = torch.autograd.functional.hessian(lambda v: torch.cosh(a @ v).sum(), w)
    result = scores("score.obd", weights=[w.detach()], hessian=[hessian.diagonal()])[0]
    curvature = (a.square() * torch.cosh(a @ w)[:, None]).sum(0)  # by hand: cosh'' = cosh
    np.testing.assert_allclose(result, (0.5 * curvature * w * w).detach().numpy(), rtol=1e-12)


@pytest.mark.parametrize(
    ("setting", "norms"),
    [
        ("norm", lambda x: torch.linalg.vector_norm(x, dim=0)),
        ("root_mean_square", lambda x: x.square().mean(0).sqrt()),
        ("squared_norm", lambda x: x.square().sum(0)),
    ],
)
def test_wanda_is_what_the_layer_loses(setting: str, norms: Any) -> None:
    stream = Stream(8)
    w, x = stream.uniform(3, 2), stream.uniform(5, 3, low=-4.0)
    result = scores("score.wanda", {"activation_norm": setting}, weights=[w], activations=[x])[0]
    expected = np.abs(w) * norms(torch.tensor(x)).numpy()[:, None]
    np.testing.assert_allclose(result, expected, rtol=1e-13)
    if setting == "norm":
        # removing w[j, k] changes output k by its score, in the 2-norm over the samples
        for j, k in np.ndindex(3, 2):
            without = np.where((np.arange(3)[:, None] == j) & (np.arange(2) == k), 0.0, w)
            lost = np.linalg.norm(x @ w - x @ without)
            assert result[j, k] == pytest.approx(lost, rel=1e-12)


def test_wanda_ranks_as_recorded() -> None:
    # weights 4 and 1, inputs 1 and 3: llm-compressor drops the second, the squared norm the first
    inputs: dict[str, Any] = {"weights": [[[4.0], [1.0]]], "activations": [[[1.0, 3.0]]]}
    by_norm = scores("score.wanda", **inputs)[0]
    squared = scores("score.wanda", {"activation_norm": "squared_norm"}, **inputs)[0]
    assert by_norm.ravel().tolist() == [4, 3]
    assert squared.ravel().tolist() == [4, 9]


def test_absent_tensors_have_no_score_and_do_not_count() -> None:
    result = scores("score.snip", weights=[[2.0], [9.0], None], grads=[[3.0], None, [1.0]])
    assert result[0].tolist() == [1.0]
    assert result[1] is None
    assert result[2] is None
