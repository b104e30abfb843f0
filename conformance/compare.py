"""Comparing numbers, by written rules, element by element:

* where the allowed distance is 0 ULP the bits must be equal (any NaN equals any NaN, but -0 is not +0);
* elsewhere NaN matches only NaN, an infinity only the same infinity, and zeros of either sign are equal;
* finite numbers are compared in units in the last place of the expected number, or of its scale where
  the expectation has one (the sum of the absolute terms, so that cancellation is nobody's fault);
* below the normal numbers an ULP is the smallest subnormal, so gradual underflow needs no rule of its
  own. A library that flushes subnormals says so with the dial ``subnormals=flush``, and is then judged
  by the rule of ``conformance.flushing``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from conformance.cases import Case
from conformance.formats import FLOATS, Tensor, name_of, parts, real_name, ulp
from conformance.operation import Expectation, Leaf, Operation, Setting, leaves, map_tensors


@dataclass(frozen=True)
class Difference:
    """The first place where an answer is not what was expected."""

    where: str
    got: str
    expected: str
    ulps: float | None = None
    allowed: int | None = None

    def __str__(self) -> str:
        """Return one line."""
        if self.ulps is None:
            return f"{self.where}: got {self.got}, expected {self.expected}"
        allowed = "the same bits" if self.allowed == 0 else f"{self.allowed} ULP"
        return (
            f"{self.where}: got {self.got}, expected {self.expected}"
            f" ({self.ulps:.3g} ULP off, allowed {allowed})"
        )


@dataclass
class Comparison:
    """All outputs of one answer against one expectation."""

    differences: list[Difference] = field(default_factory=list)
    """The first one of every tensor that differs."""
    worst_ulp: float = 0.0
    effect: float = 0.0
    """Largest |got - expected| relative to the expected tensor's largest magnitude; inf for NaN."""
    numbers: int = 0
    precision: dict[int, float] = field(default_factory=dict)
    """The worst distance in ULP of float64 and float32 outputs, by the roundings allowed (not 0)."""

    @property
    def difference(self) -> Difference | None:
        """Return the first difference in the order of the outputs."""
        return self.differences[0] if self.differences else None

    def first(self, locate: Callable[[str], tuple[Any, str]] | None) -> Difference | None:
        """Return the difference that comes first in the order of events, and say where it is."""
        if locate is None or not self.differences:
            return self.difference
        first = min(self.differences, key=lambda difference: locate(difference.where)[0])
        return replace(first, where=f"{locate(first.where)[1]}: {first.where}")


def compare(outputs: Mapping[str, Any], expected: Expectation) -> Comparison:
    """Compare decoded outputs with an expectation; differences are found in the order of the outputs."""
    result = Comparison()
    for name, tree in expected.outputs.items():
        if name not in outputs:
            _note(result, Difference(name, "nothing", "an output"))
            continue
        answered = _stacked(outputs[name]) if isinstance(tree, Leaf) else outputs[name]
        got, wanted = list(leaves(answered, name)), list(leaves(tree, name))
        if [path for path, _ in got] != [path for path, _ in wanted]:
            _note(result, Difference(name, f"{len(got)} tensors", f"{len(wanted)} tensors"))
            continue
        for (path, tensor), (_, leaf) in zip(got, wanted, strict=True):
            _compare_leaf(path, tensor, leaf, result)
    return result


def _stacked(answered: Any) -> Any:
    """Return a list of 0-d tensors, one per step, as the 1-d tensor that the contract asks for."""
    numbers = isinstance(answered, list) and all(getattr(x, "shape", None) == () for x in answered)
    same = numbers and len({x.dtype for x in answered}) == 1
    return np.stack(answered) if same else answered


def _note(result: Comparison, difference: Difference) -> None:
    result.differences.append(difference)
    result.effect = float("inf")


