"""The canonical implementation itself, as an ordinary participant (NumPy arrays)."""

from __future__ import annotations

from typing import Any

import numpy as np

from adapters.base import Adapter
from refimpl import clipping, layers, losses, optimizers, pruning, regularization, schedules, scores

Tensors = list[Any]
Outputs = dict[str, Any]

WIDE = ("float64", "float32")

adapter = Adapter("refimpl", version=np.__version__, to_native=lambda x: x, to_numpy=np.asarray)


@adapter.operation("clip.value")
def clip_value(grads: Tensors, **params: Any) -> Outputs:
    """``refimpl.clipping.clip_value``."""
    return {"grads": clipping.clip_value(grads, **params)}


@adapter.operation("clip.norm")
def clip_norm(grads: Tensors, *, max_norm: float, ord: float = 2, **dials: Any) -> Outputs:
    """``refimpl.clipping.clip_norm``."""
    clipped, norms = clipping.clip_norm(grads, max_norm, ord, **dials)
    return {"grads": clipped, "norms": norms}


@adapter.operation("clip.global_norm")
def clip_global_norm(grads: Tensors, *, max_norm: float, ord: float = 2, **dials: Any) -> Outputs:
    """``refimpl.clipping.clip_global_norm``."""
    clipped, total = clipping.clip_global_norm(grads, max_norm, ord, **dials)
    return {"grads": clipped, "total_norm": total}


@adapter.operation("score.magnitude")
def score_magnitude(weights: Tensors) -> Outputs:
    """``refimpl.scores.magnitude``."""
    return {"scores": scores.magnitude(weights)}


@adapter.operation("score.gradient")
def score_gradient(grads: Tensors) -> Outputs:
    """``refimpl.scores.gradient``."""
    return {"scores": scores.gradient(grads)}


@adapter.operation("prune.threshold")
def prune_threshold(weights: Tensors, scores: Tensors, **params: Any) -> Outputs:
    """``refimpl.pruning.prune_threshold``."""
    masks, pruned = pruning.prune_threshold(weights, scores, **params)
    return {"masks": masks, "weights": pruned}


@adapter.operation("prune.fraction")
def prune_fraction(weights: Tensors, scores: Tensors, **params: Any) -> Outputs:
    """``refimpl.pruning.prune_fraction``."""
    masks, pruned = pruning.prune_fraction(weights, scores, **params)
    return {"masks": masks, "weights": pruned}


@adapter.operation("prune.shrink")
def prune_shrink(weights: Tensors, scores: Tensors, **params: Any) -> Outputs:
    """``refimpl.pruning.shrink``."""
    return {"weights": pruning.shrink(weights, scores, **params)}


@adapter.operation("schedule.polynomial")
def schedule_polynomial(**params: Any) -> Outputs:
    """``refimpl.schedules.polynomial``."""
    sparsity, updates = schedules.polynomial(**params)
    return {"sparsity": sparsity, "updates": updates}


@adapter.operation("layer.dense")
def layer_dense(x: Any, weight: Any, bias: Any, dy: Any) -> Outputs:
    """``refimpl.layers.dense``."""
    y, backprop = layers.dense(x, weight, bias)
    return {"y": y, **_gradients(backprop(dy))}


@adapter.operation("layer.conv2d")
def layer_conv2d(x: Any, weight: Any, bias: Any, dy: Any, **params: Any) -> Outputs:
    """``refimpl.layers.conv2d``."""
    y, backprop = layers.conv2d(x, weight, bias, **params)
    return {"y": y, **_gradients(backprop(dy))}


def _gradients(gradients: Any) -> Outputs:
    return dict(zip(("dx", "dweight", "dbias"), gradients, strict=True))


@adapter.operation("layer.max_pool2d")
def layer_max_pool2d(x: Any, dy: Any, **params: Any) -> Outputs:
    """``refimpl.layers.max_pool2d``."""
    y, backprop = layers.max_pool2d(x, **params)
    return {"y": y, "dx": backprop(dy)}


