"""What Optax's modules share: names of types, axes, gradients by ``jax.vjp``, and JAX's refusals.

What is called is compiled by ``jax.jit``, as Optax's own examples are: eagerly it would take ten times as long.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import jax

from adapters._backward import with_gradients
from adapters.base import Rejected, Unsupported

Tensor = Any
Tensors = list[Any]
Outputs = dict[str, Any]
Description = Mapping[str, Any]

WIDE = ("float64", "float32")
FLUSH = {"subnormals": "flush"}


def other_axes(tensor: Tensor, axis: int | list[int]) -> tuple[int, ...]:
    """Return the axes that ``axis`` does not name; which of its own it would refuse is not asked."""
    named = axis if isinstance(axis, list) else [axis]
    groups = {a % tensor.ndim for a in named if -tensor.ndim <= a < tensor.ndim}
    if len(groups) != len(named):
        raise Unsupported("Optax takes the other axes: those that the norms run over")
    return tuple(a for a in range(tensor.ndim) if a not in groups)


def _pull_back(
    function: Callable[..., Tensor], inputs: dict[str, Tensor], dy: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    @jax.jit
    def run(inputs: dict[str, Tensor], dy: Tensor) -> Any:
        y, backward = jax.vjp(lambda tensors: function(**tensors), inputs)
        return y, backward(dy)[0]

    return run(inputs, dy)


run = with_gradients(_pull_back)


def refusing(function: Callable[..., Outputs]) -> Callable[..., Outputs]:
    """Take these errors as refusals: they are how JAX answers shapes that do not fit."""

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Outputs:
        try:
            return function(*args, **kwargs)
        except (TypeError, AssertionError, ZeroDivisionError) as error:
            raise Rejected(str(error)) from error

    return run
