"""What Keras leaves to its backend: differentiation, and how its tensors become arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from adapters._backward import with_gradients
from adapters.base import FLOATS

Tensor = Any
Tensors = list[Any]
Outputs = dict[str, Any]

BACKEND = keras.config.backend()

WIDE = ("float64", "float32")
# keras.backend.result_type is never wider than float32: what Keras computes by its own rules is float64 on
# TensorFlow only.
DTYPES = tuple(name for name in FLOATS if BACKEND == "tensorflow" or name != "float64")

if BACKEND == "tensorflow":
    import tensorflow as backend

    VERSION = backend.__version__
    FLUSH = {"subnormals": "flush"}
    REFUSALS: tuple[type[Exception], ...] = (backend.errors.InvalidArgumentError,)
    to_native = backend.constant

    def pull_back(function: Callable[[Tensors], Tensor], inputs: Tensors, dy: Any = None) -> Any:
        """Return ``y`` and the gradients of the inputs, by ``tf.GradientTape``."""
        with backend.GradientTape() as tape:
            tape.watch(inputs)
            y = function(inputs)
        zero = backend.UnconnectedGradients.ZERO
        return y, tape.gradient(y, inputs, output_gradients=dy, unconnected_gradients=zero)

    def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function itself: TensorFlow runs eagerly."""
        return function

elif BACKEND == "torch":
    import torch as backend

    from adapters._torch_arrays import to_torch as to_native

    VERSION = backend.__version__
    FLUSH = {}
    REFUSALS = (RuntimeError, IndexError)

    def pull_back(function: Callable[[Tensors], Tensor], inputs: Tensors, dy: Any = None) -> Any:
        """Return ``y`` and the gradients of the inputs, by ``torch.autograd.grad``."""
        leaves = [x.detach().requires_grad_() for x in inputs]
        y = function(leaves)
        if not y.requires_grad:  # a regulariser of strength 0 leaves the weights out
            return y, [backend.zeros_like(x) for x in leaves]
        return y.detach(), backend.autograd.grad(y, leaves, dy, materialize_grads=True)

    def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function itself: PyTorch runs eagerly."""
        return function

else:
    import jax as backend

    backend.config.update("jax_enable_x64", True)  # without it JAX has no float64
    VERSION = backend.__version__
    FLUSH = {"subnormals": "flush"}
    REFUSALS = (TypeError,)
    to_native = backend.numpy.asarray
    compiled = backend.jit

    def pull_back(function: Callable[[Tensors], Tensor], inputs: Tensors, dy: Any = None) -> Any:
        """Return ``y`` and the gradients of the inputs, by ``jax.vjp``."""

        @backend.jit
        def run(inputs: Tensors, dy: Any) -> Any:
            y, backward = backend.vjp(function, inputs)
            return y, backward(backend.numpy.ones_like(y) if dy is None else dy)[0]

        return run(inputs, dy)


def to_numpy(tensor: Tensor) -> np.ndarray[Any, Any]:
    """Return a tensor's or a variable's values."""
    if BACKEND == "tensorflow":  # numpy.asarray knows nothing of its bfloat16
        return np.asarray(keras.ops.convert_to_tensor(tensor).numpy())
    return np.asarray(keras.ops.convert_to_numpy(tensor))


def dtype_of(tensor: Tensor) -> str:
    """Return the name of a tensor's dtype, which is the same for every backend."""
    return str(keras.backend.standardize_dtype(tensor.dtype))


def _by_name(
    function: Callable[..., Tensor], inputs: dict[str, Tensor], dy: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    y, grads = pull_back(
        lambda tensors: function(**dict(zip(inputs, tensors, strict=True))),
        list(inputs.values()),
        dy,
    )
    return y, dict(zip(inputs, grads, strict=True))


run = with_gradients(_by_name)
