from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import array_api_strict
import ml_dtypes
import numpy as np
import pytest

from refimpl import optimizers as o
from refimpl.pruning import apply_mask

torch = pytest.importorskip("torch")
NAN, INF = float("nan"), float("inf")

# What several frameworks were run on: parameters after five steps, float64.
P0 = [1.0, -2.0, 0.5, 0.25, 0.75]
GRADS = [
    [0.1, -0.2, 0.3, 1e-8, 0],
    [0.5, 0, -0.4, 1e-8, 0],
    [-0.3, 0.25, 0, 1e-8, 0],
    [1, -1.5, 0.05, 1e-8, 0],
    [0.2, 0.1, -1e-3, 1e-8, 0],
]
DROP = [0.1, 0.1, 0.01, 0.01, 0.01]
HAT: dict[str, Any] = {"eps_at": "before_bias_correction", "eps": 1e-7}
ROOT: dict[str, Any] = {"eps_at": "inside_root"}

OBSERVED: list[tuple[str, o.Optimizer, Any, list[float]]] = [
    ("sgd", o.sgd(0.1), None, [0.85, -1.865, 0.5051, 0.249999995, 0.75]),
    (
        "sgd wd",
        o.sgd(0.1, weight_decay=0.1),
        None,
        [0.8032721398, -1.76877068, 0.4806391047, 0.2377475076, 0.7132425374],
    ),
    (
        "momentum",
        o.sgd(0.1, 0.9),
        None,
        [0.658399, -1.710848, 0.505307, 0.249999986856, 0.75],
    ),
    (
        "nesterov",
        o.sgd(0.1, 0.9, nesterov=True),
        None,
        [0.5425591, -1.6047632, 0.5098763, 0.24999998317, 0.75],
    ),
    (
        "momentum coupled",
        o.sgd(0.1, 0.9, weight_decay=0.1),
        None,
        [0.5360812918, -1.4580659836, 0.44268092065, 0.217908493638, 0.653725519425],
    ),
    (
        "momentum decoupled by lr",
        o.sgd(0.1, 0.9, weight_decay=0.1, decay="decoupled_by_lr"),
        None,
        [0.6132030388, -1.615396478, 0.4813099016, 0.2377474995, 0.7132425374],
    ),
    (
        "momentum decoupled",
        o.sgd(0.1, 0.9, weight_decay=0.01, decay="decoupled"),
        None,
        [0.6132030388, -1.615396478, 0.4813099016, 0.2377474995, 0.7132425374],
    ),
    (
        "momentum lr drop",
        o.sgd(0.1, 0.9),
        DROP,
        [0.9037399, -1.9368848, 0.4852307, 0.249999996076, 0.75],
    ),
    (
        "momentum lr drop inside",
        o.sgd(0.1, 0.9, momentum_form="lr_inside"),
        DROP,
        [0.774229, -1.897373, 0.513767, 0.2499999919, 0.75],
    ),
    (
        "nesterov lr drop",
        o.sgd(0.1, 0.9, nesterov=True),
        DROP,
        [0.84436591, -1.91169632, 0.49621763, 0.249999994168, 0.75],
    ),
    (
        "nesterov lr drop inside",
        o.sgd(0.1, 0.9, nesterov=True, momentum_form="lr_inside"),
        DROP,
        [0.7278061, -1.8761357, 0.5219003, 0.2499999904, 0.75],
    ),
    (
        "dampening",
        o.sgd(0.1, 0.9, 0.5),
        None,
        [0.808724, -1.814473, 0.441227, 0.24999999138, 0.75],
    ),
    (
        "dampening from the first",
        o.sgd(0.1, 0.9, 0.5, first_buffer="damped"),
        None,
        [0.8291995, -1.855424, 0.5026535, 0.2499999934, 0.75],
    ),
    (
        "adam",
        o.adam(0.1),
        None,
        [0.668920926154, -1.75487111031, 0.446232920249, 3.747002708e-16, 0.75],
    ),
    (
        "adam epsilon-hat",
        o.adam(0.1, **HAT),
        None,
        [0.6689250649, -1.754873765, 0.4462336803, 0.2473657319, 0.75],
    ),
    (
        "adam uncorrected",
        o.adam(0.1, bias_correction=False),
        None,
        [-0.4799569644, -0.9503982231, 0.4068997406, 0.1258313631, 0.75],
    ),
    (
        "adam eps",
        o.adam(0.1, eps=0.1),
        None,
        [0.761632381716, -1.82131645188, 0.459593203855, 0.24999995, 0.75],
    ),
    (
        "adam eps epsilon-hat",
        o.adam(0.1, eps=0.1, eps_at="before_bias_correction"),
        None,
        [0.9486375147, -1.960414985, 0.4976506507, 0.2499999974, 0.75],
    ),
    (
        "adam coupled",
        o.adam(0.1, weight_decay=0.1),
        None,
        [0.624425484168, -1.61741947374, 0.383512922573, -0.127603946507, 0.262868932237],
    ),
    (
        "adamw",
        o.adamw(0.1, weight_decay=0.1),
        None,
        [0.627509605975, -1.66297053275, 0.424731897839, -0.007302238025, 0.713242537425],
    ),
    (
        "adamw epsilon-hat",
        o.adamw(0.1, weight_decay=0.1, **HAT),
        None,
        [0.6275136005, -1.662973096, 0.4247326224, 0.2351560011, 0.7132425374],
    ),
    (
        "amsgrad",
        o.adam(0.1, amsgrad=True),
        None,
        [0.668920926154, -1.7549046216, 0.446222689143, 3.747002708e-16, 0.75],
    ),
    (
        "amsgrad epsilon-hat",
        o.adam(0.1, amsgrad=True, **HAT),
        None,
        [0.6689250649, -1.754907275, 0.4462234494, 0.2473657319, 0.75],
    ),
    (
        "rmsprop",
        o.rmsprop(0.1),
        None,
        [-1.505193357, -0.870981302, 0.2027895407, -0.1791576366, 0.75],
    ),
    (
        "rmsprop inside root",
        o.rmsprop(0.1, 0.9, 1e-7, **ROOT),
        None,
        [0.2039705466, -1.651773561, 0.4066263493, 0.2499841886, 0.75],
    ),
    (
        "rmsprop eps",
        o.rmsprop(0.1, 0.9, 0.1),
        None,
        [0.5771339634, -1.764817556, 0.4824119606, 0.24999995, 0.75],
    ),
    (
        "rmsprop centered",
        o.rmsprop(0.1, 0.9, 0.1, centered=True),
        None,
        [0.555144352868, -1.75331806771, 0.478793610808, 0.24999995, 0.75],
    ),
    (
        "rmsprop centered inside root",
        o.rmsprop(0.1, 0.9, 0.1, centered=True, **ROOT),
        None,
        [0.6480103564, -1.763821144, 0.5082211288, 0.2499999842, 0.75],
    ),
    (
        "rmsprop momentum lr drop",
        o.rmsprop(0.1, 0.9, 0.1, 0.9),
        DROP,
        [0.583830770455, -1.72757082143, 0.364732512263, 0.249999960756, 0.75],
    ),
    (
        "rmsprop momentum lr drop inside",
        o.rmsprop(0.1, 0.9, 0.1, 0.9, momentum_form="lr_inside", **ROOT),
        DROP,
        [0.3649288564, -1.718952139, 0.5156598218, 0.2499999744, 0.75],
    ),
    (
        "adagrad",
        o.adagrad(0.1),
        None,
        [0.749621112658, -1.88679567647, 0.470248635161, -0.0709011906335, 0.75],
    ),
    (
        "adagrad inside root",
        o.adagrad(0.1, eps=1e-7, initial_accumulator=0.1, **ROOT),
        None,
        [0.8318067972, -1.912693216, 0.4905345408, 0.2499999842, 0.75],
    ),
    (
        "adagrad eps",
        o.adagrad(0.1, eps=0.1),
        None,
        [0.816513459311, -1.90713230811, 0.483533802363, 0.24999995, 0.75],
    ),
]


