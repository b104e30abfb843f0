"""What every adapter shares: the line protocol, and tensors in and out.

An adapter is one :class:`Adapter` object; each operation is a function registered on it::

    adapter = Adapter("mylib", version=mylib.__version__, homepage="…", to_native=mylib.array,
                      to_numpy=numpy.asarray)

    @adapter.operation("clip.global_norm", dtypes=("float32",), dialect={"eps": 1e-6, …})
    def clip_global_norm(grads, *, max_norm, ord):
        clipped, norm = mylib.clip(grads, max_norm)
        return {"grads": clipped, "total_norm": norm}

Inputs arrive as native tensors (nested in lists as the operation has them, absent ones ``None``), the
parameters as keyword arguments. Raise :class:`Unsupported` for what the library lacks and
:class:`Rejected` for what it refuses in its own way; a ValueError counts as a refusal.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any, TextIO

import numpy as np

from conformance.formats import decode, encode, resolve

Function = Callable[..., Mapping[str, Any]]
Pair = list[int]
"""Rows and columns: a stride, a window, a dilation."""
Pads = list[list[int]]
"""``[[top, bottom], [left, right]]``."""
FLOATS = ("float64", "float32", "float16", "bfloat16")
WITH_COMPLEX = (*FLOATS, "complex64", "complex128")


class Unsupported(Exception):
    """The library has no such thing; the message says what is missing."""

    def __init__(self, reason: str, link: str = "") -> None:
        """Keep the reason and a link to the library's own word on it."""
        super().__init__(reason)
        self.link = link


class NotStarted(Exception):
    """The library is there but cannot run here (no device, say); the message is one line."""


class Rejected(ValueError):
    """The library refused the arguments on purpose."""


class Operations:
    """Functions by operation, for an adapter that is written in several files."""

    def __init__(self) -> None:
        self.functions: dict[str, Function] = {}
        self.dtypes: dict[str, tuple[str, ...]] = {}
        self.dialect: dict[str, dict[str, Any]] = {}

    def operation(
        self,
        operation_id: str,
        dtypes: tuple[str, ...] = FLOATS,
        dialect: Mapping[str, Any] | None = None,
    ) -> Callable[[Function], Function]:
        """Register a function as the library's implementation of an operation."""

        def register(function: Function) -> Function:
            self.functions[operation_id] = function
            self.dtypes[operation_id] = dtypes
            if dialect:
                self.dialect[operation_id] = dict(dialect)
            return function

        return register

    def lacks(self, reason: str, operation_ids: str, dtypes: tuple[str, ...] = FLOATS) -> None:
        """Answer operations, named with spaces between them, by saying what the library lacks."""

        def decline(**_: Any) -> Mapping[str, Any]:
            raise Unsupported(reason)

        for operation_id in operation_ids.split():
            self.operation(operation_id, dtypes)(decline)

    def include(self, other: Operations) -> None:
        """Add all functions of another collection."""
        self.functions |= other.functions
        self.dtypes |= other.dtypes
        self.dialect |= other.dialect


