"""The table of corner cases that every page on clipping has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from adapters.study.cases import NAMES, case, number, setting_of
from adapters.study.clips import listed
from adapters.study.model import Choice, Fill, Table
from adapters.study.numbers import exact, ulp_words, ulps
from conformance.operation import Setting
from refimpl import norms

Clip = Callable[[list[Any], float, Setting | None], tuple[list[Any], Any]]


def fill(
    operation: str, rows: Sequence[tuple[str, str]], clip: Clip, limit: str
) -> Callable[[Choice], Fill]:
    """Return the fill of a stage that shows fixture cases under one library's conventions."""

    def filled(choice: Choice) -> Fill:
        setting = setting_of(operation, choice)
        made, states, off = [], [], 0
        for name, case_id in rows:
            chosen = case(f"{operation}/{case_id}-f32")
            g, c = list(chosen.inputs["grads"]), number(chosen.params[limit])
            wanted, got = answer(clip, g, c, {}), answer(clip, g, c, setting)
            apart = distance(got, wanted)
            off += apart != "same bits"
            theirs = (shown(got), apart) if setting else ()
            limits = exact(np.float32(c))
            made.append((f"{name}: `{case_id}-f32`", listed(g, 3), limits, shown(wanted), *theirs))
            states.append("" if apart == "same bits" else "bad")
        who = NAMES[choice["dialect"]]
        beside = (who, "difference") if setting else ()
        heads = ("what", "gradient", "threshold", "canonical", *beside)
        says = (
            "The canonical answers. Choose a library to see its own beside them."
            if not setting
            else f"{who} parts from the canonical answer in {off} of {len(rows)} rows."
        )
        table = Table("Corner cases", heads, tuple(made), tuple(states))
        return Fill(*_scaled_root(operation), says, (table,))

    return filled


def _scaled_root(operation: str) -> tuple[str, dict[str, str]]:
    """Return the norm of the gradient whose squares overflow, with its numbers."""
    grads = case(f"{operation}/square-overflow-f32").inputs["grads"]
    found = norms.scaled_norm(grads, norms.NormClip(1.0))
    assert found.scale is not None  # its squares overflow
    a, b = (exact(value * found.scale) for value in grads[0])
    exponent = exact(int(np.log2(found.scale)))
    values = {"a": a, "b": b, "e": exponent, "n": exact(found.norm)}
    return r"n = \frac{\sqrt{«a»^2 + «b»^2}}{2^{«e»}} = «n»", values


def answer(clip: Clip, grads: list[Any], c: float, setting: Setting) -> list[Any] | str:
    """Return the clipped gradients, or the words of a refusal."""
    try:
        return clip(grads, c, setting)[0]
    except ValueError as refusal:
        return str(refusal)


def distance(got: list[Any] | str, wanted: list[Any] | str) -> str:
    """Return how far two answers are apart, in words."""
    if isinstance(got, str) or isinstance(wanted, str):
        refused = isinstance(got, str), isinstance(wanted, str)
        return "same bits" if all(refused) else "refused" if refused[0] else "not refused"
    return ulp_words(max((ulps(a, b) for a, b in zip(got, wanted, strict=True)), default=0.0))


def shown(answered: list[Any] | str) -> str:
    """Return an answer in one line."""
    return f"refused: {answered}" if isinstance(answered, str) else listed(answered, 3)
