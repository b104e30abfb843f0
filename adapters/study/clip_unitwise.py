"""Adaptive gradient clipping (AGC), step by step."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from adapters.study import clips, edges
from adapters.study.cases import case, number
from adapters.study.clips import angle_words, at_value, cosine_words, direction
from adapters.study.excerpts import excerpt
from adapters.study.global_norm_numbers import coefficient
from adapters.study.model import Choice, Control, Fill, Stage, Stop, Table, Topic
from adapters.study.numbers import exact
from refimpl import adaptive_clipping, clipping, norms

OPERATION = "clip.unitwise"
CASE = f"{OPERATION}/dense-in-out-f32"
EDGES = (
    ("weights of zero", "zero-weights"), ("a zero gradient", "zero-gradient"), ("one bad unit", "one-bad-unit"),
    ("NaN and infinite gradient", "nonfinite-gradient"), ("NaN and infinite weights", "nonfinite-weights"),
    ("λ = 0", "zero-clipping"), ("λ = ∞", "infinite-clipping"), ("squares overflow", "square-overflow"),
    ("squares vanish", "square-underflow"), ("a column as one unit", "column"),
)  # fmt: skip
Grads = list[Any]


def clip(grads: Grads, weights: Grads, limit: float, **options: Any) -> Grads:
    """Return refimpl's clipped gradients."""
    axis = options.pop("unit_axis", -1)
    return adaptive_clipping.clip_unitwise(grads, weights, limit, axis, **options)


@cache
def _inputs() -> tuple[Grads, Grads]:
    chosen = case(CASE)
    return list(chosen.inputs["grads"]), list(chosen.inputs["weights"])


def _units(axis: int) -> list[tuple[str, Any, Any]]:
    """Return each unit's name, gradient and weights; a vector is one unit."""
    (g, b), (w, v) = _inputs()
    word = "column" if axis == -1 else "row"
    count = g.shape[axis]
    units = [(f"{word} {i}", np.take(g, i, axis), np.take(w, i, axis)) for i in range(count)]
    return [*units, ("the bias", b, v)]


def _norms(choice: Choice) -> Fill:
    rows = []
    for name, g, w in _units(choice["axis"]):
        rows.append((name, clips.listed([w]), exact(clipping.global_norm([w])), clips.listed([g]),
                     exact(clipping.global_norm([g]))))  # fmt: skip
    first = _units(choice["axis"])[0]
    return Fill(
        rf"\lVert w_0 \rVert = \sqrt{{{clips.squares(first[2])}}} = «w» \quad \lVert g_0 \rVert = "
        rf"\sqrt{{{clips.squares(first[1])}}} = «g»",
        {"w": rows[0][2], "g": rows[0][4]},
        f"{len(rows)} units. A bias vector counts as one unit.",
        (Table("Units", ("unit", "weights", "their norm", "gradient", "its norm"), tuple(rows)),),
    )


def _limits(choice: Choice) -> Fill:
    lam, axis = choice["lambda"], choice["axis"]
    grads, weights = _inputs()
    clipped = clip(grads, weights, lam, unit_axis=axis)
    after = [np.take(clipped[0], i, axis) for i in range(clipped[0].shape[axis])] + [clipped[1]]
    rows, states = [], []
    for (name, g, w), made in zip(_units(axis), after, strict=True):
        nw, ng = clipping.global_norm([w]), clipping.global_norm([g])
        limit = np.float32(lam) * max(nw, np.float32(1e-3))
        k = coefficient([g], float(limit), {})
        rows.append((name, exact(nw), exact(limit), exact(ng), exact(k), clips.listed([made])))
        states.append("here" if k != 1 else "")
    return Fill(
        r"k_0 = \min\left(1, \frac{«l» \cdot \max(«w», 0.001)}{«g»}\right) = \min\left(1, "
            r"\frac{«c»}{«g»}\right) = «k»",
        {"l": exact(lam), "w": rows[0][1], "g": rows[0][3], "c": rows[0][2], "k": rows[0][4]},
        f"{states.count('here')} of {len(rows)} units exceed their limit.",
        (Table("Each unit against its own weights",
               ("unit", "norm of weights", "limit", "norm of gradient", "factor", "gradient after"),
                   tuple(rows), tuple(states)),
         clips.bars("Each element before and after", grads, clipped)),
    )  # fmt: skip


