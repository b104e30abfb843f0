"""The command: exit codes, errors of one line, reports that read well in a pipe."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conformance import expected, participants
from conformance.cli import main
from conformance.commands.snippet import snippet
from conformance.operation import leaves
from conformance.runner import select

ROOT = Path(__file__).resolve().parents[2]
HARNESSES = Path(__file__).parent / "harnesses"
ONE = ("--operation", "clip.global_norm", "--case", "two-tensors-f32")


def harness(*words: str) -> str:
    name = "broken.py" if len(words) > 1 else "plain.py"
    return shlex.join([sys.executable, str(HARNESSES / name), *words])


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """Adapters as a user has them: one that works; more can be written to ``tmp_path``."""
    found = {"refimpl": "adapters.refimpl"}
    monkeypatch.setattr(participants, "adapters", lambda: found)
    return found


def ghost(
    name: str, source: str, known: dict[str, str], monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    """Install an adapter by entry point in a folder on the path."""
    info = folder / f"{name}-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[secateurs.adapters]\n{name} = {name}_adapter:a\n")
    (folder / f"{name}_adapter.py").write_text(source)
    known[name] = f"{name}_adapter"
    before = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(folder), before))))
    monkeypatch.syspath_prepend(str(folder))


def test_a_harness_from_the_contract_alone_passes(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(
        capsys, "verify", "--command", harness(), "--operation", "clip.global_norm"
    )
    assert (code, err) == (0, "")
    assert re.search(r"plain 1\.0:  \d{3} passed, 0 failed, \d+ unsupported; \d{3} canonical", out)


@pytest.mark.parametrize(
    ("mistake", "case"),
    [("per-tensor", "one-above-one-below-f32"), ("max-for-min", "two-tensors-f64")],
)
def test_a_planted_mistake_is_found_and_the_case_named(
    mistake: str, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = call(
        capsys, "verify", "--command", harness(mistake), "--operation", "clip.global_norm"
    )
    assert code == 1
    found = out.index(f"failed     clip.global_norm/{case}\n")
    assert re.match(r"\s+grads\[\d\]\[[\d, ]+\]: got \S+, expected ", out[found:].split("\n", 1)[1])


def test_the_report_as_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    code, _, _ = call(
        capsys, "verify", "--command", harness("per-tensor"), "--json", str(file),
        "--operation", "clip.global_norm",
    )  # fmt: skip
    assert code == 1
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
    document = json.loads(file.read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert document["schema"] == "secateurs-report-1"
    (participant,) = document["participants"]
    assert participant["implementation"]["name"] == "plain"
    verdicts = {verdict["case"]: verdict for verdict in participant["verdicts"]}
    assert verdicts["clip.global_norm/two-tensors-bf16"]["status"] == "unsupported"
    failed = verdicts["clip.global_norm/one-above-one-below-f32"]
    assert (failed["status"], failed["canonical"]) == ("failed", False)
    # [3, 4] by its own norm is clipped to [0.6, 0.8]; by the joint norm 5.025 to 3/5.025.
    assert failed["difference"].startswith("grads[0][0]: got 0.6, expected 0.597022")
    assert document["summary"] == participant["summary"]
    assert document["summary"]["failed"] == sum(v["status"] == "failed" for v in verdicts.values())
    assert sum(participant["summary"].values()) - participant["summary"]["canonical"] == len(
        verdicts
    )


def test_the_report_as_markdown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "report.md"
    call(capsys, "verify", "--command", harness(), *ONE, "--markdown", str(file))
    assert "| clip.global_norm | 1 | 1 | 0 | 0 | 1/1 |" in file.read_text(encoding="utf-8")


def test_a_pipe_gets_eighty_columns_and_no_colours(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = call(
        capsys, "verify", "--command", harness("per-tensor"), "--operation", "clip.global_norm"
    )
    assert "\x1b" not in out
    assert max(len(line) for line in out.splitlines()) <= 80
    assert not any(line.endswith(" ") for line in out.splitlines())


def test_failing_cases_beyond_the_limit_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("verify", "--command", harness("per-tensor"), "--operation", "clip.global_norm")
    _, some, _ = call(capsys, *arguments, "--limit", "2")
    _, whole, _ = call(capsys, *arguments, "--limit", "0")
    total = len(re.findall(r"^failed     ", whole, re.M))
    assert total > 10
    assert len(re.findall(r"^failed     ", some, re.M)) == 2
    assert f"… and {total - 2} more" in some


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("verify", "--operation", "clip.globl_norm"), 2, "did you mean clip.global_norm"),
        (("verify", "--case", "clip.global_norm/two-tensor-f32"), 2, "two-tensors-f32"),
        (("verify", "--case", "nonsense", "--operation", "clip.global_norm"), 2, "no case"),
        (("verify", "tourch"), 3, "no adapter 'tourch' is installed"),
        (("verify", "--timeout", "0"), 2, "--timeout"),
        (("verify", "--jobs", "0"), 2, "--jobs"),
        (("verify", "--frob"), 2, "see secateurs verify --help"),
        (("verify", "--json", "/no/such/folder/report.json"), 2, "cannot write"),
        (("verify", "--command", "", *ONE), 2, "--command is empty"),
        (("verify", "--command", "'unclosed", *ONE), 2, "No closing quotation"),
        (("explain", "clip.norms"), 2, "did you mean clip.norm"),
        (("explain",), 2, "Missing argument"),
        (("show", "clip.global_norm/nothing"), 2, "no case"),
        (("show", "f32"), 2, "is the end of"),
        (("frob",), 2, "No such command"),
    ],
)
def test_wrong_usage_is_one_line(
    arguments: tuple[str, ...], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found, out, err = call(capsys, *arguments)
    assert (found, out, err.count("\n")) == (code, "", 1)
    assert err.startswith("secateurs: ")
    assert words in err


def test_help_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (("--help",), ("verify", "--help"), ("--version",)):
        code, out, err = call(capsys, *arguments)
        assert (code, err) == (0, "")
        assert out


def test_debug_lets_the_traceback_through(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (("--debug", "explain", "x"), ("explain", "--debug", "x")):
        code, _, err = call(capsys, *arguments)
        assert code == 2
        assert "Traceback" in err
    assert "Traceback" not in call(capsys, "explain", "x")[2]


def test_a_fault_of_the_suite_is_one_line_and_not_a_difference(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> Any:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("conformance.runner.fixtures.read", fail)
    code, _, err = call(capsys, "verify", "--command", harness(), *ONE)
    assert code == 2
    assert err == (
        "secateurs: internal error: RuntimeError: two lines;"
        " run again with --debug for the traceback\n"
    )


def test_an_adapter_is_found_by_its_entry_point(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "verify", "refimpl", *ONE)
    assert code == 0
    assert "1 passed, 0 failed; 1 canonical" in out


def test_a_missing_framework_fails_only_where_it_is_named(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    known: dict[str, str],
    tmp_path: Path,
) -> None:
    ghost("ghost", "import ghostframework\n", known, monkeypatch, tmp_path)
    code, out, err = call(capsys, "verify", *ONE)
    assert (code, err) == (0, "")
    assert "ghost: not installed" in out
    assert "ghostframework" in out
    assert "1 passed, 0 failed" in out
    assert call(capsys, "verify", "ghost", "refimpl", *ONE)[0] == 3
    code, out, _ = call(capsys, "list")
    assert re.search(r"ghost +not installed: ghostframework is missing", out)
    assert re.search(r"refimpl +installed", out)


def test_a_library_without_a_device_is_not_said_to_be_missing(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    known: dict[str, str],
    tmp_path: Path,
) -> None:
    module = "from adapters.base import NotStarted\nraise NotStarted('there is no CUDA device')\n"
    ghost("ghost", module, known, monkeypatch, tmp_path)
    code, out, _ = call(capsys, "verify", "ghost", *ONE)
    assert (code, out.strip()) == (3, "ghost: cannot run here  there is no CUDA device")


def test_a_broken_adapter_is_never_taken_for_one_that_is_not_installed(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    known: dict[str, str],
    tmp_path: Path,
) -> None:
    ghost("cracked", "raise RuntimeError('no driver')\n", known, monkeypatch, tmp_path)
    code, out, _ = call(capsys, "verify", *ONE)
    assert code == 3
    assert re.search(r"cracked: could not be started .*\n?.*no driver", out)


@pytest.fixture
def expectations(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, known: dict[str, str]) -> Path:
    """A folder of expected failures for ``broken``, which is served as an adapter."""
    known["broken"] = "broken"
    monkeypatch.setattr(expected, "FOLDER", tmp_path)
    monkeypatch.setattr(
        "conformance.participants.adapter_command",
        lambda _: [sys.executable, str(HARNESSES / "broken.py"), "few-words", "two-tensors-f32"],
    )
    return tmp_path / "broken.toml"


ENTRY = """
[[expected]]
case = "clip.global_norm/{case}"
reason = "it is short of words"
{evidence}
versions = "{versions}"
"""


@pytest.mark.parametrize(
    ("case", "versions", "code", "words"),
    [
        ("two-*-f32", ">=1,<2", 0, "1 passed, 0 failed, 1 expected failure"),
        ("two-*-f32", "*", 0, "1 × it is short of words (bug 7)"),
        ("two-*-f32", ">=2", 1, "1 passed, 1 failed"),
        ("just-*", ">=1", 1, "passed, but is expected to fail: it is short of words"),
        ("*-f32", ">=1", 1, "0 passed, 0 failed, 1 expected failure, 1 unexpected pass;"),
        ("two-tensors-f64", ">=1", 1, "1 passed, 1 failed"),
    ],
)
def test_expected_failures(
    case: str,
    versions: str,
    code: int,
    words: str,
    expectations: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    expectations.write_text(ENTRY.format(case=case, versions=versions, evidence='link = "bug 7"'))
    found, out, _ = call(capsys, "verify", "broken", *ONE, "--case", "just-above-f32")
    assert found == code
    assert words in " ".join(out.split())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[expected", "broken.toml: not valid TOML"),
        ("expected = 3", "holds [[expected]] entries"),
        ("[[unexpected]]\ncase = 'x'", "holds [[expected]] entries"),
        (ENTRY.format(case="x", versions="1.x", evidence="link='a'"), "no PEP 440 range"),
        (ENTRY.format(case="x", versions="*", evidence=""), "needs a link, or observed"),
        (ENTRY.format(case="x", versions="*", evidence="because='a'"), "unknown key 'because'"),
        (ENTRY.format(case="x", versions="*", evidence="link=3"), "must be a string"),
        ("[[expected]]\nreason='r'\nlink='l'\nversions='*'", "entry 1: case is missing"),
    ],
)
def test_malformed_expectations_are_one_line(
    text: str, words: str, expectations: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expectations.write_text(text)
    code, out, err = call(capsys, "verify", "broken", *ONE)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_is_one_line_and_leaves_nothing(number: int, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    process = subprocess.Popen(
        [sys.executable, "-m", "conformance.cli", "verify", *ONE,
         "--command", harness("hang", "two-tensors-f32"), "--timeout", "60"],
        env=os.environ | {"HARNESS_PIDS": str(pids)}, cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 30
    while not (pids.exists() and pids.read_text().endswith("\n")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (130, "", "secateurs: interrupted\n")
    stat = Path(f"/proc/{int(pids.read_text())}/stat")
    assert not stat.exists() or " Z " in stat.read_text()


def run_command(path: list[Path], cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = "import sys, secateurs; sys.exit(secateurs.main())"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path))}
    return subprocess.run(
        [sys.executable, "-P", "-c", code, *arguments],
        env=environment, cwd=cwd, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["adapters", "conformance"])
def test_a_foreign_package_of_our_name_is_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("raise SystemExit('I am someone else')\n")
    result = run_command([tmp_path, ROOT], tmp_path, "list")
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (3, "", 1)
    assert f"another package called {name}" in result.stderr


def test_a_folder_of_our_name_where_the_user_works_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "adapters").mkdir()
    (tmp_path / "adapters" / "__init__.py").write_text("")
    result = run_command([ROOT], tmp_path, "verify", "refimpl", *ONE)
    assert (result.returncode, result.stderr) == (0, "")


def test_explain_says_all_that_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "explain", "clip.global_norm")
    assert code == 0
    text = " ".join(out.split())
    for words in (
        "g ← g · min(1, max_norm / n)",
        "every output is bit for bit the input",
        "eps_at none | denominator | max",
        "eps_at denominator: mlx, paddle, pytorch_optimizer, torch, ",
        "; none (canonical): array_api_strict, c, ",
        "norm per tensor each tensor is clipped by its own norm",
        "Pascanu",
    ):
        assert words in text
    assert max(len(line) for line in out.splitlines()) <= 80


def test_show_has_the_case_in_decimals(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "show", "clip.global_norm/micro-threshold-f32")
    assert code == 0
    assert "float32 [2] [3e-06, -4e-06]" in out
    canonical, torch = out.split("\n  torch\n")
    # 3e-6 · 1e-6/5.001e-6, and with 1e-6 added to the denominator.
    assert "grads[0]          float32 [2] [5.9988e-07, -7.9984005e-07], within" in canonical
    assert "differs by eps_at=denominator,eps=1e-6\n" in torch
    assert "[4.999167e-07, -6.665556e-07]" in torch
    code, out, _ = call(capsys, "show", "p.global_norm/negative-limit-f32")
    assert re.search(r"refused +max_norm", out)


def test_the_snippet_of_every_case_gives_the_bits_back() -> None:
    for case in select(["clip.global_norm"]):
        source = snippet(case)
        assert source.count("\n") < 10
        scope: dict[str, Any] = {}
        exec(source, scope)
        again = list(leaves(scope["inputs"]))
        assert [path for path, _ in again] == [path for path, _ in leaves(case.inputs)]
        for (path, new), (_, old) in zip(again, leaves(case.inputs), strict=True):
            if not isinstance(old, np.ndarray):
                assert new == old
                continue
            assert (new.dtype, new.shape) == (old.dtype, old.shape), (case.id, path)
            nan = np.isnan(old.astype(np.float64))
            assert np.array_equal(np.isnan(new.astype(np.float64)), nan)
            assert np.where(nan, 0, new).tobytes() == np.where(nan, 0, old).tobytes(), case.id


def test_a_program_has_the_expected_failures_of_the_name_it_gives_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "plain.toml").write_text(
        '[[expected]]\ncase = "clip.global_norm/just-below-f*"\nreason = "enlarged"\n'
        'observed = "3.005"\nversions = ">=1"\n',
        encoding="utf-8",
    )
    monkeypatch.setattr("conformance.expected.FOLDER", tmp_path)
    plain = shlex.join([sys.executable, str(HARNESSES / "plain.py"), "max-for-min"])
    cases = [
        "--case",
        "clip.global_norm/just-below-f32",
        "--case",
        "clip.global_norm/at-threshold-f32",
    ]
    lines = tmp_path / "run.jsonl"
    assert main(["verify", "--command", plain, *cases, "--jsonl", str(lines)]) == 0
    assert "1 expected failure" in " ".join(capsys.readouterr().out.split())
    assert '"expected_failure"' in lines.read_text(encoding="utf-8")
    (tmp_path / "plain.toml").rename(tmp_path / "other.toml")
    assert main(["verify", "--command", plain, *cases]) == 1
