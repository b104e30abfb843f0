"""Building cases: inputs that tell implementations apart, the same on every machine.

Numbers come from a counter-based generator (SplitMix64), whose integers are defined for ever, and not
from a library's generator, whose streams may change between versions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from conformance.formats import FLOATS, SameAs, Tensor, dtype_of

SUFFIX = {
    "float64": "f64", "float32": "f32", "float16": "f16", "bfloat16": "bf16",
    "complex128": "c128", "complex64": "c64",
}  # fmt: skip
ALL = tuple(FLOATS)
"""Every float format."""
COMPLEX = ("complex128", "complex64")
"""Every complex format; its arrays are given as complex128."""
WIDE = ("float64", "float32")
"""The formats in which training is usually done."""


@dataclass
class Case:
    """One question to an implementation: inputs and parameters, and why it is asked."""

    operation: str
    id: str
    flags: tuple[str, ...]
    constraints: tuple[str, ...]
    inputs: dict[str, Any]
    params: dict[str, Any]
    frozen: dict[str, Any] = field(default_factory=dict)
    """Expectations by setting, as read from a fixture file."""

    @property
    def full_id(self) -> str:
        """``operation/case``."""
        return f"{self.operation}/{self.id}"


@dataclass(frozen=True)
class Fixed:
    """A tensor that keeps its own dtype whatever the dtype of the case is."""

    tensor: Tensor


def fixed(values: Any, dtype: str) -> Fixed:
    """Return values as a tensor of one dtype, for lists that mix dtypes and for integers."""
    with np.errstate(all="ignore"):
        return Fixed(np.asarray(values).astype(dtype_of(dtype)))


def same_as(index: int) -> SameAs:
    """Return an entry of a list that is the very tensor of an earlier entry, as a tied weight is."""
    return SameAs(same_as=index)


class Cases:
    """Collects the cases of one operation; :meth:`add` makes one case per dtype."""

    def __init__(self, operation: str) -> None:
        """Start with no cases."""
        self.operation = operation
        self.made: list[Case] = []

    def add(
        self,
        name: str,
        flags: str,
        constraints: str,
        inputs: Mapping[str, Any],
        params: Mapping[str, Any] | None = None,
        dtypes: Iterable[str] = WIDE,
    ) -> None:
        """Add a case once per dtype; the id is the name and the dtype's suffix.

        Args:
            name: slug, unique in the operation.
            flags: the case's flags, separated by spaces.
            constraints: the labels of the constraints that it tests, separated by spaces.
            inputs: for each input a tensor, or nested lists of tensors; ``None`` is an absent one. A
                tensor is a float64 array (cast to the case's dtype) or a :class:`Fixed` one.
            params: the operation's parameters; those not given have their defaults.
            dtypes: the formats in which the case makes sense.
        """
        for dtype in dtypes:
            case_id = f"{name}-{SUFFIX[dtype]}"
            if any(case.id == case_id for case in self.made):
                raise ValueError(f"{self.operation}/{case_id} exists already")
            tensors = {key: _cast(value, dtype) for key, value in inputs.items()}
            labels = tuple(flags.split()), tuple(constraints.split())
            self.made.append(Case(self.operation, case_id, *labels, tensors, dict(params or {})))


def _cast(value: Any, dtype: str) -> Any:
    if value is None or isinstance(value, str | SameAs):
        return value
    if isinstance(value, Fixed):
        return value.tensor
    if isinstance(value, np.ndarray):
        if value.dtype != (np.complex128 if dtype in COMPLEX else np.float64):
            raise TypeError(f"a {value.dtype} tensor in a case must be fixed()")
        with np.errstate(all="ignore"):
            return value.astype(dtype_of(dtype))
    if isinstance(value, Mapping):
        return {key: _cast(item, dtype) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [_cast(item, dtype) for item in value]
    raise TypeError(f"a case's inputs are arrays and lists of them, not {type(value).__name__}")


def tensor(*values: Any) -> Tensor:
    """Return a float64 tensor of the values: ``tensor(3, 4)`` or ``tensor([1, 2], [3, 4])``."""
    return np.array(values, dtype=np.float64)


STEP = 0x9E3779B97F4A7C15
"""What SplitMix64 adds to its state at each draw."""


class Stream:
    """A stream of reproducible numbers: SplitMix64 (Steele, Lea & Flood 2014) from a seed."""

    def __init__(self, seed: int) -> None:
        """Start the stream of a seed."""
        self.state = (seed * STEP + 0x1234567) % 2**64

    def bits(self) -> int:
        """Return the next 64 random bits."""
        return int(self.words(1)[0])

    def words(self, count: int) -> Tensor:
        """Return the next numbers of 64 random bits as uint64."""
        # The state after k draws is known beforehand, so that all are drawn at once.
        z = np.uint64(self.state) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(STEP)
        self.state = (self.state + count * STEP) % 2**64
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(z ^ (z >> np.uint64(31)))

    def uniform(self, *shape: int, low: float = -1.0, high: float = 1.0) -> Tensor:
        """Return numbers spread evenly over [low, high)."""
        words = self.words(int(np.prod(shape, dtype=np.int64)))
        # 53 of the bits: every such number is a float64
        unit = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
        return np.asarray(low + (high - low) * unit).reshape(shape)

    def spread(self, *shape: int, low: float = 1e-3, high: float = 1e3) -> Tensor:
        """Return numbers of either sign whose exponents are spread evenly: |x| in [low, high)."""
        exponents = self.uniform(*shape, low=float(np.log2(low)), high=float(np.log2(high)))
        mantissas = 1.0 + self.uniform(*shape, low=0.0)
        signs = np.where(self.uniform(*shape) < 0, -1.0, 1.0)
        return signs * np.ldexp(mantissas, np.floor(exponents).astype(np.int64))

    def integers(self, *shape: int, below: int) -> Tensor:
        """Return integers of [0, below) as int64."""
        count = int(np.prod(shape, dtype=np.int64))
        return (self.words(count) % np.uint64(below)).astype(np.int64).reshape(shape)

    def permutation(self, count: int) -> list[int]:
        """Return the numbers 0 … count-1 in random order (Fisher-Yates)."""
        order = list(range(count))
        words = self.words(max(count - 1, 0)).tolist()
        for i, word in zip(range(count - 1, 0, -1), words, strict=True):
            j = word % (i + 1)
            order[i], order[j] = order[j], order[i]
        return order
