"""Lines of ``refimpl`` for a page, read from the source itself and never copied by hand."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adapters.study.model import Excerpt, StudyError


def excerpt(
    function: Callable[..., Any], first: str, last: str = "", marked: tuple[str, ...] = ()
) -> Excerpt:
    """Return the lines of a function from the one that contains ``first`` to one with ``last``.

    ``marked`` are parts of the lines that compute the stage (all, if none is named). A text that is
    not there is an error: the page must never show lines that no longer say what it explains.
    """
    lines, start = inspect.getsourcelines(function)
    found = inspect.getsourcefile(function)
    assert found is not None
    begin = _line(function, lines, first, 0)
    end = _line(function, lines, last, begin) if last else begin
    shown = [line.rstrip("\n") for line in lines[begin : end + 1]]
    indent = min(len(line) - len(line.lstrip()) for line in shown if line.strip())
    text = tuple(line[indent:] for line in shown)
    at = tuple(_line(function, list(text), part, 0) for part in marked) or tuple(range(len(text)))
    return Excerpt(f"refimpl/{_inside(found)}", start + begin, text, at)


def _line(function: Callable[..., Any], lines: list[str], part: str, start: int) -> int:
    for index in range(start, len(lines)):
        if part in lines[index]:
            return index
    raise StudyError(f"{function.__qualname__} has no line with {part!r}")


def _inside(path: str) -> str:
    parts = Path(path).parts
    return "/".join(parts[parts.index("refimpl", len(parts) - 4) + 1 :])
