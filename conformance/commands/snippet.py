"""A few lines of Python that build the inputs of a case again, to be pasted anywhere."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.cases import Case
from conformance.fixtures import parameters
from conformance.formats import Tensor, name_of
from conformance.operation import leaves

LONGEST_INLINE = 96
"""Elements of all inputs together."""
LINES = 10


def snippet(case: Case, note: str = "") -> str:
    """Return at most ten lines that define ``inputs`` and ``params`` as the case has them, bit for bit.

    A note becomes a comment on the last line.
    """
    tensors = [leaf for _, leaf in leaves(case.inputs) if isinstance(leaf, np.ndarray)]
    last = [f"params = {_param(parameters(case.params))}"]
    if note:
        last.append(f"# {' '.join(note.split())}")
    if sum(t.size for t in tensors) > LONGEST_INLINE or len(case.inputs) > LINES - 4 - len(last):
        return "\n".join(
            (
                "from conformance import fixtures",
                "from conformance.operations import load",
                f"cases = fixtures.read(load({case.operation!r}))",
                f"inputs = next(case.inputs for case in cases if case.id == {case.id!r})",
                *last,
            )
        )
    entries = [f"    {name!r}: {_source(tree)}," for name, tree in case.inputs.items()]
    imports = ["import numpy as np"]
    if any(name_of(t.dtype) == "bfloat16" for t in tensors):
        imports.insert(0, "import ml_dtypes")
    return "\n".join([*imports, "inputs = {", *entries, "}", *last])


def _param(value: Any) -> str:
    """Write a parameter as Python: the strings that stand for non-finite numbers as numbers."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name!r}: {_param(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_param, value)) + "]"
    return f"float({value!r})" if value in ("inf", "-inf", "nan") else repr(value)


def _source(tree: Any) -> str:
    if isinstance(tree, np.ndarray):
        return _array(tree)
    if isinstance(tree, dict):
        return "{" + ", ".join(f"{name!r}: {_source(item)}" for name, item in tree.items()) + "}"
    if isinstance(tree, list):
        return "[" + ", ".join(_source(item) for item in tree) + "]"
    return repr(tree)


def _array(tensor: Tensor) -> str:
    name = name_of(tensor.dtype)
    if name in ("int32", "int64", "bool"):
        return f"np.array({tensor.tolist()!r}, dtype={_dtype(name)})" + _reshape(tensor)
    numbers = tensor.astype(np.complex128 if name.startswith("complex") else np.float64)
    text = _digits(tensor, numbers.tolist())
    return f"np.array({text}, dtype={_dtype(name)})" + _reshape(tensor)


def _dtype(name: str) -> str:
    return "ml_dtypes.bfloat16" if name == "bfloat16" else f"np.{name}"


def _reshape(tensor: Tensor) -> str:
    # A nested list cannot say what the shape of an empty array is.
    return f".reshape({tensor.shape!r})" if tensor.size == 0 else ""


def _digits(tensor: Tensor, values: Any) -> str:
    """Write numbers with the fewest digits that give the tensor's own bits back."""
    if isinstance(values, list):
        return f"[{', '.join(_digits(tensor, item) for item in values)}]"
    if isinstance(values, complex):
        return f"complex({_digits(tensor, values.real)}, {_digits(tensor, values.imag)})"
    if not np.isfinite(values):
        return f"{'-' if values < 0 else ''}np.{'nan' if np.isnan(values) else 'inf'}"
    if name_of(tensor.dtype) in ("float32", "float16", "bfloat16"):
        with np.errstate(all="ignore"):
            short = repr(float(str(tensor.dtype.type(values))))
            if tensor.dtype.type(float(short)) == tensor.dtype.type(values):
                return short
    return repr(values)
