"""What a recipe hands back: tables, charts and findings, as text, as JSON, as a picture.

The picture is drawn by matplotlib where it is installed (the extra ``plots``); everywhere else the same
chart is drawn with characters.
"""

from __future__ import annotations

import importlib
import json
import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

WIDTH, HEIGHT = 56, 12
MARKS = "●○▲△■□◆◇▼▽"
NO_MATPLOTLIB = "matplotlib is not installed (pip install 'secateurs[plots]')"


class Measured(NamedTuple):
    """A mean over seeds, its standard error, and the number of seeds."""

    mean: float
    error: float
    runs: int


Value = str | float | int | Measured


def measured(values: Sequence[float]) -> Measured:
    """Return mean and standard error, s/√n with n - 1 in s; of one value the error is NaN."""
    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return Measured(mean, math.nan, 1)
    variance = math.fsum((v - mean) ** 2 for v in values) / (n - 1)
    return Measured(mean, math.sqrt(variance / n), n)


def over(seeds: Sequence[int]) -> str:
    """Say what the numbers of a table are."""
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    return f"mean ± standard error of {len(seeds)} seeds"


@dataclass(frozen=True)
class Table:
    """Rows of values under a header; ``formats`` has a format specification for each column."""

    title: str
    header: Sequence[str]
    formats: Sequence[str]
    rows: Sequence[Sequence[Value]]

    def cells(self) -> list[list[str]]:
        """Return every value as text."""
        return [[shown(v, f) for v, f in zip(row, self.formats, strict=True)] for row in self.rows]


@dataclass(frozen=True)
class Series:
    """One line of a chart: points (x, y, error bar); an error that is NaN is not drawn."""

    name: str
    points: Sequence[tuple[float, float, float]]


@dataclass(frozen=True)
class Chart:
    """Lines over a common axis.

    Where ``names`` is given x is a place among them. A logarithmic x axis shows what is not above 0 at
    its left end.
    """

    title: str
    x: str
    y: str
    series: Sequence[Series]
    log_y: bool = False
    log_x: bool = False
    names: Sequence[str] = ()


@dataclass(frozen=True)
class Report:
    """All that one recipe, or one claim, has found."""

    title: str
    notes: Sequence[str] = ()
    tables: Sequence[Table] = ()
    charts: Sequence[Chart] = ()
    numbers: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Claim:
    """What an article says, what is so, and the run that shows it.

    Where ``run`` is None the run is one of the framework that ``needs`` names, or, without one, the claim
    is about the text alone.
    """

    name: str
    said: str
    truth: str
    run: Callable[[Any], Report] | None = None
    needs: str | None = None


def shown(value: Value, spec: str) -> str:
    """Return a value as a table shows it: ``98.50 % ± 0.21`` for a measured share."""
    if isinstance(value, str):
        return value
    if not isinstance(value, Measured):
        return _number(value, spec)
    mean = _number(value.mean, spec)
    if math.isnan(value.error):
        return mean
    error = _number(value.error, spec.removeprefix("+")).removesuffix(" %")
    return f"{mean} ± {error}"


def _number(value: float, spec: str) -> str:
    if math.isnan(value):
        return "–"
    if spec.endswith("%"):
        return f"{100 * value:{spec[:-1]}f} %"
    return f"{value:{spec}}"


def as_text(report: Report) -> str:
    """Return a report for a terminal."""
    parts = [report.title, *report.notes]
    parts += [table_text(table) for table in report.tables]
    return "\n\n".join(parts)


def table_text(table: Table) -> str:
    """Return a table in columns."""
    rows = [list(table.header), *table.cells()]
    widths = [max(len(row[i]) for row in rows) for i in range(len(table.header))]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines.insert(1, "  ".join("─" * width for width in widths))
    return "\n".join(([table.title] if table.title else []) + lines)


