"""The pages that are made from the suite: what they claim is so, and they are current."""

from __future__ import annotations

import re

import pytest

from conformance.operations import load, names
from conformance.pages import FOLDER, bugs, exists, known_bugs, matrix, mistakes, pages


def test_every_reported_bug_is_caught_by_something_or_says_why_not() -> None:
    found = bugs()
    assert len(found) >= 130
    assert len({bug.thread for bug in found}) == len(found)
    for bug in found:
        assert bool(bug.caught) != bool(bug.why_not), bug.thread
    assert sum(bool(bug.caught) for bug in found) >= 100


def test_everything_that_catches_a_bug_exists() -> None:
    for what in {what for bug in bugs() for what in bug.caught}:
        assert exists(what), what


@pytest.mark.parametrize(
    "what",
    [
        "clip.norm: mistake no such",
        "clip.norm: case x-f32",
        "clip.norm: colour eps",
        "clip.norm: dial",
    ],
)
def test_what_does_not_exist_is_noticed(what: str) -> None:
    assert not exists(what)


def test_the_page_of_reported_bugs_is_current() -> None:
    page = (FOLDER / "known-bugs.md").read_text(encoding="utf-8")
    assert page == known_bugs(bugs()), "run: python -m conformance.pages"


def test_the_matrix_names_the_cases_that_catch_a_mistake() -> None:
    rows = {row.name: row for row in matrix("score.magnitude")}
    assert rows.keys() == {m.name for m in load("score.magnitude").mistakes}
    assert all(row.cases for row in rows.values())
    assert all(case.endswith("-f32") for row in rows.values() for case in row.cases)
    text = mistakes([list(rows.values())])
    assert text.count("| **") == len(rows)


def test_every_mistake_is_on_the_page_and_caught() -> None:
    page = (FOLDER / "mistakes.md").read_text(encoding="utf-8")
    for name in names():
        assert f"## {name}" in page
    listed = re.findall(
        r"^\| \*\*(.*?)\*\*: .* \| (\d+ of \d+|its own tests) \|", page, re.MULTILINE
    )
    assert len(listed) == sum(len(load(name).mistakes) for name in names())
    assert [name for name, count in listed if count.startswith("0 ")] == []


@pytest.mark.long
def test_every_page_is_current() -> None:
    for name, text in pages().items():
        assert (FOLDER / name).read_text(encoding="utf-8") == text, (
            "run: python -m conformance.pages"
        )
