"""What a topic is: stages with a formula, numbers, the lines that compute them, tables and figures.

Everything here is plain data but one thing: a stage's ``fill``, which runs the code for one choice of
the controls and returns the numbers. A page holds the numbers of every choice, so that moving a slider
computes nothing: each number on it came out of ``refimpl``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, Literal

import numpy as np

Choice = Mapping[str, Any]
"""The value of every control, by name."""


class StudyError(ValueError):
    """What cannot be shown, in one line."""


@dataclass(frozen=True)
class Stop:
    """One setting of a control."""

    value: Any
    label: str
    note: str = ""
    """Why this setting is worth a visit; it gets a button of its own."""


@dataclass(frozen=True)
class Control:
    """A slider, a list to choose from, or a cell of a grid."""

    name: str
    label: str
    stops: tuple[Stop, ...]
    kind: Literal["slider", "select", "cell"] = "select"
    start: int = 0


@dataclass(frozen=True)
class Excerpt:
    """Lines of the source as they are: ``marked`` ones compute the stage."""

    path: str
    first: int
    lines: tuple[str, ...]
    marked: tuple[int, ...] = ()


@dataclass(frozen=True)
class Table:
    """A table with a header; a row's ``state`` (kept, cut, bad, here) only adds colour."""

    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    states: tuple[str, ...] = ()
    kind: Literal["table"] = "table"


@dataclass(frozen=True)
class Cell:
    """A cell of a grid: a text, a shade from -1 to 1, and what it means."""

    text: str
    shade: float = 0.0
    state: str = ""
    sets: tuple[str, int] | None = None
    """The control and the stop that pointing at this cell chooses."""


@dataclass(frozen=True)
class Grid:
    """A matrix drawn as cells: an image, a mask, a kernel."""

    caption: str
    rows: tuple[tuple[Cell, ...], ...]
    across: str = "column"
    down: str = "row"
    kind: Literal["grid"] = "grid"


@dataclass(frozen=True)
class Mark:
    """One series of a plot."""

    shape: Literal["line", "dots", "bars", "arrow", "across", "upright"]
    name: str
    points: tuple[tuple[Any, ...], ...]
    """(x, y); bars: (x from, x to, y); across and upright rules: (position,)."""
    colour: int = 0


@dataclass(frozen=True)
class Plot:
    """A chart; its points can be read as a table too."""

    caption: str
    x: str
    y: str
    marks: tuple[Mark, ...]
    log: bool = False
    square: bool = False
    """One unit is as long on both axes, so that angles are true."""
    kind: Literal["plot"] = "plot"


Block = Table | Grid | Plot


@dataclass(frozen=True)
class Fill:
    """The numbers of a stage for one choice of the controls."""

    formula: str
    """LaTeX with the numbers put in; ``«name»`` stands for ``values[name]``."""
    values: Mapping[str, str] = field(default_factory=dict)
    says: str = ""
    """What is seen, in one or two sentences."""
    blocks: tuple[Block, ...] = ()


@dataclass(frozen=True)
class Stage:
    """One step: what is computed, from what, by which lines, and what came out."""

    id: str
    title: str
    text: str
    """Paragraphs, separated by empty lines; ``code`` between backquotes, LaTeX between dollars."""
    formula: str
    code: tuple[Excerpt, ...]
    source: str
    """The fixture's case or the seed of the run that the numbers come from."""
    fill: Callable[[Choice], Fill]
    controls: tuple[str, ...] = ()


@dataclass(frozen=True)
class Topic:
    """One page."""

    name: str
    title: str
    lead: str
    stages: tuple[Stage, ...]
    controls: tuple[Control, ...] = ()
    more: Sequence[str] = ()
    """Papers."""

    def control(self, name: str) -> Control:
        """Return a control by name."""
        for control in self.controls:
            if control.name == name:
                return control
        known = ", ".join(control.name for control in self.controls) or "none"
        raise StudyError(f"{self.name} has no control {name!r}; there are: {known}")

    def start(self) -> dict[str, int]:
        """Return where every control stands at first, as indices of stops."""
        return {control.name: control.start for control in self.controls}

    def fill(self, stage: Stage, at: Mapping[str, int]) -> Fill:
        """Return the numbers of a stage where the controls stand at these stops."""
        choice = {n: self.control(n).stops[at[n]].value for n in stage.controls}
        # The corner cases are shown on purpose; what they make of a number is on the page.
        with np.errstate(all="ignore"):
            filled = stage.fill(choice)
        unknown = set(slots(filled.formula)) - set(filled.values)
        if unknown:
            raise StudyError(f"{self.name}/{stage.id}: no number for {sorted(unknown)}")
        return filled

    def fills(self, stage: Stage) -> dict[tuple[int, ...], Fill]:
        """Return the numbers of a stage for every position of its controls."""
        ranges = [range(len(self.control(name).stops)) for name in stage.controls]
        return {
            at: self.fill(stage, dict(zip(stage.controls, at, strict=True)))
            for at in product(*ranges)
        }

    def with_start(self, **at: int) -> Topic:
        """Return the topic with controls that stand elsewhere at first."""
        moved = tuple(replace(c, start=at.get(c.name, c.start)) for c in self.controls)
        return replace(self, controls=moved)


def slots(template: str) -> list[str]:
    """Return the names between «» in a template."""
    return [part.partition("»")[0] for part in template.split("«")[1:]]
