"""The oracle of the optimisers against PyTorch in float64, recorded runs and hand computation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from conformance.cases import Case, Cases, tensor
from conformance.exact import exact, full, real
from conformance.operation import leaves, map_tensors
from conformance.operations import load
from conformance.oracle import optimizers
from conformance.oracle.optimizers import Tracked, constant, single

torch = pytest.importorskip("torch")

CLASSES = {
    "optim.sgd": torch.optim.SGD,
    "optim.adam": torch.optim.Adam,
    "optim.adamw": torch.optim.AdamW,
    "optim.rmsprop": torch.optim.RMSprop,
    "optim.adagrad": torch.optim.Adagrad,
}
NAMES = {"initial_accumulator": "initial_accumulator_value"}
DROP = [0.1, 0.1, 0.01, 0.01, 0.01]
KERAS_F64 = {"eps_at": "before_bias_correction"}
KERAS_F32 = {**KERAS_F64, "hyperparameters": "float32"}

# Parameters after the fifth step, float64, as thirteen libraries were seen to compute them.
OBSERVED: list[tuple[str, str, dict[str, Any], dict[str, Any], list[float]]] = [
    ("torch", "optim.sgd", {}, {}, [0.85, -1.865, 0.5051, 0.249999995, 0.75]),
    ("torch", "optim.sgd", {"momentum": 0.9}, {},
     [0.658399, -1.710848, 0.505307, 0.249999986856, 0.75]),
    ("torch", "optim.sgd", {"momentum": 0.9, "nesterov": True}, {},
     [0.5425591, -1.6047632, 0.5098763, 0.24999998317, 0.75]),
    ("torch", "optim.sgd", {"momentum": 0.9, "weight_decay": 0.1}, {},
     [0.5360812918, -1.4580659836, 0.44268092065, 0.217908493638, 0.653725519425]),
    ("keras", "optim.sgd", {"momentum": 0.9, "weight_decay": 0.1}, {"decay": "decoupled_by_lr"},
     [0.6132030388, -1.6153964776, 0.48130990165, 0.237747499515, 0.713242537425]),
    ("keras", "optim.sgd", {"momentum": 0.9, "lr": DROP}, {"momentum_form": "lr_inside"},
     [0.774229, -1.897373, 0.513767, 0.249999991905, 0.75]),
    ("keras", "optim.sgd", {"momentum": 0.9, "nesterov": True, "lr": DROP},
     {"momentum_form": "lr_inside"}, [0.7278061, -1.8761357, 0.5219003, 0.249999990414, 0.75]),
    ("torch", "optim.adam", {}, {},
     [0.6689209262, -1.75487111, 0.4462329202, 3.747002708e-16, 0.75]),
    ("torch", "optim.adam", {"eps": 0.1}, {},
     [0.7616323817, -1.821316452, 0.4595932039, 0.24999995, 0.75]),
    ("keras", "optim.adam", {"eps": 1e-7}, {"eps_at": "before_bias_correction"},
     [0.668925064935, -1.75487376488, 0.446233680345, 0.247365731942, 0.75]),
    ("keras", "optim.adam", {"eps": 0.1}, {"eps_at": "before_bias_correction"},
     [0.948637514664, -1.96041498483, 0.497650650672, 0.249999997351, 0.75]),
    ("keras", "optim.adam", {"eps": 0.0}, {},
     [0.668920910866, -1.75487110022, 0.446232918482, -0.25, float("nan")]),
    ("torch", "optim.adam", {"weight_decay": 0.1}, {},
     [0.6244254842, -1.617419474, 0.3835129226, -0.1276039465, 0.2628689322]),
    ("torch", "optim.adam", {"amsgrad": True}, {},
     [0.6689209262, -1.754904622, 0.4462226891, 3.7e-16, 0.75]),
    ("keras", "optim.adamw", {"weight_decay": 0.1, "eps": 1e-7},
     {"eps_at": "before_bias_correction"},
     [0.627513600483, -1.66297309621, 0.424732622425, 0.235156001073, 0.713242537425]),
    ("torch", "optim.adamw", {"weight_decay": 0.1}, {},
     [0.627509606, -1.662970533, 0.4247318978, -0.007302238025, 0.7132425374]),
    ("torch", "optim.rmsprop", {}, {},
     [-1.50519335658, -0.870981301975, 0.202789540675, -0.179157636634, 0.75]),
    ("keras", "optim.rmsprop", {"alpha": 0.9, "eps": 1e-7}, {"eps_at": "inside_root"},
     [0.203970546636, -1.65177356142, 0.406626349331, 0.249984188612, 0.75]),
    ("optax", "optim.rmsprop", {"alpha": 0.9}, {"eps_at": "inside_root"},
     [0.203955891572, -1.65177116565, 0.406625170279, 0.24995, 0.75]),
    ("torch", "optim.rmsprop", {"alpha": 0.9, "eps": 0.1, "momentum": 0.9, "lr": DROP}, {},
     [0.583830770455, -1.72757082143, 0.364732512263, 0.249999960756, 0.75]),
    ("keras", "optim.rmsprop", {"alpha": 0.9, "eps": 0.1, "momentum": 0.9, "lr": DROP},
     {"eps_at": "inside_root", "momentum_form": "lr_inside"},
     [0.364928856375, -1.7189521386, 0.515659821802, 0.2499999744, 0.75]),
    ("torch", "optim.rmsprop", {"alpha": 0.9, "eps": 0.1, "centered": True}, {},
     [0.555144352868, -1.75331806771, 0.478793610808, 0.24999995, 0.75]),
    ("keras", "optim.rmsprop", {"alpha": 0.9, "eps": 0.1, "centered": True},
     {"eps_at": "inside_root"},
     [0.648010356368, -1.76382114416, 0.508221128782, 0.249999984189, 0.75]),
    ("torch", "optim.adagrad", {}, {},
     [0.749621112658, -1.88679567647, 0.470248635161, -0.0709011906335, 0.75]),
    ("mlx", "optim.adagrad", {"eps": 1e-8}, {},
     [0.7496211208, -1.886795678, 0.4702486366, 0.05774106775, 0.75]),
    ("keras", "optim.adagrad", {"initial_accumulator": 0.1, "eps": 1e-7},
     {"eps_at": "inside_root"},
     [0.831806797218, -1.91269321573, 0.490534540775, 0.249999984189, 0.75]),
    ("keras", "optim.adagrad", {"eps": 0.1}, {"eps_at": "inside_root"},
     [0.831806773495, -1.91269320853, 0.490534531152, 0.249999984189, 0.75]),
]  # fmt: skip


def values(name: str, inputs: Any, setting: dict[str, Any], **params: Any) -> Any:
    """Return the oracle's parameters after each step, as float64 arrays."""
    cases = Cases(name)
    cases.add("case", "", "", inputs, {"lr": 0.1, **params}, ("float64",))
    expected = load(name).expect(cases.made[0], setting)
    assert expected.rejects is None, expected.rejects
    return map_tensors(lambda leaf: leaf.tensor, expected.outputs["params"])


