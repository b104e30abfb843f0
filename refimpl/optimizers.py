"""Optimisers as pairs of pure functions: one starts the state, one takes a step.

    optimizer = adamw(lr=1e-3, weight_decay=0.1)
    state = optimizer.init(params)
    params, state = optimizer.update(params, grads, state)            # or lr=... for this step

Shared conventions. ``params`` and ``grads`` are lists of equal length and shapes, real floating
point. Where the gradient is absent (``None``) the parameter and its state are left alone, its own
step count included. New parameters have the dtype of the old ones; 16-bit ones are computed in
float32 and rounded once. The state is a dict of lists, one entry per parameter: ``step`` holds
Python ints, the rest arrays in float64 for a float64 parameter, else float32. Nothing that the
caller owns is written to.

Every optimiser is a rule ``(gradient, state of the parameter, lr) -> (step, state)``; the parameter
moves by minus that step, and weight decay is one of three settings of the dial ``decay`` around it:

- "coupled": the rule sees ``g + weight_decay * w`` (an L2 penalty);
- "decoupled_by_lr": ``w * (1 - lr * weight_decay)`` first, then the step (Loshchilov & Hutter 2019,
  as PyTorch has it);
- "decoupled": ``w * (1 - weight_decay)`` first, then the step.

Scalars (the learning rate and the bias corrections) are computed as Python floats, in float64. Some
libraries take them through a narrower format first, which the dial ``hyperparameters`` tells:
"float32" sends lr, momentum, weight_decay and the betas of the bias corrections through
float32, "input_dtype" through the format of the step, where only the bias corrections can show it
(``1 - 0.999**t`` cancels). ``1 - beta`` in the averages and eps stay as they are.
"""

from __future__ import annotations

import math

from . import checks
from .arrays import Array, namespace, through_float32
from .pruning import apply_mask
from .updates import Arrays, Optimizer, Slots, State, optimizer

MOMENTUM_FORM = ("classical", "lr_inside")
HYPERPARAMETERS = ("exact", "input_dtype", "float32")


def sgd(
    lr: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    *,
    decay: str = "coupled",
    momentum_form: str = "classical",
    first_buffer: str = "gradient",
    hyperparameters: str = "exact",
) -> Optimizer:
    """Return stochastic gradient descent with (Nesterov) momentum.

    v = momentum * v + (1 - dampening) * g;  w = w - lr * v, with Nesterov
    w = w - lr * (g + momentum * v).

    Dials: ``momentum_form`` "classical" as above, or "lr_inside":
    v = momentum * v - lr * (1 - dampening) * g;  w = w + v, with Nesterov w + momentum * v - lr * g
    (the two agree while lr is constant); ``first_buffer`` "gradient": at a parameter's first
    gradient v = g (-lr * g if inside), or "damped": v = (1 - dampening) * g; ``decay`` and
    ``hyperparameters`` ("exact" or "float32"): see the module docstring.

    Raises ValueError for lr, momentum or weight_decay negative or not finite, dampening not finite,
    and Nesterov without momentum or with dampening.
    Source: Polyak 1964; Sutskever et al. 2013, "On the importance of initialization and momentum in
    deep learning".
    """
    momentum = checks.number("momentum", momentum, low=0.0)
    dampening = checks.number("dampening", dampening)
    checks.choice("momentum_form", momentum_form, MOMENTUM_FORM)
    checks.choice("first_buffer", first_buffer, ("gradient", "damped"))
    checks.choice("hyperparameters", hyperparameters, ("exact", "float32"))
    if nesterov and (momentum == 0.0 or dampening != 0.0):
        raise ValueError(
            "nesterov needs momentum above 0 and dampening 0, "
            f"got momentum {momentum} and dampening {dampening}"
        )

    used = through_float32(momentum) if hyperparameters == "float32" else momentum

    def rule(g: Array, slots: Slots, lr: float) -> tuple[Array, Slots]:
        if not used:
            return lr * g, {}
        # with lr_inside the buffer holds steps, minus the velocity of the literature
        inside = momentum_form == "lr_inside"
        taken = lr * g if inside else g
        undamped = dampening == 0 or (slots["step"] == 1 and first_buffer == "gradient")
        added = taken if undamped else (1.0 - dampening) * taken
        v = used * slots["velocity"] + added
        step = taken + used * v if nesterov else v
        return (step if inside else lr * step), {"velocity": v}

    slots = {"velocity": 0.0} if used else {}
    return optimizer(rule, slots, lr, weight_decay, decay, hyperparameters)


