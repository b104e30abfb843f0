"""The study pages: every number comes out of refimpl and is the oracle's, and every stage can be shown."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from adapters import study
from adapters.study import TOPICS, excerpts, formulas, html, numbers
from adapters.study.cases import case, number, settings
from adapters.study.clips import direction, flat
from adapters.study.model import StudyError, Table, slots
from adapters.study.terminal import show
from conformance import fixtures
from conformance.cases import Case
from conformance.cli import main
from conformance.compare import compare
from conformance.operations import load as load_operation
from refimpl import clipping

load = cache(study.load)
QUICK = ("global_norm", "magnitude", "step")
EVERY_TOPIC = [
    name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in TOPICS
]
LARGEST_PAGE = 1_500_000
RAISED = str.maketrans("0123456789−", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


@pytest.mark.parametrize("name", EVERY_TOPIC)
def test_every_stage_can_be_filled_for_every_choice(name: str) -> None:
    topic = load(name)
    assert topic.name == name
    assert len({stage.id for stage in topic.stages}) == len(topic.stages)
    for stage in topic.stages:
        assert stage.code, stage.id
        assert stage.source, stage.id
        formulas.text(stage.formula)
        for fill in topic.fills(stage).values():
            assert set(slots(fill.formula)) == set(fill.values)
            shown = formulas.text(fill.formula, fill.values)
            for value in fill.values.values():
                assert value in shown or value.translate(RAISED) in shown
            assert formulas.mathml(fill.formula).count("data-n=") == len(slots(fill.formula))
            formulas.inline_text(fill.says)


@pytest.mark.parametrize("name", EVERY_TOPIC)
def test_a_page_is_small_and_needs_no_network(name: str) -> None:
    page = html.page(load(name))
    assert len(page.encode()) < LARGEST_PAGE
    ours = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.findall(r"""(?:src|href)=["']?(?!#|data:)[^"'\s>]+""", ours)
    assert "default-src 'none'" in page


@pytest.mark.parametrize("name", EVERY_TOPIC)
def test_the_page_holds_what_the_terminal_prints(name: str) -> None:
    topic = load(name)
    data = html.data(topic)
    console = Console(width=4000, record=True, file=io.StringIO(), highlight=False)
    show(console, topic, topic.start())
    printed = console.export_text()
    for stage, entry in zip(topic.stages, data["stages"], strict=True):
        at = ",".join(str(topic.start()[name]) for name in stage.controls)
        _, values, _, _ = entry["fills"][at]
        for value in data["pool"][values].values():
            assert value in printed or value.translate(RAISED) in printed
        for filled in topic.fill(stage, topic.start()).blocks:
            for row in getattr(filled, "rows", ()):
                for cell in row:
                    text = cell if isinstance(cell, str) else cell.text
                    assert formulas.inline_text(text) in printed


@pytest.mark.parametrize("width", [60, 80, 100])
@pytest.mark.parametrize("name", QUICK)
def test_a_narrow_terminal_breaks_no_word_of_a_table(name: str, width: int) -> None:
    topic = load(name)
    console = Console(width=width, record=True, file=io.StringIO(), highlight=False)
    show(console, topic, topic.start())
    printed = console.export_text()
    words = set(printed.split())
    for stage in topic.stages:
        for block in topic.fill(stage, topic.start()).blocks:
            for row in getattr(block, "rows", ()):
                for cell in row if isinstance(block, Table) else ():
                    assert set(formulas.inline_text(cell).split()) <= words


def test_a_page_is_the_same_bytes_in_every_process() -> None:
    program = (
        "import hashlib, sys; from adapters.study import load, html;"
        "print(hashlib.sha256(html.page(load('n_m')).encode()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PATH": "", "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def _agrees(operation: str, chosen: Case, params: dict[str, Any], setting: Any, got: Any) -> None:
    """Hold outputs against the oracle, under a library's setting."""
    known = load_operation(operation)
    full = Case(operation, chosen.id, (), (), chosen.inputs, {**chosen.params, **params})
    expected = known.expect(full, {k: v for k, v in setting.items() if k != "in_place"})
    if expected.rejects is not None:
        assert got is None, f"{operation} {params} should have been refused"
        return
    found = compare(got, expected)
    assert found.difference is None, (operation, params, setting, str(found.difference))


CLIPS = {
    "value": ("clip_value", "clip.value"),
    "norm": ("clip_norm", "clip.norm"),
    "global_norm": ("global_norm_numbers", "clip.global_norm"),
}


@pytest.mark.parametrize("name", CLIPS)
def test_clips_are_the_oracles_at_every_stop_under_every_librarys_conventions(name: str) -> None:
    module = __import__(f"adapters.study.{CLIPS[name][0]}", fromlist=["clip"])
    operation = CLIPS[name][1]
    chosen = case(module.CASE)
    for stop in load(name).control("threshold").stops:
        for setting in settings(operation).values():
            params = {"max_norm": stop.value}
            if name == "value":
                params = {"min": -stop.value, "max": stop.value}
            with np.errstate(all="ignore"):
                grads, norm = module.clip(list(chosen.inputs["grads"]), stop.value, setting)
            got = {"grads": grads}
            if name == "norm":
                got["norms"] = norm
            elif name == "global_norm":
                got["total_norm"] = norm
            _agrees(operation, chosen, params, setting, got)


@pytest.mark.parametrize(
    ("name", "expected"), [("agc", "clip.unitwise"), ("per_example", "clip.per_example")]
)
def test_the_other_clips_are_the_oracles_at_every_stop(name: str, expected: str) -> None:
    from adapters.study import clip_per_example, clip_unitwise

    if name == "agc":
        chosen = case(clip_unitwise.CASE)
        for stop in load(name).control("lambda").stops:
            for axis in (-1, 0):
                grads, weights = list(chosen.inputs["grads"]), list(chosen.inputs["weights"])
                got = {"grads": clip_unitwise.clip(grads, weights, stop.value, unit_axis=axis)}
                _agrees(expected, chosen, {"clipping": stop.value, "unit_axis": axis}, {}, got)
        return
    chosen = case(clip_per_example.CASE)
    for stop in load(name).control("threshold").stops:
        for reduction in ("mean", "sum"):
            made, norms = clip_per_example.clip(
                list(chosen.inputs["grads"]), stop.value, reduction=reduction
            )
            params = {"max_norm": stop.value, "reduction": reduction}
            _agrees(expected, chosen, params, {}, {"grads": made, "norms": norms})


@pytest.mark.parametrize("name", CLIPS)
def test_corner_cases_are_the_fixtures_own_answers(name: str) -> None:
    module = __import__(f"adapters.study.{CLIPS[name][0]}", fromlist=["clip"])
    operation = load_operation(CLIPS[name][1])
    for _, slug in module.EDGES:
        chosen = case(f"{operation.id}/{slug}-f32")
        params = {key: number(value) for key, value in chosen.params.items()}
        for setting in settings(operation.id).values():
            dials = {k: v for k, v in setting.items() if k != "in_place"}
            expected = fixtures.expectation(operation, chosen, dials)
            try:
                with np.errstate(all="ignore"):
                    if name == "value":
                        got: Any = module._answer(list(chosen.inputs["grads"]), params, setting)
                        got = None if isinstance(got, str) else {"grads": got}
                    else:
                        key = "norms" if name == "norm" else "total_norm"
                        got = dict(
                            zip(
                                ("grads", key),
                                module.clip(
                                    list(chosen.inputs["grads"]), params["max_norm"], setting
                                ),
                                strict=True,
                            )
                        )
            except ValueError:
                got = None
            assert (got is None) == (expected.rejects is not None), (slug, setting)
            if got is not None:
                found = compare(got, expected)
                assert found.difference is None, (slug, setting, str(found.difference))


def test_the_break_point_is_exact() -> None:
    stops = {
        stop.note: stop.value
        for stop in load("global_norm").control("threshold").stops
        if stop.note
    }
    at, below = (
        stops["the break point: threshold = norm"],
        stops["one float32 below the break point"],
    )
    grads = list(case("clip.global_norm/two-tensors-f32").inputs["grads"])
    unchanged, _ = clipping.clip_global_norm(grads, at)
    changed, _ = clipping.clip_global_norm(grads, below)
    assert np.array_equal(flat(unchanged), flat(grads))
    assert not np.array_equal(flat(changed), flat(grads))


def test_by_hand_three_four_clipped_to_one() -> None:
    cosine, degrees = direction([np.array([3.0, 4.0])], [np.array([1.0, 1.0])])
    assert cosine == pytest.approx(7 / (5 * 2**0.5))
    assert degrees == pytest.approx(8.130102354156)
    assert direction([np.array([3.0, 4.0])], [np.array([0.6, 0.8])])[1] < 1e-6


def test_pytorchs_epsilon_halves_a_gradient_of_one_millionth() -> None:
    topic = load("global_norm")
    stage = next(stage for stage in topic.stages if stage.id == "eps")
    fill = topic.fill(stage, topic.start())
    assert fill.values["k"] == "0.5"
    (table,) = fill.blocks
    assert isinstance(table, Table)
    assert [row[-1] for row in table.rows] == [
        "0.9999999",
        "0.99998",
        "0.8333611",
        "0.5",
        "0.004975125",
    ]


def test_formulas_in_one_line() -> None:
    assert (
        formulas.text(r"k = \min\left(1, \frac{c}{n + 10^{-6}}\right)")
        == "k = min(1, c / (n + 10⁻⁶))"
    )
    assert formulas.text(r"\sqrt{«a»^2 + x}", {"a": "3"}) == "√(3² + x)"
    assert formulas.text(r"\frac{1}{m} \sum_b g_b") == "(1 / m) Σ_b g_b"
    with pytest.raises(StudyError, match="no text for"):
        formulas.text(r"\unheard{x}")


@pytest.mark.parametrize(
    ("value", "shown"),
    [(np.float32(0.1), "0.1"), (np.float32(2.0), "2"), (-0.0, "−0"), (np.float32(1e-45), "1e−45"),
     (float("nan"), "NaN"), (float("-inf"), "−∞"), (np.float32(3e20), "3e20"), (True, "yes"), (7, "7")],
)  # fmt: skip
def test_numbers_are_the_shortest_that_give_the_bits_back(value: Any, shown: str) -> None:
    assert numbers.exact(value) == shown


def test_lines_that_are_no_longer_there_are_an_error() -> None:
    part = excerpts.excerpt(clipping._limited, "limited = xp.where")
    text = (Path(__file__).parents[2] / part.path).read_text(encoding="utf-8").splitlines()
    assert text[part.first - 1].strip() == part.lines[0]
    with pytest.raises(StudyError, match="no line with"):
        excerpts.excerpt(clipping._limited, "import this")


@dataclass
class Answer:
    exit_code: int
    output: str


@pytest.fixture
def invoke(capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    def run(*arguments: str) -> Answer:
        code = main(["study", *arguments])
        said = capsys.readouterr()
        return Answer(code, said.out + said.err)

    return run


def test_without_a_topic_the_topics_are_listed(invoke: Callable[..., Answer]) -> None:
    answer = invoke()
    assert answer.exit_code == 0
    assert all(name in answer.output for name in TOPICS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["globalnorm"], "did you mean"),
        (["global_norm", "--set", "threshold=17"], "has no stop"),
        (["global_norm", "--set", "limit=17"], "has no control"),
        (["global_norm", "--stage", "nothing"], "has no stage"),
        (["global_norm", "--threshold", "1"], "belongs to --input"),
        (["global_norm", "--input", "missing.npy"], "No such file"),
        (["agc", "--input", "missing.npy"], "goes with"),
        (["global_norm", "--html", "no/such/folder/f.html"], "cannot write"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    arguments: list[str], words: str, invoke: Callable[..., Answer]
) -> None:
    answer = invoke(*arguments)
    assert answer.exit_code == 2
    assert words in answer.output
    assert len(answer.output.strip().splitlines()) == 1


def test_a_control_can_be_set_and_one_stage_be_shown(invoke: Callable[..., Answer]) -> None:
    answer = invoke(
        "global_norm", "--stage", "coefficient", "--set", "threshold=1", "--set", "dialect=torch"
    )
    assert answer.exit_code == 0
    assert "k = min(1, 1 / (5.5957575 + 10⁻⁶)) = 0.17870678" in answer.output


def test_tensors_of_ones_own(tmp_path: Path, invoke: Callable[..., Answer]) -> None:
    file = tmp_path / "my.npy"
    np.save(file, np.array([3.0, -4.0], np.float32))
    answer = invoke("global_norm", "--input", str(file), "--threshold", "1")
    assert answer.exit_code == 0
    assert "n = √(3² + (−4)²) = 5" in answer.output
    assert " = −4 · min(1, 1 / 5) = −0.8" in answer.output
    assert "[0.6, −0.8]" in answer.output
    assert "1 tensor, 2 elements" in answer.output
    page = tmp_path / "page.html"
    assert invoke("value", "--input", str(file), "--html", str(page)).exit_code == 0
    found = re.search(r'id="data">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    assert json.loads(found[1])["controls"][0]["stops"][3] == ["2", "half"]


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors", ".csv"])
def test_a_damaged_file_is_one_line(
    tmp_path: Path, suffix: str, invoke: Callable[..., Answer]
) -> None:
    file = tmp_path / f"bad{suffix}"
    file.write_bytes(b"PK\x03\x04 nothing that anyone could read")
    answer = invoke("norm", "--input", str(file))
    assert answer.exit_code == 2
    assert len(answer.output.strip().splitlines()) == 1


def test_integers_and_infinite_gradients_are_refused(
    tmp_path: Path, invoke: Callable[..., Answer]
) -> None:
    file = tmp_path / "my.npy"
    np.save(file, np.arange(3))
    assert "expected floating-point" in invoke("norm", "--input", str(file)).output
    np.save(file, np.array([1.0, np.inf]))
    assert "nothing to study" in invoke("norm", "--input", str(file)).output
