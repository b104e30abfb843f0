"""Exact optimiser steps, each number with a bound on what rounding may do to it on the way.

The state is exact and never rounded between steps. What an implementation rounds is followed beside
it: :class:`Tracked` numbers carry a first-order bound on their error, so that the tolerance of step t
knows of cancellation in the momentum, of the 1/(1 - β^t) in a bias correction that is computed in
the parameters' own format, and of the root that halves the relative error of Adam's v.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any

import numpy as np

from conformance.cases import Tensor, fixed, tensor
from conformance.exact import ONE, ZERO, Exact, Real, Reject, divide, each, exact, full, real, sqrt
from conformance.formats import FLOATS, round_exact
from conformance.operation import Dial, Flag, Param, Value

Settings = dict[str, Any]
Slots = dict[str, Any]

ULPS = 2
TOLERANCE_WHY = (
    "Each number carries a first-order bound on its rounding error, in roundoffs u of its format: an operation"
    " passes on the errors of its operands (a·b: |a|·e_b + |b|·e_a; a/b: (e_a + |a/b|·e_b)/|b|; √v: e/(2√v))"
    " and adds |result| for its own rounding; a hyper-parameter adds one for being rounded to the format;"
    " β·m + (1-β)·g in any of its forms adds 4·(|m| + (1-β)·|g|). The bound of w_t grows with t; it is the"
    " scale of the comparison, and an ULP of it is at least u times it. 2 ULP, because another order of the"
    " same operations at most doubles their number. 1 - β^t is computed in float64, so that it adds"
    " 2(t-1)·β^t roundoffs of float64, unless `hyperparameters` says that it is computed in the format."
)

INPUTS = {
    "params": "list of float tensors of any shapes",
    "grads": "a list of steps, each a list with one gradient per parameter; null is an absent one",
}
OUTPUTS = {"params": "a list of steps, each the list of parameters after that step"}

LR = Param("lr", "learning rate, a number or a list with one per step", required=True)
WEIGHT_DECAY = Param("weight_decay", "weight decay (what it does is the dial decay)", default=0.0)

DECAYS = {
    "coupled": "g + wd·w takes the place of g",
    "decoupled_by_lr": "w·(1 - lr·wd) first",
    "decoupled": "w·(1 - wd) first",
}


def decay_dial(default: str) -> Dial:
    """Return the dial of the weight decay."""
    doc = "; ".join(f"{name}: {what}" for name, what in DECAYS.items())
    return Dial("decay", default, doc, tuple(name for name in DECAYS if name != default))


@dataclass(frozen=True)
class Tracked:
    """Exact numbers, and a bound on the error of computing them, in roundoffs of their format."""

    exact: Exact
    error: Exact

    def __post_init__(self) -> None:
        """Keep 0-d arrays, of which NumPy's operators make bare numbers."""
        object.__setattr__(self, "exact", np.asarray(self.exact, dtype=object))
        object.__setattr__(self, "error", np.asarray(self.error, dtype=object))

    def __add__(self, other: Tracked) -> Tracked:
        """Add: the errors add up, and the sum is rounded."""
        return _rounded(self.exact + other.exact, self.error + other.error)

    def __sub__(self, other: Tracked) -> Tracked:
        """Subtract: as a sum, so that cancellation leaves the errors of both."""
        return _rounded(self.exact - other.exact, self.error + other.error)

    def __mul__(self, other: Tracked) -> Tracked:
        """Multiply: relative errors add up."""
        passed = abs(self.exact) * other.error + abs(other.exact) * self.error
        return _rounded(self.exact * other.exact, passed)

    def __truediv__(self, other: Tracked) -> Tracked:
        """Divide as IEEE 754 does."""
        quotient = divide(self.exact, other.exact)
        return _rounded(
            quotient, divide(self.error + abs(quotient) * other.error, abs(other.exact))
        )


def _rounded(value: Exact, passed: Exact) -> Tracked:
    return Tracked(value, passed + abs(value))


def constant(value: Real) -> Tracked:
    """Return a hyper-parameter, rounded to the format of the parameters once."""
    return _rounded(full((1,), value), full((1,)))


