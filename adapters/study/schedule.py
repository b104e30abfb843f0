"""The cubic sparsity schedule, step by step."""

from __future__ import annotations

from typing import Any

import numpy as np

from adapters.study.cases import case
from adapters.study.excerpts import excerpt
from adapters.study.model import Choice, Control, Fill, Mark, Plot, Stage, Stop, Table, Topic
from adapters.study.numbers import exact, rounded
from refimpl import schedules

CASE = "schedule.polynomial/zhu-gupta"
WEIGHTS = 1000


def target(choice: Choice) -> tuple[Any, Any]:
    """Return refimpl's sparsity and updates for the chosen power and frequency."""
    return schedules.polynomial(**parameters(choice))


def parameters(choice: Choice) -> dict[str, Any]:
    """Return the fixture's parameters with the chosen power and frequency."""
    chosen = {key: choice[key] for key in ("power", "frequency") if key in choice}
    return dict(case(CASE).params) | chosen


def _curve(choice: Choice) -> Fill:
    p = parameters(choice)
    sparsity, updates = target(choice)
    t = choice["step"]
    progress = float(np.clip((t - p["begin"]) / (p["end"] - p["begin"]), 0, 1))
    when = (
        "The mask is chosen anew at this step."
        if updates[t]
        else "The mask of the step before stays."
    )
    values = {"f": exact(p["final"]), "d": exact(p["initial"] - p["final"]),
              "p": rounded(progress, 6), "q": exact(float(p["power"])), "s": rounded(float(sparsity[t]),
                  6)}  # fmt: skip
    return Fill(
        r"s = «f» + («d») \cdot (1 - «p»)^{«q»} = «s»",
        values,
        f"Step {t}: {rounded(100 * float(sparsity[t]), 4)} % of the weights should be zero. {when}",
        (
            Plot("Target sparsity", "step", "sparsity", (
                Mark("line", "target", tuple((i, float(s)) for i, s in enumerate(sparsity)), 1),
                Mark("dots", "masks chosen anew", tuple((i, float(s)) for i,
                    s in enumerate(sparsity) if updates[i]), 3),
                Mark("upright", "this step", ((t,),), 2),
            )),
            Table("Every step", ("step", "progress", "sparsity", "new masks"), tuple(
                (str(i), rounded(float(np.clip((i - p["begin"]) / (p["end"] - p["begin"]), 0, 1)), 6),
                    rounded(float(s), 6),
                 "yes" if updates[i] else "")
                for i, s in enumerate(sparsity)),
                    tuple("here" if i == t else "" for i in range(len(sparsity)))),
        ),
    )  # fmt: skip


def _counts(choice: Choice) -> Fill:
    sparsity, updates = target(choice)
    rows, gone, bars = [], 0, []
    for i, s in enumerate(sparsity):
        if updates[i]:
            now = round(float(s) * WEIGHTS)
            rows.append(
                (str(i), rounded(float(s), 6), str(now), str(now - gone), str(WEIGHTS - now))
            )
            bars.append((i - 0.4, i + 0.4, now - gone))
            gone = now
    first = next(row for row in rows if row[3] != "0")
    return Fill(
        r"k = \mathrm{round}(«s» \cdot 1000) = «k»",
        {"s": first[1], "k": first[2]},
        f"The first cut takes {first[3]} of 1000 weights, the last one {rows[-1][3]}.",
        (
            Plot("Weights pruned at each update, of 1000", "step", "weights", (Mark("bars", "pruned",
                tuple(bars), 2),)),
            Table("Each update", ("step", "target", "pruned in all", "pruned now", "left"), tuple(rows)),
        ),
    )  # fmt: skip


def _compared(choice: Choice) -> Fill:
    p = parameters({})
    own = {k: p[k] for k in ("steps", "final", "initial", "begin", "end")}
    lines = {
        "cubic (power 3)": schedules.polynomial(**own, power=3.0)[0],
        "linear (power 1)": schedules.polynomial(**own, power=1.0)[0],
        "exponential": schedules.exponential(**own)[0],
        "all at once": schedules.constant(**own)[0],
    }
    rows = tuple(
        (str(t), *(rounded(float(line[t]), 6) for line in lines.values()))
        for t in range(p["steps"])
    )
    marks = tuple(
        Mark("line", name, tuple(enumerate(map(float, line))), i + 1)
        for i, (name, line) in enumerate(lines.items())
    )
    t = choice["step"]
    return Fill(
        r"s_{\mathrm{cubic}} = «c» \quad s_{\mathrm{linear}} = «l» \quad s_{\mathrm{exp}} = «e»",
        {"c": rows[t][1], "l": rows[t][2], "e": rows[t][3]},
        "The cubic schedule prunes most while much is left to choose from, and little at the end.",
        (Plot("Schedules with the same ends", "step", "sparsity", (*marks, Mark("upright", "this step", ((t,
            ),), 0))),
         Table("Every step", ("step", *lines), rows,
             tuple("here" if i == t else "" for i in range(len(rows))))),
    )  # fmt: skip


def topic() -> Topic:
    """Return the page."""
    steps = tuple(Stop(t, str(t)) for t in range(case(CASE).params["steps"]))
    return Topic("schedule", "Cubic sparsity schedule", LEAD, (
        Stage("curve", "The target at each step", """From the first step of the schedule to its last
            the progress p goes from 0 to 1, and the sparsity from its initial to its final value:
            fast at first, then slower and slower.""",
            r"s_t = s_f + (s_i - s_f)(1 - p)^3 \quad p = \frac{t - t_0}{t_1 - t_0}",
            (excerpt(schedules.polynomial, "curve = final"), excerpt(schedules._progress, "return np.clip")),
            CASE, _curve, ("step", "power", "frequency")),
        Stage("counts", "How many weights go at each update", """Between two updates the masks stay,
            and the network can recover. With a lower frequency each cut is larger.""",
            r"k_t = \mathrm{round}(s_t \cdot n)",
            (excerpt(schedules._updates, "due = (begin", "due = due | "),), CASE, _counts, ("power",
                "frequency")),
        Stage("compare", "Other schedules", "The same ends, other ways between them.",
            r"s_t = 1 - (1 - s_i)^{1 - p}(1 - s_f)^p", (excerpt(schedules.exponential, "curve = 1.0"),),
                CASE, _compared, ("step",)),
    ), (
        Control("step", "step", steps, "slider", 4),
        Control("power", "power", tuple(Stop(p, f"{p:g}") for p in (3.0, 1.0, 2.0, 4.0))),
        Control("frequency", "update every", tuple(Stop(n, f"{n} step{'s' * (n > 1)}") for n in (1, 2, 4))),
    ), ("M. Zhu, S. Gupta: To prune, or not to prune. 2017, equation 1",))  # fmt: skip


LEAD = """Pruning most of a network in one cut ruins it. Gradual pruning raises the target sparsity
step by step while training goes on, and gives the network time to adapt."""
