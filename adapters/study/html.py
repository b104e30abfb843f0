"""A topic as one HTML page that needs no network: the template, the data as JSON, the libraries.

Equal formulas, tables and figures are stored once; for each position of the controls the page holds
their places, so that moving a slider looks numbers up and computes none.
"""

from __future__ import annotations

import base64
import json
from functools import cache
from typing import Any

from markupsafe import Markup

from adapters.study import formulas
from adapters.study.model import (
    Block,
    Cell,
    Control,
    Fill,
    Grid,
    Mark,
    Plot,
    Stage,
    Table,
    Topic,
)
from conformance import __version__
from conformance.templating import TEMPLATES, embedded, environment

LIBRARIES = ("d3.min.js", "plot.umd.min.js")


def page(topic: Topic) -> str:
    """Return the page as HTML, the same bytes for the same topic."""
    made = environment()
    made.filters["math"] = lambda latex: Markup(formulas.display(latex))
    made.filters["inline"] = lambda text: Markup(formulas.inline(text))
    made.filters["paragraphs"] = lambda text: [" ".join(p.split()) for p in text.split("\n\n")]
    return made.get_template("study.html").render(
        suite=__version__,
        topic=topic,
        data=Markup(embedded(data(topic))),
        script=Markup((TEMPLATES / "study.js").read_text(encoding="utf-8")),
        style=Markup((TEMPLATES / "study.css").read_text(encoding="utf-8")),
        libraries=[Markup(_vendored(name).decode()) for name in LIBRARIES],
        font=base64.b64encode(_vendored("stix-two-math.subset.woff2")).decode(),
    )


@cache
def _vendored(name: str) -> bytes:
    return (TEMPLATES / "vendor" / name).read_bytes()


def data(topic: Topic) -> dict[str, Any]:
    """Return what the page's script works on."""
    pool: dict[str, int] = {}

    def place(tree: Any) -> int:
        return pool.setdefault(embedded(tree), len(pool))

    stages = [
        {
            "id": stage.id,
            "controls": list(stage.controls),
            "fills": {
                ",".join(map(str, at)): _fill(fill, place)
                for at, fill in topic.fills(stage).items()
            },
        }
        for stage in topic.stages
    ]
    controls = [_control(control) for control in topic.controls]
    return {"stages": stages, "controls": controls, "pool": [json.loads(text) for text in pool]}


def _control(control: Control) -> dict[str, Any]:
    return {
        "name": control.name,
        "kind": control.kind,
        "start": control.start,
        "stops": [[stop.label, stop.note] for stop in control.stops],
    }


def _fill(fill: Fill, place: Any) -> list[Any]:
    return [
        place(formulas.display(fill.formula)),
        place(dict(fill.values)),
        place(formulas.inline(fill.says)),
        [place(_block(block)) for block in fill.blocks],
    ]


def _block(block: Block) -> dict[str, Any]:
    tree: dict[str, Any] = {"kind": block.kind, "caption": formulas.inline(block.caption)}
    if isinstance(block, Table):
        rows = [[formulas.inline(cell) for cell in row] for row in block.rows]
        heads = [formulas.inline(head) for head in block.heads]
        return tree | {"heads": heads, "rows": rows, "states": list(block.states)}
    if isinstance(block, Grid):
        cells = [[_cell(cell) for cell in row] for row in block.rows]
        return tree | {"across": block.across, "down": block.down, "rows": cells}
    assert isinstance(block, Plot)
    return tree | {
        "plain": formulas.inline_text(block.caption),
        "x": block.x,
        "y": block.y,
        "log": block.log,
        "square": block.square,
        "marks": [_mark(mark) for mark in block.marks],
    }


def _cell(cell: Cell) -> list[Any]:
    return [cell.text, round(cell.shade, 3), cell.state, *(cell.sets or ())]


def _mark(mark: Mark) -> dict[str, Any]:
    points = [[_finite(x) for x in point] for point in mark.points]
    return {"shape": mark.shape, "name": mark.name, "colour": mark.colour, "points": points}


def _finite(value: Any) -> Any:
    """Return a number that JSON can hold; a chart leaves a gap where there is none."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if abs(value) < float("inf") else None
    return value


def size_of(topic: Topic) -> dict[str, int]:
    """Return how many bytes of the page each stage takes, to keep pages small."""
    return {s.id: len(embedded(data(_only(topic, s)))) for s in topic.stages}


def _only(topic: Topic, stage: Stage) -> Topic:
    controls = tuple(topic.control(name) for name in stage.controls)
    return Topic(topic.name, topic.title, topic.lead, (stage,), controls)
