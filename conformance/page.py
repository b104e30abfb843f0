"""The report as one HTML page that needs no network: a matrix, and behind every cell its cases.

``templates/report.html`` lays it out; the data lie in it as JSON. Inputs and outputs are there for cases
that fail and, a few for each divergence, for those that are not canonical: the page stays small.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from conformance import __version__, fixtures, report
from conformance.cases import Case
from conformance.commands.snippet import snippet
from conformance.compare import distances, show
from conformance.formats import name_of
from conformance.judge import Verdict, as_judged
from conformance.operation import Expectation, Leaf, Setting, leaves
from conformance.operations import load
from conformance.runner import DIFFERENT, Run
from conformance.templating import embedded, environment

FAILING = 20
"""Failing cases of an operation that are shown with their numbers."""
DIVERGING = 2
"""Cases of a divergence that are."""
ELEMENTS, TENSORS = 12, 6
"""Elements of a tensor, and tensors of a case, that are written out."""
LONGEST_SNIPPET = 2500


def page(runs: Iterable[Run]) -> str:
    """Return the page as HTML."""
    runs = list(runs)
    names = list(dict.fromkeys(v.case.operation for run in runs for v in run.verdicts))
    tables = [{row.operation: row for row in report.rows(run)} for run in runs]
    matrix = [[_cell(table.get(name)) for table in tables] for name in names]
    data = {
        "participants": [
            {"name": run.participant, "title": report.title(run)} | _details(run) for run in runs
        ],
        "operations": {name: load(name).summary for name in names},
        "cases": _cases(runs),
    }
    return (
        environment()
        .get_template("report.html")
        .render(
            suite=__version__,
            runs=[_head(run) for run in runs],
            rows=[
                (name, load(name).summary, cells) for name, cells in zip(names, matrix, strict=True)
            ],
            data=embedded(data),
        )
    )


def _head(run: Run) -> dict[str, Any]:
    return {
        "title": report.title(run),
        "summary": report.summary(run) if run.not_started is None else run.not_started,
        "state": "ok" if run.as_expected else "absent" if run.not_installed else "bad",
        "notes": run.notes,
    }


def _cell(row: report.Row | None) -> dict[str, str]:
    if row is None or row.cases == row.unsupported:
        return {"state": "absent", "sign": "–", "text": "", "words": "not supported"}
    asked = row.cases - row.unsupported
    state, sign = "ok", "✓"
    if row.failed:
        state, sign = "bad", "✗"
    elif row.expected:
        state, sign = "known", "!"
    elif row.canonical < asked:
        state, sign = "other", "≈"
    words = f"{row.passed} of {asked} passed, {row.failed} failed, {row.canonical} canonical"
    if row.expected:
        words += f", {row.expected} expected failures"
    return {"state": state, "sign": sign, "text": f"{row.passed}/{asked}", "words": words}


def _details(run: Run) -> dict[str, Any]:
    operations: dict[str, Any] = {}
    for row in report.rows(run):
        found = run.diagnoses.get(row.operation)
        ulps = [
            v.worst_ulp for v in run.verdicts if v.case.operation == row.operation and v.numbers
        ]
        operations[row.operation] = {
            "diverges": [
                [d.name, d.cases, d.size]
                for d in sorted(row.divergences.values(), key=lambda d: -d.cases)
            ],
            "diagnosis": found.sentence if found else "",
            "links": list(found.links) if found else [],
            "ulps": histogram(ulps),
            "precision": _precision(run, row.operation),
        }
    chosen = {id(verdict) for verdict in _shown(run)}
    dialects = run.implementation.dialect if run.implementation else {}
    verdicts: dict[str, list[Any]] = {}
    for verdict in run.verdicts:
        dialect = dialects.get(verdict.case.operation, {})
        entry: dict[str, Any] = {"s": verdict.status}
        for key, value in (
            ("c", verdict.canonical),
            ("m", verdict.message or verdict.reason),
            ("r", verdict.reason if verdict.message else ""),
            ("d", verdict.divergence),
            ("p", str(verdict.departs or "")),
        ):
            if value not in ("", None) and (key != "m" or verdict.status != "passed"):
                entry[key] = value
        if id(verdict) in chosen:
            entry["n"] = _numbers(verdict, dialect)
        verdicts.setdefault(verdict.case.operation, []).append([verdict.case.id, entry])
    return {"operations": operations, "verdicts": verdicts}


def _precision(run: Run, operation: str) -> str:
    measure = run.precision.get(operation)
    if measure is None:
        return ""
    words = f"{measure.name}: up to {measure.ulps:.3g} ULP off in {measure.where}"
    long = run.probed.get(operation)
    return f"{words}; {long.where} is {long.ulps:.3g} ULP off" if long else words


def _shown(run: Run) -> list[Verdict]:
    """Return the verdicts that are shown with inputs and outputs, the smaller cases first."""
    count: Counter[tuple[str, str]] = Counter()
    chosen = []
    for verdict in sorted(run.verdicts, key=lambda v: _elements(v.case)):
        failing = verdict.status in DIFFERENT or verdict.status == "expected_failure"
        if not failing and verdict.canonical is not False:
            continue
        key = verdict.case.operation, "" if failing else verdict.divergence
        count[key] += 1
        if count[key] <= (FAILING if failing else DIVERGING):
            chosen.append(verdict)
    return chosen


def _elements(case: Case) -> int:
    return sum(leaf.size for _, leaf in leaves(case.inputs) if isinstance(leaf, np.ndarray))


def _cases(runs: Sequence[Run]) -> dict[str, Any]:
    """Return inputs and reproduction of every case that some run shows, once for all runs."""
    found = {}
    for verdict in (verdict for run in runs for verdict in _shown(run)):
        case = verdict.case
        if case.full_id in found:
            continue
        operation = load(case.operation)
        source = snippet(case)
        found[case.full_id] = {
            "inputs": [[path, _type(leaf), _text(leaf)] for path, leaf in leaves(case.inputs)][
                :TENSORS
            ],
            "params": json.dumps(fixtures.parameters(case.params)),
            "tests": [[label, operation.constraints.get(label, "")] for label in case.constraints],
            "flags": [
                [flag.kind, flag.description, list(flag.links)]
                for flag in (operation.flags.get(name) for name in case.flags)
                if flag
            ],
            "snippet": source if len(source) <= LONGEST_SNIPPET else "",
        }
    return found


def _numbers(verdict: Verdict, dialect: Setting) -> dict[str, Any]:
    """Return what was expected and what was answered, tensor by tensor, and how far they are apart."""
    operation = load(verdict.case.operation)
    failing = verdict.status != "passed"
    setting = dialect if failing else {}
    try:
        expected = fixtures.expectation(operation, verdict.case, setting)
    except (ValueError, TypeError, ArithmeticError):
        return {}
    title = "expected" if failing else "canonical"
    if expected.rejects is not None:
        return {"title": title, "refused": expected.rejects}
    outputs: dict[str, Any] = {}
    if verdict.answer is not None and verdict.answer.outputs is not None:
        outputs = as_judged(operation, verdict.case, setting, verdict.answer.outputs)
    rows, ulps = _rows(expected, outputs)
    return {"title": title, "rows": rows[:TENSORS], "ulps": histogram(ulps)}


def _rows(expected: Expectation, outputs: dict[str, Any]) -> tuple[list[list[Any]], list[float]]:
    answered = dict(leaves(outputs))
    rows, ulps = [], []
    for path, leaf in leaves(expected.outputs):
        got = answered.get(path)
        wanted = leaf.tensor if leaf else None
        worst = _distances(got, leaf)
        ulps += worst
        off = wanted is not None and (not worst or max(worst) > leaf.ulp) and path in answered
        rows.append([
            path, _type(wanted), _text(wanted), _type(got), _text(got) if path in answered else "",
            leaf.ulp if leaf else 0, off,
        ])  # fmt: skip
    # What is off comes first: only so many are shown.
    return sorted(rows, key=lambda row: not row[-1]), ulps


def _distances(got: Any, leaf: Leaf | None) -> list[float]:
    if leaf is None or not isinstance(got, np.ndarray):
        return []
    if got.dtype != leaf.tensor.dtype or got.shape != leaf.tensor.shape or not got.size:
        return []
    return [float(distance) for distance in np.ravel(distances(got, leaf))]


def histogram(ulps: Iterable[float]) -> list[list[Any]]:
    """Return ``[label, count]``: distances of 0, up to 1, 2, 4, … ULP, and those without a number."""
    count: Counter[float] = Counter()
    for ulp in ulps:
        finite = math.isfinite(ulp)
        count[0 if ulp == 0 else 1 + max(0, math.ceil(math.log2(ulp))) if finite else math.inf] += 1
    if not count:
        return []
    top = int(max((bucket for bucket in count if math.isfinite(bucket)), default=0))
    # The gap between what rounding does and what is plainly wrong need not be drawn to scale.
    bins = [[_label(b), count[b]] for b in range(top + 1) if b <= 7 or count[b]]
    return bins + ([["∞", count[math.inf]]] if count[math.inf] else [])


def _label(bucket: int) -> str:
    if bucket == 0:
        return "0"
    return f"≤{2 ** (bucket - 1)}" if bucket <= 7 else f"≤2^{bucket - 1}"


def _type(leaf: Any) -> str:
    return f"{name_of(leaf.dtype)} {list(leaf.shape)}" if isinstance(leaf, np.ndarray) else ""


def _text(leaf: Any) -> str:
    if leaf is None:
        return "absent"
    if not isinstance(leaf, np.ndarray):
        return str(leaf)
    values = [show(value) for value in leaf.ravel()[:ELEMENTS]]
    more = f", … {leaf.size} elements" if leaf.size > ELEMENTS else ""
    return f"[{', '.join(values)}{more}]" if leaf.ndim else values[0]
