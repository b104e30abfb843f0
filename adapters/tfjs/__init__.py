"""TensorFlow.js, ``harness.mjs``, run by Node with the packages that ``npm ci`` brings into this folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from adapters.base import NotStarted
from adapters.program import Program

FOLDER = Path(__file__).parent


def command() -> list[str]:
    """Return the command line of the harness.

    Raises:
        NotStarted: there is no Node, or the packages are not installed.
    """
    node = shutil.which("node")
    if node is None:
        raise NotStarted("not installed: node; install Node.js 18 or newer")
    if not (FOLDER / "node_modules" / "@tensorflow" / "tfjs-core").is_dir():
        raise NotStarted(f"not installed: @tensorflow/tfjs-core; run npm ci --prefix {FOLDER}")
    return [node, str(FOLDER / "harness.mjs")]


adapter = Program("tfjs", command)
