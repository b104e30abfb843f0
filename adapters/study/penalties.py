"""L1 against proximal L1, and L2, step by step."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import numpy as np

from adapters.study.cases import case, number
from adapters.study.excerpts import excerpt
from adapters.study.model import Choice, Control, Fill, Mark, Plot, Stage, Stop, Table, Topic
from adapters.study.numbers import exact
from refimpl import optimizers, proximal, regularization

PENALTY = {"l1": "penalty.l1/two-tensors-f32", "l2": "penalty.l2/basic-f32"}
PROX = {"l1": "prox.l1/two-tensors-f32", "l2": "prox.l2/two-tensors-f32"}
STRENGTHS = (0.0, 0.05, 0.1, 0.2, 0.25, 0.3, 0.5, 1.0, 3.0)
LR, STEPS = 0.4, 40


def penalised(kind: str, strength: float) -> tuple[Any, list[Any]]:
    """Return refimpl's penalty and its gradient."""
    function = regularization.penalty_l1 if kind == "l1" else regularization.penalty_l2
    return function(list(case(PENALTY[kind]).inputs["weights"]), strength)


def proximal_point(kind: str, strength: float) -> list[Any]:
    """Return refimpl's proximal point at the fixture's step."""
    chosen = case(PROX[kind])
    function = regularization.prox_l1 if kind == "l1" else regularization.prox_l2
    return list(function(list(chosen.inputs["weights"]), strength, number(chosen.params["step"])))


def _penalty(kind: str, choice: Choice) -> Fill:
    strength = choice["strength"]
    weights = list(case(PENALTY[kind]).inputs["weights"])
    value, grads = penalised(kind, strength)
    rows = tuple(
        (f"`w{t + 1}{list(at)}`", exact(w[at]), exact(g[at]))
        for t, (w, g) in enumerate(zip(weights, grads, strict=True)) for at in np.ndindex(w.shape)
    )  # fmt: skip
    flat = np.concatenate([w.ravel() for w in weights])
    terms = " + ".join(exact(abs(v)) + ("^2" if kind == "l2" else "") for v in flat)
    says = "Every weight is pulled towards zero with the same force, whatever its size."
    if kind == "l2":
        says = "A weight is pulled the harder the larger it is; the pull on a small weight vanishes with it."
    return Fill(
        rf"«l» \cdot ({terms}) = «v»",
        {"l": exact(strength), "v": exact(value)},
        says,
        (
            Plot("The pull on a weight", "weight", "subgradient", (
                Mark("line", "subgradient", tuple(
                    (float(x), float(_pull(kind, strength, x))) for x in np.linspace(-4, 8, 97)), 1),
                Mark("dots", "the weights", tuple((float(w), float(_pull(kind, strength,
                    float(w)))) for w in flat), 2),
            )),
            Table("The numbers", ("weight", "value", "subgradient"), rows),
        ),
    )  # fmt: skip


def _pull(kind: str, strength: float, x: float) -> Any:
    function = regularization.penalty_l1 if kind == "l1" else regularization.penalty_l2
    (grad,) = function([np.array([x], np.float32)], strength)[1]
    assert grad is not None
    return grad[0]


