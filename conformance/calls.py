"""A bare function put before the suite: in process, or over the protocol as a program of its own.

The function gets the operation's inputs as positional arguments, in the order of the contract, and the
parameters as keyword arguments; a parameter that it does not take is left out where it has its default. It
returns the outputs: one of them as it is, several as a dict, or as a tuple or list in the order of the
contract. A function that writes to its inputs, as ``torch.nn.utils.clip_grad_norm_`` does, returns only the
outputs that replace no input (or None).

``python -m conformance.calls package.module:function OPERATION ARRAYS`` serves it over the protocol.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import platform
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from conformance import arrays
from conformance.arrays import Arrays
from conformance.cases import Case
from conformance.formats import SameAs, decode, encode, resolve
from conformance.operation import Operation, leaves, map_tensors, widest
from conformance.operations import load

Function = Callable[..., Any]

IN_PLACE = ("clip", "prune", "prox", "project")
"""Families whose outputs of an input's name can be the input itself, written to."""
REFUSALS = ("InvalidArgumentError",)
"""Exceptions that refuse arguments and are no ValueError."""
NOT_INSTALLED = 3


class _Unsupported(Exception):
    """The function has no parameter for what the case asks."""


def answer(function: Function, operation: Operation, library: Arrays, case: Case) -> dict[str, Any]:
    """Return what a function answers to a case, as the protocol writes it (without the id)."""
    try:
        native = resolve(map_tensors(lambda t: library.native(t.copy()), case.inputs))
    except (TypeError, ValueError) as error:
        return {"unsupported": {"reason": f"{library.name} cannot hold the inputs: {error}"}}
    names = list(operation.inputs)
    last = max((i for i, name in enumerate(names) if name in native), default=-1)
    inputs = [native.get(name) for name in names[: last + 1]]
    try:
        params = _accepted(function, operation, inputs, _numbers(case.params))
    except _Unsupported as lack:
        return {"unsupported": {"reason": str(lack)}}
    try:
        returned = function(*inputs, **params)
    except Exception as error:
        if isinstance(error, ValueError) or type(error).__name__ in REFUSALS:
            return {"rejected": {"message": _line(error)}}
        return {"errored": {"message": _line(error), "traceback": traceback.format_exc()}}
    try:
        outputs, in_place = _outputs(operation, returned, native)
        wide = widest(case.inputs)
        written = {name: _written(tree, library, wide) for name, tree in outputs.items()}
    except Exception as error:
        return {"errored": {"message": f"what it returned cannot be read: {_line(error)}"}}
    given = resolve(case.inputs)
    mutated = [
        name
        for name in given
        if name not in in_place and _changed(given[name], native[name], library)
    ]
    return {"outputs": written} | ({"mutated": mutated} if mutated else {})


