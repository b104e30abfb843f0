"""Hidden neurons of a dense network: their gradients, the masks that prune them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import models
from .training import CROSS_ENTROPY


def hidden(model: models.Model) -> list[int]:
    """Return the places of the dense layers whose units are hidden: all but the last one."""
    return [i for i, layer in enumerate(model) if layer["operation"] == "layer.dense"][:-1]


def gradients(model: models.Model, params: Sequence[Any], x: Any, targets: Any) -> list[Any]:
    """Return, for each hidden layer, the mean over the examples of |∂ℓ_n/∂z_ni| of its units i.

    z is what a unit gives to its activation, so that a unit which is off for an example has no
    gradient there. Without the magnitude the mean would be the gradient of the unit's bias, which
    training brings to zero for every unit that it has trained.
    """
    result = []
    for place in hidden(model):
        count = sum(models.parameter_count(layer) for layer in model[: place + 1])
        z, _ = models.forward(model[: place + 1], params[:count], x)
        y, backprop = models.forward(model[place + 1 :], params[count:], z)
        _, loss_gradient = models.loss({**CROSS_ENTROPY, "reduction": "sum"}, y, targets)
        dz, _ = backprop(loss_gradient())
        result.append(np.mean(abs(dz), axis=0))
    return result


def masks(model: models.Model, params: Sequence[Any], kept: Sequence[Any]) -> list[Any]:
    """Return masks that keep the given units: a pruned one loses what goes in, its bias, what goes out."""
    result: list[Any] = [np.ones(p.shape, bool) for p in params]
    layer = 0
    for place, keep in zip(hidden(model), kept, strict=True):
        layer = sum(models.parameter_count(description) for description in model[:place])
        result[layer] = result[layer] & keep[None, :]
        result[layer + 1] = result[layer + 1] & keep
        result[layer + 2] = result[layer + 2] & keep[:, None]
    return result