def adam(
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    amsgrad: bool = False,
    *,
    eps_at: str = "outside_root",
    bias_correction: bool = True,
    decay: str = "coupled",
    hyperparameters: str = "exact",
    step_count: str = "parameter",
) -> Optimizer:
    """Return Adam: m = beta1 * m + (1 - beta1) * g;  v = beta2 * v + (1 - beta2) * g**2.

    With M = m / (1 - beta1**t) and V = v / (1 - beta2**t), t the parameter's own step count from 1,
    w = w - lr * M / (sqrt(V) + eps). ``amsgrad`` puts the largest v so far in place of v, before
    the bias correction (Reddi et al. 2018). With eps = 0 a gradient that was always zero gives NaN.

    Dials: ``eps_at`` "outside_root" as above, "inside_root": lr * M / sqrt(V + eps), or
    "before_bias_correction": lr * sqrt(1 - beta2**t) / (1 - beta1**t) * m / (sqrt(v) + eps), the
    epsilon-hat of Kingma & Ba; ``bias_correction`` false has M = m and V = v; ``step_count``
    "parameter" counts a parameter's own gradients, "optimizer" all steps, so that t goes on where a
    gradient is absent; ``decay`` and ``hyperparameters``: see the module docstring.

    Raises ValueError for a beta outside [0, 1), and for lr, eps or weight_decay negative or not
    finite. Source: Kingma & Ba 2015, "Adam: A Method for Stochastic Optimization".
    """
    beta1 = checks.number("beta1", beta1, low=0.0, below=1.0)
    beta2 = checks.number("beta2", beta2, low=0.0, below=1.0)
    eps = checks.number("eps", eps, low=0.0)
    checks.choice("eps_at", eps_at, ("outside_root", "inside_root", "before_bias_correction"))
    checks.choice("hyperparameters", hyperparameters, HYPERPARAMETERS)
    checks.choice("step_count", step_count, ("parameter", "optimizer"))

    def correction(beta: float, t: int, narrow: bool) -> float:
        beta = through_float32(beta) if narrow else beta
        return 1.0 - beta**t if bias_correction else 1.0

    def rule(g: Array, slots: Slots, lr: float) -> tuple[Array, Slots]:
        xp = namespace(g)
        narrow = hyperparameters == "float32" or (
            hyperparameters == "input_dtype" and g.dtype == xp.float32
        )
        correction1 = correction(beta1, slots["step"], narrow)
        correction2 = correction(beta2, slots["step"], narrow)
        m = beta1 * slots["first_moment"] + (1.0 - beta1) * g
        v = beta2 * slots["second_moment"] + (1.0 - beta2) * (g * g)
        moments = {"first_moment": m, "second_moment": v}
        if amsgrad:
            v = xp.maximum(slots["largest_second_moment"], v)
            moments["largest_second_moment"] = v
        if eps_at == "before_bias_correction":
            rate = lr * math.sqrt(correction2) / correction1
            return rate * m / (xp.sqrt(v) + eps), moments
        divisor = _root(v / correction2, eps, eps_at)
        return lr * (m / correction1) / divisor, moments

    names = ["first_moment", "second_moment"] + ["largest_second_moment"] * amsgrad
    return optimizer(
        *(rule, dict.fromkeys(names, 0.0), lr, weight_decay, decay, hyperparameters),
        count_absent=step_count == "optimizer",
    )


def adamw(
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    amsgrad: bool = False,
    *,
    eps_at: str = "outside_root",
    bias_correction: bool = True,
    decay: str = "decoupled_by_lr",
    hyperparameters: str = "exact",
    step_count: str = "parameter",
) -> Optimizer:
    """Return :func:`adam` with decoupled weight decay: w = w * (1 - lr * weight_decay) first.

    Parameters, dials and refusals are those of :func:`adam`; only the default of ``decay`` differs.
    Source: Loshchilov & Hutter 2019, "Decoupled Weight Decay Regularization".
    """
    return adam(
        *(lr, beta1, beta2, eps, weight_decay, amsgrad),
        eps_at=eps_at,
        bias_correction=bias_correction,
        decay=decay,
        hyperparameters=hyperparameters,
        step_count=step_count,
    )


