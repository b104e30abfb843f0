"""Fixture files: frozen cases, one file per operation, the same bytes on every machine.

``fixtures/<operation>.json`` holds the cases. Tensors of more than 4,096 elements lie beside it in
``<operation>.safetensors`` and are named in the JSON by file, key and checksum.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save as save_safetensors

from conformance import __version__, wellformed
from conformance.cases import Case
from conformance.compare import attribute
from conformance.formats import FormatError, SameAs, Tensor, decode, dtype_of, encode
from conformance.operation import Expectation, Flag, Leaf, Operation, Setting, map_tensors
from conformance.wellformed import SCHEMA, Malformed

FOLDER = Path(__file__).parent / "fixtures"
INLINE_ELEMENTS = 4096


class FixtureError(ValueError):
    """A fixture file that is damaged; the message names file, case and field."""


@dataclass
class _Writer:
    """Turns tensors into notation, the large ones into entries of a file beside the JSON."""

    file: str
    large: dict[str, Tensor] = field(default_factory=dict)

    def tensor(self, value: Tensor) -> dict[str, Any]:
        if value.size <= INLINE_ELEMENTS:
            return encode(value)
        digest = hashlib.sha256(repr((value.dtype.name, value.shape)).encode() + value.tobytes())
        key = digest.hexdigest()[:16]
        self.large[key] = np.ascontiguousarray(value)
        return {
            "dtype": value.dtype.name,
            "shape": list(value.shape),
            "file": self.file,
            "key": key,
        }

    def expectation(self, expected: Expectation, base: dict[str, Any] | None) -> dict[str, Any]:
        if expected.rejects is not None:
            return {"rejects": True, "why": expected.rejects}
        written: dict[str, Any] = {
            "outputs": map_tensors(lambda leaf: self.tensor(leaf.tensor), expected.outputs)
        }
        scales = {
            name: map_tensors(lambda leaf: leaf.scale, tree)
            for name, tree in expected.outputs.items()
        }
        scales = {
            name: map_tensors(self.tensor, tree) for name, tree in scales.items() if _any(tree)
        }
        if scales:
            written["scale"] = scales
        allowed = tolerance_of(expected)
        if base is None or allowed != base:
            written["tolerance"] = allowed
        return written


def _any(tree: Any) -> bool:
    if isinstance(tree, list):
        return any(_any(branch) for branch in tree)
    return tree is not None


def tolerance_of(expected: Expectation) -> dict[str, Any]:
    """Return the allowed ULP of each output: one number, or nested lists where tensors differ."""
    result: dict[str, Any] = {}
    for name, tree in expected.outputs.items():
        ulps = map_tensors(lambda leaf: leaf.ulp, tree)
        flat = set(_flat(ulps))
        result[name] = {"ulp": ulps if len(flat) > 1 else flat.pop() if flat else 0}
    return result


def _flat(tree: Any) -> list[int]:
    if isinstance(tree, list):
        return [x for branch in tree for x in _flat(branch)]
    return [] if tree is None else [tree]


def parameters(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters as JSON values: the non-finite ones as ``"inf"``, ``"-inf"``, ``"nan"``."""
    return {name: _parameter(value) for name, value in params.items()}


def _parameter(value: Any) -> Any:
    if isinstance(value, float) and not np.isfinite(value):
        return repr(value)
    if isinstance(value, list | tuple):
        return [_parameter(item) for item in value]
    if isinstance(value, Mapping):
        return parameters(value)
    return value


def build(operation: Operation) -> dict[str, bytes]:
    """Return the fixture files of an operation by name, as bytes."""
    writer = _Writer(f"{operation.id}.safetensors")
    text = _document(operation, operation.generate(), operation.flags, writer)
    files = {f"{operation.id}.json": text.encode()}
    return files | ({writer.file: save_safetensors(writer.large)} if writer.large else {})


def document(
    operation: Operation,
    cases: Iterable[Case],
    flags: Mapping[str, Flag],
    settings: Iterable[Setting] = (),
) -> str:
    """Return a fixture file of small cases, with the expectations under the settings given.

    Raises:
        ValueError: a tensor has more elements than one file of text holds.
    """
    writer = _Writer("")
    text = _document(operation, cases, flags, writer, settings)
    if writer.large:
        raise ValueError(f"a tensor of more than {INLINE_ELEMENTS} elements needs a file beside it")
    return text