def run(
    optimizer: o.Optimizer, params: Sequence[Any], grads: Sequence[Any], rates: Any = None
) -> list[Any]:
    """The parameters after each step."""
    state, history = optimizer.init(params), []
    for step, g in enumerate(grads):
        lr = None if rates is None else rates[step]
        params, state = optimizer.update(params, g, state, lr)
        history.append(params)
    return history


@pytest.mark.parametrize(
    ("optimizer", "rates", "expected"), [c[1:] for c in OBSERVED], ids=[c[0] for c in OBSERVED]
)
def test_trajectories_of_frameworks(
    optimizer: o.Optimizer, rates: Any, expected: list[float]
) -> None:
    last = run(optimizer, [np.array(P0)], [[np.array(g)] for g in GRADS], rates)[-1]
    # printed with ten digits; one framework in float32 arithmetic of its constants
    np.testing.assert_allclose(last[0], expected, rtol=2e-9, atol=3e-8)


def test_every_setting_ends_elsewhere() -> None:
    ends = {
        name: run(optimizer, [np.array(P0)], [[np.array(g)] for g in GRADS], rates)[-1][0]
        for name, optimizer, rates, _ in OBSERVED
        if name != "momentum decoupled"  # by construction equal to "by lr"
    }
    names = list(ends)
    for i, one in enumerate(names):
        for other in names[:i]:
            assert abs(ends[one] - ends[other]).max() > 1e-7, (one, other)