@pytest.mark.parametrize(("who", "name", "params", "setting", "last"), OBSERVED)
def test_recorded_trajectories(
    who: str, name: str, params: dict[str, Any], setting: dict[str, Any], last: list[float]
) -> None:
    got = values(name, optimizers.observed(), setting, **params)[-1][0]
    # mlx keeps its hyper-parameters in single precision
    np.testing.assert_allclose(got, last, rtol=2e-7 if who == "mlx" else 2e-9, atol=2e-15)


def test_keras_on_tensorflow_rounds_the_betas_of_the_bias_corrections() -> None:
    # recorded with lr in float64: there only 1 - beta**t went through float32
    got = values("optim.adam", optimizers.observed(), KERAS_F32, eps=1e-7, lr=0.125)
    exact_lr = values("optim.adam", optimizers.observed(), KERAS_F64, eps=1e-7, lr=0.125)
    moved, recorded = got[0][0][:3] - [1, -2, 0.5], [0.90000382973, -1.90000224868, 0.400001721648]
    ratio = moved / (exact_lr[0][0][:3] - [1, -2, 0.5])
    expected = (np.array(recorded) - [1, -2, 0.5]) / (
        np.array([0.900003162178, -1.90000158111, 0.400001054081]) - [1, -2, 0.5]
    )
    np.testing.assert_allclose(ratio, expected, rtol=1e-9)