def chart_text(chart: Chart) -> str:
    """Return a chart drawn with characters."""
    marked = list(zip(MARKS * 3, chart.series, strict=False))
    usable = [
        (mark, x, math.log10(y) if chart.log_y else y)
        for mark, series in marked
        for x, y, _ in series.points
        if math.isfinite(y) and not (chart.log_y and y <= 0)
    ]
    if not usable:
        return chart.title
    xs = [x for _, x, _ in usable]
    across = _across(chart, xs)
    low, high = min(p[2] for p in usable), max(p[2] for p in usable)
    left, right = min(across.values()), max(across.values())
    grid = [[" "] * WIDTH for _ in range(HEIGHT)]
    for mark, x, y in usable:
        column = round((across[x] - left) / ((right - left) or 1) * (WIDTH - 1))
        row = round((high - y) / ((high - low) or 1) * (HEIGHT - 1))
        grid[row][column] = mark
    ends = [f"{10**v if chart.log_y else v:.4g}" for v in (high, low)]
    margin = max(map(len, ends))
    labels = [ends[0], *[""] * (HEIGHT - 2), ends[1]]
    lines = [f"{label:>{margin}} │{''.join(row)}" for label, row in zip(labels, grid, strict=True)]
    legend = "  ".join(f"{mark} {series.name}" for mark, series in marked)
    axis = f"{min(xs):.4g}".ljust(WIDTH - 8) + f"{max(xs):.4g}".rjust(8)
    lines += [" " * margin + " └" + "─" * WIDTH, " " * (margin + 2) + axis]
    if chart.names:
        lines.append(" · ".join(f"{i} {name}" for i, name in enumerate(chart.names)))
    scale = ", logarithmic" if chart.log_x else ""
    return "\n".join([f"{chart.title}  ({chart.y} over {chart.x}{scale})", *lines, legend])


def _across(chart: Chart, xs: Sequence[float]) -> dict[float, float]:
    """Return where each x stands on the axis."""
    if not chart.log_x:
        return {x: x for x in xs}
    positive = [math.log10(x) for x in xs if x > 0]
    # nothing has no logarithm: it stands a little to the left of all
    least = min(positive, default=0.0) - 0.15 * (
        max(positive, default=1.0) - min(positive, default=0.0)
    )
    return {x: math.log10(x) if x > 0 else least for x in xs}


def plot(charts: Sequence[Chart], path: Path) -> None:
    """Draw charts into one picture; ModuleNotFoundError where matplotlib is not installed."""
    importlib.import_module("matplotlib").use("Agg")
    pyplot = importlib.import_module("matplotlib.pyplot")
    figure, axes = pyplot.subplots(
        1, len(charts), figsize=(6.0 * len(charts), 4.2), squeeze=False, layout="constrained"
    )
    for chart, ax in zip(charts, axes[0], strict=True):
        _draw(chart, ax)
    # The name is that of a temporary file: what kind of picture it is, its last part says.
    figure.savefig(path, dpi=120, format=path.suffix.lstrip(".") or "png")
    pyplot.close(figure)


def _draw(chart: Chart, ax: Any) -> None:
    for series in chart.series:
        xs, ys, errors = ([p[i] for p in series.points] for i in range(3))
        bars = None if any(math.isnan(e) for e in errors) else errors
        if len(xs) > 40:
            ax.plot(xs, ys, label=series.name, linewidth=1)
        else:
            line = "none" if chart.names else "-"
            ax.errorbar(
                xs, ys, bars, label=series.name, marker="o", markersize=4, capsize=3, linestyle=line
            )
    if chart.log_y:
        ax.set_yscale("log")
    if chart.log_x:
        positive = [p[0] for series in chart.series for p in series.points if p[0] > 0]
        ax.set_xscale("symlog", linthresh=min(positive, default=1.0), linscale=0.3)
    if chart.names:
        lines = [textwrap.fill(name, 18) for name in chart.names]
        ax.set_xticks(range(len(chart.names)), lines, rotation=30, ha="right")
    ax.set(title=chart.title, xlabel="" if chart.names else chart.x, ylabel=chart.y)
    ax.grid(alpha=0.3)
    if len(chart.series) > 1:
        beside = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)} if chart.names else {}
        ax.legend(**beside)


def as_json(report: Report) -> str:
    """Return a report as JSON; what is not finite is null."""
    return json.dumps(plain(asdict(report)), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def plain(value: Any) -> Any:
    """Return a value that JSON can hold: a measured mean becomes an object, NaN null."""
    if isinstance(value, Measured):
        return {"mean": value.mean, "error": plain(value.error), "runs": value.runs}
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
