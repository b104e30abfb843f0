"""What ``secateurs smoke`` sends through a harness: tensors that must come back bit by bit.

A protocol has no echo, so each tensor goes through an operation that passes it on: no clipping at an infinite
threshold, a step of zero, flattening. What comes back is judged as any answer is, by the declared dialect.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from conformance import fixtures, operations
from conformance.cases import Case
from conformance.formats import SameAs, dtype_of, encode, name_of
from conformance.judge import Verdict, map_outputs
from conformance.operation import Setting, leaves
from conformance.operations import load
from conformance.protocol import Implementation

FLOATS = ("float64", "float32", "float16", "bfloat16")
COMPLEX = ("complex128", "complex64")
KNOWN_DTYPES = (*FLOATS, *COMPLEX, "int32", "int64", "bool")
QUESTIONS = 8
LONG = 20_000


@dataclass(frozen=True)
class Probe:
    """A tensor and the case that passes it on; ``why`` there is none."""

    name: str
    case: Case | None
    why: str = ""
    mend: str = ""


# --- operations that pass a tensor on -------------------------------------------------------------------

Question = tuple[dict[str, Any], dict[str, Any]]


def _list(make: Callable[[Any], dict[str, Any]], **params: Any) -> Callable[[Any], Question]:
    return lambda tensor: (make(tensor), params)


def _ones(tensor: Any) -> Any:
    return [None if t is None else np.ones_like(t) for t in tensor]


PASSING: dict[str, Callable[[Any], Question]] = {
    "clip.value": _list(lambda t: {"grads": t}, min=float("-inf"), max=float("inf")),
    "clip.global_norm": _list(lambda t: {"grads": t}, max_norm=float("inf")),
    "clip.norm": _list(lambda t: {"grads": t}, max_norm=float("inf")),
    "optim.sgd": _list(
        lambda t: {"params": t, "grads": [[None if x is None else np.zeros_like(x) for x in t]]},
        lr=0.5,
    ),
    "prune.threshold": _list(lambda t: {"weights": t, "scores": _ones(t)}, threshold=0.5),
    "score.gradient": _list(lambda t: {"weights": _ones(t), "grads": t}),
}
"""Operations on lists, with what passes each tensor on. ``score.gradient`` takes magnitudes."""

BOUNDED = {
    "clip.global_norm": {"max_norm": 64.0},
    "clip.norm": {"max_norm": 64.0},
}
"""What passes on only finite, small tensors: for a library that multiplies at an infinite threshold."""

LAYERS: dict[str, Callable[[Any], Question]] = {
    "layer.flatten": lambda t: ({"x": t, "dy": t.reshape(t.shape[0], -1)}, {}),
    "layer.dropout": lambda t: ({"x": t, "mask": np.ones(t.shape, bool), "dy": t}, {"rate": 0.0}),
}


def _case(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> Case:
    operation = load(name)
    defaults = {p.name: p.default for p in operation.params if p.default is not None}
    return Case(name, "smoke", (), (), inputs, defaults | params)


def _carrier(about: Implementation, dtype: str) -> tuple[str, Any] | None:
    """Return an operation that takes a dtype and passes tensors on, and the maker of its question."""
    for name, make in {**PASSING, **LAYERS}.items():
        if name == "clip.value" and dtype in COMPLEX:
            continue
        if name in about.operations and dtype in (about.operations[name].get("dtypes") or [dtype]):
            return name, make
    return None


def _finite_only(name: str, dialect: Setting) -> bool:
    return name in BOUNDED and dialect.get("infinite_limit", "identity") != "identity"


# --- the tensors ----------------------------------------------------------------------------------------


def values(dtype: str, finite: bool = False) -> Any:
    """Return twelve numbers of a format in which a careless reader or writer goes wrong."""
    kind = dtype_of(dtype)
    if dtype in COMPLEX:
        parts = values("float64" if dtype == "complex128" else "float32", finite)
        if finite:
            # A complex factor of 1, which such a library may apply, need not keep the sign of a zero.
            parts = np.where(parts == 0, parts.dtype.type(5), parts)
        numbers = np.empty(parts.shape, kind)
        numbers.real, numbers.imag = parts, parts[::-1]
        return numbers
    word = np.dtype(f"u{kind.itemsize}")
    tiniest = np.array(1, word).view(kind)
    uneven = (np.array(1, kind).view(word) + np.array(5, word)).view(kind)
    infinity = np.array(np.inf, kind)
    largest = (infinity.view(word) - np.array(1, word)).view(kind)
    usual = [0.0, -0.0, tiniest, -tiniest, uneven, -1.5, 0.25, 1 / 3]
    rest = [3.0, -2.0, 0.125, -7.0] if finite else [largest, infinity, -infinity, np.nan]
    return np.array([np.asarray(x).astype(kind) for x in [*usual, *rest]])


def _positive(name: str, tensor: Any) -> Any:
    return np.abs(tensor) if name == "score.gradient" else tensor


def probes(about: Implementation) -> list[Probe]:
    """Return what is to be sent through a harness, for each dtype and each shape that it claims."""
    claimed = {d for what in about.operations.values() for d in what.get("dtypes") or FLOATS}
    found = [_bits(about, dtype) for dtype in (*FLOATS, *COMPLEX) if dtype in claimed]
    dtype = next((d for d in FLOATS if d in claimed), None)
    carrier = _carrier(about, dtype) if dtype else None
    if dtype is None or carrier is None:
        return found
    return [*found, *_shapes(about, dtype, *carrier)]


def _bits(about: Implementation, dtype: str) -> Probe:
    mend = "read and write the bits as the IEEE words that they are, big-endian, in C order"
    carrier = _carrier(about, dtype)
    if carrier is None:
        return Probe(f"{dtype} bits", None, "no operation with this dtype passes a tensor on")
    name, make = carrier
    finite = _finite_only(name, about.dialect.get(name, {}))
    tensor = _positive(name, values(dtype, finite)).reshape(3, 4)
    inputs, params = make([tensor] if name in PASSING else tensor)
    params = BOUNDED[name] if finite else params
    return Probe(f"{dtype} bits", _case(name, inputs, params), mend=mend)


def _shapes(about: Implementation, dtype: str, name: str, make: Any) -> list[Probe]:
    kind = dtype_of(dtype)
    finite = _finite_only(name, about.dialect.get(name, {}))

    def probe(title: str, tensors: Any, mend: str) -> Probe:
        inputs, params = make(tensors)
        return Probe(title, _case(name, inputs, BOUNDED[name] if finite else params), mend=mend)

    # About a thousandth each, so that even their norm is below the threshold of BOUNDED.
    long = (np.arange(LONG) % 13 / 4096 + 2.0**-12).astype(kind)
    lines = "read lines of any length: a tensor of a thousand numbers is a line of kilobytes"
    if name not in PASSING:
        return [probe("long line", long.reshape(4, -1), lines)]
    cube = (np.arange(24) / 8 - 0.25).astype(kind).reshape(2, 1, 4, 3)
    found = [
        probe("no axes", [np.array(0.75, kind)], "a number has the shape [], not [1]"),
        probe("no elements", [np.zeros((0, 3), kind), cube[0, 0]],
              'an empty tensor keeps its shape, and its bits are ""'),
        probe("four axes", [_positive(name, cube)], "the last axis runs fastest (C order)"),
        probe("long line", [long], lines),
    ]  # fmt: skip
    if name.startswith("clip."):
        mend = "null in a list stays null, in its place"
        found.append(probe("absent", [None, cube[0, 0, :2]], mend))
    if "clip.global_norm" in about.operations:
        found.append(_same_twice(about, cube))
    return found


def _same_twice(about: Implementation, cube: Any) -> Probe:
    name = "clip.global_norm"
    dtypes = about.operations[name].get("dtypes") or ["float32"]
    dtype = next((d for d in FLOATS if d in dtypes), None)
    if dtype is None:
        return Probe("same tensor twice", None, f"{name} lists no real dtype")
    inputs = {"grads": [cube.astype(dtype_of(dtype)), SameAs(same_as=0)]}
    finite = _finite_only(name, about.dialect.get(name, {}))
    params = BOUNDED[name] if finite else {"max_norm": float("inf")}
    return Probe(
        "same tensor twice", _case(name, inputs, params),
        mend='an entry {"same_as": 0} is the very tensor of entry 0; it comes back as a tensor',
    )  # fmt: skip


# --- questions whose answers are not their inputs ---------------------------------------------------------


def questions(about: Implementation) -> list[Case]:
    """Return one frozen case of each of the first operations, whose outputs are none of its inputs."""
    found: list[Case] = []
    for name in about.operations:
        if name not in operations.names() or len(found) == QUESTIONS:
            continue
        dtypes = set(about.operations[name].get("dtypes") or FLOATS)
        case = next((c for c in fixtures.read(load(name)) if _telling(c, dtypes)), None)
        if case is not None:
            found.append(case)
    return found


def _telling(case: Case, dtypes: set[str]) -> bool:
    tensors = [t for _, t in leaves(case.inputs) if isinstance(t, np.ndarray)]
    used = {name_of(t.dtype) for t in tensors} - {"bool", "int32", "int64"}
    if not tensors or not used <= dtypes or not all(np.isfinite(_wide(t)).all() for t in tensors):
        return False
    expected = fixtures.expectation(load(case.operation), case, {})
    if expected.rejects is not None:
        return False
    outputs = [leaf.tensor for _, leaf in leaves(expected.outputs) if leaf is not None]
    inputs = {_word(t) for t in tensors}
    return bool(outputs) and not any(_word(t) in inputs for t in outputs)


def _wide(tensor: Any) -> Any:
    return tensor if tensor.dtype.kind in "cbi" else tensor.astype(np.float64)


def _word(tensor: Any) -> str:
    return str(encode(tensor))


def echoes(case: Case, outputs: Any) -> bool:
    """Say whether every output is one of the inputs."""
    try:
        decoded = map_outputs(outputs)
        got = [_word(t) for _, t in leaves(decoded) if isinstance(t, np.ndarray)]
    except (TypeError, ValueError, AttributeError):
        return False
    given = {_word(t) for _, t in leaves(case.inputs) if isinstance(t, np.ndarray)}
    return bool(got) and set(got) <= given


def hint(verdict: Verdict, otherwise: str) -> str:
    """Return how to mend what a probe shows, by what came back."""
    difference = verdict.difference
    got, wanted = (difference.got, difference.expected) if difference else ("", "")
    if {got, wanted} == {"0.0", "-0.0"}:
        return "the sign of zero is lost: move bits, not numbers written in decimals"
    if got in ("0.0", "-0.0") and "e-" in wanted:
        return 'subnormals become zero: if the library flushes them, declare "subnormals": "flush"'
    if "shape" in verdict.message:
        return "send the shape of the result, [] for a number without axes"
    return otherwise
