"""``python -m refimpl recipe A2``, or ``secateurs recipe A2``."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..files import replacing, write_whole
from .report import NO_MATPLOTLIB, Chart, Claim, Report, as_json, as_text, chart_text, plot
from .training import Options, Progress

RECIPES = ("A1", "A2", "A3", "A4", "A5")


def recipe(name: str) -> Any:
    """Return the module of a recipe: ``run``, ``script``, ``TITLE``."""
    if name.upper() not in RECIPES:
        raise ValueError(f"no recipe {name!r}; there are: {', '.join(RECIPES)}")
    return importlib.import_module(f"{__package__}.{name.lower()}")


def claims(name: str) -> dict[str, Claim]:
    """Return the claims of a recipe's article, by name."""
    recipe(name)
    found = importlib.import_module(f"{__package__}.{name.lower()}_claims").CLAIMS
    return {claim.name: claim for claim in found}


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    top = argparse.ArgumentParser(
        prog="secateurs recipe",
        description="Run the system that an article describes, on real data; print and plot what comes out.",
        epilog="A1 gradient-threshold pruning · A2 clip, prune, validate · A3 norm clipping · "
        "A4 pruning of neurons · A5 clipping with sparse optimisation",
    )
    add = top.add_argument
    add("recipe", metavar="RECIPE", help="A1, A2, A3, A4 or A5")
    add(
        "--claim",
        help="show by a run what is wrong in a statement of the article; 'list' lists them",
    )
    add("--data", default="digits", help="digits, or IMAGES,LABELS: two files in IDX format")
    add("--seed", type=int, default=0, help="the first seed (default 0)")
    add("--seeds", type=int, help="how many seeds")
    add("--epochs", type=int, help="train shorter or longer than the recipe does")
    add("--json", type=Path, metavar="FILE", help="write all numbers as JSON")
    add(
        "--plot",
        type=Path,
        metavar="FILE",
        help="draw the charts into a picture (.png, .svg, .pdf)",
    )
    add(
        "--script",
        type=Path,
        metavar="FILE",
        help="write the short run that other frameworks repeat",
    )
    add("--page", type=Path, metavar="FILE", help="run it and every claim; write all as JSON")
    add("--dialect", default="{}", metavar="JSON", help="dials by operation, for --script")
    return top


def main(arguments: Sequence[str]) -> None:
    """Run a recipe. Raises ValueError, TypeError or OSError with one line that says what is wrong."""
    given = parser().parse_args(arguments)
    module, known = recipe(given.recipe), claims(given.recipe)
    for path in (given.json, given.plot, given.script, given.page):
        if path is not None and not path.absolute().parent.is_dir():
            raise ValueError(f"cannot write {path}: its folder does not exist")
    for name in ("seeds", "epochs"):
        if getattr(given, name) is not None and getattr(given, name) < 1:
            raise ValueError(f"--{name} must be at least 1, got {getattr(given, name)}")
    if given.script is not None:
        from .script import save

        save(given.script, module.script(given.seed), json.loads(given.dialect))
        return
    if given.claim == "list":
        for claim in known.values():
            print(f"{claim.name:14s} {claim.said}")
        return
    progress = Progress()
    options = Options(given.data, given.seed, given.seeds, given.epochs, progress)
    if given.page is not None:
        write_whole(given.page, everything(given.recipe.upper(), module, known, options).encode())
        return
    if given.claim is None:
        report = module.run(options)
    else:
        report = _claim(known, given, options)
    progress.done()
    tell(report, given.json, given.plot)


def everything(name: str, module: Any, known: dict[str, Claim], options: Options) -> str:
    """Return the recipe's report and that of each claim as JSON, tables with their cells as text."""
    found = []
    for claim in known.values():
        options.progress(f"{name}: claim {claim.name}")
        report = Report("") if claim.run is None else claim.run(options)
        command = (
            f"secateurs recipe {name} --claim {claim.name}" if claim.run or claim.needs else ""
        )
        found.append(
            {
                "name": claim.name,
                "said": claim.said,
                "truth": claim.truth,
                "command": command,
                **_shown(report),
            }
        )
    return json.dumps({"report": _shown(module.run(options)), "claims": found}, ensure_ascii=False)


def _shown(report: Report) -> dict[str, Any]:
    tables = [
        {"title": t.title, "header": list(t.header), "cells": t.cells()} for t in report.tables
    ]
    return {"title": report.title, "notes": list(report.notes), "tables": tables}


def _claim(known: dict[str, Claim], given: argparse.Namespace, options: Options) -> Report:
    if given.claim not in known:
        names = ", ".join(known)
        raise ValueError(f"{given.recipe} has no claim {given.claim!r}; there are: {names}")
    claim = known[given.claim]
    print(f"The article: {claim.said}\nIn fact: {claim.truth}\n")
    if claim.run is None:
        where = f"a run of {claim.needs}: secateurs recipe" if claim.needs else "no run:"
        raise ValueError(f"{given.claim} is shown by {where} {given.recipe} --claim {given.claim}")
    return claim.run(options)


def tell(
    report: Report, json_file: Path | None, picture: Path | None, *, always_charts: bool = False
) -> None:
    """Write a report to the files that are asked for and print it; charts too, unless they are drawn.

    Files come first: they are there even if nobody reads the text to its end.
    """
    if json_file is not None:
        write_whole(json_file, as_json(report).encode())
    drawn = picture is not None and bool(report.charts) and draw(report.charts, picture)
    print(as_text(report))
    for chart in [] if drawn and not always_charts else report.charts:
        print("\n" + chart_text(chart))


def draw(charts: Sequence[Chart], path: Path) -> bool:
    """Draw charts into a picture, whole or not at all; say so and return False without matplotlib."""
    try:
        with replacing(path) as temporary:
            plot(charts, temporary)
    except ModuleNotFoundError:
        print(NO_MATPLOTLIB, file=sys.stderr)
        return False
    return True
