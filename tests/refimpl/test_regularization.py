from __future__ import annotations

from typing import Any

import array_api_strict
import ml_dtypes
import numpy as np
import pytest

from refimpl import regularization as r

torch = pytest.importorskip("torch")
NAN = float("nan")
W = [[3.0, -4.0], [0.0, 1.0]]
LIBRARIES: list[Any] = [
    np.asarray,
    array_api_strict.asarray,
    lambda v: torch.tensor(v, dtype=torch.float64),
]
libraries = pytest.mark.parametrize("make", LIBRARIES, ids=["numpy", "strict", "torch"])


@libraries
@pytest.mark.parametrize(
    ("penalty", "value", "grad"),
    [
        (lambda w: r.penalty_l1(w, 0.1), 0.8, [[0.1, -0.1], [0, 0.1]]),
        (
            lambda w: r.penalty_l1(w, 0.1, sign_of_zero="plus_one"),
            0.8,
            [[0.1, -0.1], [0.1, 0.1]],
        ),
        (lambda w: r.penalty_l2(w, 0.1), 2.6, [[0.6, -0.8], [0, 0.2]]),
        (lambda w: r.penalty_l2(w, 0.1, half=True), 1.3, [[0.3, -0.4], [0, 0.1]]),
        (lambda w: r.penalty_elastic_net(w, 0.1, 0.2), 6.0, [[1.3, -1.7], [0, 0.5]]),
        (
            lambda w: r.penalty_elastic_net(w, 0.1, 0.2, half=True, sign_of_zero="plus_one"),
            3.4,
            [[0.7, -0.9], [0.1, 0.3]],
        ),
        # rows have norms 5 and 1, columns 3 and sqrt(17)
        (lambda w: r.penalty_group_lasso(w, 0.1, 0), 0.6, [[0.06, -0.08], [0, 0.1]]),
        (
            lambda w: r.penalty_group_lasso(w, 0.1, 1),
            0.1 * (3 + 17**0.5),
            [[0.1, -0.4 / 17**0.5], [0, 0.1 / 17**0.5]],
        ),
        (
            lambda w: r.penalty_group_lasso(w, 0.1, -2, size_weight="sqrt_size"),
            0.6 * 2**0.5,
            np.sqrt(2) * np.array([[0.06, -0.08], [0, 0.1]]),
        ),
        # every element a group is the L1 penalty
        (lambda w: r.penalty_group_lasso(w, 0.1, (0, 1)), 0.8, [[0.1, -0.1], [0, 0.1]]),
    ],
)
def test_penalty_by_hand(penalty: Any, value: float, grad: Any, make: Any) -> None:
    total, grads = penalty([make(W)])
    assert total.ndim == 0
    assert float(total) == pytest.approx(value, rel=1e-14)
    np.testing.assert_allclose(np.asarray(grads[0]), grad, rtol=1e-14)


@pytest.mark.parametrize("half", [False, True])
def test_gradients_agree_with_torch_autograd(half: bool) -> None:
    rng = np.random.default_rng(2)
    w = [rng.standard_normal((3, 4, 2)), rng.standard_normal((2, 5))]
    leaves = [torch.tensor(one, requires_grad=True) for one in w]
    squares = sum((one**2).sum() for one in leaves) * (0.5 if half else 1.0)
    groups = leaves[0].pow(2).sum((0, 2)).sqrt().sum() + leaves[1].pow(2).sum(0).sqrt().sum()
    cases = [
        (r.penalty_l1(w, 0.3), 0.3 * sum(abs(one).sum() for one in leaves)),
        (r.penalty_l2(w, 0.7, half=half), 0.7 * squares),
        (
            r.penalty_elastic_net(w, 0.3, 0.7, half=half),
            0.3 * sum(abs(one).sum() for one in leaves) + 0.7 * squares,
        ),
        (r.penalty_group_lasso(w, 0.4, 1), 0.4 * groups),
    ]
    for (value, grads), reference in cases:
        assert float(value) == pytest.approx(reference.item(), rel=1e-13)
        expected = torch.autograd.grad(reference, leaves, retain_graph=True)
        for grad, other in zip(grads, expected, strict=True):
            np.testing.assert_allclose(np.asarray(grad), other.numpy(), rtol=1e-13)


