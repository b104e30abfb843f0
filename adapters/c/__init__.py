"""The worked example in C, ``clip.c``, compiled when it is first asked for."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from adapters.base import NotStarted
from adapters.program import Program
from conformance.environments import cache

SOURCE = Path(__file__).with_name("clip.c")


def compiled(folder: Path | None = None) -> Path:
    """Return the compiled program, from the user's cache folder unless another one is given.

    Its name holds a digest of the source, so that a changed source is a new program.

    Raises:
        NotStarted: there is no C compiler, or it refuses the source.
    """
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]
    folder = folder or cache().parent / "c"
    program = folder / f"clip-{digest}{'.exe' if os.name == 'nt' else ''}"
    if program.exists():
        return program
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
    if compiler is None:
        raise NotStarted("no C compiler; install one, or name it in CC")
    folder.mkdir(parents=True, exist_ok=True)
    part = program.with_name(f"{os.getpid()}-{program.name}")
    done = subprocess.run(
        [compiler, "-std=c11", "-O2", "-o", str(part), str(SOURCE), "-lm"],
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        complaint = next((line for line in done.stderr.splitlines() if "error" in line), "")
        raise NotStarted(f"{compiler} cannot compile {SOURCE.name}: {complaint}")
    part.replace(program)
    return program


adapter = Program("c", lambda: [str(compiled())])
