"""The norm clip of each tensor by itself, step by step."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from adapters.study import clips, edges
from adapters.study.cases import NAMES, case, dialect_control, number, run, setting_of, settings
from adapters.study.clips import angle_words, at_value, cosine_words, direction
from adapters.study.excerpts import excerpt
from adapters.study.global_norm_numbers import coefficient
from adapters.study.model import Choice, Control, Fill, Stage, Table, Topic
from adapters.study.numbers import exact, ulp_words, ulps, vector
from conformance.operation import Setting
from refimpl import clipping, norms

OPERATION = "clip.norm"
CASE = f"{OPERATION}/own-norms-f32"
EDGES = (
    ("a zero gradient", "zero-gradient"), ("threshold 0", "zero-limit"), ("threshold ∞", "infinite-limit"),
    ("NaN element", "nan-gradient"), ("infinite element", "infinite-gradient"),
    ("squares overflow", "square-overflow"), ("squares vanish", "square-underflow"),
    ("subnormal elements", "subnormal"), ("norm = threshold", "at-threshold"), ("negative threshold",
        "negative-limit"),
)  # fmt: skip
Grads = list[Any]


def clip(grads: Grads, c: float, setting: Setting | None = None) -> tuple[Grads, Any]:
    """Return refimpl's clipped gradients and their norms under a library's setting."""
    clipped, own = run(clipping.clip_norm, grads, setting or {}, c)
    return clipped, own


@cache
def _grads() -> Grads:
    return list(case(CASE).inputs["grads"])


def _norms(choice: Choice) -> Fill:
    _, own = clip(_grads(), 1.0)
    rows = [
        (f"`g{i + 1}`", vector(g), exact(n))
        for i, (g, n) in enumerate(zip(_grads(), own, strict=True))
    ]
    return Fill(
        rf"n_1 = \sqrt{{{clips.squares(_grads()[0])}}} = «n»",
        {"n": exact(own[0])},
        "Three tensors, three norms. Nothing is added up across tensors.",
        (Table("Each tensor's norm", ("tensor", "elements", "2-norm"), tuple(rows)),),
    )


def _factors(choice: Choice) -> Fill:
    c, setting = choice["threshold"], setting_of(OPERATION, choice)
    clipped, own = clip(_grads(), c, setting)
    wanted, _ = clip(_grads(), c)
    rows, states = [], []
    for i, (g, n) in enumerate(zip(_grads(), own, strict=True)):
        k = coefficient([g], c, setting)
        rows.append((f"`g{i + 1}`", exact(n), exact(k), exact(clipping.global_norm([clipped[i]])),
                     ulp_words(ulps(clipped[i], wanted[i]))))  # fmt: skip
        states.append("here" if k != 1 else "")
    plus = " + 10^{-6}" if setting.get("eps") else ""
    return Fill(
        rf"k_1 = \min\left(1, \frac{{«c»}}{{«n»{plus}}}\right) = «k»",
        {"c": exact(np.float32(c)), "n": rows[0][1], "k": rows[0][2]},
        f"{states.count('here')} of 3 tensors are multiplied by a factor other than 1.",
        (Table("Each tensor's factor", ("tensor", "norm", "factor", "norm after", "off the canonical"),
               tuple(rows), tuple(states)),
         clips.bars("Each element before and after", _grads(), clipped)),
    )  # fmt: skip


def _turned(choice: Choice) -> Fill:
    c = choice["threshold"]
    g = _grads()
    clipped, _ = clip(g, c)
    together = clips.by_global_norm(g, c)
    rows = []
    for i in range(len(g)):
        cosine, degrees = direction([g[i]], [clipped[i]])
        rows.append(
            (
                f"`g{i + 1}` by its own norm",
                exact(clipping.global_norm([clipped[i]])),
                cosine_words(cosine),
                angle_words(degrees),
            )
        )
    for name, made in (
        ("all, each by its own norm", clipped),
        ("all, by the global norm", together),
    ):
        cosine, degrees = direction(g, made)
        rows.append(
            (name, exact(clipping.global_norm(made)), cosine_words(cosine), angle_words(degrees))
        )
    cosine, degrees = direction(g, clipped)
    ends = {"gradient": (g[0][1, 0], g[2][0, 0, 0]), "each_by_its_own_norm": (clipped[0][1, 0],
        clipped[2][0, 0, 0]),
            "all_by_the_global_norm": (together[0][1, 0], together[2][0, 0, 0])}  # fmt: skip
    return Fill(
        r"\cos\theta = «cos» \quad \theta = \text{angle} = «angle»".replace(r"\text{angle} = ", ""),
        {"cos": cosine_words(cosine), "angle": angle_words(degrees)},
        f"Each tensor keeps its direction. The gradient as a whole turns by {angle_words(degrees)}.",
        (clips.arrows("12 of the first tensor, 2 of the third, as an arrow", **ends),
         Table("Directions", ("", "norm after", "cosine", "angle"), tuple(rows), ("", "", "", "here", ""))),
    )  # fmt: skip


def _libraries(choice: Choice) -> Fill:
    c = choice["threshold"]
    wanted, _ = clip(_grads(), c)
    rows, states = [], []
    for name, setting in settings(OPERATION).items():
        clipped, _ = clip(_grads(), c, setting)
        apart = max(ulps(a, b) for a, b in zip(clipped, wanted, strict=True))
        rows.append(
            (
                NAMES[name],
                *(exact(coefficient([g], c, setting)) for g in _grads()),
                ulp_words(apart),
            )
        )
        states.append("" if apart == 0 else "here")
    return Fill(
        r"k_1 = \frac{«c»}{13} \quad\text{or}\quad \frac{«c»}{13 + 10^{-6}}",
        {"c": exact(np.float32(c))},
        "Numbers of refimpl with the dials at each library's conventions.",
        (Table("Factors", ("library", "`g1`", "`g2`", "`g3`", "largest difference"), tuple(rows),
            tuple(states)),),
    )  # fmt: skip


def topic() -> Topic:
    """Return the page."""
    usual = (0.0, 0.25, 0.5, 1, 1.5, 3, 4, 6, 8, 10, 12, 15, float("inf"))
    stops = clips.thresholds(usual, number(case(CASE).params["max_norm"]), 13.0, "largest norm")
    code = excerpt(clipping.clip_norm, "norms = [", "for g, n in zip")
    return Topic("norm", "Norm clip", LEAD, (
        Stage("norms", "A norm for each tensor", """Square the elements of one tensor, add them up,
            take the root: 3, −4 and 12 give 13. Then the same for the next tensor.""",
            r"n_t = \sqrt{\sum_i g_{t,i}^2}",
            (excerpt(norms.scaled_norm, "squares = sum_of_squares", "norm = scalar"),), CASE, _norms),
        Stage("factors", "A factor for each tensor", """Each tensor whose norm exceeds $c$ is
            shortened to length $c$; the others stay as they are, bit for bit. Choose a library to
            see whose factors differ.""",
            r"k_t = \min\left(1, \frac{c}{n_t}\right) \quad \hat g_t = k_t \, g_t", (code,), CASE, _factors,
            ("threshold", "dialect")),
        Stage("direction", "What turns and what does not", """One factor per tensor keeps the
            direction of each tensor. But the tensors are shortened by different factors, so their
            proportions to each other change, and the gradient of the whole model turns. That is why
            most training code clips by the global norm.""",
            r"\cos\theta = \frac{g \cdot \hat g}{\lVert g \rVert \, \lVert \hat g \rVert}", (code,), CASE,
                _turned,
            ("threshold",)),
        Stage("libraries", "The libraries beside each other", """What `clip_grad_norm_` of one
            tensor, `tf.clip_by_norm`, Keras' `clipnorm`, Optax and MLX make of the same tensors. A
            difference of one ULP is the neighbouring float32.""",
            r"k_t = \frac{c}{n_t + \varepsilon}", (excerpt(norms.factors, "bottom = {", "direct = "),), CASE,
            _libraries, ("threshold",)),
        Stage("edges", "Zeros, NaN, infinities, overflow", """The same corners as for the global
            norm, but a NaN in one tensor leaves the others alone.""",
            r"n = \frac{\sqrt{\sum (s\,g_i)^2}}{s} \quad s = 2^{e}",
            (excerpt(norms._scaled_norm, "usable =", "scale = xp.where"),),
            f"{OPERATION}/*-f32, named in the table", edges.fill(OPERATION, EDGES, clip, "max_norm"),
                ("dialect",)),
    ), (
        Control("threshold", "threshold c", stops, "slider", at_value(stops, 2.0)), dialect_control(OPERATION),
    ), ("R. Pascanu, T. Mikolov, Y. Bengio: On the difficulty of training recurrent neural networks. ICML "
        "2013",))  # fmt: skip


LEAD = """Clipping by norm, one tensor at a time: each weight tensor's gradient gets its own length
and its own factor. Keras calls it `clipnorm`, TensorFlow `clip_by_norm`. Compare `secateurs study
global_norm`, where all tensors share one factor."""