def test_value_and_gradient_dtypes() -> None:
    half = np.array([60000.0, -2.0], dtype=np.float16)
    brain = np.array([-3.0], dtype=ml_dtypes.bfloat16)
    value, grads = r.penalty_l2([half, None, brain], 0.5)
    assert value.dtype == np.float32  # no float16 overflow at 3.6e9
    assert float(value) == pytest.approx(0.5 * (60000.0**2 + 4 + 9), rel=1e-6)
    assert grads[1] is None
    assert grads[0] is not None
    assert grads[0].dtype == np.float16
    assert grads[2] is not None
    assert grads[2].dtype == ml_dtypes.bfloat16
    value, grads = r.penalty_l1([np.array([0.5], dtype=np.float32), np.array([-1.5])], 2.0)
    assert value.dtype == np.float64
    assert float(value) == 4.0
    assert grads[0] is not None
    assert grads[0].dtype == np.float32


def test_sign_of_zero_at_minus_zero_and_nan() -> None:
    w = [np.array([-0.0, NAN, -2.0])]
    value, (grad,) = r.penalty_l1(w, 0.5)
    assert np.isnan(value)
    np.testing.assert_array_equal(grad, [0.0, NAN, -0.5])
    assert grad is not None
    assert not np.signbit(grad[0])
    np.testing.assert_array_equal(
        r.penalty_l1(w, 0.5, sign_of_zero="plus_one")[1][0], [0.5, NAN, -0.5]
    )
    torch_grad = r.penalty_l1([torch.tensor([NAN, 1.0])], 0.5)[1][0]
    assert torch_grad is not None
    assert torch_grad.isnan().tolist() == [True, False]


def test_group_norms_do_not_overflow_and_zero_groups_have_gradient_zero() -> None:
    w = np.array([[3e30, 4e30], [0.0, 0.0]], dtype=np.float32)
    value, (grad,) = r.penalty_group_lasso([w], 1.0, 0)
    assert float(value) == pytest.approx(5e30, rel=1e-6)
    np.testing.assert_allclose(np.asarray(grad), np.array([[0.6, 0.8], [0, 0]]), rtol=1e-6)


# --- proximal maps ------------------------------------------------------------------------------


@libraries
@pytest.mark.parametrize(
    ("prox", "expected"),
    [
        (lambda w: r.prox_l1(w, 0.5, 2.0), [[2, -3], [0, 0]]),
        (lambda w: r.prox_l1(w, 0.5, 1.0), [[2.5, -3.5], [0, 0.5]]),
        (lambda w: r.prox_l2(w, 0.5, 3.0), [[0.75, -1], [0, 0.25]]),
        (lambda w: r.prox_l2(w, 0.5, 3.0, half=True), [[1.2, -1.6], [0, 0.4]]),
        (lambda w: r.prox_elastic_net(w, 0.25, 0.5, 2.0), [[2.5 / 3, -3.5 / 3], [0, 0.5 / 3]]),
        (lambda w: r.prox_elastic_net(w, 0.25, 0.5, 2.0, half=True), [[1.25, -1.75], [0, 0.25]]),
        (lambda w: r.prox_group_lasso(w, 0.5, 2.0, 0), [[2.4, -3.2], [0, 0]]),
        (
            lambda w: r.prox_group_lasso(w, 0.5, 2.0, 0, size_weight="sqrt_size"),
            [[3 - 0.6 * 2**0.5, -4 + 0.8 * 2**0.5], [0, 0]],
        ),
        (
            lambda w: r.prox_group_lasso(w, 0.5, 2.0, 1),
            [[2, -4 * (1 - 17**-0.5)], [0, 1 - 17**-0.5]],
        ),
        (lambda w: r.prox_group_lasso(w, 0.5, 2.0, (0, 1)), [[2, -3], [0, 0]]),
    ],
)
def test_prox_by_hand(prox: Any, expected: Any, make: Any) -> None:
    (result,) = prox([make(W)])
    np.testing.assert_allclose(np.asarray(result), expected, rtol=1e-14)


