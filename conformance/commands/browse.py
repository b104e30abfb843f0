"""``secateurs list``, ``explain`` and ``show``: what the suite knows, in words and decimals."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.text import Text

from conformance import fixtures, participants, recorded
from conformance.cases import Case
from conformance.commands.common import Failure, debug_option, near
from conformance.commands.snippet import snippet
from conformance.compare import show as decimal
from conformance.formats import Tensor, name_of
from conformance.operation import Expectation, Operation, Setting, leaves, map_tensors, write
from conformance.operations import load, names


class _Page:
    """Headings and hanging paragraphs that fit 80 to 100 columns."""

    def __init__(self) -> None:
        console = Console(highlight=False)
        width = max(60, min(console.width, 100)) if console.is_terminal else 80
        self.console = Console(highlight=False, width=width)

    def heading(self, text: str) -> None:
        self.console.print(Text("\n" + text, style="bold"))

    def entry(self, label: str, text: str = "", indent: int = 2) -> None:
        """Print ``label  text``, the text wrapped under itself."""
        hang = indent + (max(len(label) + 2, 18) if label else 0)
        if hang > 34 and text:
            self.console.print(Text(" " * indent + label), soft_wrap=True)
            label, hang = "", indent + 4
        lines = Text(text).wrap(self.console, max(self.console.width - hang, 20)) or [Text("")]
        for i, line in enumerate(lines):
            line.rstrip()
            lead = (" " * indent + label).ljust(hang) if not i else " " * hang
            self.console.print(Text((lead + line.plain).rstrip()), soft_wrap=True)

    def verbatim(self, text: str) -> None:
        """Print text that is meant to be copied: never wrapped."""
        self.console.print(Text(text), soft_wrap=True)


@click.command("list")
@debug_option
def list_all() -> None:
    """List operations, adapters and dialects."""
    page = _Page()
    page.console.print(Text("operations", style="bold"))
    dialects: dict[str, list[str]] = {}
    for name in names():
        operation = load(name)
        page.entry(name.ljust(24), operation.summary)
        for dialect in operation.dialects:
            dialects.setdefault(dialect, []).append(name)
    page.heading("adapters")
    for name, module in participants.adapters().items():
        page.entry(name, f"{participants.place(name, module)} ({module})")
    page.heading("dialects")
    for dialect, operations in sorted(dialects.items()):
        page.entry(dialect, ", ".join(operations))


@click.command()
@click.argument("operation_id", metavar="OPERATION")
@debug_option
def explain(operation_id: str) -> None:
    """Explain an operation: formula, constraints, dials, tolerance, mistakes, and who uses which setting."""
    try:
        operation = load(operation_id)
    except KeyError:
        raise Failure(f"no operation {operation_id!r}{near(operation_id, names())}") from None
    page = _Page()
    page.console.print(Text(operation.id, style="bold"))
    page.entry("", operation.summary)
    page.entry("", operation.formula)
    for heading, tensors in (("inputs", operation.inputs), ("outputs", operation.outputs)):
        page.heading(heading)
        for name, text in tensors.items():
            page.entry(name, text)
    page.heading("parameters")
    for param in operation.params:
        default = "required" if param.required else f"default {param.default}"
        page.entry(param.name, f"{param.doc} ({default})")
    page.heading("constraints")
    for label, text in operation.constraints.items():
        page.entry(label, text)
    page.heading("dials (the canonical setting first)")
    for dial in operation.all_dials:
        settings = " | ".join(write(value) for value in (dial.default, *dial.others))
        page.entry(dial.name, f"{settings}: {dial.doc}")
    page.heading("who uses which setting")
    _users(page, operation)
    page.heading("tolerance")
    page.entry("", operation.tolerance_why)
    page.heading("known mistakes")
    for mistake in operation.mistakes:
        links = f" ({', '.join(mistake.links)})" if mistake.links else ""
        page.entry(mistake.name, mistake.description + links)
    page.heading("sources")
    for source in operation.sources:
        page.entry("", source)


def _users(page: _Page, operation: Operation) -> None:
    """Print, for each dial that somebody sets otherwise, who does; and who is canonical throughout."""
    told = [r for r in recorded.shipped().values() if operation.id in r.operations]
    settings: dict[str, Setting] = {
        r.name: r.operations[operation.id].dialect for r in told if r.operations[operation.id].asked
    }
    names = {record.name for record in told}
    settings |= {n: s for n, s in operation.dialects.items() if n not in names}
    for dial in operation.all_dials:
        by_value: dict[str, list[str]] = {write(dial.default): []}
        for name, setting in settings.items():
            by_value.setdefault(write(setting.get(dial.name, dial.default)), []).append(name)
        canonical = by_value.pop(write(dial.default))
        if by_value:
            texts = [f"{value}: {', '.join(who)}" for value, who in sorted(by_value.items())]
            same = [f"{write(dial.default)} (canonical): {', '.join(canonical)}"]
            page.entry(dial.name, "; ".join(texts + (same if canonical else [])))
    plain = [name for name, setting in settings.items() if operation.key(setting) == "canonical"]
    page.entry("canonical in all", ", ".join(plain) or "nobody")
    lacking = [r.name for r in told if not r.operations[operation.id].asked]
    page.entry("without it", ", ".join(lacking) or "nobody")
    page.entry("on record", ", ".join(record.title for record in told) or "nobody")


@click.command()
@click.argument("case_id", metavar="CASE")
@debug_option
def show(case_id: str) -> None:
    """Show a case, named by its full id or the end of it: inputs, what is expected, and why."""
    case = _find(case_id)
    operation = load(case.operation)
    page = _Page()
    page.console.print(Text(case.full_id, style="bold"))
    page.entry("", operation.summary)
    page.heading("inputs")
    _tensors(page, case.inputs)
    page.heading("parameters")
    for name, value in case.params.items():
        page.entry(name, json.dumps(value, default=repr))
    page.heading("tests")
    for label in case.constraints:
        page.entry(label, operation.constraints.get(label, ""))
    for name in case.flags:
        flag = operation.flags.get(name)
        if flag:
            links = f" {' '.join(flag.links)}" if flag.links else ""
            page.entry(flag.kind, f"{name}: {flag.description}{links}")
    page.heading("expected")
    for title, setting, expectation in _expectations(operation, case):
        page.console.print(Text(f"  {title}", style="italic"))
        if expectation is None:
            page.entry("", "the same as canonical", indent=4)
            continue
        if setting:
            differs_by = fixtures.divergence(operation, case, setting)
            why = (
                f"differs by {differs_by.replace(' ', ' and ')}"
                if differs_by
                else "differs in rounding"
            )
            page.entry("", why, indent=4)
        if expectation.rejects is not None:
            page.entry("refused", expectation.rejects, indent=4)
        else:
            tensors = map_tensors(lambda leaf: leaf.tensor, expectation.outputs)
            ulps = {path: leaf.ulp for path, leaf in leaves(expectation.outputs) if leaf}
            _tensors(page, tensors, ulps)
    page.heading("tolerance")
    page.entry("", operation.tolerance_why)
    page.heading("in Python")
    page.verbatim(snippet(case))


def _expectations(
    operation: Operation, case: Case
) -> Iterator[tuple[str, Setting, Expectation | None]]:
    """Yield who expects what; None where it is what the canonical setting gives."""
    yield "canonical", {}, fixtures.expectation(operation, case, {})
    frozen = case.frozen.get("expected", {})
    for name, setting in operation.dialects.items():
        key = operation.key(setting)
        same = key == "canonical" or frozen.get(key, {}).get("same_as") == "canonical"
        yield name, setting, None if same else fixtures.expectation(operation, case, setting)


def _tensors(page: _Page, tree: Any, ulps: dict[str, int] | None = None) -> None:
    found = False
    indent = 2 if ulps is None else 4
    for path, tensor in leaves(tree):
        found = True
        if tensor is None:
            page.entry(path, "absent", indent)
            continue
        if not isinstance(tensor, np.ndarray):
            page.entry(path, json.dumps(tensor, default=repr), indent)
            continue
        within = ""
        if ulps is not None:
            within = ", exactly" if ulps.get(path) == 0 else f", within {ulps.get(path)} ULP"
        page.entry(path, f"{_type(tensor)} {_values(tensor)}{within}", indent)
    if not found:
        page.entry("", "no tensors", indent)


def _type(tensor: Tensor) -> str:
    return f"{name_of(tensor.dtype)} {list(tensor.shape)}"


def _values(tensor: Tensor) -> str:
    if tensor.size > 64:
        head = ", ".join(decimal(value) for value in tensor.ravel()[:8])
        return f"[{head}, … {tensor.size} elements]"
    return _nested(tensor)


def _nested(tensor: Tensor) -> str:
    if tensor.ndim == 0:
        return decimal(tensor[()])
    return f"[{', '.join(_nested(row) for row in tensor)}]"


def _find(wanted: str) -> Case:
    full = [name for name in names() if wanted.startswith(f"{name}/")]
    found: list[tuple[str, str]] = []
    every: list[str] = []
    for name in full or names():
        for case_id in _ids(name):
            every.append(f"{name}/{case_id}")
            if wanted in (every[-1], case_id):
                found.insert(0, (name, case_id))
            elif every[-1].endswith(wanted):
                found.append((name, case_id))
    exact = [pair for pair in found if wanted in (pair[1], "/".join(pair))]
    candidates = exact or found
    if not candidates:
        raise Failure(f"no case {wanted!r}{near(wanted, sorted(set(_short(every))))}")
    if len(candidates) > 1:
        some = ", ".join("/".join(pair) for pair in candidates[:3])
        more = ", …" if len(candidates) > 3 else ""
        raise Failure(f"{wanted!r} is the end of {len(candidates)} cases: {some}{more}")
    name, case_id = candidates[0]
    return next(case for case in fixtures.read(load(name)) if case.id == case_id)


def _short(ids: Iterable[str]) -> Iterator[str]:
    return (full_id.partition("/")[2] for full_id in ids)


def _ids(name: str) -> list[str]:
    """Return the ids in a fixture file without decoding its tensors; none if it is not there."""
    try:
        document = json.loads((fixtures.FOLDER / f"{name}.json").read_text(encoding="utf-8"))
        return [str(entry["id"]) for entry in document["cases"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []
