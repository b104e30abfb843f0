"""``optim.adamw``: Adam with a weight decay that does not pass through its averages."""

from __future__ import annotations

from typing import Any

from conformance.cases import WIDE, Cases, tensor
from conformance.operation import Flag, Mistake, Operation
from conformance.operations import optim_adam
from conformance.oracle import optimizers
from conformance.oracle.optimizer_mistakes import Wrong
from conformance.oracle.optimizers import Settings, Slots, Tracked, single


def both_decays(w: Tracked, g: Tracked, slots: Slots, s: Settings, rule: Any) -> Any:
    """The weight decays, and wd·w joins the gradient too."""
    if not s["weight_decay"]:
        return optimizers.move(w, g, slots, s, rule)
    penalised = g + optimizers.constant(optimizers.through(s["weight_decay"], s, s["dtype"])) * w
    return optimizers.move(w, penalised, slots, s, rule)


WRONG = Wrong(optimizers.require_betas, optimizers.adam)

CONSTRAINTS = optim_adam.CONSTRAINTS | {
    "A5": "Weight decay is decoupled: w ← w·(1 - lr·wd) before the step, also where the gradient is zero.",
    "A14": "The decay is multiplied by the learning rate of the step, and the averages do not see it.",
}

FLAGS = optim_adam.FLAGS | {
    "small-decay": Flag(
        "KNOWN_BUG",
        "lr·wd is small beside 1, but not below a roundoff.",
        ("pytorch/pytorch#64475",),
    ),
    "decoupled": Flag(
        "KNOWN_BUG",
        "lr·wd·w or wd·w, and out of the averages.",
        ("NVIDIA/apex#1849", "tensorflow/addons#2282", "egg-west/AdamW-pytorch#1",
         "pytorch/pytorch#4429", "modern-fortran/neural-fortran#152"),
    ),
    "order": Flag(
        "KNOWN_BUG",
        "Decay before or after the step: they differ by lr·wd·step.",
        ("bitsandbytes-foundation/bitsandbytes#2010",),
    ),
}  # fmt: skip


def cases(c: Cases) -> None:
    """Write the cases: those of Adam, and what decoupled decay adds."""
    # fmt: off

    def add(name: str, flags: str, labels: str, inputs: Any, dtypes: Any = WIDE, **p: Any) -> None:
        c.add(name, flags, labels, inputs, {"lr": 0.1, "weight_decay": 0.1, **p}, dtypes)

    two = optimizers.two_tensors()
    optim_adam.common(c)
    add("decay-two-tensors", "decoupled", "A5 A7 A14", two)
    add("decay-two-tensors-rates", "decoupled changing-rate", "A5 A10 A14", two, lr=[0.5, 0.125, 0.25])
    add("decay-by-rate", "decoupled first-step", "A14", single(tensor(8, -16), tensor(0.5, 1)), lr=1e-3,
        weight_decay=1e-2)
    add("decay-large-step", "order decoupled", "A5", single(tensor(1, -2), tensor(0.5, 1)), lr=1.0,
        weight_decay=0.5)
    add("decay-order", "order", "A5", single(tensor(0, 1), tensor(1, -1), tensor(2, 1)), lr=0.5,
        weight_decay=0.5)
    add("decay-order-eps", "order eps-visible", "A3 A5", single(tensor(0.5, 1), tensor(1, -1),
        tensor(2, 0.5)), lr=0.25, eps=0.5)
    add("decay-to-zero", "decoupled order", "A5", single(tensor(3, -2), tensor(0.5, 1),
        tensor(1, -1)), lr=1.0, weight_decay=1.0)
    add("decay-beyond-zero", "decoupled", "A5", single(tensor(3, -2), tensor(0.5, 1)), lr=2.0,
        weight_decay=0.75)
    add("decay-alone", "decoupled zero-gradient", "A5 A14", single(tensor(4, -0.5),
        *[tensor(0, 0)] * 4), lr=0.5, weight_decay=0.25)
    small = single(tensor(1, -3), *[tensor(0, 0)] * 3)
    add("small-decay", "small-decay decoupled", "A5", small, ("float64",), lr=1e-4, weight_decay=1e-4)
    add("small-decay", "small-decay decoupled", "A5", small, ("float32",), lr=1e-2, weight_decay=1e-3)
    add("small-decay-and-step", "small-decay", "A5", single(tensor(100, -300), tensor(1, 1),
        tensor(-1, 0.5)), ("float64",), lr=1e-4, weight_decay=1e-4)
    add("decay-no-eps", "decoupled eps-zero", "A5", single(tensor(2, -4), tensor(0.5, -0.125),
        tensor(1, 0.25)), lr=0.125, weight_decay=0.25, eps=0.0)
    add("decay-unit", "decoupled", "A14", single(tensor(1, -3), tensor(1e-4, 2), tensor(-1, 1e-4)),
        lr=0.01, weight_decay=1.0)
    # fmt: on


OPERATION = Operation(
    id="optim.adamw",
    summary="Adam whose weight decay shrinks the weights beside the step, not through it.",
    formula="w ← w·(1 - lr·wd);  then Adam's step:  w ← w - lr · m/(1-β1^t) / (√(v/(1-β2^t)) + eps)",
    sources=(
        "I. Loshchilov, F. Hutter: Decoupled weight decay regularization. ICLR 2019",
        *optim_adam.OPERATION.sources,
    ),
    constraints=CONSTRAINTS,
    inputs=optimizers.INPUTS,
    outputs=optimizers.OUTPUTS,
    params=optim_adam.PARAMS,
    dials=(optimizers.decay_dial("decoupled_by_lr"), *optim_adam.DIALS),
    oracle=optim_adam.oracle,
    tolerance=optimizers.tolerance,
    tolerance_why=optimizers.TOLERANCE_WHY,
    flags=FLAGS,
    cases=cases,
    mistakes=(
        Mistake("decay twice", "decoupled and through the gradient as well",
                WRONG.move(both_decays)),
        *optim_adam.mistakes(),
    ),
    dialects={
        "torch": {},
        "tensorflow": {n: v for n, v in optim_adam.KERAS.items() if n != "decay"},
    },
)  # fmt: skip
