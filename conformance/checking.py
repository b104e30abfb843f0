"""The suite from a test file: run the frozen cases on a bare function, in process."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import Any

from conformance import arrays as libraries
from conformance import calls, fixtures
from conformance.cases import Case
from conformance.diagnosis import FAILURES, diagnose
from conformance.formats import name_of
from conformance.judge import Verdict, check_dialect, judge
from conformance.operation import Operation, Setting, leaves
from conformance.operations import load, matching, names

SHOWN = 5
"""Failing cases that the message lists."""

Cases = str | Case | Iterable[str | Case]


def check(
    operation: str | Case,
    function: Callable[..., Any],
    arrays: str = "numpy",
    dialect: str | Setting | None = None,
    cases: Cases | None = None,
    dtypes: Iterable[str] | None = None,
) -> None:
    """Run the frozen cases of an operation on a function; the message is the diagnosis.

    Args:
        operation: an operation's id, such as ``clip.global_norm``, or one case of :func:`cases`.
        function: takes the operation's inputs as positional arguments and its parameters by keyword, and
            returns the outputs as a tuple, list or dict (one output: as it is), or writes them to its
            inputs and returns the others. A ValueError refuses the arguments.
        arrays: the array library whose arrays the function takes: numpy, torch, tensorflow, jax, cupy or
            array_api_strict.
        dialect: what the function is documented to do otherwise than the canonical definition: dials with
            their settings, or the name of a dialect of the operation, such as ``torch``.
        cases: only these, by id or shell pattern (``*-f32``).
        dtypes: only cases whose numbers are of these formats; by default those that the library has.

    Raises:
        AssertionError: a case failed.
        ValueError: an unknown operation, dialect, case or library, or no case that could be asked.
    """
    __tracebackhide__ = True
    if isinstance(operation, Case):
        operation, cases = operation.operation, [operation] if cases is None else cases
    definition = _load(operation)
    setting = _setting(definition, dialect)
    library = libraries.named(arrays)
    formats = set(library.dtypes if dtypes is None else dtypes)
    chosen = [case for case in _chosen(definition, cases) if _formats(case) <= formats]
    verdicts = [
        judge(definition, case, setting, calls.answer(function, definition, library, case))
        for case in chosen
    ]
    asked = [verdict for verdict in verdicts if verdict.status != "unsupported"]
    if not asked:
        why = next((v.message for v in verdicts), f"none of {', '.join(sorted(formats))}")
        raise ValueError(f"{operation}: no case could be asked: {why}")
    if any(verdict.status in FAILURES for verdict in asked):
        raise AssertionError(_message(definition, setting, asked))


def cases(pattern: str = "*", case: str = "*") -> Any:
    """Parametrise a pytest test by the frozen cases of the operations that a shell pattern matches.

    ::

        @conformance.cases("clip.*", case="*-f32")
        def test_mine(case):
            conformance.check(case, FUNCTIONS[case.operation], arrays="torch")
    """
    found = matching(pattern)
    if not found:
        raise ValueError(f"no operation matches {pattern!r}; there are: {', '.join(names())}")
    pytest = importlib.import_module("pytest")
    chosen = [c for name in found for c in fixtures.read(load(name)) if fnmatchcase(c.id, case)]
    return pytest.mark.parametrize("case", chosen, ids=[c.full_id for c in chosen])


def _load(operation_id: str) -> Operation:
    try:
        return load(operation_id)
    except KeyError:
        known = ", ".join(names())
        raise ValueError(f"no operation {operation_id!r}; there are: {known}") from None


def _setting(operation: Operation, dialect: str | Setting | None) -> Setting:
    if isinstance(dialect, str):
        if dialect not in operation.dialects:
            known = ", ".join(operation.dialects) or "none"
            raise ValueError(f"{operation.id} has no dialect {dialect!r}; there are: {known}")
        return operation.dialects[dialect]
    check_dialect(operation, dialect or {})
    return dialect or {}


def _chosen(operation: Operation, wanted: Cases | None) -> list[Case]:
    if wanted is None:
        return fixtures.read(operation)
    each = [wanted] if isinstance(wanted, str | Case) else list(wanted)
    given = [case for case in each if isinstance(case, Case)]
    patterns = [word for word in each if isinstance(word, str)]
    if not patterns:
        return given
    frozen = fixtures.read(operation)
    for pattern in patterns:
        if not any(_named(case, pattern) for case in frozen):
            raise ValueError(f"{operation.id} has no case {pattern!r}")
    return given + [case for case in frozen if any(_named(case, p) for p in patterns)]


def _named(case: Case, pattern: str) -> bool:
    return fnmatchcase(case.id, pattern) or fnmatchcase(case.full_id, pattern)


def _formats(case: Case) -> set[str]:
    used = {name_of(leaf.dtype) for _, leaf in leaves(case.inputs) if hasattr(leaf, "dtype")}
    return used - {"bool", "int32", "int64"}


def _message(operation: Operation, setting: Setting, asked: list[Verdict]) -> str:
    bad = [verdict for verdict in asked if verdict.status in FAILURES]
    found = diagnose(operation, setting, asked)
    lines = [
        f"{operation.id}: {len(bad)} of {len(asked)} cases failed: {found.sentence if found else ''}"
    ]
    lines += [f"  {v.case.id} {v.status}: {v.message}" for v in bad[:SHOWN]]
    if len(bad) > SHOWN:
        lines.append(f"  … and {len(bad) - SHOWN} more")
    if found is not None and found.case:
        lines += ["", f"# {found.case}", found.snippet]
    return "\n".join(lines)