def root(x: Tracked) -> Tracked:
    """Return the square root: it halves the relative error."""
    roots = sqrt(x.exact)
    return _rounded(roots, each(lambda e, r: e / (2 * r) if r else ZERO, x.error, roots))


def larger(a: Tracked, b: Tracked) -> Tracked:
    """Return the maximum, NaN if either is NaN; nothing is rounded."""

    def largest(x: Real, y: Real) -> Real:
        return x if x != x or x > y else y

    return Tracked(each(largest, a.exact, b.exact), each(largest, a.error, b.error))


def average(beta: float, old: Tracked, new: Tracked) -> Tracked:
    """Return β·old + (1-β)·new, also if it is computed as old + (1-β)·(new - old)."""
    b, a = real(beta), ONE - real(beta)
    passed = b * old.error + a * new.error
    terms = abs(old.exact) + a * abs(new.exact)
    return Tracked(b * old.exact + a * new.exact, passed + 4 * terms)


def through(value: Any, settings: Settings, dtype: str) -> Real:
    """Return a hyper-parameter as it is used: the dial may send it through a narrower format."""
    value = real(float(value))
    if settings["hyperparameters"] == "exact":
        return value
    # A step of 16-bit parameters is computed in float32.
    narrow = (
        "float64" if settings["hyperparameters"] != "float32" and dtype == "float64" else "float32"
    )
    return real(round_exact(value, narrow))


Rule = Callable[[Tracked, Slots, Settings], tuple[Tracked, Slots]]
"""``rule(g, slots, settings)`` returns the step that is subtracted, and the new slots. The settings
hold this step's ``lr`` (exact), the parameter's own step count ``t`` from 1, and its ``dtype``."""
Move = Callable[[Tracked, Tracked, Slots, Settings, Rule], tuple[Tracked, Slots]]


def move(
    w: Tracked, g: Tracked, slots: Slots, settings: Settings, rule: Rule
) -> tuple[Tracked, Slots]:
    """Decay and take one step."""
    if settings["weight_decay"] and settings["decay"] == "coupled":
        g = g + constant(through(settings["weight_decay"], settings, settings["dtype"])) * w
    elif settings["weight_decay"]:
        w = decayed(w, settings)
    step, slots = rule(g, slots, settings)
    return w - step, slots


def decayed(w: Tracked, settings: Settings) -> Tracked:
    """Return w·(1 - lr·wd) or w·(1 - wd), also if it is computed as w - lr·wd·w."""
    rate = through(settings["weight_decay"], settings, settings["dtype"])
    if settings["decay"] == "decoupled_by_lr":
        rate = rate * settings["lr"]
    return w * Tracked(full((1,), ONE - rate), full((1,), ONE + 2 * rate))


def trajectory(
    inputs: dict[str, Any], settings: Settings, rule: Rule, move: Move = move
) -> dict[str, Any]:
    """Return the parameters after each step."""
    params = inputs["params"]
    rates = settings["lr"] if isinstance(settings["lr"], list) else [settings["lr"]]
    rates = [float(rate) for rate in rates]
    rates = rates * len(inputs["grads"]) if len(rates) == 1 else rates
    weights = [Tracked(exact(p).ravel(), full((p.size,))) for p in params]
    states: list[Slots] = [{"t": 0} for _ in params]
    moved: list[Any] = list(params)
    steps = []
    check_gradients(inputs)
    for rate, grads in zip(rates, inputs["grads"], strict=True):
        for i, grad in enumerate(grads):
            if grad is None:
                states[i]["t"] += settings.get("step_count") == "optimizer"
                continue
            dtype = params[i].dtype.name
            now = settings | {"dtype": dtype, "lr": through(rate, settings, dtype)}
            now["t"] = states[i]["t"] = states[i]["t"] + 1
            g = Tracked(exact(grad).ravel(), full((grad.size,)))
            weights[i], slots = move(weights[i], g, states[i], now, rule)
            states[i] = {"t": now["t"], **slots}
            moved[i] = _value(weights[i], params[i])
        steps.append(list(moved))
    return {"params": steps}


