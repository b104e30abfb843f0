"""Fixture files: what is damaged is said in one line with file, case and field."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from conformance import expected, fixtures
from conformance.fixtures import FixtureError
from conformance.operations import load, names

OPERATION = load("clip.global_norm")
FIRST, LARGE = "two-tensors-f64", "long-ones-f32"
Document = dict[str, Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for file in fixtures.FOLDER.glob("clip.global_norm.*"):
        shutil.copy(file, tmp_path)
    return tmp_path


def rewrite(folder: Path, change: Callable[[Document], None]) -> None:
    path = folder / "clip.global_norm.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")


def complaint(folder: Path) -> str:
    with pytest.raises(FixtureError) as caught:
        fixtures.read(OPERATION, folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def first(document: Document) -> Document:
    entry: Document = document["cases"][0]
    assert entry["id"] == FIRST
    return entry


def test_an_undamaged_copy_is_read(folder: Path) -> None:
    assert len(fixtures.read(OPERATION, folder)) > 150


def few_words(document: Document) -> None:
    tensor = first(document)["inputs"]["grads"][0]
    tensor["bits"] = tensor["bits"].rpartition(" ")[0]


def unknown_dtype(document: Document) -> None:
    first(document)["inputs"]["grads"][0]["dtype"] = "float80"


def no_params(document: Document) -> None:
    del first(document)["params"]


def no_id(document: Document) -> None:
    del first(document)["id"]


def used_twice(document: Document) -> None:
    document["cases"][1]["id"] = FIRST


def other_schema(document: Document) -> None:
    document["schema"] = "secateurs-fixtures-9"


def no_cases(document: Document) -> None:
    del document["cases"]


def no_checksum(document: Document) -> None:
    entry = next(case for case in document["cases"] if case["id"] == LARGE)
    del entry["inputs"]["grads"][0]["sha256"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (few_words, f"case {FIRST}: inputs: float64 of shape [2, 2] needs 4 words of 16 digits"),
        (unknown_dtype, f"case {FIRST}: inputs: unknown dtype 'float80'"),
        (no_params, f"case {FIRST}: params: missing"),
        (no_id, "case number 1: id: missing"),
        (used_twice, f"case {FIRST}: id: used twice"),
        (other_schema, "schema is 'secateurs-fixtures-9', expected 'secateurs-fixtures-1'"),
        (no_cases, "cases: missing"),
        (no_checksum, f"case {LARGE}: sha256: missing"),
    ],
)
def test_damage_is_one_line(change: Callable[[Document], None], words: str, folder: Path) -> None:
    rewrite(folder, change)
    assert complaint(folder).startswith(f"clip.global_norm.json: {words}")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[]", "is no JSON object"),
    ],
)
def test_a_file_that_is_no_fixture_file(content: bytes, words: str, folder: Path) -> None:
    (folder / "clip.global_norm.json").write_bytes(content)
    assert words in complaint(folder)


def test_a_missing_file(tmp_path: Path) -> None:
    assert complaint(tmp_path).startswith("clip.global_norm.json: no such fixture file in ")


def test_one_flipped_bit_in_the_large_tensors(folder: Path) -> None:
    path = folder / "clip.global_norm.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-100] ^= 1
    path.write_bytes(bytes(raw))
    line = complaint(folder)
    assert re.match(r"clip\.global_norm\.json: case long-[\w-]+: inputs: ", line)
    assert "clip.global_norm.safetensors: the checksum does not match" in line


def test_missing_large_tensors(folder: Path) -> None:
    (folder / "clip.global_norm.safetensors").unlink()
    assert "clip.global_norm.safetensors: No such file" in complaint(folder)


def test_a_damaged_expectation_names_its_case(folder: Path) -> None:
    rewrite(
        folder,
        lambda d: first(d)["expected"]["canonical"]["outputs"]["total_norm"].update(bits="40"),
    )
    case = fixtures.read(OPERATION, folder)[0]
    with pytest.raises(FixtureError, match=f"case {FIRST}: expected: float64") as caught:
        fixtures.expectation(OPERATION, case, {}, folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", sorted(p.name for p in expected.FOLDER.glob("*.toml")))
def test_every_expected_failure_is_about_a_case_that_exists(file: str) -> None:
    ids = [
        f"{name}/{entry['id']}"
        for name in names()
        if (path := fixtures.FOLDER / f"{name}.json").exists()
        for entry in json.loads(path.read_text(encoding="utf-8"))["cases"]
    ]
    for entry in expected.read(Path(file).stem):
        assert any(fnmatchcase(case_id, entry.case) for case_id in ids), entry.case
