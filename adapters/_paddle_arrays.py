"""What PaddlePaddle's modules share: names of types, gradients by ``paddle.grad``, refusals of dtypes."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import wraps
from typing import Any

import paddle

from adapters._backward import with_gradients
from adapters.base import Function, Rejected

Tensor = Any
Tensors = list[Any]
Outputs = dict[str, Any]

WIDE = ("float64", "float32")  # its CPU kernels lack norms and layers in 16 bits
NARROW = ("float32",)


def _pull_back(
    function: Callable[..., Tensor], inputs: dict[str, Tensor], dy: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    leaves = {name: x.clone().detach() for name, x in inputs.items()}
    for leaf in leaves.values():
        leaf.stop_gradient = False
    y = function(**leaves)
    grads = paddle.grad(y, list(leaves.values()), dy, allow_unused=True)
    found = {name: paddle.zeros_like(x) if g is None else g
             for (name, x), g in zip(leaves.items(), grads, strict=True)}  # fmt: skip
    return y.detach(), found


run = with_gradients(_pull_back)


NO_SUCH_DTYPE = re.compile(
    r"is not registered|not implemented for data type|when dtype is not|InvalidType"
)


def refusing(function: Function) -> Function:
    """Take an error that speaks of a dtype as a refusal; its type is another in every kernel."""

    @wraps(function)
    def run(**arguments: Any) -> Any:
        try:
            return function(**arguments)
        except (RuntimeError, TypeError, OSError) as error:
            if NO_SUCH_DTYPE.search(str(error)):
                raise Rejected(str(error).strip().partition("\n")[0]) from error
            raise

    return run
