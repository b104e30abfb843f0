"""Per-example clipping, step by step."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from adapters.study import clips, edges
from adapters.study.cases import case, number
from adapters.study.clips import angle_words, at_value, direction, flat
from adapters.study.excerpts import excerpt
from adapters.study.global_norm_numbers import coefficient
from adapters.study.model import Choice, Control, Fill, Mark, Plot, Stage, Stop, Table, Topic
from adapters.study.numbers import exact
from refimpl import adaptive_clipping, clipping

OPERATION = "clip.per_example"
CASE = f"{OPERATION}/mean-f32"
EDGES = (
    ("opposite examples", "mean-of-opposites"), ("a zero example", "zero-example"), ("a NaN example",
        "nan-example-and-others"),
    ("an infinite example", "infinite-example"), ("threshold 0", "zero-limit"), ("threshold ∞",
        "infinite-limit"),
    ("squares overflow", "square-overflow"), ("squares vanish", "square-underflow"), ("cancellation",
        "cancellation"),
)  # fmt: skip
Grads = list[Any]


def clip(grads: Grads, c: float, **options: Any) -> tuple[Grads, Any]:
    """Return refimpl's reduced gradient and the norms of the examples."""
    return adaptive_clipping.clip_per_example(grads, c, **options)


@cache
def _grads() -> Grads:
    return list(case(CASE).inputs["grads"])


def _example(b: int) -> Grads:
    return [g[b] for g in _grads()]


def _norms(choice: Choice) -> Fill:
    _, own = clip(_grads(), 1.0)
    rows = [(f"example {b}", clips.listed(_example(b)), exact(n)) for b, n in enumerate(own)]
    return Fill(
        rf"n_0 = \sqrt{{{clips.squares([v for v in flat(_example(0)) if v])}}} = «n»",
        {"n": exact(own[0])},
        "A norm of each example over all tensors. Examples 0 and 2 are eleven times as long as example 1.",
        (Table("Examples", ("example", "its gradient, tensor by tensor", "norm"), tuple(rows)),),
    )


def _factors(choice: Choice) -> Fill:
    c = choice["threshold"]
    _, own = clip(_grads(), c)
    rows, states = [], []
    for b, n in enumerate(own):
        k = coefficient(_example(b), c, {})
        clipped = clips.by_global_norm(_example(b), c)
        rows.append(
            (
                f"example {b}",
                exact(n),
                exact(k),
                exact(clipping.global_norm(clipped)),
                clips.listed(clipped),
            )
        )
        states.append("here" if k != 1 else "")
    bars = tuple((b + 0.6, b + 1.0, float(n)) for b, n in enumerate(own))
    after = tuple((b + 1.0, b + 1.4, float(min(n, c))) for b, n in enumerate(own))
    return Fill(
        r"k_0 = \min\left(1, \frac{«c»}{«n»}\right) = «k»",
        {"c": exact(np.float32(c)), "n": rows[0][1], "k": rows[0][2]},
        f"{states.count('here')} of {len(rows)} examples are shortened.",
        (Plot("Norm of each example, before and after", "example", "norm",
              (Mark("bars", "before", bars, 0), Mark("bars", "after", after, 1), Mark("across",
                  "threshold c", ((c,),), 2))),
         Table("Factors", ("example", "norm", "factor", "norm after", "clipped gradient"), tuple(rows),
             tuple(states))),
    )  # fmt: skip


