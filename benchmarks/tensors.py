"""Clipping and pruning of many tensors, and how time and memory grow with their size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn.utils import prune

from refimpl import clipping, optimizers, pruning, scores

Run = Callable[[], Any]


def normal(count: int, shape: tuple[int, ...]) -> list[Any]:
    """Return so many random float32 arrays."""
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape, dtype=np.float32) for _ in range(count)]


def clip_peers() -> dict[str, Run]:
    """Clip 25 million float32 numbers in 100 tensors by their global norm.

    PyTorch writes over its gradients, and so does refimpl where it is told that it may. The limit is
    far below the norm, and halves at every call, so that each call has something to clip.
    """
    arrays = normal(100, (500, 500))
    params = [torch.nn.Parameter(torch.empty(500, 500)) for _ in arrays]
    for param, array in zip(params, arrays, strict=True):
        param.grad = torch.from_numpy(array.copy())
    given = [array.copy() for array in arrays]
    limits = {"refimpl": 1000.0, "torch": 1000.0, "new": 1000.0}

    def lower(name: str) -> float:
        limits[name] *= 0.9
        return limits[name]

    return {
        "refimpl": lambda: clipping.clip_global_norm(given, lower("refimpl"), reuse=True),
        "torch": lambda: torch.nn.utils.clip_grad_norm_(params, lower("torch")),
        "refimpl, new arrays": lambda: clipping.clip_global_norm(arrays, lower("new")),
    }


def prune_peers() -> dict[str, Run]:
    """Prune 10 tensors of a million weights to 80 %, by magnitude over all of them.

    Neither side is timed while it makes the layers that it then prunes; those of PyTorch are new at
    each call, since pruning them leaves a mask that the next call would start from.
    """
    arrays = normal(10, (1000, 1000))
    fresh: list[list[torch.nn.Linear]] = []

    def layers() -> list[torch.nn.Linear]:
        made = [torch.nn.Linear(1000, 1000, bias=False) for _ in arrays]
        for layer, array in zip(made, arrays, strict=True):
            layer.weight = torch.nn.Parameter(torch.from_numpy(array.copy()))
        return made

    def theirs() -> list[torch.nn.Linear]:
        made = fresh.pop() if fresh else layers()
        targets = [(layer, "weight") for layer in made]
        prune.global_unstructured(targets, pruning_method=prune.L1Unstructured, amount=0.8)
        return made

    def ours() -> list[Any]:
        return pruning.prune_fraction(arrays, scores.magnitude(arrays), amount=0.8, scope="global")[
            1
        ]

    mine = np.concatenate([array.ravel() for array in ours()])
    other = np.concatenate([layer.weight.detach().numpy().ravel() for layer in theirs()])
    weights = np.concatenate([array.ravel() for array in arrays])
    # PyTorch does not say which of equal weights go, so the two may differ in those at the boundary.
    boundary = np.max(np.abs(weights[mine == 0]))
    differ = np.abs(weights[(mine == 0) != (other == 0)])
    if np.count_nonzero(mine) != np.count_nonzero(other) or np.any(differ != boundary):
        raise ValueError("refimpl and torch do not prune the same weights")
    fresh.extend(layers() for _ in range(PRUNE_TURNS))
    return {"refimpl": ours, "torch": theirs}


PRUNE_TURNS = 12


def growing(size: int) -> dict[str, Run]:
    """Return the operations that are timed and weighed for a number of parameters, in 10 tensors."""
    arrays = normal(10, (size // 10,))
    grads = [array.copy() for array in arrays]
    adam = optimizers.adam(lr=1e-3)
    state = adam.init(arrays)
    return {
        "clip by global norm": lambda: clipping.clip_global_norm(grads, 1.0, reuse=True),
        "prune by magnitude": lambda: pruning.prune_fraction(
            arrays, scores.magnitude(arrays), amount=0.8, scope="global"
        ),
        "Adam": lambda: adam.update(arrays, grads, state),
    }