def test_soft_threshold_at_equality_is_plus_zero() -> None:
    w = np.array([0.5, -0.5, -0.25, -0.0, 0.75])
    (result,) = r.prox_l1([w], 0.25, 2.0)
    assert result is not None
    assert result.tobytes() == np.array([0.0, 0.0, 0.0, 0.0, 0.25]).tobytes()
    (group,) = r.prox_group_lasso([np.array([[-3.0, 4.0], [-6.0, 8.0]])], 5.0, 1.0, 0)
    assert group is not None
    assert group[0].tobytes() == np.zeros(2).tobytes()
    np.testing.assert_allclose(group[1], [-3.0, 4.0])


def test_prox_agrees_with_torch_softshrink() -> None:
    w = np.random.default_rng(8).standard_normal((5, 7))
    (result,) = r.prox_l1([w], 0.4, 0.9)
    expected = torch.nn.functional.softshrink(torch.tensor(w), 0.4 * 0.9)
    np.testing.assert_array_equal(result, expected.numpy())


@pytest.mark.parametrize("half", [False, True])
def test_prox_minimises_what_it_says(half: bool) -> None:
    # brute force over a fine grid, independent of the closed form
    x = np.linspace(-3, 3, 600001)
    for w in (-2.3, 0.4, 1.7):
        square = (0.5 if half else 1.0) * x**2
        objective = 0.5 * (x - w) ** 2 + 0.8 * (0.6 * abs(x) + 0.9 * square)
        (result,) = r.prox_elastic_net([np.array([w])], 0.6, 0.9, 0.8, half=half)
        assert result is not None
        assert result[0] == pytest.approx(x[np.argmin(objective)], abs=2e-5)


def test_prox_of_a_zero_threshold_is_the_identity() -> None:
    w = np.random.default_rng(4).standard_normal((3, 2))
    for (result,) in (
        r.prox_l1([w], 0.0, 0.7),
        r.prox_l2([w], 0.7, 0.0),
        r.prox_elastic_net([w], 0.0, 0.0, 1.0),
        r.prox_group_lasso([w], 0.0, 1.0, 0),
    ):
        np.testing.assert_array_equal(result, w)


def test_prox_keeps_nan_absence_and_dtype() -> None:
    for prox in (
        lambda w: r.prox_l1(w, 0.5, 1.0),
        lambda w: r.prox_l2(w, 0.5, 1.0),
        lambda w: r.prox_group_lasso(w, 0.5, 1.0, 0),
    ):
        result, absent = prox([np.array([NAN, 2.0], dtype=np.float16), None])
        assert absent is None
        assert result is not None
        assert result.dtype == np.float16
        assert np.isnan(result[0])
        assert 0 < result[1] < 2
        (brain,) = prox([torch.tensor([2.0, -4.0], dtype=torch.bfloat16)])
        assert brain is not None
        assert brain.dtype == torch.bfloat16


def test_inputs_are_not_written_to() -> None:
    w = np.array(W)
    w.flags.writeable = False
    r.penalty_elastic_net([w], 0.1, 0.2)
    r.penalty_group_lasso([w], 0.1, 0)
    r.prox_elastic_net([w], 0.1, 0.2, 0.5)
    r.prox_group_lasso([w], 0.1, 0.5, 0)
    np.testing.assert_array_equal(w, W)


@pytest.mark.parametrize(
    "call",
    [
        lambda w: r.penalty_l1(w, -0.1),
        lambda w: r.penalty_l1(w, NAN),
        lambda w: r.penalty_l1(w, 0.1, sign_of_zero="minus_one"),
        lambda w: r.penalty_l2(w, float("inf")),
        lambda w: r.penalty_elastic_net(w, 0.1, -0.1),
        lambda w: r.penalty_group_lasso(w, 0.1, 2),
        lambda w: r.penalty_group_lasso(w, 0.1, 0, size_weight="size"),
        lambda w: r.penalty_l1([], 0.1),
        lambda w: r.penalty_l1([np.array([1, 2])], 0.1),
        lambda w: r.prox_l1(w, -0.1, 1.0),
        lambda w: r.prox_l1(w, 0.1, -1.0),
        lambda w: r.prox_l2(w, 0.1, NAN),
        lambda w: r.prox_l1([np.array([1, 2])], 0.1, 1.0),
        lambda w: r.prox_group_lasso(w, 0.1, 1.0, -3),
    ],
)
def test_bad_arguments_are_refused(call: Any) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        call([np.array(W)])
    assert "\n" not in str(caught.value)