def run_torch(case: Case) -> list[list[Any]]:
    """Step torch's optimiser through a case in float64."""
    options = dict(case.params)
    lr = options.pop("lr")
    options = {NAMES.get(name, name): value for name, value in options.items()}
    if "beta1" in options:
        options["betas"] = (options.pop("beta1"), options.pop("beta2"))
    params = [
        torch.nn.Parameter(torch.from_numpy(np.array(p, dtype=np.float64)))
        for p in case.inputs["params"]
    ]
    rates = lr if isinstance(lr, list) else [lr] * len(case.inputs["grads"])
    optimizer = CLASSES[case.operation](params, lr=rates[0], foreach=False, **options)
    steps = []
    for rate, grads in zip(rates, case.inputs["grads"], strict=True):
        optimizer.param_groups[0]["lr"] = rate
        for param, grad in zip(params, grads, strict=True):
            param.grad = None if grad is None else torch.from_numpy(np.array(grad, np.float64))
        optimizer.step()
        steps.append([p.detach().numpy().copy() for p in params])
    return steps


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_canonical_trajectories_are_those_of_torch_in_float64(name: str) -> None:
    operation, compared = load(name), 0
    for case in operation.generate():
        expected = operation.expect(case)
        if expected.rejects is not None or not case.id.endswith("-f64"):
            continue
        if case.id.startswith(
            "centered-no-variance"
        ):  # where torch itself takes the root of a negative
            continue
        got = run_torch(case)
        for (_, a), (path, leaf) in zip(
            leaves(got), leaves(expected.outputs["params"]), strict=True
        ):
            dtype = leaf.tensor.dtype
            if dtype != np.float64:
                continue
            bound = 1e-30 if leaf.scale is None else 1e-30 + np.asarray(leaf.scale) * 2.0**-50
            with np.errstate(invalid="ignore"):
                off = np.abs(a - leaf.tensor)
            same = np.isnan(a) & np.isnan(leaf.tensor) | (a == leaf.tensor)
            assert np.all(same | (off <= bound)), (case.full_id, path)
            compared += a.size
    assert compared > 400


def test_the_scale_is_the_error_bound_of_each_step() -> None:
    # w - lr·g: one rounding each for lr, the product and the difference
    cases = Cases("optim.sgd")
    cases.add("case", "", "", single(tensor(1, -4), tensor(2, 0)), {"lr": 0.25}, ("float64",))
    leaf = load("optim.sgd").expect(cases.made[0]).outputs["params"][0][0]
    np.testing.assert_allclose(leaf.scale, [2 * 0.5 + 0.5, 4.0])
    assert leaf.ulp == 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bounds_hold_and_are_not_idle(dtype: Any) -> None:
    """Random chains of operations in the format never leave their bound, and come near it."""
    rng, unit = np.random.default_rng(7), float(np.finfo(dtype).eps) / 2
    worst = 0.0
    for _ in range(60):
        a, b, c = (rng.uniform(0.5, 2, 40).astype(dtype) for _ in range(3))
        x, y, z = (Tracked(exact(v), full(v.shape)) for v in (a, b, c))
        beta = dtype(0.9)
        got = np.sqrt((a * b - c) * (a * b - c) + b) / (beta * a + (dtype(1) - beta) * c)
        difference = x * y - z
        bound = optimizers.root(difference * difference + y) / optimizers.average(float(beta), x, z)
        off = np.abs(exact(got) - bound.exact) / real(unit)
        ratios = (off / bound.error).astype(float)
        assert ratios.max() <= 1.0
        worst = max(worst, ratios.max())
    assert worst > 0.1


