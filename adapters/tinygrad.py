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
from tinygrad import Context, Tensor, dtypes
from tinygrad.nn import optim

from adapters import _tinygrad_layers
from adapters.base import Adapter, NotStarted, Unsupported, interval

Tensors = list[Tensor | None]
Outputs = dict[str, Any]


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


@adapter.operation("clip.value", dialect={"crossed_bounds": "max_wins"})
def clip_value(
    grads: Tensors,
    *,
    min: float | None = None,
    max: float | None = None,
    range: float | None = None,
) -> Outputs:
    """``Tensor.clip``."""
    min, max = interval(min, max, range, "Tensor.clip has no width beside its bounds")
    if min is None and max is None:
        raise Unsupported("Tensor.clip is called with a bound")
    return {"grads": [None if g is None else g.clip(min, max) for g in grads]}


# --- optimisers: learning rate, state and corrections are float32 ---------------------------------


def _trajectory(kind: Any, params: Any, grads: Any, lr: Any, **options: Any) -> Outputs:
    """Step an optimiser through the given gradients."""
    if any(len(step) != len(params) or any(g is None for g in step) for step in grads):
        raise Unsupported("an optimiser of tinygrad has a gradient for each parameter")
    leaves = [p.clone().is_param_() for p in params]
    rates = lr if isinstance(lr, list) else [lr] * len(grads)
    stepper = kind(leaves, rates[0] if rates else 0.0, **options)
    after = []
    with Context(TRAINING=1):
        for rate, step in zip(rates, grads, strict=True):
            stepper.lr.assign(Tensor([rate], dtype=dtypes.float32)).realize()
            for leaf, grad in zip(leaves, step, strict=True):
                leaf.grad = grad.clone()
            stepper.step()
            after.append([to_numpy(leaf).copy() for leaf in leaves])
    return {"params": [[Tensor(p) for p in step] for step in after]}


@adapter.operation("optim.sgd", ("float32",))
def optim_sgd(params: Any, grads: Any, *, lr: Any, dampening: float, **options: Any) -> Outputs:
    """``tinygrad.nn.optim.SGD``."""
    if dampening:
        raise Unsupported("tinygrad.nn.optim.SGD has no dampening")
    return _trajectory(optim.SGD, params, grads, lr, **options)


ADAM = {"hyperparameters": "input_dtype", "step_count": "optimizer"}


def _adam(
    kind: Any, params: Any, grads: Any, *, lr: Any, beta1: float, beta2: float, amsgrad: bool,
    **options: Any,
) -> Outputs:  # fmt: skip
    if amsgrad:
        raise Unsupported("tinygrad has no AMSGrad")
    return _trajectory(kind, params, grads, lr, b1=beta1, b2=beta2, **options)


@adapter.operation("optim.adam", ("float32",), ADAM)
def optim_adam(params: Any, grads: Any, *, weight_decay: float, **options: Any) -> Outputs:
    """``tinygrad.nn.optim.Adam``."""
    if weight_decay:
        raise Unsupported("tinygrad.nn.optim.Adam has no weight decay")
    return _adam(optim.Adam, params, grads, **options)


@adapter.operation("optim.adamw", ("float32",), ADAM)
def optim_adamw(params: Any, grads: Any, **options: Any) -> Outputs:
    """``tinygrad.nn.optim.AdamW``."""
    return _adam(optim.AdamW, params, grads, **options)


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

_tinygrad_layers.register(adapter)