def _prox(kind: str, choice: Choice) -> Fill:
    strength = choice["strength"]
    chosen = case(PROX[kind])
    weights, step = list(chosen.inputs["weights"]), number(chosen.params["step"])
    made = proximal_point(kind, strength)
    rows, states = [], []
    for t, (w, p) in enumerate(zip(weights, made, strict=True)):
        for at in np.ndindex(w.shape):
            rows.append((f"`w{t + 1}{list(at)}`", exact(w[at]), exact(p[at])))
            states.append("cut" if p[at] == 0 else "")
    xs = np.linspace(-2, 2, 81, dtype=np.float32)
    function = regularization.prox_l1 if kind == "l1" else regularization.prox_l2
    (curve,) = function([xs], strength, step)
    assert curve is not None
    zeros = states.count("cut")
    w0, p0 = weights[0].ravel()[0], made[0].ravel()[0]
    formula = r"3 - \min(3, «t») = «p»" if kind == "l1" else r"\frac{3}{1 + 2 \cdot «t»} = «p»"
    assert w0 == 3
    says = f"{zeros} of {len(rows)} weights are exactly zero: all whose size is at most t."
    if kind == "l2":
        says = (
            f"{zeros} of {len(rows)} weights are zero: every weight is divided by the same number, and "
            f"none becomes zero."
        )
    return Fill(
        formula,
        {"t": exact(strength * step), "p": exact(p0)},
        says,
        (
            Plot("Before and after", "weight before", "weight after", (
                Mark("line", "proximal step", tuple((float(a), float(b)) for a, b in zip(xs, curve,
                    strict=True)), 1),
                Mark("line", "unchanged", ((-2.0, -2.0), (2.0, 2.0)), 0),
                Mark("dots", "the weights up to 2", tuple(
                    (float(a), float(b)) for w, p in zip(weights, made, strict=True)
                    for a, b in zip(w.ravel(), p.ravel(), strict=True) if abs(a) <= 2), 2),
            )),
            Table("The numbers", ("weight", "before", "after"), tuple(rows), tuple(states)),
        ),
    )  # fmt: skip


@cache
def descend(kind: str, way: str, strength: float) -> list[Any]:
    """Return the weights after each step of descent on (1/2)|w - a|² plus the penalty, from w = a.

    ``a`` is the fixture's second tensor beside its first, flattened; ``way`` is "subgradient", or
    "proximal".
    """
    a = np.concatenate([w.ravel() for w in case(PROX["l1"]).inputs["weights"]])
    params = [a]
    path = [a]
    function = regularization.penalty_l1 if kind == "l1" else regularization.penalty_l2
    prox = regularization.prox_l1 if kind == "l1" else regularization.prox_l2
    optimizer = optimizers.sgd(lr=LR)
    if way == "proximal":
        optimizer = proximal.ista(partial(prox, strength=strength), lr=LR)
    state = optimizer.init(params)
    for _ in range(STEPS):
        grad = params[0] - a
        if way == "subgradient":
            grad = grad + function(params, strength)[1][0]
        params, state = optimizer.update(params, [grad], state)
        path.append(params[0])
    return path


def _paths(kind: str, choice: Choice) -> Fill:
    strength = choice["strength"]
    paths = {way: descend(kind, way, strength) for way in ("subgradient", "proximal")}
    small = 1
    marks = tuple(
        Mark("line", way, tuple((i, float(w[small])) for i, w in enumerate(path)), colour)
        for colour, (way, path) in enumerate(paths.items(), 1)
    )
    rows = tuple(
        (way, str(int(np.sum(path[-1] == 0))), ", ".join(exact(v) for v in path[-1]))
        for way, path in paths.items()
    )
    last, before = paths["subgradient"][-1][small], paths["subgradient"][-2][small]
    a = paths["subgradient"][0][small]
    says = _seen(kind, strength, paths)
    pull = exact(_pull(kind, strength, float(before)))
    return Fill(
        r"w \leftarrow «b» - 0.4 \cdot ((«b») - («a») + («p»)) = «w»",
        {"b": exact(before), "a": exact(a), "p": pull, "w": exact(last)},
        says,
        (
            Plot("The weight that starts at −0.1", "step", "weight", marks),
            Table(f"After {STEPS} steps", ("way", "exact zeros", "weights"), rows, ("",
                "kept" if kind == "l1" else "")),
        ),
    )  # fmt: skip


def _seen(kind: str, strength: float, paths: dict[str, list[Any]]) -> str:
    zeros = int(np.sum(paths["proximal"][-1] == 0))
    if kind == "l2" and LR * (1 + 2 * strength) > 2:
        return (
            "The gradient step overshoots, for 0.4 · (1 + 2λ) exceeds 2: it diverges. The proximal step "
            "cannot."
        )
    if kind == "l2":
        return (
            "Both ways shrink, to the same weights; neither makes a zero. L2 gives small weights, not "
            "sparse ones."
        )
    if not zeros:
        return "This penalty is too weak to make a zero of any weight."
    return (
        f"The proximal step lands on zero exactly, with {zeros} of 8 weights, and stays there."
        " The subgradient jumps from one side of zero to the other."
    )