def _reduced(choice: Choice) -> Fill:
    c = choice["threshold"]
    reduction = choice["reduction"]
    made, _ = clip(_grads(), c, reduction=reduction)
    plain = [
        (g.sum(axis=0) / (len(g) if reduction == "mean" else 1)).astype(g.dtype) for g in _grads()
    ]
    late = clips.by_global_norm(plain, c)
    rows = []
    for name, result in (
        ("not clipped", plain),
        ("each example clipped first", made),
        (f"the {reduction} clipped afterwards", late),
    ):
        _, degrees = direction(plain, result)
        rows.append(
            (name, clips.listed(result), exact(clipping.global_norm(result)), angle_words(degrees))
        )
    parts = [clips.by_global_norm(_example(b), c)[1][0] for b in range(3)]
    divisor = "3" if reduction == "mean" else "1"
    return Fill(
        r"\frac{«a» + «b» + «d»}{«m»} = «r»",
        {"a": exact(parts[0]), "b": exact(parts[1]), "d": exact(parts[2]), "m": divisor,
            "r": exact(made[1][0])},
        "The formula shows the first element of the second tensor. Clipping first bounds what any single "
            "example can do;"
        " clipping afterwards bounds only the result, which the long examples still decide.",
        (Table(f"The {reduction} over the examples", ("", "gradient", "norm", "turned by"), tuple(rows)),
         clips.bars(f"The {reduction}: clipped afterwards (grey) and each example first", late, made)),
    )  # fmt: skip


def _edges(choice: Choice) -> Fill:
    rows = []
    for name, case_id in EDGES:
        chosen = case(f"{OPERATION}/{case_id}-f32")
        g = list(chosen.inputs["grads"])
        params = dict(chosen.params)
        c = number(params.pop("max_norm"))
        made, own = clip(g, c, **params)
        rows.append(
            (
                f"{name}: `{case_id}-f32`",
                clips.listed(g, 6),
                exact(np.float32(c)),
                clips.listed([own]),
                edges.shown(made),
            )
        )
    return Fill(
        r"\mathrm{NaN} + x = \mathrm{NaN}",
        {},
        "A single bad example makes the whole sum NaN: better seen than averaged away.",
        (
            Table(
                "Corner cases",
                ("what", "gradients of the examples", "threshold", "norms", "result"),
                tuple(rows),
            ),
        ),
    )


def topic() -> Topic:
    """Return the page."""
    own = number(case(CASE).params["max_norm"])
    stops = clips.thresholds(
        (0.0, 0.25, 0.5, 1.0, 1.5, 3, 4, 6, 8, 10, 15), own, 13.0, "largest norm"
    )
    rows = excerpt(
        adaptive_clipping._reduced, "scaled = clipped", "return astype", ("scaled =", "total =")
    )
    return Topic("per_example", "Per-example clip", LEAD, (
        Stage("norms", "A norm for each example", """For this each example's gradient must be kept
            by itself, with the examples along the first axis of every tensor. The norm of an
            example runs over all tensors.""",
            r"n_b = \sqrt{\sum_t \sum_i g_{b,t,i}^2}",
            (excerpt(adaptive_clipping.clip_per_example, "joint = scaled_norm", "norms = xp.reshape"),),
                CASE, _norms),
        Stage("factors", "A factor for each example", "Each example is shortened to length $c$ if it is "
            "longer. The others stay.",
            r"k_b = \min\left(1, \frac{c}{n_b}\right)", (rows,), CASE, _factors, ("threshold",)),
        Stage("reduce", "Add up, or average", """Only now the examples are added up. Whatever one
            example was, it moves the sum by at most $c$: that bound is what differential privacy
            adds its noise to.""",
            r"g = \frac{1}{m} \sum_b k_b \, g_b", (rows,), CASE, _reduced, ("threshold", "reduction")),
        Stage("edges", "Zeros, NaN, infinities, overflow", "Each row is a case of the suite.",
            r"g = \sum_b k_b \, g_b", (rows,),
            f"{OPERATION}/*-f32, named in the table", _edges),
    ), (
        Control("threshold", "threshold c", stops, "slider", at_value(stops, own)),
        Control("reduction", "over the examples", (Stop("mean", "mean"), Stop("sum", "sum"))),
    ), ("M. Abadi et al.: Deep learning with differential privacy. CCS 2016",))  # fmt: skip


LEAD = """A batch's gradient is the mean of its examples' gradients, and one strange example can
rule it. Per-example clipping shortens each example's gradient before the mean is taken, so that no
example counts for more than $c$."""