def _document(
    operation: Operation,
    cases: Iterable[Case],
    flags: Mapping[str, Flag],
    writer: _Writer,
    settings: Iterable[Setting] | None = None,
) -> str:
    written = []
    used: set[str] = set()
    named = list(operation.dialects.values() if settings is None else settings)
    for case in cases:
        used.update(case.flags)
        written.append(_write_case(operation, case, writer, named))
    large = save_safetensors(writer.large) if writer.large else b""
    entries = {
        "schema": SCHEMA,
        "operation": operation.id,
        "suite": __version__,
        "flags": {
            name: {"kind": flag.kind, "description": flag.description, "links": list(flag.links)}
            for name, flag in flags.items()
            if name in used
        },
        "cases": _with_checksums(written, hashlib.sha256(large).hexdigest()),
    }
    return json.dumps(entries, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _write_case(
    operation: Operation, case: Case, writer: _Writer, settings: Iterable[Setting]
) -> dict[str, Any]:
    canonical = operation.expect(case)
    tolerance = None if canonical.rejects is not None else tolerance_of(canonical)
    expected = {"canonical": writer.expectation(canonical, tolerance)}
    for setting in settings:
        key = operation.key(setting)
        if key not in expected:
            entry = writer.expectation(operation.expect(case, setting), tolerance)
            same = entry == expected["canonical"]
            by = {"differs_by": attribute(operation, case, setting)}
            expected[key] = {"same_as": "canonical"} if same else entry | by
    document = {
        "id": case.id,
        "flags": list(case.flags),
        "constraints": list(case.constraints),
        "inputs": map_tensors(writer.tensor, case.inputs),
        "params": parameters(case.params),
        "expected": expected,
    }
    return document | ({"tolerance": tolerance} if tolerance is not None else {})


def _with_checksums(tree: Any, digest: str) -> Any:
    if isinstance(tree, dict):
        named = {name: _with_checksums(branch, digest) for name, branch in tree.items()}
        return named | {"sha256": digest} if "file" in named and "key" in named else named
    return [_with_checksums(branch, digest) for branch in tree] if isinstance(tree, list) else tree


def read(operation: Operation, folder: Path = FOLDER) -> list[Case]:
    """Return the frozen cases of an operation.

    Raises:
        FixtureError: the file is missing or damaged; one line with file, case and field.
    """
    path = folder / f"{operation.id}.json"
    return _cases(path, operation.id, _parsed(path), folder)


def read_file(path: Path, known: Collection[str]) -> list[Case]:
    """Return the cases of a fixture file of any name, of one of the known operations.

    Raises:
        FixtureError: the file is missing or damaged, or its operation is not known.
    """
    document = _parsed(path)
    operation = document.get("operation") if isinstance(document, dict) else None
    if not isinstance(operation, str) or operation not in known:
        raise FixtureError(f"{path.name}: operation: {operation!r} is not known")
    return _cases(path, operation, document, path.parent)


def _parsed(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FixtureError(f"{path.name}: no such fixture file in {path.parent}") from None
    except OSError as error:
        raise FixtureError(f"{path.name}: {error.strerror}") from None
    except ValueError as error:
        raise FixtureError(f"{path.name}: not valid JSON: {error}") from None


def _cases(path: Path, operation: str, document: Any, folder: Path) -> list[Case]:
    try:
        wellformed.check(document, operation, lambda tensor: _read_tensors(tensor, folder))
    except Malformed as error:
        raise FixtureError(f"{path.name}: {error}") from None
    return [
        Case(
            operation,
            entry["id"],
            tuple(entry["flags"]),
            tuple(entry["constraints"]),
            _read_tensors(entry["inputs"], folder),
            dict(entry["params"]),
            frozen={"expected": entry["expected"], "tolerance": entry.get("tolerance")},
        )
        for entry in document["cases"]
    ]


def expectation(
    operation: Operation, case: Case, setting: Setting, folder: Path = FOLDER
) -> Expectation:
    """Return what a case expects under a setting: as frozen, else from the oracle."""
    frozen = case.frozen.get("expected", {})
    entry = frozen.get(operation.key(setting))
    if entry is None:
        return operation.expect(case, setting)
    if "same_as" in entry:
        entry = frozen[entry["same_as"]]
    if entry.get("rejects"):
        return Expectation(rejects=entry["why"])
    allowed = entry.get("tolerance") or case.frozen["tolerance"]
    outputs = {}
    try:
        for name, tree in entry["outputs"].items():
            tensors = _read_tensors(tree, folder)
            scale = _read_tensors(entry.get("scale", {}).get(name), folder)
            outputs[name] = _join(tensors, allowed[name]["ulp"], scale)
    except (FormatError, KeyError) as error:
        raise FixtureError(f"{operation.id}.json: case {case.id}: expected: {error}") from None
    return Expectation(outputs)


def divergence(operation: Operation, case: Case, setting: Setting) -> str:
    """Return the dials by which a setting leaves the canonical behaviour in a case."""
    entry = case.frozen.get("expected", {}).get(operation.key(setting))
    if entry is None:
        return attribute(operation, case, setting)
    return str(entry.get("differs_by", ""))


def _join(tensors: Any, ulps: Any, scale: Any) -> Any:
    if tensors is None:
        return None
    if not isinstance(tensors, list):
        return Leaf(tensors, ulps, scale)
    count = len(tensors)
    each_ulp = ulps if isinstance(ulps, list) else [ulps] * count
    each_scale = scale if isinstance(scale, list) else [scale] * count
    return [_join(*parts) for parts in zip(tensors, each_ulp, each_scale, strict=True)]


def _read_tensors(tree: Any, folder: Path) -> Any:
    if isinstance(tree, list):
        return [_read_tensors(branch, folder) for branch in tree]
    if not isinstance(tree, dict):
        return tree
    if "same_as" in tree:
        return SameAs(tree)
    if "dtype" not in tree:
        return {name: _read_tensors(branch, folder) for name, branch in tree.items()}
    if "bits" in tree:
        return decode(tree)
    entry = _read_large(folder / tree["file"], tree["sha256"]).get(tree["key"])
    if entry is None:
        raise FormatError(f"{tree['file']} has no tensor {tree['key']}")
    dtype, count = dtype_of(tree["dtype"]), int(np.prod(tree["shape"], dtype=np.int64))
    if list(entry["shape"]) != tree["shape"] or len(entry["data"]) != count * dtype.itemsize:
        raise FormatError(f"{tree['file']}: tensor {tree['key']} has another dtype or shape")
    return np.frombuffer(entry["data"], dtype=dtype).reshape(tree["shape"])


@lru_cache(maxsize=8)
def _read_large(path: Path, digest: str) -> dict[str, dict[str, Any]]:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise FormatError(f"{path.name}: {error.strerror}") from None
    if hashlib.sha256(raw).hexdigest() != digest:
        raise FormatError(f"{path.name}: the checksum does not match")
    try:
        return dict(deserialize(raw))
    except SafetensorError as error:
        raise FormatError(f"{path.name}: {error}") from None
