"""Who can be asked: adapters found through the entry points, and programs that speak the protocol.

No adapter and no framework is imported here; whether a framework is there is read from the imports at the
top of the adapter's file.
"""

from __future__ import annotations

import ast
import shlex
import sys
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from conformance import environments
from conformance.protocol import adapter_command

GROUP = "secateurs.adapters"
SECONDS = 20.0
"""How long an implementation may take for one case."""
LONGER = {"jax": 180.0, "dask": 180.0, "keras_jax": 180.0, "optax": 180.0, "tinygrad": 180.0}
"""Adapters that may take longer: JAX and tinygrad compile many small programs for a case of new shapes, Dask
schedules thousands of tasks for a few training steps; each took 20 s and more of a busy machine."""


def seconds(name: str) -> float:
    """Return how long a participant may take for one case, where the user does not say it."""
    return LONGER.get(name, SECONDS)


def adapters() -> dict[str, str]:
    """Return the module of each adapter by the adapter's name, sorted by name."""
    found = {entry.name: entry.module for entry in entry_points(group=GROUP)}
    return dict(sorted(found.items()))


def lacking(module: str) -> str:
    """Return the first package that an adapter's module imports and that is not installed, or ``""``."""
    try:
        spec = find_spec(module)
    except ModuleNotFoundError as error:
        return error.name or module
    if spec is None or spec.origin is None:
        return module
    try:
        tree = ast.parse(Path(spec.origin).read_bytes())
    except (OSError, SyntaxError, ValueError):
        # The adapter will say itself, when it is started, what is wrong with it.
        return ""
    for statement in tree.body:
        names = []
        if isinstance(statement, ast.Import):
            names = [alias.name for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom) and not statement.level and statement.module:
            names = [statement.module]
        for name in names:
            root = name.partition(".")[0]
            if root not in sys.stdlib_module_names and find_spec(root) is None:
                return root
    return ""


def command(name: str, module: str) -> list[str]:
    """Return the command that serves an adapter: with this Python, or with that of its environment.

    The environment is used where this Python lacks what the adapter imports and the environment is whole.
    """
    if environments.ready(name) and (lacking(module) or environments.absent(name)):
        return adapter_command(name, str(environments.python(name)))
    return adapter_command(name)


def place(name: str, module: str) -> str:
    """Say in a few words where an adapter's library is, or what to do about its absence."""
    missing = lacking(module) or environments.absent(name)
    if not missing:
        return "installed"
    if environments.ready(name):
        return "in an environment of its own"
    if environments.stale(name):
        return f"its environment is out of date: secateurs env {name}"
    hint = f"; secateurs env {name}" if name in environments.known() else ""
    return f"not installed: {missing} is missing{hint}"


def split(command: str) -> list[str]:
    """Split a command line into words, as the system's shell would."""
    if sys.platform == "win32":
        return [word.strip('"') for word in shlex.split(command, posix=False)]
    return shlex.split(command)
