"""Changed cases find what is wrong, quickly and again, and accuse nobody who is right."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

pytest.importorskip("hypothesis", reason="the extra secateurs[fuzz] is not installed")

from conformance import fixtures
from conformance.calls import _case
from conformance.cli import main
from conformance.expected import Expected
from conformance.formats import encode
from conformance.fuzz import Result, fuzz
from conformance.fuzz_domain import Domain, domain, features
from conformance.fuzz_edits import edited
from conformance.operation import Mistake, Operation, map_tensors, sizes
from conformance.operations import load, names
from conformance.protocol import Crashed, Implementation

HARNESSES = Path(__file__).parent / "harnesses"
SCHEMA = json.loads((fixtures.FOLDER / "schema.json").read_text(encoding="utf-8"))
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


class Fake:
    """A process that answers as an oracle does: the right one, or that of a known mistake."""

    def __init__(self, operation: Operation, mistake: Mistake | None = None) -> None:
        self.operation, self.mistake, self.asked = operation, mistake, 0

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        self.asked += 1
        case = _case(request)
        oracle = self.mistake.oracle if self.mistake else None
        try:
            expected = self.operation.expect(case, oracle=oracle)
        except Exception as error:
            return {"id": request["id"], "errored": {"message": str(error)}}
        if expected.rejects is not None:
            return {"id": request["id"], "rejected": {"message": expected.rejects}}
        outputs = map_tensors(lambda leaf: encode(leaf.tensor), expected.outputs)
        return {"id": request["id"], "outputs": outputs}


class Refimpl:
    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        from adapters.refimpl import adapter

        return {"id": request["id"], **adapter.run(request)}


def implementation(name: str) -> Implementation:
    return Implementation("fake", "1.0", "Python", "3", operations={name: {}})


def search(name: str, process: Any, **options: Any) -> Result:
    return fuzz(load(name), process, implementation(name), **options)


def mistake(name: str, mistake_name: str) -> Mistake:
    return next(m for m in load(name).mistakes if m.name == mistake_name)


def same(a: Result, b: Result) -> bool:
    def told(result: Result) -> list[Any]:
        return [(f.case.id, encoded(f.case), f.verdict.message, f.base) for f in result.findings]

    return told(a) == told(b) and a.examples == b.examples


def encoded(case: Any) -> Any:
    return map_tensors(encode, case.inputs), case.params


PLANTED = [
    ("clip.value", 0), ("prune.fraction", 0), ("prox.l1", 0), ("optim.sgd", 0), ("layer.dense", 0),
    ("schedule.polynomial", 0), ("score.wanda", 0),
]  # fmt: skip


@pytest.mark.parametrize(("name", "number"), PLANTED)
def test_a_planted_mistake_is_found_small_and_again(name: str, number: int, tmp_path: Path) -> None:
    operation = load(name)
    planted = operation.mistakes[number]
    found = search(name, Fake(operation, planted), examples=40, seed=3, most=1)
    assert found.findings, planted.description
    smallest = min(sizes(finding.case.inputs) for finding in found.findings)
    assert smallest <= 24
    assert same(found, search(name, Fake(operation, planted), examples=40, seed=3, most=1))


def test_a_finding_is_a_fixture_case_that_fails_again(tmp_path: Path) -> None:
    file, command = tmp_path / "found.json", shlex.join([
        sys.executable, str(HARNESSES / "plain.py"), "per-tensor"
    ])  # fmt: skip
    arguments = [
        "fuzz",
        "clip.global_norm",
        "--command",
        command,
        "--examples",
        "40",
        "--seed",
        "7",
    ]
    assert main([*arguments, "--output", str(file)]) == 1
    document = json.loads(file.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    (flag,) = document["flags"].values()
    assert "seed 7" in flag["description"]
    assert document["cases"]
    assert all(case["id"].startswith("fuzz-7-") for case in document["cases"])
    (case,) = fixtures.read_file(file, names())[:1]
    assert len(case.inputs["grads"]) == 2, "one tensor has the norm of all"
    report = tmp_path / "report.json"
    again = ["verify", "--command", command, "--case-file", str(file), "--json", str(report)]
    assert main(again) == 1
    (participant,) = json.loads(report.read_text(encoding="utf-8"))["participants"]
    assert {v["status"] for v in participant["verdicts"]} == {"failed"}
    assert len(participant["verdicts"]) == len(document["cases"])
    right = shlex.join([sys.executable, str(HARNESSES / "plain.py")])
    assert main(["verify", "--command", right, "--case-file", str(file)]) == 0


def test_a_crash_is_told_as_a_crash() -> None:
    class Falls(Fake):
        def ask(self, request: dict[str, Any]) -> dict[str, Any]:
            grads = request["inputs"]["grads"]
            if any(g and g.get("dtype") == "float16" and len(g["shape"]) == 1 for g in grads):
                raise Crashed("was killed by signal 11 (SIGSEGV)")
            return super().ask(request)

    found = search("clip.norm", Falls(load("clip.norm")), examples=150, seed=1)
    (finding,) = found.findings
    assert finding.verdict.status == "crashed"
    assert "SIGSEGV" in finding.verdict.message
    assert sizes(finding.case.inputs) == 1


def test_what_an_expected_failure_tells_of_is_no_finding() -> None:
    class Accepts(Fake):
        def ask(self, request: dict[str, Any]) -> dict[str, Any]:
            answer = super().ask(request)
            if "rejected" in answer:
                return {"id": request["id"], "outputs": {}}
            return answer

    operation = load("prox.l1")
    entry = Expected("prox.l1/*", "accepts everything", _any_version(), "a test")
    failing = [
        case.id
        for case in fixtures.read(operation)
        if fixtures.expectation(operation, case, {}).rejects is not None
    ]
    entries = [replace(entry, case=f"prox.l1/{case}") for case in failing]
    found = search("prox.l1", Accepts(operation), entries=entries, examples=200)
    assert (found.findings, found.failing) == ([], 0)
    assert found.known > 0
    unlisted = search("prox.l1", Accepts(operation), examples=200)
    assert unlisted.findings
    assert unlisted.failing == len(failing)


def _any_version() -> Any:
    from packaging.specifiers import SpecifierSet

    return SpecifierSet()


@pytest.mark.long
@pytest.mark.parametrize("name", [n for n in names() if n != "train.trajectory"])
def test_nothing_is_found_in_refimpl(name: str) -> None:
    found = search(name, Refimpl(), examples=25, seed=11)
    assert found.examples == 25
    assert [(f.case.id, f.verdict.message, encoded(f.case)) for f in found.findings] == []


def test_the_oracle_passes_its_own_changed_cases() -> None:
    found = search("clip.norm", Fake(load("clip.norm")), examples=60, seed=5)
    assert (found.examples, found.findings) == (60, [])


class Scripted:
    """Decisions of a generator of NumPy's, seeded."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)

    def choose(self, options: Any) -> Any:
        return options[self.number(0, len(options) - 1)]

    def number(self, low: int, high: int) -> int:
        return int(self.random.integers(low, high + 1))


