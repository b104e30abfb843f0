"""``secateurs sweep``: which threshold, which sparsity, which clip limit; and which way to get there.

The data are split once: a fifth is the test part, which nothing is chosen by; it is looked at once, at
the end, with the chosen value. The rest is cut into k folds, and each candidate is trained and measured on
every fold and seed. Every finished run is a line of JSON in ``runs.jsonl``; a sweep that is started again
in the same folder does only what is missing.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import os
import secrets
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import datasets
from .recipes import sweep_runs, training
from .recipes.command import write_whole
from .recipes.report import (
    NO_MATPLOTLIB,
    Chart,
    Report,
    Series,
    Table,
    as_json,
    as_text,
    chart_text,
    measured,
    plot,
)
from .recipes.training import Data, Part, Progress

WRONG_USAGE = 2
GRIDS = {
    "amount": (0.0, 0.5, 0.8, 0.9, 0.95, 0.98),
    "threshold": (0.0, 0.01, 0.03, 0.06, 0.1, 0.15),
    "clip": (0.1, 0.3, 1.0, 3.0, 10.0),
    "lambda": (0.0, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3),
}
LOGARITHMIC = ("clip", "lambda", "threshold")


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    top = argparse.ArgumentParser(prog="secateurs sweep", description=__doc__)
    add = top.add_argument
    add("what", choices=[*GRIDS, "methods"], help="what is varied; methods compares ways to prune")
    add("--values", help="candidates, as 0.5,0.8,0.9; by default a grid")
    add("--random", type=int, metavar="N", help="N random candidates between the ends of the grid")
    add(
        "--layer",
        help="prune only this weight (0, 1, …), each by itself ('each'), or all (default)",
    )
    add("--folds", type=int, default=3)
    add("--seeds", type=int, default=2, help="seeds for each fold (default 2)")
    add("--seed", type=int, default=0)
    add("--loss", type=float, default=0.01, help="accuracy that may be lost (default 0.01)")
    add("--model", choices=["mlp", "cnn"], default="mlp")
    add("--epochs", type=int, default=10, help="epochs of training, and of fine-tuning")
    add("--data", default="digits", help="digits, or IMAGES,LABELS: two files in IDX format")
    add(
        "--out",
        type=Path,
        required=True,
        help="folder for runs.jsonl, results.csv, .json and the plot",
    )
    return top


def main(arguments: Sequence[str]) -> int:
    """Run a sweep; one line on standard error if something is wrong."""
    given = parser().parse_args(arguments)
    try:
        check(given)
        given.out.mkdir(parents=True, exist_ok=True)
        report = sweep(given)
    except (ValueError, TypeError, OSError) as error:
        print(f"secateurs: {error}", file=sys.stderr)
        return WRONG_USAGE
    print(as_text(report))
    for chart in report.charts:
        print("\n" + chart_text(chart))
    return 0


def check(given: argparse.Namespace) -> None:
    """Refuse options that make no sense."""
    for name, low in (("folds", 2), ("seeds", 1), ("epochs", 1), ("random", 1)):
        value = getattr(given, name)
        if value is not None and value < low:
            raise ValueError(f"--{name} must be at least {low}, got {value}")
    if not 0 <= given.loss < 1:
        raise ValueError(f"--loss must be in [0, 1), got {given.loss}")


def candidates(given: argparse.Namespace) -> list[Any]:
    """Return what is tried: given values, random ones, a grid, or the methods."""
    if given.what == "methods":
        return list(sweep_runs.METHODS)
    grid = GRIDS[given.what]
    if given.values:
        try:
            return [float(v) for v in given.values.split(",")]
        except ValueError:
            raise ValueError(f"--values must be numbers as 0.5,0.9, got {given.values!r}") from None
    if not given.random:
        return list(grid)
    rng = np.random.default_rng(given.seed)
    low, high = min(v for v in grid if v > 0), max(grid)
    if given.what in LOGARITHMIC:
        drawn = np.exp(rng.uniform(math.log(low), math.log(high), given.random))
    else:
        drawn = rng.uniform(low, high, given.random)
    # no pruning is always among them: the loss is counted from there
    return [*([0.0] if given.what != "clip" else []), *(float(f"{v:.3g}") for v in sorted(drawn))]


def folds(part: Part, count: int, seed: int) -> Iterator[Data]:
    """Yield the folds of a part as data whose test part is empty: nothing here may look at it."""
    order = np.random.default_rng(seed).permutation(len(part.labels))
    pieces = np.array_split(order, count)
    nothing = Part(part.x[:0], part.labels[:0])
    for i, held_out in enumerate(pieces):
        rest = np.concatenate([p for j, p in enumerate(pieces) if j != i])
        train, validation = (Part(part.x[r], part.labels[r]) for r in (rest, held_out))
        yield Data(train, validation, nothing)


def sweep(given: argparse.Namespace) -> Report:
    """Do the runs that are missing, choose, look at the test part once, write everything."""
    every = training.load(given.data)
    rest, last = datasets.split(len(every.labels), given.seed, 0.2)
    work, test = (Part(every.x[i], every.labels[i]) for i in (rest, last))
    layers = sweep_runs.layers(given.model, given.layer, work.x.shape[1:])
    log = Log(given.out / "runs.jsonl", identity(given))
    progress = Progress()
    tried = candidates(given)
    total = len(tried) * len(layers) * given.folds * given.seeds
    for layer in layers:
        for fold, data in enumerate(folds(work, given.folds, given.seed)):
            for seed in range(given.seed, given.seed + given.seeds):
                trial = sweep_runs.Trial(given.model, given.what, given.epochs, seed, layer)
                for value in tried:
                    key = {"layer": layer, "fold": fold, "seed": seed, "value": value}
                    progress(f"sweep: {log.done} of {total} runs; {key}")
                    if not log.has(key):
                        log.add(key, trial.measure(data, data.validation, value))
    progress.done()
    report = result(given, log.rows, layers, tried, work, test)
    write_whole(given.out / "results.json", as_json(report).encode())
    write_whole(given.out / "results.csv", as_csv(log.rows).encode())
    draw(report, given.out / "sweep.png")
    return report


def identity(given: argparse.Namespace) -> dict[str, Any]:
    """Return what must be the same for runs to belong to one sweep."""
    names = ("what", "model", "epochs", "data", "folds", "seed")
    return {name: getattr(given, name) for name in names}


class Log:
    """Finished runs, a line each; the first line says of which sweep."""

    def __init__(self, path: Path, about: dict[str, Any]) -> None:
        """Read what is there; a last line that was cut off is dropped."""
        self.path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        rows = []
        for number, line in enumerate(lines):
            try:
                rows.append(json.loads(line))
            except ValueError:
                if number < len(lines) - 1:
                    raise ValueError(f"{path}: line {number + 1} is damaged") from None
        if rows and rows[0] != about:
            raise ValueError(f"{path} is of another sweep: {rows[0]}; choose another --out")
        self.rows: list[dict[str, Any]] = rows[1:]
        whole = "".join(json.dumps(row) + "\n" for row in [about, *self.rows])
        write_whole(path, whole.encode())

    @property
    def done(self) -> int:
        """The number of finished runs."""
        return len(self.rows)

    def has(self, key: dict[str, Any]) -> bool:
        """Say whether a run is there."""
        return any(all(row[k] == v for k, v in key.items()) for row in self.rows)

    def add(self, key: dict[str, Any], found: dict[str, float]) -> None:
        """Append a run."""
        self.rows.append({**key, **found})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(self.rows[-1]) + "\n")


def result(
    given: argparse.Namespace, runs: list[dict[str, Any]], layers: list[Any], tried: list[Any],
    work: Part, test: Part,
) -> Report:  # fmt: skip
    """Choose the largest sparsity within the allowed loss, by the mean over folds and seeds."""
    rows: list[Any] = []
    lines, notes = [], []
    numbers: dict[str, Any] = {}
    for layer in layers:
        where = "all weights" if layer is None else f"weight {layer}"
        groups = {v: _runs(runs, layer, v) for v in tried}
        base = groups[tried[0]]
        best, best_row = None, None
        for value, group in groups.items():
            right = measured([r["accuracy"] for r in group])
            # paired: the same fold and seed with the first candidate, so that what they share cancels
            lost = measured(
                [b["accuracy"] - r["accuracy"] for b, r in zip(base, group, strict=True)]
            )
            zeros = measured([r["sparsity"] for r in group])
            rows.append((where, value, zeros, right, lost))
            if lost.mean <= given.loss and (best_row is None or zeros.mean > best_row[2].mean):
                best, best_row = value, rows[-1]
        if given.what != "methods":
            points = [(float(r[1]), r[3].mean, r[3].error) for r in rows if r[0] == where]
            lines.append(Series(where, points))
        if best_row is None or given.what in ("clip", "methods"):
            mine = [r for r in rows if r[0] == where]
            best_row = max(mine, key=lambda r: r[3].mean)
            best = best_row[1]
        trial = sweep_runs.Trial(given.model, given.what, given.epochs, given.seed, layer)
        nobody = Part(work.x[:0], work.labels[:0])
        final = trial.measure(Data(work, nobody, nobody), test, best)
        lost = best_row[4]
        margin = f"{100 * lost.mean:.2f} ± {100 * lost.error:.2f} points"
        sure = given.loss - lost.mean >= 2 * lost.error
        notes.append(
            f"{where}: chosen {given.what} {best}, sparsity {best_row[2].mean:.1%}; it costs {margin} "
            f"({lost.runs} runs; allowed {100 * given.loss:g}), "
            + (
                "by two standard errors or more below the limit"
                if sure
                else "not sure by two standard errors"
            )
            + f". Test part, looked at once: {final['accuracy']:.2%} at sparsity {final['sparsity']:.1%}."
        )
        numbers[where] = {"chosen": best, "loss": lost, "sure": sure, "test": final["accuracy"],
                          "sparsity": best_row[2]}  # fmt: skip
    table = Table(
        f"{given.folds} folds × {given.seeds} seeds, validation; the loss is against {tried[0]}, run by run",
        ("where", given.what, "sparsity", "accuracy", "loss"),
        ("", "g", ".1%", ".2%", ".2%"),
        rows,
    )
    chart = [Chart("Sensitivity", given.what, "validation accuracy", lines)] if lines else []
    return Report(f"Sweep of {given.what}", notes, [table], chart, numbers)


def _runs(runs: list[dict[str, Any]], layer: Any, value: Any) -> list[dict[str, Any]]:
    chosen = [r for r in runs if r["layer"] == layer and r["value"] == value]
    return sorted(chosen, key=lambda r: (r["fold"], r["seed"]))


def as_csv(rows: list[dict[str, Any]]) -> str:
    """Return all runs as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def draw(report: Report, path: Path) -> None:
    """Draw the charts, where matplotlib is installed."""
    if not report.charts:
        return
    temporary = path.with_name(f".{secrets.token_hex(4)}.{path.name}")
    try:
        plot(report.charts, temporary)
        os.replace(temporary, path)
    except ModuleNotFoundError:
        print(NO_MATPLOTLIB, file=sys.stderr)
    finally:
        temporary.unlink(missing_ok=True)