# --- torch, step by step ------------------------------------------------------------------------

RATES = [0.1, 0.3, 0.05, 0.2, 0.01, 0.15]
TORCH: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
    ("sgd", {}, "SGD", {}),
    ("sgd", {"momentum": 0.9}, "SGD", {"momentum": 0.9}),
    (
        "sgd",
        {"momentum": 0.8, "dampening": 0.3, "weight_decay": 0.2},
        "SGD",
        {"momentum": 0.8, "dampening": 0.3, "weight_decay": 0.2},
    ),
    (
        "sgd",
        {"momentum": 0.7, "nesterov": True, "weight_decay": 0.2},
        "SGD",
        {"momentum": 0.7, "nesterov": True, "weight_decay": 0.2},
    ),
    (
        "adam",
        {"beta1": 0.8, "beta2": 0.95, "eps": 1e-3, "weight_decay": 0.2},
        "Adam",
        {"betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.2},
    ),
    (
        "adam",
        {"beta2": 0.7, "amsgrad": True, "weight_decay": 0.1, "decay": "decoupled_by_lr"},
        "AdamW",
        {"betas": (0.9, 0.7), "amsgrad": True, "weight_decay": 0.1},
    ),
    ("adamw", {"weight_decay": 0.3}, "AdamW", {"weight_decay": 0.3}),
    (
        "adamw",
        {"beta1": 0.0, "weight_decay": 0.3, "decay": "coupled"},
        "Adam",
        {"betas": (0.0, 0.999), "weight_decay": 0.3},
    ),
    ("rmsprop", {"weight_decay": 0.1}, "RMSprop", {"weight_decay": 0.1}),
    (
        "rmsprop",
        {"alpha": 0.8, "eps": 0.01, "momentum": 0.6, "centered": True},
        "RMSprop",
        {"alpha": 0.8, "eps": 0.01, "momentum": 0.6, "centered": True},
    ),
    (
        "adagrad",
        {"lr_decay": 0.3, "initial_accumulator": 0.2, "weight_decay": 0.1, "eps": 0.01},
        "Adagrad",
        {"lr_decay": 0.3, "initial_accumulator_value": 0.2, "weight_decay": 0.1, "eps": 0.01},
    ),
]


@pytest.mark.parametrize(("name", "ours", "theirs", "options"), TORCH, ids=str)
def test_agrees_with_torch_at_every_step(
    name: str, ours: dict[str, Any], theirs: str, options: dict[str, Any]
) -> None:
    rng = np.random.default_rng(7)
    params = [rng.standard_normal((3, 2)), rng.standard_normal(4)]
    grads: list[list[Any]] = [[rng.standard_normal(p.shape) for p in params] for _ in RATES]
    # absent at first, in the middle, and both at once: each parameter counts its own steps
    grads[0][1] = grads[2][0] = grads[4][0] = grads[4][1] = None
    leaves = [torch.nn.Parameter(torch.tensor(p)) for p in params]
    reference = getattr(torch.optim, theirs)(leaves, lr=1.0, **options)
    history = run(getattr(o, name)(1.0, **ours), params, grads, RATES)
    for step, (lr, result) in enumerate(zip(RATES, history, strict=True)):
        reference.param_groups[0]["lr"] = lr
        for leaf, g in zip(leaves, grads[step], strict=True):
            leaf.grad = None if g is None else torch.tensor(g)
        reference.step()
        for mine, leaf in zip(result, leaves, strict=True):
            np.testing.assert_allclose(mine, leaf.detach().numpy(), rtol=1e-12, atol=1e-14)


# --- by hand ------------------------------------------------------------------------------------


