"""N:M pruning, step by step."""

from __future__ import annotations

from typing import Any

import numpy as np

from adapters.study import prunes
from adapters.study.cases import case
from adapters.study.excerpts import excerpt
from adapters.study.model import Cell, Choice, Control, Fill, Grid, Stage, Stop, Table, Topic
from adapters.study.numbers import exact, rounded
from refimpl import pruning, structured

CASE = "prune.n_m/matrix-last-axis-f32"
PATTERNS = ((2, 4), (1, 4), (3, 4), (1, 2), (2, 8), (4, 8))


def prune(n: int, m: int) -> tuple[Any, Any]:
    """Return refimpl's mask and weights."""
    inputs = case(CASE).inputs
    return structured.prune_n_m(inputs["weights"], inputs["scores"], n=n, m=m, axis=-1)


def _groups(choice: Choice) -> Fill:
    n, m = choice["pattern"]
    weights = case(CASE).inputs["weights"]
    mask, _ = prune(n, m)
    top = float(np.max(np.abs(weights)))
    chosen = choice["place"]
    group = (chosen // 8, chosen % 8 // m)
    rows = tuple(
        tuple(
            Cell(exact(weights[i, j]), float(weights[i, j]) / top if mask[i, j] else 0.0,
                 "patch" if (i, j // m) == group and mask[i, j] else "" if mask[i, j] else "cut", ("place",
                     i * 8 + j))
            for j in range(8)
        )
        for i in range(4)
    )  # fmt: skip
    line = weights[group[0], group[1] * m : (group[1] + 1) * m]
    keeps = mask[group[0], group[1] * m : (group[1] + 1) * m]
    order = sorted(range(m), key=lambda j: (abs(float(line[j])), j))
    table = tuple((str(r + 1), str(group[1] * m + j), exact(line[j]), exact(abs(line[j])),
        "kept" if keeps[j] else "pruned")
                  for r, j in enumerate(order))  # fmt: skip
    return Fill(
        r"k = m - n = «m» - «n» = «k»",
        {"m": str(m), "n": str(n), "k": str(m - n)},
        f"Of every {m} neighbours in a row {n} stay: the density is {rounded(100 * n / m, 4)} % everywhere."
        " Point at a weight to see its group.",
        (
            Grid("The weights, pruned ones crossed out", rows),
            Table(f"The group in row {group[0]}, columns {group[1] * m} to {group[1] * m + m - 1}, sorted",
                  ("rank", "column", "weight", "score", "mask"), table,
                  tuple("cut" if row[4] == "pruned" else "kept" for row in table)),
        ),
    )  # fmt: skip


def _compared(choice: Choice) -> Fill:
    n, m = choice["pattern"]
    inputs = case(CASE).inputs
    weights, scores = inputs["weights"], inputs["scores"]
    mask, pruned = prune(n, m)
    free, without = pruning.prune_fraction([weights], [scores], amount=1 - n / m)
    assert free[0] is not None
    assert without[0] is not None
    rows = []
    for name, kept, left in (
        ("n of m", mask, pruned),
        ("the same number, anywhere", free[0], without[0]),
    ):
        lost = float(
            np.sum(np.abs(weights.astype(np.float64))) - np.sum(np.abs(left.astype(np.float64)))
        )
        each = [int(kept[i].sum()) for i in range(4)]
        rows.append((name, str(int(kept.sum())), ", ".join(map(str, each)), exact(lost)))
    return Fill(
        r"\sum \lvert w \rvert - \sum \lvert \hat w \rvert = «lost»",
        {"lost": rows[0][3]},
        "The pattern costs a little more than free pruning, and buys a form that hardware can use (2:4 "
            "needs two bits of index for each kept weight).",
        (Table("What goes", ("pattern", "kept", "kept in each row", "sum of magnitudes lost"), tuple(rows)),
         prunes.mask_grid("The same number, pruned anywhere", weights, free[0])),
    )  # fmt: skip


def topic() -> Topic:
    """Return the page."""
    patterns = tuple(Stop(p, f"{p[0]}:{p[1]}") for p in PATTERNS)
    places = tuple(Stop(i, f"{i // 8},{i % 8}") for i in range(32))
    return Topic("n_m", "N:M pruning", LEAD, (
        Stage("groups", "Groups of m neighbours", """The rows are cut into groups of m neighbours,
            starting at column 0. In every group the m − n lowest scores go, of equals the lowest
            index first. No group looks at another.""",
            r"\text{in each group:}\quad k = m - n",
            (excerpt(structured.prune_n_m, "pruned = _lowest_of_rows", "mask = live"),), CASE, _groups,
                ("pattern", "place")),
        Stage("cost", "What the pattern costs", """Free pruning takes the lowest scores wherever
            they are. The pattern must take some from every group, even where all scores are high.""",
            r"\sum \lvert w \rvert - \sum \lvert \hat w \rvert",
            (excerpt(structured.prune_n_m, "values = _tiles", "missing ="),), CASE,
            _compared, ("pattern",)),
    ), (
        Control("pattern", "n of m", patterns), Control("place", "weight (row, column)", places, "cell", 9),
    ), ("A. Mishra et al.: Accelerating sparse deep neural networks. 2021",))  # fmt: skip


LEAD = """Of every m neighbours, n are kept. 2:4 is what sparse tensor cores compute with: half of
the weights are gone, and where the others are is told by two bits each."""
