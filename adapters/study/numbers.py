"""Numbers as they are printed: the shortest decimals that give the bits back, or fewer where said."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.compare import distances
from conformance.formats import name_of
from conformance.operation import Leaf


def exact(value: Any) -> str:
    """Return a number with as many digits as tell it from its neighbours in its own format."""
    return _minus(_short(value))


def rounded(value: float, digits: int = 4) -> str:
    """Return a number to so many significant digits, for figures and angles."""
    if not np.isfinite(value):
        return _minus(str(float(value)))
    shown = f"{float(value):.{digits}g}"
    return _minus(shown.replace("e-0", "e-").replace("e+0", "e").replace("e+", "e"))


def vector(values: Any, most: int = 12) -> str:
    """Return the elements of a tensor in one line."""
    flat = np.asarray(values).ravel()
    more = f", … {flat.size} elements" if flat.size > most else ""
    return f"[{', '.join(exact(v) for v in flat[:most])}{more}]"


def ulps(got: Any, wanted: Any) -> float:
    """Return the largest distance of two tensors in units in the last place of the second."""
    got, wanted = np.asarray(got), np.asarray(wanted)
    if name_of(got.dtype) != name_of(wanted.dtype):
        got = got.astype(wanted.dtype)
    if not wanted.size:
        return 0.0
    with np.errstate(all="ignore"):
        return float(np.max(distances(got, Leaf(wanted, 1))))


def ulp_words(distance: float) -> str:
    """Return a distance in words."""
    if distance == 0:
        return "same bits"
    if not np.isfinite(distance):
        return "no finite distance"
    return f"{_minus(f'{distance:,.0f}') if distance < 1e6 else rounded(distance, 3)} ULP"


def _short(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return str(int(value))
    number = value if isinstance(value, np.generic | np.ndarray) else np.float64(value)
    if not np.isfinite(number):
        return {"inf": "∞", "-inf": "-∞"}.get(str(float(number)), "NaN")
    shown = str(np.asarray(number)[()])
    if shown.endswith(".0"):
        shown = shown[:-2]
    head, _, exponent = shown.partition("e")
    return f"{head}e{int(exponent)}" if exponent else shown


def _minus(shown: str) -> str:
    return shown.replace("-", "−")