def test_decay_by_hand() -> None:
    w, g = [np.array([2.0])], [np.array([1.0])]
    # 2 - .5 * (1 + .2); 2 * (1 - .05) - .5; 2 * (1 - .1) - .5
    for decay, expected in (("coupled", 1.4), ("decoupled_by_lr", 1.4), ("decoupled", 1.3)):
        optimizer = o.sgd(0.5, weight_decay=0.1, decay=decay)
        assert run(optimizer, w, [g])[-1][0][0] == pytest.approx(expected, rel=1e-15)
    # Adam's first step is lr * sign(g): coupled decay vanishes in it, decoupled does not
    assert run(o.adam(0.5, eps=0, weight_decay=0.1), w, [g])[-1][0][0] == pytest.approx(1.5)
    assert run(o.adamw(0.5, eps=0, weight_decay=0.1), w, [g])[-1][0][0] == pytest.approx(1.4)


@pytest.mark.parametrize(
    ("eps_at", "expected"),
    [
        # beta1 .5, beta2 .75, g 3: m 1.5, v 2.25, corrected 3 and 9; lr .1, eps 7
        ("outside_root", 0.1 * 3 / (3 + 7)),
        ("inside_root", 0.1 * 3 / 4),
        ("before_bias_correction", 0.1 * 0.5 / 0.5 * 1.5 / (1.5 + 7)),
    ],
)
def test_eps_at_by_hand(eps_at: str, expected: float) -> None:
    optimizer = o.adam(0.1, 0.5, 0.75, 7.0, eps_at=eps_at)
    (result,) = run(optimizer, [np.array([1.0])], [[np.array([3.0])]])[-1]
    assert result[0] == pytest.approx(1.0 - expected, rel=1e-14)


def test_eps_at_without_bias_correction_by_hand() -> None:
    for eps_at, root in (("outside_root", 8.5), ("inside_root", 9.25**0.5)):
        optimizer = o.adam(0.1, 0.5, 0.75, 7.0, eps_at=eps_at, bias_correction=False)
        (result,) = run(optimizer, [np.array([1.0])], [[np.array([3.0])]])[-1]
        assert result[0] == pytest.approx(1.0 - 0.1 * 1.5 / root, rel=1e-14)


def test_amsgrad_remembers_the_largest_second_moment() -> None:
    grads = [[np.array([10.0])]] + [[np.array([0.1])]] * 5
    plain = run(o.adam(0.1, beta2=0.5), [np.array([0.0])], grads)[-1][0][0]
    largest = run(o.adam(0.1, beta2=0.5, amsgrad=True), [np.array([0.0])], grads)[-1][0][0]
    assert abs(largest) < abs(plain) - 0.1


def test_adagrad_lr_decay_counts_from_zero() -> None:
    # G: 4, 8; lr: .1, .1 / 1.5
    history = run(o.adagrad(0.1, 0.5, 0.0), [np.array([1.0])], [[np.array([2.0])]] * 2)
    assert history[0][0][0] == pytest.approx(0.9, rel=1e-15)
    assert history[1][0][0] == pytest.approx(0.9 - 0.1 / 1.5 * 2 / 8**0.5, rel=1e-15)


def test_centered_rmsprop_with_a_constant_gradient_stays_finite() -> None:
    # the variance is 0 in the limit; rounding makes v - a * a negative on the way
    g = np.array([0.1, 0.7, 1.3], dtype=np.float32)
    history = run(o.rmsprop(1e-3, 0.5, 1e-3, centered=True), [g * 0], [[g]] * 60)
    assert np.isfinite(history[-1][0]).all()


def test_zero_gradient_and_zero_eps_give_nan() -> None:
    with np.errstate(invalid="ignore"):
        history = run(o.adam(0.1, eps=0.0), [np.array([1.0, 1.0])], [[np.array([0.0, 2.0])]])
    np.testing.assert_allclose(history[-1][0], [NAN, 0.9])


# --- absent gradients and state -----------------------------------------------------------------

ALL = [
    o.sgd(0.1, weight_decay=0.1),
    o.sgd(0.1, 0.9, weight_decay=0.1),
    o.adam(0.1, weight_decay=0.1, amsgrad=True),
    o.adamw(0.1, weight_decay=0.1),
    o.rmsprop(0.1, momentum=0.9, centered=True, weight_decay=0.1),
    o.adagrad(0.1, weight_decay=0.1, initial_accumulator=0.1),
]
every = pytest.mark.parametrize("optimizer", ALL, ids=range(len(ALL)))


