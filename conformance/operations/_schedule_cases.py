"""Constraints, flags, cases and mistakes that the sparsity schedules share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from conformance.cases import Case, Cases
from conformance.exact import ONE, Real, real
from conformance.operation import Flag, Mistake, Oracle, Value
from conformance.oracle import schedules

Settings = dict[str, Any]

CONSTRAINTS = {
    "C2": "Up to begin the sparsity is initial; from end on it is final.",
    "C3": "Where begin = end, the sparsity is final from that step on and initial before it.",
    "C4": "updates is 1 at begin and every frequency steps after it, up to end, and at end itself.",
    "C5": "There is no update before begin or after end.",
    "C6": "sparsity is float64 and updates int32, one entry for each of the steps 0 … steps-1.",
    "C7": "The listed sparsity is the target of each step, also of those without an update.",
    "C8": "initial and final are in [0, 1]; a final below initial is refused: pruned weights stay pruned.",
    "C9": "begin and steps are at least 0, end at least begin, frequency at least 1.",
}

FLAGS = {
    "basic": Flag("BASIC", "A whole schedule."),
    "grid": Flag("DIALECT", "begin is not a multiple of frequency."),
    "off-grid-end": Flag(
        "KNOWN_BUG",
        "end is not on the grid: without an update there, final is never reached.",
        ("tensorflow/model-optimization#973", "tensorflow/model-optimization#975",
         "intel/neural-compressor#1211"),
    ),
    "outside": Flag("EDGE_CASE", "Steps before begin and after end."),
    "one-step": Flag("EDGE_CASE", "begin = end, or one step apart."),
    "flat": Flag("EDGE_CASE", "initial = final, or either of them at an end of its range."),
    "short": Flag("EDGE_CASE", "The list ends before the schedule does, or is empty."),
    "bad": Flag("EDGE_CASE", "Arguments without a meaning."),
}  # fmt: skip


def common(c: Cases) -> None:
    """Write the cases. They hold no tensors, so their ids name no dtype."""

    # fmt: off
    def add(name: str, flags: str, labels: str, **params: Any) -> None:
        c.made.append(Case(c.operation, name, tuple(flags.split()), tuple(labels.split()), {}, params))

    add("two-to-ten", "basic outside", "C1 C2 C4 C5 C6", steps=13, begin=2, end=10, final=0.8)
    add("from-step-0", "basic", "C1 C6", steps=12, end=10, final=0.8)
    add("from-half", "basic outside", "C1 C2", steps=14, begin=3, end=11, initial=0.5, final=0.9)
    add("thirds", "basic outside", "C1 C2", steps=10, begin=1, end=8, initial=0.1, final=2 / 3)
    add("frequency-2", "basic", "C1 C4 C7", steps=13, begin=2, end=10, final=0.8, frequency=2)
    add("frequency-4", "basic outside", "C4 C5 C7", steps=16, begin=3, end=11, initial=0.2, final=0.7,
        frequency=4)
    add("hundred-steps", "basic", "C1 C4", steps=101, end=100, final=0.9, frequency=10)
    add("first-of-hundred", "basic short", "C1", steps=2, end=100, final=0.9)
    add("jaxpruner-grid", "grid", "C4 C5", steps=16, begin=3, end=13, final=0.8, frequency=5)
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
    add("flat", "flat", "C2", steps=6, begin=1, end=4, initial=0.6, final=0.6)
    add("nothing", "flat", "C2", steps=6, begin=1, end=4, final=0.0)
    add("nothing-integer", "flat", "C2 C8", steps=5, begin=1, end=4, initial=0, final=0)
    add("nearly-everything", "flat", "C1 C2", steps=8, begin=1, end=6, initial=0.5, final=0.9999)
    add("final-close-to-initial", "flat", "C1", steps=6, end=4, initial=0.5, final=0.5000000001)
    add("no-steps", "short", "C6", steps=0, end=4, final=0.5)
    add("one-step-listed", "short", "C6", steps=1, end=4, initial=0.25, final=0.5)
    # fmt: on
    refused(c)


def refused(c: Cases) -> None:
    """Write what any schedule must refuse."""
    good = {"steps": 6, "begin": 1, "end": 4, "initial": 0.25, "final": 0.5}
    for name, labels, change in (
        ("falling", "C8", {"initial": 0.6}),
        ("falling-to-0", "C8", {"final": 0.0}),
        ("final-above-1", "C8", {"final": 1.5}),
        ("final-negative", "C8", {"final": -0.1, "initial": -0.2}),
        ("initial-negative", "C8", {"initial": -0.1}),
        ("final-nan", "C8", {"final": "nan"}),
        ("initial-nan", "C8", {"initial": "nan"}),
        ("end-before-begin", "C9", {"end": 0}),
        ("begin-negative", "C9", {"begin": -1}),
        ("steps-negative", "C9", {"steps": -1}),
        ("frequency-0", "C9", {"frequency": 0}),
        ("frequency-negative", "C9", {"frequency": -2}),
    ):
        flags, constraints = ("bad",), tuple(labels.split())
        c.made.append(Case(c.operation, f"bad-{name}", flags, constraints, {}, {**good, **change}))


Values = Callable[[Settings], tuple[list[Real], list[Real] | None]]
"""``values(settings)``: the sparsities, and the scales of their rounding errors (or None)."""


class Wrong:
    """Makes oracles that go wrong in one place from a schedule's oracle and its values."""

    def __init__(self, oracle: Oracle, values: Values) -> None:
        """Take what is right."""
        self.oracle, self.values = oracle, values

    def settings(self, **changes: Any) -> Oracle:
        """Return an oracle under other parameters or dials than those asked for."""

        def mistaken(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
            self.oracle(inputs, settings)
            return self.oracle(inputs, settings | changes)

        return mistaken

    def sparsity(self, change: Callable[[list[Real], Settings], list[Real]]) -> Oracle:
        """Return an oracle with other sparsities."""

        def mistaken(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
            result = self.oracle(inputs, settings)
            values, scales = self.values(settings)
            wrong: Value = schedules.sparsities(change(values, settings), scales)
            return result | {"sparsity": wrong}

        return mistaken

    def updates(self, due: Callable[[int, Settings], bool]) -> Oracle:
        """Return an oracle that recomputes the mask at other steps."""

        def mistaken(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
            steps = range(settings["steps"])
            wrong = np.array([due(t, settings) for t in steps], dtype=np.int32)
            return self.oracle(inputs, settings) | {"updates": wrong}

        return mistaken

    def shifted(self, **shift: Callable[[Settings], int]) -> Oracle:
        """Return an oracle whose sparsities, and only they, follow another begin or end."""

        def mistaken(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
            result = self.oracle(inputs, settings)
            if settings["begin"] == settings["end"]:
                return result
            moved = {name: change(settings) for name, change in shift.items()}
            return result | {"sparsity": self.oracle(inputs, settings | moved)["sparsity"]}

        return mistaken

    def of_targets(self) -> tuple[Mistake, ...]:
        """Return the mistakes in the sparsities that any schedule can make."""
        return (
            Mistake("initial ignored", "the approach starts at 0", self.settings(initial=0.0)),
            Mistake("zero after end", "the schedule is over and asks for nothing",
                    self.sparsity(_drops_after_end)),
            Mistake("density", "1 - s: the kept share",
                    self.sparsity(lambda values, s: [ONE - v for v in values])),
        )  # fmt: skip

    def of_progress(self) -> tuple[Mistake, ...]:
        """Return the mistakes that a schedule with an approach can make."""
        return (
            Mistake("progress from step 0", "begin does not shift the curve",
                    self.shifted(begin=lambda s: 0)),
            Mistake("end is one step late", "the length counts both ends",
                    self.shifted(end=lambda s: s["end"] + 1)),
            Mistake("zero before begin", "initial holds from begin only",
                    self.sparsity(_zero_before)),
            Mistake("held between updates", "the sparsity of the last update is listed",
                    self.sparsity(_held)),
        )  # fmt: skip

    def of_updates(self) -> tuple[Mistake, ...]:
        """Return the mistakes in the steps that recompute the mask."""

        def on_grid(t: int, s: Settings) -> bool:
            return bool((t - s["begin"]) % s["frequency"] == 0)

        return (
            Mistake("frequency ignored", "the mask is recomputed at every step",
                    self.settings(frequency=1)),
            Mistake("end excluded", "no update at end, so final is never reached",
                    self.updates(lambda t, s: s["begin"] <= t < s["end"] and on_grid(t, s)),
                    ("tensorflow/model-optimization#973",)),
            Mistake("begin excluded", "the first update comes one frequency after begin",
                    self.updates(lambda t, s: t == s["end"] or
                                 (s["begin"] < t <= s["end"] and on_grid(t, s)))),
            Mistake("updates never end", "the mask is recomputed after end",
                    self.updates(lambda t, s: t == s["end"] or (t >= s["begin"] and on_grid(t, s)))),
            Mistake("updates before begin", "the grid starts at step 0",
                    self.updates(lambda t, s: t == s["end"] or (t <= s["end"] and on_grid(t, s)))),
        )  # fmt: skip


def _held(values: list[Real], settings: Settings) -> list[Real]:
    """Return the sparsity of the last update: what a model shows, not what is aimed at."""
    due, held = schedules.updates(settings), real(float(settings["initial"]))
    result = []
    for value, now in zip(values, due, strict=True):
        held = value if now else held
        result.append(held)
    return result


def _drops_after_end(values: list[Real], settings: Settings) -> list[Real]:
    return [v if t <= settings["end"] else real(0) for t, v in enumerate(values)]


def _zero_before(values: list[Real], settings: Settings) -> list[Real]:
    return [v if t >= settings["begin"] else real(0) for t, v in enumerate(values)]
