"""What the suite knows of one operation, as one object.

Each module of ``conformance.operations`` defines one :class:`Operation`: constraints, parameters, dials,
oracle, tolerance, cases, named dialects and known mistakes. The fixture file, the specification page,
the command-line help and the tables are all made from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np

from conformance.cases import Case, Cases
from conformance.exact import Exact, Reject, flush
from conformance.formats import FLOATS, SameAs, Tensor, name_of, real_name, resolve, round_all

Kind = Literal["BASIC", "EDGE_CASE", "KNOWN_BUG", "DIALECT", "PRECISION", "OVERFLOW", "ORDER"]
Setting = Mapping[str, Any]
"""Dials that are set to something, by name; a dial that is not named has its default."""
Oracle = Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]
"""``oracle(inputs, settings)``: settings are the parameters and every dial. Returns, for each output,
a :class:`Value`, a tensor whose bits are meant, ``None``, or nested lists of these."""


@dataclass(frozen=True)
class Param:
    """A parameter that belongs to the definition of the operation."""

    name: str
    doc: str
    default: Any = None
    required: bool = False


@dataclass(frozen=True)
class Dial:
    """A legitimate choice that implementations make differently; the default is canonical."""

    name: str
    default: Any
    doc: str
    others: tuple[Any, ...] = ()
    context: Setting = field(default_factory=dict)
    """Other dials that must be set for this one to show."""
    left_open: tuple[Any, ...] = ()
    """Settings that leave a choice: the default's expectation, judged through ``representative``."""
    words: Mapping[Any, str] = field(default_factory=dict)
    """How the diagnosis says a setting after "with"; ``{eps}`` stands for the value of the dial eps."""


@dataclass(frozen=True)
class Flag:
    """Why a case exists. A KNOWN_BUG links the public report."""

    kind: Kind
    description: str
    links: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mistake:
    """A behaviour that is wrong by anyone's definition, as a function with the oracle's signature."""

    name: str
    description: str
    oracle: Oracle
    links: tuple[str, ...] = ()


@dataclass(frozen=True)
class Value:
    """An exact result and the format it is rounded to.

    ``scale`` is the magnitude that rounding errors are measured against, where it is not the value
    itself: for a sum it is the sum of the absolute terms, so that cancellation is nobody's fault.
    """

    exact: Exact
    dtype: str
    scale: Exact | None = None


@dataclass(frozen=True)
class Leaf:
    """One expected tensor: rounded bits, allowed distance in ULP (0: bit for bit), optional scale."""

    tensor: Tensor
    ulp: int
    scale: Tensor | None = None


@dataclass(frozen=True)
class Expectation:
    """What must come back: outputs of :class:`Leaf` (nested lists, ``None`` for absent), or a refusal."""

    outputs: dict[str, Any] = field(default_factory=dict)
    rejects: str | None = None


SUBNORMALS = Dial(
    "subnormals",
    "keep",
    "flush: the library replaces subnormal float32, float64 and bfloat16 numbers by zero: every input before"
    " the operation and every output after it become a zero of their sign; tolerances stay as they are, and"
    " float16, whose arithmetic is done in float32, is never flushed. What is only copied or selected may keep"
    " its bits. flush_float32: only those of float32, as CUDA's compiler makes code with -ftz=true",
    ("flush", "flush_float32"),
)
IN_PLACE = Dial(
    "in_place",
    "no",
    "documented: the function is documented to write to its arguments",
    ("documented",),
)


