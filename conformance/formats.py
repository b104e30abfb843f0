"""Number formats and the tensor notation of the fixture files.

A tensor is written as ``{"dtype": …, "shape": […], "bits": "…"}``: the IEEE-754 bits of every element,
big-endian hexadecimal, C order, separated by spaces. That is exact in every language, NaN, infinities
and negative zero included. In Python a tensor is a NumPy array (bfloat16 through ``ml_dtypes``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np

Tensor: TypeAlias = Any
"""A NumPy array."""


@dataclass(frozen=True)
class FloatFormat:
    """A binary floating-point format: ``precision`` significant bits, exponents emin to emax."""

    name: str
    precision: int
    emin: int
    emax: int
    dtype: np.dtype[Any]
    bits: np.dtype[Any]

    @property
    def tiny(self) -> float:
        """The smallest positive normal number."""
        return float(2.0**self.emin)

    @property
    def unit_roundoff(self) -> float:
        """u = 2^-p: the largest relative error of one correctly rounded operation."""
        return float(2.0**-self.precision)


def _format(name: str, precision: int, emax: int, dtype: Any, bits: str) -> FloatFormat:
    return FloatFormat(name, precision, 1 - emax, emax, np.dtype(dtype), np.dtype(bits))


FLOATS = {
    f.name: f
    for f in (
        _format("float64", 53, 1023, np.float64, "u8"),
        _format("float32", 24, 127, np.float32, "u4"),
        _format("float16", 11, 15, np.float16, "u2"),
        _format("bfloat16", 8, 127, ml_dtypes.bfloat16, "u2"),
    )
}
"""The float formats by name, widest first."""

_WORDS: dict[str, tuple[np.dtype[Any], str]] = {
    **{name: (f.dtype, f">{f.bits.str[1:]}") for name, f in FLOATS.items()},
    "int32": (np.dtype(np.int32), ">u4"),
    "int64": (np.dtype(np.int64), ">u8"),
}
_COMPLEX: dict[str, tuple[np.dtype[Any], np.dtype[Any], str]] = {
    "complex64": (np.dtype(np.complex64), np.dtype(np.float32), ">u4"),
    "complex128": (np.dtype(np.complex128), np.dtype(np.float64), ">u8"),
}


class FormatError(ValueError):
    """A tensor that is not written as the contract says."""


class SameAs(dict[str, int]):
    """An entry of a list that is the very tensor of an earlier entry: ``{"same_as": index}``."""


def resolve(tree: Any) -> Any:
    """Put the tensor itself in the place of every :class:`SameAs` of a list.

    Raises:
        FormatError: an index that is not that of an earlier entry.
    """
    if isinstance(tree, dict):
        return {name: resolve(branch) for name, branch in tree.items()}
    if not isinstance(tree, list):
        return tree
    resolved: list[Any] = []
    for branch in tree:
        if isinstance(branch, dict) and "same_as" in branch:
            index = branch["same_as"]
            if not isinstance(index, int) or not 0 <= index < len(resolved):
                raise FormatError(f"same_as must be the index of an earlier entry, got {index!r}")
            resolved.append(resolved[index])
        else:
            resolved.append(resolve(branch))
    return resolved


def dtype_of(name: str) -> np.dtype[Any]:
    """Return the NumPy dtype of a contract dtype name."""
    if name in _WORDS:
        return _WORDS[name][0]
    if name in _COMPLEX:
        return _COMPLEX[name][0]
    if name == "bool":
        return np.dtype(bool)
    raise FormatError(f"unknown dtype {name!r}")


def real_name(name: str) -> str:
    """Return the format of the parts of a number: ``float32`` for ``complex64``, else the name itself."""
    return name_of(_COMPLEX[name][1]) if name in _COMPLEX else name


def parts(tensor: Tensor) -> Tensor:
    """Return a tensor with a last axis more: the real and imaginary parts, or the number itself."""
    name = name_of(tensor.dtype)
    if name not in _COMPLEX:
        return tensor[..., None]
    return np.ascontiguousarray(tensor)[..., None].view(_COMPLEX[name][1]).reshape(*tensor.shape, 2)


def name_of(dtype: np.dtype[Any]) -> str:
    """Return the contract name of a NumPy dtype."""
    return "bool" if dtype == np.dtype(bool) else dtype.name


def encode(tensor: Tensor) -> dict[str, Any]:
    """Return a tensor in the notation of the fixture files."""
    tensor = np.ascontiguousarray(tensor).reshape(tensor.shape)
    name = name_of(tensor.dtype)
    if name == "bool":
        bits = " ".join("1" if value else "0" for value in tensor.ravel())
    else:
        if name in _COMPLEX:
            _, part, word = _COMPLEX[name]
            words = tensor.ravel().view(part).view(word.replace(">", "="))
        elif name in _WORDS:
            word = _WORDS[name][1]
            words = tensor.ravel().view(word.replace(">", "="))
        else:
            raise FormatError(f"a tensor of dtype {name} has no notation in the fixture files")
        bits = words.astype(word).tobytes().hex(" ", int(word[-1]))
    return {"dtype": name, "shape": list(tensor.shape), "bits": bits}


def decode(notation: dict[str, Any]) -> Tensor:
    """Return the tensor that a notation describes.

    Raises:
        FormatError: unknown dtype, or a number or width of words that does not fit the shape.
    """
    try:
        name, shape, text = notation["dtype"], tuple(notation["shape"]), notation["bits"]
        count = int(np.prod(shape, dtype=np.int64)) if all(n >= 0 for n in shape) else -1
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"a tensor needs dtype, shape and bits: {error}") from error
    if not isinstance(text, str):
        raise FormatError("the bits of a tensor must be one string")
    dtype = dtype_of(name)
    words = text.split()
    parts = 2 * count if name in _COMPLEX else count
    width = 1 if name == "bool" else 2 * dtype.itemsize // (2 if name in _COMPLEX else 1)
    if len(words) != parts or any(len(word) != width for word in words):
        raise FormatError(
            f"{name} of shape {list(shape)} needs {parts} words of {width} digits,"
            f" got {len(words)} words"
        )
    if name == "bool":
        if not set(words) <= {"0", "1"}:
            raise FormatError("a bool is written 0 or 1")
        return np.array([word == "1" for word in words], dtype=bool).reshape(shape)
    try:
        raw = bytes.fromhex("".join(words))
    except ValueError as error:
        raise FormatError(f"bits are not hexadecimal: {error}") from error
    word = _COMPLEX[name][2] if name in _COMPLEX else _WORDS[name][1]
    native = np.frombuffer(raw, dtype=word).astype(word.replace(">", "="))
    return native.view(dtype).reshape(shape)


def round_exact(value: Any, name: str) -> Any:
    """Round an exact number (an ``mpf``) to a format: to nearest, ties to even, gradual underflow.

    Overflow gives infinity, as IEEE 754 asks of round-to-nearest. A zero is positive.
    """
    return round_all(np.array([value], dtype=object), name)[0]


def round_all(values: Any, name: str) -> Tensor:
    """Round an object array of exact numbers to a format, element by element (complex: each part)."""
    flat = np.asarray(values, dtype=object)
    if name in _COMPLEX:
        both = [part for z in flat.ravel() for part in (z.real, z.imag)]
        rounded = round_all(np.array(both, dtype=object), real_name(name))
        return rounded.view(dtype_of(name)).reshape(flat.shape)
    fmt = FLOATS[name]
    words = [_rounded_bits(value, fmt) for value in flat.ravel()]
    return np.array(words, dtype=fmt.bits).view(fmt.dtype).reshape(flat.shape)


def _rounded_bits(value: Any, fmt: FloatFormat) -> int:
    sign, man, exp, count = value._mpf_
    top = fmt.precision - 1
    infinity = (2 * fmt.emax + 1) << top
    if not man and exp:
        if value != value:
            return infinity | (1 << (top - 1))
        return infinity | _sign_bit(int(value < 0), fmt)
    if not man:
        return 0
    # The quantum is the spacing of the format at this magnitude; it bottoms out at the subnormals.
    quantum = max(exp + count - 1, fmt.emin) - top
    shift = exp - quantum
    scaled = man << shift if shift >= 0 else _half_even(man, -shift)
    if scaled >> fmt.precision:
        scaled, quantum = scaled >> 1, quantum + 1
    exponent = quantum + top - fmt.emin + (1 if scaled >> top else 0)
    if quantum + top > fmt.emax:
        return infinity | _sign_bit(sign, fmt)
    mantissa = scaled & ((1 << top) - 1)
    return _sign_bit(sign, fmt) | (exponent << top) | mantissa


def _half_even(significand: int, shift: int) -> int:
    if shift > significand.bit_length():  # below one half; exp(-1e37) would ask for a huge shift
        return 0
    whole, rest = significand >> shift, significand & ((1 << shift) - 1)
    half = 1 << (shift - 1)
    return whole + int(rest > half or (rest == half and whole & 1))


def _sign_bit(sign: int, fmt: FloatFormat) -> int:
    return int(sign) << (8 * fmt.dtype.itemsize - 1)


def ulp(magnitude: Any, name: str) -> Any:
    """Return the spacing of a format's numbers at each magnitude, as float64.

    ``ulp(x) = 2^(e - p + 1)`` for ``2^e <= |x| < 2^(e+1)``, at least the smallest subnormal; at
    infinity and NaN it is NaN, since no distance is meaningful there.
    """
    fmt = FLOATS[name]
    values = np.abs(np.asarray(magnitude, dtype=np.float64))
    _, exponent = np.frexp(values)
    # frexp gives a zero the exponent 0; among the formats' numbers it lies with the subnormals.
    exponent = np.where(values == 0, fmt.emin, exponent - 1)
    spacing = np.ldexp(1.0, np.maximum(exponent, fmt.emin) - (fmt.precision - 1))
    return np.where(np.isfinite(values), spacing, np.nan)