def test_float32_runs_stay_within_their_bounds_and_use_them() -> None:
    cases = load("optim.adam").generate()
    case = next(c for c in cases if c.id == "thirty-steps-f32")
    leaf = load("optim.adam").expect(case).outputs["params"][-1][0]
    relative = np.asarray(leaf.scale) / np.abs(leaf.tensor) * 2.0**-24
    assert np.all(relative < 1e-4), "thirty steps of Adam are good for four digits at the least"


def test_a_bias_correction_in_float32_amplifies_one_roundoff() -> None:
    settings = {"bias_correction": True, "hyperparameters": "input_dtype", "dtype": "float32"}
    later = optimizers.correction(0.999, settings | {"t": 2})
    amplification = float((later.error / later.exact).item())
    assert amplification == pytest.approx(1 + 2 * 0.998 / 0.002, rel=1e-2)
    exactly = optimizers.correction(0.999, settings | {"t": 2, "hyperparameters": "exact"})
    assert float((exactly.error / exactly.exact).item()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("setting", "first", "second"),
    [
        # g = 1 from w = 0: m and v are 0.5 and 0.25 after one step, 0.75 and 0.4375 after two
        ({}, -1 / 1.5, -2 / 1.5),
        ({"eps_at": "inside_root"}, -1 / 1.5**0.5, -2 / 1.5**0.5),
        # lr·√(1-β2)/(1-β1)·m/(√v + eps) = 0.5/0.5·0.5/(0.5 + 0.5)
        ({"eps_at": "before_bias_correction"}, -0.5, -0.5 - 0.4375**0.5 / (0.4375**0.5 + 0.5)),
        ({"bias_correction": False}, -0.5, -0.5 - 0.75 / (0.4375**0.5 + 0.5)),
    ],
)
def test_adam_by_hand(setting: dict[str, Any], first: float, second: float) -> None:
    inputs = single(tensor(0, 0), tensor(1, 1), tensor(1, 1))
    got = values("optim.adam", inputs, setting, lr=1.0, beta1=0.5, beta2=0.75, eps=0.5)
    np.testing.assert_allclose(got[0][0], first, rtol=1e-14)
    np.testing.assert_allclose(got[1][0], second, rtol=1e-14)


@pytest.mark.parametrize(
    ("setting", "last"),
    [
        # w = 1, g = 1 twice, lr 1 then 0.5, μ = 0.5, d = 0.25, wd = 0
        ({}, 1 - 1 - 0.5 * (0.5 + 0.75)),
        ({"first_buffer": "damped"}, 1 - 0.75 - 0.5 * (0.375 + 0.75)),
        ({"momentum_form": "lr_inside"}, 1 - 1 - (0.5 + 0.375)),
    ],
)
def test_sgd_by_hand(setting: dict[str, Any], last: float) -> None:
    inputs = single(tensor(1.0), tensor(1.0), tensor(1.0))
    got = values("optim.sgd", inputs, setting, lr=[1.0, 0.5], momentum=0.5, dampening=0.25)
    assert got[1][0].item() == last


