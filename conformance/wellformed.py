"""Whether a fixture file is written as it must be: every field, and every tensor's dtype, shape and bits.

``fixtures/schema.json`` says the same to other languages, but for what JSON Schema cannot count.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, get_args

from conformance.formats import FormatError, dtype_of, real_name
from conformance.operation import Kind

SCHEMA = "secateurs-fixtures-1"
KINDS = get_args(Kind)
INLINE, STORED = {"dtype", "shape", "bits"}, {"dtype", "shape", "file", "key", "sha256"}
Load = Callable[[Mapping[str, Any]], Any]
"""Loads a tensor of the file beside the JSON; raises a FormatError if it is not what is written."""


class Malformed(ValueError):
    """A field that is not as it must be: ``case …: field: what is wrong``."""


def check(document: Any, operation: str, load: Load) -> None:
    """Raise Malformed, with one line, unless a document is a fixture file of the operation."""
    if not isinstance(document, dict):
        raise Malformed("is no JSON object")
    if document.get("schema") != SCHEMA:
        raise Malformed(f"schema is {document.get('schema')!r}, expected {SCHEMA!r}")
    _fields("", document, {"schema", "operation", "suite", "flags", "cases"})
    if document["operation"] != operation:
        raise Malformed(f"operation: is {document['operation']!r}, expected {operation!r}")
    _is(document["suite"], str, "suite")
    for name, flag in _is(document["flags"], dict, "flags").items():
        _flag(flag, f"flags.{name}")
    seen: set[str] = set()
    for number, case in enumerate(_is(document["cases"], list, "cases"), 1):
        _is(case, dict, f"case number {number}")
        if not isinstance(case.get("id"), str) or not case["id"]:
            raise Malformed(f"case number {number}: id: missing")
        if case["id"] in seen:
            raise Malformed(f"case {case['id']}: id: used twice")
        seen.add(case["id"])
        try:
            _case(case, document["flags"], load)
        except Malformed as error:
            raise Malformed(f"case {case['id']}: {error}") from None


def _fields(
    where: str, entry: Any, required: set[str], optional: frozenset[str] = frozenset()
) -> None:
    prefix = f"{where}." if where else ""
    _is(entry, dict, where)
    for name in sorted(required - entry.keys()):
        raise Malformed(f"{prefix}{name}: missing")
    for name in sorted(entry.keys() - required - optional):
        raise Malformed(f"{prefix}{name}: unknown field")


NAMES: dict[Any, str] = {dict: "an object", list: "a list", str: "a string"}


def _is(value: Any, kind: type, where: str) -> Any:
    if not isinstance(value, kind):
        raise Malformed(f"{where}: must be {NAMES[kind]}, got {_short(value)}")
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}…"


def _texts(value: Any, where: str) -> list[str]:
    for i, text in enumerate(_is(value, list, where)):
        _is(text, str, f"{where}[{i}]")
    return list(value)


def _flag(flag: Any, where: str) -> None:
    _fields(where, flag, {"kind", "description", "links"})
    if flag["kind"] not in KINDS:
        raise Malformed(f"{where}.kind: {flag['kind']!r} is none of {', '.join(KINDS)}")
    _is(flag["description"], str, f"{where}.description")
    _texts(flag["links"], f"{where}.links")


def _case(case: dict[str, Any], flags: Mapping[str, Any], load: Load) -> None:
    required = {"id", "flags", "constraints", "inputs", "params", "expected"}
    _fields("", case, required, frozenset({"tolerance"}))
    for name in _texts(case["flags"], "flags"):
        if name not in flags:
            raise Malformed(f"flags: {name!r} is not among the flags of the file")
    _texts(case["constraints"], "constraints")
    for name, tree in _is(case["inputs"], dict, "inputs").items():
        _tree(tree, f"inputs.{name}", load, named=True)
    _is(case["params"], dict, "params")
    if "tolerance" in case:
        _tolerance(case["tolerance"], "tolerance")
    expected = _is(case["expected"], dict, "expected")
    if "canonical" not in expected:
        raise Malformed("expected.canonical: missing")
    for setting, entry in expected.items():
        _expectation(entry, f"expected.{setting}", case, load)


def _expectation(entry: Any, where: str, case: Mapping[str, Any], load: Load) -> None:
    _is(entry, dict, where)
    if "same_as" in entry:
        _fields(where, entry, {"same_as"})
        other = entry["same_as"]
        if other not in case["expected"] or "same_as" in case["expected"][other]:
            raise Malformed(f"{where}.same_as: {other!r} is no expectation of this case")
        return
    if "differs_by" in entry:
        _is(entry["differs_by"], str, f"{where}.differs_by")
    if "rejects" in entry:
        _fields(where, entry, {"rejects", "why"}, frozenset({"differs_by"}))
        if entry["rejects"] is not True:
            raise Malformed(f"{where}.rejects: must be true")
        _is(entry["why"], str, f"{where}.why")
        return
    _fields(where, entry, {"outputs"}, frozenset({"scale", "tolerance", "differs_by"}))
    outputs = _is(entry["outputs"], dict, f"{where}.outputs")
    for name, tree in outputs.items():
        _tree(tree, f"{where}.outputs.{name}", load)
    for name, tree in _is(entry.get("scale", {}), dict, f"{where}.scale").items():
        _scale(tree, outputs.get(name), f"{where}.scale.{name}", load)
    allowed = entry.get("tolerance", case.get("tolerance"))
    if allowed is None:
        raise Malformed(f"{where}.tolerance: missing")
    _tolerance(allowed, f"{where}.tolerance")
    for name in sorted(outputs.keys() ^ allowed.keys()):
        raise Malformed(f"{where}.tolerance.{name}: a tolerance and an output go together")


def _tolerance(allowed: Any, where: str) -> None:
    for name, entry in _is(allowed, dict, where).items():
        _fields(f"{where}.{name}", entry, {"ulp"})
        if not _is_ulp(entry["ulp"]):
            what = "a whole number that is not negative, or lists of these"
            raise Malformed(f"{where}.{name}.ulp: must be {what}, got {_short(entry['ulp'])}")


def _is_ulp(value: Any) -> bool:
    if isinstance(value, list):
        return all(item is None or _is_ulp(item) for item in value)
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _scale(scale: Any, output: Any, where: str, load: Load) -> None:
    if scale is None:
        return
    if isinstance(scale, list):
        if not isinstance(output, list) or len(output) != len(scale):
            raise Malformed(f"{where}: must have as many entries as the output")
        for i, (one, other) in enumerate(zip(scale, output, strict=True)):
            _scale(one, other, f"{where}[{i}]", load)
        return
    _tensor(scale, where, load)
    if scale["dtype"] != "float64":
        raise Malformed(f"{where}.dtype: is {scale['dtype']!r}, expected 'float64'")
    fits = isinstance(output, dict) and scale["shape"] in ([], output.get("shape"))
    if not fits:
        raise Malformed(f"{where}.shape: must be the shape of the output, or [] for all of it")


def _tree(tree: Any, where: str, load: Load, named: bool = False) -> None:
    """Check a tensor, None, or lists of these; for inputs also objects, repeated entries and words."""
    if isinstance(tree, list):
        for i, branch in enumerate(tree):
            if named and isinstance(branch, dict) and "same_as" in branch:
                _repeated(branch, i, f"{where}[{i}]")
            else:
                _tree(branch, f"{where}[{i}]", load, named)
    elif named and isinstance(tree, dict) and not tree.keys() & (INLINE | STORED):
        for name, branch in tree.items():
            _tree(branch, f"{where}.{name}", load, named)
    elif tree is not None and not (named and isinstance(tree, str)):
        _tensor(tree, where, load)


def _repeated(entry: Any, index: int, where: str) -> None:
    _fields(where, entry, {"same_as"})
    other = entry["same_as"]
    if not isinstance(other, int) or isinstance(other, bool) or not 0 <= other < index:
        raise Malformed(f"{where}.same_as: must be the index of an earlier entry, got {other!r}")


def _tensor(tensor: Any, where: str, load: Load) -> None:
    if not isinstance(tensor, dict):
        raise Malformed(f"{where}: must be a tensor, got {_short(tensor)}")
    _fields(where, tensor, INLINE if "file" not in tensor else STORED)
    try:
        width = 2 * dtype_of(tensor["dtype"]).itemsize
    except (FormatError, TypeError):
        raise Malformed(f"{where}.dtype: unknown dtype {tensor['dtype']!r}") from None
    shape = tensor["shape"]
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise Malformed(f"{where}.shape: must be a list of whole numbers, got {_short(shape)}")
    try:
        if "file" in tensor:
            load(tensor)
        else:
            _bits(tensor["bits"], tensor["dtype"], math.prod(shape), width, f"{where}.bits", shape)
    except FormatError as error:
        raise Malformed(f"{where}: {error}") from None


def _bits(bits: Any, dtype: str, count: int, width: int, where: str, shape: list[int]) -> None:
    digits = "0-9a-f"
    if dtype == "bool":
        width, digits = 1, "01"
    elif real_name(dtype) != dtype:
        count, width = 2 * count, width // 2
    words = re.compile(f"(?:[{digits}]{{{width}}}(?: (?!$)|$))*")
    # The length is compared first: it is what goes wrong, and quick.
    _is(bits, str, where)
    right = len(bits) == max(count * (width + 1) - 1, 0) and words.fullmatch(bits)
    if not right:
        raise Malformed(
            f"{where}: {dtype} of shape {shape} needs {count} words of {width} digits {digits},"
            f" got {len(bits.split())} words"
        )
