"""The canonical trainer on a command line: ``python -m refimpl train``, or ``secateurs train``."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from . import datasets, models, trainer
from .arrays import namespace
from .backends import BACKENDS, Backend, Unavailable, backend

WRONG_USAGE, NOT_STARTED = 2, 3
PROGRAMS = {"recipe": ".recipes.command"}

MODELS: dict[str, list[dict[str, Any]]] = {
    "mlp": [
        {"operation": "layer.flatten"},
        {"operation": "layer.dense", "units": 64},
        {"operation": "layer.relu"},
        {"operation": "layer.dense", "units": 10},
    ],
    "cnn": [
        {"operation": "layer.conv2d", "filters": 32, "kernel": [3, 3]},
        {"operation": "layer.relu"},
        {"operation": "layer.conv2d", "filters": 64, "kernel": [3, 3]},
        {"operation": "layer.relu"},
        {"operation": "layer.avg_pool2d", "window": [2, 2]},
        {"operation": "layer.flatten"},
        {"operation": "layer.dense", "units": 100},
        {"operation": "layer.relu"},
        {"operation": "layer.dense", "units": 10},
    ],
}
LOSS = {"operation": "loss.softmax_cross_entropy"}


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    top = argparse.ArgumentParser(
        prog="secateurs train", description="Train with the canonical trainer."
    )
    add = top.add_argument
    add("--model", default="mlp", help="mlp, cnn, or a JSON file with a list of layers")
    add("--data", default="digits", help="digits, or IMAGES,LABELS: two files in IDX format")
    add("--clip", help="value:C, norm:C, global_norm:C, or JSON; none by default")
    add("--prune", help="the final sparsity, or JSON; gradual by magnitude over the run")
    add("--optimizer", default="sgd", help="sgd, adam, adamw, or JSON")
    add("--lr", type=float, default=0.05, help="learning rate (default 0.05)")
    add("--momentum", type=float, default=0.9, help="momentum of sgd (default 0.9)")
    add("--epochs", type=int, default=5)
    add("--batch-size", type=int, default=32)
    add("--seed", type=int, default=0)
    add("--backend", choices=sorted(BACKENDS), default="numpy")
    add("--device", help="a device of the backend, cuda:0 say")
    add("--trace", type=Path, help="write a JSON line per step: loss, norm, clipped, sparsity")
    add("--quiet", action="store_true", help="print the last line only")
    return top


def main(arguments: Sequence[str]) -> int:
    """Run a command; one line on standard error if something is wrong."""
    if arguments and arguments[0] in PROGRAMS:
        # Each is imported only by those who want it.
        return int(import_module(PROGRAMS[arguments[0]], "refimpl").main(arguments[1:]))
    if not arguments or arguments[0] != "train":
        names = "|".join(["train", *PROGRAMS])
        print(f"usage: python -m refimpl {names} [--help]", file=sys.stderr)
        return WRONG_USAGE
    options = parser().parse_args(arguments[1:])
    try:
        library = backend(options.backend, options.device)
    except Unavailable as reason:
        print(f"secateurs: {reason}", file=sys.stderr)
        return NOT_STARTED
    try:
        train(options, library)
    except (ValueError, TypeError, KeyError, OSError) as error:
        print(f"secateurs: {error}", file=sys.stderr)
        return WRONG_USAGE
    return 0


def train(options: argparse.Namespace, library: Backend) -> None:
    """Train and validate, epoch by epoch."""
    images, labels = load(options.data)
    seen, held_out = datasets.split(len(labels), options.seed)
    model = description(options.model)
    params = models.initial_params(model, images.shape[1:], options.seed)
    per_epoch = -(-len(seen) // options.batch_size)
    plan = make_plan(options, model, per_epoch * options.epochs)
    state = trainer.start(plan, [library.to_device(p) for p in params])
    steps: list[dict[str, Any]] = []
    for epoch in range(options.epochs):
        order = trainer.minibatches(len(seen), options.batch_size, options.seed + epoch)
        batches = (
            [tuple(library.to_device(a[seen[rows]]) for a in (images, labels))] for rows in order
        )
        first = len(steps)
        state = trainer.train(model, LOSS, plan, state, batches, listener(steps, plan, library))
        accuracy = evaluate(model, state.params, images[held_out], labels[held_out], library)
        mean = float(np.mean([s["loss"] for s in steps[first:]]))
        clipped = sum(s["clipped"] for s in steps[first:])
        if not options.quiet or epoch == options.epochs - 1:
            print(
                f"epoch {epoch + 1:3d}  loss {mean:8.4f}  accuracy {accuracy:.4f}"
                f"  clipped {clipped}/{len(steps) - first}  sparsity {steps[-1]['sparsity']:.3f}",
                flush=True,
            )
    if options.trace:
        write_whole(options.trace, "".join(json.dumps(step) + "\n" for step in steps))


def listener(steps: list[dict[str, Any]], plan: trainer.Plan, library: Backend) -> trainer.OnStage:
    """Return a listener that keeps a few numbers of each step."""
    limit = (plan.clip or {}).get("max_norm", float("inf"))
    now: dict[str, Any] = {}

    def listen(stage: str, step: int, values: dict[str, Any]) -> None:
        if stage == "loss":
            now["loss"] = float(library.to_numpy(values["loss"]))
        elif stage == "penalty":
            now["total_norm"] = float(library.to_numpy(values["total_norm"]))
        elif stage == "record":
            masks = [library.to_numpy(m) for m in values["masks"] if m is not None]
            kept = sum(int(m.sum()) for m in masks)
            total = sum(m.size for m in masks)
            steps.append(
                {
                    "step": step,
                    **now,
                    "clipped": now["total_norm"] > limit,
                    "sparsity": 1 - kept / total if total else 0.0,
                }
            )

    return listen


def evaluate(model: Any, params: Any, images: Any, labels: Any, library: Backend) -> float:
    """Return the accuracy on held-out images."""
    right = 0
    for begin in range(0, len(labels), 256):
        x = library.to_device(images[begin : begin + 256])
        y, _ = models.forward(model, params, x)
        chosen = library.to_numpy(namespace(y).argmax(y, axis=1))
        right += int((chosen == labels[begin : begin + 256]).sum())
    return right / len(labels)


def load(data: str) -> tuple[Any, Any]:
    """Return the images and labels that ``--data`` names."""
    if data == "digits":
        return datasets.digits()
    images, comma, labels = data.partition(",")
    if not comma:
        raise ValueError(f"--data must be digits or IMAGES,LABELS, got {data!r}")
    return datasets.idx(images, labels)


def description(model: str) -> list[dict[str, Any]]:
    """Return the model that ``--model`` names."""
    if model in MODELS:
        return MODELS[model]
    try:
        layers = json.loads(Path(model).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{model}: not valid JSON: {error}") from None
    if not isinstance(layers, list):
        raise ValueError(f"{model}: a model is a list of layers")
    return layers


def make_plan(options: argparse.Namespace, model: Any, steps: int) -> trainer.Plan:
    """Return the plan that the options describe."""
    optimizer: dict[str, Any] = {"operation": f"optim.{options.optimizer}", "lr": options.lr}
    if options.optimizer == "sgd":
        optimizer["momentum"] = options.momentum
    if options.optimizer.startswith("{"):
        optimizer = json.loads(options.optimizer)
    return trainer.Plan(
        optimizer, clip=clip_of(options.clip), prune=prune_of(options.prune, model, steps)
    )


def clip_of(text: str | None) -> dict[str, Any] | None:
    """Return a clip from ``global_norm:1.0`` or JSON."""
    if text is None or text.startswith("{"):
        return None if text is None else json.loads(text)
    kind, _, limit = text.partition(":")
    if kind not in ("value", "norm", "global_norm") or not limit:
        raise ValueError(f"--clip must be value:C, norm:C or global_norm:C, got {text!r}")
    c = float(limit)
    bounds = {"min": -c, "max": c} if kind == "value" else {"max_norm": c}
    return {"operation": f"clip.{kind}", **bounds}


def prune_of(text: str | None, model: Any, steps: int) -> dict[str, Any] | None:
    """Return a gradual pruning of all weights (not biases) to a final sparsity, or one from JSON."""
    if text is None or text.startswith("{"):
        return None if text is None else json.loads(text)
    weights, first = [], 0
    for layer in model:
        count = models.parameter_count(layer)
        # The last parameter of a layer is its bias.
        weights += list(range(first, first + max(count - 1, 0)))
        first += count
    schedule = {
        "operation": "schedule.polynomial",
        "initial": 0.0,
        "final": float(text),
        "begin": steps // 5,
        "end": max(steps // 5, steps * 7 // 10),
        "frequency": max(1, steps // 50),
        "power": 3.0,
    }
    return {
        "score": "score.magnitude",
        "scope": "global",
        "parameters": weights,
        "schedule": schedule,
    }


def write_whole(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as part:
        part.write(text)
    os.replace(part.name, path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