def check_gradients(inputs: dict[str, Any]) -> None:
    """Refuse gradients that are not shaped as their parameters, and what is not made of real floats."""
    for step in ([*inputs["params"]], *inputs["grads"]):
        for param, given in zip(inputs["params"], step, strict=True):
            if given is None:
                continue
            if given.shape != param.shape:
                raise Reject(f"a gradient must be shaped {param.shape}, got {given.shape}")
            if given.dtype.name not in FLOATS:
                raise Reject(f"parameters and gradients must be real floats, got {given.dtype}")


def bad_gradients(add: Callable[..., None], label: str) -> None:
    """Add what every optimiser refuses: gradients of another shape, and integers."""
    w, g = tensor([1, -2, 0.5], [3, 0.25, -1]), tensor([0.5, 0.25, -1], [2, -0.5, 1])
    whole = array([[1, -2, 4], [3, 2, -1]])
    for name, params, grads in (
        ("gradient-of-one-number", w, tensor(0.5)),
        ("gradient-of-one-row", w, tensor([0.5, 0.25, -1])),
        ("gradient-transposed", w, g.T),
        ("integer-gradients", w, fixed(whole, "int64")),
        ("integer-parameters", fixed(whole, "int32"), g),
    ):
        add(name, "bad-gradient", label, single(params, g, grads), ("float32",))


BAD_GRADIENT = Flag(
    "EDGE_CASE", "A gradient shaped unlike its parameter, which broadcasting would hide; integers."
)


def _value(w: Tracked, like: Tensor) -> Value:
    scale = each(lambda e: e if abs(e) < inf else ZERO, w.error)
    return Value(w.exact.reshape(like.shape), like.dtype.name, scale.reshape(like.shape))


def nothing(like: Tracked) -> Tracked:
    """Return zeros: the state before the first gradient."""
    return Tracked(full(like.exact.shape), full(like.exact.shape))


def sgd(g: Tracked, slots: Slots, s: Settings) -> tuple[Tracked, Slots]:
    """v = μ·v + (1-d)·g; the step is lr·v, with Nesterov lr·(g + μ·v)."""
    lr = constant(s["lr"])
    if not float(s["momentum"]):
        return lr * g, {}
    mu = constant(through(s["momentum"], s, s["dtype"]))
    inside = s["momentum_form"] == "lr_inside"
    taken = lr * g if inside else g
    first = "v" not in slots
    damped = constant(ONE - real(s["dampening"])) * taken
    added = taken if first and s["first_buffer"] == "gradient" else damped
    v = added if first else mu * slots["v"] + added
    step = taken + mu * v if s["nesterov"] else v
    return (step if inside else lr * step), {"v": v}


def adam(g: Tracked, slots: Slots, s: Settings) -> tuple[Tracked, Slots]:
    """m and v are averages of g and g²; the step is lr·M/(√V + eps) of their corrected values."""
    m = average(s["beta1"], slots.get("m", nothing(g)), g)
    v = average(s["beta2"], slots.get("v", nothing(g)), g * g)
    kept = {"m": m, "v": v}
    if s["amsgrad"]:
        v = kept["largest"] = larger(slots.get("largest", nothing(g)), v)
    lr, eps = constant(s["lr"]), constant(real(float(s["eps"])))
    c1, c2 = correction(s["beta1"], s), correction(s["beta2"], s)
    if s["eps_at"] == "before_bias_correction":
        return lr * root(c2) / c1 * m / (root(v) + eps), kept
    if s["eps_at"] == "inside_root":
        return lr * (m / c1) / root(v / c2 + eps), kept
    return lr * (m / c1) / (root(v) / root(c2) + eps), kept


def rmsprop(g: Tracked, slots: Slots, s: Settings) -> tuple[Tracked, Slots]:
    """v averages g² (centered: less the squared average of g); the step is lr·g/(√v + eps)."""
    v = average(s["alpha"], slots.get("v", nothing(g)), g * g)
    kept = {"v": v}
    if s["centered"]:
        a = kept["a"] = average(s["alpha"], slots.get("a", nothing(g)), g)
        v = v - a * a
    lr = constant(s["lr"])
    inside = s.get("momentum_form") == "lr_inside"
    scaled = (lr * g if inside else g) / divisor(v, s)
    if not float(s["momentum"]):
        return (scaled if inside else lr * scaled), kept
    b = kept["b"] = constant(real(float(s["momentum"]))) * slots.get("b", nothing(g)) + scaled
    return (b if inside else lr * b), kept


