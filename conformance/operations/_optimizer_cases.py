"""Constraints, flags and cases that RMSprop and Adagrad share: a gradient divided by a root of squares."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.cases import ALL, WIDE, Cases, Stream, fixed, tensor
from conformance.operation import Dial, Flag
from conformance.oracle import optimizers
from conformance.oracle.optimizers import single

CONSTRAINTS = {
    "C2": "eps is added to the root, not to what is under it.",
    "C3": "Weight decay: wd·w joins the gradient before it is squared, also where the gradient is zero.",
    "C4": "An absent gradient leaves its parameter, its state, its decay and its step count alone.",
    "C5": "Each parameter has its own state, and keeps its shape and dtype.",
    "C6": "Parameters outside their ranges, NaN and infinities included, are refused.",
    "C7": "With eps = 0 a gradient that was always zero gives 0/0 = NaN; it is not patched up.",
    "C8": "lr is that of the step; lr = 0 leaves the parameter, but not the state, as it is.",
    "C9": "A NaN or infinite gradient makes its own element NaN, for ever, and no other.",
    "C14": "A gradient has the shape of its parameter, and both are real floats; else a refusal.",
    "C10": "The caller's gradients are not written to: the same gradient twice is the same step twice.",
}

FLAGS = {
    "observed": Flag("DIALECT", "A trajectory that thirteen libraries were run on."),
    "state": Flag("BASIC", "The squares of several steps."),
    "first-step": Flag("BASIC", "One step."),
    "eps-visible": Flag("DIALECT", "Roots near eps, where its place shows."),
    "eps-zero": Flag("EDGE_CASE", "eps = 0."),
    "decay": Flag("KNOWN_BUG", "Weight decay, coupled or decoupled.",
                  ("PaddlePaddle/Paddle#5836", "harvard-edge/cs249r_book#2058", "NVIDIA/apex#1849")),
    "changing-rate": Flag("BASIC", "The learning rate changes."),
    "zero-gradient": Flag("EDGE_CASE", "Gradients of zeros: state and decay go on."),
    "absent": Flag("EDGE_CASE", "Absent gradients, at the first step or later."),
    "reused": Flag("KNOWN_BUG", "The same gradient at every step: writing wd·w to it would show.",
                   ("ml-explore/mlx#4426", "pytorch/pytorch#12218", "liukidar/pcx#67")),
    "shapes": Flag("EDGE_CASE", "0-d, empty and multi-dimensional parameters."),
    "mixed-dtypes": Flag("EDGE_CASE", "float32 and float64 in one list."),
    "nonfinite": Flag("EDGE_CASE", "NaN and infinite gradients."),
    "cancellation": Flag("PRECISION", "The step cancels the weight."),
    "long": Flag("PRECISION", "Many steps."),
    "bad-gradient": optimizers.BAD_GRADIENT,
    "range": Flag("EDGE_CASE", "A parameter outside its range."),
}  # fmt: skip

EPS_AT = Dial(
    "eps_at", "outside_root", "inside_root: the root of the squares plus eps", ("inside_root",)
)
"""The dial that both have."""


def common(c: Cases, seed: int, ranged: tuple[str, ...]) -> None:
    """Write the cases; ``ranged`` names the parameters whose range is asked for."""
    # fmt: off

    def add(name: str, flags: str, labels: str, inputs: Any, dtypes: Any = WIDE, **p: Any) -> None:
        c.add(name, flags, labels, inputs, {"lr": 0.1, **p}, dtypes)

    five, two = optimizers.observed(), optimizers.two_tensors()
    optimizers.bad_gradients(add, "C14")
    drop = [0.1, 0.1, 0.01, 0.01, 0.01]
    add("observed", "observed state", "C1", five)
    add("observed-eps", "observed eps-visible", "C1 C2", five, eps=0.1)
    add("observed-eps-keras", "observed eps-visible", "C1 C2", five, eps=1e-7)
    add("observed-no-eps", "observed eps-zero", "C7", five, eps=0.0)
    add("observed-decay", "observed decay", "C3", five, weight_decay=0.1, eps=0.1)
    add("observed-drop", "observed changing-rate", "C1 C8", five, eps=0.1, lr=drop)
    add("two-tensors", "state", "C1 C5", two, ALL)
    add("two-tensors-everything", "decay changing-rate eps-visible", "C1 C2 C3 C5 C8", two,
        weight_decay=0.25, eps=0.125, lr=[0.5, 0.125, 0.25])
    add("first-step", "first-step", "C1", single(tensor(1, -2, 0.25), tensor(1, -1e-3, 250)))
    add("first-step-small", "first-step eps-visible", "C2", single(tensor(0, 1), tensor(1e-8, -1e-6)),
        eps=1e-8)
    add("eps-large", "eps-visible", "C2", two, eps=1.0)
    add("eps-small-gradients", "eps-visible", "C2", single(tensor(0.5, 0), tensor(1e-4, 1e-5),
        tensor(-2e-4, 1e-5), tensor(1e-5, 3e-4)), eps=1e-3)
    add("no-eps", "eps-zero", "C1 C7", two, eps=0.0)
    add("no-eps-zero-gradient", "eps-zero zero-gradient", "C7",
        single(tensor(1, -2, 3), tensor(0, 1, 0), tensor(0, 0, 2)), eps=0.0)
    add("changing-rate", "changing-rate state", "C8", single(tensor(0, 1), tensor(1, -0.5),
        tensor(0.25, 2), tensor(-1, 1)), lr=[1.0, 0.1, 0.1])
    add("warm-up", "changing-rate", "C8", single(tensor(2, -1), tensor(1, 3), tensor(-2, 0.5),
        tensor(0.5, -1)), lr=[0.001, 0.01, 0.1])
    add("zero-rate-first", "changing-rate", "C8", single(tensor(1, -2), tensor(3, 0.5), tensor(-1, 2)),
        lr=[0.0, 0.1], weight_decay=0.1)
    add("zero-rate", "changing-rate", "C8", single(tensor(1, -0.3), tensor(3, 0.5)), lr=0.0)
    add("decay-zero-gradient", "decay zero-gradient", "C3",
        single(tensor(1, -2, 0.5), *[tensor(0, 0, 0)] * 3), weight_decay=0.1)
    add("decay-one-step", "decay first-step", "C3", single(tensor(1, -2), tensor(0.5, 0.25)),
        weight_decay=0.1, eps=0.5)
    add("decay-large-weights", "decay", "C3", single(tensor(8, -16), tensor(1, 1), tensor(-1, 2)),
        lr=0.001, weight_decay=0.01)
    add("decay-changing-rate", "decay changing-rate", "C3 C8", single(tensor(8, -16), tensor(1, 1),
        tensor(-1, 2), tensor(0.5, 0.25)), lr=[1.0, 0.1, 0.01], weight_decay=0.1)
    add("zero-gradient", "zero-gradient", "C1", single(tensor(1, -0.3), tensor(0, -0.0)))
    add("zero-gradient-later", "zero-gradient state", "C1",
        single(tensor(1, -2), tensor(3, 0.5), tensor(0, 0), tensor(0.25, -0.125)))
    add("absent-first", "absent", "C4", {"params": [tensor(1, -2), tensor(0.5)], "grads": [
        [None, tensor(2)], [tensor(3, 0.5), tensor(-1)], [tensor(-1, 2), None]]})
    add("absent-later", "absent decay", "C4", {"params": [tensor(1, -2), tensor([0.5], [4])],
        "grads": [[tensor(3, 0.5), tensor([1], [-2])], [None, tensor([0.25], [3])],
        [tensor(-1, 2), None], [tensor(0.5, 1), tensor([-1], [1])]]}, weight_decay=0.1)
    add("absent-always", "absent decay", "C4", {"params": [tensor(1, -2), tensor(0.3, 0.7, -0.1)],
        "grads": [[tensor(3, 0.5), None], [tensor(-1, 2), None]]}, weight_decay=0.1)
    add("same-gradient", "reused decay", "C3 C10", single(tensor(1, -2), *[tensor(0.5, 0.25)] * 4),
        weight_decay=0.1)
    add("same-gradient-plain", "reused", "C10", single(tensor(1, -2), *[tensor(0.5, 0.25)] * 3))
    add("same-gradient-eps", "reused eps-visible decay", "C2 C10",
        single(tensor(1, -2), *[tensor(0.5, 0.25)] * 3), weight_decay=0.05, eps=0.25)
    random = Stream(seed)
    shapes = ((), (2, 1, 3), (0, 4), (5,))
    add("shapes", "shapes state", "C5", {"params": [random.uniform(*shape) for shape in shapes],
        "grads": [[random.uniform(*shape) for shape in shapes] for _ in range(2)]}, weight_decay=0.01)
    add("zero-dimensional", "shapes", "C5", single(np.array(2.0), np.array(-0.5), np.array(0.3)))
    mixed: dict[str, Any] = {"params": [fixed([1.5, -0.1], "float32"), fixed([[0.7], [3.0]], "float64")],
        "grads": [[fixed([0.3, 2.0], "float32"), fixed([[-0.2], [0.9]], "float64")],
        [fixed([-1.1, 0.6], "float32"), fixed([[0.4], [-5.0]], "float64")]]}
    add("mixed-dtypes", "mixed-dtypes", "C5", mixed, ("float64",))
    add("mixed-dtypes-decay", "mixed-dtypes decay", "C3 C5", mixed, ("float64",), weight_decay=0.1)
    wide_first = {"params": mixed["params"][::-1], "grads": [step[::-1] for step in mixed["grads"]]}
    add("mixed-dtypes-wide-first", "mixed-dtypes eps-visible", "C2 C5", wide_first, ("float64",), eps=0.25)
    bad = single(tensor(1, 2, 3, -4), tensor(np.nan, np.inf, -np.inf, 0.5), tensor(1, 1, 1, 1))
    add("nonfinite", "nonfinite", "C9", bad)
    add("nonfinite-decay", "nonfinite decay", "C9", bad, weight_decay=0.1)
    add("nonfinite-later", "nonfinite", "C9", single(tensor(1, 2, 3), tensor(1, -0.5, 2),
        tensor(np.inf, 0.5, np.nan), tensor(1, 2, 1)))
    add("step-cancels-weight", "cancellation", "C1", single(tensor(0.1, -0.2, 1), tensor(10, -3, 2),
        tensor(1, 1, -0.5)))
    add("alternating", "cancellation state", "C1", single(tensor(1e-3, 1),
        *[s * tensor(1, 1000) for s in (1, -0.9, 0.81, -0.729, 1)]))
    add("wide-range", "cancellation state", "C1", single(random.spread(9),
        *[random.spread(9) for _ in range(3)]), lr=0.01)
    twenty = [random.uniform(3) for _ in range(20)]
    add("twenty-steps", "long state", "C1", single(tensor(1, -2, 0.5), *twenty))
    add("twenty-steps-decay", "long decay", "C3", single(tensor(1, -2, 0.5), *twenty), ("float32",),
        weight_decay=0.05, lr=0.05)
    add("twenty-rates", "long changing-rate", "C8", single(tensor(1, -2, 0.5), *twenty), ("float32",),
        lr=[0.1 / (1 + t) for t in range(20)], eps=0.05)
    once = single(tensor(1, -2), tensor(0.5, 0.25))
    for name, value in (("negative", -0.1), ("nan", "nan"), ("infinite", "inf")):
        for param in ("lr", "eps", "weight_decay", *ranged):
            add(f"{param.replace('_', '-')}-{name}", "range", "C6", once, ("float32",), **{param: value})
    add("lr-list-negative", "range changing-rate", "C6", single(tensor(1, -2), tensor(0.5, 0.25),
        tensor(1, 1)), ("float32",), lr=[0.1, -0.1])
    # fmt: on
