"""Changing a frozen case into one that nobody has thought of, for any operation alike.

What an edit may draw is in the :class:`~conformance.fuzz_domain.Domain` of the operation. An edit asks a
:class:`Choices` for every decision, whoever decides.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from conformance.cases import SUFFIX, Case
from conformance.formats import FLOATS, SameAs, Tensor, dtype_of, name_of
from conformance.fuzz_domain import Domain, lists
from conformance.operation import leaves

LARGEST = 600
PLAIN = (0.0, 1.0, -1.0, 2.0, 0.5, 3.0, -0.25)


class Choices(Protocol):
    """Who decides: Hypothesis, or a list of decisions in a test."""

    def choose(self, options: Sequence[Any]) -> Any:
        """Return one of the options; the first is the simplest."""

    def number(self, low: int, high: int) -> int:
        """Return a whole number from low to high; low is the simplest."""


def edited(choices: Choices, within: Domain) -> tuple[Case, Case]:
    """Return a frozen case and what one to four edits make of it."""
    base = choices.choose(within.seeds)
    case = Case(
        base.operation, base.id, base.flags, base.constraints,
        copied(base.inputs), copy.deepcopy(base.params),
    )  # fmt: skip
    for _ in range(choices.number(1, 4)):
        choices.choose(EDITS)(choices, within, case)
    return base, case


def copied(tree: Any) -> Any:
    """Return inputs whose tensors are copies."""
    if isinstance(tree, np.ndarray):
        return tree.copy()
    if isinstance(tree, SameAs):
        return tree
    if isinstance(tree, dict):
        return {name: copied(branch) for name, branch in tree.items()}
    return [copied(branch) for branch in tree] if isinstance(tree, list) else tree


@dataclass
class Slot:
    """A place in the inputs that holds a tensor."""

    input: str
    parent: Any
    key: Any

    @property
    def tensor(self) -> Tensor:
        """The tensor that is there."""
        return self.parent[self.key]


def slots(inputs: dict[str, Any]) -> list[Slot]:
    """Return the places of all tensors, in order."""
    return [slot for name in inputs for slot in _slots(name, inputs, name)]


def _slots(name: str, parent: Any, key: Any) -> Iterator[Slot]:
    tree = parent[key]
    if isinstance(tree, np.ndarray):
        yield Slot(name, parent, key)
    elif isinstance(tree, dict) and not isinstance(tree, SameAs):
        for inner in tree:
            yield from _slots(name, tree, inner)
    elif isinstance(tree, list):
        for inner in range(len(tree)):
            yield from _slots(name, tree, inner)


def _choose(choices: Choices, case: Case, kinds: str = "f") -> tuple[Slot, list[Slot]] | None:
    """Return a tensor that is not empty, and with it all that are its copies bit for bit."""
    every = slots(case.inputs)
    names = {"f": FLOATS, "i": ("int32", "int64", "bool")}[kinds]
    fitting = [s for s in every if name_of(s.tensor.dtype) in names and s.tensor.size]
    if not fitting:
        return None
    slot = choices.choose(fitting)
    copies = [
        other
        for other in fitting
        if other.input == slot.input
        and other.tensor.shape == slot.tensor.shape
        and other.tensor.dtype == slot.tensor.dtype
        and other.tensor.tobytes() == slot.tensor.tobytes()
    ]
    return slot, copies


def _put(copies: list[Slot], tensor: Tensor) -> None:
    for slot in copies:
        slot.parent[slot.key] = tensor.copy()


def _cast(values: Any, dtype: np.dtype[Any]) -> Tensor:
    with np.errstate(all="ignore"):
        return np.asarray(values).astype(dtype)


def _element(choices: Choices, within: Domain, case: Case) -> None:
    """Replace one element: by a plain number, an edge, a neighbour, a tie, or a parameter."""
    if (chosen := _choose(choices, case)) is None:
        return
    slot, copies = chosen
    new = slot.tensor.copy()
    flat = new.reshape(-1)
    place = choices.number(0, flat.size - 1)
    key = slot.input, name_of(new.dtype)
    kind = choices.choose(("plain", "edge", "tie", "opposite", "parameter", "next"))
    negative = bool((slot.tensor.astype(np.float64) < 0).any())
    if kind == "edge":
        value: Any = choices.choose(within.special[key])
    elif kind in ("tie", "opposite"):
        other = flat[choices.number(0, flat.size - 1)]
        value = -other if kind == "opposite" and negative else other
    elif kind == "parameter" and (numbers := _numbers(case.params)):
        value = choices.choose(numbers)
    elif kind == "next":
        steps = choices.choose((1, -1))
        step = flat[place : place + 1].view(FLOATS[key[1]].bits).astype(np.int64) + steps
        neighbour = step.astype(FLOATS[key[1]].bits).view(new.dtype)[0]
        value = neighbour if np.isfinite(float(neighbour)) else flat[place]
    else:
        value = choices.choose([v for v in PLAIN if v >= 0 or negative])
    flat[place] = _cast(value, new.dtype)
    _put(copies, new)


def _numbers(params: Mapping[str, Any]) -> list[float]:
    plain = [v for v in params.values() if isinstance(v, int | float) and not isinstance(v, bool)]
    return [float(value) for value in plain if math.isfinite(value)]


def _values(choices: Choices, within: Domain, case: Case) -> None:
    """Scale or negate a tensor, round it so that there are ties, or make it all one number."""
    if (chosen := _choose(choices, case)) is None:
        return
    slot, copies = chosen
    values = slot.tensor.astype(np.float64)
    negative = bool((values < 0).any())
    kind = choices.choose(("constant", "round", "scale", "negate")[: 4 if negative else 3])
    if kind == "constant":
        new = np.full(values.shape, values.reshape(-1)[0])
    elif kind == "round":
        with np.errstate(all="ignore"):
            new = np.round(values * 2) / 2
    elif kind == "negate":
        new = -values
    else:
        low, high = within.exponents.get((slot.input, name_of(slot.tensor.dtype)), (0, 0))
        finite = values[np.isfinite(values) & (values != 0)]
        top = int(np.frexp(np.abs(finite).max())[1]) if finite.size else 0
        with np.errstate(all="ignore"):
            new = np.ldexp(values, choices.number(low, high) - top)
    _put(copies, _cast(new, slot.tensor.dtype))


def _whole(choices: Choices, _: Domain, case: Case) -> None:
    """Replace an integer or a truth value by another of its tensor, or by 0."""
    if (chosen := _choose(choices, case, "i")) is None:
        return
    slot, copies = chosen
    new = slot.tensor.copy()
    flat = new.reshape(-1)
    place, other = choices.number(0, flat.size - 1), flat[choices.number(0, flat.size - 1)]
    flat[place] = not flat[place] if new.dtype == bool else choices.choose((0, other))
    _put(copies, new)


def _resize(choices: Choices, within: Domain, case: Case) -> None:
    """Give every axis of one extent another: what belongs together stays together."""
    every = slots(case.inputs)
    extents = sorted({n for slot in every for n in slot.tensor.shape})
    if not extents:
        return
    before = choices.choose(extents)
    empty = any(feature[0] == "extent 0" for feature in within.features)
    others = [n for n in (1, 2, 3, before - 1, before + 1, 0) if n >= (0 if empty else 1)]
    after = choices.choose(list(dict.fromkeys(others)))
    if before == 0:
        return
    for slot in every:
        tensor = slot.tensor
        for axis, extent in enumerate(tensor.shape):
            if extent == before:
                tensor = np.take(tensor, np.arange(after) % before, axis=axis)
        slot.parent[slot.key] = np.ascontiguousarray(tensor)


def _reshape(choices: Choices, _: Domain, case: Case) -> None:
    """Give all tensors of one shape another of as many elements."""
    every = slots(case.inputs)
    if not every:
        return
    shape = choices.choose(list(dict.fromkeys(slot.tensor.shape for slot in every)))
    count = math.prod(shape)
    others: list[tuple[int, ...]] = [(count,), (1, count), (count, 1), (*shape, 1), (1, *shape)]
    others += [shape[::-1]] + [()] * (count == 1)
    new = choices.choose([other for other in dict.fromkeys(others) if other != shape] or [shape])
    for slot in every:
        if slot.tensor.shape == shape:
            slot.parent[slot.key] = slot.tensor.reshape(new)


def _entries(choices: Choices, _: Domain, case: Case) -> None:
    """Drop, repeat or move an entry, in all lists that are as long: parameters and their gradients."""
    if any(isinstance(leaf, int) for _, leaf in leaves(case.inputs)):
        return  # an index of another entry
    found = list(lists(case.inputs))
    lengths = list(dict.fromkeys((level, len(entries)) for level, entries in found if entries))
    if not lengths:
        return
    level, length = choices.choose(lengths)
    what, place = choices.choose(("drop", "repeat", "first")), choices.number(0, length - 1)
    for entries in [e for at, e in found if (at, len(e)) == (level, length)]:
        entry = entries[place]
        if what != "repeat":
            del entries[place]
        if what != "drop":
            entries.insert(0, copied(entry))


def _absent(choices: Choices, within: Domain, case: Case) -> None:
    """Take tensors away that are absent together in some frozen case."""
    patterns = sorted(
        (sorted(feature[1]) for feature in within.features if feature[0] == "absent together"),
    )
    alone = sorted(f[1] for f in within.features if f[0] == "absent" and f[1] in case.inputs)
    if not patterns and not alone:
        return
    chosen = choices.choose([*patterns, *alone])
    if isinstance(chosen, str):
        case.inputs[chosen] = None
        return
    place = choices.number(0, 3)
    for name, how in chosen:
        inner = [entries for level, entries in lists(case.inputs.get(name)) if level == 0]
        for entries in inner if how == "all" else inner[: 1 + choices.number(0, 1)]:
            if place < len(entries):
                entries[place] = None


def _dtype(choices: Choices, within: Domain, case: Case) -> None:
    """Give all floating-point tensors another format."""
    if not within.dtypes:
        return
    dtype = dtype_of(choices.choose(within.dtypes))
    for slot in slots(case.inputs):
        if name_of(slot.tensor.dtype) in FLOATS:
            slot.parent[slot.key] = _cast(slot.tensor, dtype)


def _param(choices: Choices, within: Domain, case: Case) -> None:
    """Replace a parameter: by its value in another case, a neighbour, or an element of the inputs."""
    names = [name for name in case.params if name in within.params]
    if not names:
        return
    name = choices.choose(names)
    value, pool = case.params[name], within.params[name]
    alike = [
        other
        for other in pool
        if not isinstance(value, list)
        or (isinstance(other, list) and len(other) == len(value))
        or not isinstance(other, list)
    ]
    plain = isinstance(value, float) and math.isfinite(value)
    # The neighbour of 0 is a number that no narrower format has.
    kinds = ("pool", "pool", "double", "element", "next")[: 5 if value else 4]
    kind = choices.choose(kinds if plain else ("pool",))
    bounds = [v for v in pool if isinstance(v, float) and math.isfinite(v)]
    new = value
    if kind == "pool" and alike:
        new = choices.choose(alike)
    elif kind == "next":
        new = float(np.nextafter(value, choices.choose((math.inf, -math.inf))))
    elif kind == "double":
        new = value * choices.choose((2.0, 0.5, 3.0))
    elif kind == "element" and (chosen := _choose(choices, case)):
        flat = chosen[0].tensor.reshape(-1)
        element = abs(float(flat[choices.number(0, flat.size - 1)]))
        new = element if math.isfinite(element) else value
    if kind != "pool" and bounds:
        # Outside what the cases have, the specification may say nothing of it.
        new = min(max(new, min(bounds)), max(bounds))
    case.params[name] = copy.deepcopy(new)


EDITS: tuple[Callable[[Choices, Domain, Case], None], ...] = (
    _element,
    _param,
    _values,
    _param,
    _resize,
    _entries,
    _reshape,
    _dtype,
    _whole,
    _absent,
)


def suffix(case: Case) -> str:
    """Return what an id ends with: the format of the first tensor that has one."""
    names = [name_of(leaf.dtype) for _, leaf in leaves(case.inputs) if isinstance(leaf, np.ndarray)]
    return next((f"-{SUFFIX[name]}" for name in names if name in SUFFIX), "")
