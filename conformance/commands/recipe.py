"""``secateurs recipe``: the articles' systems, and the same through PyTorch and TensorFlow."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from conformance.commands.common import DIFFERENT, NOT_STARTED, Failure, program

FRAMEWORKS = ("torch", "tensorflow")
DIALECTS = {
    "torch": {"clip.global_norm": {"eps_at": "denominator", "eps": 1e-6}},
    "tensorflow": {
        "optim.adam": {"eps_at": "before_bias_correction", "hyperparameters": "float32"},
        "optim.sgd": {"momentum_form": "lr_inside", "hyperparameters": "float32"},
    },
}
"""The conventions that a framework documents; refimpl repeats the run in them."""
FRAMEWORK_CLAIMS = {
    "A1": ("assign",),
    "A2": ("if-tensor",),
    "A3": ("parameters", "grad"),
    "A5": ("constraints",),
}
"""Claims that only a run of the framework itself can show (``adapters/_recipes_claims.py``)."""


@click.command(
    "recipe",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
@click.option("--with", "frameworks", multiple=True, type=click.Choice(FRAMEWORKS))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def recipe(frameworks: Sequence[str], arguments: tuple[str, ...]) -> int:
    """Run a system that an article describes, A1 to A5; ``secateurs recipe --help`` lists the options.

    ``--with torch`` or ``--with tensorflow`` repeats a short run of the recipe in that framework, from the same
    parameters and batches, and compares every step. The suite imports nothing of refimpl, so a recipe runs in
    a process of its own.
    """
    if frameworks:
        return _twins(frameworks, arguments)
    name = next((a.upper() for a in arguments if not a.startswith("-")), "")
    if "--claim" in arguments[:-1]:
        claim = arguments[arguments.index("--claim") + 1]
        if claim in FRAMEWORK_CLAIMS.get(name, ()):
            return program("adapters._recipes_claims", name, claim)
    code = program("refimpl", "recipe", *arguments)
    if not arguments or "--help" in arguments or "-h" in arguments:
        click.echo(
            "\n--with torch|tensorflow  repeat a short run in that framework, compare every step"
        )
    return code


def _twins(frameworks: Sequence[str], arguments: Sequence[str]) -> int:
    # NumPy and the oracle are loaded only by those who compare.
    from conformance import recipes

    worst = 0
    with tempfile.TemporaryDirectory() as folder:
        script, other = Path(folder, "script.npz"), Path(folder, "answer.npz")
        for framework in frameworks:
            dialect = json.dumps(DIALECTS[framework])
            own = ("recipe", *arguments, "--script", str(script), "--dialect", dialect)
            code = program("refimpl", *own)
            if code:
                return code
            if program("adapters._recipes", framework, str(script), str(other)):
                raise Failure(f"{framework} could not be run", NOT_STARTED)
            rows = recipes.compare(recipes.load(script), recipes.load(other), _progress)
            worst = max(worst, _show(framework, rows))
    click.echo(recipes.TOLERANCE)
    return worst


def _show(framework: str, rows: Sequence[Any]) -> int:
    steps = [r for r in rows if ", step " in r.name]
    ends = [r for r in rows if ", step " not in r.name]
    click.echo(f"refimpl and {framework}: {len(steps) // 2} steps, {len(ends)} arrays at the end")
    click.echo(f"{'':20s}{'difference':>12s}{'tolerance':>12s}")
    shown = [r for r in rows if not r.agrees] + [
        max(group, key=lambda r: r.difference / (r.tolerance or 1e-300))
        for group in ([r for r in steps if r.name.startswith(kind)] for kind in ("loss", "total"))
        if group
    ]
    for row in [*shown, *(r for r in ends if r.agrees)]:
        verdict = "" if row.agrees else "  DIFFERS"
        click.echo(f"{row.name:20s}{row.difference:12.1e}{row.tolerance:12.1e}{verdict}")
    return 0 if all(r.agrees for r in rows) else DIFFERENT


def _progress(line: str) -> None:
    if sys.stderr.isatty():
        click.echo(f"\r\033[K{line}", nl=False, err=True)