def _numbers(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _numbers(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_numbers(item) for item in value]
    return float(value) if value in ("inf", "-inf", "nan") else value


def _accepted(
    function: Function, operation: Operation, inputs: list[Any], params: dict[str, Any]
) -> dict[str, Any]:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return params
    takes = signature.parameters.values()
    if not any(taken.kind is taken.VAR_KEYWORD for taken in takes):
        defaults = {param.name: param.default for param in operation.params}
        for name in params.keys() - signature.parameters.keys():
            if params[name] != defaults.get(name):
                raise _Unsupported(f"the function takes no {name}")
        params = {name: params[name] for name in params if name in signature.parameters}
    try:
        signature.bind(*inputs, **params)
    except TypeError as error:
        raise _Unsupported(f"the function cannot be called as the contract says: {error}") from None
    return params


def _outputs(
    operation: Operation, returned: Any, inputs: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Return the outputs by name, and the names of those that are inputs written to."""
    names = list(operation.outputs)
    family = operation.id.partition(".")[0]
    replaced = [name for name in names if name in inputs and family in IN_PLACE]
    if isinstance(returned, Mapping):
        return dict(returned), []
    if len(names) == 1 and returned is not None:
        wrapped = isinstance(returned, tuple) and len(returned) == 1 and _is_list(returned[0])
        return {names[0]: returned[0] if wrapped else returned}, []
    if _is_list(returned) and len(returned) == len(names):
        outputs = dict(zip(names, returned, strict=True))
        if all(_is_list(outputs[name]) == _is_list(inputs[name]) for name in replaced):
            return outputs, []
    others = [name for name in names if name not in replaced]
    if returned is None:
        values: tuple[Any, ...] = ()
    elif len(others) == 1:
        values = (returned,)
    else:
        values = tuple(returned) if _is_list(returned) else (returned,)
    if not replaced or len(values) > len(others):
        wanted = ", ".join(names)
        raise TypeError(f"returned {type(returned).__name__}; the outputs are: {wanted}")
    outputs = {name: inputs[name] for name in replaced}
    return outputs | dict(zip(others, values, strict=False)), replaced


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _written(tree: Any, library: Arrays, wide: str) -> Any:
    if tree is None:
        return None
    if _is_list(tree):
        return [_written(branch, library, wide) for branch in tree]
    if type(tree) in (bool, int, float):
        # A number of Python's has no format of its own.
        dtypes = {bool: "bool", int: "int32", float: wide}
        return encode(np.asarray(tree).astype(dtypes[type(tree)]))
    return encode(np.asarray(library.to_numpy(tree)))


def _changed(given: Any, native: Any, library: Arrays) -> bool:
    pairs = zip(leaves(given), leaves(native), strict=True)
    return any(
        np.asarray(library.to_numpy(now)).tobytes() != before.tobytes()
        for (_, before), (_, now) in pairs
        if isinstance(before, np.ndarray)
    )


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}"


# --- as a program -----------------------------------------------------------------------------


def function_of(spec: str) -> Function:
    """Return the function that ``package.module:function`` names.

    Raises:
        ValueError: it cannot be had; one line says why.
    """
    module, _, path = spec.partition(":")
    if not module or not path:
        raise ValueError(f"{spec!r} is not of the form package.module:function")
    try:
        found: Any = importlib.import_module(module)
        for name in path.split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"cannot import {spec}: {error}") from None
    if not callable(found):
        raise ValueError(f"{spec} is not callable")
    function: Function = found
    return function


def _case(request: Mapping[str, Any]) -> Case:
    def decoded(tree: Any) -> Any:
        if isinstance(tree, dict) and "bits" in tree:
            return decode(tree)
        if isinstance(tree, dict) and "same_as" in tree:
            return SameAs(tree)
        if isinstance(tree, dict):
            return {name: decoded(branch) for name, branch in tree.items()}
        return [decoded(branch) for branch in tree] if isinstance(tree, list) else tree

    inputs, params = decoded(request["inputs"]), dict(request["params"])
    return Case(request["operation"], str(request["id"]), (), (), inputs, params)


def serve(spec: str, operation_id: str, library_name: str) -> None:
    """Answer requests for one operation with one function, until ``stop`` or the end of input."""
    operation, library, function = load(operation_id), arrays.named(library_name), function_of(spec)
    about = {
        "name": spec, "version": "", "language": "Python",
        "language_version": platform.python_version(),
        "operations": {operation_id: {"dtypes": list(library.dtypes)}},
    }  # fmt: skip
    # What the function prints would break the protocol.
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        request = json.loads(line)
        if request["cmd"] == "stop":
            return
        if request["cmd"] == "start":
            reply: dict[str, Any] = {"protocol": 1, "implementation": about}
        else:
            reply = {
                "id": request["id"],
                **answer(function, operation, library, _case(request)),
            }
        answers.write(json.dumps(reply, allow_nan=False) + "\n")
        answers.flush()


def main(arguments: list[str]) -> int:
    """Serve a function; one line on standard error and a code if it cannot be had."""
    # At the end, so that nothing in the user's folder is taken for a package of ours.
    sys.path.append(os.getcwd())
    try:
        serve(*arguments)
    except ValueError as error:
        print(error, file=sys.stderr)
        return NOT_INSTALLED if "is not installed" in str(error) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