def adagrad(g: Tracked, slots: Slots, s: Settings) -> tuple[Tracked, Slots]:
    """G adds up g²; the step is lr/(1 + t·lr_decay)·g/(√G + eps)."""
    start = constant(through(s["initial_accumulator"], s, s["dtype"]))
    total = slots.get("sum", start) + g * g
    slowed = constant(ONE + (s["t"] - 1) * real(float(s["lr_decay"])))
    return constant(s["lr"]) / slowed * g / divisor(total, s), {"sum": total}


def divisor(v: Tracked, s: Settings) -> Tracked:
    """Return √v + eps, or √(v + eps)."""
    return root(v + eps_of(s)) if s["eps_at"] == "inside_root" else root(v) + eps_of(s)


def eps_of(s: Settings) -> Tracked:
    """Return eps, rounded to the format once."""
    return constant(real(float(s["eps"])))


def correction(beta: float, s: Settings) -> Tracked:
    """Return 1 - β^t: computed in float64, or in the format, where its error is u/(1 - β^t)."""
    if not s["bias_correction"]:
        return Tracked(full((1,), ONE), full((1,)))
    fmt = FLOATS[s["dtype"]]
    power = through(beta, s, s["dtype"]) ** s["t"]
    precision = 53 if s["hyperparameters"] == "exact" else fmt.precision
    passed = 2 * (s["t"] - 1) * power * real(2.0 ** (fmt.precision - precision))
    return _rounded(full((1,), ONE - power), full((1,), passed))


def require(settings: Settings, name: str, low: float = 0.0, below: float = inf) -> None:
    """Refuse a parameter outside [low, below), NaN included."""
    values = settings[name] if isinstance(settings[name], list) else [settings[name]]
    for value in map(float, values):
        if not (low <= value < below and isfinite(value)):
            bound = f"in [{low:g}, {below:g})" if below < inf else f"finite and >= {low:g}"
            raise Reject(f"{name} must be {bound if low > -inf else 'finite'}, got {value}")


def require_betas(settings: Settings) -> None:
    """Refuse what Adam has no meaning for."""
    for name in ("lr", "eps", "weight_decay"):
        require(settings, name)
    for name in ("beta1", "beta2"):
        require(settings, name, below=1.0)


def tolerance(inputs: dict[str, Any], settings: Settings) -> dict[str, int]:
    """ULP allowed of the bound that each number carries (see TOLERANCE_WHY)."""
    return {"params": ULPS}


def observed() -> dict[str, Any]:
    """Return five steps that thirteen libraries were run on; the fourth element sees eps."""
    return {
        "params": [tensor(1, -2, 0.5, 0.25, 0.75)],
        "grads": [
            [tensor(0.1, -0.2, 0.3, 1e-8, 0)],
            [tensor(0.5, 0, -0.4, 1e-8, 0)],
            [tensor(-0.3, 0.25, 0, 1e-8, 0)],
            [tensor(1, -1.5, 0.05, 1e-8, 0)],
            [tensor(0.2, 0.1, -1e-3, 1e-8, 0)],
        ],
    }


def two_tensors() -> dict[str, Any]:
    """Return three steps of two tensors of different shapes, whose gradients change sign."""
    return {
        "params": [tensor([1.5, -0.75, 2], [0.125, -3, 0.5]), tensor(-0.25, 4)],
        "grads": [
            [tensor([0.5, -1, 0.25], [2, 0.75, -0.125]), tensor(-3, 0.0625)],
            [tensor([-0.25, 1.5, 0.75], [-1, 0.5, 0.3]), tensor(0.1, -2)],
            [tensor([1.25, 0.2, -0.6], [0.4, -1.75, 0.9]), tensor(0.7, 0.35)],
        ],
    }


def single(params: Any, *grads: Any) -> dict[str, Any]:
    """Return one parameter tensor and its gradients step by step."""
    return {"params": [params], "grads": [[g] for g in grads]}


def array(values: Any) -> Any:
    """Return a float64 array."""
    return np.array(values, dtype=np.float64)
