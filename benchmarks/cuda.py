"""refimpl on CuPy beside PyTorch CUDA: ``make bench-cuda``, or ``python -m benchmarks.cuda``.

The same work as in the benchmarks on the CPU. Both libraries share one process and the device, and
take turns, call by call; each call ends when the device has done its work. Without CuPy, PyTorch or a
CUDA device one line says so and the exit code is 3.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

UNAVAILABLE = 3
TURNS = 20

CLIP = (100, (500, 500))
PRUNE = (10, (1000, 1000))


def main() -> None:
    """Print the table, or say why there is none."""
    try:
        backend, torch = _available()
    except _Unavailable as error:
        print(f"no CUDA benchmark: {error}", file=sys.stderr)
        sys.exit(UNAVAILABLE)
    print("\n".join(_table(backend, torch)))


class _Unavailable(Exception):
    """What is missing, in one line."""


def _available() -> tuple[Any, Any]:
    from refimpl import backends

    try:
        backend = backends.backend("cupy")
    except backends.Unavailable as error:
        raise _Unavailable(str(error)) from None
    try:
        import torch
    except ImportError as error:
        raise _Unavailable(f"torch cannot be imported: {error}") from None
    if not torch.cuda.is_available():
        raise _Unavailable("there is no CUDA device that PyTorch can use")
    return backend, torch


def _table(backend: Any, torch: Any) -> list[str]:
    import cupy

    lines = [
        "# refimpl on CuPy beside PyTorch CUDA",
        "",
        "`make -s bench-cuda > benchmarks/CUDA.md` wrote this page.",
        f"{torch.cuda.get_device_name()}; cupy {cupy.__version__}, torch {torch.__version__}, float32.",
        f"Medians of {TURNS} turns, and of the ratios within them; below 1 refimpl is faster.",
        "",
        "| what | refimpl on CuPy | PyTorch CUDA | refimpl / it |",
        "| --- | ---: | ---: | ---: |",
    ]
    for what, peers in _benchmarks(backend, torch).items():
        seconds = take_turns(peers, cupy.cuda.Device().synchronize)
        pairs = zip(seconds["refimpl"], seconds["torch"], strict=True)
        ratio = statistics.median(ours / theirs for ours, theirs in pairs)
        mine, other = (statistics.median(seconds[who]) * 1e3 for who in ("refimpl", "torch"))
        lines.append(f"| {what} | {mine:.2f} ms | {other:.2f} ms | {ratio:.2f} |")
    return lines


def take_turns(
    peers: Mapping[str, Callable[[], Any]], wait: Callable[[], None], turns: int = TURNS
) -> dict[str, list[float]]:
    """Return the seconds of each call of each peer, every call waited for, after three without a clock."""
    seconds: dict[str, list[float]] = {name: [] for name in peers}
    for turn in range(-3, turns):
        for name, run in peers.items():
            wait()
            begin = time.perf_counter()
            run()
            wait()
            if turn >= 0:
                seconds[name].append(time.perf_counter() - begin)
    return seconds


def _benchmarks(backend: Any, torch: Any) -> dict[str, dict[str, Callable[[], Any]]]:
    from . import training

    found: dict[str, dict[str, Callable[[], Any]]] = {}
    for name, what in (("cnn", "CNN training step"), ("mlp", "MLP training step")):
        model, data = training.MODELS[name], training.batch(training.SHAPES[name])
        found[what] = {
            "refimpl": training.Refimpl(model, *data, move=backend.to_device),
            "torch": training.Torch(model, *data, device="cuda"),
        }
    found["Global-norm clip: 25 million in 100 tensors"] = _clip(backend, torch)
    found["Global magnitude pruning to 80 %: 10 million in 10 tensors"] = _prune(backend, torch)
    return found


def _clip(backend: Any, torch: Any) -> dict[str, Callable[[], Any]]:
    from refimpl import clipping

    from . import tensors

    grads = [backend.to_device(array) for array in tensors.normal(*CLIP)]
    params = [torch.nn.Parameter(torch.empty(CLIP[1], device="cuda")) for _ in grads]
    for param, array in zip(params, tensors.normal(*CLIP), strict=True):
        param.grad = torch.from_numpy(array).cuda()
    ours, theirs = tensors.sinking(), tensors.sinking()
    return {
        "refimpl": lambda: clipping.clip_global_norm(grads, next(ours), reuse=True),
        "torch": lambda: torch.nn.utils.clip_grad_norm_(params, next(theirs)),
    }


def _prune(backend: Any, torch: Any) -> dict[str, Callable[[], Any]]:
    from . import tensors

    arrays = [backend.to_device(array) for array in tensors.normal(*PRUNE)]

    def layers() -> list[Any]:
        return [layer.cuda() for layer in tensors.layers(tensors.normal(*PRUNE))]

    # A pruned layer keeps its mask, so every call has new ones.
    fresh = [layers() for _ in range(TURNS + 3)]
    return {
        "refimpl": lambda: tensors.prune_arrays(arrays),
        "torch": lambda: tensors.prune_layers(fresh.pop()),
    }


if __name__ == "__main__":
    main()
