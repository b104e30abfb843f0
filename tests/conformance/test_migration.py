"""From one implementation to another: what differs, both answers, how far, and what to do about it."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest

from conformance import recorded
from conformance.cli import main
from conformance.migration import advice, comparison, effect
from conformance.operation import Expectation
from conformance.operations import load, names
from conformance.recorded import Record, Tally
from conformance.runner import select


def about(version: str) -> dict[str, str]:
    keys = ("name", "version", "language", "language_version", "homepage")
    return dict.fromkeys(keys, "") | {"version": version}


ONE = "clip.global_norm"
EPS = "eps_at=denominator,eps=1e-6"


def record(name: str, **changes: object) -> Record:
    tally = Tally(249, {"passed": 249}, 249, 0.0)
    for key, value in changes.items():
        setattr(tally, key, value)
    return Record(name, "1", about("1"), {ONE: tally})


@pytest.fixture
def plain() -> Record:
    return record("plain")


@pytest.fixture
def with_eps() -> Record:
    # With 1e-6 added to a norm of 1e-6 the factor is a half: the answer is -5e-7 for -1e-6.
    return record(
        "eps",
        dialect={"eps_at": "denominator", "eps": 1e-6},
        diverging={EPS: {"at-one-millionth-f32": 0.5, "two-tensors-f64": 1.79e-7}},
    )


def test_a_dial_is_told_by_its_smallest_case_with_both_answers(
    plain: Record, with_eps: Record
) -> None:
    found = comparison(with_eps, plain, [ONE])
    assert (found.alike, found.only) == ([], ([], []))
    (parting,) = found.parting
    assert parting.differing == 2
    (difference,) = parting.found
    assert difference.title == "eps_at: eps denominator (1e-6), plain none"
    assert sorted(difference.cases) == ["at-one-millionth-f32", "two-tensors-f64"]
    assert difference.example == "clip.global_norm/at-one-millionth-f32"
    assert "grads[0] [-1e-06]" in difference.question
    assert difference.answers == ("grads[0] [-5e-07]", "grads[0] [-1e-06]")
    # Of an answer of -5e-7, the change to -1e-6 is the whole of it.
    assert difference.size == "up to 1"
    assert comparison(plain, with_eps, [ONE]).parting[0].found[0].size == "up to 0.5"
    texts = dict(difference.advice)
    assert "max_norm / (norm + 1e-6)" in texts[0]
    assert "max_norm / norm" in texts[1]


def test_those_that_do_the_same_are_alike(with_eps: Record, plain: Record) -> None:
    twin = copy.deepcopy(with_eps)
    twin.name = "twin"
    assert comparison(with_eps, twin, [ONE]).alike == [ONE]
    assert comparison(plain, record("other"), [ONE]).parting == []


def test_a_setting_that_both_share_is_not_told(plain: Record, with_eps: Record) -> None:
    # norm=naive acts on one side only because the other's answer is canonical by another way.
    other = copy.deepcopy(with_eps)
    other.name = "both"
    other.operations[ONE].dialect["norm"] = "naive"
    plain.operations[ONE].dialect["norm"] = "naive"
    other.operations[ONE].diverging = {f"{EPS} norm=naive": {"at-one-millionth-f32": 0.5}}
    (difference,) = comparison(other, plain, [ONE]).parting[0].found
    assert difference.title.startswith("eps_at: ")


def test_a_failure_is_told_with_its_reason_and_what_was_answered(plain: Record) -> None:
    entry = {"status": "expected_failure", "reason": "it loses the sign", "message": "m"}
    wrong = record("wrong", failing={"below-f32": entry | {"got": "grads[0] [9.0]"}})
    (difference,) = comparison(plain, wrong, [ONE]).parting[0].found
    assert difference.title == "wrong fails: it loses the sign"
    assert difference.answers[1] == "grads[0] [9.0]"
    assert difference.answers[0].startswith("grads[0] [")


def test_two_that_fail_to_refuse_are_alike() -> None:
    entry = {"status": "expected_failure", "message": "must be refused: ord must be > 0"}
    one, two = (record(n, failing={"ord-0-f32": dict(entry)}) for n in ("one", "two"))
    two.operations[ONE].failing["ord-0-f32"]["got"] = "grads[0] [1.0]"
    assert comparison(one, two, [ONE]).parting == []


def test_what_only_one_of_them_has(plain: Record) -> None:
    lacking = record("lacking", counts={"unsupported": 249}, unsupported={"none": ["*"]})
    assert comparison(plain, lacking, [ONE]).only == ([ONE], [])
    assert comparison(lacking, plain, [ONE]).only == ([], [ONE])


def test_cases_that_one_was_not_asked_do_not_count(plain: Record, with_eps: Record) -> None:
    plain.operations[ONE].unsupported = {"no float64": ["two-tensors-f64"]}
    (parting,) = comparison(with_eps, plain, [ONE]).parting
    assert (parting.differing, parting.both) == (1, len(select([ONE])) - 1)


def test_an_effect_without_a_number_is_in_words() -> None:
    (case,) = select([ONE], ["infinite-limit-f32"])
    right, wrong = (load(ONE).expect(case, s) for s in ({}, {"infinite_limit": "nan"}))
    assert effect(right, wrong) == (0.0, "NaN or inf")
    assert effect(right, Expectation(rejects="no")) == (0.0, "refused")


def test_every_setting_of_every_dial_has_advice() -> None:
    lacking = [
        f"{name}: {dial.name} = {value}"
        for name in names()
        for dial in load(name).all_dials
        for value in (dial.default, *dial.others, *dial.left_open)
        if not advice(load(name), dial.name, {dial.name: value}, "nobody")
    ]
    assert not lacking, f"write it into data/advice.toml: {'; '.join(lacking)}"


def test_advice_is_filled_in_and_a_librarys_own_comes_first() -> None:
    setting = {"eps_at": "denominator", "eps": 1e-8}
    assert "norm + 1e-8" in advice(load(ONE), "eps_at", setting, "torch")
    assert "use_norm" in advice(load(ONE), "eps_at", setting, "tensorflow")
    known = {"reject": "error_if_nonfinite"}
    assert known["reject"] in advice(load(ONE), "nonfinite", {"nonfinite": "reject"}, "torch")


def test_the_command_prints_it(
    plain: Record,
    with_eps: Record,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(recorded, "FOLDER", tmp_path)
    for each in (plain, with_eps):
        (tmp_path / f"{each.name}.json").write_text(each.text())
    assert main(["diff", "eps", "plain"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("eps 1 → plain 1\n")
    count = len(select([ONE]))
    assert f"2 of the {count} cases that both can be asked differ" in out
    assert re.search(r"as eps, with plain: +scale by hand", out)
    assert main(["diff", "eps", "plain", "--operation", "optim.*"]) == 0
    assert main(["diff", "eps", "plan"]) == 2
    assert "did you mean plain" in capsys.readouterr().err


def test_explain_says_who_uses_which_setting(
    plain: Record,
    with_eps: Record,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(recorded, "FOLDER", tmp_path)
    for each in (plain, with_eps):
        (tmp_path / f"{each.name}.json").write_text(each.text())
    assert main(["explain", ONE]) == 0
    out = capsys.readouterr().out.partition("who uses which setting")[2]
    # torch and tensorflow have no record here: their dialects are the operation's own.
    assert re.search(r"eps_at +denominator: eps, torch; none \(canonical\): plain, tensorflow", out)
    assert re.search(r"canonical in all +plain\n", out)