@adapter.operation("layer.avg_pool2d")
def layer_avg_pool2d(x: Any, dy: Any, **params: Any) -> Outputs:
    """``refimpl.layers.avg_pool2d``."""
    y, backprop = layers.avg_pool2d(x, **params)
    return {"y": y, "dx": backprop(dy)}


@adapter.operation("layer.relu")
def layer_relu(x: Any, dy: Any, **dials: Any) -> Outputs:
    """``refimpl.layers.relu``."""
    y, backprop = layers.relu(x, **dials)
    return {"y": y, "dx": backprop(dy)}


@adapter.operation("layer.flatten")
def layer_flatten(x: Any, dy: Any) -> Outputs:
    """``refimpl.layers.flatten``."""
    y, backprop = layers.flatten(x)
    return {"y": y, "dx": backprop(dy)}


@adapter.operation("loss.softmax_cross_entropy")
def loss_softmax_cross_entropy(x: Any, targets: Any, **params: Any) -> Outputs:
    """``refimpl.losses.softmax_cross_entropy``."""
    loss, backprop = losses.softmax_cross_entropy(x, targets, **params)
    return {"loss": loss, "dx": backprop()}


@adapter.operation("loss.mse")
def loss_mse(x: Any, targets: Any, **params: Any) -> Outputs:
    """``refimpl.losses.mse``."""
    loss, backprop = losses.mse(x, targets, **params)
    return {"loss": loss, "dx": backprop()}


def _trajectory(make: Any, params: Tensors, grads: list[Tensors], lr: Any, dials: Any) -> Outputs:
    """Take the steps of an optimiser; ``lr`` is a number, or a list with one per step."""
    rates = lr if isinstance(lr, list) else [lr] * len(grads)
    optimizer = make(rates[0], **dials)
    state = optimizer.init(params)
    steps = []
    for rate, step_grads in zip(rates, grads, strict=True):
        params, state = optimizer.update(params, step_grads, state, lr=rate)
        steps.append(params)
    return {"params": steps}


@adapter.operation("optim.sgd", dtypes=WIDE)
def optim_sgd(params: Tensors, grads: list[Tensors], *, lr: Any, **dials: Any) -> Outputs:
    """``refimpl.optimizers.sgd``."""
    return _trajectory(optimizers.sgd, params, grads, lr, dials)


@adapter.operation("optim.adam", dtypes=WIDE)
def optim_adam(params: Tensors, grads: list[Tensors], *, lr: Any, **dials: Any) -> Outputs:
    """``refimpl.optimizers.adam``."""
    return _trajectory(optimizers.adam, params, grads, lr, dials)


@adapter.operation("optim.adamw", dtypes=WIDE)
def optim_adamw(params: Tensors, grads: list[Tensors], *, lr: Any, **dials: Any) -> Outputs:
    """``refimpl.optimizers.adamw``."""
    return _trajectory(optimizers.adamw, params, grads, lr, dials)


@adapter.operation("penalty.l1")
def penalty_l1(weights: Tensors, *, strength: float, **dials: Any) -> Outputs:
    """``refimpl.regularization.penalty_l1``."""
    value, grads = regularization.penalty_l1(weights, strength, **dials)
    return {"value": value, "grads": grads}


@adapter.operation("penalty.l2")
def penalty_l2(weights: Tensors, *, strength: float, **dials: Any) -> Outputs:
    """``refimpl.regularization.penalty_l2``."""
    value, grads = regularization.penalty_l2(weights, strength, **dials)
    return {"value": value, "grads": grads}


@adapter.operation("prox.l1")
def prox_l1(weights: Tensors, *, strength: float, step: float, **dials: Any) -> Outputs:
    """``refimpl.regularization.prox_l1``."""
    return {"weights": regularization.prox_l1(weights, strength, step, **dials)}
