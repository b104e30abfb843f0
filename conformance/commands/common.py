"""What the subcommands share: errors of one line, choosing operations, files that are whole."""

from __future__ import annotations

import difflib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from conformance.operations import matching, names

DIFFERENT, WRONG_USAGE, NOT_STARTED, INTERRUPTED = 1, 2, 3, 130
GRACE = 5.0
"""Seconds in which a program that was interrupted may say what it has done."""


class Failure(click.ClickException):
    """An error of one line and the exit code that goes with it."""

    def __init__(self, message: str, code: int = WRONG_USAGE) -> None:
        """Keep the message and the exit code."""
        super().__init__(message)
        self.code = code


def debug_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--debug``, which lets a traceback through."""

    def remember(context: click.Context, _: click.Parameter, value: bool) -> None:
        if value:
            context.find_root().ensure_object(dict)["debug"] = True

    option = click.option(
        "--debug",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=remember,
        help="Show the traceback of an error.",
    )
    return option(command)


def near(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean …?`` with what is spelt most like a word, or what there is."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    if close:
        return f"; did you mean {' or '.join(close)}?"
    return f"; there are: {', '.join(known)}" if len(known) <= 60 else ""


def operations(patterns: Iterable[str]) -> list[str]:
    """Return the ids of the operations that shell patterns match (all without a pattern)."""
    chosen: list[str] = []
    for pattern in patterns:
        found = matching(pattern)
        if not found:
            raise Failure(f"no operation matches {pattern!r}{near(pattern, names())}")
        chosen += [name for name in found if name not in chosen]
    return chosen or list(names())


def target(path: Path | None) -> None:
    """Refuse a file that could not be written, before the work of hours is done."""
    if path is not None and (path.is_dir() or not os.access(path.absolute().parent, os.W_OK)):
        raise Failure(f"cannot write {path}: its folder must exist and be writable")


def write_whole(path: Path, text: str) -> None:
    """Write a file whole or not at all: to a temporary name in the same folder, then moved."""
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=path.absolute().parent, prefix=f".{path.name}.", delete=False
    ) as part:
        part.write(text)
    try:
        os.chmod(part.name, 0o644)
        os.replace(part.name, path)
    except OSError as error:
        os.unlink(part.name)
        raise Failure(f"cannot write {path}: {error.strerror}") from None


def program(module: str, *arguments: str) -> int:
    """Run one of our programs in a process of its own; return its exit code.

    Who presses Ctrl-C interrupts both; then the program says so, and nobody else.
    """
    with subprocess.Popen([sys.executable, "-m", module, *arguments]) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
            return INTERRUPTED