class Adapter(Operations):
    """An implementation under test."""

    def __init__(
        self,
        name: str,
        *,
        version: str,
        homepage: str = "",
        to_native: Callable[[np.ndarray[Any, Any]], Any],
        to_numpy: Callable[[Any], np.ndarray[Any, Any]],
        rejections: tuple[type[BaseException], ...] = (),
        language: str = "Python",
        language_version: str = "",
    ) -> None:
        """Describe the library; ``rejections`` are exceptions with which it refuses arguments."""
        super().__init__()
        self.name, self.version, self.homepage = name, version, homepage
        self.to_native, self.to_numpy = to_native, to_numpy
        self.rejections: tuple[type[BaseException], ...] = (ValueError, *rejections)
        self.language = language
        self.language_version = language_version or platform.python_version()

    def start(self) -> dict[str, Any]:
        """Answer ``start``."""
        operations = {name: {"dtypes": list(dtypes)} for name, dtypes in self.dtypes.items()}
        return {
            "protocol": 1,
            "implementation": {
                "name": self.name,
                "version": self.version,
                "language": self.language,
                "language_version": self.language_version,
                "homepage": self.homepage,
                "dialect": self.dialect,
                "operations": operations,
            },
        }

    def run(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Answer one ``run``."""
        function = self.functions.get(request["operation"])
        if function is None:
            return {"unsupported": {"reason": f"{self.name} has no {request['operation']}"}}
        try:
            inputs = _each_tensor(decode_writable, request["inputs"])
            params = _numbers(dict(request["params"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            return {"errored": {"message": f"malformed request: {_line(error)}"}}
        before = {name: _bytes(tree) for name, tree in inputs.items()}
        try:
            # The same entry twice must be the same object twice, in the library's own arrays.
            native = resolve(_each_array(self.to_native, inputs))
            outputs = function(**native, **params)
            written = {name: self._output(tree) for name, tree in outputs.items()}
        except Unsupported as lack:
            return {
                "unsupported": {"reason": str(lack)} | ({"link": lack.link} if lack.link else {})
            }
        except self.rejections as refusal:
            return {"rejected": {"message": _line(refusal)}}
        except Exception as error:
            return {"errored": {"message": _line(error), "traceback": traceback.format_exc()}}
        mutated = [name for name, tree in inputs.items() if _bytes(tree) != before[name]]
        return {"outputs": written} | ({"mutated": mutated} if mutated else {})

    def _output(self, tree: Any) -> Any:
        if isinstance(tree, list | tuple):
            return [self._output(branch) for branch in tree]
        return None if tree is None else encode(np.asarray(self.to_numpy(tree)))

    def serve(self, lines: TextIO | None = None, answers: TextIO | None = None) -> None:
        """Answer requests until ``stop`` or the end of input.

        What a library prints on standard output would break the protocol, so it goes to standard error, from
        Python and from beneath it.
        """
        lines = lines or sys.stdin
        if answers is None:
            answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
            os.dup2(2, 1)
        sys.stdout = sys.stderr
        for line in lines:
            request = json.loads(line)
            if request["cmd"] == "stop":
                return
            answer = self.start() if request["cmd"] == "start" else self.run(request)
            if "id" in request:
                answer = {"id": request["id"], **answer}
            answers.write(json.dumps(answer, allow_nan=False) + "\n")
            answers.flush()


def interval(
    low: float | None, high: float | None, width: float | None, contradiction: str
) -> tuple[float | None, float | None]:
    """Return the bounds of ``clip.value``: those given, or [-width/2, width/2].

    Raises Unsupported, with ``contradiction`` as the reason, where a bound is given beside the width.
    """
    if width is None:
        return low, high
    if low is not None or high is not None:
        raise Unsupported(contradiction)
    return -width / 2, width / 2


def decode_writable(notation: dict[str, Any]) -> np.ndarray[Any, Any]:
    """Decode a tensor into memory of its own, so that a function that writes to it can be seen."""
    return decode(notation).copy()


def _each_tensor(function: Callable[[Any], Any], tree: Any) -> Any:
    if isinstance(tree, dict) and "dtype" in tree:
        return function(tree)
    if isinstance(tree, dict):
        return {name: _each_tensor(function, branch) for name, branch in tree.items()}
    return [_each_tensor(function, b) for b in tree] if isinstance(tree, list) else tree


def _each_array(function: Callable[[Any], Any], tree: Any) -> Any:
    if isinstance(tree, np.ndarray):
        return function(tree)
    if isinstance(tree, dict):
        return {name: _each_array(function, branch) for name, branch in tree.items()}
    return [_each_array(function, b) for b in tree] if isinstance(tree, list) else tree


def _bytes(tree: Any) -> bytes:
    if isinstance(tree, np.ndarray):
        return tree.tobytes()
    branches = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    return b"".join(_bytes(branch) for branch in branches)


def _numbers(value: Any) -> Any:
    """Turn the strings that stand for non-finite numbers into floats."""
    if isinstance(value, dict):
        return {name: _numbers(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return float(value) if value in ("inf", "-inf", "nan") else value


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}"
