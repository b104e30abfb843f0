"""``secateurs compress``: what pruning buys once the file is written and the network runs."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import compression, model_files, models
from .model_files import Stored
from .recipes import a2, a4, neurons, training
from .recipes.command import write_whole
from .recipes.report import Report, Table, as_json, as_text
from .recipes.training import Data, Options

WRONG_USAGE = 2
BATCH = 256


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
    return top


def main(arguments: Sequence[str]) -> int:
    """Run the command; one line on standard error if something is wrong."""
    given = parser().parse_args(arguments)
    try:
        for name in ("amount", "units"):
            if not 0 <= getattr(given, name) <= 1:
                raise ValueError(f"--{name} must be in [0, 1], got {getattr(given, name)}")
        given.out.mkdir(parents=True, exist_ok=True)
        report = compress(given)
        print(as_text(report))
        if given.json:
            write_whole(given.json, as_json(report).encode())
    except (ValueError, TypeError, OSError) as error:
        print(f"secateurs: {error}", file=sys.stderr)
        return WRONG_USAGE
    return 0


def compress(given: argparse.Namespace) -> Report:
    """Make the variants, write each in every form, measure, and say what is so."""
    data = training.parts(given.data, given.seed)
    if given.model_file is not None:
        stored = model_files.load(given.model_file)
        variants = {"as read": stored}
        variants["as read, units removed"] = removed(stored)
    else:
        variants = trained(given, data)
    rows: list[Any] = []
    files: list[Any] = []
    numbers: dict[str, Any] = {}
    for name, stored in variants.items():
        right = training.share_right(stored.model, stored.params, data.test)
        size = compression.sizes(stored.model, stored.params, stored.input_shape)
        seconds = inference(stored, data.test.x[:BATCH])
        sparse = sparse_inference(stored, data.test.x[:BATCH])
        sparse_cell: Any = "–" if sparse is None else 1e3 * sparse
        rows.append(
            (
                name,
                size.parameters,
                size.nonzero,
                size.multiply_adds,
                1e3 * seconds,
                sparse_cell,
                right,
            )
        )
        written = {
            label: model_files.save(
                given.out / f"{slug(name)}.{suffix}", stored, form=form, packing=packing
            )
            for label, suffix, form, packing in forms()
        }
        files.append((name, size.bytes, *written.values()))
        numbers[name] = {
            "accuracy": right, "parameters": size.parameters, "nonzero": size.nonzero, "bytes": size.bytes,
            "multiply_adds": size.multiply_adds, "milliseconds": 1e3 * seconds,
            "milliseconds_csr": None if sparse is None else 1e3 * sparse, **written,
        }  # fmt: skip
    header = (
        "network",
        "parameters",
        "not zero",
        "multiply-adds",
        "ms dense",
        "ms CSR",
        "test accuracy",
    )
    formats = ("", ",d", ",d", ",d", ".2f", ".2f", ".2%")
    tables = [
        Table(f"In memory; the time is of {BATCH} images, the best of 7", header, formats, rows),
        Table(
            f"Bytes; files are in {given.out}",
            ("network", "in memory", *(label for label, *_ in forms())),
            ("", *[",d"] * (1 + len(forms()))),
            files,
        ),
    ]
    return Report("What pruning buys", notes(variants, data), tables, (), numbers)


def trained(given: argparse.Namespace, data: Data) -> dict[str, Stored]:
    """Return a dense network, one with single weights pruned, one with units pruned, and that removed."""
    options = Options(given.data, given.seed, epochs=given.epochs, progress=training.Progress())
    if given.model == "cnn":
        model, plan = a2.network(data.shape), a2.PLAN
        epochs = options.epochs or a2.EPOCHS
        dense = a2.dense(data, given.seed, epochs)
        grouped = unit_masks(model, dense.params, given.units)
    else:
        model, plan = list(a4.MODEL), a4.PLAN
        epochs = options.epochs or a4.EPOCHS
        dense = a4.dense(data, given.seed, epochs)
        score = neurons.gradients(model, dense.params, data.train.x, data.train.labels)
        grouped = neurons.masks(model, dense.params, a4.lowest(score, given.units))
    found = {"dense": Stored(model, dense.params, data.shape)}
    single = a2.masks_at(model, dense.params, given.amount)
    for name, masks in (("weights masked", single), ("units masked", grouped)):
        options.progress(f"compress: {name}, {epochs} epochs of fine-tuning")
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


def inference(stored: Stored, x: Any) -> float:
    """Return the seconds of one forward pass, the best of 7."""
    return best(lambda: models.forward(stored.model, stored.params, x))


def sparse_inference(stored: Stored, x: Any) -> float | None:
    """Return the seconds with every weight in SciPy's CSR; None without SciPy."""
    try:
        sparse = importlib.import_module("scipy.sparse")
    except ModuleNotFoundError:
        return None
    matrices = [
        sparse.csr_array(p.reshape(-1, p.shape[-1]).T) if p.ndim > 1 else p for p in stored.params
    ]
    return best(lambda: sparse_forward(stored, matrices, x))


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


def best(function: Callable[[], Any]) -> float:
    """Return the shortest of seven runs, after one that is not counted."""
    function()
    times = []
    for _ in range(7):
        begin = time.perf_counter()
        function()
        times.append(time.perf_counter() - begin)
    return min(times)


def forms() -> list[tuple[str, str, str, str]]:
    """Return label, suffix, form and packing of each file that is written."""
    found = [
        ("dense", "safetensors", "dense", "none"),
        ("dense, gzip", "safetensors.gz", "dense", "gzip"),
        ("CSR", "csr.safetensors", "csr", "none"),
        ("CSR, gzip", "csr.safetensors.gz", "csr", "gzip"),
    ]
    try:
        model_files._zstd()
    except ValueError:
        return found
    return [*found, ("dense, zstd", "safetensors.zst", "dense", "zstd")]


def slug(name: str) -> str:
    """Return a name for a file."""
    return name.replace(", ", "-").replace(" ", "-")


def notes(variants: dict[str, Stored], data: Data) -> list[str]:
    """Say where masks buy nothing, and how far removal moves an output."""
    lines = [
        "A mask alone buys nothing in memory or time: a zero takes the room and the multiplication of any "
        "number. It pays in a packed file, in compressed rows from about half zeros on (8 bytes for each "
        "number that is kept, against 4), and once whole units are taken out.",
        "Sparse kernels have to beat dense ones that are several times faster per number: see the two columns.",
    ]
    for masked, taken in (("units masked", "units removed"), ("as read", "as read, units removed"),
                          ("weights masked", "weights masked, dead units removed")):  # fmt: skip
        if masked in variants:
            x = data.test.x[:BATCH]
            a, b = (
                models.forward(v.model, v.params, x)[0] for v in (variants[masked], variants[taken])
            )
            apart, scale = float(np.max(abs(a - b))), float(np.max(abs(a)))
            lines.append(
                f"{taken}: outputs at most {apart:.1e} from the masked ones, which reach {scale:.1f}."
            )
    return lines