@every
def test_absent_gradient_leaves_parameter_and_state_alone(optimizer: o.Optimizer) -> None:
    params = [np.array([1.0, -2.0]), np.array([[3.0]])]
    params, state = optimizer.update(
        params, [np.array([0.5, 1.0]), np.array([[-1.0]])], optimizer.init(params)
    )
    after, later = optimizer.update(params, [None, np.array([[2.0]])], state)
    assert after[0] is params[0]
    assert after[1][0, 0] != params[1][0, 0]
    assert later["step"] == [1, 2]
    for name in state:
        assert later[name][0] is state[name][0]


@every
def test_nothing_of_the_callers_is_written_to(optimizer: o.Optimizer) -> None:
    params, grads = [np.array([1.0, -2.0])], [np.array([0.5, 4.0])]
    state = optimizer.init(params)
    params, state = optimizer.update(params, grads, state)
    frozen = [*params, *grads, *(a for name, s in state.items() if name != "step" for a in s)]
    copies = [array.copy() for array in frozen]
    for array in frozen:
        array.flags.writeable = False
    one = optimizer.update(params, grads, state)
    two = optimizer.update(params, grads, state)
    np.testing.assert_array_equal(one[0][0], two[0][0])
    assert state["step"] == [1]
    for array, copy in zip(frozen, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


@every
def test_state_survives_a_round_trip_through_json(optimizer: o.Optimizer) -> None:
    params, grads = [np.array([1.0, -2.0])], [np.array([0.5, 4.0])]
    params, state = optimizer.update(params, grads, optimizer.init(params))
    plain = {
        name: values if name == "step" else [array.tolist() for array in values]
        for name, values in state.items()
    }
    back = {
        name: values if name == "step" else [np.array(array) for array in values]
        for name, values in json.loads(json.dumps(plain)).items()
    }
    one, two = optimizer.update(params, grads, state), optimizer.update(params, grads, back)
    np.testing.assert_array_equal(one[0][0], two[0][0])


def test_momentum_does_not_revive_a_pruned_weight() -> None:
    optimizer = o.sgd(0.1, 0.9)
    w, mask = [np.array([1.0, 1.0])], np.array([False, True])
    w, state = optimizer.update(w, [np.array([-1.0, -1.0])], optimizer.init(w))
    w = [apply_mask(w[0], mask)]
    revived, _ = optimizer.update(w, [np.array([0.0, 0.0])], state)
    np.testing.assert_allclose(revived[0], [0.09, 1.19])
    kept, state = optimizer.update(w, [np.array([0.0, 0.0])], o.mask_state(state, [mask]))
    np.testing.assert_allclose(kept[0], [0.0, 1.19])
    assert state["step"] == [2]


@every
def test_mask_state_zeroes_every_array_of_the_state(optimizer: o.Optimizer) -> None:
    params = [np.array([1.0, -2.0]), np.array([4.0])]
    grads = [np.array([-0.5, 3.0]), np.array([2.0])]
    _, state = optimizer.update(params, grads, optimizer.init(params))
    masked = o.mask_state(state, [np.array([False, True]), None])
    assert masked["step"] == [1, 1]
    assert masked["step"] is not state["step"]
    for name in state.keys() - {"step"}:
        assert masked[name][0][0] == 0
        assert not np.signbit(masked[name][0][0])
        assert masked[name][0][1] == state[name][0][1] != 0
        assert masked[name][1] is state[name][1]
        assert state[name][0][0] != 0


# --- libraries and dtypes -----------------------------------------------------------------------


@every
@pytest.mark.parametrize(
    "make",
    [array_api_strict.asarray, lambda v: torch.tensor(v, dtype=torch.float64)],
    ids=["strict", "torch"],
)
def test_libraries_agree(optimizer: o.Optimizer, make: Any) -> None:
    rng = np.random.default_rng(1)
    params = [rng.standard_normal((2, 3)), rng.standard_normal(())]
    grads: list[list[Any]] = [[rng.standard_normal(np.shape(p)) for p in params] for _ in range(4)]
    grads[1][0] = None
    expected = run(optimizer, [np.asarray(p) for p in params], grads)
    moved = [[None if g is None else make(np.asarray(g).tolist()) for g in gs] for gs in grads]
    start = [make(np.asarray(p).tolist()) for p in params]
    for mine, reference in zip(run(optimizer, start, moved), expected, strict=True):
        for a, b in zip(mine, reference, strict=True):
            np.testing.assert_allclose(np.asarray(a), b, rtol=1e-13)


@every
@pytest.mark.parametrize(
    ("dtype", "wide"),
    [
        (np.float16, np.float32),
        (ml_dtypes.bfloat16, np.float32),
        (np.float32, np.float32),
        (np.float64, np.float64),
    ],
)
def test_dtypes(optimizer: o.Optimizer, dtype: Any, wide: Any) -> None:
    params = [np.array([1.0, -2.0]).astype(dtype)]
    grads = [np.array([0.5, 1e-3]).astype(dtype)]  # 1e-3 squared is subnormal in float16
    start = optimizer.init(params)
    result, state = optimizer.update(params, grads, start)
    assert result[0].dtype == dtype
    for name in state.keys() - {"step"}:
        assert start[name][0].dtype == state[name][0].dtype == wide
    # the step in float32, rounded once
    reference = [params[0].astype(wide)]
    exact, _ = optimizer.update(reference, [grads[0].astype(wide)], optimizer.init(reference))
    np.testing.assert_array_equal(result[0], exact[0].astype(dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_narrow_torch_dtypes(dtype: Any) -> None:
    w = [torch.tensor([1.0, -2.0], dtype=dtype)]
    (result,) = run(o.adamw(0.5), w, [[torch.tensor([3.0, -1e-3], dtype=dtype)]])[-1]
    assert result.dtype == dtype
    assert result.tolist() == [0.5, -1.5]


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sgd", {"lr": -0.1}),
        ("sgd", {"lr": NAN}),
        ("sgd", {"lr": INF}),
        ("sgd", {"momentum": -0.1}),
        ("sgd", {"dampening": NAN}),
        ("sgd", {"weight_decay": -0.1}),
        ("sgd", {"nesterov": True}),
        ("sgd", {"nesterov": True, "momentum": 0.9, "dampening": 0.1}),
        ("sgd", {"decay": "l2"}),
        ("sgd", {"momentum_form": "outside"}),
        ("sgd", {"first_buffer": "zero"}),
        ("adam", {"beta1": 1.0}),
        ("adam", {"beta1": -0.1}),
        ("adam", {"beta2": 1.0}),
        ("adam", {"beta2": NAN}),
        ("adam", {"eps": -1e-8}),
        ("adam", {"eps_at": "nowhere"}),
        ("adamw", {"weight_decay": -0.1}),
        ("adamw", {"decay": "none"}),
        ("rmsprop", {"alpha": 1.0}),
        ("rmsprop", {"momentum": -0.5}),
        ("rmsprop", {"eps": NAN}),
        ("rmsprop", {"eps_at": "before_bias_correction"}),
        ("rmsprop", {"momentum_form": "inside"}),
        ("adagrad", {"lr_decay": -0.1}),
        ("adagrad", {"initial_accumulator": -0.1}),
        ("adagrad", {"eps": -1.0}),
        ("adagrad", {"eps_at": "before_bias_correction"}),
    ],
    ids=str,
)
def test_bad_hyper_parameters_are_refused(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        getattr(o, name)(**{"lr": 0.1, **options})
    assert "\n" not in str(caught.value)


def test_bad_updates_are_refused() -> None:
    optimizer, w = o.sgd(0.1, 0.9), [np.array([1.0, 2.0])]
    state = optimizer.init(w)
    for params, grads, lr, message in (
        (w, [], None, "same length"),
        (w, [np.array([1.0])], None, "same shape"),
        (w, [np.array([1, 2])], None, "real floating"),
        (w, w, -0.1, "lr must be"),
        (w, w, NAN, "lr must be"),
        (w * 2, w * 2, None, "same length"),
    ):
        with pytest.raises(ValueError, match=message):
            optimizer.update(params, grads, state, lr)
    with pytest.raises(ValueError, match="real floating"):
        optimizer.init([np.array([1, 2])])
    with pytest.raises(ValueError, match="same length"):
        o.mask_state(state, [])
    with pytest.raises(ValueError, match="same shape"):
        o.mask_state(state, [np.array([True])])
    with pytest.raises(TypeError, match="lr"):
        o.sgd("0.1")  # type: ignore[arg-type]
