"""A topic in a terminal: the same stages, numbers and lines as on the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table as RichTable
from rich.text import Text

from adapters.study import formulas
from adapters.study.model import Block, Excerpt, Grid, Plot, Stage, Table, Topic
from adapters.study.numbers import rounded

STYLES = {"kept": "green", "cut": "red", "bad": "red", "here": "bold", "zero": "dim"}
POINTS = 12
"""So many points of a long series are printed, evenly spaced; the page has all of them."""
BARS = "▁▂▃▄▅▆▇█"
WIDE = 140
"""From so many columns on a table has room for long names."""


def show(console: Console, topic: Topic, at: Mapping[str, int], only: Stage | None = None) -> None:
    """Print a topic, or one stage of it, with the controls at these stops."""
    console.print(Text(topic.title, style="bold"))
    if only is None:
        _paragraphs(console, topic.lead)
    for control in topic.controls:
        if only is not None and control.name not in only.controls:
            continue
        stop = control.stops[at[control.name]]
        note = f" ({stop.note})" if stop.note else ""
        console.print(Text(f"{control.label} ({control.name}): {stop.label}{note}", style="dim"))
    for number, stage in enumerate(topic.stages, 1):
        if only is None or stage.id == only.id:
            console.print()
            title = f" {number}/{len(topic.stages)} {stage.title} [{stage.id}] "
            console.print(Rule(Text(title, style="bold"), align="left", characters="─"))
            _stage(console, topic, stage, at)
    if only is None and topic.more:
        console.print()
        for source in topic.more:
            console.print(Text(source, style="dim"))


def _stage(console: Console, topic: Topic, stage: Stage, at: Mapping[str, int]) -> None:
    filled = topic.fill(stage, at)
    _paragraphs(console, stage.text)
    console.print()
    _labelled(console, "formula", formulas.text(stage.formula))
    _labelled(console, "numbers", formulas.text(filled.formula, filled.values))
    if filled.says:
        _labelled(console, "so", formulas.inline_text(filled.says))
    _labelled(console, "from", stage.source)
    for part in stage.code:
        _code(console, part)
    for block in filled.blocks:
        console.print()
        _block(console, block)


def _paragraphs(console: Console, text: str) -> None:
    for paragraph in text.split("\n\n"):
        console.print(Text(formulas.inline_text(" ".join(paragraph.split()))))


def _labelled(console: Console, label: str, text: str) -> None:
    grid = RichTable.grid(padding=(0, 2))
    grid.add_column(width=8, style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(label, Text(text))
    console.print(grid)


def _code(console: Console, part: Excerpt) -> None:
    console.print(Text(f"\n  {part.path}:{part.first}", style="dim"))
    for offset, line in enumerate(part.lines):
        sign = "▸" if offset in part.marked else " "
        shown = Text(f"  {sign} {part.first + offset:4d}  {line}")
        console.print(shown, soft_wrap=True, style="bold" if offset in part.marked else "")


def _block(console: Console, block: Block) -> None:
    console.print(Text("  " + formulas.inline_text(block.caption), style="italic"))
    if isinstance(block, Table):
        _table(console, block)
    elif isinstance(block, Grid):
        _grid(console, block)
    else:
        _plot(console, block)


def _table(console: Console, block: Table) -> None:
    # On a narrow terminal what names a row, "the squares overflow: `square-overflow-f32`", takes two lines.
    lines = ":\n`" if console.width < WIDE else ": `"
    rows = [(row[0].replace(": `", lines), *row[1:]) for row in block.rows]
    cells = [[formulas.inline_text(cell) for cell in row] for row in (block.heads, *rows)]
    widths = _widths(cells, console.width - 2)
    if widths is None:
        _records(console, block)
        return
    table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    for head, width in zip(cells[0], widths, strict=True):
        table.add_column(head, width=width, overflow="fold")
    states = block.states or ("",) * len(rows)
    for row, state in zip(cells[1:], states, strict=True):
        table.add_row(*map(Text, row), style=STYLES.get(state))
    console.print(Padding(table, (0, 0, 0, 2)))


def _widths(rows: Sequence[Sequence[str]], room: int) -> list[int] | None:
    """Return how wide each column is so that no word is broken, or None where there is no room for that."""
    columns = list(zip(*rows, strict=True))
    widths = [
        max((len(w) for cell in column for w in cell.split()), default=1) for column in columns
    ]
    wanted = [
        max(len(line) for cell in column for line in [*cell.split("\n"), ""]) for column in columns
    ]
    left = room - sum(widths) - 3 * len(widths)
    if left < 0:
        return None
    while left and widths != wanted:
        # What is left goes to the column that has the longest cell for its width.
        worst = max(range(len(widths)), key=lambda i: wanted[i] / widths[i])
        widths[worst] += 1
        left -= 1
    return widths


def _records(console: Console, block: Table) -> None:
    """Print a table that is too wide row by row, each cell behind its head."""
    heads = [formulas.inline_text(head) for head in block.heads]
    states = block.states or ("",) * len(block.rows)
    for row, state in zip(block.rows, states, strict=True):
        grid = RichTable.grid(padding=(0, 2))
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(overflow="fold")
        for head, cell in zip(heads, row, strict=True):
            grid.add_row(head, Text(formulas.inline_text(cell), style=STYLES.get(state, "")))
        console.print(Padding(grid, (1, 0, 0, 2)))


def _grid(console: Console, block: Grid) -> None:
    table = RichTable(box=None, show_header=False, padding=(0, 1))
    for row in block.rows:
        cells = [Text(cell.text, style=STYLES.get(cell.state, "")) for cell in row]
        for cell, text in zip(row, cells, strict=True):
            # Without colours a pruned cell must still tell itself apart.
            if cell.state == "cut":
                text.plain = f"({cell.text})"
            elif cell.state == "here":
                text.plain = f"[{cell.text}]"
            elif cell.state == "patch":
                text.plain = f"<{cell.text}>"
        table.add_row(*cells)
    console.print(Padding(table, (0, 0, 0, 2)))


def _plot(console: Console, block: Plot) -> None:
    for mark in block.marks:
        if mark.shape in ("across", "upright"):
            console.print(Text(f"  {mark.name}: {_number(mark.points[0][0])}"))
        elif mark.shape == "arrow":
            ((x, y),) = (point[-2:] for point in mark.points)
            console.print(Text(f"  {mark.name}: ({_number(x)}, {_number(y)})"))
        else:
            _series(console, [p[0] for p in mark.points], [p[-1] for p in mark.points], mark.name)


def _series(console: Console, x: list[float], y: list[float], name: str) -> None:
    chosen = range(len(y))
    if len(y) > POINTS:
        chosen_set = {round(i * (len(y) - 1) / (POINTS - 1)) for i in range(POINTS)}
        chosen = sorted(chosen_set)  # type: ignore[assignment]
    points = ", ".join(f"{_number(x[i])}: {_number(y[i])}" for i in chosen)
    more = f" … {len(y)} points" if len(y) > POINTS else ""
    console.print(Text(f"  {name}  {_spark([y[i] for i in chosen])}  {points}{more}"))


def _spark(values: list[float]) -> str:
    finite = [v for v in values if v == v and abs(v) != float("inf")]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    top = len(BARS) - 1
    return "".join(
        " " if v not in finite else BARS[round((v - low) / (high - low) * top) if high > low else 0]
        for v in values
    )


def _number(value: object) -> str:
    return rounded(value) if isinstance(value, int | float) else str(value)
