"""docs/mutation.md: what survived, and why; from ``results.json`` and ``survivors.toml``."""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results.json"
SURVIVORS = FOLDER / "survivors.toml"
PAGE = FOLDER.parent / "docs" / "mutation.md"

HEADER = """# Systematic mutation

Made by `make mutants`; do not edit.

[mutmut]({link}) {version} makes {made:,} small changes to the canonical code, one at a time: an operator,
a number, an argument, a comparison. The conformance suite alone is asked about each, none of refimpl's own
tests: canonically, in each dialect and with each dial set by itself, of the fast forms on NumPy arrays, of
the readable ones, and of these on the arrays of array-api-strict on a device that is not the default one;
of convolutions and training runs, whose fast form takes a model's first layers together, also with limits so
small that images, sums and threads divide the work.
Questions that reach the changed function are put until an answer is wrong, {most:,} of them at most.

{asked:,} mutants change more than a message and are reached. {equivalent:,} of them change nothing that can be
asked: they survive, and the reason is below. Of the other {others:,} the suite notices **{killed:,},
{share:.2f} %**.{open}{unasked}

| module | mutants | of a message only | reached by no question | equivalent | killed | survived | share |
|---|---:|---:|---:|---:|---:|---:|---:|
"""


def write(results: Mapping[str, Any]) -> None:
    """Keep what a whole run found, and make the page of it."""
    RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    PAGE.write_text(page(results), encoding="utf-8")


@dataclass(frozen=True)
class Explained:
    """Mutants that survive for one reason."""

    reason: str
    equivalent: bool
    mutants: tuple[str, ...]


def explanations(survivors: Collection[str]) -> list[Explained]:
    """Return the reasons of ``survivors.toml`` with the mutants that each is of.

    A reason names its mutants, or gives patterns of the change (``- old``, newline, ``+ new``) that hold
    for all of its kind that no reason names.

    Raises:
        ValueError: a reason is of a mutant that does not survive, or a mutant has two.
    """
    result, left, stale = _assigned(survivors)
    if stale:
        raise ValueError(f"survivors.toml explains twice, or what does not survive: {stale[0]!r}")
    return [*result, Explained("Not explained.", False, tuple(left))] if left else result


def equivalent(survivors: Collection[str]) -> set[str]:
    """Return those of the mutants that ``survivors.toml`` calls equivalent."""
    result, _, _ = _assigned(survivors)
    return {key for entry in result if entry.equivalent for key in entry.mutants}


def _assigned(survivors: Collection[str]) -> tuple[list[Explained], list[str], list[str]]:
    """Return the reasons with their mutants, those that have none, and what is said of no survivor."""
    entries = tomllib.loads(SURVIVORS.read_text(encoding="utf-8"))["reason"]
    named = Counter(key for entry in entries for key in entry.get("mutants", ()))
    stale = [key for key, times in named.items() if key not in survivors or times > 1]
    left = sorted(set(survivors) - set(named))
    result = []
    for entry in entries:
        mine = list(entry.get("mutants", ()))
        for pattern in entry.get("patterns", ()):
            matching = [key for key in left if re.fullmatch(pattern, key.partition(": ")[2])]
            left = [key for key in left if key not in matching]
            mine += matching
            stale += [] if matching else [pattern]
        result.append(Explained(entry["reason"], entry["equivalent"], tuple(sorted(mine))))
    return result, left, stale


def page(results: Mapping[str, Any]) -> str:
    """Return the page as Markdown."""
    survivors = Counter(results["survivors"])
    explained = explanations(survivors)
    equivalent = {key for entry in explained if entry.equivalent for key in entry.mutants}

    rows, total = [], Counter[str]()
    for module, found in results["modules"].items():
        mine = {k: n for k, n in survivors.items() if k.startswith(f"{module}.")}
        counts = Counter[str](
            found,
            equivalent=sum(n for k, n in mine.items() if k in equivalent),
            survived=sum(n for k, n in mine.items() if k not in equivalent),
        )
        total += counts
        rows.append(_row(f"`{module}`", counts))
    rows.append(_row("together", total))
    others = total["killed"] + total["survived"]
    head = HEADER.format(
        link="https://github.com/boxed/mutmut",
        version=results["mutmut"],
        most=results["most"],
        made=total["mutants"],
        asked=total["mutants"] - sum(total[k] for k in ("message_only", "unreached", "unasked")),
        equivalent=total["equivalent"],
        others=others,
        killed=total["killed"],
        share=100 * total["killed"] / others,
        open=f" The {total['survived']} left are below too." if total["survived"] else "",
        unasked=f" {total['unasked']:,} were not asked about." if total["unasked"] else "",
    )
    parts = [head + "\n".join(rows) + "\n"]
    for title, wanted in (("Survived", False), ("Equivalent", True)):
        entries = [entry for entry in explained if entry.equivalent is wanted]
        parts += [f"## {title}\n"] if entries else []
        parts += [_section(entry, survivors) for entry in entries]
    return "\n".join(parts)


def _row(name: str, counts: Mapping[str, int]) -> str:
    columns = ("mutants", "message_only", "unreached", "equivalent", "killed", "survived")
    others = counts["killed"] + counts["survived"]
    share = f"{100 * counts['killed'] / others:.1f} %" if others else ""
    return (
        f"| {name} | " + " | ".join(f"{counts[column]:,}" for column in columns) + f" | {share} |"
    )


def _section(entry: Explained, survivors: Mapping[str, int]) -> str:
    lines = []
    for key in entry.mutants:
        function, _, change = key.partition(": ")
        times = f", {survivors[key]} times" if survivors[key] > 1 else ""
        lines.append(f"# {function}{times}\n{change}")
    return f"{entry.reason}\n\n```diff\n" + "\n".join(lines) + "\n```\n"
