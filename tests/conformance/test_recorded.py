"""Records of runs, and the matrix of them: what is kept, read back, and shown."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from conformance import fixtures, matrix, participants, recorded
from conformance.cli import main
from conformance.operations import load, names
from conformance.protocol import NotStarted, Process
from conformance.recorded import Record, Tally
from conformance.runner import Run, explain, run, select

HARNESS = [sys.executable, str(Path(__file__).parent / "harnesses" / "plain.py")]
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
CASES = ["one-above-one-below-f32", "just-above-f32", "two-tensors-bf16"]


@pytest.fixture(scope="module")
def wrong() -> Run:
    found = run("per </tensor>", [*HARNESS, "per-tensor"], select(["clip.global_norm"], CASES))
    explain(found)
    return found


@pytest.fixture(scope="module")
def record(wrong: Run) -> Record:
    found = recorded.of(wrong)
    assert found
    return found


def test_a_record_tells_what_the_run_did(record: Record) -> None:
    tally = record.operations["clip.global_norm"]
    assert (tally.cases, tally.asked, tally.failed) == (3, 2, 1)
    assert tally.state == "fails"
    assert tally.outcome("one-above-one-below-f32") == "!failed"
    assert tally.outcome("just-above-f32") == ""
    assert tally.outcome("two-tensors-bf16") is None
    # 0.6 of its own norm 5 against 3/5 of it: clipped by its own norm, the other tensor is left alone.
    assert tally.failing["one-above-one-below-f32"]["got"].startswith("grads[0] [")
    assert "norm per tensor" in tally.diagnosis


def test_what_is_written_is_read_again(record: Record, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text(record.text())
    assert recorded.read(path) == [record]
    assert json.loads(record.text())["schema"] == recorded.SCHEMA


@pytest.mark.parametrize("kind", ["--json", "--jsonl"])
def test_a_report_gives_the_record_that_its_run_gives(
    kind: str, tmp_path: Path, wrong: Run, record: Record
) -> None:
    path = tmp_path / "r"
    words = ["verify", "--operation", "clip.global_norm", kind, str(path)]
    for case in CASES:
        words += ["--case", case]
    assert main([*words, "--command", " ".join([*HARNESS, "per-tensor"])]) == 1
    (read,) = recorded.read(path)
    read.name = record.name
    if kind == "--json":
        # The plain report holds no answers.
        for entry in record.operations["clip.global_norm"].failing.values():
            read.operations["clip.global_norm"].failing["one-above-one-below-f32"]["got"] = entry[
                "got"
            ]
    assert read == record


def test_of_what_cannot_be_used_one_line_is_said(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    for text in ("{", '{"schema": "other"}', '{"schema": "secateurs-record-1", "name": "x"}'):
        path.write_text(text)
        with pytest.raises(recorded.records.RecordError, match=r"r\.json: "):
            recorded.read(path)


def test_the_maker_of_records_writes_them_and_complains_in_one_line(
    record: Record,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(recorded, "FOLDER", tmp_path / "runs")
    path = tmp_path / "r.json"
    path.write_text(record.text().replace("per </tensor>", "plain"))
    assert recorded.main(["--from", str(path)]) == 0
    assert list(recorded.shipped()) == ["plain"]
    path.write_text("{")
    with pytest.raises(SystemExit):
        recorded.main(["--from", str(path)])
    assert "r.json" in capsys.readouterr().err.splitlines()[-1]


def test_a_run_of_some_operations_renews_these_in_the_record_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(recorded, "FOLDER", tmp_path)
    whole = {name: tally(passed=2) for name in names()}
    recorded.keep(Record("one", "1", about("3"), whole))
    recorded.keep(Record("one", "1", about("3"), {"clip.norm": tally(passed=5)}))
    (found,) = recorded.shipped().values()
    assert found.operations == whole | {"clip.norm": tally(passed=5)}
    path = tmp_path / "later"
    path.write_text(Record("one", "1", about("4"), {"clip.norm": tally(passed=6)}).text())
    with pytest.raises(SystemExit):
        recorded.main(["--from", str(path)])
    assert "is of one 3; ask one 4 every case" in capsys.readouterr().err
    assert recorded.shipped()["one"] == found


def test_who_is_missing_is_said_before_anybody_is_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = {"refimpl": "adapters.refimpl", "gone": "adapters.no_such_module"}
    monkeypatch.setattr(participants, "adapters", lambda: known)
    monkeypatch.setattr(recorded.runner, "run_all", pytest.fail)
    assert recorded.main(["refimpl", "gone"]) == 3
    assert capsys.readouterr().err.startswith("gone: not installed: adapters.no_such_module")


def test_a_finished_run_is_kept_before_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: Run
) -> None:
    monkeypatch.setattr(recorded, "FOLDER", tmp_path)
    monkeypatch.setattr(
        participants, "adapters", lambda: {"first": "adapters.refimpl", "then": "adapters.refimpl"}
    )

    def run_all(commands: dict[str, list[str]], *_: object, **__: object) -> list[Run]:
        (name,) = commands
        if name == "then":
            raise KeyboardInterrupt
        return [dataclasses.replace(wrong, participant=name)]

    monkeypatch.setattr(recorded.runner, "run_all", run_all)
    with pytest.raises(KeyboardInterrupt):
        recorded.main(["first", "then"])
    assert list(recorded.shipped()) == ["first"]


def tally(**counts: int) -> Tally:
    return Tally(sum(counts.values()), dict(counts), counts.get("passed", 0), 0.0)


@pytest.mark.parametrize(
    ("counts", "canonical", "state"),
    [
        ({"passed": 3}, 3, "canonical"),
        ({"passed": 3}, 2, "dials"),
        ({"passed": 3, "unsupported": 4}, 3, "canonical"),
        ({"passed": 2, "expected_failure": 1}, 2, "known"),
        ({"passed": 2, "expected_failure": 1, "unexpected_pass": 1}, 2, "fails"),
        ({"passed": 2, "failed": 1, "timed_out": 1}, 2, "crashes"),
        ({"unsupported": 3}, 0, "lacks"),
    ],
)
def test_the_worst_of_a_cell_gives_its_state(
    counts: dict[str, int], canonical: int, state: str
) -> None:
    found = tally(**counts)
    found.canonical = canonical
    assert found.state == state


def about(version: str) -> dict[str, str]:
    keys = ("name", "version", "language", "language_version", "homepage")
    return dict.fromkeys(keys, "") | {"version": version}


def test_markdown_has_a_row_for_each_operation_of_any_record() -> None:
    one = Record("one", "1", about("1.0"), {"clip.norm": tally(passed=4)})
    two = Record("t|wo", "1", about("2"), {"clip.value": tally(passed=1, failed=1)})
    text = matrix.markdown([one, two])
    lines = text.splitlines()
    assert lines[0] == "| operation | one 1.0 | t\\|wo 2 |"
    assert lines[2] == "| `clip.norm` | ✓ 4/4 | – |"
    assert lines[3] == "| `clip.value` | – | ✗ 1/2 |"
    assert lines[4] == "| canonical cases of those asked | 4/4 | 1/2 |"


class Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.cells: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "td":
            self.cells.append(values)
        self.fetched += [str(values[n]) for n in ("src", "srcset") if n in values]


def test_the_page_is_whole_safe_and_has_what_is_behind_each_cell(record: Record) -> None:
    html = matrix.page([record, Record("gone", "0", about(""), {})])
    parser = Parser()
    parser.feed(html)
    assert parser.fetched == []
    assert "default-src 'none'" in html
    assert "per </tensor>" not in html
    assert [cell.get("data-state") for cell in parser.cells[:2]] == ["fails", "lacks"]
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)
    assert found
    data = json.loads(found[1], parse_constant=pytest.fail)
    cell = data["cells"][0]["clip.global_norm"]
    assert cell["failures"][0][0] == "one-above-one-below-f32"
    assert cell["asked"] == 2
    assert "norm per tensor" in cell["diagnosis"]


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="chromium is not installed")
def test_a_browser_shows_what_is_behind_a_cell(record: Record, tmp_path: Path) -> None:
    path = tmp_path / "m.html"
    path.write_text(matrix.page([record]), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000"]
    address = f"{path.as_uri()}#who=0&op=clip.global_norm"
    done = subprocess.run(
        [str(BROWSER), *options, "--dump-dom", address], capture_output=True, text=True, timeout=60
    )
    detail = done.stdout.partition('id="detail"')[2].partition("</section>")[0]
    assert "2 cases asked: 1 pass, 1 fail; 1 canonical" in detail
    assert "norm per tensor" in detail
    assert "clip.global_norm/one-above-one-below-f32" in detail


def test_the_command_reads_kept_records_and_runs(
    record: Record,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kept = Record("kept", "1", about("3"), {"clip.norm": tally(passed=4)})
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "kept.json").write_text(kept.text())
    monkeypatch.setattr(recorded, "FOLDER", tmp_path / "kept")
    path = tmp_path / "run.json"
    path.write_text(record.text())
    out = tmp_path / "m.md"
    assert main(["matrix", "--markdown", str(out)]) == 0
    assert out.read_text().startswith("| operation | kept 3 |")
    assert main(["matrix", "kept", record.name, "--from", str(path)]) == 0
    assert re.search(r"clip\.global_norm +– +✗", capsys.readouterr().out)
    assert main(["matrix", "tpet"]) == 2
    assert "secateurs verify tpet --jsonl" in capsys.readouterr().err


def test_shipped_records_are_of_known_operations_and_settings() -> None:
    kept = recorded.shipped()
    assert {"refimpl", "torch", "tensorflow"} <= set(kept)
    for record in kept.values():
        for name, entry in record.operations.items():
            assert name in names(), f"{record.name}: python -m conformance.recorded {record.name}"
            for dial in entry.dialect:
                load(name).dial(dial)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(recorded.shipped()))
def test_the_dialects_of_what_is_installed_are_those_on_record(name: str) -> None:
    module = participants.adapters().get(name)
    if module is None:
        pytest.skip(f"no adapter {name}")
    process = Process(participants.command(name, module), 60)
    try:
        said = process.start()
    except NotStarted as reason:
        pytest.skip(str(reason))
    finally:
        process.close()
    kept = recorded.shipped()[name]
    if said.version != kept.about["version"]:
        pytest.skip(f"{said.version} is installed, {kept.about['version']} is on record")
    told = {n: t.dialect for n, t in kept.operations.items() if t.dialect}
    now = {n: dialect for n, dialect in said.dialect.items() if dialect}
    assert told == now, f"write it anew: python -m conformance.recorded {name}"


@pytest.mark.slow
def test_shipped_records_are_of_todays_cases() -> None:
    counts = {name: len(fixtures.read(load(name))) for name in names()}
    for record in recorded.shipped().values():
        told = {name: tally.cases for name, tally in record.operations.items()}
        assert told == counts, f"write it anew: python -m conformance.recorded {record.name}"
