"""The implementers' guide: its harness in Python is sound and canonical, its C is that of the file."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

from conformance.runner import run, select
from conformance.smoke import smoke

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "implementers.md").read_text(encoding="utf-8")


def block(language: str, beginning: str) -> str:
    found = re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)
    return next(text for text in found if text.startswith(beginning))


def test_the_harness_of_the_guide_is_sound_and_canonical(tmp_path: Path) -> None:
    program = tmp_path / "mine.py"
    program.write_text(block("python", "import ctypes"), encoding="utf-8")
    command = [sys.executable, str(program)]
    assert [check for check in smoke(command) if check.passed is False] == []
    result = run(shlex.join(command), command, select(["clip.value"]))
    assert {v.status for v in result.verdicts} == {"passed", "unsupported"}
    assert result.counts["canonical"] == result.counts["passed"] > 30
    assert result.notes == []


def test_the_c_of_the_guide_is_that_of_the_file() -> None:
    source = (ROOT / "adapters" / "c" / "clip.c").read_text(encoding="utf-8")
    assert block("c", "    while (read_line").rstrip() in source


def test_every_command_of_the_guide_exists() -> None:
    from conformance.cli import cli

    named = set(re.findall(r"secateurs ([a-z]+)\b(?! itself)", GUIDE)) - {"sees"}
    assert named <= set(cli.commands), named - set(cli.commands)


def test_the_answers_of_the_protocol_are_all_named() -> None:
    for word in ("outputs", "rejected", "unsupported", "errored", "mutated", "same_as"):
        assert f'"{word}"' in GUIDE
