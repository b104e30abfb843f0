"""``optim.sgd``: stochastic gradient descent, with momentum, Nesterov's look-ahead and weight decay."""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np

from conformance.cases import ALL, WIDE, Cases, Stream, fixed, tensor
from conformance.exact import Reject, real
from conformance.operation import Dial, Flag, Mistake, Operation, Param
from conformance.oracle import optimizers
from conformance.oracle.optimizer_mistakes import Wrong
from conformance.oracle.optimizers import Settings, Slots, Tracked, constant, single


def oracle(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """v = μ·v + (1-d)·g;  w = w - lr·v, with Nesterov w - lr·(g + μ·v)."""
    check(settings)
    return optimizers.trajectory(inputs, settings, optimizers.sgd)


def check(settings: Settings) -> None:
    """Refuse what has no meaning."""
    for name in ("lr", "momentum", "weight_decay"):
        optimizers.require(settings, name)
    optimizers.require(settings, "dampening", low=-inf)
    if settings["nesterov"] and not (settings["momentum"] > 0 and settings["dampening"] == 0):
        raise Reject("nesterov needs momentum > 0 and dampening 0")


def averaged(g: Tracked, slots: Slots, s: Settings) -> tuple[Tracked, Slots]:
    """v = μ·v + (1-μ)·g."""
    if not s["momentum"]:
        return optimizers.sgd(g, slots, s)
    return optimizers.sgd(g, slots, s | {"dampening": s["momentum"], "first_buffer": "damped"})


def no_look_ahead(g: Tracked, slots: Slots, s: Settings) -> tuple[Tracked, Slots]:
    """With Nesterov the step is lr·μ·v: the gradient itself is left out."""
    _, kept = optimizers.sgd(g, slots, s)
    if not s["nesterov"]:
        return optimizers.sgd(g, slots, s)
    return constant(s["lr"]) * constant(real(s["momentum"])) * kept["v"], kept


WRONG = Wrong(check, optimizers.sgd)
MISTAKES = (
    Mistake("momentum ignored", "the option does nothing",
            WRONG.settings(momentum=0.0, nesterov=False), ("kozistr/pytorch_optimizer#528",)),
    Mistake("averaged momentum", "v = μ·v + (1-μ)·g", WRONG.follow(averaged),
            ("ml-explore/mlx#87",)),
    Mistake("nesterov ignored", "the option does nothing", WRONG.settings(nesterov=False)),
    Mistake("nesterov without the gradient", "the step is lr·μ·v", WRONG.follow(no_look_ahead)),
    Mistake("dampening ignored", "the option does nothing", WRONG.settings(dampening=0.0)),
    *WRONG.everywhere(),
)  # fmt: skip

CONSTRAINTS = {
    "S1": "Without momentum w ← w - lr·g at each step, with the parameters of the step before.",
    "S2": "With momentum v ← μ·v + (1 - dampening)·g and w ← w - lr·v; at the first gradient v = g.",
    "S3": "The learning rate of a step multiplies the whole buffer, not only the new gradient.",
    "S4": "With Nesterov w ← w - lr·(g + μ·v), v being the new buffer.",
    "S5": "Weight decay: wd·w joins the gradient before the buffer, also where the gradient is zero.",
    "S6": "An absent gradient leaves its parameter, its buffer and its decay alone.",
    "S7": "Each parameter has its own buffer, and keeps its shape and dtype.",
    "S8": "lr, momentum and weight_decay are finite and >= 0; dampening is finite; else a refusal.",
    "S9": "Nesterov without momentum, or with dampening, is refused.",
    "S10": "Dampening has no effect without momentum.",
    "S11": "lr = 0 leaves the parameter, but not the buffer, as it is.",
    "S12": "A NaN or infinite gradient spoils its own element only.",
    "S14": "A gradient has the shape of its parameter, and both are real floats; else a refusal.",
    "S13": "The caller's gradients are not written to: the same gradient twice is the same step twice.",
}

FLAGS = {
    "plain": Flag("BASIC", "No momentum, no decay."),
    "momentum": Flag("KNOWN_BUG", "Momentum over several steps.",
                     ("pytorch/pytorch#1196", "kozistr/pytorch_optimizer#516")),
    "changing-rate": Flag("KNOWN_BUG", "The learning rate changes: lr inside or outside the buffer shows.",
                          ("pytorch/pytorch#1196", "pytorch/pytorch#91108")),
    "nesterov": Flag("BASIC", "Nesterov momentum."),
    "dampening": Flag("KNOWN_BUG", "Dampening: the first buffer is the gradient itself.",
                      ("ml-explore/mlx#473", "pytorch/pytorch#5920")),
    "decay": Flag("KNOWN_BUG", "Weight decay, coupled or decoupled.",
                  ("harvard-edge/cs249r_book#2058", "NVIDIA/apex#1849", "ml-explore/mlx#473")),
    "zero-gradient": Flag("KNOWN_BUG", "Gradients of zeros: momentum and decay go on.",
                          ("pytorch/pytorch#149476",)),
    "small-decay": Flag("KNOWN_BUG", "lr·wd is small beside 1, but not below a roundoff.",
                        ("pytorch/pytorch#64475",)),
    "absent": Flag("EDGE_CASE", "Absent gradients, at the first step or later."),
    "reused": Flag("KNOWN_BUG", "The same gradient at every step: writing wd·w to it would show.",
                   ("ml-explore/mlx#4426", "pytorch/pytorch#12218", "liukidar/pcx#67")),
    "zero-rate": Flag("EDGE_CASE", "lr = 0."),
    "shapes": Flag("EDGE_CASE", "0-d, empty and multi-dimensional parameters."),
    "mixed-dtypes": Flag("EDGE_CASE", "float32 and float64 in one list."),
    "nonfinite": Flag("EDGE_CASE", "NaN and infinite gradients."),
    "cancellation": Flag("PRECISION", "Terms of opposite sign cancel in the buffer."),
    "long": Flag("PRECISION", "Many steps."),
    "bad-gradient": optimizers.BAD_GRADIENT,
    "range": Flag("EDGE_CASE", "A parameter outside its range."),
    "bad-nesterov": Flag("KNOWN_BUG", "Nesterov without momentum or with dampening.",
                         ("torch/optim#27", "pytorch/pytorch#887")),
    "observed": Flag("DIALECT", "A trajectory that thirteen libraries were run on."),
}  # fmt: skip


def cases(c: Cases) -> None:
    """Write the cases."""
    # fmt: off

    def add(name: str, flags: str, labels: str, inputs: Any, dtypes: Any = WIDE, **p: Any) -> None:
        c.add(name, flags, labels, inputs, {"lr": 0.1, **p}, dtypes)

    five, two = optimizers.observed(), optimizers.two_tensors()
    optimizers.bad_gradients(add, "S14")
    drop = [0.1, 0.1, 0.01, 0.01, 0.01]
    add("observed-plain", "observed plain", "S1", five)
    add("observed-momentum", "observed momentum", "S2", five, momentum=0.9)
    add("observed-nesterov", "observed nesterov", "S4", five, momentum=0.9, nesterov=True)
    add("observed-decay", "observed decay", "S5", five, weight_decay=0.1)
    add("observed-momentum-decay", "observed momentum decay", "S2 S5", five, momentum=0.9, weight_decay=0.1)
    add("observed-dampening", "observed dampening", "S2", five, momentum=0.9, dampening=0.5)
    add("observed-drop", "observed changing-rate", "S3", five, momentum=0.9, lr=drop)
    add("observed-nesterov-drop", "observed changing-rate nesterov", "S3 S4", five, momentum=0.9,
        nesterov=True, lr=drop)
    add("two-tensors", "plain", "S1 S7", two, ALL)
    add("two-tensors-momentum", "momentum", "S2 S7", two, ALL, momentum=0.5)
    add("two-tensors-nesterov", "nesterov", "S4 S7", two, ALL, momentum=0.75, nesterov=True)
    add("two-tensors-dampening", "dampening momentum", "S2 S7", two, ALL, momentum=0.75, dampening=0.25)
    add("two-tensors-everything", "decay nesterov changing-rate", "S3 S4 S5 S7", two, momentum=0.75,
        nesterov=True, weight_decay=0.25, lr=[0.5, 0.125, 0.25])
    add("two-tensors-dampened-decay", "decay dampening changing-rate", "S2 S3 S5", two,
        momentum=0.9, dampening=0.1, weight_decay=0.01, lr=[1.0, 0.1, 0.01])
    add("one-then-tenth", "changing-rate momentum", "S3", single(tensor(0, 1), tensor(1, -0.5),
        tensor(0.25, 2), tensor(-1, 1)), momentum=0.9, lr=[1.0, 0.1, 0.1])
    add("one-then-tenth-nesterov", "changing-rate nesterov", "S3 S4", single(tensor(0, 1),
        tensor(1, -0.5), tensor(0.25, 2), tensor(-1, 1)), momentum=0.9, nesterov=True, lr=[1.0, 0.1,
        0.1])
    add("warm-up", "changing-rate momentum", "S3", single(tensor(2, -1), tensor(1, 3),
        tensor(-2, 0.5), tensor(0.5, -1)), momentum=0.5, lr=[0.001, 0.01, 0.1])
    add("dampening-first-step", "dampening", "S2", single(tensor(1, -2), tensor(3, 0.5)),
        momentum=0.9, dampening=0.5)
    add("dampening-one", "dampening", "S2", single(tensor(1, -2), tensor(3, 0.5), tensor(-1, 2)),
        momentum=0.5, dampening=1.0)
    add("dampening-negative", "dampening", "S2 S8", single(tensor(1, -2), tensor(3, 0.5),
        tensor(-1, 2)), momentum=0.5, dampening=-0.5)
    add("dampening-without-momentum", "dampening", "S10", single(tensor(1, -2), tensor(3, 0.5),
        tensor(-1, 2)), dampening=0.5)
    add("momentum-one", "momentum", "S2", single(tensor(1, -2), tensor(3, 0.5), tensor(-1, 2),
        tensor(0.5, 0.25)), momentum=1.0)
    add("decay-without-momentum", "decay", "S5", single(tensor(1, -2), tensor(0.5, 0.25)), weight_decay=0.1)
    add("decay-one-step", "decay zero-gradient", "S5", single(tensor(1, -2, 0.5), tensor(0, 0, 0)),
        weight_decay=0.1)
    add("decay-is-not-lr-free", "decay", "S5", single(tensor(8, -16), tensor(1, 1), tensor(-1, 2)),
        lr=0.001, weight_decay=0.01)
    add("decay-momentum-zero-gradient", "decay zero-gradient momentum", "S2 S5",
        single(tensor(1, -2), tensor(0, 0), tensor(0, 0), tensor(0, 0)), momentum=0.9,
        weight_decay=0.1)
    add("decay-shrinks-to-zero", "decay", "S5", single(tensor(1, -2), tensor(0.5, 0.25)), lr=1.0,
        weight_decay=1.0)
    add("zero-gradient", "zero-gradient plain", "S1", single(tensor(1, -0.3), tensor(0, -0.0)))
    add("zero-gradient-coasts", "zero-gradient momentum", "S2", single(tensor(1, -2),
        tensor(3, 0.5), tensor(0, 0), tensor(0, 0)), momentum=0.9)
    add("small-decay", "small-decay decay", "S5", single(tensor(1, -3), *[tensor(0, 0)] * 3),
        ("float64",), lr=1e-4, weight_decay=1e-4)
    add("small-decay", "small-decay decay", "S5", single(tensor(1, -3), *[tensor(0, 0)] * 3),
        ("float32",), lr=1e-2, weight_decay=1e-3)
    add("small-decay-large-weights", "small-decay decay", "S5", single(tensor(3e4, -7e5), *[tensor(0, 0)] * 3),
        ("float64",), lr=1e-5, weight_decay=1e-4)
    add("absent-first", "absent momentum dampening", "S6", {"params": [tensor(1, -2), tensor(0.5)],
        "grads": [[None, tensor(2)], [tensor(3, 0.5), tensor(-1)], [tensor(-1, 2), None]]},
        momentum=0.9, dampening=0.5, weight_decay=0.1)
    add("absent-later", "absent momentum decay", "S6", {"params": [tensor(1, -2),
        tensor([0.5], [4])], "grads": [[tensor(3, 0.5), tensor([1], [-2])], [None,
        tensor([0.25], [3])], [tensor(-1, 2), None], [tensor(0.5, 1), tensor([-1], [1])]]},
        momentum=0.9, weight_decay=0.1, lr=[0.1, 0.2, 0.05, 0.1])
    add("absent-always", "absent decay", "S6", {"params": [tensor(1, -2), tensor(0.3, 0.7, -0.1)],
        "grads": [[tensor(3, 0.5), None], [tensor(-1, 2), None]]}, weight_decay=0.1)
    add("same-gradient", "reused decay", "S5 S13", single(tensor(1, -2), *[tensor(0.5, 0.25)] * 4),
        weight_decay=0.1)
    add("same-gradient-momentum", "reused decay momentum", "S2 S5 S13", single(tensor(1, -2),
        *[tensor(0.5, 0.25)] * 4), weight_decay=0.1, momentum=0.5)
    add("same-gradient-plain", "reused plain", "S1 S13", single(tensor(1, -2), *[tensor(0.5, 0.25)] * 3))
    add("zero-rate", "zero-rate", "S11", single(tensor(1, -0.3), tensor(3, 0.5)), lr=0.0)
    add("zero-rate-first", "zero-rate momentum changing-rate", "S3 S11", single(tensor(1, -2),
        tensor(3, 0.5), tensor(-1, 2)), momentum=0.9, lr=[0.0, 0.1])
    add("zero-rate-between", "zero-rate momentum changing-rate", "S3 S11", single(tensor(1, -2),
        tensor(3, 0.5), tensor(-1, 2), tensor(1, 1)), momentum=0.9, lr=[0.1, 0.0, 0.1])
    random = Stream(41)
    shapes = ((), (2, 1, 3), (0, 4), (5,))
    add("shapes", "shapes momentum", "S7", {"params": [random.uniform(*shape) for shape in shapes],
        "grads": [[random.uniform(*shape) for shape in shapes] for _ in range(2)]}, momentum=0.9,
        weight_decay=0.01)
    add("zero-dimensional", "shapes plain", "S7", single(np.array(2.0), np.array(-0.5), np.array(0.3)))
    for name, options in (("plain", {}), ("nesterov", {"momentum": 0.9, "nesterov": True})):
        add(f"mixed-dtypes-{name}", f"mixed-dtypes {name}", "S7", {"params": [fixed([1.5, -0.1],
            "float32"), fixed([[0.7], [3.0]], "float64")], "grads": [[fixed([0.3, 2.0], "float32"),
            fixed([[-0.2], [0.9]], "float64")], [fixed([-1.1, 0.6], "float32"), fixed([[0.4],
            [-5.0]], "float64")]]}, ("float64",), weight_decay=0.1, **options)
    add("mixed-dtypes-narrow-last", "mixed-dtypes momentum", "S7", {"params": [fixed([0.7],
        "float64"), fixed([1.5, -0.1], "float32")], "grads": [[fixed([-0.2], "float64"), fixed([0.3,
        2.0], "float32")], [fixed([0.4], "float64"), fixed([-1.1, 0.6], "float32")]]}, ("float64",),
        momentum=0.5)
    bad = single(tensor(1, 2, 3, -4), tensor(np.nan, np.inf, -np.inf, 0.5), tensor(1, 1, 1, 1))
    add("nonfinite", "nonfinite plain", "S12", bad)
    add("nonfinite-momentum", "nonfinite momentum", "S12", bad, momentum=0.9)
    # one step: -inf·(1 - lr·wd) is -inf, while the same decay as a difference would be NaN
    add("nonfinite-decay", "nonfinite decay", "S12", single(bad["params"][0], bad["grads"][0][0]),
        momentum=0.9, weight_decay=0.1)
    add("alternating", "cancellation momentum", "S2", single(tensor(1e-3, 1), *[s * tensor(1, 1000)
        for s in (1, -0.9, 0.81, -0.729, 1)]), momentum=0.9)
    add("decay-cancels-gradient", "cancellation decay", "S5", single(tensor(1, -2),
        tensor(-0.1, 0.2), tensor(-0.1, 0.2)), weight_decay=0.1, momentum=0.5)
    add("step-cancels-weight", "cancellation plain", "S1", single(tensor(1, 0.3), tensor(10, 3),
        tensor(1, 1)))
    add("wide-range", "cancellation momentum", "S2", single(random.spread(9), *[random.spread(9) for
        _ in range(3)]), momentum=0.9, lr=0.01)
    forty = [random.uniform(3) for _ in range(40)]
    add("forty-steps", "long momentum", "S2", single(tensor(1, -2, 0.5), *forty), momentum=0.9)
    add("forty-steps-decay", "long decay nesterov", "S4 S5", single(tensor(1, -2, 0.5), *forty),
        momentum=0.9, nesterov=True, weight_decay=0.05, lr=0.05)
    add("forty-rates", "long changing-rate", "S3", single(tensor(1, -2, 0.5), *forty), momentum=0.5,
        lr=[0.1 / (1 + t) for t in range(40)])
    once = single(tensor(1, -2), tensor(0.5, 0.25))
    for name, value in (("negative", -0.1), ("nan", "nan"), ("infinite", "inf")):
        add(f"lr-{name}", "range", "S8", once, ("float32",), lr=value)
        add(f"momentum-{name}", "range", "S8", once, ("float32",), momentum=value)
        add(f"weight-decay-{name}", "range", "S8", once, ("float32",), weight_decay=value)
        if name != "negative":
            add(f"dampening-{name}", "range", "S8", once, ("float32",), momentum=0.9, dampening=value)
    add("lr-list-negative", "range changing-rate", "S8", single(tensor(1, -2), tensor(0.5, 0.25),
        tensor(1, 1)), ("float32",), lr=[0.1, -0.1])
    add("nesterov-without-momentum", "bad-nesterov", "S9", once, nesterov=True)
    add("nesterov-with-dampening", "bad-nesterov", "S9", once, nesterov=True, momentum=0.9, dampening=0.1)
    add("nesterov-with-both-wrong", "bad-nesterov", "S9", once, nesterov=True, dampening=0.1)
    # fmt: on


OPERATION = Operation(
    id="optim.sgd",
    summary="Move the parameters against the gradient, or against a decaying sum of gradients.",
    formula="g ← g + wd·w;  v ← μ·v + (1 - d)·g (first v = g);  w ← w - lr·v, Nesterov w - lr·(g + μ·v)",
    sources=(
        "B. T. Polyak: Some methods of speeding up the convergence of iteration methods. 1964",
        "I. Sutskever, J. Martens, G. Dahl, G. Hinton: On the importance of initialization and momentum in"
        " deep learning. ICML 2013",
    ),
    constraints=CONSTRAINTS,
    inputs=optimizers.INPUTS,
    outputs=optimizers.OUTPUTS,
    params=(
        optimizers.LR,
        Param("momentum", "μ >= 0; 0 is plain gradient descent", default=0.0),
        Param("dampening", "d: what a new gradient loses on its way into the buffer", default=0.0),
        Param("nesterov", "take the step from the point that momentum leads to", default=False),
        optimizers.WEIGHT_DECAY,
    ),
    dials=(
        optimizers.decay_dial("coupled"),
        Dial("momentum_form", "classical", "lr_inside: v = μ·v - lr·g, w += v", ("lr_inside",)),
        Dial("first_buffer", "gradient", "damped: the first buffer is (1-d)·g too", ("damped",)),
        Dial("hyperparameters", "exact",
             "float32: lr, momentum and weight_decay pass through float32, whatever the parameters are",
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
            "momentum_form": "lr_inside",
            "hyperparameters": "float32",
            "subnormals": "flush",
            "in_place": "documented",
        },
    },
)  # fmt: skip