def ready(name: str) -> Domain:
    frozen = fixtures.read(load(name))
    return domain(load(name), frozen, frozen)


@pytest.mark.parametrize(
    "name", ["clip.global_norm", "dist.global_norm", "optim.adam", "layer.rnn"]
)
def test_a_frozen_case_is_never_written_to(name: str) -> None:
    within = ready(name)
    before = [encoded(case) for case in within.seeds]
    before = json.loads(json.dumps(before, default=str))
    changed = 0
    for seed in range(80):
        base, case = edited(Scripted(seed), within)
        changed += repr(encoded(base)) != repr(encoded(case))
    assert json.loads(json.dumps([encoded(case) for case in within.seeds], default=str)) == before
    assert changed > 40


def test_what_no_frozen_case_has_is_not_asked() -> None:
    within = ready("penalty.l1")
    assert ("no tensor",) not in within.features
    (case,) = [c for c in within.seeds if c.id == "absent-f32"] or within.seeds[:1]
    assert within.covers(case)
    assert not within.covers(replace(case, inputs={"weights": [None]}))
    assert features({"weights": [None]}) >= {("no tensor",)}
    assert ("extent 0", "x", 1) in features({"x": np.zeros((2, 0))})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fuzz"], "give an adapter and an operation"),
        (["fuzz", "refimpl"], "give an adapter and an operation"),
        (["fuzz", "refimpl", "clip.nrom"], "did you mean clip.norm"),
        (["fuzz", "refimpl", "clip.*", "--output", "x.json"], "name a folder"),
        (["fuzz", "refimpl", "clip.norm", "--arrays", "numpy"], "give --call"),
        (["fuzz", "refimpl", "clip.norm", "--command", "x"], "no adapter"),
        (["verify", "refimpl", "--case-file", "absent.json"], "no such fixture file"),
        (["verify", "--case-file", "x", "--case", "y"], "--case-file goes with neither"),
    ],
)
def test_wrong_usage_is_one_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


def test_without_hypothesis_one_line_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    command = shlex.join([sys.executable, str(HARNESSES / "plain.py")])
    assert main(["fuzz", "clip.global_norm", "--command", command]) == 3
    assert "pip install 'secateurs[fuzz]'" in capsys.readouterr().err


def test_a_bare_function_is_searched_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine_for_fuzz.py").write_text(
        "import numpy as np\ndef tanh(x, dy):\n    y = np.tanh(x)\n    return y, dy * (1 - y)\n"
    )
    monkeypatch.chdir(tmp_path)
    arguments = ["fuzz", "layer.tanh", "--call", "mine_for_fuzz:tanh", "--examples", "40"]
    assert main(arguments) == 1
    out = capsys.readouterr().out
    assert "layer.tanh (seed 0)" in out
    assert "dx" in out
