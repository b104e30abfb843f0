"""What of an answer counts as flushed: the rule for libraries that replace subnormal numbers by zeros.

A library that flushes does so where it computes; what it copies, selects or takes the sign of keeps its
bits, and which operations compute differs from one to the next. So an element that is a flushed zero under
the dial ``subnormals`` may also be the subnormal number itself:

* of the weights beside a mask: the weight itself, where the mask that flushing gives keeps it;
* of all else: the number that comes without flushing, within its own tolerance.

Nothing else changes: a mask, a normal number, or any other subnormal is judged as it is.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.cases import Case
from conformance.compare import distances
from conformance.exact import flush
from conformance.fixtures import expectation
from conformance.formats import Tensor
from conformance.operation import (
    Expectation,
    Leaf,
    Operation,
    Setting,
    leaves,
    map_tensors,
    resolve,
)


def as_flushed(
    operation: Operation, case: Case, setting: Setting, outputs: dict[str, Any]
) -> dict[str, Any]:
    """Return outputs with the subnormal numbers that were only moved written as the zeros they count as.

    ``outputs`` are decoded tensors (nested lists of arrays by name). Under a setting that keeps subnormal
    numbers, and where there are none, they come back as they are.
    """
    subnormals = setting.get("subnormals", "keep")
    answered = [(path, tensor) for path, tensor in leaves(outputs) if tensor is not None]
    if not any(((flush(tensor, subnormals) == 0) & (tensor != 0)).any() for _, tensor in answered):
        return outputs
    keeping = {name: value for name, value in setting.items() if name != "subnormals"}
    spared = dict(leaves(expectation(operation, case, keeping).outputs))
    spared |= _kept(case, expectation(operation, case, setting))
    paths = iter([path for path, _ in answered])

    def flushed(tensor: Tensor) -> Tensor:
        moved = _is_that_of(spared.get(next(paths)), tensor)
        return np.where(moved, flush(tensor, subnormals), tensor)

    return {name: map_tensors(flushed, tree) for name, tree in outputs.items()}


def _kept(case: Case, expected: Expectation) -> dict[str, Leaf]:
    """Return the weights of a case, zero where the expected mask prunes them, by their path."""
    masks = dict(leaves([expected.outputs.get("masks", expected.outputs.get("mask"))]))
    weights = list(leaves(resolve(case.inputs).get("weights"), "weights"))
    return {
        path: Leaf(np.where(mask.tensor, tensor, np.zeros_like(tensor)), 0)
        for (path, tensor), mask in zip(weights, masks.values(), strict=False)
        if tensor is not None and mask is not None
    }


def _is_that_of(leaf: Leaf | None, tensor: Tensor) -> Any:
    if leaf is None or leaf.tensor.shape != tensor.shape or leaf.tensor.dtype != tensor.dtype:
        return False
    return distances(tensor, leaf) <= leaf.ulp
