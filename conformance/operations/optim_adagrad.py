"""``optim.adagrad``: the gradient divided by the root of the sum of all its squares so far."""

from __future__ import annotations

from typing import Any

from conformance.cases import WIDE, Cases, tensor
from conformance.exact import magnitude
from conformance.operation import Dial, Flag, Mistake, Operation, Param
from conformance.operations import _optimizer_cases
from conformance.oracle import optimizers
from conformance.oracle.optimizer_mistakes import Wrong
from conformance.oracle.optimizers import Settings, Slots, Tracked, constant, root, single


def oracle(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """G = G + g²;  w = w - lr/(1 + t·lr_decay)·g/(√G + eps), t from 0."""
    check(settings)
    return optimizers.trajectory(inputs, settings, optimizers.adagrad)


def check(settings: Settings) -> None:
    """Refuse what has no meaning."""
    for name in ("lr", "lr_decay", "eps", "initial_accumulator", "weight_decay"):
        optimizers.require(settings, name)


def root_forgotten(g: Tracked, slots: Slots, s: Settings) -> tuple[Tracked, Slots]:
    """The gradient is divided by G."""
    _, kept = optimizers.adagrad(g, slots, s)
    return constant(s["lr"]) * g / (kept["sum"] + optimizers.eps_of(s)), kept


def of_magnitudes(g: Tracked, slots: Slots, s: Settings) -> tuple[Tracked, Slots]:
    """G adds up |g|, and no root is taken."""
    size = slots.get("size", optimizers.nothing(g)) + Tracked(magnitude(g.exact), g.error)
    return constant(s["lr"]) * g / (size + optimizers.eps_of(s)), {"size": size}


def sum_of_past(g: Tracked, slots: Slots, s: Settings) -> tuple[Tracked, Slots]:
    """G is used before the new gradient joins it."""
    _, kept = optimizers.adagrad(g, slots, s)
    past = slots["sum"] if "sum" in slots else kept["sum"]
    return constant(s["lr"]) * g / (root(past) + optimizers.eps_of(s)), kept


def mean_of_squares(g: Tracked, slots: Slots, s: Settings) -> tuple[Tracked, Slots]:
    """G is divided by the number of steps, so that steps never shrink."""
    _, kept = optimizers.adagrad(g, slots, s)
    mean = kept["sum"] / constant(g.exact[:1].sum() * 0 + s["t"] if g.exact.size else s["lr"])
    return constant(s["lr"]) * g / (root(mean) + optimizers.eps_of(s)), kept


def fading(g: Tracked, slots: Slots, s: Settings) -> tuple[Tracked, Slots]:
    """The past fades, as in RMSprop."""
    usual = {"alpha": 0.99, "momentum": 0.0, "centered": False}
    return optimizers.rmsprop(g, slots, s | usual)


def decay_counts_from_one(g: Tracked, slots: Slots, s: Settings) -> tuple[Tracked, Slots]:
    """lr_decay acts at the first step already."""
    return optimizers.adagrad(g, slots, s | {"t": s["t"] + 1})


WRONG = Wrong(check, optimizers.adagrad)
MISTAKES = (
    Mistake("eps ignored", "eps is 0", WRONG.settings(eps=0.0)),
    Mistake("initial accumulator ignored", "G starts at 0", WRONG.settings(initial_accumulator=0.0)),
    Mistake("lr_decay ignored", "the option does nothing", WRONG.settings(lr_decay=0.0),
            ("kozistr/pytorch_optimizer#528",)),
    Mistake("lr_decay from the first step", "t counts from 1", WRONG.follow(decay_counts_from_one)),
    Mistake("root forgotten", "the gradient is divided by G", WRONG.follow(root_forgotten)),
    Mistake("sum of magnitudes", "G adds up |g|", WRONG.follow(of_magnitudes)),
    Mistake("sum of the past", "G is used before it is updated", WRONG.follow(sum_of_past)),
    Mistake("mean of squares", "G is divided by the number of steps", WRONG.follow(mean_of_squares)),
    Mistake("the past fades", "G is a decaying average, as in RMSprop", WRONG.follow(fading)),
    *WRONG.everywhere(),
)  # fmt: skip

CONSTRAINTS = {
    "C1": "G ← G + g², from initial_accumulator;  w ← w - lr·g/(√G + eps).",
    **_optimizer_cases.CONSTRAINTS,
    "C11": "lr_decay: lr/(1 + t·lr_decay) takes the place of lr, t being the parameter's own steps from 0.",
    "C12": "Decoupled decay (a dial) uses lr without lr_decay.",
}

FLAGS = _optimizer_cases.FLAGS | {
    "accumulator": Flag("DIALECT", "Where G starts: 0 in PyTorch, 0.1 in Keras and Optax."),
    "lr-decay": Flag("BASIC", "The rate falls with the steps of each parameter."),
}  # fmt: skip


def cases(c: Cases) -> None:
    """Write the cases."""
    # fmt: off
    _optimizer_cases.common(c, 63, ("lr_decay", "initial_accumulator"))

    def add(name: str, flags: str, labels: str, inputs: Any, dtypes: Any = WIDE, **p: Any) -> None:
        c.add(name, flags, labels, inputs, {"lr": 0.1, **p}, dtypes)

    five, two = optimizers.observed(), optimizers.two_tensors()
    add("observed-accumulator", "observed accumulator", "C1", five, initial_accumulator=0.1, eps=1e-7)
    add("observed-lr-decay", "observed lr-decay", "C11", five, lr_decay=0.5, eps=0.1)
    add("accumulator", "accumulator", "C1", two, initial_accumulator=0.75)
    add("accumulator-no-eps", "accumulator eps-zero zero-gradient", "C1", single(tensor(1, -2, 3),
        tensor(0, 1, 0), tensor(0, 0, 2)), initial_accumulator=0.1, eps=0.0)
    add("accumulator-first-step", "accumulator first-step", "C1", single(tensor(1, -2), tensor(0.01, 3)),
        initial_accumulator=4.0)
    add("accumulator-absent", "accumulator absent", "C1 C4", {"params": [tensor(1, -2), tensor(0.5)],
        "grads": [[tensor(3, 0.5), None], [None, tensor(2)], [tensor(-1, 2), tensor(-0.25)]]},
        initial_accumulator=0.5)
    add("lr-decay", "lr-decay", "C11", two, lr_decay=0.25)
    add("lr-decay-large", "lr-decay", "C11", single(tensor(1, -2), tensor(3, 0.5), tensor(-1, 2),
        tensor(0.5, 0.25)), lr_decay=10.0)
    add("lr-decay-rates", "lr-decay changing-rate", "C8 C11", two, lr_decay=0.5, lr=[0.5, 0.125, 0.25])
    add("lr-decay-absent", "lr-decay absent", "C4 C11", {"params": [tensor(1, -2), tensor(0.5)],
        "grads": [[tensor(3, 0.5), None], [None, tensor(2)], [tensor(-1, 2), tensor(-0.25)]]}, lr_decay=1.0)
    add("lr-decay-and-decay", "lr-decay decay accumulator", "C3 C11 C12", two, lr_decay=0.5,
        weight_decay=0.25, initial_accumulator=0.25)
    add("lr-decay-zero-gradient", "lr-decay zero-gradient decay", "C3 C11 C12", single(tensor(1, -2),
        *[tensor(0, 0)] * 3), lr_decay=0.5, weight_decay=0.25, eps=0.5)
    add("steps-shrink", "state", "C1", single(tensor(0, 0), *[tensor(2, -0.5)] * 6), lr=1.0)
    # fmt: on


OPERATION = Operation(
    id="optim.adagrad",
    summary="Divide the gradient by the root of the sum of all its squares so far.",
    formula="g ← g + wd·w;  G ← G + g²;  w ← w - lr/(1 + t·lr_decay) · g/(√G + eps)",
    sources=(
        "J. Duchi, E. Hazan, Y. Singer: Adaptive subgradient methods for online learning and stochastic"
        " optimization. JMLR 2011",
    ),
    constraints=CONSTRAINTS,
    inputs=optimizers.INPUTS,
    outputs=optimizers.OUTPUTS,
    params=(
        optimizers.LR,
        Param("lr_decay", "how fast the rate falls with the steps, >= 0", default=0.0),
        Param("eps", "what is added to the root, in the units of the gradient", default=1e-10),
        Param("initial_accumulator", "where G starts, >= 0", default=0.0),
        optimizers.WEIGHT_DECAY,
    ),
    dials=(
        optimizers.decay_dial("coupled"),
        _optimizer_cases.EPS_AT,
        Dial("hyperparameters", "exact",
             "float32: lr, weight_decay and initial_accumulator pass through float32, whatever the"
             " parameters are",
             ("float32",)),
    ),
    oracle=oracle,
    tolerance=optimizers.tolerance,
    tolerance_why=optimizers.TOLERANCE_WHY,
    flags=FLAGS,
    cases=cases,
    mistakes=MISTAKES,
    dialects={
        "torch": {},
        "tensorflow": {
            "decay": "decoupled_by_lr",
            "eps_at": "inside_root",
            "hyperparameters": "float32",
            "subnormals": "flush",
            "in_place": "documented",
        },
    },
)  # fmt: skip
