"""``secateurs sweep``: which threshold, which sparsity, which clip limit; and which way to get there.

The data are split once: a fifth is the test part, which nothing is chosen by; it is looked at once, at
the end, with the chosen value. The rest is cut into k folds, and each candidate is trained and measured on
every fold and seed. Doing nothing is always the first candidate; the loss is counted from there. Every
finished run is a line of JSON in ``runs.jsonl``; a sweep that is started again in the same folder does only
what is missing.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import datasets
from .files import write_whole
from .recipes import sweep_runs, training
from .recipes.command import tell
from .recipes.report import (
    Chart,
    Report,
    Series,
    Table,
    measured,
)
from .recipes.sweep_log import Log, as_csv
from .recipes.training import Data, Part, Progress

GRIDS = {
    "amount": (0.0, 0.5, 0.8, 0.9, 0.95, 0.98),
    "threshold": (0.0, 0.01, 0.03, 0.06, 0.1, 0.15),
    "clip": (0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
    "lambda": (0.0, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
}
LOGARITHMIC = ("clip", "lambda", "threshold")
NOTHING: dict[str, Any] = {
    "amount": 0.0,
    "threshold": 0.0,
    "clip": sweep_runs.NO_CLIP,
    "lambda": 0.0,
}


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    top = argparse.ArgumentParser(prog="secateurs sweep", description=__doc__)
    add = top.add_argument
    add("what", choices=[*GRIDS, "methods"], help="what is varied; methods compares ways to prune")
    add("--values", help="candidates, as 0.5,0.8,0.9; by default a grid")
    add("--random", type=int, metavar="N", help="N random candidates between the ends of the grid")
    add(
        "--layer",
        help="prune, clip or shrink only this weight (0, 1, …), each by itself ('each'), or all together "
        "(default)",
    )
    add("--folds", type=int, default=3)
    add("--seeds", type=int, default=2, help="seeds for each fold (default 2)")
    add("--seed", type=int, default=0)
    add("--amount", type=float, default=0.9, help="sparsity that all methods reach (default 0.9)")
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


def main(arguments: Sequence[str]) -> None:
    """Run a sweep. Raises ValueError, TypeError or OSError with one line that says what is wrong."""
    given = parser().parse_args(arguments)
    check(given)
    given.out.mkdir(parents=True, exist_ok=True)
    report = sweep(given)
    tell(report, given.out / "results.json", given.out / "sweep.png", always_charts=True)


def check(given: argparse.Namespace) -> None:
    """Refuse options that make no sense."""
    for name, low in (("folds", 2), ("seeds", 1), ("epochs", 1), ("random", 1)):
        value = getattr(given, name)
        if value is not None and value < low:
            raise ValueError(f"--{name} must be at least {low}, got {value}")
    for name in ("loss", "amount"):
        if not 0 <= getattr(given, name) < 1:
            raise ValueError(f"--{name} must be in [0, 1), got {getattr(given, name)}")


def candidates(given: argparse.Namespace) -> list[Any]:
    """Return what is tried, nothing first: given values, random ones, a grid, or the methods."""
    if given.what == "methods":
        if given.values or given.random:
            raise ValueError("methods are compared as they are, without --values and --random")
        return list(sweep_runs.METHODS)
    grid = GRIDS[given.what]
    if given.values and given.random:
        raise ValueError("give --values or --random, not both")
    if given.values:
        found = _numbers(given.what, given.values)
    elif given.random:
        rng = np.random.default_rng(given.seed)
        low, high = min(v for v in grid if v > 0), max(grid)
        if given.what in LOGARITHMIC:
            drawn = np.exp(rng.uniform(math.log(low), math.log(high), given.random))
        else:
            drawn = rng.uniform(low, high, given.random)
        found = [float(f"{v:.3g}") for v in sorted(drawn)]
    else:
        found = list(grid)
    nothing = NOTHING[given.what]
    return list(dict.fromkeys([nothing, *found]))


def _numbers(what: str, text: str) -> list[float]:
    try:
        found = [float(v) for v in text.split(",")]
    except ValueError:
        raise ValueError(f"--values must be numbers as 0.5,0.9, got {text!r}") from None
    top = 1.0 if what == "amount" else math.inf
    wrong = next((v for v in found if not (0 <= v <= top and v < math.inf)), None)
    if wrong is not None or (what == "clip" and 0 in found):
        limits = {"amount": "from 0 to 1", "clip": "> 0"}.get(what, ">= 0")
        raise ValueError(f"--values of {what} must be finite numbers {limits}, got {text!r}")
    return found


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
    tried = candidates(given)
    log = Log(given.out / "runs.jsonl", identity(given))
    progress = Progress()
    total = len(tried) * len(layers) * given.folds * given.seeds
    done: list[dict[str, Any]] = []
    try:
        for number, (data, key) in enumerate(plan(given, work, layers, tried), 1):
            if not log.has(key):
                told = ", ".join(
                    f"{name} {value}" for name, value in key.items() if value is not None
                )
                progress(f"sweep: run {number} of {total}: {told}")
                trial = trial_of(given, key["seed"], key["layer"])
                log.add(key, trial.measure(data, data.validation, key["value"]))
            done.append(key)
        progress(f"sweep: {total} runs are done; the chosen ones on the test part")
        runs = log.of(done)
        report = result(given, runs, layers, tried, work, test)
    except KeyboardInterrupt:
        kept = f"interrupted; {len(done)} of {total} runs are kept in {given.out}"
        raise KeyboardInterrupt(f"{kept}, the same command does the others") from None
    finally:
        progress.done()
    write_whole(given.out / "results.csv", as_csv(runs).encode())
    return report


def plan(
    given: argparse.Namespace, work: Part, layers: list[Any], tried: list[Any]
) -> Iterator[tuple[Data, dict[str, Any]]]:
    """Yield every run: its data and its key; those of one fold and seed follow each other."""
    for fold, data in enumerate(folds(work, given.folds, given.seed)):
        for seed in range(given.seed, given.seed + given.seeds):
            for layer in layers:
                for value in tried:
                    yield data, {"layer": layer, "fold": fold, "seed": seed, "value": value}


def trial_of(given: argparse.Namespace, seed: int, layer: int | None) -> sweep_runs.Trial:
    """Return what the runs of a seed and a layer have in common."""
    return sweep_runs.Trial(given.model, given.what, given.epochs, seed, layer, given.amount)


def identity(given: argparse.Namespace) -> dict[str, Any]:
    """Return what must be the same for runs to belong to one sweep."""
    names = ["what", "model", "epochs", "data", "folds", "seed"]
    names += ["amount"] if given.what == "methods" else []
    return {name: getattr(given, name) for name in names}


def result(
    given: argparse.Namespace, runs: list[dict[str, Any]], layers: list[Any], tried: list[Any],
    work: Part, test: Part,
) -> Report:  # fmt: skip
    """Choose the largest sparsity within the allowed loss, by the mean over folds and seeds."""
    nobody = Part(work.x[:0], work.labels[:0])
    whole = Data(work, nobody, nobody)
    table: list[Any] = []
    lines, notes = [], []
    numbers: dict[str, Any] = {}
    for layer in layers:
        where = "all weights" if layer is None else f"weight {layer}"
        rows = _measured(where, [r for r in runs if r["layer"] == layer], tried)
        best = choose(given.what, rows, given.loss)
        final = trial_of(given, given.seed, layer).measure(whole, test, best[1])
        sure = given.loss - best[4].mean >= 2 * best[4].error
        notes.append(_note(given, best, sure, final))
        numbers[where] = {
            "chosen": best[1], "loss": best[4], "sure": sure, "test": final["accuracy"], "sparsity": best[2],
        }  # fmt: skip
        table += rows
        lines.append(_line(where, rows))
    found = Table(
        f"Validation accuracy, mean ± standard error of {given.folds} folds × {given.seeds} seeds; the loss "
        f"is against {tried[0]}, run by run",
        ("where", given.what.removesuffix("s"), "sparsity", "accuracy", "loss"),
        ("", "g", ".1%", ".2%", ".2%"),
        table,
    )
    chart = Chart(
        f"Sweep of {given.what}", given.what, "validation accuracy", lines,
        log_x=given.what in LOGARITHMIC,
        names=sweep_runs.METHODS if given.what == "methods" else (),
    )  # fmt: skip
    return Report(f"Sweep of {given.what}", notes, [found], [chart], numbers)


def _measured(where: str, runs: list[dict[str, Any]], tried: list[Any]) -> list[Any]:
    """Return a row for each candidate: where, value, sparsity, accuracy, and what it costs."""
    groups = [[r for r in runs if r["value"] == value] for value in tried]
    # paired: the same fold and seed without, so that what they share cancels
    bases = [r["accuracy"] for r in groups[0]]
    rows = []
    for value, group in zip(tried, groups, strict=True):
        right = [r["accuracy"] for r in group]
        lost = [b - r for b, r in zip(bases, right, strict=True)]
        zeros = measured([r["sparsity"] for r in group])
        rows.append((where, value, zeros, measured(right), measured(lost)))
    return rows


def choose(what: str, rows: list[Any], allowed: float) -> Any:
    """Return the row with the largest sparsity within the allowed loss; of clips the most accurate.

    Of methods only those that prune stand to be chosen, the most accurate of them.
    """
    if what == "clip":
        return max(rows, key=lambda row: row[3].mean)
    if what == "methods":
        return max(rows[1:], key=lambda row: row[3].mean)
    return max((r for r in rows if r[4].mean <= allowed), key=lambda row: row[2].mean)


def _note(given: argparse.Namespace, best: Any, sure: bool, final: dict[str, float]) -> str:
    where, value, zeros, right, lost = best
    margin = f"{100 * abs(lost.mean):.2f} ± {100 * lost.error:.2f} points"
    test = (
        f"Test part, looked at once: {final['accuracy']:.2%} at sparsity {final['sparsity']:.1%}."
    )
    nothing = "dense" if given.what == "methods" else f"{given.what} {NOTHING[given.what]}"
    if lost.runs == 1:
        margin = f"{100 * abs(lost.mean):.2f} points"
    change = (
        f"it {'costs' if lost.mean >= 0 else 'gains'} {margin} against {nothing} ({lost.runs} runs"
    )
    if given.what in ("clip", "methods"):
        known = abs(lost.mean) >= 2 * lost.error
        verdict = "two standard errors or more" if known else "less than two standard errors"
        return f"{where}: most accurate is {value}, {right.mean:.2%}; {change}; {verdict}). {test}"
    if value == NOTHING[given.what]:
        return f"{where}: nothing else that was tried costs at most {100 * given.loss:g} points. {test}"
    verdict = (
        "by two standard errors or more below the limit"
        if sure
        else "not sure by two standard errors"
    )
    return (
        f"{where}: chosen {given.what} {value:g}, sparsity {zeros.mean:.1%}; {change}; allowed "
        f"{100 * given.loss:g}), {verdict}. {test}"
    )


def _line(where: str, rows: list[Any]) -> Series:
    """Return what is drawn: accuracy over the candidates; a candidate with a name stands by its place."""
    named = all(isinstance(row[1], str) for row in rows)
    points = [
        (float(place if named else row[1]), row[3].mean, row[3].error)
        for place, row in enumerate(rows)
        if named or not isinstance(row[1], str)
    ]
    return Series(where, sorted(points))
