"""Fixture files: what is damaged is said in one line with file, case and field."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, get_args

import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from conformance import build, expected, fixtures
from conformance.fixtures import FixtureError
from conformance.operation import Kind
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


def put(path: str, value: Any) -> Callable[[Document], None]:
    """Return a change of one field of the first case; ``...`` takes it away."""

    def change(document: Document) -> None:
        *way, last = [int(part) if part.isdigit() else part for part in path.split("/")]
        entry: Any = document if way and way[0] == "" else first(document)
        for part in way:
            entry = entry[part] if part != "" else entry
        if value is ...:
            del entry[last]
        else:
            entry[last] = value

    return change


def few_words(document: Document) -> None:
    tensor = first(document)["inputs"]["grads"][0]
    tensor["bits"] = tensor["bits"].rpartition(" ")[0]


def no_checksum(document: Document) -> None:
    entry = next(case for case in document["cases"] if case["id"] == LARGE)
    del entry["inputs"]["grads"][0]["sha256"]


def other_checksum(document: Document) -> None:
    entry = next(case for case in document["cases"] if case["id"] == LARGE)
    entry["inputs"]["grads"][0]["sha256"] = "0" * 64


TENSOR = "inputs/grads/0"
WORDS = "float64 of shape [2, 2] needs 4 words of 16 digits 0-9a-f, got"
OUTPUT = "expected/canonical/outputs/total_norm"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (few_words, f"case {FIRST}: inputs.grads[0].bits: {WORDS} 3 words"),
        (put(f"{TENSOR}/bits", "0" * 67), f"case {FIRST}: inputs.grads[0].bits: {WORDS} 1 words"),
        (put(f"{TENSOR}/bits", "g" * 16), f"case {FIRST}: inputs.grads[0].bits: {WORDS} 1 words"),
        (put(f"{TENSOR}/bits", 7), f"case {FIRST}: inputs.grads[0].bits: must be a string, got 7"),
        (put(f"{TENSOR}/dtype", "float80"),
         f"case {FIRST}: inputs.grads[0].dtype: unknown dtype 'float80'"),
        (put(f"{TENSOR}/dtype", []), f"case {FIRST}: inputs.grads[0].dtype: unknown dtype []"),
        (put(f"{TENSOR}/dtype", "float32"),
         f"case {FIRST}: inputs.grads[0].bits: float32 of shape [2, 2] needs 4 words of 8"),
        (put(f"{TENSOR}/shape", [2, 3]),
         f"case {FIRST}: inputs.grads[0].bits: float64 of shape [2, 3] needs 6 words"),
        (put(f"{TENSOR}/shape", [-2, -2]), f"case {FIRST}: inputs.grads[0].shape: must be a list"),
        (put(f"{TENSOR}/shape", [True]), f"case {FIRST}: inputs.grads[0].shape: must be a list"),
        (put(f"{TENSOR}/units", "m"), f"case {FIRST}: inputs.grads[0].units: unknown field"),
        (put(f"{TENSOR}/bits", ...), f"case {FIRST}: inputs.grads[0].bits: missing"),
        (put("inputs/grads/1", {"same_as": 1}),
         f"case {FIRST}: inputs.grads[1].same_as: must be the index of an earlier entry, got 1"),
        (put("inputs/grads/0", 5), f"case {FIRST}: inputs.grads[0]: must be a tensor, got 5"),
        (put("inputs", []), f"case {FIRST}: inputs: must be an object, got []"),
        (put("params", ...), f"case {FIRST}: params: missing"),
        (put("comment", "?"), f"case {FIRST}: comment: unknown field"),
        (put("flags", ["NoSuchFlag"]), f"case {FIRST}: flags: 'NoSuchFlag' is not among the flags"),
        (put("constraints", [3]), f"case {FIRST}: constraints[0]: must be a string, got 3"),
        (put("tolerance/grads/ulp", -1), f"case {FIRST}: tolerance.grads.ulp: must be a whole"),
        (put("tolerance/grads/ulp", 1.5), f"case {FIRST}: tolerance.grads.ulp: must be a whole"),
        (put("tolerance/grads/ulps", 1), f"case {FIRST}: tolerance.grads.ulps: unknown field"),
        (put("tolerance/grads", ...),
         f"case {FIRST}: expected.canonical.tolerance.grads: a tolerance and an output go together"),
        (put("tolerance", ...), f"case {FIRST}: expected.canonical.tolerance: missing"),
        (put("expected/canonical", ...), f"case {FIRST}: expected.canonical: missing"),
        (put("expected/canonical/extra", 1), f"case {FIRST}: expected.canonical.extra: unknown"),
        (put("expected/canonical/outputs", ...), f"case {FIRST}: expected.canonical.outputs: miss"),
        (put("expected/canonical", {"rejects": False, "why": ""}),
         f"case {FIRST}: expected.canonical.rejects: must be true"),
        (put("expected/canonical", {"same_as": "canonical"}),
         f"case {FIRST}: expected.canonical.same_as: 'canonical' is no expectation of this case"),
        (put(f"{OUTPUT}/bits", "40"),
         f"case {FIRST}: expected.canonical.outputs.total_norm.bits: float64 of shape [] needs 1"),
        (put(f"{OUTPUT}/same_as", 0),
         f"case {FIRST}: expected.canonical.outputs.total_norm.same_as: unknown field"),
        (put("id", ...), "case number 1: id: missing"),
        (put("/cases/1/id", FIRST), f"case {FIRST}: id: used twice"),
        (put("/cases/1", "x"), "case number 2: must be an object, got 'x'"),
        (put("/schema", "secateurs-fixtures-9"),
         "schema is 'secateurs-fixtures-9', expected 'secateurs-fixtures-1'"),
        (put("/operation", "clip.norm"), "operation: is 'clip.norm', expected 'clip.global_norm'"),
        (put("/cases", ...), "cases: missing"),
        (put("/cases", {}), "cases: must be a list, got {}"),
        (put("/author", "me"), "author: unknown field"),
        (put("/flags/Basic", {"kind": "BASE", "description": "", "links": []}),
         "flags.Basic.kind: 'BASE' is none of BASIC"),
        (no_checksum, f"case {LARGE}: inputs.grads[0].sha256: missing"),
        (other_checksum, f"case {LARGE}: inputs.grads[0]: clip.global_norm.safetensors: the check"),
    ],
)  # fmt: skip
def test_damage_is_one_line(change: Callable[[Document], None], words: str, folder: Path) -> None:
    rewrite(folder, change)
    assert complaint(folder).startswith(f"clip.global_norm.json: {words}")


def test_the_scale_of_an_output_fits_it(tmp_path: Path) -> None:
    operation = load("layer.dense")
    source = json.loads((fixtures.FOLDER / "layer.dense.json").read_text(encoding="utf-8"))
    number = next(
        i for i, case in enumerate(source["cases"])
        if "dx" in case["expected"]["canonical"].get("scale", {})
    )  # fmt: skip
    where = f"layer.dense.json: case {source['cases'][number]['id']}: expected.canonical.scale.dx"
    for field, value, words in (
        ("dtype", "int64", ".dtype: is 'int64', expected 'float64'"),
        ("shape", [1], ".bits: float64 of shape [1] needs 1 words"),
        ("shape", "long", ".shape: must be the shape of the output"),
    ):
        document = json.loads(json.dumps(source))
        scale = document["cases"][number]["expected"]["canonical"]["scale"]["dx"]
        scale[field] = [*scale["shape"], 1] if value == "long" else value
        (tmp_path / "layer.dense.json").write_text(json.dumps(document), encoding="utf-8")
        with pytest.raises(FixtureError) as caught:
            fixtures.read(operation, tmp_path)
        assert str(caught.value).startswith(where + words)


SCHEMA = json.loads((fixtures.FOLDER / "schema.json").read_text(encoding="utf-8"))


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["title"] == SCHEMA["properties"]["schema"]["const"] == fixtures.SCHEMA
    kinds = SCHEMA["$defs"]["flag"]["properties"]["kind"]["enum"]
    assert tuple(kinds) == get_args(Kind)


@pytest.mark.parametrize("name", names())
def test_a_file_of_every_operation_is_as_the_schema_says(name: str) -> None:
    """The first two cases and the last; the slow test below has them all."""
    path = fixtures.FOLDER / f"{name}.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    document["cases"] = document["cases"][:2] + document["cases"][-1:]
    Draft202012Validator(SCHEMA).validate(document)


@pytest.mark.slow
@pytest.mark.parametrize("name", names())
def test_every_case_is_as_the_schema_says(name: str) -> None:
    path = fixtures.FOLDER / f"{name}.json"
    Draft202012Validator(SCHEMA).validate(json.loads(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "change",
    [
        put(f"{TENSOR}/bits", "0" * 15), put(f"{TENSOR}/dtype", "float80"),
        put(f"{TENSOR}/dtype", "float32"), put(f"{TENSOR}/units", "m"),
        put(f"{TENSOR}/shape", [-2, -2]), put(f"{TENSOR}/bits", ...), put("params", ...),
        put("comment", "?"), put("constraints", [3]), put("tolerance/grads/ulp", -1),
        put("expected/canonical", ...), put("expected/canonical/extra", 1),
        put("expected/canonical", {"rejects": False, "why": ""}), put("id", ...),
        put(f"{OUTPUT}/same_as", 0), put("/schema", "x"), put("/author", "me"), no_checksum,
    ],
)  # fmt: skip
def test_the_schema_refuses_what_is_damaged(
    change: Callable[[Document], None], folder: Path
) -> None:
    path = folder / "clip.global_norm.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    large = next(case for case in document["cases"] if case["id"] == LARGE)
    document["cases"] = [document["cases"][0], large]
    schema = Draft202012Validator(SCHEMA)
    assert schema.is_valid(document)
    change(document)
    assert not schema.is_valid(document)


def test_validate_writes_a_line_for_every_file_that_is_damaged(folder: Path) -> None:
    shutil.copy(fixtures.FOLDER / "clip.value.json", folder)
    arguments = ["--validate", "--folder", str(folder), "clip.global_norm", "clip.value"]
    assert CliRunner().invoke(build.main, arguments).exit_code == 0
    rewrite(folder, put("params", ...))
    (folder / "clip.value.json").write_bytes(b"{")
    result = CliRunner().invoke(build.main, arguments)
    assert result.exit_code == 1
    assert [line.partition(": ")[0] for line in result.output.splitlines()] == [
        "clip.global_norm.json", "clip.value.json",
    ]  # fmt: skip


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
    assert re.match(r"clip\.global_norm\.json: case long-[\w-]+: inputs\.grads\[0\]: ", line)
    assert "clip.global_norm.safetensors: the checksum does not match" in line


def test_missing_large_tensors(folder: Path) -> None:
    (folder / "clip.global_norm.safetensors").unlink()
    assert "clip.global_norm.safetensors: No such file" in complaint(folder)


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
