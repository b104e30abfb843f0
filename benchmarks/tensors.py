"""Clipping and pruning of many tensors, and how time and memory grow with their size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import numpy as np
import torch
from torch.nn.utils import prune

from refimpl import clipping, optimizers, pruning, scores

from .timing import Run


def normal(number: int, shape: tuple[int, ...]) -> list[Any]:
    """Return so many random float32 arrays."""
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape, dtype=np.float32) for _ in range(number)]


def clip_peers() -> dict[str, Callable[[], Run]]:
    """Clip 25 million float32 numbers in 100 tensors by their global norm.

    PyTorch writes over its gradients, and so does refimpl where it is told that it may. The limit is
    below the norm and sinks at every call, so that each call has something to clip.
    """

    def ours(reuse: bool) -> Run:
        grads, limit = normal(100, (500, 500)), sinking()
        return lambda: clipping.clip_global_norm(grads, next(limit), reuse=reuse)

    def theirs() -> Run:
        limit = sinking()
        params = [torch.nn.Parameter(torch.empty(500, 500)) for _ in range(100)]
        for param, array in zip(params, normal(100, (500, 500)), strict=True):
            param.grad = torch.from_numpy(array)
        return lambda: torch.nn.utils.clip_grad_norm_(params, next(limit))

    return {
        "refimpl": lambda: ours(reuse=True),
        "torch": theirs,
        "refimpl, new arrays": lambda: ours(reuse=False),
    }


def sinking() -> Iterator[float]:
    """Yield limits that go down, so that each call has something to clip."""
    return (1000.0 * 0.9**call for call in count())


def check_clip() -> None:
    """Raise ValueError if the libraries do not clip alike."""
    arrays = normal(3, (50, 70))
    params = [torch.nn.Parameter(torch.empty(50, 70)) for _ in arrays]
    for param, array in zip(params, arrays, strict=True):
        param.grad = torch.from_numpy(array.copy())
    theirs = torch.nn.utils.clip_grad_norm_(params, 5.0)
    mine, norm = clipping.clip_global_norm(arrays, 5.0, reuse=True)
    pairs = [(norm, theirs.numpy()), *zip(mine, [p.grad.numpy() for p in params], strict=True)]
    if not all(np.allclose(one, other, rtol=1e-5) for one, other in pairs):
        raise ValueError("refimpl and torch do not clip alike")


def prune_peers() -> dict[str, Callable[[], Run]]:
    """Prune 10 tensors of a million weights to 80 %, by magnitude over all of them.

    PyTorch's layers are new at each call, since pruning them leaves a mask that the next call would
    start from; they are made beforehand, so that nobody is timed while making them.
    """

    def theirs() -> Run:
        fresh = [layers(normal(10, (1000, 1000))) for _ in range(2 * PRUNE_TURNS + 3)]
        return lambda: prune_layers(fresh.pop())

    def ours() -> Run:
        arrays = normal(10, (1000, 1000))
        return lambda: prune_arrays(arrays)

    return {"refimpl": ours, "torch": theirs}


PRUNE_TURNS = 10


def layers(arrays: list[Any]) -> list[Any]:
    """Return layers of PyTorch with these weights."""
    made = [torch.nn.Linear(1, 1, bias=False) for _ in arrays]
    for layer, array in zip(made, arrays, strict=True):
        layer.weight = torch.nn.Parameter(torch.from_numpy(array))
    return made


def prune_layers(layers: list[Any]) -> list[Any]:
    """Prune layers of PyTorch together; return them."""
    weights = [(layer, "weight") for layer in layers]
    prune.global_unstructured(weights, pruning_method=prune.L1Unstructured, amount=0.8)
    return layers


def prune_arrays(arrays: list[Any]) -> list[Any]:
    """Return arrays without the smallest of all their entries."""
    ranked = scores.magnitude(arrays)
    return pruning.prune_fraction(arrays, ranked, amount=0.8, scope="global")[1]


def check_prune() -> None:
    """Raise ValueError if the libraries do not prune the same weights."""
    arrays = normal(10, (1000, 1000))
    mine = np.concatenate([array.ravel() for array in prune_arrays(arrays)])
    pruned = prune_layers(layers([array.copy() for array in arrays]))
    other = np.concatenate([layer.weight.detach().numpy().ravel() for layer in pruned])
    weights = np.concatenate([array.ravel() for array in arrays])
    # PyTorch does not say which of equal weights go, so the two may differ in those at the boundary.
    boundary = np.max(np.abs(weights[mine == 0]))
    differ = np.abs(weights[(mine == 0) != (other == 0)])
    if np.count_nonzero(mine) != np.count_nonzero(other) or np.any(differ != boundary):
        raise ValueError("refimpl and torch do not prune the same weights")


def growing(size: int) -> dict[str, Run]:
    """Return the operations that are timed and weighed for a number of parameters, in 10 tensors."""
    arrays = normal(10, (size // 10,))
    grads = [array.copy() for array in arrays]
    adam = optimizers.adam(lr=1e-3)
    state = adam.init(arrays)
    limit = sinking()
    return {
        "clip by global norm": lambda: clipping.clip_global_norm(grads, next(limit), reuse=True),
        "prune by magnitude": lambda: prune_arrays(arrays),
        "Adam": lambda: adam.update(arrays, grads, state),
    }
