"""Structured pruning, step by step."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from adapters.study import prunes
from adapters.study.cases import case
from adapters.study.excerpts import excerpt
from adapters.study.model import Choice, Control, Fill, Mark, Plot, Stage, Stop, Table, Topic
from adapters.study.numbers import exact, vector
from refimpl import structured

CASE = "prune.structured/rows-f32"
ORDERS = (2.0, 1.0, math.inf)


def prune(choice: Choice) -> tuple[Any, Any]:
    """Return refimpl's mask and weights."""
    options = {"axis": choice["axis"], "amount": choice["amount"], "ord": choice["order"]}
    return structured.prune_structured(case(CASE).inputs["weights"], **options)


def norms(choice: Choice) -> list[Any]:
    """Return refimpl's norm of every slice."""
    rows = structured._slices(np, np.abs(case(CASE).inputs["weights"]), choice["axis"])
    return list(structured._row_norms(np, rows, choice["order"], "exact"))


def _norms(choice: Choice) -> Fill:
    weights = case(CASE).inputs["weights"]
    found = norms(choice)
    word = "row" if choice["axis"] == 0 else "column"
    slices = [np.take(weights, i, choice["axis"]) for i in range(weights.shape[choice["axis"]])]
    rows = tuple(
        (f"{word} {i}", vector(s), exact(n))
        for i, (s, n) in enumerate(zip(slices, found, strict=True))
    )
    first = slices[0]
    formula = {2.0: rf"\sqrt{{{_terms(first, '^2')}}} = «n»", 1.0: rf"{_terms(np.abs(first), '')} = «n»",
               math.inf: rf"\max({', '.join(exact(abs(v)) for v in first)}) = "
                   rf"«n»"}[choice["order"]]  # fmt: skip
    return Fill(
        rf"\lVert w_0 \rVert = {formula}",
        {"n": rows[0][2]},
        f"One score for each {word}. Which {word} is smallest can depend on the norm.",
        (Table("Slices", (word, "weights", "norm"), rows), prunes.mask_grid("The weights", weights,
            np.ones(weights.shape, bool))),
    )  # fmt: skip


def _terms(values: Any, power: str) -> str:
    return " + ".join(exact(v) + power if v >= 0 else f"({exact(v)}){power}" for v in values)


def _cut(choice: Choice) -> Fill:
    weights = case(CASE).inputs["weights"]
    mask, _ = prune(choice)
    found = norms(choice)
    word = "row" if choice["axis"] == 0 else "column"
    kept = np.any(mask, axis=1 - choice["axis"])
    order = sorted(range(len(found)), key=lambda i: (float(found[i]), i))
    bars: dict[bool, list[tuple[float, float, float]]] = {False: [], True: []}
    for rank, i in enumerate(order):
        bars[bool(kept[i])].append((rank + 0.6, rank + 1.4, float(found[i])))
    gone = int((~kept).sum())
    marks = [Mark("bars", name, tuple(bars[key]), colour) for name, key, colour in
             (("pruned", False, 2), ("kept", True, 3)) if bars[key]]  # fmt: skip
    if 0 < gone < len(found):
        marks.append(Mark("upright", "cut", ((gone + 0.5,),), 0))
    rows = tuple(
        (str(r + 1), f"{word} {i}", exact(found[i]), "kept" if kept[i] else "pruned")
        for r, i in enumerate(order)
    )
    return Fill(
        r"k = \mathrm{round}(«a» \cdot «n») = «k»",
        {"a": exact(choice["amount"]), "n": str(len(found)), "k": str(gone)},
        f"{gone} of {len(found)} {word}s go as a whole.",
        (
            Plot(f"Norms of the {word}s, sorted", "rank", "norm", tuple(marks)),
            Table("The ranking", ("rank", word, "norm", "mask"), rows,
                tuple("cut" if r[3] == "pruned" else "kept" for r in rows)),
            prunes.mask_grid("The mask", weights, mask),
        ),
    )  # fmt: skip


def _smaller(choice: Choice) -> Fill:
    weights = case(CASE).inputs["weights"]
    mask, pruned = prune(choice)
    kept = [int(i) for i in np.flatnonzero(np.any(mask, axis=1 - choice["axis"]))]
    small = np.take(pruned, kept, choice["axis"])
    rows = (
        ("as it was", str(list(weights.shape)), str(weights.nbytes)),
        ("masked", str(list(pruned.shape)), str(pruned.nbytes)),
        ("slices taken out", str(list(small.shape)), str(small.nbytes)),
    )
    return Fill(
        r"«rows» \times «columns» \times 4 = «bytes»",
        {"rows": str(small.shape[0]), "columns": str(small.shape[1]), "bytes": str(small.nbytes)},
        "The mask alone saves nothing. Taking the slices out does, and the layer beside it must lose the "
            "same units.",
        (Table("Bytes", ("what", "shape", "bytes"), rows, ("", "", "kept")),
         prunes.mask_grid("What is left, as a smaller tensor", small, np.ones(small.shape, bool))),
    )  # fmt: skip


def topic() -> Topic:
    """Return the page."""
    three = ("amount", "axis", "order")
    return Topic("structured", "Structured pruning", LEAD, (
        Stage("norms", "A score for each slice", "The norm of all weights of a slice is its score.",
              r"\lVert w_i \rVert_p = \left(\sum_j |w_{ij}|^p\right)^{1/p}",
              (excerpt(structured._row_norms, "total = xp.sum", "return root"),), CASE, _norms, ("axis",
                  "order")),
        Stage("cut", "Sort and cut", "Of the slices, the ones with the smallest norms go, all their weights "
            "at once.",
              r"k = \mathrm{round}(a \cdot n)",
              (excerpt(structured.prune_structured, "kept = quota.kept", "mask = live"),), CASE, _cut, three),
        Stage("smaller", "Why this can be smaller", """A hole in the middle of a matrix must be
            stored; a whole row need not. That is the point of structured pruning: what is gone can
            be taken out.""",
            r"\text{bytes} = \text{rows} \times \text{columns} \times 4",
            (excerpt(structured.prune_structured, "return mask, apply_mask"),), CASE, _smaller, three),
    ), (
        prunes.amount_control(0.5, "the fixture's"),
        Control("axis", "slices are", (Stop(0, "rows"), Stop(1, "columns"))),
        Control("order", "norm", tuple(Stop(p, {2.0: "2-norm", 1.0: "1-norm"}.get(p,
            "largest magnitude")) for p in ORDERS)),
    ), ("H. Li et al.: Pruning filters for efficient ConvNets. ICLR 2017",))  # fmt: skip


LEAD = """Pruning whole rows, columns, filters or channels instead of single weights. Each slice
gets one score, the norm of its weights, and goes or stays as a whole."""
