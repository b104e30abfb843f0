"""Thinc, the machine-learning library under spaCy: its optimiser, its layers and ``Ops.clip_gradient``."""

from __future__ import annotations

from typing import Any

import numpy as np
import thinc.api as thinc
from thinc.about import __version__

from adapters.base import Adapter, Unsupported

Array = Any
Arrays = list[Any]
Outputs = dict[str, Any]

SINGLE = ("float32",)
ops = thinc.NumpyOps()

adapter = Adapter(
    "thinc",
    version=__version__,
    homepage="https://thinc.ai",
    to_native=lambda array: array,
    to_numpy=np.asarray,
)


@adapter.operation(
    "clip.norm",
    SINGLE,
    {
        "at_equal": "rescaled", "norm": "naive", "accumulate": "input_dtype", "norm_dtype": "input_dtype",
        "nonfinite": "multiply", "nan_limit": "ignore", "negative_limit": "flip_sign",
        "infinite_limit": "multiply", "zero_over_zero": "nan", "in_place": "documented",
    },
)  # fmt: skip
def clip_norm(grads: Arrays, *, max_norm: float, ord: float) -> Outputs:
    """``Ops.clip_gradient``, which returns no norm: the norms are those that it takes, of numpy.linalg."""
    if ord != 2:
        raise Unsupported("Ops.clip_gradient clips by the 2-norm only")
    norms = [None if g is None else np.linalg.norm(g) for g in grads]
    clipped = [None if g is None else ops.clip_gradient(g, max_norm) for g in grads]
    return {"grads": clipped, "norms": norms}


def _trajectory(
    params: Arrays, grads: list[Arrays], lr: Any, weight_decay: float, **options: Any
) -> Outputs:
    """Step an Optimizer, without the clipping to norm 1 that it has by default."""
    rates = lr if isinstance(lr, list) else [lr] * len(grads)
    optimizer = thinc.Optimizer(0.0, L2=weight_decay, grad_clip=0.0, use_averages=False, **options)
    trajectory = []
    for rate, step in zip(rates, grads, strict=True):
        optimizer.learn_rate = thinc.constant(rate)
        for i, grad in enumerate(step):
            if grad is not None:
                params[i], _ = optimizer((i, "W"), params[i], grad.copy())
        trajectory.append([np.copy(param) for param in params])
    return {"params": trajectory}


@adapter.operation("optim.sgd", SINGLE, {"in_place": "documented"})
def optim_sgd(
    params: Arrays,
    grads: list[Arrays],
    *,
    lr: Any,
    momentum: float,
    dampening: float,
    nesterov: bool,
    weight_decay: float,
) -> Outputs:
    """``thinc.api.SGD``: an Optimizer whose betas are 0."""
    if momentum != 0 or dampening != 0 or nesterov:
        raise Unsupported("thinc.api.SGD has no momentum")
    off = {"beta1": 0.0, "beta2": 0.0, "L2_is_weight_decay": False}
    return _trajectory(params, grads, lr, weight_decay, **off)


@adapter.operation(
    "optim.adam", SINGLE, {"eps_at": "before_bias_correction", "in_place": "documented"}
)
def optim_adam(params: Arrays, grads: list[Arrays], *, amsgrad: bool, **options: Any) -> Outputs:
    """``thinc.api.Adam`` with ``L2_is_weight_decay=False``."""
    if amsgrad:
        raise Unsupported("thinc.api.Adam has no amsgrad")
    if options["beta1"] == 0 or options["beta2"] == 0:
        raise Unsupported("an Optimizer whose betas are not above 0 is SGD")
    return _trajectory(params, grads, L2_is_weight_decay=False, **options)


@adapter.operation("optim.adamw", SINGLE)
def optim_adamw(**_: Any) -> Outputs:
    """Not the same: with ``L2_is_weight_decay`` the step comes first."""
    raise Unsupported("thinc.api.Adam decays the weights after the step, not before it")


@adapter.operation("layer.dense", SINGLE)
def layer_dense(x: Array, weight: Array, dy: Array, bias: Array | None = None) -> Outputs:
    """``thinc.api.Linear``, whose weights are (out, in)."""
    if bias is None:
        raise Unsupported("thinc.api.Linear has a bias always")
    layer = thinc.Linear(weight.shape[1], weight.shape[0])
    layer.set_param("W", weight.T)
    layer.set_param("b", bias)
    y, backprop = layer(x, is_train=True)
    dx = backprop(dy)
    return {"y": y, "dx": dx, "dweight": layer.get_grad("W").T, "dbias": layer.get_grad("b")}


@adapter.operation("layer.relu", SINGLE)
def layer_relu(x: Array, dy: Array) -> Outputs:
    """``Ops.relu`` and ``Ops.backprop_relu``."""
    y = ops.relu(x)
    return {"y": y, "dx": ops.backprop_relu(dy, y)}


@adapter.operation("layer.sigmoid", SINGLE)
def layer_sigmoid(x: Array, dy: Array) -> Outputs:
    """``Ops.sigmoid`` and ``Ops.backprop_sigmoid``."""
    y = ops.sigmoid(x)
    return {"y": y, "dx": ops.backprop_sigmoid(dy, y)}
