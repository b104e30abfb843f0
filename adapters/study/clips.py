"""What the pages on clipping share: directions, histograms, and tables of before and after."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from adapters.study.model import Mark, Plot, Stop, Table
from adapters.study.numbers import exact, rounded, ulp_words, ulps, vector
from refimpl import clipping

GREY, BLUE, ORANGE = 0, 1, 2


def flat(tensors: Sequence[Any]) -> Any:
    """Return all elements of a list of tensors in one row, absent ones left out."""
    return np.concatenate([np.ravel(t) for t in tensors if t is not None])


def direction(before: Sequence[Any], after: Sequence[Any]) -> tuple[float, float]:
    """Return the cosine and the angle (degrees) between two gradients, in float64; NaN for a zero one.

    The angle comes from |u - v| and |u + v|, which keeps its digits where the cosine is nearly 1.
    """
    u, v = flat(before).astype(np.float64), flat(after).astype(np.float64)
    lengths = float(np.linalg.norm(u)), float(np.linalg.norm(v))
    if not all(0 < n < math.inf for n in lengths):
        return math.nan, math.nan
    u, v = u / lengths[0], v / lengths[1]
    half = math.atan2(float(np.linalg.norm(u - v)), float(np.linalg.norm(u + v)))
    return math.cos(2 * half), math.degrees(2 * half)


def angle_words(degrees: float) -> str:
    """Return an angle; what float32 rounding makes of 0 is called 0."""
    if math.isnan(degrees):
        return "undefined"
    return "0°" if degrees < 1e-4 else f"{rounded(degrees)}°"


def cosine_words(cosine: float) -> str:
    """Return a cosine to six digits."""
    return "undefined" if math.isnan(cosine) else rounded(cosine, 6)


def before_after(
    caption: str,
    before: Sequence[Any],
    after: Sequence[Any],
    canonical: Sequence[Any] | None = None,
) -> Table:
    """Return a table of elements before and after, and how far off the canonical clip they are."""
    rows, states = [], []
    for index, (b, a) in enumerate(zip(before, after, strict=True)):
        for at in np.ndindex(b.shape):
            place = f"`g{index + 1}{list(at)}`" if at else f"`g{index + 1}`"
            apart = (ulp_words(ulps(a[at], canonical[index][at])),) if canonical else ()
            rows.append((place, exact(b[at]), exact(a[at]), *apart))
            same = b[at] == a[at] or (b[at] != b[at] and a[at] != a[at])
            states.append("" if same else "here")
    heads = ("element", "before", "after", *(["off the canonical"] if canonical else []))
    return Table(caption, heads, tuple(rows), tuple(states))


def bars(caption: str, before: Sequence[Any], after: Sequence[Any]) -> Plot:
    """Return each element before and after as a pair of bars."""
    b, a = flat(before).tolist(), flat(after).tolist()
    return Plot(
        caption,
        "element",
        "value",
        (
            Mark("bars", "before", tuple((i + 0.6, i + 1.0, v) for i, v in enumerate(b)), GREY),
            Mark("bars", "after", tuple((i + 1.0, i + 1.4, v) for i, v in enumerate(a)), BLUE),
        ),
    )


def histogram(caption: str, before: Any, after: Any, low: float, high: float, bins: int) -> Plot:
    """Return how many elements lie in each interval, before and after."""
    edges = np.linspace(low, high, bins + 1)
    series = []
    for name, values, colour in (("before", before, GREY), ("after", after, BLUE)):
        count, _ = np.histogram(np.asarray(values, np.float64), edges)
        points = zip(edges[:-1].tolist(), edges[1:].tolist(), count.tolist(), strict=True)
        series.append(Mark("bars", name, tuple(points), colour))
    return Plot(caption, "value of an element", "elements", tuple(series))


def arrows(caption: str, **ends: tuple[float, float]) -> Plot:
    """Return arrows from the origin; the first is the gradient itself."""
    marks = tuple(
        Mark("arrow", name.replace("_", " "), ((0.0, 0.0, float(x), float(y)),), colour)
        for colour, (name, (x, y)) in enumerate(ends.items())
    )
    return Plot(caption, "first element", "second element", marks, square=True)


def thresholds(
    usual: Sequence[float], own: float, broken: float, what: str = "norm"
) -> tuple[Stop, ...]:
    """Return the stops of a threshold: usual ones, the fixture's own, and around the break point."""
    edge = np.float32(broken)
    notes = {
        float(own): "the fixture's threshold",
        float(np.nextafter(edge, np.float32(0))): "one float32 below the break point",
        float(edge): f"the break point: threshold = {what}",
        float(np.nextafter(edge, np.float32(np.inf))): "one float32 above it",
    }
    values = sorted({float(v) for v in usual} | set(notes))
    return tuple(
        Stop(v, exact(np.float32(v)) if v in notes else exact(v), notes.get(v, "")) for v in values
    )


def at_value(stops: Sequence[Stop], value: Any) -> int:
    """Return the index of the stop with a value."""
    return next(i for i, stop in enumerate(stops) if stop.value == value)


def by_global_norm(grads: Sequence[Any], c: float) -> list[Any]:
    """Return the gradients clipped by their global norm, to compare another clip with."""
    return list(clipping.clip_global_norm(list(grads), c)[0])


def squares(values: Any) -> str:
    """Return LaTeX for a sum of squares."""
    return " + ".join(
        f"{exact(v)}^2" if v >= 0 and not np.signbit(v) else f"({exact(v)})^2"
        for v in np.ravel(values)
    )


def listed(tensors: Sequence[Any], most: int = 12) -> str:
    """Return a list of tensors in one line."""
    return ", ".join("absent" if t is None else vector(t, most) for t in tensors)
