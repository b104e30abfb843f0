"""``optim.rmsprop``: the gradient divided by the root of a decaying average of its square."""

from __future__ import annotations

from typing import Any

from conformance.cases import WIDE, Cases, Stream, tensor
from conformance.exact import magnitude
from conformance.operation import Dial, Flag, Mistake, Operation, Param
from conformance.operations import _optimizer_cases
from conformance.oracle import optimizers
from conformance.oracle.optimizer_mistakes import Wrong
from conformance.oracle.optimizers import Settings, Slots, Tracked, constant, single


def oracle(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """v = α·v + (1-α)·g²;  w = w - lr·g/(√v + eps), with momentum b = μ·b + g/(√v + eps), w - lr·b."""
    check(settings)
    return optimizers.trajectory(inputs, settings, optimizers.rmsprop)


def check(settings: Settings) -> None:
    """Refuse what has no meaning."""
    for name in ("lr", "eps", "momentum", "weight_decay"):
        optimizers.require(settings, name)
    optimizers.require(settings, "alpha", below=1.0)


def root_forgotten(g: Tracked, slots: Slots, s: Settings) -> tuple[Tracked, Slots]:
    """The gradient is divided by v."""
    _, kept = optimizers.rmsprop(g, slots, s | {"momentum": 0.0})
    return constant(s["lr"]) * g / (kept["v"] + optimizers.eps_of(s)), kept


def of_magnitudes(g: Tracked, slots: Slots, s: Settings) -> tuple[Tracked, Slots]:
    """The average is that of |g|, so that no root is taken."""
    old = slots.get("size", optimizers.nothing(g))
    size = optimizers.average(s["alpha"], old, Tracked(magnitude(g.exact), g.error))
    return constant(s["lr"]) * g / (size + optimizers.eps_of(s)), {"size": size}


def average_of_past(g: Tracked, slots: Slots, s: Settings) -> tuple[Tracked, Slots]:
    """v is used before the new gradient joins it."""
    _, kept = optimizers.rmsprop(g, slots, s | {"momentum": 0.0, "centered": False})
    past = slots["v"] if "v" in slots else kept["v"]
    return constant(s["lr"]) * g / (optimizers.root(past) + optimizers.eps_of(s)), kept


def bias_corrected(g: Tracked, slots: Slots, s: Settings) -> tuple[Tracked, Slots]:
    """v is divided by 1 - α^t, as Adam's is."""
    corrected = s | {"bias_correction": True}
    _, kept = optimizers.rmsprop(g, slots, s | {"momentum": 0.0, "centered": False})
    v = kept["v"] / optimizers.correction(s["alpha"], corrected)
    return constant(s["lr"]) * g / (optimizers.root(v) + optimizers.eps_of(s)), kept


def swapped(g: Tracked, slots: Slots, s: Settings) -> tuple[Tracked, Slots]:
    """α weighs the new square, not the past."""
    return optimizers.rmsprop(g, slots, s | {"alpha": 1 - s["alpha"]})


def averaged_momentum(g: Tracked, slots: Slots, s: Settings) -> tuple[Tracked, Slots]:
    """b = μ·b + (1-μ)·g/(√v + eps)."""
    step, kept = optimizers.rmsprop(g, slots, s | {"lr": s["lr"] * (1 - s["momentum"])})
    return step, kept


WRONG = Wrong(check, optimizers.rmsprop)
MISTAKES = (
    Mistake("alpha ignored", "it has its usual value", WRONG.settings(alpha=0.99)),
    Mistake("alpha swapped", "α weighs the new square", WRONG.follow(swapped)),
    Mistake("eps ignored", "eps is 0", WRONG.settings(eps=0.0)),
    Mistake("momentum ignored", "the option does nothing", WRONG.settings(momentum=0.0),
            ("kozistr/pytorch_optimizer#528",)),
    Mistake("averaged momentum", "b = μ·b + (1-μ)·g/(√v + eps)", WRONG.follow(averaged_momentum),
            ("ml-explore/mlx#87",)),
    Mistake("centered ignored", "the option does nothing", WRONG.settings(centered=False)),
    Mistake("root forgotten", "the gradient is divided by v", WRONG.follow(root_forgotten)),
    Mistake("average of magnitudes", "v averages |g|", WRONG.follow(of_magnitudes)),
    Mistake("average of the past", "v is used before it is updated", WRONG.follow(average_of_past)),
    Mistake("bias correction", "v is corrected for its start at 0, as Adam's is",
            WRONG.follow(bias_corrected)),
    *WRONG.everywhere(),
)  # fmt: skip

CONSTRAINTS = {
    "C1": "v ← α·v + (1-α)·g² from 0, without a bias correction;  w ← w - lr·g/(√v + eps).",
    **_optimizer_cases.CONSTRAINTS,
    "C11": "With momentum b ← μ·b + g/(√v + eps) from 0, and w ← w - lr·b with the lr of the step.",
    "C12": "centered: the variance v - a² takes the place of v, a being the average of g.",
    "C13": "A variance that rounding makes negative counts as 0: its root is not NaN.",
}

FLAGS = _optimizer_cases.FLAGS | {
    "alpha": Flag("BASIC", "Other α than the usual one, 0 included."),
    "momentum": Flag("KNOWN_BUG", "Momentum over several steps, also while the rate changes.",
                     ("pytorch/pytorch#1196", "kozistr/pytorch_optimizer#516")),
    "centered": Flag("BASIC", "The average gradient is taken off."),
    "no-variance": Flag("KNOWN_BUG", "Equal gradients: v - a² comes near 0, and rounding may make it negative.",
                        ("CanReader/FastNN#12",)),
}  # fmt: skip


def cases(c: Cases) -> None:
    """Write the cases."""
    # fmt: off
    _optimizer_cases.common(c, 61, ("alpha", "momentum"))

    def add(name: str, flags: str, labels: str, inputs: Any, dtypes: Any = WIDE, **p: Any) -> None:
        c.add(name, flags, labels, inputs, {"lr": 0.1, **p}, dtypes)

    five, two = optimizers.observed(), optimizers.two_tensors()
    drop = [0.1, 0.1, 0.01, 0.01, 0.01]
    add("observed-alpha", "observed alpha", "C1", five, alpha=0.9, eps=0.1)
    add("observed-centered", "observed centered", "C12", five, alpha=0.9, eps=0.1, centered=True)
    add("observed-momentum-drop", "observed momentum changing-rate", "C11", five, alpha=0.9, eps=0.1,
        momentum=0.9, lr=drop)
    add("alpha-zero", "alpha", "C1", two, alpha=0.0, eps=0.125)
    add("alpha-half", "alpha", "C1", two, alpha=0.5)
    add("alpha-three-nines", "alpha", "C1", two, alpha=0.999)
    add("momentum", "momentum", "C11", two, momentum=0.5, alpha=0.75)
    add("momentum-zero-gradient", "momentum zero-gradient", "C11", single(tensor(1, -2), tensor(3, 0.5),
        tensor(0, 0), tensor(0, 0)), momentum=0.9)
    add("momentum-one", "momentum", "C11", single(tensor(1, -2), tensor(3, 0.5), tensor(-1, 2),
        tensor(0.5, 0.25)), momentum=1.0, eps=0.25)
    add("momentum-decay", "momentum decay changing-rate", "C3 C11", two, momentum=0.9, weight_decay=0.1,
        lr=[1.0, 0.1, 0.01])
    add("momentum-absent", "momentum absent", "C4 C11", {"params": [tensor(1, -2), tensor(0.5)],
        "grads": [[tensor(3, 0.5), None], [None, tensor(2)], [tensor(-1, 2), tensor(-0.25)]]}, momentum=0.9)
    add("centered", "centered", "C12", two, centered=True)
    add("centered-alpha", "centered alpha", "C12", two, centered=True, alpha=0.75, eps=0.125)
    add("centered-momentum", "centered momentum changing-rate", "C11 C12", two, centered=True,
        momentum=0.75, alpha=0.9, lr=[0.5, 0.125, 0.25])
    add("centered-everything", "centered momentum decay alpha", "C3 C11 C12", two, centered=True,
        momentum=0.5, weight_decay=0.25, alpha=0.5, eps=0.25)
    add("centered-alternating", "centered", "C12", single(tensor(1, -2), *[s * tensor(1, -0.5) for s in
        (1, -1, 1, -1)]), centered=True, alpha=0.9)
    add("centered-nonfinite", "centered nonfinite", "C9 C12", single(tensor(1, 2, 3), tensor(1, -0.5, 2),
        tensor(float("inf"), 0.5, float("nan")), tensor(1, 2, 1)), centered=True)
    random = Stream(62)
    add("centered-long", "centered long", "C12", single(tensor(1, -2, 0.5), *[random.uniform(3) for _ in
        range(12)]), ("float32",), centered=True, alpha=0.9, eps=0.01)
    add("centered-equal-gradients", "no-variance centered", "C12", single(tensor(1, -2),
        *[tensor(0.7, -0.3)] * 5), centered=True, alpha=0.5, eps=0.5)
    for name, count, alpha, dtype in (("half", 30, 0.5, "float32"), ("tenth", 12, 0.1, "float32"),
                                      ("tenth", 20, 0.1, "float64")):
        add(f"centered-no-variance-{name}", "no-variance centered long", "C13", single(tensor(0, 0, 0),
            *[tensor(0.7, -0.3, 1.1)] * count), (dtype,), centered=True, alpha=alpha, eps=0.5, lr=0.001)
    once = single(tensor(1, -2), tensor(0.5, 0.25))
    add("alpha-one", "range alpha", "C6", once, alpha=1.0)
    add("alpha-above-one", "range alpha", "C6", once, ("float32",), alpha=1.5)
    # fmt: on


OPERATION = Operation(
    id="optim.rmsprop",
    summary="Divide the gradient by its usual size, with a memory that fades.",
    formula="g ← g + wd·w;  v ← α·v + (1-α)·g²;  w ← w - lr·g/(√v + eps);"
    "  momentum: b ← μ·b + g/(√v + eps), w ← w - lr·b;  centered: v - a² for v, a ← α·a + (1-α)·g",
    sources=(
        "T. Tieleman, G. Hinton: Lecture 6.5, RMSProp. Coursera 2012",
        "A. Graves: Generating sequences with recurrent neural networks. 2013 (centred, with momentum)",
    ),
    constraints=CONSTRAINTS,
    inputs=optimizers.INPUTS,
    outputs=optimizers.OUTPUTS,
    params=(
        optimizers.LR,
        Param("alpha", "weight of the past in the averages, in [0, 1)", default=0.99),
        Param("eps", "what is added to the root, in the units of the gradient", default=1e-8),
        Param("momentum", "μ >= 0; 0 is without", default=0.0),
        Param("centered", "divide by the standard deviation instead", default=False),
        optimizers.WEIGHT_DECAY,
    ),
    dials=(
        optimizers.decay_dial("coupled"),
        _optimizer_cases.EPS_AT,
        Dial("momentum_form", "classical", "lr_inside: b = μ·b + lr·g/(√v + eps), w -= b", ("lr_inside",)),
        Dial("hyperparameters", "exact",
             "float32: lr and weight_decay pass through float32, whatever the parameters are",
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
            "momentum_form": "lr_inside",
            "hyperparameters": "float32",
            "subnormals": "flush",
            "in_place": "documented",
        },
    },
)  # fmt: skip
