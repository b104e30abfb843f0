"""Make mutants of ``refimpl``, ask the suite about each, and write docs/mutation.md.

A verdict is kept in build/ for as long as the function, as mutated, is the same. What was killed stays
killed; what survived is asked about again, since the suite may have grown.
"""

from __future__ import annotations

import argparse
import fnmatch
import gc
import importlib.metadata
import json
import sys
import time
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from mutation import mutants, page, run
from mutation.mutants import Mutant

VERDICTS = mutants.FOLDER.parent / "verdicts.jsonl"
EVERYTHING = ["*"]


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m mutation", description=__doc__)
    add = parser.add_argument
    add("--jobs", type=int, default=1, help="mutants asked about at a time")
    add("--functions", nargs="+", default=EVERYTHING, help="globs of module.function: only these")
    add("--operations", nargs="+", default=EVERYTHING, help="globs of the operations asked")
    add("--each", type=int, help="about how many cases of a setting; default: all")
    add("--most", type=int, default=1500, help="questions about a mutant; default: 1500")
    add(
        "--unexplained",
        action="store_true",
        help="nothing about those that are explained as equivalent",
    )
    add("--page", action="store_true", help="ask nothing: the page of the verdicts that are kept")
    options = parser.parse_args()

    made = mutants.make(options.jobs)
    verdicts = kept()
    asked = [
        mutant
        for mutant in made
        if matches(f"{mutant.module}.{mutant.function}", options.functions)
        and not mutant.message_only
        and verdicts.get(mutant.digest) != run.KILLED
    ]
    if options.unexplained:
        survivors = {m.key for m in asked if verdicts.get(m.digest) == run.SURVIVED}
        alike = page.equivalent(survivors)
        asked = [m for m in asked if m.key not in alike or m.digest not in verdicts]
    if not options.page:
        say(f"{len(made):,} mutants, {len(asked):,} of them to be asked about")
        ask(asked, options.operations, options.each, options.most, options.jobs)
    whole = options.functions == options.operations == EVERYTHING and options.each is None
    if options.page or whole:
        page.write(found(made, kept(), options.most))


def matches(name: str, globs: Sequence[str]) -> bool:
    """Say whether any of the patterns is of a name."""
    return any(fnmatch.fnmatch(name, glob) for glob in globs)


def say(text: str) -> None:
    """Print a line of progress."""
    print(text, file=sys.stderr, flush=True)


def kept() -> dict[str, str]:
    """Return the verdicts of earlier runs by digest."""
    if not VERDICTS.exists():
        return {}
    lines = VERDICTS.read_text(encoding="utf-8").splitlines()
    return {entry["digest"]: entry["verdict"] for entry in map(json.loads, lines)}


def ask(
    asked: Sequence[Mutant], operations: Sequence[str], each: int | None, most: int, jobs: int
) -> None:
    """Ask the suite about mutants, and keep the verdicts."""
    run.prepare()
    warnings.simplefilter("ignore")
    from mutation.judge import judged

    suite = run.Suite([name for name in judged() if matches(name, operations)], each, say)
    say(f"{len(suite.trials):,} questions, {sum(suite.seconds):.0f} s")
    # What the collector writes to would be copied for every child.
    gc.collect()
    gc.freeze()
    began = time.monotonic()
    with VERDICTS.open("a", encoding="utf-8") as out:
        for count, (mutant, verdict) in enumerate(run.ask(suite, asked, most, jobs), 1):
            entry = {"digest": mutant.digest, "verdict": verdict, "mutant": mutant.id}
            out.write(json.dumps(entry) + "\n")
            out.flush()
            if count % 100 == 0:
                say(f"{count:,} of {len(asked):,} after {time.monotonic() - began:.0f} s")


def found(made: Sequence[Mutant], verdicts: Mapping[str, str], most: int) -> dict[str, Any]:
    """Return what is kept of a run: numbers for each module, and the mutants that survived."""
    modules: dict[str, Counter[str]] = {}
    survivors = []
    for mutant in made:
        counted = modules.setdefault(mutant.module, Counter())
        counted["mutants"] += 1
        verdict = "message_only" if mutant.message_only else verdicts.get(mutant.digest, "unasked")
        if verdict == run.SURVIVED:
            survivors.append(mutant.key)
        else:
            counted[verdict] += 1
    return {
        "mutmut": importlib.metadata.version("mutmut"),
        "most": most,
        "modules": {name: dict(sorted(counted.items())) for name, counted in modules.items()},
        "survivors": sorted(survivors),
    }


if __name__ == "__main__":
    main()