def rmsprop(
    lr: float,
    alpha: float = 0.99,
    eps: float = 1e-8,
    momentum: float = 0.0,
    centered: bool = False,
    weight_decay: float = 0.0,
    *,
    eps_at: str = "outside_root",
    momentum_form: str = "classical",
    decay: str = "coupled",
    hyperparameters: str = "exact",
) -> Optimizer:
    """Return RMSprop: v = alpha * v + (1 - alpha) * g**2;  w = w - lr * g / (sqrt(v) + eps).

    ``centered`` puts the variance v - a**2 in place of v, a = alpha * a + (1 - alpha) * g being the
    mean; what rounding makes negative counts as 0. With ``momentum`` b = momentum * b + g / (...)
    and w = w - lr * b.

    Dials: ``eps_at`` "outside_root", or "inside_root": sqrt(v + eps); ``momentum_form``
    "classical", or "lr_inside": b = momentum * b + lr * g / (...); w = w - b; ``decay`` and
    ``hyperparameters`` ("exact", or "float32" for lr and weight_decay): see the module docstring.

    Raises ValueError for alpha outside [0, 1), and for lr, eps, momentum or weight_decay negative
    or not finite. Source: Tieleman & Hinton 2012 (lecture 6.5); Graves 2013 (centred, with
    momentum).
    """
    alpha = checks.number("alpha", alpha, low=0.0, below=1.0)
    eps = checks.number("eps", eps, low=0.0)
    momentum = checks.number("momentum", momentum, low=0.0)
    checks.choice("eps_at", eps_at, ("outside_root", "inside_root"))
    checks.choice("momentum_form", momentum_form, MOMENTUM_FORM)
    checks.choice("hyperparameters", hyperparameters, ("exact", "float32"))

    def rule(g: Array, slots: Slots, lr: float) -> tuple[Array, Slots]:
        xp = namespace(g)
        v = alpha * slots["second_moment"] + (1.0 - alpha) * (g * g)
        moments = {"second_moment": v}
        if centered:
            a = alpha * slots["first_moment"] + (1.0 - alpha) * g
            moments["first_moment"] = a
            v = xp.maximum(v - a * a, xp.zeros_like(v))
        scaled = g / _root(v, eps, eps_at)
        if not momentum:
            return lr * scaled, moments
        inside = momentum_form == "lr_inside"
        b = momentum * slots["velocity"] + (lr * scaled if inside else scaled)
        return (b if inside else lr * b), {**moments, "velocity": b}

    names = ["second_moment"] + ["first_moment"] * centered + ["velocity"] * (momentum > 0.0)
    return optimizer(rule, dict.fromkeys(names, 0.0), lr, weight_decay, decay, hyperparameters)


def adagrad(
    lr: float,
    lr_decay: float = 0.0,
    eps: float = 1e-10,
    initial_accumulator: float = 0.0,
    weight_decay: float = 0.0,
    *,
    eps_at: str = "outside_root",
    decay: str = "coupled",
    hyperparameters: str = "exact",
) -> Optimizer:
    """Return Adagrad: G = G + g**2;  w = w - lr / (1 + t * lr_decay) * g / (sqrt(G) + eps).

    G starts at ``initial_accumulator``; t is the parameter's own step count from 0. Decoupled decay
    uses lr before ``lr_decay``.

    Dials: ``eps_at`` "outside_root", or "inside_root": sqrt(G + eps); ``decay`` and
    ``hyperparameters`` ("exact", or "float32" for lr, weight_decay and ``initial_accumulator``):
    see the module docstring.

    Raises ValueError for lr, lr_decay, eps, initial_accumulator or weight_decay negative or not
    finite. Source: Duchi, Hazan & Singer 2011, "Adaptive Subgradient Methods for Online
    Learning and Stochastic Optimization".
    """
    lr_decay = checks.number("lr_decay", lr_decay, low=0.0)
    eps = checks.number("eps", eps, low=0.0)
    initial_accumulator = checks.number("initial_accumulator", initial_accumulator, low=0.0)
    checks.choice("eps_at", eps_at, ("outside_root", "inside_root"))
    checks.choice("hyperparameters", hyperparameters, ("exact", "float32"))
    start = initial_accumulator
    start = through_float32(start) if hyperparameters == "float32" else start

    def rule(g: Array, slots: Slots, lr: float) -> tuple[Array, Slots]:
        total = slots["sum_of_squares"] + g * g
        rate = lr / (1.0 + (slots["step"] - 1) * lr_decay)
        return rate * g / _root(total, eps, eps_at), {"sum_of_squares": total}

    return optimizer(rule, {"sum_of_squares": start}, lr, weight_decay, decay, hyperparameters)


def mask_state(state: State, masks: Arrays) -> State:
    """Return the state with +0.0 at masked weights, so that momentum cannot revive them.

    ``masks`` are boolean, True where a weight is kept, one per parameter; ``None`` leaves that
    parameter's state alone. Step counts stay. Raises ValueError where lengths or shapes differ.
    """
    masked: State = {"step": list(state["step"])}
    checks.same_length("masks", masks, "the state", state["step"])
    if all(mask is None for mask in masks):
        return {name: list(values) for name, values in state.items()}
    for name, arrays in state.items():
        if name != "step":
            masked[name] = [
                array if mask is None else apply_mask(array, mask)
                for array, mask in zip(arrays, masks, strict=True)
            ]
    return masked


def _root(v: Array, eps: float, eps_at: str) -> Array:
    xp = namespace(v)
    return xp.sqrt(v + eps) if eps_at == "inside_root" else xp.sqrt(v) + eps
