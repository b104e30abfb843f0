"""The suite from a test file and from the command line: bare functions of several array libraries."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import conformance
from conformance.arrays import named
from conformance.calls import answer
from conformance.cases import Case
from conformance.cli import main
from conformance.operations import load
from conformance.runner import select
from refimpl import clipping

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

FEW = ("two-tensors-*", "one-above-one-below-*", "below-*", "absent-*", "negative-limit-*", "tied-f32",
       "infinite-limit-*", "complex-*")  # fmt: skip
MODULE = """
import numpy as np
import refimpl.clipping

right = refimpl.clipping.clip_global_norm


def limited(grads, min, max):
    return [None if g is None else np.clip(g, min, max) for g in grads]


def per_tensor(grads, max_norm, ord=2):
    print("noise on standard output")
    clipped = [None if g is None else right([g], max_norm, ord)[0][0] for g in grads]
    return clipped, right(grads, max_norm, ord)[1]


def dies(grads, max_norm, ord=2):
    if len(grads) == 2:
        import os
        os._exit(9)
    return right(grads, max_norm, ord)


nothing = 3
"""


def in_place(grads: list[Any], max_norm: float, ord: float = 2) -> Any:
    """As ``torch.nn.utils.clip_grad_norm_``: writes to the gradients and returns the norm."""
    clipped, total = clipping.clip_global_norm(grads, max_norm, ord)
    for g, c in zip(grads, clipped, strict=True):
        if g is not None:
            g[...] = c
    return total


@pytest.mark.parametrize("arrays", ["numpy", "torch", "array_api_strict"])
def test_a_right_function_passes(arrays: str) -> None:
    if arrays != "numpy":
        pytest.importorskip(arrays)
    conformance.check("clip.global_norm", clipping.clip_global_norm, arrays=arrays, cases=FEW)


@pytest.mark.slow
def test_a_right_function_passes_on_tensorflow() -> None:
    pytest.importorskip("tensorflow")

    def total(grads: list[Any], max_norm: float, ord: float = 2) -> Any:
        import tensorflow as tf

        back = [None if g is None else g.numpy() for g in grads]
        clipped, norm = clipping.clip_global_norm(back, max_norm, ord)
        return [None if g is None else tf.constant(g) for g in clipped], tf.constant(norm)

    conformance.check(
        "clip.global_norm", total, arrays="tensorflow", cases=["two-tensors-f32", "absent-*"]
    )


@pytest.mark.parametrize("arrays", ["numpy", "torch"])
def test_outputs_may_be_written_to_the_inputs(arrays: str) -> None:
    if arrays != "numpy":
        pytest.importorskip(arrays)
    cases = ("two-tensors-*", "absent-*", "below-*")
    conformance.check("clip.global_norm", in_place, arrays=arrays, cases=cases)


@pytest.mark.parametrize(
    "form", [tuple, list, lambda pair: {"total_norm": pair[1], "grads": pair[0]}]
)
def test_outputs_come_as_tuple_list_or_dict(form: Any) -> None:
    def function(grads: Any, max_norm: float, ord: float) -> Any:
        return form(clipping.clip_global_norm(grads, max_norm, ord))

    conformance.check("clip.global_norm", function, cases=FEW)


def test_one_output_comes_as_it_is() -> None:
    conformance.check("clip.value", clipping.clip_value, cases="range-*")


def test_a_python_number_has_no_format_of_its_own() -> None:
    def loss(x: Any, targets: Any, reduction: str = "mean") -> Any:
        difference = x.astype(np.float64) - targets
        value = float(np.mean(difference**2))
        return value, (2 / x.size * difference).astype(x.dtype)

    conformance.check("loss.mse", loss, cases=["basic-f32", "basic-f64", "by-hand-f32"])


def test_the_message_is_the_diagnosis() -> None:
    def per_tensor(grads: Any, max_norm: float, ord: float = 2) -> Any:
        clipped = [
            None if g is None else clipping.clip_global_norm([g], max_norm, ord)[0][0]
            for g in grads
        ]
        return clipped, clipping.clip_global_norm(grads, max_norm, ord)[1]

    with pytest.raises(AssertionError) as caught:
        conformance.check("clip.global_norm", per_tensor, cases=["one-above-*", "below-*"])
    message = str(caught.value)
    assert 'behaves like the known mistake "norm per tensor"' in message
    assert "(keras-team/keras#13575)" in message
    assert "one-above-one-below-f32 failed: grads[0][0]: got 0.6, expected 0.597" in message


def test_writing_to_the_inputs_beside_the_outputs_is_a_failure() -> None:
    def writes(grads: Any, max_norm: float, ord: float = 2) -> Any:
        result = clipping.clip_global_norm(grads, max_norm, ord)
        grads[0][...] = 7
        return result

    with pytest.raises(AssertionError, match="wrote to the caller's grads"):
        conformance.check("clip.global_norm", writes, cases="two-tensors-f32")
    declared = {"in_place": "documented"}
    conformance.check("clip.global_norm", writes, cases="two-tensors-f32", dialect=declared)


def test_a_dialect_is_named_or_written_out() -> None:
    def shifted(grads: Any, max_norm: float, ord: float = 2) -> Any:
        return clipping.clip_global_norm(grads, max_norm, ord, eps_at="denominator", eps=1e-6)

    chosen = ("micro-threshold-*", "two-tensors-f64")
    with pytest.raises(AssertionError, match=r"eps = 1e-6 added to the norm \(as torch\)"):
        conformance.check("clip.global_norm", shifted, cases=chosen)
    for dialect in ({"eps_at": "denominator", "eps": 1e-6}, "torch"):
        conformance.check("clip.global_norm", shifted, cases="micro-threshold-f32", dialect=dialect)


def test_a_parameter_that_is_not_taken_is_left_out_at_its_default() -> None:
    def two(grads: Any, max_norm: float) -> Any:
        return clipping.clip_global_norm(grads, max_norm)

    conformance.check("clip.global_norm", two, cases=["two-tensors-f32", "ord-3-f32"])
    with pytest.raises(ValueError, match="no case could be asked: the function takes no ord"):
        conformance.check("clip.global_norm", two, cases="ord-3-*")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("clip.globl_norm", in_place), "no operation 'clip.globl_norm'; there are: "),
        (
            ("clip.global_norm", in_place, "matlab"),
            "unknown arrays 'matlab'; known are numpy, torch",
        ),
        (("clip.global_norm", in_place, "cupy"), "arrays 'cupy': cupy is not installed"),
        (("clip.global_norm", in_place, "numpy", "caffe"), "no dialect 'caffe'; there are: torch"),
        (("clip.global_norm", in_place, "numpy", {"colour": 3}), "has no dial 'colour'"),
        (
            ("clip.global_norm", in_place, "numpy", None, "two-tensor-f32"),
            "no case 'two-tensor-f32'",
        ),
        (("clip.global_norm", lambda g: g), "the function takes no max_norm"),
        (("clip.value", lambda grads, other, **p: grads), "missing a required argument: 'other'"),
    ],
)
def test_wrong_usage_is_a_value_error(arguments: tuple[Any, ...], words: str) -> None:
    if arguments[2:3] == ("cupy",) and importlib.util.find_spec("cupy"):
        pytest.skip("cupy is installed")
    with pytest.raises(ValueError, match=re.escape(words)):
        conformance.check(*arguments)


def test_what_a_function_raises_is_told_apart() -> None:
    operation, library = load("clip.global_norm"), named("numpy")
    (case,) = select(["clip.global_norm"], ["two-tensors-f32"])

    def raising(error: Exception) -> Any:
        def function(grads: Any, max_norm: float, ord: float) -> Any:
            raise error

        return answer(function, operation, library, case)

    assert raising(ValueError("no")) == {"rejected": {"message": "ValueError: no"}}
    assert raising(KeyError("k"))["errored"]["message"] == "KeyError: 'k'"
    nothing = answer(lambda grads, max_norm, ord: "done", operation, library, case)
    assert nothing["errored"]["message"].startswith("what it returned cannot be read: FormatError")


@conformance.cases("clip.value", case="range-f32")
def test_cases_parametrise_a_test(case: Case) -> None:
    assert case.operation == "clip.value"
    conformance.check(case, clipping.clip_value)
    with pytest.raises(AssertionError, match=case.id):
        conformance.check(case, lambda grads, range: grads)


def test_cases_of_an_unknown_operation_are_an_error() -> None:
    with pytest.raises(ValueError, match="no operation matches 'clup"):
        conformance.cases("clup.*")


def test_a_framework_is_imported_only_when_it_is_named() -> None:
    code = (
        "import sys, conformance, conformance.pytest_plugin, conformance.checking\n"
        "print([m for m in ('torch', 'tensorflow', 'jax', 'refimpl', 'adapters') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- verify --call --------------------------------------------------------------------------------


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the folder where the user works."""
    (tmp_path / "my_clips.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return "my_clips"


def call(*words: str) -> int:
    few = [
        word for name in ("two-tensors-f32", "below-f32", "absent-f32") for word in ("--case", name)
    ]
    return main(["verify", "--operation", "clip.global_norm", *few, *words])


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--call", "my_clips:right"), 0, "3 passed, 0 failed"),
        (("--call", "my_clips:right", "--arrays", "array_api_strict"), 0, "3 passed, 0 failed"),
        (("--call", "my_clips:per_tensor"), 1, 'behaves like the known mistake "norm per tensor"'),
        (("--call", "my_clips:dies"), 1, "2 crashed"),
        (("--call", "my_clips:limited"), 2, "0 passed, 0 failed, 3 unsupported"),
        (("--call", "my_clips:absent"), 3, "cannot import my_clips:absent"),
        (("--call", "no_such_module:clip"), 3, "No module named 'no_such_module'"),
        (("--call", "my_clips:nothing"), 3, "my_clips:nothing is not callable"),
    ],
)
def test_a_function_is_called_by_its_name(
    words: tuple[str, ...], code: int, said: str, mine: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*words) == code
    assert said in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--call", "my_clips:right"), "--call needs one --operation"),
        (("--call", "my_clips:right", "--operation", "clip.*"), "--call needs one --operation"),
        (("--call", "my_clips.right", "--operation", "clip.value"), "package.module:function"),
        (("--arrays", "torch"), "give --call"),
        (("--arrays", "matlab"), "'matlab' is not one of 'numpy', 'torch'"),
    ],
)
def test_wrong_usage_of_call_is_one_line(
    arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert said in error


# --- the pytest plugin ----------------------------------------------------------------------------


def run_pytest(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    installed = entry_points(group="pytest11", name="secateurs")
    plugin = [] if installed else ["-p", "conformance.pytest_plugin"]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *plugin, *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_plugin_adds_a_test_for_each_operation(tmp_path: Path) -> None:
    (tmp_path / "test_own.py").write_text("def test_own():\n    assert True\n")
    operations = ("--secateurs-operation", "clip.value", "--secateurs-operation", "score.m[ag]*")
    done = run_pytest(tmp_path, "-q", "-rA", "--secateurs", "refimpl", *operations)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("test_own.py::test_own", "secateurs::refimpl/clip.value",
                 "secateurs::refimpl/score.magnitude"):  # fmt: skip
        assert f"PASSED {name}" in done.stdout


def test_the_plugin_is_quiet_without_its_option(tmp_path: Path) -> None:
    (tmp_path / "test_own.py").write_text("def test_own():\n    assert True\n")
    assert "1 passed" in run_pytest(tmp_path, "-q").stdout


def test_the_plugin_refuses_an_unknown_adapter(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, "-q", "--secateurs", "tourch")
    assert done.returncode == 4
    assert "--secateurs tourch: there are only " in done.stderr + done.stdout
