"""Serve an adapter over the line protocol: ``python -m adapters NAME``."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points, metadata
from pathlib import Path

from adapters.base import NotStarted

GROUP = "secateurs.adapters"
NOT_INSTALLED = 3
EXTRAS = {"optax": "jax"}
"""The extra that brings an adapter's library, where it has another name than the adapter."""


def _remedy(name: str, missing: str) -> str:
    """Return what brings an adapter's library: an extra of ours, or an environment of its own."""
    ways = []
    extra = EXTRAS.get(name, name)
    if extra in (metadata("secateurs").get_all("Provides-Extra") or []):
        ways.append(f"pip install 'secateurs[{extra}]'")
    if (Path(__file__).parent / "environments" / f"{name}.txt").exists():
        ways.append(f"secateurs env {name}")
    return " or ".join(ways) or f"install what provides the package {missing}"


def main(name: str) -> int:
    """Load an adapter by its entry point and serve it; 3 if its framework is not installed."""
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in found:
        print(f"no adapter {name!r}; installed are: {', '.join(sorted(found))}", file=sys.stderr)
        return NOT_INSTALLED
    try:
        adapter = found[name].load()
    except NotStarted as reason:
        print(f"{name}: {reason}", file=sys.stderr)
        return NOT_INSTALLED
    except ModuleNotFoundError as error:
        print(f"not installed: {error.name}; {_remedy(name, error.name or name)}", file=sys.stderr)
        return NOT_INSTALLED
    adapter.serve()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]) if len(sys.argv) == 2 else 2)
