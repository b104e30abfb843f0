"""What an operation takes, read off its frozen cases: the bounds within which a case may be changed.

NaN, infinities, subnormal or huge numbers, empty or 0-d tensors, absent ones and parameters at their corners
are drawn only where some frozen case of the operation has such. So nothing is asked of an implementation that
its specification leaves open.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from conformance.cases import Case
from conformance.formats import FLOATS, Tensor, name_of
from conformance.operation import Operation, leaves, sizes

LARGEST_SEED = 200
"""Elements of a frozen case that is worth changing: what is small is quick, and can be read."""

Feature = tuple[Any, ...]


def features(inputs: Mapping[str, Any]) -> frozenset[Feature]:
    """Return what is unusual in the structure of inputs: absent, empty and 0-d tensors, empty lists."""
    found: set[Feature] = set()
    together: dict[int, set[tuple[str, str]]] = {}
    present = 0
    for name, tree in inputs.items():
        if tree is None:
            found.add(("absent", name))
        for _, leaf in leaves(tree):
            if isinstance(leaf, np.ndarray):
                present += 1
                found |= {("0-d", name)} if leaf.ndim == 0 else set()
                found |= {("extent 0", name, i) for i, n in enumerate(leaf.shape[:6]) if n == 0}
        inner = []
        for level, entries in lists(tree):
            if not entries:
                found.add(("empty list", name, level))
            elif level == 0:
                inner.append(entries)
        for i in range(max(map(len, inner), default=0)):
            here = [entries[i] is None for entries in inner if i < len(entries)]
            if any(here):
                together.setdefault(i, set()).add((name, "all" if all(here) else "some"))
    found |= {("absent together", frozenset(names)) for names in together.values()}
    return frozenset(found if present else found | {("no tensor",)})


@dataclass
class Domain:
    """What the frozen cases of an operation have: the cases to start from, and what may occur in one."""

    operation: Operation
    seeds: list[Case]
    special: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    """By input and dtype: zeros of either sign, NaN, infinities, the smallest and the largest numbers."""
    exponents: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    params: dict[str, list[Any]] = field(default_factory=dict)
    dtypes: tuple[str, ...] = ()
    features: frozenset[Feature] = frozenset()

    def covers(self, case: Case) -> bool:
        """Say whether all that is unusual in a case's structure occurs in some frozen case too."""
        return features(case.inputs) <= self.features


def domain(operation: Operation, frozen: Sequence[Case], seeds: Sequence[Case]) -> Domain:
    """Return what an operation takes, from its frozen cases, and the cases that are to be changed."""
    small = [case for case in seeds if sizes(case.inputs) <= LARGEST_SEED]
    # An operation of which no case is small is slow whatever is changed.
    chosen = sorted(small or seeds, key=lambda case: (sizes(case.inputs), case.id))
    found = Domain(operation, chosen if small else chosen[:3])
    found.params = {param.name: [] for param in operation.params}
    seen: dict[tuple[str, str], set[str]] = {}
    dtypes: set[str] = set()
    unusual: set[Feature] = set()
    for case in frozen:
        unusual |= features(case.inputs)
        for name, value in case.params.items():
            if not any(_same(value, other) for other in found.params.setdefault(name, [])):
                found.params[name].append(value)
        for name, tree in case.inputs.items():
            for _, leaf in leaves(tree):
                if isinstance(leaf, np.ndarray) and name_of(leaf.dtype) in FLOATS:
                    dtypes.add(name_of(leaf.dtype))
                    _look(found, seen, name, leaf)
    found.special = {key: _special(key[1], kinds) for key, kinds in seen.items()}
    found.dtypes = tuple(dtype for dtype in FLOATS if dtype in dtypes)
    found.features = frozenset(unusual)
    return found


def _same(a: Any, b: Any) -> bool:
    return type(a) is type(b) and repr(a) == repr(b)


def _look(found: Domain, seen: dict[tuple[str, str], set[str]], name: str, leaf: Tensor) -> None:
    fmt, key = FLOATS[name_of(leaf.dtype)], (name, name_of(leaf.dtype))
    values = leaf.astype(np.float64).ravel()
    kinds = seen.setdefault(key, set())
    finite = values[np.isfinite(values)]
    small = (finite != 0) & (np.abs(finite) < fmt.tiny)
    for kind, there in (
        ("nan", np.isnan(values).any()),
        ("inf", (values == np.inf).any()),
        ("-inf", (values == -np.inf).any()),
        ("negative", (finite < 0).any()),
        ("-0", ((finite == 0) & np.signbit(finite)).any()),
        ("subnormal", small.any()),
        ("huge", (np.abs(finite) >= 2.0 ** (fmt.emax - 1)).any()),
    ):
        if there:
            kinds.add(kind)
    normal = finite[(finite != 0) & ~small]
    if normal.size:
        exponents = np.frexp(normal)[1]
        low, high = found.exponents.get(key, (0, 0))
        found.exponents[key] = min(low, int(exponents.min())), max(high, int(exponents.max()))


def _special(dtype: str, kinds: set[str]) -> list[float]:
    fmt = FLOATS[dtype]
    largest = (2.0 - 2.0 ** (1 - fmt.precision)) * 2.0**fmt.emax
    smallest = 2.0 ** (fmt.emin - fmt.precision + 1)
    values = [0.0]
    values += [-0.0] * ("-0" in kinds)
    values += [smallest, fmt.tiny - smallest] * ("subnormal" in kinds)
    values += [fmt.tiny] * ("subnormal" in kinds)
    values += [largest] * ("huge" in kinds)
    values += [-value for value in values if value and "negative" in kinds]
    values += [math.nan] * ("nan" in kinds) + [math.inf] * ("inf" in kinds)
    return values + [-math.inf] * ("-inf" in kinds)


def lists(tree: Any) -> Iterator[tuple[int, list[Any]]]:
    """Yield each list of a tree: (1, of lists) or (0, of tensors)."""
    if isinstance(tree, list):
        inner = any(isinstance(branch, list) for branch in tree)
        yield (1 if inner else 0), tree
    if isinstance(tree, list | dict):
        for branch in tree.values() if isinstance(tree, dict) else tree:
            yield from lists(branch)
