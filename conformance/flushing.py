"""What of an answer counts as flushed: the rule for libraries that replace subnormal numbers by zeros.

A library that flushes does so where it computes; what it copies, selects or takes the sign of keeps its
bits, and which operations compute differs from one to the next. So an element that is a flushed zero under
the dial ``subnormals`` may also be the subnormal number itself:

* the one that comes without flushing, within its own tolerance, or
* the one that comes where inputs that are no outputs too are flushed: a weight that is kept by a mask, which
  itself was made from flushed scores.

Nothing else changes: a mask, a normal number, or any other subnormal is judged as it is.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from conformance.cases import Case
from conformance.compare import distances
from conformance.exact import FLUSHED, flush
from conformance.fixtures import expectation
from conformance.formats import FLOATS, Tensor, name_of
from conformance.operation import Leaf, Operation, Setting, leaves, map_tensors


def as_flushed(
    operation: Operation, case: Case, setting: Setting, outputs: dict[str, Any]
) -> dict[str, Any]:
    """Return outputs with the subnormal numbers that were only moved written as the zeros they count as.

    ``outputs`` are decoded tensors (nested lists of arrays by name). Under a setting that keeps subnormal
    numbers, and where there are none, they come back as they are.
    """
    formats = FLUSHED[setting.get("subnormals", "keep")]
    answered = [(path, tensor) for path, tensor in leaves(outputs) if tensor is not None]
    if not formats or not any(_subnormal(tensor).any() for _, tensor in answered):
        return outputs
    keeping = {name: value for name, value in setting.items() if name != "subnormals"}
    made = partial(flush, setting=str(setting["subnormals"]))
    others = {
        name: tree if name in operation.outputs else map_tensors(made, tree)
        for name, tree in case.inputs.items()
    }
    moved = [
        dict(leaves(expected.outputs))
        for expected in (
            expectation(operation, case, keeping),
            operation.expect(replace(case, inputs=others), keeping),
        )
    ]
    paths = iter([path for path, _ in answered])

    def flushed(tensor: Tensor) -> Tensor:
        path, small = next(paths), _subnormal(tensor)
        same = [_is_that_of(leaves_of.get(path), tensor) for leaves_of in moved]
        return np.where(small & np.logical_or(*same), made(tensor), tensor)

    return {name: map_tensors(flushed, tree) for name, tree in outputs.items()}


def _subnormal(tensor: Tensor) -> Any:
    fmt = FLOATS.get(name_of(tensor.dtype))
    if fmt is None:
        return np.zeros(tensor.shape, bool)
    size = np.abs(tensor.astype(np.float64))
    return (size > 0) & (size < fmt.tiny)


def _is_that_of(leaf: Leaf | None, tensor: Tensor) -> Any:
    if leaf is None or leaf.tensor.shape != tensor.shape or leaf.tensor.dtype != tensor.dtype:
        return False
    return distances(tensor, leaf) <= leaf.ulp