def _compared(choice: Choice) -> Fill:
    lam, axis = choice["lambda"], choice["axis"]
    grads, weights = _inputs()
    clipped = clip(grads, weights, lam, unit_axis=axis)
    n = float(clipping.global_norm(clipped))
    together = clips.by_global_norm(grads, n)
    rows = []
    for name, made in (
        ("the gradient itself", grads),
        ("AGC", clipped),
        ("global-norm clip to the same norm", together),
    ):
        cosine, degrees = direction(grads, made)
        rows.append(
            (name, exact(clipping.global_norm(made)), cosine_words(cosine), angle_words(degrees))
        )
    cosine, degrees = direction(grads, clipped)
    ends = {"gradient": (grads[0][0, 0], grads[0][0, 1]), "AGC": (clipped[0][0, 0], clipped[0][0, 1]),
            "global-norm_clip": (together[0][0, 0], together[0][0, 1])}  # fmt: skip
    return Fill(
        r"\cos\theta = «cos» \quad \theta = «angle»",
        {"cos": cosine_words(cosine), "angle": angle_words(degrees)},
        f"AGC turns the gradient by {angle_words(degrees)}: a unit with small weights is held back more "
            f"than one with large weights.",
        (clips.arrows("The elements 3 and −12 of the first row, as an arrow", **ends),
         Table("Directions", ("", "norm", "cosine", "angle"), tuple(rows))),
    )  # fmt: skip


def _edges(choice: Choice) -> Fill:
    rows = []
    for name, case_id in EDGES:
        chosen = case(f"{OPERATION}/{case_id}-f32")
        g, w = list(chosen.inputs["grads"]), list(chosen.inputs["weights"])
        params = dict(chosen.params)
        limit = number(params.pop("clipping"))
        made = clip(g, w, limit, **params)
        rows.append((f"{name}: `{case_id}-f32`", clips.listed(w, 4), clips.listed(g, 4),
            exact(np.float32(limit)),
                     edges.shown(made)))  # fmt: skip
    return Fill(
        r"\max(0, 0.001) = 0.001",
        {},
        "Weights of zero still get a gradient, through eps; a NaN stays within its unit.",
        (Table("Corner cases", ("what", "weights", "gradient", "λ", "clipped"), tuple(rows)),),
    )


def topic() -> Topic:
    """Return the page."""
    own = number(case(CASE).params["clipping"])
    values = (0.0, 0.01, 0.05, 0.1, own, 0.25, 0.5, 1.0, 2.0, 4.0)
    lambdas = tuple(Stop(v, exact(v), "the fixture's λ" if v == own else "") for v in values)
    axes = (Stop(-1, "column (in, out)"), Stop(0, "row (out, in)"))
    limit = excerpt(
        adaptive_clipping._clipped_units, "of_weight =", "limit = scalar", ("limit = scalar",)
    )
    return Topic("agc", "Adaptive gradient clipping (AGC)", LEAD, (
        Stage("units", "Norms of weights and gradients", """A unit is one output of a layer: a
            column of a dense kernel stored as (in, out), a row of one stored as (out, in). Its norm
            runs over all its weights. The choice of the axis matters: take the wrong one, and
            weights of different units are mixed.""",
            r"\lVert w_i \rVert = \sqrt{\sum_j w_{ji}^2}",
            (excerpt(adaptive_clipping._norm_axes, "units = [unit_axis]", "return tuple(axis for axis"),),
                CASE, _norms, ("axis",)),
        Stage("limit", "A limit for each unit", """The limit is a share λ of the unit's own weight
            norm: a step may change a unit by no more than that share (times the learning rate).
            Units that start at zero would never move, so their norm counts as at least 0.001.""",
            r"k_i = \min\left(1, \frac{\lambda \max(\lVert w_i \rVert, \varepsilon)}{\lVert g_i \rVert}\right)",
            (limit, excerpt(norms.factors, "direct = c / bottom")), CASE, _limits, ("lambda", "axis")),
        Stage("direction", "What turns", """Every unit keeps its own direction. The gradient as a
            whole turns, since every unit has its own factor. Compare the global-norm clip to the
            same norm, which has one factor.""",
            r"\cos\theta = \frac{g \cdot \hat g}{\lVert g \rVert \, \lVert \hat g \rVert}", (limit,), CASE,
                _compared,
            ("lambda", "axis")),
        Stage("edges", "Zeros, NaN, infinities, overflow", "What the edges of the formula do, each from a "
            "case of the suite.",
            r"\max(\lVert w_i \rVert, \varepsilon)",
            (excerpt(adaptive_clipping._clipped_units, "least =", "limit = xp.full_like"),),
            f"{OPERATION}/*-f32, named in the table", _edges),
    ), (
        Control("lambda", "λ", lambdas, "slider", at_value(lambdas, own)), Control("axis", "a unit is a", axes),
    ), ("A. Brock, S. De, S. Smith, K. Simonyan: High-performance large-scale image recognition without "
        "normalization. ICML 2021",))  # fmt: skip


LEAD = """How large a gradient is too large depends on the weights that it changes: a step of 1 is
nothing to a weight of 100 and the end of a weight of 0.01. Adaptive clipping therefore compares
each unit's gradient with the unit's own weights."""
