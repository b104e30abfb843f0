"""The finished runs of a sweep: a line of JSON each, so that one that was interrupted can go on."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..files import write_whole

KEY = ("layer", "fold", "seed", "value")
FOUND = ("accuracy", "sparsity")


class Log:
    """Finished runs, a line each; the first line says of which sweep."""

    def __init__(self, path: Path, about: dict[str, Any]) -> None:
        """Read what is there; a last line that was cut off is dropped."""
        self.path = path
        self._rows: dict[tuple[Any, ...], dict[str, Any]] = {}
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        whole = [about]
        for number, line in enumerate(lines, 1):
            row = _row(line)
            if number == 1 and row is not None and row != about:
                raise ValueError(f"{path} is of another sweep: {line}; choose another --out")
            if row is None or (number > 1 and set(row) != {*KEY, *FOUND}):
                if number < len(lines):
                    raise ValueError(f"{path}: line {number} is damaged")
            elif number > 1:
                self._rows[_key(row)] = row
                whole.append(row)
        write_whole(path, "".join(json.dumps(row) + "\n" for row in whole).encode())

    def has(self, key: dict[str, Any]) -> bool:
        """Say whether a run is there."""
        return _key(key) in self._rows

    def of(self, keys: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return those runs that are there, in the order of their keys."""
        return [self._rows[_key(key)] for key in keys if self.has(key)]

    def add(self, key: dict[str, Any], found: dict[str, float]) -> None:
        """Append a run."""
        row = self._rows[_key(key)] = {**key, **found}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in KEY)


def _row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def as_csv(rows: list[dict[str, Any]]) -> str:
    """Return all runs as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
