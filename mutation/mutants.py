"""Mutants of ``refimpl``, made by mutmut: which there are, and what each changes."""

from __future__ import annotations

import ast
import difflib
import hashlib
import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "build" / "mutants"
"""Where the mutated package is written; a run imports ``refimpl`` from here."""

NAMES_GIVEN = {
    "number": (0,),
    "integer": (0,),
    "choice": (0,),
    "same_length": (0, 2),
    "same_shape": (0, 2),
    "real_floating": (1,),
    "not_complex": (1,),
    "boolean": (1,),
    "check_shape": (0,),
    "check_pair": (0,),
    "_strength": (0,),
    "_divisor": (0,),
}
"""The checks of ``refimpl``, and which of their arguments only go into a message."""


@dataclass(frozen=True)
class Mutant:
    """One change to one function."""

    id: str
    """The name that mutmut gives it."""
    module: str
    function: str
    change: str
    """The lines of the function that differ, as ``- old`` and ``+ new``."""
    digest: str
    """Of the function as mutated: a verdict holds as long as this does."""
    message_only: bool
    """Whether nothing changes but what an error says."""

    @property
    def mangled(self) -> str:
        """What mutmut calls the function when it is reached."""
        return self.id.rsplit("__mutmut_", 1)[0]

    @property
    def key(self) -> str:
        """What the table of survivors calls it."""
        return f"{self.module}.{self.function}: {self.change}"


def make(jobs: int) -> list[Mutant]:
    """Write a ``refimpl`` that holds every mutant, and return them.

    Which modules are mutated is said in ``pyproject.toml``, under ``tool.mutmut``. A module that is the same
    as last time is left as it was written then.
    """
    from mutmut.configuration import config

    mutated = []
    for path in sorted((ROOT / "refimpl").rglob("*")):
        name = path.relative_to(ROOT)
        (FOLDER / name).parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".py" and config().should_mutate(name):
            mutated.append(name)
        elif path.is_file() and "__pycache__" not in name.parts:
            shutil.copy(path, FOLDER / name)
    with ProcessPoolExecutor(jobs) as pool:
        return [mutant for made in pool.map(_make, mutated) for mutant in made]


def _make(name: Path) -> list[Mutant]:
    from mutmut.mutation.file_mutation import mutate_file_contents

    source = (ROOT / name).read_text(encoding="utf-8")
    record = (FOLDER / name).with_suffix(".json")
    digest = hashlib.sha256(f"{version('mutmut')} {source}".encode()).hexdigest()
    if record.exists():
        earlier = json.loads(record.read_text(encoding="utf-8"))
        if earlier["digest"] == digest:
            return [Mutant(**fields) for fields in earlier["mutants"]]
    code = mutate_file_contents(str(name), source).code
    (FOLDER / name).write_text(code, encoding="utf-8")
    made = list(_described(".".join(name.with_suffix("").parts), code))
    kept = {"digest": digest, "mutants": [asdict(mutant) for mutant in made]}
    record.write_text(json.dumps(kept), encoding="utf-8")
    return made


def _described(module: str, code: str) -> Iterator[Mutant]:
    functions = {
        node.name: node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.FunctionDef)
    }
    originals: dict[str, tuple[list[str], str]] = {}
    for name, node in functions.items():
        mangled, found, number = name.rpartition("__mutmut_")
        if not found or not number.isdecimal():
            continue
        if mangled not in originals:
            before = _bare(functions[f"{mangled}__mutmut_orig"])
            originals[mangled] = ast.unparse(before).splitlines(), _silent(before)
        old, silent = originals[mangled]
        text = ast.unparse(_bare(node))
        new = text.splitlines()
        lines = difflib.unified_diff(old, new, lineterm="", n=0)
        change = "\n".join(
            f"{line[0]} {line[1:].strip()}"
            for line in lines
            if line[0] in "+-" and not line.startswith(("+++", "---"))
        )
        yield Mutant(
            id=f"{module}.{name}",
            module=module.removeprefix("refimpl."),
            function=mangled.removeprefix("x_").removeprefix("xǁ").replace("ǁ", "."),
            change=change,
            digest=hashlib.sha256(f"{module} {text}".encode()).hexdigest()[:16],
            message_only=_silent(node) == silent,
        )


def _bare(function: ast.FunctionDef) -> ast.FunctionDef:
    """Take the name and the docstring from a function."""
    function.name = "_"
    first = function.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        function.body = function.body[1:] or [ast.Pass()]
    return function


def _silent(function: ast.FunctionDef) -> str:
    return ast.dump(_Silent().visit(function))


class _Silent(ast.NodeTransformer):
    """Takes the words out of what is raised, and out of the names that checks are given for it."""

    def visit_Raise(self, node: ast.Raise) -> ast.Raise:
        if isinstance(node.exc, ast.Call):
            node.exc.args, node.exc.keywords = [], []
        node.cause = None
        return node

    def visit_Call(self, node: ast.Call) -> ast.Call:
        self.generic_visit(node)
        called = node.func.attr if isinstance(node.func, ast.Attribute) else None
        called = node.func.id if isinstance(node.func, ast.Name) else called
        for position in NAMES_GIVEN.get(called or "", ()):
            if position < len(node.args):
                node.args[position] = ast.Constant("name")
        if called == "check_shape" and len(node.args) == 3 and isinstance(node.args[2], ast.Tuple):
            # An extent that may be any is given as a string, which a message shows.
            node.args[2].elts = [_unnamed(extent) for extent in node.args[2].elts]
        return node

    def visit_Tuple(self, node: ast.Tuple) -> ast.Tuple:
        """An array with its name, as ``("grads", grads)``."""
        self.generic_visit(node)
        if len(node.elts) == 2 and isinstance(node.elts[1], ast.Name):
            node.elts[0] = _unnamed(node.elts[0])
        return node


def _unnamed(node: ast.expr) -> ast.expr:
    named = isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    return ast.Constant("name") if named else node