@dataclass(frozen=True)
class Operation:
    """One operation of the contract."""

    id: str
    summary: str
    formula: str
    sources: tuple[str, ...]
    constraints: dict[str, str]
    inputs: dict[str, str]
    outputs: dict[str, str]
    params: tuple[Param, ...]
    oracle: Oracle
    tolerance: Callable[[dict[str, Any], dict[str, Any]], Mapping[str, Any]]
    """ULP allowed per output: one number for all its tensors, or a list with one for each."""
    tolerance_why: str
    flags: dict[str, Flag]
    cases: Callable[[Cases], None]
    dials: tuple[Dial, ...] = ()
    dialects: dict[str, Setting] = field(default_factory=dict)
    mistakes: tuple[Mistake, ...] = ()
    representative: Callable[[Case, Setting, dict[str, Any]], dict[str, Any]] | None = None
    """Where an implementation may choose (ties): the outputs that stand for the ones it gave."""
    attributed: bool = True
    """Whether a divergence is traced to single dials: not where one expectation takes seconds."""
    locate: Callable[[str], tuple[Any, str]] | None = None
    """For runs of many steps: the place of an output's path in the order of events, and its name."""

    @property
    def all_dials(self) -> tuple[Dial, ...]:
        """The operation's own dials and the two that every operation has."""
        return (*self.dials, SUBNORMALS, IN_PLACE)

    def dial(self, name: str) -> Dial:
        """Return a dial by name; ValueError names the dials that exist."""
        for dial in self.all_dials:
            if dial.name == name:
                return dial
        known = ", ".join(dial.name for dial in self.all_dials)
        raise ValueError(f"{self.id} has no dial {name!r}; its dials are: {known}")

    def key(self, setting: Setting) -> str:
        """Return the name of a setting in the fixture files: ``canonical`` or ``dial=value,…``."""
        for name in setting:
            self.dial(name)
        parts = [
            f"{dial.name}={write(setting[dial.name])}"
            for dial in self.all_dials
            if setting.get(dial.name, dial.default) != dial.default
        ]
        return ",".join(parts) or "canonical"

    def expect(
        self, case: Case, setting: Setting | None = None, oracle: Oracle | None = None
    ) -> Expectation:
        """Return what the oracle (or a known mistake) says about a case under a setting of the dials."""
        setting = setting or {}
        settings = {param.name: param.default for param in self.params}
        settings |= (
            {dial.name: dial.default for dial in self.all_dials} | case.params | dict(setting)
        )
        subnormals = settings["subnormals"]
        inputs = resolve(map_tensors(partial(flush, setting=subnormals), case.inputs))
        # Files sort names; an oracle may go by the order in which its operation declares them.
        inputs = {name: inputs[name] for name in self.inputs if name in inputs} | inputs
        try:
            results = (oracle or self.oracle)(inputs, settings)
        except Reject as refusal:
            return Expectation(rejects=str(refusal))
        allowed = self.tolerance(inputs, settings)
        outputs = {
            name: _leaves(result, allowed[name], subnormals) for name, result in results.items()
        }
        return Expectation(outputs)

    def generate(self) -> list[Case]:
        """Return all cases, in the order they are written."""
        cases = Cases(self.id)
        self.cases(cases)
        defaults = {p.name: p.default for p in self.params if p.default is not None}
        for case in cases.made:
            case.params = {**defaults, **case.params}
            unknown = set(case.flags) - set(self.flags) | set(case.constraints) - set(
                self.constraints
            )
            if unknown:
                raise ValueError(
                    f"{self.id}/{case.id}: unknown flag or constraint {sorted(unknown)}"
                )
        return cases.made


def _leaves(results: Any, allowed: Any, subnormals: str) -> Any:
    if isinstance(allowed, list):
        pairs = zip(results, allowed, strict=True)
        return [_leaves(result, ulp, subnormals) for result, ulp in pairs]
    return map_tensors(partial(_leaf, ulp=allowed, subnormals=subnormals), results)


def _leaf(result: Value | Tensor, ulp: int, subnormals: str) -> Leaf:
    if not isinstance(result, Value):
        return Leaf(flush(result, subnormals), 0)
    rounded = round_all(result.exact, result.dtype)
    scale = None
    if result.scale is not None and ulp:
        # Scales only widen a bound, so float64 is precise enough for them in every format.
        scale = round_all(result.scale, "float64")
    return Leaf(flush(rounded, subnormals), ulp, scale)


def map_tensors(function: Callable[[Any], Any], tree: Any) -> Any:
    """Apply a function to the tensors of nested dicts and lists; what is none of these stays."""
    if tree is None or isinstance(tree, str | SameAs):
        return tree
    if isinstance(tree, dict):
        return {name: map_tensors(function, branch) for name, branch in tree.items()}
    if isinstance(tree, list | tuple):
        return [map_tensors(function, branch) for branch in tree]
    return function(tree)


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ``(path, leaf)`` of nested dicts and lists in order, absent leaves (``None``) included."""
    if isinstance(tree, dict):
        for name, branch in tree.items():
            yield from leaves(branch, f"{path}.{name}" if path else str(name))
    elif isinstance(tree, list | tuple):
        for index, branch in enumerate(tree):
            yield from leaves(branch, f"{path}[{index}]")
    else:
        yield path, tree


def write(value: Any) -> str:
    """Return a dial's value as it stands in a setting's name: 1e-6 rather than 1e-06."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        head, _, exponent = repr(value).partition("e")
        return f"{head}e{int(exponent)}" if exponent else head
    return str(value)


def widest(tree: Any) -> str:
    """Return float64 if any tensor of a tree is float64, else float32: the dtype of norms and losses."""
    names = {name_of(leaf.dtype) for _, leaf in leaves(tree) if isinstance(leaf, np.ndarray)}
    return "float64" if names & {"float64", "complex128"} else "float32"


def narrowest(tree: Any) -> str:
    """Return the float format with the fewest significant bits among the tensors of a tree."""
    tensors = [leaf for _, leaf in leaves(tree) if isinstance(leaf, np.ndarray)]
    names = [real_name(name_of(leaf.dtype)) for leaf in tensors]
    floats = [name for name in names if name in FLOATS]
    return min(floats, key=lambda name: FLOATS[name].precision, default="float32")


def sizes(tree: Any) -> int:
    """Return the number of elements of all tensors of a tree."""
    return sum(leaf.size for _, leaf in leaves(tree) if isinstance(leaf, np.ndarray))
