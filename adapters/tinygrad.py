"""tinygrad on the CPU: ``Tensor.clip``, ``nn.optim``, and the layers and losses among ``Tensor``'s methods."""

from __future__ import annotations

import os
import shutil
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# Read when tinygrad is loaded. A case is a dozen small kernels, and compiling them is what takes the time:
# neither their loops are optimised, nor processes started for them.
os.environ.setdefault("DEV", "CPU")
os.environ.setdefault("NOOPT", "1")
os.environ.setdefault("PARALLEL", "0")

import ml_dtypes
import numpy as np
from tinygrad import Tensor, dtypes

from adapters import (
    _tinygrad_clipping,
    _tinygrad_images,
    _tinygrad_layers,
    _tinygrad_losses,
    _tinygrad_optimizers,
)
from adapters.base import Adapter, NotStarted

FAMILIES = (
    _tinygrad_clipping,
    _tinygrad_images,
    _tinygrad_layers,
    _tinygrad_losses,
    _tinygrad_optimizers,
)


def _compiler() -> tempfile.TemporaryDirectory[str] | None:
    """Name the clang that tinygrad compiles for the CPU with: the system's, or that of the package ziglang."""
    if "CC" in os.environ or shutil.which("clang"):
        return None
    spec = find_spec("ziglang")
    if spec is None or not spec.origin:
        raise NotStarted("tinygrad compiles with clang; install it, or the package ziglang")
    folder = tempfile.TemporaryDirectory(prefix="secateurs-clang-")
    program = Path(folder.name, "clang")
    program.write_text(f'#!/bin/sh\nexec "{Path(spec.origin).parent}/zig" clang "$@"\n')
    program.chmod(0o700)
    os.environ["CC"] = str(program)
    return folder


COMPILER = _compiler()  # the folder goes when the process does


def to_tinygrad(array: np.ndarray[Any, Any]) -> Tensor:
    """Return a tensor of the same bits."""
    if array.dtype == ml_dtypes.bfloat16:
        return Tensor(array.view(np.uint16)).bitcast(dtypes.bfloat16)
    return Tensor(array)


def to_numpy(tensor: Tensor) -> np.ndarray[Any, Any]:
    """Return the values of a tensor, computed now."""
    if tensor.dtype == dtypes.bfloat16:
        return tensor.bitcast(dtypes.uint16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


adapter = Adapter(
    "tinygrad",
    version=version("tinygrad"),
    homepage="https://docs.tinygrad.org",
    to_native=to_tinygrad,
    to_numpy=to_numpy,
    rejections=(IndexError, AssertionError, RuntimeError),
)
for _family in FAMILIES:
    adapter.include(_family.operations)

LACKING = {
    "tinygrad has no pruning": """
        score.magnitude score.gradient score.taylor score.snip score.movement score.fisher score.obd
        score.wanda prune.threshold prune.fraction prune.structured prune.n_m prune.block prune.shrink
        prune.clipped_gradient prune.iterative schedule.constant schedule.polynomial
        schedule.exponential""",
    "tinygrad clips by value only": """
        clip.norm clip.global_norm clip.unitwise clip.per_example dist.global_norm""",
    "tinygrad has no such optimiser": "optim.rmsprop optim.adagrad",
    "tinygrad has no regularisers, proximal steps or projections": """
        penalty.l1 penalty.l2 penalty.elastic_net penalty.group_lasso prox.l1 prox.l2 prox.elastic_net
        prox.group_lasso prox.hard_threshold project.l1_ball project.max_norm""",
    "tinygrad has no loop of its own that would accumulate, scale or skip": """
        train.step train.trajectory""",
    "Tensor.dropout draws its own mask and takes none": "layer.dropout",
    "tinygrad has an LSTM cell and no plain one": "layer.rnn",
    "tinygrad has no function of the mean squared error": "loss.mse",
}

for why, operations in LACKING.items():
    adapter.lacks(why, operations)
