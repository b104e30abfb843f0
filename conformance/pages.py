"""Pages made from the suite itself: ``python -m conformance.pages [--check] [FOLDER]``.

``docs/mistakes.md``: every known mistake and the cases that catch it; ``docs/known-bugs.md``: bugs that were
reported in public and what catches each.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from conformance.cases import Case
from conformance.compare import differs
from conformance.operation import Expectation, Mistake, Operation, sizes
from conformance.operations import load, names

FOLDER = Path(__file__).parent.parent / "docs"
BUGS = Path(__file__).parent / "known_bugs.toml"
LARGEST = 48
"""Elements up to which a case is tried on every mistake: what catches one is seldom large."""
SHOWN = 3


@dataclass(frozen=True)
class Caught:
    """A known mistake and the float32 cases that catch it."""

    operation: str
    name: str
    description: str
    links: tuple[str, ...]
    cases: tuple[str, ...]
    asked: int


def tried(operation: Operation) -> list[Case]:
    """Return the cases that mistakes are tried on: float32, and those without tensors; small ones."""
    every = [c for c in operation.generate() if c.id.endswith("-f32") or not c.inputs]
    if not operation.attributed:
        return []  # an expectation takes seconds; its own tests try every mistake
    return [case for case in every if sizes(case.inputs) <= LARGEST]


def catches(operation: Operation, mistake: Mistake, case: Case, right: Expectation) -> bool:
    """Say whether the mistake gives something else than the oracle, by more than the tolerance."""
    try:
        return differs(operation.expect(case, oracle=mistake.oracle), right)
    except Exception:
        # A mistake need not have a meaning for every input.
        return False


def matrix(name: str) -> list[Caught]:
    """Return the mistakes of one operation with the cases that catch each."""
    operation = load(name)
    asked = tried(operation)
    right = {case.id: operation.expect(case) for case in asked}
    rows = []
    for mistake in operation.mistakes:
        found = [c.id for c in asked if catches(operation, mistake, c, right[c.id])]
        if asked and not found:
            found = _large(operation, mistake)
        about = mistake.name, mistake.description, mistake.links
        rows.append(Caught(name, *about, tuple(found), len(asked)))
    return rows


def _large(operation: Operation, mistake: Mistake) -> list[str]:
    """Return the smallest of the larger cases that catches a mistake."""
    larger = [c for c in operation.generate() if c.id.endswith("-f32")]
    for case in sorted(larger, key=lambda case: sizes(case.inputs)):
        if sizes(case.inputs) > LARGEST and catches(
            operation, mistake, case, operation.expect(case)
        ):
            return [case.id]
    return []


def mistakes(rows: Iterable[Sequence[Caught]]) -> str:
    """Return the page of known mistakes."""
    tables = [list(row) for row in rows]
    count = sum(map(len, tables))
    text = [
        "# Known mistakes",
        "",
        "Made by `python -m conformance.pages`; do not edit.",
        "",
        f"{count} behaviours that are wrong by anyone's definition, each an oracle that is wrong on purpose."
        " The suite is tried on all of them: at least one case in float32 catches each. The number is of the"
        " small float32 cases of the operation that do; some are named.",
    ]
    for table in tables:
        if not table:
            continue
        text += [
            "",
            f"## {table[0].operation}",
            "",
            "| mistake | caught by | such as |",
            "|---|---:|---|",
        ]
        for row in table:
            links = "".join(f" {_link(link)}" for link in row.links)
            named = ", ".join(f"`{case}`" for case in row.cases[:SHOWN])
            caught = f"{len(row.cases)} of {row.asked}" if row.asked else "its own tests"
            text.append(f"| **{row.name}**: {_cell(row.description)}{links} | {caught} | {named} |")
    return "\n".join(text) + "\n"


def _link(link: str) -> str:
    found = re.fullmatch(r"([\w.-]+/[\w.-]+)#(\d+)", link)
    if found:
        return f"[{link}](https://github.com/{found[1]}/issues/{found[2]})"
    return f"[source]({link})" if link.startswith("https://") else f"({link})"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


# --- bugs that were reported in public --------------------------------------------------------


@dataclass
class Bug:
    """A bug that was reported in public."""

    thread: str
    project: str
    also: tuple[str, ...] = ()
    caught: list[str] = field(default_factory=list)
    """``operation: mistake|flag|dial|case name``."""
    why_not: str = ""
    note: str = ""


def bugs(path: Path = BUGS) -> list[Bug]:
    """Return the bugs of the data file, with what links their threads and what the file names.

    Raises:
        ValueError: an entry has an unknown key.
    """
    linked = _linked()
    found = []
    for thread, entry in tomllib.loads(path.read_text(encoding="utf-8")).items():
        if unknown := entry.keys() - {"in", "also", "caught", "why_not", "note"}:
            raise ValueError(f"{path.name}: {thread}: unknown key {sorted(unknown)[0]}")
        bug = Bug(
            thread, entry["in"], tuple(entry.get("also", ())),
            list(entry.get("caught", ())), entry.get("why_not", ""), entry.get("note", ""),
        )  # fmt: skip
        for each in (thread, *bug.also):
            bug.caught += [what for what in linked.get(each.lower(), ()) if what not in bug.caught]
        found.append(bug)
    return found


def _linked() -> dict[str, list[str]]:
    """Return what links each public thread: mistakes and flags, as a :class:`Bug` names them."""
    found: dict[str, list[str]] = {}
    for name in names():
        operation = load(name)
        entries: list[tuple[str, Any]] = [
            (f"mistake {m.name}", m.links) for m in operation.mistakes
        ]
        entries += [(f"flag {flag}", about.links) for flag, about in operation.flags.items()]
        for what, links in entries:
            for link in links:
                thread = re.sub(
                    r"https://github.com/([\w.-]+/[\w.-]+)/(?:issues|pull)/", r"\1#", link
                )
                found.setdefault(thread.lower(), []).append(f"{name}: {what}")
    return found


def exists(what: str) -> bool:
    """Say whether there is such a mistake, flag, dial or case: ``operation: kind name``."""
    name, _, rest = what.partition(": ")
    kind, _, word = rest.partition(" ")
    operation = load(name)
    there: dict[str, Iterable[str]] = {
        "mistake": (m.name for m in operation.mistakes),
        "flag": operation.flags,
        "dial": (d.name for d in operation.all_dials),
        "case": (c.id for c in operation.generate()) if kind == "case" else (),
    }
    return word in there.get(kind, ())


def known_bugs(found: Sequence[Bug]) -> str:
    """Return the page of bugs that were reported in public."""
    caught = [bug for bug in found if not bug.why_not]
    beyond = [bug for bug in found if bug.why_not]
    text = [
        "# Bugs that others met, and what catches them here",
        "",
        "Made by `python -m conformance.pages`; do not edit. Of"
        f" {len(found)} bugs and divergences reported in public, the suite catches {len(caught)}. What a"
        " project's own thread says is behind its link.",
        "",
        "| reported in | thread | caught by |",
        "|---|---|---|",
    ]
    for bug in caught:
        by = _gathered(bug.caught)
        note = f" ({bug.note})" if bug.note else ""
        text.append(f"| {_cell(bug.project)} | {_threads(bug)} | {by}{note} |")
    text += ["", "## Beyond the suite", "", "| reported in | thread | why |", "|---|---|---|"]
    text += [f"| {_cell(b.project)} | {_threads(b)} | {_cell(b.why_not)} |" for b in beyond]
    return "\n".join(text) + "\n"


def _threads(bug: Bug) -> str:
    return ", ".join(_link(t) if "#" in t else t for t in (bug.thread, *bug.also))


def _gathered(caught: Sequence[str]) -> str:
    """Return what catches a bug, by kind and name, with the operations that have it."""
    by: dict[str, list[str]] = {}
    for what in caught:
        name, _, rest = what.partition(": ")
        by.setdefault(rest, []).append(name)
    words = []
    for rest, operations in by.items():
        kind, _, name = rest.partition(" ")
        more = f" and {len(operations) - 2} more" if len(operations) > 2 else ""
        words.append(f"{kind} *{name}* of {', '.join(f'`{o}`' for o in operations[:2])}{more}")
    return "; ".join(words[:6]) + ("; …" if len(words) > 6 else "")


def pages() -> dict[str, str]:
    """Return every page by file name."""
    with ProcessPoolExecutor() as pool:
        return {
            "mistakes.md": mistakes(pool.map(matrix, names())),
            "known-bugs.md": known_bugs(bugs()),
        }


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=FOLDER)
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 if a page would change.")
def main(folder: Path, check: bool) -> None:
    """Make the pages."""
    folder.mkdir(parents=True, exist_ok=True)
    stale = []
    for name, text in pages().items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if not check:
                path.write_text(text, encoding="utf-8")
        click.echo(f"{name}: {'changed' if name in stale else 'unchanged'}", err=True)
    if check and stale:
        click.echo(f"out of date: {', '.join(stale)}; run: python -m conformance.pages", err=True)
        raise SystemExit(1)


if __name__ == "__main__":
    main()
