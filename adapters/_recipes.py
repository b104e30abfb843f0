"""The articles' recipes through a framework: a script is read, run step by step, and answered.

``python -m adapters._recipes torch SCRIPT.npz ANSWER.npz``. What a script holds says
:mod:`refimpl.recipes.script`; nothing of refimpl is imported here.
"""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

NOT_INSTALLED = 3


@dataclass(frozen=True)
class Script:
    """A run: its description, the initial parameters, and each step's examples and targets."""

    description: dict[str, Any]
    params: list[Any]
    x: list[Any]
    targets: list[Any]
    score: tuple[Any, Any] | None


def load(path: Path) -> Script:
    """Read a script; ValueError for a file that is none."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        description = json.loads(str(arrays["description"]))
    except Exception as error:
        raise ValueError(f"{path} is damaged or no script: {error}") from None

    def numbered(name: str) -> list[Any]:
        count = sum(key.startswith(f"{name}.") for key in arrays)
        return [arrays[f"{name}.{i}"] for i in range(count)]

    score = (arrays["score.x"], arrays["score.targets"]) if "score.x" in arrays else None
    return Script(description, numbered("params"), numbered("x"), numbered("targets"), score)


def answer(losses: list[Any], norms: list[Any], params: list[Any], masks: list[Any]) -> Any:
    """Return the arrays of an answer."""
    named = {f"params.{i}": np.asarray(p) for i, p in enumerate(params)}
    named |= {f"masks.{i}": np.asarray(m) for i, m in enumerate(masks) if m is not None}
    return {"loss": np.array(losses), "total_norm": np.array(norms), **named}


def neuron_masks(params: list[Any], kept: list[Any]) -> list[Any]:
    """Return masks that take hidden units out: weights into them, biases, weights out of them."""
    masks = [np.ones(np.shape(p), bool) for p in params]
    for layer, keep in enumerate(kept):
        masks[2 * layer] &= keep[None, :]
        masks[2 * layer + 1] &= keep
        masks[2 * layer + 2] &= keep[:, None]
    return masks


def main(framework: str, script: str, target: str) -> int:
    """Run a script through a framework; 3 if it is not installed."""
    try:
        runner = importlib.import_module(f"adapters._recipes_{framework}")
    except ModuleNotFoundError as error:
        print(f"not installed: {error.name}", file=sys.stderr)
        return NOT_INSTALLED
    np.savez(target, **runner.run(load(Path(script))))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
