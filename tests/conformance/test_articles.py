"""The articles' pages: what a page says follows from the runs."""

from __future__ import annotations

import pytest

from conformance import articles

REPORT = {
    "title": "A9 · Something",
    "notes": ["A note."],
    "tables": [{"title": "T", "header": ["|w|", "n"], "cells": [["a|b", "1,024"]]}],
}


def test_a_page_has_its_tables_and_its_commands() -> None:
    claim = {"name": "magic", "said": "It works.", "truth": "No.", "command": "secateurs x",
             "notes": [], "tables": []}  # fmt: skip
    text = articles.page("A1", REPORT, [claim])
    assert "| \\|w\\| | n |\n| --- | ---: |\n| a\\|b | 1,024 |" in text
    assert "### magic\n\n> It works.\n\nNo.\n\n`secateurs x`" in text


def test_pages_are_the_same_but_for_rounding() -> None:
    assert articles.same("98.50 % of 1,258", "97.90 % of 1,259")
    assert not articles.same("98.50 % of 1,258", "88.50 % of 1,258")
    assert not articles.same("98.50 % of 1,258", "98.50 % of 1,400")
    assert not articles.same("it costs 1", "it buys 1")


@pytest.mark.parametrize("article", articles.ARTICLES)
def test_each_article_has_its_page(article: str) -> None:
    text = (articles.FOLDER / f"{article}.md").read_text(encoding="utf-8")
    assert f"secateurs recipe {article}" in text
    assert articles.SUMMARIES[article] in text


@pytest.mark.long
@pytest.mark.parametrize("article", articles.ARTICLES)
def test_a_page_is_generated_again(article: str) -> None:
    pytest.importorskip("tensorflow")
    stored = (articles.FOLDER / f"{article}.md").read_text(encoding="utf-8")
    assert articles.same(articles.generate(article), stored)


@pytest.mark.long
def test_a_page_has_the_same_bytes_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorflow")
    pages = []
    for threads, seed in (("1", "1"), ("2", "2")):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        monkeypatch.setenv("PYTHONHASHSEED", seed)
        pages.append(articles.generate("A1"))
    assert pages[0] == pages[1]
