"""The articles' pages: ``python -m conformance.articles`` writes ``docs/articles/A1.md`` … ``A5.md``.

Each number on a page comes from a run with a fixed seed, which a reader can repeat with the command beside
it. Runs are programs of their own; this module only lays out what they print as JSON.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from conformance.commands.common import write_whole

ARTICLES = ("A1", "A2", "A3", "A4", "A5")
FOLDER = Path(__file__).parent.parent / "docs" / "articles"
NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")
SUMMARIES = {
    "A1": "Train; at every step, weights whose gradient has a magnitude below a threshold ε are set to "
    "zero, or multiplied by 1 - α; then take the ordinary step θ ← θ - η∇L(θ).",
    "A2": "Clip gradients while training a small CNN: g if |g| ≤ c, else c·g/|g|. Prune afterwards: w if "
    "|w| > ε, else 0. Choose ε on validation data, compare the accuracy before and after.",
    "A3": "Scale the gradient to the norm ε where it is longer: g if ‖g‖ ≤ ε, else ε·g/‖g‖; then w ← w - αg.",
    "A4": "Train a dense network, compute the gradient of every neuron, prune the neurons with |g| < T, "
    "measure, train again.",
    "A5": "Clip to [-c/2, c/2] and minimise the mean squared error plus λ‖w‖₁, or plus λ‖w‖₂².",
}


def page(article: str, report: dict[str, Any], claims: Sequence[dict[str, Any]]) -> str:
    """Return a page as Markdown."""
    parts = [
        f"# {report['title']}",
        f"What the article describes: {SUMMARIES[article]}",
        "Every number below is of a run on the embedded digits with fixed seeds. This page is written by "
        f"`python -m conformance.articles {article}`; another processor or NumPy may change last digits.",
        "## What is measured",
        f"`secateurs recipe {article}` (`--with torch --with tensorflow` repeats a short run in these "
        "frameworks, step by step)",
        *report["notes"],
        *(table(t) for t in report["tables"]),
        "## What the article says, and what is so",
    ]
    for claim in claims:
        parts += [
            f"### {claim['name']}",
            f"> {claim['said']}\n\n{claim['truth']}",
        ]
        if claim["command"]:
            parts.append(f"`{claim['command']}`")
        parts += claim["notes"]
        parts += [table(t) for t in claim["tables"]]
    return "\n\n".join(parts) + "\n"


def table(found: dict[str, Any]) -> str:
    """Return a table as Markdown."""
    lines = [found["header"], ["---", *["---:"] * (len(found["header"]) - 1)], *found["cells"]]
    text = "\n".join("| " + " | ".join(escaped(c) for c in cells) + " |" for cells in lines)
    return f"{found['title']}\n\n{text}" if found["title"] else text


def escaped(cell: str) -> str:
    """Return a cell whose bars do not end it."""
    return cell.replace("|", "\\|")


def generate(article: str) -> str:
    """Run everything of an article; return its page."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "page.json")
        _run("refimpl", "recipe", article, "--page", str(target))
        found = json.loads(target.read_text(encoding="utf-8"))
    answers = json.loads(_run("adapters._recipes_claims", article, "--json"))
    for claim in found["claims"]:
        if claim["name"] in answers:
            framework, text, _ = answers[claim["name"]]
            claim["notes"] = [f"{framework}: {text}"]
    return page(article, found["report"], found["claims"])


def same(one: str, other: str, relative: float = 0.05, absolute: float = 3.0) -> bool:
    """Say whether two pages have the same words, and numbers that are near each other.

    ``absolute`` is in the units of the page, percent for most; a count may differ by ``relative``.
    """
    if NUMBER.sub("#", one) != NUMBER.sub("#", other):
        return False
    pairs = zip(NUMBER.findall(one), NUMBER.findall(other), strict=True)
    numbers = ((float(a.replace(",", "")), float(b.replace(",", ""))) for a, b in pairs)
    return all(abs(a - b) <= max(absolute, relative * max(abs(a), abs(b))) for a, b in numbers)


def _run(module: str, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments], check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def main(chosen: Sequence[str]) -> int:
    """Write the pages of the given articles, or of all."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for article in chosen or ARTICLES:
        write_whole(FOLDER / f"{article}.md", generate(article))
        print(FOLDER.name, article, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
