"""The HTML page: whole in itself, small, safe, and alive in a browser."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from conformance.cli import main
from conformance.page import histogram, page
from conformance.protocol import Implementation
from conformance.runner import Run, explain, run, select

HARNESS = [sys.executable, str(Path(__file__).parent / "harnesses" / "plain.py"), "per-tensor"]
WRONG, RIGHT = "one-above-one-below-f32", "just-above-f32"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    cases = select(["clip.global_norm"], [WRONG, RIGHT, "two-tensors-bf16"])
    found = run("plain", HARNESS, cases)
    found.notes.append("</script><script>alert(1)</script>\u2028")
    explain(found)
    return [found, Run("gone", not_started="not installed: gone", not_installed=True)]


@pytest.fixture(scope="module")
def html(runs: list[Run]) -> str:
    return page(runs)


def data(html: str) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)
    assert found
    return json.loads(found[1], parse_constant=pytest.fail)


class Parser(HTMLParser):
    """Collects tags, and what would be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "srcset") or (tag == "link" and name == "href"):
                self.fetched.append(str(value))


def test_nothing_is_fetched(html: str) -> None:
    parser = Parser()
    parser.feed(html)
    assert parser.fetched == ["data:,"]
    assert parser.tags.count("script") == 2
    assert "@import" not in html
    assert not re.search(r"url\(", html)
    assert "default-src 'none'" in html


def test_the_matrix_is_there_without_a_script(html: str) -> None:
    row = html[html.index('data-operation="clip.global_norm"') :]
    assert "✗ 1/2" in row
    assert "1 of 2 passed, 1 failed, 1 canonical" in row
    assert "&lt;/script&gt;" in html
    assert "not installed: gone" in html


def test_a_failing_case_has_its_numbers(html: str) -> None:
    everything = data(html)
    plain, gone = everything["participants"]
    verdicts = dict(plain["verdicts"]["clip.global_norm"])
    assert {k: v["s"] for k, v in verdicts.items()} == {
        WRONG: "failed", RIGHT: "passed", "two-tensors-bf16": "unsupported",
    }  # fmt: skip
    wrong = verdicts[WRONG]
    assert wrong["m"].startswith("grads[0][0]: got 0.6, expected 0.597022")
    rows = {row[0]: row for row in wrong["n"]["rows"]}
    assert rows["grads[0]"][2].startswith("[0.597022")
    assert rows["grads[0]"][4] == "[0.6, 0.8]"
    assert (rows["grads[0]"][-1], rows["total_norm"][-1]) == (True, False)
    # Two elements of each tensor, and the norm, which is right.
    assert sum(count for _, count in wrong["n"]["ulps"]) == 5
    case = everything["cases"][f"clip.global_norm/{WRONG}"]
    assert case["inputs"][0] == ["grads[0]", "float32 [2]", "[3.0, 4.0]"]
    assert "np.array([3.0, 4.0], dtype=np.float32)" in case["snippet"]
    assert json.loads(case["params"])["max_norm"] == 1.0
    assert "norm per tensor" in plain["operations"]["clip.global_norm"]["diagnosis"]
    # What passes canonically is not written out.
    assert set(everything["cases"]) == {f"clip.global_norm/{WRONG}"}
    assert gone["verdicts"] == {}


@pytest.mark.parametrize(
    ("ulps", "bins"),
    [
        ([], []),
        ([0.0, 0.3, 1.0, 1.5, 4.0], [["0", 1], ["≤1", 2], ["≤2", 1], ["≤4", 1]]),
        ([0.0, float("inf")], [["0", 1], ["∞", 1]]),
        ([3000.0], [["0", 0], *([f"≤{2**k}", 0] for k in range(7)), ["≤2^12", 1]]),
    ],
)
def test_the_histogram_counts_by_powers_of_two(ulps: list[float], bins: list[Any]) -> None:
    assert histogram(ulps) == bins


def test_the_command_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "r.html"
    command = shlex.join(HARNESS)
    code = main(("verify", "--command", command, "--case", f"clip.global_norm/{WRONG}",
                 "--html", str(file)))  # fmt: skip
    capsys.readouterr()
    assert code == 1
    assert data(file.read_text(encoding="utf-8"))["participants"][0]["name"] == command


def test_an_empty_run_has_a_page() -> None:
    about = Implementation("lib", "1", "C", "17")
    assert "lib 1" in page([Run("lib", about)])


def rendered(file: Path, fragment: str = "") -> str:
    assert BROWSER
    return subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000",
         f"--user-data-dir={file.parent / 'profile'}", "--dump-dom", f"{file.as_uri()}{fragment}"],
        capture_output=True, text=True, timeout=90, check=True,
    ).stdout  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="chromium is not installed")
def test_the_page_is_alive_in_chromium(html: str, tmp_path: Path) -> None:
    file = tmp_path / "r.html"
    file.write_text(html, encoding="utf-8")
    dom = rendered(file)
    assert 'href="#who=0&amp;op=clip.global_norm"' in dom
    assert '<section id="detail" tabindex="-1" aria-live="polite"></section>' in dom
    dom = rendered(file, f"#who=0&op=clip.global_norm&case={WRONG}")
    detail = dom[dom.index('<section id="detail"') : dom.index("</section>")]
    for words in ("3 of 3 cases", "behaves like the known mistake", "[0.6, 0.8]", "3.0, 4.0",
                  "worst ULP of each case", "ULP of the elements", f"--case clip.global_norm/{WRONG}",
                  "np.array([3.0, 4.0], dtype=np.float32)"):  # fmt: skip
        assert words in detail, words
    dom = rendered(file, "#status=absent&who=0&op=clip.global_norm")
    assert "1 of 3 cases" in dom
    dom = rendered(file, "#q=nothing-like-this")
    assert re.search(r'<tr data-operation="clip.global_norm" hidden="">', dom)
    assert not re.search(r'<p id="none" class="dim" hidden="">', dom)
