"""``secateurs compress``: what pruning buys once the file is written and the network runs."""

from __future__ import annotations

import argparse
import importlib
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import compression, model_files, models
from .model_files import Stored
from .recipes import a2, a4, neurons, training
from .recipes.command import tell
from .recipes.compress_report import BATCH, PAIRS, ROUNDS, Measures, report_of
from .recipes.report import Report
from .recipes.training import Data

MOST_ROUNDS, SECONDS = 500, 2.0
INT8 = "int8.safetensors"


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    top = argparse.ArgumentParser(
        prog="secateurs compress",
        description="Train and prune a network on the digits (or read one with --model-file), take out what is "
        "dead, write it in several forms, and measure bytes, multiply-adds, time and accuracy.",
    )
    add = top.add_argument
    add("--model", choices=["cnn", "mlp"], default="cnn", help="the network of A2, or of A4")
    add("--model-file", type=Path, help="a model that was written here, instead of training one")
    add("--amount", type=float, default=0.9, help="share of single weights pruned (default 0.9)")
    add("--units", type=float, default=0.5, help="share of units or filters pruned (default 0.5)")
    add("--out", type=Path, default=Path("compressed"), help="folder for the files")
    add("--epochs", type=int, help="epochs of training, and of fine-tuning")
    add("--seed", type=int, default=0)
    add("--data", default="digits", help="digits, or IMAGES,LABELS: two files in IDX format")
    add("--json", type=Path, metavar="FILE", help="write the report as JSON")
    add("--plot", type=Path, metavar="FILE", help="draw bytes and times (.png, .svg, .pdf)")
    return top


def main(arguments: Sequence[str]) -> None:
    """Run the command. Raises ValueError, TypeError or OSError with one line that says what is wrong."""
    given = parser().parse_args(arguments)
    progress = training.Progress()
    try:
        check(given)
        given.out.mkdir(parents=True, exist_ok=True)
        report = compress(given, progress)
    finally:
        progress.done()
    tell(report, given.json, given.plot)


def check(given: argparse.Namespace) -> None:
    """Refuse options that make no sense, before anything is trained."""
    for name in ("amount", "units"):
        if not 0 <= getattr(given, name) <= 1:
            raise ValueError(f"--{name} must be in [0, 1], got {getattr(given, name)}")
    if given.epochs is not None and given.epochs < 1:
        raise ValueError(f"--epochs must be at least 1, got {given.epochs}")
    for path in (given.json, given.plot):
        if path is not None and not path.absolute().parent.is_dir():
            raise ValueError(f"cannot write {path}: its folder does not exist")


def compress(given: argparse.Namespace, progress: Callable[[str], None]) -> Report:
    """Make the variants, write each in every form, measure, and say what is so."""
    data = training.parts(given.data, given.seed)
    if given.model_file is not None:
        stored = model_files.load(given.model_file)
        variants = {"as read": stored, "as read, units removed": removed(stored)}
    else:
        variants = trained(given, data, progress)
    progress("compress: measuring")
    x = data.test.x[:BATCH]
    times = clocked({name: dense_run(stored, x) for name, stored in variants.items()})
    sparse = clocked(
        {name: run for name, stored in variants.items() if (run := sparse_run(stored, x))}
    )
    found = {}
    for name, stored in variants.items():
        size = compression.sizes(stored.model, stored.params, stored.input_shape)
        files = {
            label: model_files.save(
                given.out / f"{slug(name)}.{suffix}", stored, form=form, packing=packing
            )
            for label, suffix, form, packing in forms()
        }
        right = training.share_right(stored.model, stored.params, data.test)
        in_8_bits = model_files.load(given.out / f"{slug(name)}.{INT8}")
        found[name] = Measures(
            size,
            right,
            training.share_right(in_8_bits.model, in_8_bits.params, data.test),
            1e3 * times[name],
            _milliseconds(sparse, name),
            files,
        )
    distances = {
        taken: apart(variants[masked], variants[taken], x)
        for masked, taken in PAIRS
        if masked in variants
    }
    return report_of(given.out, found, distances)


def _milliseconds(times: dict[str, float], name: str) -> float:
    return 1e3 * times[name] if name in times else math.nan


def trained(
    given: argparse.Namespace, data: Data, progress: Callable[[str], None]
) -> dict[str, Stored]:
    """Return a dense network, one with single weights pruned, one with units pruned, and both smaller."""
    progress(f"compress: training the {given.model}")
    if given.model == "cnn":
        model, plan = a2.network(data.shape), a2.PLAN
        epochs = given.epochs or a2.EPOCHS
        dense = a2.dense(data, given.seed, epochs)
        grouped = unit_masks(model, dense.params, given.units)
    else:
        model, plan = list(a4.MODEL), a4.PLAN
        epochs = given.epochs or a4.EPOCHS
        dense = a4.dense(data, given.seed, epochs)
        score = neurons.gradients(model, dense.params, data.train.x, data.train.labels)
        grouped = neurons.masks(model, dense.params, a4.lowest(score, given.units))
    found = {"dense": Stored(model, dense.params, data.shape)}
    single = a2.masks_at(model, dense.params, given.amount)
    for name, masks in (("weights masked", single), ("units masked", grouped)):
        progress(f"compress: {name}, {epochs} epochs of fine-tuning")
        start = training.pruned(plan, dense.params, masks)
        tuned = training.fit(model, plan, start, data.train, epochs=epochs, seed=given.seed + 500)
        found[name] = Stored(model, tuned.params, data.shape)
    found["weights masked, dead units removed"] = removed(found["weights masked"])
    found["units removed"] = removed(found["units masked"])
    return found


