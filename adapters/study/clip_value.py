"""The value clip, step by step."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from adapters.study import clips, edges
from adapters.study.cases import case, dialect_control, number, run, setting_of
from adapters.study.clips import angle_words, at_value, cosine_words, direction, flat
from adapters.study.excerpts import excerpt
from adapters.study.model import Choice, Control, Fill, Stage, Table, Topic
from adapters.study.numbers import exact, rounded
from conformance.operation import Setting
from refimpl import clipping

OPERATION = "clip.value"
CASE = f"{OPERATION}/symmetric-f32"
LARGE = "clip.global_norm/long-uneven-f32"
EDGES = (
    ("NaN elements", "nan"), ("infinite elements", "infinite-gradient"), ("infinite bounds", "infinite-bounds"),
    ("bounds of 0", "zero-limit"), ("crossed bounds", "crossed"), ("a NaN bound", "nan-bound"),
    ("subnormal elements", "subnormal"), ("elements at the bounds", "at-bound"),
    ("a bound beyond float32", "beyond-float32"), ("a bound that float32 rounds", "tenth"),
)  # fmt: skip
Grads = list[Any]


def clip(grads: Grads, c: float, setting: Setting | None = None) -> tuple[Grads, Any]:
    """Return refimpl's clip to ±c under a library's setting."""
    return run(clipping.clip_value, grads, setting or {}, min=-c, max=c), None


@cache
def _grads() -> Grads:
    return list(case(CASE).inputs["grads"])


def _limited(choice: Choice) -> Fill:
    c = choice["threshold"]
    clipped, _ = clip(_grads(), c)
    before, after = flat(_grads()), flat(clipped)
    changed = int(np.sum(before != after))
    i = int(np.argmax(np.abs(before)))
    return Fill(
        r"\hat g_i = \min(\max(«g», -«c»), «c») = «r»",
        {"g": exact(before[i]), "c": exact(np.float32(c)), "r": exact(after[i])},
        f"{changed} of {before.size} elements lie outside and are moved to the nearer bound; the others "
            f"keep every bit.",
        (clips.bars("Each element before and after", _grads(), clipped),
         clips.before_after("The numbers", _grads(), clipped)),
    )  # fmt: skip


def _turned(choice: Choice) -> Fill:
    c = choice["threshold"]
    g = _grads()
    valued, _ = clip(g, c)
    n = float(clipping.global_norm(valued))
    normed = clips.by_global_norm(g, n)
    rows, ends = [], []
    for name, made in (
        ("gradient", g),
        ("clip by value", valued),
        ("norm clip to the same length", normed),
    ):
        cosine, degrees = direction(g, made)
        rows.append(
            (name, exact(clipping.global_norm(made)), cosine_words(cosine), angle_words(degrees))
        )
        ends.append((name.replace(" ", "_"), (made[0][0, 0], made[0][1, 2])))
    dot = float(np.dot(flat(g).astype(np.float64), flat(valued).astype(np.float64)))
    cosine, degrees = direction(g, valued)
    says = "Nothing is clipped, so nothing turns."
    if degrees > 1e-4:
        says = f"The gradient turns by {angle_words(degrees)}. A norm clip to the same length does not turn it."
    elif math.isnan(degrees):
        says = "Nothing is left, and a zero vector has no direction."
    values = {"dot": rounded(dot, 7), "n": exact(clipping.global_norm(g)),
        "m": exact(clipping.global_norm(valued)),
              "cos": cosine_words(cosine)}  # fmt: skip
    return Fill(
        r"\cos\theta = \frac{«dot»}{«n» \cdot «m»} = «cos»",
        values,
        says,
        (clips.arrows("Two of the elements, 3 and −7, as an arrow", **dict(ends)),
         Table("All nine elements", ("", "length", "cosine with the gradient", "angle"), tuple(rows))),
    )  # fmt: skip


def _histogram(choice: Choice) -> Fill:
    g = list(case(LARGE).inputs["grads"])
    c = choice["bound"]
    clipped, _ = clip(g, c)
    share = float(np.mean(np.abs(flat(g)) > np.float32(c)))
    return Fill(
        r"\hat g_i = \min(\max(g_i, -«c»), «c»)",
        {"c": exact(c)},
        f"{rounded(100 * share, 3)} % of the elements pile up at the two bounds; the middle is as it was.",
        (clips.histogram(f"{flat(g).size:,} elements before and after", flat(g), flat(clipped), -1.0, 1.0,
            41),),
    )  # fmt: skip


def _edges(choice: Choice) -> Fill:
    rows, states, off = [], [], 0
    setting = setting_of(OPERATION, choice)
    for name, case_id in EDGES:
        chosen = case(f"{OPERATION}/{case_id}-f32")
        bounds = {k: number(v) for k, v in chosen.params.items()}
        g = list(chosen.inputs["grads"])
        wanted, got = _answer(g, bounds, {}), _answer(g, bounds, setting)
        apart = edges.distance(got, wanted)
        off += apart != "same bits"
        limits = (
            f"[{exact(np.float64(bounds.get('min', -math.inf)))}, "
            f"{exact(np.float64(bounds.get('max', math.inf)))}]"
        )
        rows.append(
            (
                f"{name}: `{case_id}-f32`",
                clips.listed(g, 3),
                limits,
                edges.shown(wanted),
                edges.shown(got),
                apart,
            )
        )
        states.append("" if apart == "same bits" else "bad")
    heads = ("what", "gradient", "interval", "canonical", "this library", "difference")
    return Fill(
        r"\mathrm{NaN} < a \ \text{is false,}\quad \mathrm{NaN} > b \ \text{is false}".replace(
            r"\ ", r"\;"
        ),
        {},
        f"{off} of {len(EDGES)} rows differ from the canonical answer.",
        (Table("Corner cases", heads, tuple(rows), tuple(states)),),
    )


def _answer(grads: Grads, bounds: dict[str, float], setting: Setting) -> Grads | str:
    try:
        result: Grads = run(clipping.clip_value, grads, setting, **bounds)
        return result
    except ValueError as refusal:
        return str(refusal)


def topic() -> Topic:
    """Return the page."""
    largest = float(np.max(np.abs(flat(_grads()))))
    usual = (0.0, 0.125, 0.25, 0.5, 0.75, 1.5, 2, 2.5, 3, 3.5, 4, 5, 6, 8)
    stops = clips.thresholds(usual, number(case(CASE).params["max"]), largest, "largest element")
    bound = clips.thresholds((0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9), 0.25, 1.0, "the edge")
    bound = tuple(stop for stop in bound if "float32" not in stop.note and stop.value <= 1)
    bound = tuple(type(stop)(stop.value, stop.label) for stop in bound)
    line = excerpt(
        clipping._limited, "lowest, highest =", "return limited", ("limited = xp.where",)
    )
    return Topic("value", "Value clip", LEAD, (
        Stage("limit", "Cut each element", """Every element by itself is put into the interval $[-c,
            c]$: what is below becomes $-c$, what is above becomes $c$, and what is inside stays as
            it is, bit for bit. The break point is the largest magnitude: from there on nothing is
            clipped.""",
            r"\hat g_i = \min(\max(g_i, -c), c)", (line,), CASE, _limited, ("threshold",)),
        Stage("direction", "Why the direction turns", """The proportions between the elements are
            the direction of the gradient. Cutting the large elements and sparing the small ones
            changes the proportions, so the arrow turns towards the diagonal, where all elements are
            equally large. A norm clip multiplies all elements by one number, which keeps every
            proportion.""",
            r"\cos\theta = \frac{g \cdot \hat g}{\lVert g \rVert \, \lVert \hat g \rVert}",
            (line,), CASE, _turned, ("threshold",)),
        Stage("histogram", "What a histogram shows", """9,200 elements spread evenly over −1 … 1.
            The value clip leaves the middle alone and piles up everything else at $-c$ and $c$.""",
            r"\hat g_i = \min(\max(g_i, -c), c)", (line,), LARGE, _histogram, ("bound",)),
        Stage("edges", "Zeros, NaN, infinities, subnormal numbers", """NaN is neither below nor
            above a bound, so it stays NaN and can be noticed; a clip that made a number of it would
            hide the fault. An infinite element becomes the bound: after a value clip an overflow
            cannot be seen any more.""",
            r"\hat g_i = g_i \quad\text{unless}\quad g_i < a \;\text{or}\; g_i > b",
            (excerpt(clipping._limited, "# Comparing with where", "limited = xp.where"),),
            f"{OPERATION}/*-f32, named in the table", _edges, ("dialect",)),
    ), (
        Control("threshold", "threshold c", stops, "slider", at_value(stops, 1.0)),
        Control("bound", "threshold for the large gradient", bound, "slider", at_value(bound, 0.5)),
        dialect_control(OPERATION),
    ), ("T. Mikolov: Statistical language models based on neural networks. PhD thesis, Brno 2012",
        ))  # fmt: skip


LEAD = """The simplest clip: no element of the gradient may be larger than $c$ or smaller than $-c$.
It needs no norm and no look at the other elements. The price is that the gradient turns: the step
no longer goes where the loss falls most steeply."""