def _topic(kind: str) -> Topic:
    l1 = kind == "l1"
    own = number(case(PROX[kind]).params["strength"])
    other = number(case(PENALTY[kind]).params["strength"])
    notes = {own: "the fixture's, prox", other: "the fixture's, penalty"}
    stops = tuple(Stop(v, exact(v), notes.get(v, "")) for v in sorted({*STRENGTHS, own, other}))
    strength = Control(
        "strength", "strength λ", stops, "slider", [s.value for s in stops].index(own)
    )
    penalty = regularization.penalty_elastic_net if l1 else regularization.penalty_l2
    marks = ("value, grad = l1", "value, grad = l1") if l1 else ("return factor", "return factor")
    prox = regularization.prox_elastic_net if l1 else regularization.prox_l2
    lines = ("limit = scalar", "soft = xp.where") if l1 else ("shrinkage =", "return _map")
    return Topic(kind, "L1, and its proximal step" if l1 else "L2", LEADS[kind], (
        Stage("penalty", "The penalty and its gradient", TEXTS[kind][0],
            r"\lambda \sum_i |w_i| \quad g_i = \lambda \,\mathrm{sign}(w_i)" if l1 else r"\lambda \sum_i "
                r"w_i^2 \quad g_i = 2 \lambda w_i",
            (excerpt(penalty, *marks),), PENALTY[kind], partial(_penalty, kind), ("strength",)),
        Stage("prox", "The proximal step", TEXTS[kind][1],
            r"\hat w = \mathrm{sign}(w) \cdot \max(\lvert w \rvert - t, 0) \quad t = \lambda \eta" if l1
            else r"\hat w = \frac{w}{1 + 2 t} \quad t = \lambda \eta",
            (excerpt(prox, *lines),), PROX[kind], partial(_prox, kind), ("strength",)),
        Stage("paths", "Forty steps of each", TEXTS[kind][2],
            r"w \leftarrow w - \eta\,(\nabla f(w) + g) \quad\text{or}\quad w \leftarrow \mathrm{prox}(w - "
                r"\eta \nabla f(w))",
            (excerpt(proximal._proximal_step, "(x,) = prox"),), f"{PROX['l1']}, {STEPS} steps of size {LR}",
            partial(_paths, kind), ("strength",)),
    ), (strength,), SOURCES[kind])  # fmt: skip


LEADS = {
    "l1": """To get zeros, add $\\lambda \\lvert w \\rvert$ to the loss. How the step is taken decides
            whether the zeros come: a step along the subgradient only dances around them.""",
    "l2": """Adding $\\lambda w^2$ to the loss keeps weights small. It is often listed among the
            ways to get sparse weights. It is none: look at the zeros.""",
}
TEXTS = {
    "l1": (
        "The slope of $|w|$ is +1 or −1, and anything between at 0, where refimpl takes 0.",
        """Instead of following the slope, solve for the penalty exactly: every weight moves towards
            zero by t, and stops there. This is the soft threshold.""",
        """The loss is $\\frac{1}{2}|w - a|^2$ with a the fixture's weights, from which the descent
            starts. Its best weights under the penalty are known: the soft threshold of a.""",
    ),
    "l2": (
        "The slope of $w^2$ is $2w$: it fades where the weight is small.",
        "Solved exactly, the penalty divides every weight by the same number.",
        """The loss is $\\frac{1}{2}|w - a|^2$ with a the weights of the fixture on L1, from which
            the descent starts. The best weights are $a / (1 + 2\\lambda)$.""",
    ),
}
SOURCES = {
    "l1": ("I. Daubechies, M. Defrise, C. De Mol: An iterative thresholding algorithm. 2004",
           "A. Beck, M. Teboulle: A fast iterative shrinkage-thresholding algorithm. 2009"),
    "l2": ("N. Parikh, S. Boyd: Proximal algorithms. 2014",),
}  # fmt: skip


def l1() -> Topic:
    """Return the page on L1."""
    return _topic("l1")


def l2() -> Topic:
    """Return the page on L2."""
    return _topic("l2")
