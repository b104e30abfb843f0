"""The harness in C: compiled as its first lines say, it does what is canonical."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from adapters.c import SOURCE, compiled
from conformance.runner import run, select

COMPILER = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C compiler here")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(compiled(tmp_path_factory.mktemp("c")))


def answers(program: str, *lines: str) -> list[dict[str, object]]:
    done = subprocess.run(
        [program], input="\n".join(lines) + "\n", text=True, capture_output=True, timeout=20
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_it_compiles_without_a_warning(tmp_path: Path) -> None:
    assert COMPILER is not None
    strict = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-o", str(tmp_path / "clip")]
    done = subprocess.run([COMPILER, *strict, str(SOURCE), "-lm"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_case_it_lists_is_canonical(program: str) -> None:
    result = run("c", [program], select(["clip.value", "clip.norm", "clip.global_norm"]))
    assert {v.status for v in result.verdicts} == {"passed"}
    assert all(v.canonical for v in result.verdicts)
    assert len(result.verdicts) > 500
    assert result.notes == []


def test_hand_computed_bits(program: str) -> None:
    # (3, -4) has norm 5; clipped to 1: (0.6, -0.8).
    grads = '[null, {"dtype":"float64","shape":[1,2],"bits":"4008000000000000 c010000000000000"}]'
    (answer,) = answers(
        program,
        '{"cmd":"run","id":"\\"a","operation":"clip.global_norm","inputs":{"grads":' + grads + "},"
        '"params":{"max_norm":1,"ord":2}}',
    )
    assert answer == {
        "id": '"a',
        "outputs": {
            "grads": [
                None,
                {"dtype": "float64", "shape": [1, 2], "bits": "3fe3333333333333 bfe999999999999a"},
            ],
            "total_norm": {"dtype": "float64", "shape": [], "bits": "4014000000000000"},
        },
    }


@pytest.mark.parametrize(
    ("line", "status", "words"),
    [
        ("garbage", "errored", "no object"),
        ('{"cmd":"run","id":1', "errored", "missing"),
        ('{"cmd":"run","id":1,"operation":"clip.value"}', "errored", "inputs is missing"),
        ('{"cmd":"run","id":1,"operation":"optim.sgd"}', "unsupported", "clips"),
        ('{"cmd":"run","id":1,"operation":"clip.value","params":{"max":1},"inputs":{"grads":'
         '[{"dtype":"float32","shape":[2],"bits":"3f800000"}]}}', "errored", "digits"),
        ('{"cmd":"run","id":1,"operation":"clip.value","params":{"max":1},"inputs":{"grads":'
         '[{"dtype":"float32","shape":[1],"bits":"3f800000 3f800000"}]}}', "errored", "more words"),
        ('{"cmd":"run","id":1,"operation":"clip.value","params":{"max":1},"inputs":{"grads":'
         '[{"dtype":"float32","shape":[100000,100000,100000],"bits":"3f800000"}]}}', "errored", "too few"),
        ('{"cmd":"run","id":1,"operation":"clip.value","params":{"max":1},"inputs":{"grads":'
         '[{"same_as":0}]}}', "errored", "same_as"),
        ('{"cmd":"run","id":1,"operation":"clip.norm","params":{"max_norm":"nan","ord":2},'
         '"inputs":{"grads":[]}}', "rejected", "max_norm"),
    ],
)  # fmt: skip
def test_a_bad_request_is_answered_and_the_next_one_too(
    program: str, line: str, status: str, words: str
) -> None:
    good = '{"cmd":"run","id":2,"operation":"clip.value","params":{"max":1},"inputs":{"grads":[]}}'
    first, second = answers(program, line, good)
    told = first[status]
    assert isinstance(told, dict)
    assert words in next(iter(told.values()))
    assert second == {"id": 2, "outputs": {"grads": []}}
