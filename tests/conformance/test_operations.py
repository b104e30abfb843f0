"""What must hold for every operation, whoever wrote it: nothing here is about one of them."""

from __future__ import annotations

import ast
import math
from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

import conformance
from conformance import fixtures
from conformance.build import build, stale
from conformance.cases import Case
from conformance.compare import compare, differs
from conformance.operation import Dial, Expectation, Operation, leaves, map_tensors, sizes
from conformance.operations import load, names

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

SMALL = 600
"""Elements: enough for every edge, few enough for the oracle to be asked often."""
UNSEEN = {"in_place"}
"""Dials that do not show in the outputs."""


@cache
def small_cases(name: str) -> list[Case]:
    return [c for c in load(name).generate() if sizes(c.inputs) <= SMALL and load(name).attributed]


def apart(a: Expectation, b: Expectation) -> bool:
    """Say whether two expectations part by more than ten times the tolerance, or in asking for the bits."""
    if a.rejects is not None or b.rejects is not None:
        return (a.rejects is None) != (b.rejects is None)
    if exactness(a) != exactness(b):
        return True
    tensors = map_tensors(lambda leaf: leaf.tensor, a.outputs)
    tenfold = map_tensors(lambda leaf: replace(leaf, ulp=10 * leaf.ulp), b.outputs)
    return compare(tensors, Expectation(tenfold)).difference is not None


def exactness(expected: Expectation) -> list[bool]:
    return [leaf is not None and leaf.ulp == 0 for _, leaf in leaves(expected.outputs)]


@cache
def canonical(name: str, case_id: str) -> Expectation:
    return load(name).expect(next(c for c in small_cases(name) if c.id == case_id))


def settings(dial: Dial) -> list[dict[str, Any]]:
    return [{**dial.context, dial.name: value} for value in (dial.default, *dial.others)]


def own_dials(operation: Operation) -> list[Dial]:
    return [dial for dial in operation.dials if dial.name not in UNSEEN]


QUICK = [name for name in names() if load(name).attributed]
"""Operations whose expectation takes no seconds; the others have tests of their own."""
DIALS = [(name, dial.name) for name in QUICK for dial in own_dials(load(name))]
MISTAKES = [(name, mistake.name) for name in QUICK for mistake in load(name).mistakes]


@pytest.mark.parametrize("name", names())
def test_module_is_complete(name: str) -> None:
    operation = load(name)
    assert operation.id == name
    assert operation.mistakes, "every operation has known mistakes"
    cases = operation.generate()
    assert len({case.id for case in cases}) == len(cases) > 0
    used = {flag for case in cases for flag in case.flags}
    assert used == set(operation.flags), "a flag that no case has"
    tested = {label for case in cases for label in case.constraints}
    assert tested == set(operation.constraints), "a constraint that no case tests"
    for flag in operation.flags.values():
        assert flag.kind != "KNOWN_BUG" or flag.links, "a known bug names its report"


@pytest.mark.parametrize("name", names())
def test_every_flag_is_of_three_cases_or_more(name: str) -> None:
    used = Counter(flag for case in fixtures.read(load(name)) for flag in case.flags)
    assert {flag: count for flag, count in used.items() if count < 3} == {}


def test_there_are_thousands_of_cases_and_many_more_numbers() -> None:
    cases, numbers = 0, 0
    for name in names():
        for case in fixtures.read(load(name)):
            cases += 1
            canonical = case.frozen["expected"]["canonical"].get("outputs", {})
            numbers += sum(
                math.prod(leaf["shape"]) for leaf in map_written(canonical) if leaf is not None
            )
    assert cases >= 2000
    assert numbers >= 10_000


def map_written(tree: Any) -> list[Any]:
    """Return the tensors of outputs as they are written in a file."""
    if isinstance(tree, dict) and "dtype" not in tree:
        return [leaf for branch in tree.values() for leaf in map_written(branch)]
    if isinstance(tree, list):
        return [leaf for branch in tree for leaf in map_written(branch)]
    return [tree]


@pytest.mark.parametrize(("name", "mistake_name"), MISTAKES)
def test_mistake_is_caught_in_float32(name: str, mistake_name: str) -> None:
    operation = load(name)
    mistake = next(m for m in operation.mistakes if m.name == mistake_name)
    for case in operation.generate():
        without_tensors = not case.inputs
        if not (case.id.endswith("-f32") or without_tensors) or sizes(case.inputs) > SMALL:
            continue
        mistaken = operation.expect(case, oracle=mistake.oracle)
        if differs(mistaken, canonical(name, case.id)):
            return
    pytest.fail(f"no float32 case of {name} catches: {mistake.description}")


@pytest.mark.parametrize(("name", "dial_name"), DIALS)
def test_settings_of_a_dial_are_told_apart(name: str, dial_name: str) -> None:
    operation = load(name)
    for a, b in combinations(settings(operation.dial(dial_name)), 2):
        assert any(
            apart(operation.expect(case, a), operation.expect(case, b))
            for case in small_cases(name)
        ), f"no case tells {a} from {b}"


@pytest.mark.parametrize(("name", "dial_name"), DIALS)
def test_refimpl_follows_the_dial(name: str, dial_name: str) -> None:
    operation = load(name)
    for setting in settings(operation.dial(dial_name))[1:]:
        for case in small_cases(name):
            check_refimpl(operation, case, setting)


def check_refimpl(operation: Operation, case: Case, setting: dict[str, Any]) -> None:
    from adapters.base import decode_writable
    from adapters.refimpl import adapter
    from conformance.formats import encode
    from conformance.judge import map_outputs
    from conformance.runner import request

    asked = request(case)
    asked["params"] = asked["params"] | fixtures.parameters(setting)
    assert decode_writable is not None
    answer = adapter.run(asked)
    expected = operation.expect(case, setting)
    if expected.rejects is not None:
        assert "rejected" in answer, (
            f"{case.full_id} {setting}: must be refused: {expected.rejects}"
        )
        return
    assert "outputs" in answer, f"{case.full_id} {setting}: {answer}"
    assert "mutated" not in answer
    outputs = map_outputs(answer["outputs"])
    difference = compare(outputs, expected).difference
    assert difference is None, f"{case.full_id} {setting}: {difference}"
    assert map_tensors(encode, outputs) == answer["outputs"]


@pytest.mark.parametrize("name", QUICK)
def test_the_order_of_named_inputs_means_nothing(name: str) -> None:
    operation = load(name)
    for case in small_cases(name)[::5]:
        turned = replace(case, inputs=dict(reversed(case.inputs.items())))
        assert not differs(operation.expect(turned), operation.expect(case)), case.full_id


@pytest.mark.parametrize("name", names())
def test_stored_expectations_are_those_of_the_oracle(name: str) -> None:
    operation = load(name)
    stored = {case.id: case for case in fixtures.read(operation)}
    generated = operation.generate()
    assert list(stored) == [case.id for case in generated]
    for case in generated[::7]:
        if sizes(case.inputs) <= SMALL and operation.attributed:
            frozen = fixtures.expectation(operation, stored[case.id], {})
            assert not differs(frozen, operation.expect(case))


@pytest.mark.slow
@pytest.mark.parametrize("name", names())
def test_fixture_files_are_reproduced_byte_for_byte(name: str) -> None:
    assert stale(build(name), fixtures.FOLDER) == []


def test_oracle_does_not_know_refimpl_or_adapters() -> None:
    root = Path(conformance.__file__).parent
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for module in modules:
                assert module.split(".")[0] not in {"refimpl", "adapters", "torch", "tensorflow"}, (
                    path
                )
