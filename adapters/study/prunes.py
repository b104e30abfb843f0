"""What the pages on pruning share: sorted scores with the cut, masks as heat maps, densities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from adapters.study.model import Cell, Control, Grid, Mark, Plot, Stop, Table
from adapters.study.numbers import exact, rounded

AMOUNTS = (0.0, 0.1, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.9, 1.0)
ROUNDINGS = ("half_even", "floor", "ceil", "kept_half_even", "kept_floor")
TIES = ("lowest_index_first", "highest_index_first", "keep_all", "prune_all")


def amount_control(own: float, note: str) -> Control:
    """Return the slider of the pruned fraction."""
    values = sorted({*AMOUNTS, own})
    stops = tuple(Stop(v, f"{100 * v:g} %", note if v == own else "") for v in values)
    return Control("amount", "amount to prune", stops, "slider", values.index(own))


def scope_control() -> Control:
    """Return the choice between a cut for each tensor and one for all."""
    return Control(
        "scope",
        "the cut is",
        (Stop("tensor", "one for each tensor"), Stop("global", "one for all")),
    )


def in_order(scores: Sequence[Any], scope: str) -> list[tuple[int, int]]:
    """Return (tensor, flat index) of every score, the lowest first; of equals the first first."""
    places = [(t, i) for t, s in enumerate(scores) for i in range(s.size)]
    own = scope == "tensor"
    return sorted(places, key=lambda at: (at[0] if own else 0, float(scores[at[0]].ravel()[at[1]])))


def sorted_scores(caption: str, scores: Sequence[Any], masks: Sequence[Any], scope: str) -> Plot:
    """Return the scores in the order in which they go, with the line between cut and kept."""
    kept: list[tuple[float, float, float]] = []
    cut: list[tuple[float, float, float]] = []
    lines: list[tuple[Any, ...]] = []
    order = in_order(scores, scope)
    for rank, (t, i) in enumerate(order):
        bar = (rank + 0.6, rank + 1.4, float(scores[t].ravel()[i]))
        (kept if masks[t].ravel()[i] else cut).append(bar)
        after = order[rank + 1] if rank + 1 < len(order) else None
        same_group = after is not None and (scope == "global" or after[0] == t)
        if after and same_group and not masks[t].ravel()[i] and masks[after[0]].ravel()[after[1]]:
            lines.append((rank + 1.5,))
    marks = [Mark("bars", "pruned", tuple(cut), 2), Mark("bars", "kept", tuple(kept), 3)]
    marks = [mark for mark in marks if mark.points]
    marks += [Mark("upright", "cut", (line,), 0) for line in lines]
    x = "rank, tensor after tensor" if scope == "tensor" else "rank"
    return Plot(caption, x, "score", tuple(marks))


def mask_grid(
    caption: str, weights: Any, mask: Any, down: str = "row", across: str = "column"
) -> Grid:
    """Return a matrix of weights: the kept ones shaded by their size, the pruned ones crossed out."""
    if not weights.size:
        return Grid(caption, (), across, down)
    matrix = weights.reshape(1, -1) if weights.ndim < 2 else weights.reshape(weights.shape[0], -1)
    keeps = mask.reshape(matrix.shape)
    top = float(np.max(np.abs(matrix), initial=0.0)) or 1.0
    rows = tuple(
        tuple(
            Cell(exact(w), float(w) / top if keep else 0.0, "" if keep else "cut")
            for w, keep in zip(line, kept, strict=True)
        )
        for line, kept in zip(matrix, keeps, strict=True)
    )
    return Grid(caption, rows, across, down)


def densities(named: dict[str, Sequence[Any]]) -> Table:
    """Return how much of each tensor is left under several masks, and of all together."""
    (first, *_) = named.values()
    rows = []
    for t, mask in enumerate(first):
        each = [f"{int(m[t].sum())} of {m[t].size} = {_share(m[t])}" for m in named.values()]
        rows.append((f"`w{t + 1}` {list(mask.shape)}", *each))
    whole = [np.concatenate([m.ravel() for m in masks]) for masks in named.values()]
    rows.append(("all together", *(f"{int(m.sum())} of {m.size} = {_share(m)}" for m in whole)))
    return Table(
        "Density: what is left", ("tensor", *named), tuple(rows), ("",) * len(first) + ("here",)
    )


def _share(mask: Any) -> str:
    return f"{rounded(100 * float(mask.mean()), 3)} %" if mask.size else "nothing"
