"""What is published of the systematic mutation is what its record and the explanations say."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]


def page() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mutation.page", ROOT / "mutation" / "page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where a dataclass looks for its own
    spec.loader.exec_module(module)
    return module


def test_the_page_is_made_from_the_record_and_the_explanations() -> None:
    made = page()
    results = json.loads(made.RESULTS.read_text(encoding="utf-8"))
    assert made.PAGE.read_text(encoding="utf-8") == made.page(results)
    assert "Not explained." not in made.page(results)
