"""The command ``secateurs``: makes sure that it runs our packages, then hands over to them.

Unrelated packages called ``adapters`` and ``conformance`` exist on the public index, and a folder of such
a name may lie on the import path. Nothing of them is imported to find that out.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

MARKS = {"adapters": "base.py", "conformance": "protocol.py", "refimpl": "arrays.py"}
"""A file of each of our packages that lies beside its ``__init__.py``."""
NOT_STARTED = 3


def shadowed() -> str | None:
    """Return one line about the first package of ours that another one hides, or None."""
    here = Path(__file__).resolve().parent
    for name, mark in MARKS.items():
        spec = find_spec(name)
        if spec is None:
            return f"the package {name} is missing; install secateurs again"
        found = Path(spec.origin).resolve().parent if spec.origin else None
        if found != here / name or not (here / name / mark).exists():
            where = found or ", ".join(spec.submodule_search_locations or ["?"])
            return (
                f"another package called {name} ({where}) hides ours;"
                " install secateurs into an environment of its own"
            )
    return None


def main() -> int:
    """Run the command; 3 if a foreign package hides one of ours."""
    line = shadowed()
    if line is None:
        try:
            from conformance.cli import main as command
        except ImportError as error:
            line = f"cannot import conformance.cli ({error}); install secateurs again"
        else:
            return command()
    print(f"secateurs: {line}", file=sys.stderr)
    return NOT_STARTED


if __name__ == "__main__":
    sys.exit(main())