def _compare_leaf(path: str, got: Tensor | None, leaf: Leaf | None, result: Comparison) -> None:
    if got is None or leaf is None:
        if got is not None or leaf is not None:
            _note(
                result,
                Difference(
                    path,
                    "absent" if got is None else "a tensor",
                    "absent" if leaf is None else "a tensor",
                ),
            )
        return
    wanted = leaf.tensor
    for what, a, b in (
        ("dtype", name_of(got.dtype), name_of(wanted.dtype)),
        ("shape", list(got.shape), list(wanted.shape)),
    ):
        if a != b:
            _note(result, Difference(f"{path} {what}", str(a), str(b)))
            return
    result.numbers += int(wanted.size)
    if wanted.size == 0:
        return
    distance = distances(got, leaf)
    wrong = np.argwhere(~(distance <= leaf.ulp))
    finite = distance[np.isfinite(distance)]
    worst = float(np.max(finite, initial=0.0))
    result.worst_ulp = max(result.worst_ulp, worst)
    if leaf.ulp and name_of(wanted.dtype) in ("float64", "float32"):
        result.precision[leaf.ulp] = max(result.precision.get(leaf.ulp, 0.0), worst)
    if not np.all(np.isfinite(distance)):
        result.worst_ulp = float("inf")
    if len(wrong):
        index = tuple(int(i) for i in wrong[0])
        result.effect = max(result.effect, _effect(got, wanted))
        result.differences.append(
            Difference(
                path + (str(list(index)) if index else ""),
                show(got[index]),
                show(wanted[index]),
                float(distance[index]),
                leaf.ulp,
            )
        )


def show(value: Any) -> str:
    """Return an element in decimals, with as many digits as tell it from its neighbours."""
    return str(value.item()) if value.dtype.kind in "biu" else str(value)


def distances(got: Tensor, leaf: Leaf) -> Any:
    """Return the distance of each element in ULP; inf where no finite distance is meaningful."""
    wanted = leaf.tensor
    name = name_of(wanted.dtype)
    if real_name(name) != name:
        return _complex_distances(got, leaf)
    if name not in FLOATS:
        return np.where(got == wanted, 0.0, np.inf)
    bits = FLOATS[name].bits
    a, b = got.astype(np.float64), wanted.astype(np.float64)
    same = (got.view(bits) == wanted.view(bits)) | (np.isnan(a) & np.isnan(b))
    scale = np.abs(b) if leaf.scale is None else np.maximum(np.abs(b), leaf.scale)
    with np.errstate(all="ignore"):
        distance = np.abs(a - b) / ulp(scale, name)
    # A difference of zeros, or of numbers a scale hides, is still a difference where bits are asked for.
    distance = np.where(leaf.ulp == 0, np.maximum(distance, 1.0), distance)
    return np.where(same, 0.0, np.where(np.isnan(distance), np.inf, distance))


def _complex_distances(got: Tensor, leaf: Leaf) -> Any:
    """Compare part by part; a number with a NaN in either part is NaN."""
    scale = None if leaf.scale is None else leaf.scale[..., None]
    apart = distances(parts(got), Leaf(parts(leaf.tensor), leaf.ulp, scale))
    both_nan = np.isnan(got) & np.isnan(leaf.tensor)
    return np.where(both_nan, 0.0, np.max(apart, axis=-1))


def _effect(got: Tensor, wanted: Tensor) -> float:
    if got.dtype.kind == "c":
        got, wanted = parts(got), parts(wanted)
    a, b = got.astype(np.float64), wanted.astype(np.float64)
    with np.errstate(all="ignore"):
        top = np.max(np.abs(b), initial=0.0)
        off = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
        worst = float(np.max(off, initial=0.0))
        if np.isnan(worst) or not np.isfinite(top) or top == 0:
            return float("inf")
        return float(worst / top)


def attribute(operation: Operation, case: Case, dialect: Setting) -> str:
    """Return the dials of a dialect that make it differ from the canonical behaviour in this case.

    A dial is named if the expectation moves when it alone is set back to its default; if none does
    (two dials with the same effect), all that move it when set alone.
    """
    whole, canonical = operation.expect(case, dialect), operation.expect(case)
    if not differs(whole, canonical):
        return ""
    if not operation.attributed:
        return operation.key(dialect)
    dials = [d for d in operation.all_dials if dialect.get(d.name, d.default) != d.default]
    grouped = [tuple(d.name for d in dials if d.name.startswith("eps"))] if len(dials) > 1 else []
    groups = [g for g in grouped if len(g) > 1]
    groups += [(d.name,) for d in dials if not any(d.name in g for g in groups)]
    named = [
        group
        for group in groups
        if differs(
            operation.expect(case, {n: v for n, v in dialect.items() if n not in group}), whole
        )
    ] or [
        group
        for group in groups
        if differs(operation.expect(case, {n: dialect[n] for n in group}), canonical)
    ]
    return " ".join(operation.key({name: dialect[name] for name in group}) for group in named)


def differs(a: Expectation, b: Expectation) -> bool:
    """Say whether two expectations differ by more than either allows."""
    if a.rejects is not None or b.rejects is not None:
        return (a.rejects is None) != (b.rejects is None)
    outputs = map_tensors(lambda leaf: leaf.tensor, a.outputs)
    return compare(outputs, b).difference is not None
