"""The study pages in a real browser: every stage shows refimpl's numbers, and the controls work."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from adapters import study
from adapters.study import formulas, html
from adapters.study.model import Topic

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next((found for found in map(shutil.which, BROWSERS) if found), None)
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason=f"needs a browser: one of {', '.join(BROWSERS)}"
)

TOPICS = [
    name if name == "global_norm" else pytest.param(name, marks=pytest.mark.slow)
    for name in study.TOPICS
]

WATCH = "<script>window.wrong = []; addEventListener('error', e => wrong.push(e.message));</script>"
REPORT = """<script>
(() => {
const seen = {};
const text = node => node.textContent.replace(/\\s+/g, " ").trim();
const look = () => {
  const stage = document.querySelector(".stage:not([hidden])");
  return {
    id: stage.id.slice(2),
    values: [...stage.querySelectorAll(".numbers mn[data-n]")].map(slot => [slot.dataset.n, slot.textContent]),
    says: text(stage.querySelector(".says")),
    tables: [...stage.querySelectorAll(".blocks table")].filter(t => !t.closest("details"))
      .map(t => t.querySelectorAll("tbody tr").length),
    charts: [...stage.querySelectorAll(".plot svg")]
      .map(svg => svg.querySelectorAll("path, rect, circle, line").length),
    hash: location.hash,
    wide: document.documentElement.scrollWidth > innerWidth,
    where: text(document.getElementById("where")),
  };
};
DRIVE
document.body.insertAdjacentHTML("beforeend", "<pre id=report></pre>");
document.getElementById("report").textContent = JSON.stringify({wrong, seen});
})();
</script>"""


def drive(folder: Path, topic: Topic, script: str, hash: str = "", width: int = 1280) -> Any:
    """Open a page, run a script in it, and return what it put into ``seen``."""
    assert BROWSER is not None
    page = html.page(topic).replace("<body>", f"<body>{WATCH}", 1)
    page = page.replace("</body>", REPORT.replace("DRIVE", script) + "</body>", 1)
    file = folder / "page.html"
    file.write_text(page, encoding="utf-8")
    answer = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update",
             "--host-resolver-rules=MAP * ~NOTFOUND",
         f"--user-data-dir={folder / 'profile'}", f"--window-size={width},900", "--virtual-time-budget=2000",
         "--dump-dom", file.as_uri() + hash],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    found = re.search(r'<pre id="report">(.*?)</pre>', answer.stdout, re.DOTALL)
    assert found is not None, answer.stderr[-500:]
    report = json.loads(unescape(found[1]))
    assert report["wrong"] == []
    return report["seen"]


@pytest.mark.parametrize("name", TOPICS)
def test_every_stage_shows_its_numbers(name: str, tmp_path: Path) -> None:
    topic = study.load(name)
    script = """
      for (const link of document.querySelectorAll("#steps a")) {
        location.replace(link.href); draw(); seen[link.dataset.stage] = look();
      }
    """
    seen = drive(tmp_path, topic, script, width=390)
    for number, stage in enumerate(topic.stages, 1):
        shown = seen[stage.id]
        fill = topic.fill(stage, topic.start())
        assert shown["id"] == stage.id
        assert dict(shown["values"]) == dict(fill.values)
        assert shown["where"].startswith(f"step {number} of {len(topic.stages)}")
        assert not shown["wide"], f"{stage.id} is wider than a phone"
        kinds = [block.kind for block in fill.blocks]
        assert len(shown["charts"]) == kinds.count("plot")
        assert all(shown["charts"])
        grids = [len(block.rows) for block in fill.blocks if block.kind != "plot"]
        assert shown["tables"] == grids
        if "$" not in fill.says:
            assert shown["says"] == " ".join(formulas.inline_text(fill.says).split())


def test_the_controls_change_numbers_and_address(tmp_path: Path) -> None:
    topic = study.load("global_norm")
    script = """
      const slider = document.getElementById("c-threshold"), library = document.getElementById("c-dialect");
      for (let i = 0; i <= slider.max; i++) {
        slider.value = i; slider.dispatchEvent(new Event("input")); seen[i] = look();
      }
      library.value = 1; library.dispatchEvent(new Event("input")); seen.library = look();
      document.querySelector('[data-control="threshold"] .notes button').click(); seen.note = look();
      document.getElementById("next").click(); seen.next = look();
      document.body.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowLeft", bubbles: true}));
      seen.key = look();
    """
    seen = drive(tmp_path, topic, script, "#stage=coefficient")
    stage = next(stage for stage in topic.stages if stage.id == "coefficient")
    for i in range(len(topic.control("threshold").stops)):
        fill = topic.fill(stage, topic.start() | {"threshold": i})
        assert dict(seen[str(i)]["values"]) == dict(fill.values)
        assert seen[str(i)]["says"] == fill.says
    assert "dialect=PyTorch" in seen["library"]["hash"]
    assert dict(seen["note"]["values"])["k"] == "0.44676697"
    assert seen["next"]["id"] == "scale"
    assert "dialect=PyTorch" in seen["next"]["hash"]
    assert seen["key"]["id"] == "coefficient"


def test_the_address_holds_the_whole_state(tmp_path: Path) -> None:
    topic = study.load("global_norm")
    seen = drive(
        tmp_path, topic, "seen.first = look();", "#stage=coefficient&threshold=1&dialect=MLX"
    )
    stage = next(stage for stage in topic.stages if stage.id == "coefficient")
    at = {"threshold": [s.value for s in topic.control("threshold").stops].index(1), "dialect": 5}
    assert dict(seen["first"]["values"]) == dict(topic.fill(stage, topic.start() | at).values)


def test_pointing_at_a_cell_shows_its_products(tmp_path: Path) -> None:
    topic = study.load("conv")
    script = """
      const cell = index => document.querySelectorAll("#s-forward .grid button")[index];
      cell(0).dispatchEvent(new PointerEvent("pointerenter")); seen.hover = look();
      cell(7).focus(); seen.focus = look();
      const focused = document.activeElement;
      seen.kept = {focused: focused.dataset.sets, pressed: focused.getAttribute("aria-pressed")};
    """
    seen = drive(tmp_path, topic, script)
    for name, place in (("hover", 0), ("focus", 7)):
        fill = topic.fill(topic.stages[0], topic.start() | {"out": place})
        assert dict(seen[name]["values"]) == dict(fill.values)
    assert seen["kept"] == {"focused": "out:7", "pressed": "true"}


def test_screen_readers_find_names_and_headers(tmp_path: Path) -> None:
    script = """
      const named = node => node.textContent.trim() || node.getAttribute("aria-label")
        || (node.labels || []).length;
      const nodes = [...document.querySelectorAll("button, input, select, a, [role=img], nav, form")];
      seen.unnamed = nodes.filter(node => !named(node)).length;
      const tables = [...document.querySelectorAll("table")];
      const headed = t => t.querySelector("th[scope=col]") && t.querySelector("tbody th[scope=row]");
      seen.headless = tables.filter(t => !headed(t)).length;
      seen.tables = tables.length;
      seen.current = document.querySelectorAll("[aria-current=step]").length;
      seen.live = document.querySelectorAll("[aria-live], [role=status]").length;
    """
    seen = drive(tmp_path, study.load("magnitude"), script, "#stage=mask")
    assert seen["unnamed"] == 0
    assert seen["headless"] == 0
    assert seen["tables"] >= 3
    assert seen["current"] == 1
    assert seen["live"] >= 2
