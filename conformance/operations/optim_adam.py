"""``optim.adam``: steps of the size of the learning rate, from averages of the gradient and its square."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.cases import ALL, WIDE, Cases, Stream, fixed, tensor
from conformance.exact import magnitude, real
from conformance.operation import Dial, Flag, Mistake, Operation, Param
from conformance.oracle import optimizers
from conformance.oracle.optimizer_mistakes import Wrong
from conformance.oracle.optimizers import (
    Settings,
    Slots,
    Tracked,
    constant,
    correction,
    root,
    single,
)


def oracle(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """m, v: averages of g and g²;  w = w - lr·M/(√V + eps), M and V corrected for their start at 0."""
    optimizers.require_betas(settings)
    return optimizers.trajectory(inputs, settings, optimizers.adam)


def late_correction(g: Tracked, slots: Slots, s: Settings) -> tuple[Tracked, Slots]:
    """The step count starts at 0 (and at 1 for the first step, where 1 - β^0 would be 0)."""
    return optimizers.adam(g, slots, s | {"t": max(s["t"] - 1, 1)})


def first_moment_uncorrected(g: Tracked, slots: Slots, s: Settings) -> tuple[Tracked, Slots]:
    """Only v is corrected."""
    step, kept = optimizers.adam(g, slots, s)
    return step * correction(s["beta1"], s), kept


def amsgrad_not_stored(g: Tracked, slots: Slots, s: Settings) -> tuple[Tracked, Slots]:
    """The maximum of the past is never written back, so that it is 0."""
    step, kept = optimizers.adam(g, slots, s)
    return step, {name: slot for name, slot in kept.items() if name != "largest"}


def root_forgotten(g: Tracked, slots: Slots, s: Settings) -> tuple[Tracked, Slots]:
    """The step is divided by V, not by its root."""
    _, kept = optimizers.adam(g, slots, s)
    m, v = kept["m"] / correction(s["beta1"], s), kept["v"] / correction(s["beta2"], s)
    return constant(s["lr"]) * m / (v + constant(real(s["eps"]))), kept


def magnitudes(g: Tracked, slots: Slots, s: Settings) -> tuple[Tracked, Slots]:
    """v averages |g|, not g²: its square stands where v should."""
    old = slots.get("size", optimizers.nothing(g))
    size = optimizers.average(s["beta2"], old, Tracked(magnitude(g.exact), g.error))
    _, kept = optimizers.adam(g, slots, s)
    m = kept["m"] / correction(s["beta1"], s)
    bottom = size / correction(s["beta2"], s) + constant(real(s["eps"]))
    return constant(s["lr"]) * m / bottom, kept | {"size": size}


def gradient_alone(g: Tracked, slots: Slots, s: Settings) -> tuple[Tracked, Slots]:
    """The gradient stands in the place of its average m."""
    _, kept = optimizers.adam(g, slots, s)
    v = root(kept["v"]) / root(correction(s["beta2"], s))
    return constant(s["lr"]) * g / (v + constant(real(s["eps"]))), kept


def average_of_past(g: Tracked, slots: Slots, s: Settings) -> tuple[Tracked, Slots]:
    """v is used before the new gradient joins it."""
    _, kept = optimizers.adam(g, slots, s)
    m, past = kept["m"] / correction(s["beta1"], s), slots.get("v") or kept["v"]
    bottom = root(past / correction(s["beta2"], s)) + constant(real(s["eps"]))
    return constant(s["lr"]) * m / bottom, kept


def swapped(inputs: Any, s: Settings) -> Any:
    """beta1 and beta2 change places."""
    return inputs, s | {"beta1": s["beta2"], "beta2": s["beta1"]}


def mistakes() -> tuple[Mistake, ...]:
    """Return the known mistakes of Adam and of AdamW."""
    wrong = Wrong(optimizers.require_betas, optimizers.adam)
    return (
        Mistake("beta1 ignored", "it has its usual value", wrong.settings(beta1=0.9)),
        Mistake("beta2 ignored", "it has its usual value", wrong.settings(beta2=0.999)),
        Mistake("betas swapped", "beta1 and beta2 change places", wrong.oracle(swapped)),
        Mistake("eps ignored", "eps is 0", wrong.settings(eps=0.0)),
        Mistake("amsgrad ignored", "the option does nothing", wrong.settings(amsgrad=False)),
        Mistake("amsgrad maximum not stored", "the largest v is forgotten after each step",
                wrong.follow(amsgrad_not_stored), ("pytorch/pytorch#78807",)),
        Mistake("late bias correction", "the step count starts at 0", wrong.follow(late_correction)),
        Mistake("first moment uncorrected", "only v is corrected for its start at 0",
                wrong.follow(first_moment_uncorrected)),
        Mistake("root forgotten", "the step is divided by V", wrong.follow(root_forgotten)),
        Mistake("average of magnitudes", "v averages |g|", wrong.follow(magnitudes)),
        Mistake("gradient in place of its average", "m is not used", wrong.follow(gradient_alone)),
        Mistake("average of the past", "v is used before it is updated",
                wrong.follow(average_of_past)),
        *wrong.everywhere(),
    )  # fmt: skip


CONSTRAINTS = {
    "A1": "m ← β1·m + (1-β1)·g and v ← β2·v + (1-β2)·g², both from 0;  w ← w - lr·M/(√V + eps).",
    "A2": "M = m/(1 - β1^t) and V = v/(1 - β2^t), t counting from 1: the first step is lr·g/(|g| + eps).",
    "A3": "eps is added to √V, after the bias correction.",
    "A4": "With amsgrad the largest v so far takes the place of v, and is kept.",
    "A5": "Weight decay: wd·w joins the gradient before both averages, also where the gradient is zero.",
    "A6": "An absent gradient leaves its parameter, its averages, its decay and its step count alone.",
    "A7": "Each parameter has its own averages, and keeps its shape and dtype.",
    "A8": "lr, eps and weight_decay are finite and >= 0, the betas in [0, 1); else a refusal.",
    "A9": "With eps = 0 a gradient that was always zero gives 0/0 = NaN; it is not patched up.",
    "A10": "lr is that of the step; lr = 0 leaves the parameter, but not the averages, as it is.",
    "A11": "The bias corrections are computed in float64 and rounded to the dtype once.",
    "A12": "A NaN or infinite gradient makes its own element NaN, for ever, and no other.",
    "A15": "A gradient has the shape of its parameter, and both are real floats; else a refusal.",
    "A13": "The caller's gradients are not written to: the same gradient twice is the same step twice.",
}

FLAGS = {
    "moments": Flag("BASIC", "Both averages over several steps."),
    "first-step": Flag("KNOWN_BUG", "One step: without bias correction it is 3.16 times as long.",
                       ("ml-explore/mlx#1640",)),
    "eps-visible": Flag("KNOWN_BUG", "√v near eps, where the place of eps shows.",
                        ("tensorflow/tensorflow#9047", "pytorch/pytorch#22628", "tensorflow/tensorflow#35102")),
    "eps-zero": Flag("EDGE_CASE", "eps = 0."),
    "amsgrad": Flag("KNOWN_BUG", "A large gradient, then small ones: the maximum of v must be kept.",
                    ("pytorch/pytorch#78807",)),
    "betas": Flag("BASIC", "Other betas than the usual ones, 0 included."),
    "bias-correction": Flag("PRECISION", "1 - β^t cancels: β rounded to float32 first shows."),
    "decay": Flag("KNOWN_BUG", "Weight decay, coupled or decoupled.",
                  ("PaddlePaddle/Paddle#5836", "harvard-edge/cs249r_book#2058", "NVIDIA/apex#1849")),
    "changing-rate": Flag("BASIC", "The learning rate changes."),
    "zero-gradient": Flag("EDGE_CASE", "Gradients of zeros: averages and decay go on."),
    "absent": Flag("EDGE_CASE", "Absent gradients: the step count of that parameter stays."),
    "reused": Flag("KNOWN_BUG", "The same gradient at every step: writing wd·w to it would show.",
                   ("ml-explore/mlx#4426", "pytorch/pytorch#12218", "liukidar/pcx#67")),
    "shapes": Flag("EDGE_CASE", "0-d, empty and multi-dimensional parameters."),
    "mixed-dtypes": Flag("EDGE_CASE", "float32 and float64 in one list."),
    "nonfinite": Flag("EDGE_CASE", "NaN and infinite gradients."),
    "cancellation": Flag("PRECISION", "Terms of opposite sign cancel in m or in the weight."),
    "long": Flag("PRECISION", "Many steps."),
    "bad-gradient": optimizers.BAD_GRADIENT,
    "range": Flag("EDGE_CASE", "A parameter outside its range."),
    "observed": Flag("DIALECT", "A trajectory that thirteen libraries were run on."),
}  # fmt: skip


def cases(c: Cases) -> None:
    """Write the cases."""
    # fmt: off

    def add(name: str, flags: str, labels: str, inputs: Any, dtypes: Any = WIDE, **p: Any) -> None:
        c.add(name, flags, labels, inputs, {"lr": 0.1, **p}, dtypes)

    five, two = optimizers.observed(), optimizers.two_tensors()
    common(c)
    add("observed-eps-tf", "observed", "A1 A3", five, eps=1e-7)
    add("observed-no-eps", "observed eps-zero", "A9", five, eps=0.0)
    add("observed-amsgrad", "observed amsgrad", "A4", five, amsgrad=True)
    add("two-tensors-betas", "betas", "A1 A7", two, ALL, beta1=0.5, beta2=0.75)
    add("amsgrad-and-everything", "amsgrad decay changing-rate betas", "A4 A5 A10", two, amsgrad=True,
        weight_decay=0.1, beta1=0.8, beta2=0.9, lr=[0.5, 0.125, 0.25])
    add("beta1-zero", "betas", "A1 A2", two, beta1=0.0)
    add("beta2-zero", "betas", "A1 A2", two, beta2=0.0, eps=0.01)
    add("both-betas-zero", "betas", "A1 A2", two, beta1=0.0, beta2=0.0, eps=0.5)
    add("beta2-below-beta1", "betas", "A1 A2", two, beta1=0.9, beta2=0.5)
    add("first-step-small", "first-step eps-visible", "A2 A3", single(tensor(0, 1), tensor(1e-8, -1e-6)))
    add("first-step-smaller-eps", "first-step eps-visible", "A2 A3",
        single(tensor(0, 0, 0), tensor(1e-12, -1e-10, 1e-11)), eps=1e-10, lr=1.0)
    add("eps-hat-shows-later", "eps-visible", "A3",
        single(tensor(0, 0), *[tensor(1e-8, -3e-8)] * 4), lr=1.0)
    add("eps-large", "eps-visible betas", "A3", two, eps=1.0, beta2=0.9)
    add("eps-small-gradients", "eps-visible", "A3", single(tensor(0.5, 0), tensor(1e-4, 1e-5),
        tensor(-2e-4, 1e-5), tensor(1e-5, 3e-4)), eps=1e-3)
    add("no-eps", "eps-zero", "A1 A9", two, eps=0.0)
    add("no-eps-tiny", "eps-zero", "A1 A2", single(tensor(0, 0), tensor(1e-12, -2e-15),
        tensor(1e-15, 1e-12)), eps=0.0)
    add("amsgrad-ten-then-tenth", "amsgrad", "A4", single(tensor(1, -2), tensor(10, -10),
        *[tensor(0.1, -0.1)] * 5), amsgrad=True)
    add("amsgrad-fast-beta", "amsgrad betas", "A4", single(tensor(1, -2), tensor(10, 0.1),
        tensor(0.1, 10), tensor(0.1, 0.1), tensor(-0.5, 1)), amsgrad=True, beta2=0.5)
    add("amsgrad-corrected", "amsgrad bias-correction", "A4", single(tensor(0, 0), tensor(3, 0.1),
        tensor(0.3, 2), tensor(0.1, 0.1)), amsgrad=True, eps=0.1)
    add("beta2-four-nines", "bias-correction first-step betas", "A11",
        single(tensor(0, 0), tensor(1, -0.25)), beta2=0.9999)
    add("beta2-four-nines-later", "bias-correction betas", "A11",
        single(tensor(0, 0), tensor(1, -0.25), tensor(0.5, 1), tensor(-1, 2)), beta2=0.9999)
    add("beta1-three-nines", "bias-correction betas", "A11",
        single(tensor(0, 0), tensor(1, -0.25), tensor(0.5, 1)), beta1=0.999, beta2=0.9999)
    add("decay-small-gradient", "decay eps-visible", "A5",
        single(tensor(1, -2, 0.5), tensor(1e-3, 0, 1e-8), tensor(-1e-3, 0, 1e-8)), weight_decay=0.01)
    add("decay-scale-free", "decay first-step", "A5", single(tensor(4, -0.5), tensor(0, 0)),
        weight_decay=0.25)
    # fmt: on


def common(c: Cases) -> None:
    """Write the cases that Adam and AdamW share."""
    # fmt: off

    def add(name: str, flags: str, labels: str, inputs: Any, dtypes: Any = WIDE, **p: Any) -> None:
        c.add(name, flags, labels, inputs, {"lr": 0.1, **p}, dtypes)

    five, two = optimizers.observed(), optimizers.two_tensors()
    optimizers.bad_gradients(add, "A15")
    add("observed", "observed moments", "A1 A2", five)
    add("observed-eps", "observed eps-visible", "A3", five, eps=0.1)
    add("observed-decay", "observed decay", "A5", five, weight_decay=0.1)
    add("two-tensors", "moments", "A1 A2 A7", two, ALL)
    add("two-tensors-everything", "decay changing-rate betas", "A1 A5 A7 A10", two, weight_decay=0.25,
        beta1=0.75, beta2=0.5, eps=0.125, lr=[0.5, 0.125, 0.25])
    add("first-step", "first-step", "A2", single(tensor(1, -2, 0.25), tensor(1, -1e-3, 250)))
    add("amsgrad-ten-then-tenths", "amsgrad decay", "A4", single(tensor(1, -2), tensor(10, -0.1),
        tensor(0.1, 10), tensor(0.2, -0.1)), amsgrad=True, beta2=0.9, weight_decay=0.1)
    add("changing-rate", "changing-rate moments", "A10", single(tensor(0, 1), tensor(1, -0.5),
        tensor(0.25, 2), tensor(-1, 1)), lr=[1.0, 0.1, 0.1])
    add("zero-rate-first", "changing-rate", "A10", single(tensor(1, -2), tensor(3, 0.5),
        tensor(-1, 2)), lr=[0.0, 0.1], weight_decay=0.1)
    add("zero-rate", "changing-rate", "A10", single(tensor(1, -0.3), tensor(3, 0.5)), lr=0.0)
    add("decay-zero-gradient", "decay zero-gradient", "A5",
        single(tensor(1, -2, 0.5), *[tensor(0, 0, 0)] * 3), weight_decay=0.1)
    add("decay-one-step", "decay", "A5", single(tensor(1, -2), tensor(0.5, 0.25)), weight_decay=0.1)
    add("decay-large-weights", "decay", "A5", single(tensor(8, -16), tensor(1, 1), tensor(-1, 2)),
        lr=0.001, weight_decay=0.01)
    add("decay-changing-rate", "decay changing-rate", "A5 A10", single(tensor(8, -16),
        tensor(1, 1), tensor(-1, 2), tensor(0.5, 0.25)), lr=[1.0, 0.1, 0.01], weight_decay=0.1)
    add("zero-gradient", "zero-gradient", "A1", single(tensor(1, -0.3), tensor(0, -0.0)))
    add("no-eps-zero-gradient", "eps-zero zero-gradient", "A9",
        single(tensor(1, -2, 3), tensor(0, 1, 0), tensor(0, 0, 2)), eps=0.0)
    add("zero-gradient-coasts", "zero-gradient moments", "A1",
        single(tensor(1, -2), tensor(3, 0.5), tensor(0, 0), tensor(0, 0)))
    add("absent-first", "absent", "A6", {"params": [tensor(1, -2), tensor(0.5)], "grads": [
        [None, tensor(2)], [tensor(3, 0.5), tensor(-1)], [tensor(-1, 2), None]]})
    add("absent-later", "absent decay", "A6", {"params": [tensor(1, -2), tensor([0.5], [4])],
        "grads": [[tensor(3, 0.5), tensor([1], [-2])], [None, tensor([0.25], [3])],
        [tensor(-1, 2), None], [tensor(0.5, 1), tensor([-1], [1])]]}, weight_decay=0.1)
    add("absent-always", "absent decay", "A6", {"params": [tensor(1, -2), tensor(0.3, 0.7, -0.1)],
        "grads": [[tensor(3, 0.5), None], [tensor(-1, 2), None]]}, weight_decay=0.1)
    add("same-gradient", "reused decay", "A13", single(tensor(1, -2), *[tensor(0.5, 0.25)] * 4),
        weight_decay=0.1)
    add("same-gradient-plain", "reused", "A13", single(tensor(1, -2), *[tensor(0.5, 0.25)] * 3))
    add("same-gradient-eps", "reused eps-visible decay", "A3 A13",
        single(tensor(1, -2), *[tensor(0.5, 0.25)] * 3), weight_decay=0.05, eps=0.25)
    random = Stream(43)
    shapes = ((), (2, 1, 3), (0, 4), (5,))
    add("shapes", "shapes moments", "A7", {"params": [random.uniform(*shape) for shape in shapes],
        "grads": [[random.uniform(*shape) for shape in shapes] for _ in range(2)]}, weight_decay=0.01)
    add("zero-dimensional", "shapes", "A7", single(np.array(2.0), np.array(-0.5), np.array(0.3)))
    mixed = {"params": [fixed([1.5, -0.1], "float32"), fixed([[0.7], [3.0]], "float64")],
        "grads": [[fixed([0.3, 2.0], "float32"), fixed([[-0.2], [0.9]], "float64")],
        [fixed([-1.1, 0.6], "float32"), fixed([[0.4], [-5.0]], "float64")]]}
    add("mixed-dtypes", "mixed-dtypes", "A7", mixed, ("float64",))
    add("mixed-dtypes-decay", "mixed-dtypes decay", "A5 A7", mixed, ("float64",), weight_decay=0.1)
    add("mixed-dtypes-wide-first", "mixed-dtypes bias-correction", "A7 A11",
        {name: _reversed(tree) for name, tree in mixed.items()}, ("float64",), beta2=0.9999)
    bad = single(tensor(1, 2, 3, -4), tensor(np.nan, np.inf, -np.inf, 0.5), tensor(1, 1, 1, 1))
    add("nonfinite", "nonfinite", "A12", bad)
    add("nonfinite-decay", "nonfinite decay", "A12", bad, weight_decay=0.1)
    add("nonfinite-amsgrad", "nonfinite amsgrad", "A12", bad, amsgrad=True)
    add("alternating", "cancellation moments", "A1", single(tensor(1e-3, 1),
        *[s * tensor(1, 1000) for s in (1, -0.9, 0.81, -0.729, 1)]))
    add("step-cancels-weight", "cancellation", "A1", single(tensor(0.1, -0.2, 1), tensor(10, -3, 2),
        tensor(1, 1, -0.5)))
    add("wide-range", "cancellation moments", "A1", single(random.spread(9),
        *[random.spread(9) for _ in range(3)]), lr=0.01)
    forty = [random.uniform(3) for _ in range(30)]
    add("thirty-steps", "long moments", "A1 A2", single(tensor(1, -2, 0.5), *forty))
    add("thirty-steps-decay", "long decay", "A5", single(tensor(1, -2, 0.5), *forty),
        weight_decay=0.05, lr=0.05)
    add("thirty-steps-amsgrad", "long amsgrad bias-correction", "A4 A11",
        single(tensor(1, -2, 0.5), *forty), amsgrad=True, beta2=0.95, lr=[0.1 / (1 + t) for t in range(30)])
    once = single(tensor(1, -2), tensor(0.5, 0.25))
    for name, value in (("negative", -0.1), ("nan", "nan"), ("infinite", "inf")):
        for param in ("lr", "eps", "weight_decay", "beta1", "beta2"):
            add(f"{param.replace('_', '-')}-{name}", "range", "A8", once, ("float32",), **{param: value})
    add("beta1-one", "range betas", "A8", once, beta1=1.0)
    add("beta2-one", "range betas", "A8", once, beta2=1.0)
    add("beta2-above-one", "range betas", "A8", once, ("float32",), beta2=1.5)
    add("lr-list-negative", "range changing-rate", "A8", single(tensor(1, -2), tensor(0.5, 0.25),
        tensor(1, 1)), ("float32",), lr=[0.1, -0.1])
    # fmt: on


def _reversed(tree: Any) -> Any:
    lists = any(isinstance(branch, list) for branch in tree)
    return [_reversed(branch) for branch in tree] if lists else tree[::-1]


PARAMS = (
    optimizers.LR,
    Param("beta1", "weight of the past in the average of gradients, in [0, 1)", default=0.9),
    Param("beta2", "weight of the past in the average of squares, in [0, 1)", default=0.999),
    Param("eps", "what is added to the root, in the units of the gradient", default=1e-8),
    optimizers.WEIGHT_DECAY,
    Param("amsgrad", "take the largest average of squares so far", default=False),
)

DIALS = (
    Dial("eps_at", "outside_root",
         "inside_root: √(V + eps); before_bias_correction: lr·√(1-β2^t)/(1-β1^t) · m/(√v + eps)",
         ("inside_root", "before_bias_correction")),
    Dial("bias_correction", True, "false: M = m and V = v", (False,)),
    Dial("hyperparameters", "exact",
         "input_dtype: the β of the bias corrections is rounded to the parameters' dtype and 1 - β^t computed"
         " there; float32: they and lr and weight_decay pass through float32 whatever the parameters are;"
         " 1 - β in the averages and eps stay exact",
         ("input_dtype", "float32")),
    Dial("step_count", "parameter",
         "optimizer: t counts all steps, also those in which this parameter's gradient was absent",
         ("optimizer",)),
)  # fmt: skip

KERAS = {
    "eps_at": "before_bias_correction",
    "decay": "decoupled_by_lr",
    "hyperparameters": "float32",
    "step_count": "optimizer",
    "subnormals": "flush",
    "in_place": "documented",
}

OPERATION = Operation(
    id="optim.adam",
    summary="Move each weight by about the learning rate, along the average of its gradients.",
    formula="g ← g + wd·w;  m ← β1·m + (1-β1)·g;  v ← β2·v + (1-β2)·g²;"
    "  w ← w - lr · m/(1-β1^t) / (√(v/(1-β2^t)) + eps)",
    sources=(
        "D. P. Kingma, J. Ba: Adam: A method for stochastic optimization. ICLR 2015",
        "S. J. Reddi, S. Kale, S. Kumar: On the convergence of Adam and beyond. ICLR 2018 (amsgrad)",
    ),
    constraints=CONSTRAINTS,
    inputs=optimizers.INPUTS,
    outputs=optimizers.OUTPUTS,
    params=PARAMS,
    dials=(optimizers.decay_dial("coupled"), *DIALS),
    oracle=oracle,
    tolerance=optimizers.tolerance,
    tolerance_why=optimizers.TOLERANCE_WHY,
    flags=FLAGS,
    cases=cases,
    mistakes=mistakes(),
    dialects={"torch": {}, "tensorflow": KERAS},
)
