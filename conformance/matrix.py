"""The matrix: operations down, implementations across, from records of runs made anywhere.

As Markdown, and as one HTML page that needs no network (``templates/matrix.html``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from conformance import __version__
from conformance.operation import write
from conformance.operations import load, names
from conformance.recorded import Record, Tally
from conformance.templating import embedded, environment

STATES = {
    "canonical": ("✓", "every answer is the canonical one"),
    "dials": ("≈", "does what it documents; the settings by which that differs are named"),
    "known": ("!", "some cases fail, each for a reason that is written down"),
    "fails": ("✗", "cases fail for which no reason is written down"),
    "crashes": ("†", "a case ends the process, or never ends"),
    "lacks": ("–", "the library has no such thing"),
}
"""The signs of the matrix, the best first, with what they mean."""
FAMILIES = {
    "clip": "clipping",
    "dist": "clipping over several ranks",
    "layer": "layers",
    "loss": "losses",
    "optim": "optimisers",
    "penalty": "penalties",
    "project": "projections",
    "prox": "proximal steps",
    "prune": "pruning",
    "schedule": "pruning schedules",
    "score": "pruning scores",
    "train": "the training step",
}


def rows(records: Sequence[Record]) -> list[str]:
    """Return the operations that some record tells of, in the suite's order, unknown ones last."""
    told = {name for record in records for name in record.operations}
    return [name for name in names() if name in told] + sorted(told - set(names()))


def summary(operation: str) -> str:
    """Return an operation's summary; nothing for one that this suite does not know."""
    return load(operation).summary if operation in names() else ""


def cell(tally: Tally | None) -> dict[str, Any]:
    """Return sign, state, numbers and words of one cell."""
    state = tally.state if tally else "lacks"
    sign, _ = STATES[state]
    if tally is None or state == "lacks":
        return {"state": "lacks", "sign": sign, "numbers": "", "words": "not there"}
    known = tally.counts.get("expected_failure", 0)
    words = f"{tally.counts.get('passed', 0)} of {tally.asked} cases pass"
    words += f", {tally.canonical} canonical"
    words += f", {known} fail as known" if known else ""
    words += f", {tally.failed} fail" if tally.failed else ""
    share = f"{tally.canonical}/{tally.asked}"
    return {"state": state, "sign": sign, "numbers": share, "words": words}


def details(tally: Tally) -> dict[str, Any]:
    """Return what stands behind a cell, as JSON values."""
    reasons: dict[str, list[str]] = {}
    failed: list[list[str]] = []
    for case_id, entry in tally.failing.items():
        if entry["status"] == "expected_failure":
            reasons.setdefault(entry.get("reason", ""), []).append(case_id)
        else:
            failed.append([case_id, entry["status"].replace("_", " "), entry.get("message", "")])
    return {
        "passed": tally.counts.get("passed", 0),
        "failed": tally.failed,
        "known": tally.counts.get("expected_failure", 0),
        "unasked": tally.counts.get("unsupported", 0),
        "canonical": tally.canonical,
        "asked": tally.asked,
        "ulp": f"{tally.worst_ulp:.2g}",
        "dtypes": tally.dtypes,
        "dialect": [f"{dial} = {write(value)}" for dial, value in tally.dialect.items()],
        "settings": [[name, *values] for name, values in tally.settings.items()],
        "reasons": [[reason, len(ids), ids[0]] for reason, ids in reasons.items()],
        "failures": failed[:20],
        "lacking": [[reason, len(ids)] for reason, ids in _commonest(tally)],
        "diagnosis": tally.diagnosis,
    }


def _commonest(tally: Tally) -> list[tuple[str, list[str]]]:
    counted = {
        reason: ids if ids != ["*"] else [""] * tally.cases
        for reason, ids in tally.unsupported.items()
    }
    return sorted(counted.items(), key=lambda pair: -len(pair[1]))[:8]


def totals(record: Record) -> dict[str, int]:
    """Return how many operations of an implementation have each state, and its cases."""
    count = Counter(tally.state for tally in record.operations.values())
    tallies = record.operations.values()
    return {state: count[state] for state in STATES} | {
        "cases": sum(tally.asked for tally in tallies),
        "canonical_cases": sum(tally.canonical for tally in tallies),
    }


def markdown(records: Iterable[Record]) -> str:
    """Return the matrix as a Markdown table."""
    records = list(records)
    lines = [
        _row(["operation", *(record.title for record in records)]),
        _row(["---", *(":-:" for _ in records)]),
    ]
    for name in rows(records):
        cells = [cell(record.operations.get(name)) for record in records]
        lines.append(_row([f"`{name}`", *(f"{c['sign']} {c['numbers']}".strip() for c in cells)]))
    counts = [totals(record) for record in records]
    lines.append(
        _row(
            [
                "canonical cases of those asked",
                *(f"{c['canonical_cases']}/{c['cases']}" for c in counts),
            ]
        )
    )
    legend = "\n".join(f"- {sign} {words}" for sign, words in STATES.values())
    numbers = "The numbers: canonical answers of the cases that could be asked."
    return "\n".join(lines) + f"\n\n{legend}\n\n{numbers}\n"


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def page(records: Iterable[Record]) -> str:
    """Return the matrix as one HTML page."""
    records = list(records)
    operations = rows(records)
    data = {
        "who": [{"title": record.title, "name": record.name} for record in records],
        "operations": {name: summary(name) for name in operations},
        "cells": [
            {
                name: details(record.operations[name])
                for name in operations
                if name in record.operations
            }
            for record in records
        ],
    }
    return (
        environment()
        .get_template("matrix.html")
        .render(
            suite=__version__,
            heads=[_head(record) for record in records],
            families=_families(operations, records),
            states=STATES,
            data=embedded(data),
        )
    )


def _head(record: Record) -> dict[str, Any]:
    about = record.about
    spoken = f"{about.get('language', '')} {about.get('language_version', '')}".strip()
    older = record.suite if record.suite != __version__ else ""
    return {
        "name": record.name, "version": about["version"], "spoken": spoken, "older": older,
        "link": about.get("homepage", ""), "totals": totals(record),
    }  # fmt: skip


def _families(
    operations: Iterable[str], records: Sequence[Record]
) -> list[tuple[str, list[tuple[str, str, list[dict[str, Any]]]]]]:
    families: dict[str, list[tuple[str, str, list[dict[str, Any]]]]] = {}
    for name in operations:
        prefix = name.partition(".")[0]
        cells = [cell(record.operations.get(name)) for record in records]
        families.setdefault(FAMILIES.get(prefix, prefix), []).append((name, summary(name), cells))
    return list(families.items())
