"""Cases that layers and losses share: inputs whose dtypes do not go together, or are no real floats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from conformance.cases import Cases, fixed
from conformance.operation import Flag

CONSTRAINT = (
    "Inputs are real floats, all of one dtype: integers have no gradient, and a mixture would be promoted"
    " unseen. Both are refused."
)
FLAG = Flag("EDGE_CASE", "Integers, or inputs of two dtypes, which are refused and not promoted.")


def refused(
    c: Cases, label: str, inputs: Mapping[str, Any], params: Mapping[str, Any] | None = None
) -> None:
    """Add float32 cases in which one input has another dtype, or all are integers.

    ``inputs`` are float64 arrays with values of their own; absent and :func:`fixed` ones are left alone.
    """
    floats = {name: x for name, x in inputs.items() if isinstance(x, np.ndarray)}

    def add(name: str, **changed: Any) -> None:
        c.add(name, "bad-dtype", label, {**inputs, **changed}, params, ("float32",))

    whole = {name: fixed(np.rint(4 * x), "int64") for name, x in floats.items()}
    add("integers", **whole)
    add("integers-32", **{name: fixed(x.tensor, "int32") for name, x in whole.items()})
    add("booleans", **{name: fixed(x > 0, "bool") for name, x in floats.items()})
    if len(floats) > 1:
        add("x-integers", x=whole["x"])
    # How an upstream gradient of another dtype is met is up to automatic differentiation.
    forward = [name for name in floats if name != "dy"]
    for name in forward if len(forward) > 1 else []:
        x = floats[name]
        add(f"{name.replace('_', '-')}-wider", **{name: fixed(x, "float64")})
