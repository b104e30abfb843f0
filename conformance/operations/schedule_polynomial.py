"""``schedule.polynomial``: the sparsity at each step, by a polynomial approach to the final one."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Any

import numpy as np

from conformance.cases import Case, Cases
from conformance.exact import ONE, Reject, real
from conformance.operation import Flag, Mistake, Operation, Param
from conformance.oracle import schedules

Settings = dict[str, Any]


def oracle(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """s(t) = final + (initial - final)·(1 - p)^power, p = (t - begin)/(end - begin) within [0, 1]."""
    schedules.check(settings)
    power = float(settings["power"])
    if not 0 < power < float("inf"):
        raise Reject(f"power must be finite and above 0, got {power}")
    values, scales = schedules.polynomial(settings)
    return {
        "sparsity": schedules.sparsities(values, scales),
        "updates": schedules.updates(settings),
    }


def tolerance(inputs: dict[str, Any], settings: Settings) -> dict[str, int]:
    """ULP allowed; the derivation is in TOLERANCE_WHY."""
    return {"sparsity": ceil(float(settings["power"])) + 4, "updates": 0}


TOLERANCE_WHY = (
    "With d = final - initial and q = 1 - p: the quotient and the difference leave an error of u in q,"
    " hence power·q^(power-1)·u in q^power; the power (power - 1 products, or pow) and the product with d"
    " add (power + 2)·u·q^power, d one more of each end, the last sum one of the result. Together at most"
    " (power + 4) ULP of initial + final + d·(q^power + power·q^(power-1)), which is the scale."
)


def _with(**changes: Any) -> Any:
    """Return a mistake that sets parameters or dials to something else."""

    def mistake(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
        oracle(inputs, settings)
        return oracle(inputs, settings | changes)

    return mistake


def _sparsity(change: Callable[[list[Any], Settings], list[Any]]) -> Any:
    """Return a mistake in the sparsities."""

    def mistake(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
        result = oracle(inputs, settings)
        values, scales = schedules.polynomial(settings)
        return result | {"sparsity": schedules.sparsities(change(values, settings), scales)}

    return mistake


def _updates(due: Callable[[int, Settings], bool]) -> Any:
    """Return a mistake in the steps that recompute the mask."""

    def mistake(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
        steps = range(settings["steps"])
        wrong = np.array([due(t, settings) for t in steps], dtype=np.int32)
        return oracle(inputs, settings) | {"updates": wrong}

    return mistake


def _held(values: list[Any], settings: Settings) -> list[Any]:
    """Return the sparsity of the last update: what a model shows, not what is aimed at."""
    due, held = schedules.updates(settings), real(float(settings["initial"]))
    result = []
    for value, now in zip(values, due, strict=True):
        held = value if now else held
        result.append(held)
    return result


def _unclipped(values: list[Any], settings: Settings) -> list[Any]:
    initial, final, power = (real(float(settings[n])) for n in ("initial", "final", "power"))
    begin, end = settings["begin"], settings["end"]
    if begin == end or float(power) != int(power):
        return values
    rest = [ONE - real(t - begin) / (end - begin) for t in range(len(values))]
    return [final + (initial - final) * q ** int(power) for q in rest]


def _drops_after_end(values: list[Any], settings: Settings) -> list[Any]:
    return [v if t <= settings["end"] else real(0) for t, v in enumerate(values)]


def _zero_before(values: list[Any], settings: Settings) -> list[Any]:
    return [v if t >= settings["begin"] else real(0) for t, v in enumerate(values)]


def _rising_power(values: list[Any], settings: Settings) -> list[Any]:
    initial, final, power = (real(float(settings[n])) for n in ("initial", "final", "power"))
    steps = range(len(values))
    return [initial + (final - initial) * schedules.progress(t, settings) ** power for t in steps]


def _one_longer(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    result = oracle(inputs, settings)
    if settings["begin"] == settings["end"]:
        return result
    longer = oracle(inputs, settings | {"end": settings["end"] + 1})
    return result | {"sparsity": longer["sparsity"]}


def _from_zero(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    result = oracle(inputs, settings)
    return result | {"sparsity": oracle(inputs, settings | {"begin": 0})["sparsity"]}


def _inside(t: int, s: Settings) -> bool:
    return bool(s["begin"] <= t <= s["end"])


MISTAKES = (
    Mistake("linear", "the power is ignored", _with(power=1.0), ("neuralmagic/sparseml#1283",)),
    Mistake("always cubic", "the power is 3 whatever was asked for", _with(power=3.0)),
    Mistake("initial ignored", "the approach starts at 0", _with(initial=0.0)),
    Mistake("frequency ignored", "the mask is recomputed at every step", _with(frequency=1)),
    Mistake("progress from step 0", "begin does not shift the curve", _from_zero),
    Mistake("end is one step late", "the length counts both ends", _one_longer),
    Mistake("progress unclipped", "the polynomial runs on before begin and after end", _sparsity(_unclipped)),
    Mistake("zero after end", "the schedule is over and asks for nothing", _sparsity(_drops_after_end)),
    Mistake("zero before begin", "initial holds from begin only", _sparsity(_zero_before)),
    Mistake("p to the power", "initial + (final - initial)·p^power starts slowly", _sparsity(_rising_power)),
    Mistake("density", "1 - s: the kept share", _sparsity(lambda values, s: [ONE - v for v in values])),
    Mistake("held between updates", "the sparsity of the last update is listed", _sparsity(_held)),
    Mistake(
        "end excluded", "no update at end, so final is never reached",
        _updates(lambda t, s: bool(s["begin"] <= t < s["end"]) and (t - s["begin"]) % s["frequency"] == 0),
        ("tensorflow/model-optimization#973",),
    ),
    Mistake(
        "begin excluded", "the first update comes one frequency after begin",
        _updates(lambda t, s: t == s["end"] or (_inside(t, s) and t > s["begin"]
                 and (t - s["begin"]) % s["frequency"] == 0)),
    ),
    Mistake(
        "updates never end", "the mask is recomputed after end",
        _updates(lambda t, s: t == s["end"] or (t >= s["begin"] and (t - s["begin"]) % s["frequency"] == 0)),
    ),
    Mistake(
        "updates before begin", "the grid starts at step 0",
        _updates(lambda t, s: t == s["end"] or (t <= s["end"] and (t - s["begin"]) % s["frequency"] == 0)),
    ),
)  # fmt: skip

CONSTRAINTS = {
    "C1": "s(t) = final + (initial - final)·(1 - p)^power with p = (t - begin)/(end - begin).",
    "C2": "Up to begin the sparsity is initial; from end on it is final.",
    "C3": "Where begin = end, the sparsity is final from that step on and initial before it.",
    "C4": "updates is 1 at begin and every frequency steps after it, up to end, and at end itself.",
    "C5": "There is no update before begin or after end.",
    "C6": "sparsity is float64 and updates int32, one entry for each of the steps 0 … steps-1.",
    "C7": "The listed sparsity is the target of each step, also of those without an update.",
    "C8": "initial and final are in [0, 1]; a final below initial is refused: pruned weights stay pruned.",
    "C9": "begin and steps are at least 0, end at least begin, frequency at least 1, power above 0.",
}

FLAGS = {
    "zhu-gupta": Flag("BASIC", "Power 3."),
    "power": Flag(
        "KNOWN_BUG", "Other powers, which an implementation may ignore.", ("neuralmagic/sparseml#1283",)
    ),
    "first-step": Flag(
        "DIALECT",
        "The first steps, where a schedule may be one step ahead.",
    ),
    "grid": Flag("DIALECT", "begin is not a multiple of frequency."),
    "off-grid-end": Flag(
        "KNOWN_BUG",
        "end is not on the grid: without an update there, final is never reached.",
        ("tensorflow/model-optimization#973", "tensorflow/model-optimization#975",
         "intel/neural-compressor#1211"),
    ),
    "outside": Flag("EDGE_CASE", "Steps before begin and after end."),
    "one-step": Flag("EDGE_CASE", "begin = end, or one step apart."),
    "flat": Flag("EDGE_CASE", "initial = final, or either of them 0 or 1."),
    "short": Flag("EDGE_CASE", "The list ends before the schedule does, or is empty."),
    "bad": Flag("EDGE_CASE", "Arguments without a meaning."),
}  # fmt: skip


def cases(c: Cases) -> None:
    """Write the cases. They hold no tensors, so their ids name no dtype."""

    # fmt: off
    def add(name: str, flags: str, labels: str, **params: Any) -> None:
        c.made.append(Case(c.operation, name, tuple(flags.split()), tuple(labels.split()), {}, params))

    add("zhu-gupta", "zhu-gupta outside", "C1 C2 C4 C5 C6", steps=13, begin=2, end=10, final=0.8)
    add("from-step-0", "zhu-gupta first-step", "C1 C6", steps=12, end=10, final=0.8)
    add("from-half", "zhu-gupta outside", "C1 C2", steps=14, begin=3, end=11, initial=0.5, final=0.9)
    add("thirds", "zhu-gupta outside", "C1 C2", steps=10, begin=1, end=8, initial=0.1, final=2 / 3)
    add("frequency-2", "zhu-gupta", "C1 C4 C7", steps=13, begin=2, end=10, final=0.8, frequency=2)
    add("frequency-4", "zhu-gupta outside", "C4 C5 C7", steps=16, begin=3, end=11, initial=0.2, final=0.7,
        frequency=4)
    for name, power in (("1", 1.0), ("2", 2), ("4", 4), ("half", 0.5), ("1-and-half", 1.5), ("tenth", 0.1),
                        ("7", 7), ("integer-3", 3)):
        add(f"power-{name}", "power", "C1", steps=11, begin=1, end=9, initial=0.25, final=0.85, power=power)
    add("power-2-frequency-3", "power off-grid-end", "C1 C4", steps=12, begin=1, end=9, final=0.6, power=2,
        frequency=3)
    add("hundred-steps", "zhu-gupta first-step", "C1 C4", steps=101, end=100, final=0.9, frequency=10)
    add("first-of-hundred", "first-step short", "C1", steps=2, end=100, final=0.9)
    add("jaxpruner-grid", "grid first-step", "C4 C5", steps=16, begin=3, end=13, final=0.8, frequency=5)
    add("grid-2-7-3", "grid off-grid-end", "C4 C5", steps=10, begin=2, end=7, final=0.5, frequency=3)
    add("grid-1-9-3", "grid off-grid-end", "C4", steps=11, begin=1, end=9, final=0.5, frequency=3)
    add("grid-even", "grid", "C4", steps=12, begin=4, end=8, final=0.5, frequency=2)
    add("off-grid-end", "off-grid-end", "C2 C4", steps=110, end=100, final=0.8, frequency=30)
    add("frequency-beyond-end", "off-grid-end", "C4", steps=60, begin=1, end=50, final=0.5, frequency=100)
    add("frequency-beyond-steps", "off-grid-end short", "C4", steps=40, begin=1, end=50, final=0.5,
        frequency=100)
    add("long-before", "outside", "C2 C5", steps=12, begin=9, end=11, initial=0.3, final=0.6)
    add("long-after", "outside", "C2 C5", steps=20, begin=1, end=3, initial=0.3, final=0.6, frequency=2)
    add("all-before", "outside short", "C2 C5", steps=5, begin=7, end=9, initial=0.3, final=0.6)
    add("begin-is-end", "one-step", "C3 C4", steps=6, begin=3, end=3, initial=0.2, final=0.7)
    add("begin-is-end-at-0", "one-step", "C3 C4", steps=3, begin=0, end=0, final=0.7)
    add("begin-is-end-frequency", "one-step", "C3 C4 C5", steps=9, begin=2, end=2, final=0.7, frequency=2)
    add("one-apart", "one-step", "C1 C2 C4", steps=5, begin=2, end=3, initial=0.1, final=0.7)
    add("two-apart", "one-step", "C1 C2 C4", steps=6, begin=2, end=4, initial=0.1, final=0.7, frequency=3)
    add("constant", "flat", "C2", steps=6, begin=1, end=4, initial=0.6, final=0.6)
    add("nothing", "flat", "C2", steps=6, begin=1, end=4, final=0.0)
    add("everything", "flat", "C2 C8", steps=8, begin=1, end=6, initial=0.0, final=1.0)
    add("everything-integer", "flat", "C2 C8", steps=5, begin=1, end=4, initial=0, final=1)
    add("all-pruned-already", "flat", "C2 C8", steps=4, begin=1, end=3, initial=1.0, final=1.0)
    add("final-close-to-initial", "flat", "C1", steps=6, end=4, initial=0.5, final=0.5000000001)
    add("no-steps", "short", "C6", steps=0, end=4, final=0.5)
    add("one-step-listed", "short", "C6", steps=1, end=4, initial=0.25, final=0.5)
    good = {"steps": 6, "begin": 1, "end": 4, "initial": 0.25, "final": 0.5}
    for name, labels, change in (
        ("falling", "C8", {"initial": 0.6}), ("falling-to-0", "C8", {"final": 0.0}),
        ("final-above-1", "C8", {"final": 1.5}), ("final-negative", "C8", {"final": -0.1, "initial": -0.2}),
        ("initial-negative", "C8", {"initial": -0.1}), ("final-nan", "C8", {"final": "nan"}),
        ("initial-nan", "C8", {"initial": "nan"}), ("end-before-begin", "C9", {"end": 0}),
        ("begin-negative", "C9", {"begin": -1}), ("steps-negative", "C9", {"steps": -1}),
        ("frequency-0", "C9", {"frequency": 0}), ("frequency-negative", "C9", {"frequency": -2}),
        ("power-0", "C9", {"power": 0.0}), ("power-negative", "C9", {"power": -1.0}),
        ("power-nan", "C9", {"power": "nan"}), ("power-infinite", "C9", {"power": "inf"}),
    ):
        add(f"bad-{name}", "bad", labels, **{**good, **change})
    # fmt: on


OPERATION = Operation(
    id="schedule.polynomial",
    summary="Raise the sparsity from initial to final between two steps, fast at first.",
    formula="s(t) = final + (initial - final)·(1 - (t - begin)/(end - begin))^power",
    sources=(
        "M. Zhu, S. Gupta: To prune, or not to prune: exploring the efficacy of pruning for model"
        " compression. 2017, equation 1",
    ),
    constraints=CONSTRAINTS,
    inputs={},
    outputs={
        "sparsity": "float64: the target of each step 0 … steps-1",
        "updates": "int32: 1 at the steps that recompute the mask",
    },
    params=(*schedules.PARAMS, Param("power", "how fast at first, above 0; 3 is Zhu & Gupta's", default=3.0)),
    dials=(schedules.FIRST_STEP, *schedules.UPDATE_DIALS),
    oracle=oracle,
    tolerance=tolerance,
    tolerance_why=TOLERANCE_WHY,
    flags=FLAGS,
    cases=cases,
    mistakes=MISTAKES,
)  # fmt: skip