@pytest.mark.parametrize(
    ("setting", "params", "last"),
    [
        # w = 0, g = 3 then 4, α = 0.75, lr 1 then 0.5: v = 2.25 then 5.6875
        ({}, {}, -3 / (1.5 + 0.5) - 0.5 * 4 / (5.6875**0.5 + 0.5)),
        ({"eps_at": "inside_root"}, {}, -3 / 2.75**0.5 - 0.5 * 4 / 6.1875**0.5),
        ({}, {"momentum": 0.5}, -1.5 - 0.5 * (0.5 * 1.5 + 4 / (5.6875**0.5 + 0.5))),
        ({"momentum_form": "lr_inside"}, {"momentum": 0.5},
         -1.5 - (0.5 * 1.5 + 0.5 * 4 / (5.6875**0.5 + 0.5))),
        # a = 0.75 then 1.5625: variances 1.6875 and 3.24609375
        ({}, {"centered": True}, -3 / (1.6875**0.5 + 0.5) - 0.5 * 4 / (3.24609375**0.5 + 0.5)),
    ],
)  # fmt: skip
def test_rmsprop_by_hand(setting: dict[str, Any], params: dict[str, Any], last: float) -> None:
    inputs = single(tensor(0.0), tensor(3.0), tensor(4.0))
    got = values(
        "optim.rmsprop", inputs, setting, lr=[1.0, 0.5], alpha=0.75, **{"eps": 0.5, **params}
    )
    np.testing.assert_allclose(got[1][0], last, rtol=1e-14)


@pytest.mark.parametrize(
    ("setting", "params", "last"),
    [
        # w = 0, g = 3 then 4: G = 9 then 25
        ({}, {}, -3 / 3.5 - 4 / 5.5),
        ({"eps_at": "inside_root"}, {}, -3 / 9.5**0.5 - 4 / 25.5**0.5),
        ({}, {"lr_decay": 1.0}, -3 / 3.5 - 0.5 * 4 / 5.5),
        ({}, {"initial_accumulator": 7.0}, -3 / 4.5 - 4 / (32**0.5 + 0.5)),
    ],
)
def test_adagrad_by_hand(setting: dict[str, Any], params: dict[str, Any], last: float) -> None:
    inputs = single(tensor(0.0), tensor(3.0), tensor(4.0))
    got = values("optim.adagrad", inputs, setting, lr=1.0, eps=0.5, **params)
    np.testing.assert_allclose(got[1][0], last, rtol=1e-14)


@pytest.mark.parametrize(
    ("decay", "expected"),
    [("coupled", 2 - 0.5 * (1 + 0.25 * 2)), ("decoupled_by_lr", 2 * (1 - 0.125) - 0.5),
     ("decoupled", 2 * 0.75 - 0.5)],
)  # fmt: skip
def test_decay_by_hand(decay: str, expected: float) -> None:
    got = values(
        "optim.sgd", single(tensor(2.0), tensor(1.0)), {"decay": decay}, lr=0.5, weight_decay=0.25
    )
    assert got[0][0].item() == expected


def test_step_count_of_an_absent_gradient() -> None:
    # at t = 1 the step is lr·sign(g); at t = 2 it is lr·(m/(1-β1²))/√(v/(1-β2²)) of one gradient
    inputs = {"params": [tensor(0.0)], "grads": [[None], [tensor(3.0)]]}
    own = values("optim.adam", inputs, {}, lr=1.0, eps=0.0, beta1=0.5, beta2=0.75)
    shared = values(
        "optim.adam", inputs, {"step_count": "optimizer"}, lr=1.0, eps=0.0, beta1=0.5, beta2=0.75
    )
    assert own[1][0].item() == -1.0
    np.testing.assert_allclose(shared[1][0], -(0.5 / 0.75) / (0.25 / 0.4375) ** 0.5, rtol=1e-14)
    assert own[0][0].item() == shared[0][0].item() == 0.0


def test_untouched_parameters_are_asked_for_bit_for_bit() -> None:
    case = next(c for c in load("optim.sgd").generate() if c.id == "absent-always-f32")
    untouched = load("optim.sgd").expect(case).outputs["params"][-1][1]
    assert untouched.ulp == 0
    assert constant(real(0.5)).error[0] == 0.5
