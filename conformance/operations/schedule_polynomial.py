"""``schedule.polynomial``: the sparsity at each step, by a polynomial approach to the final one."""

from __future__ import annotations

from math import ceil
from typing import Any

from conformance.cases import Case, Cases
from conformance.exact import ONE, Reject, real
from conformance.operation import Flag, Mistake, Operation, Param
from conformance.operations import _schedule_cases
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


def _unclipped(values: list[Any], settings: Settings) -> list[Any]:
    initial, final, power = (real(float(settings[n])) for n in ("initial", "final", "power"))
    begin, end = settings["begin"], settings["end"]
    if begin == end or float(power) != int(power):
        return values
    rest = [ONE - real(t - begin) / (end - begin) for t in range(len(values))]
    return [final + (initial - final) * q ** int(power) for q in rest]


def _rising_power(values: list[Any], settings: Settings) -> list[Any]:
    initial, final, power = (real(float(settings[n])) for n in ("initial", "final", "power"))
    steps = range(len(values))
    return [initial + (final - initial) * schedules.progress(t, settings) ** power for t in steps]


WRONG = _schedule_cases.Wrong(oracle, schedules.polynomial)
MISTAKES = (
    Mistake("linear", "the power is ignored", WRONG.settings(power=1.0), ("neuralmagic/sparseml#1283",)),
    Mistake("always cubic", "the power is 3 whatever was asked for", WRONG.settings(power=3.0)),
    Mistake("progress unclipped", "the polynomial runs on before begin and after end",
            WRONG.sparsity(_unclipped)),
    Mistake("p to the power", "initial + (final - initial)·p^power starts slowly",
            WRONG.sparsity(_rising_power)),
    *WRONG.of_targets(),
    *WRONG.of_progress(),
    *WRONG.of_updates(),
)  # fmt: skip

CONSTRAINTS = {
    "C1": "s(t) = final + (initial - final)·(1 - p)^power with p = (t - begin)/(end - begin).",
    **_schedule_cases.CONSTRAINTS,
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
    **{name: flag for name, flag in _schedule_cases.FLAGS.items() if name != "basic"},
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
    outputs=schedules.OUTPUTS,
    params=(*schedules.PARAMS, Param("power", "how fast at first, above 0; 3 is Zhu & Gupta's", default=3.0)),
    dials=(schedules.FIRST_STEP, *schedules.UPDATE_DIALS),
    oracle=oracle,
    tolerance=tolerance,
    tolerance_why=TOLERANCE_WHY,
    flags=FLAGS,
    cases=cases,
    mistakes=MISTAKES,
)  # fmt: skip
