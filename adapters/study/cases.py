"""The cases that the pages are made of, and the libraries' conventions as settings of dials."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from typing import Any

from adapters.study.model import Choice, Control, Stop
from conformance import fixtures
from conformance.cases import Case
from conformance.exact import flush
from conformance.operation import Setting, map_tensors, resolve
from conformance.operations import load

# What Optax 0.2, Keras 3.15 and MLX 0.32 do, where the operation itself names no such dialect.
_OPTAX = {
    "nonfinite": "multiply", "norm": "naive", "accumulate": "input_dtype", "norm_dtype": "input_dtype",
    "at_equal": "rescaled", "zero_over_zero": "nan", "infinite_limit": "multiply", "nan_limit": "nan",
    "negative_limit": "flip_sign", "subnormals": "flush",
}  # fmt: skip
_KERAS = {
    "norm": "naive", "accumulate": "input_dtype", "norm_dtype": "input_dtype",
    "below_limit": "rescaled", "zero_limit": "disabled", "infinite_limit": "nan",
    "negative_limit": "ignore", "nan_limit": "ignore", "subnormals": "flush",
}  # fmt: skip
_MLX = {
    "eps_at": "denominator", "eps": 1e-6, "nonfinite": "multiply", "norm": "naive",
    "norm_dtype": "input_dtype", "infinite_limit": "multiply",
}  # fmt: skip
_OTHERS: dict[str, dict[str, dict[str, Any]]] = {
    "clip.global_norm": {"optax": _OPTAX, "keras": _KERAS, "mlx": _MLX},
    "clip.norm": {
        "optax": _OPTAX,
        "keras": _KERAS | {"nonfinite": "multiply", "zero_over_zero": "nan"},
        "mlx": _MLX,
    },
    "clip.value": {
        "optax": {"crossed_bounds": "max_wins", "nan_limit": "nan", "subnormals": "flush"},
        "keras": {"zero_limit": "disabled", "nan_limit": "ignore", "subnormals": "flush"},
        "mlx": {},
    },
}
NAMES = {
    "canonical": "canonical (refimpl)", "torch": "PyTorch", "tensorflow": "TensorFlow",
    "optax": "Optax", "keras": "Keras", "mlx": "MLX",
}  # fmt: skip


@cache
def _cases(operation: str) -> dict[str, Case]:
    return {case.id: case for case in fixtures.read(load(operation))}


def case(full_id: str) -> Case:
    """Return a frozen case by its full id; KeyError if there is none."""
    operation, _, case_id = full_id.partition("/")
    return _cases(operation)[case_id]


def number(value: Any) -> float:
    """Return a parameter of a fixture as a number."""
    return float(value)


def settings(operation: str) -> dict[str, Setting]:
    """Return the settings of the libraries, ``canonical`` (which sets nothing) first."""
    known = {name: dict(s) for name, s in load(operation).dialects.items()}
    known = _OTHERS.get(operation, {}) | known
    return {"canonical": {}} | {name: known[name] for name in NAMES if name in known}


def dialect_control(operation: str) -> Control:
    """Return the list from which a library is chosen."""
    stops = tuple(Stop(name, NAMES[name]) for name in settings(operation))
    return Control("dialect", "whose conventions", stops)


def run(function: Any, inputs: Any, setting: Setting, *args: Any, **options: Any) -> Any:
    """Call refimpl under a library's setting.

    Two dials are no arguments of refimpl: that a library works in place changes no number here, and
    one that flushes subnormal numbers is given zeros for them and its results are flushed again.
    """
    dials = {k: v for k, v in setting.items() if k not in ("in_place", "subnormals")}
    flushed = partial(flush, setting=setting.get("subnormals", "keep"))
    result = function(resolve(map_tensors(flushed, inputs)), *args, **options, **dials)
    return map_tensors(flushed, result)


def setting_of(operation: str, choice: Choice) -> Setting:
    """Return the setting of the library that is chosen."""
    chosen: Mapping[str, Any] = settings(operation)[choice.get("dialect", "canonical")]
    return chosen
