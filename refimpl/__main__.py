"""The canonical trainer on a command line: ``python -m refimpl train``, or ``secateurs train``."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from . import checkpoints, datasets, models, trainer
from .arrays import namespace
from .backends import BACKENDS, Backend, Unavailable, backend
from .files import write_whole

NOT_READ, WRONG_USAGE, NOT_STARTED, INTERRUPTED = 1, 2, 3, 130
PROGRAMS = {
    "recipe": ".recipes.command",
    "compress": ".compress",
    "sweep": ".sweep",
}

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
    add(
        "--penalty",
        help="l1:λ, l2:λ, elastic_net:λ1,λ2, group_lasso:λ (a group is a unit), or JSON",
    )
    add("--optimizer", default="sgd", help="sgd, adam, adamw, rmsprop, adagrad, or JSON")
    add("--lr", type=float, default=0.05, help="learning rate (default 0.05)")
    add("--lr-schedule", default="constant", help="constant, cosine, step:EVERY, or JSON")
    add("--momentum", type=float, default=0.9, help="momentum of sgd (default 0.9)")
    add("--epochs", type=int, default=5)
    add("--batch-size", type=int, default=32)
    add("--seed", type=int, default=0)
    add("--backend", choices=sorted(BACKENDS), default="numpy")
    add("--device", help="a device of the backend, cuda:0 say")
    add("--trace", type=Path, help="write a JSON line per step: loss, norm, clipped, sparsity, lr")
    add("--checkpoint", type=Path, help="write the state here after every epoch")
    add("--resume", type=Path, help="go on from a checkpoint, with the other options as they were")
    add("--stop-after", type=int, help="stop after this epoch, as if the run were interrupted")
    add("--quiet", action="store_true", help="print the last line only")
    return top


def main(arguments: Sequence[str]) -> int:
    """Run a command; one line on standard error if something is wrong."""
    name = arguments[0] if arguments else ""
    if name != "train" and name not in PROGRAMS:
        names = "|".join(["train", *PROGRAMS])
        print(f"usage: python -m refimpl {names} [--help]", file=sys.stderr)
        return WRONG_USAGE
    try:
        try:
            _run(name, arguments[1:])
        finally:
            # Here, where a closed pipe is understood; --help, too, leaves by an exception.
            sys.stdout.flush()
    except Unavailable as reason:
        return _complain(str(reason), NOT_STARTED)
    except KeyboardInterrupt as stop:
        return _complain(str(stop) or "interrupted", INTERRUPTED)
    except BrokenPipeError:
        # Who reads has seen enough; else Python would complain once more when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NOT_READ
    except (ValueError, TypeError, KeyError, OSError) as error:
        return _complain(str(error), WRONG_USAGE)
    return 0


def _run(name: str, arguments: Sequence[str]) -> None:
    if name == "train":
        options = parser().parse_args(arguments)
        train(options, backend(options.backend, options.device))
    else:
        # Each is imported only by those who want it.
        import_module(PROGRAMS[name], "refimpl").main(arguments)


def _complain(line: str, code: int) -> int:
    print(f"secateurs: {line}", file=sys.stderr)
    return code


def train(options: argparse.Namespace, library: Backend) -> None:
    """Train and validate, epoch by epoch."""
    images, labels = load(options.data)
    seen, held_out = datasets.split(len(labels), options.seed)
    model = description(options.model)
    per_epoch = -(-len(seen) // options.batch_size)
    plan = make_plan(options, model, per_epoch * options.epochs)
    state = first_state(options, model, plan, images.shape[1:], library)
    steps: list[dict[str, Any]] = []
    for epoch in range(state.step // per_epoch, options.stop_after or options.epochs):
        drawn = np.random.default_rng([options.seed, epoch])
        batches = (
            [batch(model, images[seen[rows]], labels[seen[rows]], drawn, library)]
            for rows in trainer.minibatches(len(seen), options.batch_size, options.seed + epoch)
        )
        first = len(steps)
        state = trainer.train(model, LOSS, plan, state, batches, listener(steps, plan, library))
        if options.checkpoint:
            checkpoints.save(options.checkpoint, plan, moved(state, library.to_numpy))
        accuracy = evaluate(model, state, images[held_out], labels[held_out], library)
        mean = float(np.mean([s["loss"] for s in steps[first:]]))
        clipped = sum(s["clipped"] for s in steps[first:])
        if not options.quiet or epoch == options.epochs - 1:
            print(
                f"epoch {epoch + 1:3d}  loss {mean:8.4f}  accuracy {accuracy:.4f}"
                f"  clipped {clipped}/{len(steps) - first}  sparsity {steps[-1]['sparsity']:.3f}",
                flush=True,
            )
    if options.trace:
        lines = "".join(json.dumps(step) + "\n" for step in steps)
        write_whole(options.trace, lines.encode())


def first_state(
    options: argparse.Namespace, model: Any, plan: trainer.Plan, shape: Any, library: Backend
) -> trainer.State:
    """Return the state of a checkpoint, or one to start from."""
    params = models.initial_params(model, shape, options.seed)
    running = models.initial_running(model, shape)
    if options.resume is None:
        moved_params = [library.to_device(p) for p in params]
        return trainer.start(plan, moved_params, running=[library.to_device(r) for r in running])
    saved, state = checkpoints.load(options.resume, library.to_device)
    if [p.shape for p in params] != [tuple(p.shape) for p in state.params]:
        raise ValueError(f"{options.resume} is a checkpoint of another model")
    if saved != plan:
        raise ValueError(f"{options.resume} was written with other options, its plan is {saved}")
    return state


def moved(state: trainer.State, to: Any) -> trainer.State:
    """Return a state with every array moved, to the host say."""

    def each(arrays: list[Any]) -> list[Any]:
        return [None if array is None else to(array) for array in arrays]

    slots = {
        name: values if name == "step" else each(values) for name, values in state.optimizer.items()
    }
    return dataclasses.replace(
        state,
        params=each(state.params),
        masks=each(state.masks),
        running=each(state.running),
        optimizer=slots,
    )


def batch(
    model: Any, images: Any, labels: Any, drawn: np.random.Generator, library: Backend
) -> tuple[Any, ...]:
    """Return a batch on the device, with the masks of dropout if the model drops anything."""
    masks = models.dropout_masks(model, images.shape[1:], len(labels), drawn)
    given = library.to_device(images), library.to_device(labels)
    return (*given, [library.to_device(m) for m in masks]) if masks else given


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
                    "lr": plan.lr(step),
                    "sparsity": 1 - kept / total if total else 0.0,
                }
            )

    return listen


def evaluate(model: Any, state: trainer.State, images: Any, labels: Any, library: Backend) -> float:
    """Return the accuracy on held-out images."""
    right = 0
    for begin in range(0, len(labels), 256):
        x = library.to_device(images[begin : begin + 256])
        y, _, _ = models.run(model, state.params, x, running=state.running, training=False)
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
    optimizer["lr"] = rates_of(options.lr_schedule, optimizer.get("lr", options.lr), steps)
    return trainer.Plan(
        optimizer,
        clip=clip_of(options.clip),
        penalty=penalty_of(options.penalty),
        prune=prune_of(options.prune, model, steps),
    )


def rates_of(text: str, lr: Any, steps: int) -> Any:
    """Return a learning rate, or a schedule from ``cosine``, ``step:100`` or JSON."""
    if text == "constant":
        return lr
    if text.startswith("{"):
        return json.loads(text)
    name, _, every = text.partition(":")
    extra = {"every": int(every)} if every else {}
    return {"schedule": name, "lr": lr, "steps": steps, **extra}


def penalty_of(text: str | None) -> dict[str, Any] | None:
    """Return a penalty from ``l1:1e-4`` or JSON."""
    if text is None or text.startswith("{"):
        return None if text is None else json.loads(text)
    kind, _, numbers = text.partition(":")
    if f"penalty.{kind}" not in trainer.PENALTIES or not numbers:
        raise ValueError(
            f"--penalty must be l1:λ, l2:λ, elastic_net:λ1,λ2 or group_lasso:λ, got {text!r}"
        )
    if kind == "elastic_net":
        l1, l2 = (float(number) for number in numbers.split(","))
        return {"operation": "penalty.elastic_net", "l1": l1, "l2": l2}
    axis = {"axis": -1} if kind == "group_lasso" else {}
    return {"operation": f"penalty.{kind}", "strength": float(numbers), **axis}


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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