def removed(stored: Stored) -> Stored:
    """Return a model without the units that do nothing."""
    model, params = compression.remove_units(stored.model, stored.params, stored.input_shape)
    return Stored(model, params, stored.input_shape)


def unit_masks(model: models.Model, params: Sequence[Any], amount: float) -> list[Any]:
    """Return masks of whole units: in each layer but the last those with the smallest 2-norm go."""
    from .structured import prune_structured

    weights = training.weights_of(model)
    masks: list[Any] = [np.ones(p.shape, bool) for p in params]
    for i in weights[:-1]:
        mask, _ = prune_structured(params[i], axis=-1, amount=amount, minimum_kept=1)
        masks[i] = mask
        masks[i + 1] = mask.reshape(-1, mask.shape[-1]).any(axis=0)
    return masks


def dense_run(stored: Stored, x: Any) -> Callable[[], Any]:
    """Return the forward pass as it is."""
    return lambda: models.forward(stored.model, stored.params, x)


def sparse_run(stored: Stored, x: Any) -> Callable[[], Any] | None:
    """Return the forward pass with every weight in SciPy's CSR; None without SciPy."""
    try:
        sparse = importlib.import_module("scipy.sparse")
    except ModuleNotFoundError:
        return None
    matrices = [
        sparse.csr_array(p.reshape(-1, p.shape[-1]).T) if p.ndim > 1 else p for p in stored.params
    ]
    return lambda: sparse_forward(stored, matrices, x)


def sparse_forward(stored: Stored, matrices: Sequence[Any], x: Any) -> Any:
    """Run a model whose weights are sparse matrices; convolutions multiply the windows laid out."""
    place = 0
    for layer in stored.model:
        count = models.parameter_count(layer)
        if not count:
            x, _ = models.forward([layer], [], x)
            continue
        matrix, bias, weight = matrices[place], matrices[place + 1], stored.params[place]
        if layer["operation"] == "layer.conv2d":
            if set(layer) - {"operation", "filters", "kernel"}:
                raise ValueError("sparse inference knows convolutions without padding and strides")
            x = np.lib.stride_tricks.sliding_window_view(x, weight.shape[:2], axis=(1, 2))
            x = np.moveaxis(x, 3, 5)
        rows = x.reshape(-1, int(np.prod(weight.shape[:-1])))
        outer = x.shape[:3] if layer["operation"] == "layer.conv2d" else x.shape[:1]
        x = (matrix @ rows.T).T.reshape(*outer, -1) + bias
        place += count
    return x


def clocked(runs: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Return the seconds of each, the best of many rounds.

    In each round all take their turn, so that a busy moment of the machine is nobody's own.
    """
    best = dict.fromkeys(runs, math.inf)
    for run in runs.values():  # the first time only warms up
        run()
    begin, number = time.perf_counter(), 0
    while number < ROUNDS or (number < MOST_ROUNDS and time.perf_counter() - begin < SECONDS):
        number += 1
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            best[name] = min(best[name], time.perf_counter() - started)
    return best


def apart(masked: Stored, taken: Stored, x: Any) -> tuple[float, float, bool]:
    """Return how far two models' outputs are apart at most, how far they may be, and if all are within."""
    a, b = (models.forward(v.model, v.params, x)[0] for v in (masked, taken))
    found = np.abs(a.astype(np.float64) - b)
    bound = compression.rounding_bound(masked.model, masked.params, x)
    return float(found.max()), float(bound.max()), bool((found <= bound).all())


def forms() -> list[tuple[str, str, str, str]]:
    """Return label, suffix, form and packing of each file that is written."""
    found = [
        ("dense", "safetensors", "dense", "none"),
        ("dense, gzip", "safetensors.gz", "dense", "gzip"),
        ("CSR", "csr.safetensors", "csr", "none"),
        ("CSR, gzip", "csr.safetensors.gz", "csr", "gzip"),
        ("int8", INT8, "int8", "none"),
        ("int8, gzip", "int8.safetensors.gz", "int8", "gzip"),
    ]
    zstd = [("dense, zstd", "safetensors.zst", "dense", "zstd")]
    return found + zstd if model_files.has_zstd() else found


def slug(name: str) -> str:
    """Return a name for a file."""
    return name.replace(", ", "-").replace(" ", "-")
