"""An environment of its own for an adapter whose library cannot share ours.

``adapters/environments/<adapter>.txt`` lists what it needs, each at one version. :func:`make` turns that into
a virtual environment in the user's cache folder; only a finished one has the file that :func:`ready` looks for.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse
from urllib.request import url2pathname

REQUIREMENTS = Path(__file__).parent.parent / "adapters" / "environments"
STAMP = "secateurs.json"
Say = Callable[[str], None]


class NotMade(RuntimeError):
    """An environment that could not be made; one line that says why."""


@dataclass(frozen=True)
class Source:
    """Where the running secateurs came from: what to give to pip for the same."""

    arguments: tuple[str, ...]

    def __str__(self) -> str:
        """Return it as one would say it."""
        return self.arguments[-1]


def known() -> list[str]:
    """Return the adapters that have an environment of their own, sorted."""
    return sorted(path.stem for path in REQUIREMENTS.glob("*.txt"))


def purpose(adapter: str) -> str:
    """Return what an environment is for: the comment on the first line of its list."""
    first = _requirements(adapter).partition("\n")[0]
    return first.lstrip("# ").strip() if first.startswith("#") else ""


def pins(adapter: str) -> list[str]:
    """Return the requirements of an environment, without comments and options of pip."""
    lines = (line.partition(" #")[0].strip() for line in _requirements(adapter).splitlines())
    return [line for line in lines if line and not line.startswith(("#", "-"))]


def absent(adapter: str) -> str:
    """Return the package that an environment is for, if it is not installed here; else nothing.

    It is the first of the list. An adapter may look for it in other ways than by an import at its top.
    """
    listed = pins(adapter) if adapter in known() else []
    first = re.split(r"[\[=@ ]", listed[0])[0] if listed else ""
    try:
        return "" if not first or distribution(first) else first
    except PackageNotFoundError:
        return first


def cache() -> Path:
    """Return the folder that environments lie in; ``SECATEURS_CACHE`` names another one."""
    if named := os.environ.get("SECATEURS_CACHE"):
        return Path(named).absolute() / "environments"
    home = Path.home()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "secateurs" / "environments"


def folder(adapter: str) -> Path:
    """Return where the environment of an adapter is or would be."""
    return cache() / adapter


def python(adapter: str) -> Path:
    """Return the Python of an adapter's environment, made or not."""
    parts = ("Scripts", "python.exe") if sys.platform == "win32" else ("bin", "python")
    return folder(adapter).joinpath(*parts)


def ready(adapter: str) -> bool:
    """Say whether an adapter's environment is whole and made from today's list."""
    stamp = _stamp(adapter)
    return (
        adapter in known()
        and stamp.get("made_from") == _digest(adapter)
        and python(adapter).exists()
    )


def stale(adapter: str) -> bool:
    """Say whether there is something where the environment should be that cannot be used."""
    return folder(adapter).exists() and not ready(adapter)


def installed(adapter: str) -> list[str]:
    """Return what was installed into an environment, as ``name==version``."""
    return list(_stamp(adapter).get("installed", []))


def make(adapter: str, say: Say) -> bool:
    """Make an adapter's environment unless it is there; say what is done.

    Returns:
        False if it was there already.

    Raises:
        NotMade: it could not be made; nothing that could be taken for it is left.
    """
    with _alone(adapter):
        if ready(adapter):
            return False
        path = folder(adapter)
        if path.exists():
            say(f"{adapter}: removing {path}, which is unfinished or made from another list")
            shutil.rmtree(path)
        try:
            _fill(adapter, path, say)
        except BaseException:
            # Interrupted too: what is half made must not stay, though without its stamp nobody would use it.
            shutil.rmtree(path, ignore_errors=True)
            raise
    return True


def remove(adapter: str) -> bool:
    """Remove an adapter's environment; False if there was none."""
    with _alone(adapter):
        if not folder(adapter).exists():
            return False
        shutil.rmtree(folder(adapter))
    return True


def _fill(adapter: str, path: Path, say: Say) -> None:
    source = own_source()
    digest = _digest(adapter)
    say(f"{adapter}: making {path}")
    _run([sys.executable, "-m", "venv", str(path)], adapter)
    say(f"{adapter}: installing {', '.join(pins(adapter))} and secateurs from {source}")
    # One call, so that pip finds versions for both or says that there are none.
    listed = ["-r", str(REQUIREMENTS / f"{adapter}.txt"), *source.arguments]
    pip = [str(python(adapter)), "-m", "pip", "--disable-pip-version-check"]
    _run([*pip, "install", "--quiet", *listed], adapter)
    freeze = _run([*pip, "list", "--format=freeze"], adapter)
    found = [line for line in freeze.splitlines() if "==" in line]
    stamp = {"adapter": adapter, "made_from": digest, "installed": found}
    part = path / f".{STAMP}.part"
    part.write_text(json.dumps(stamp, indent=1) + "\n", encoding="utf-8")
    os.replace(part, path / STAMP)


def _run(command: list[str], adapter: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        told = [line for line in lines if line.lower().startswith("error")] or lines[-1:]
        words = " ".join(told[:2]) or f"exit code {done.returncode}"
        raise NotMade(f"the environment of {adapter} could not be made: {words[:400]}")
    return done.stdout


def own_source() -> Source:
    """Return what pip must be given to install the secateurs that is running: a folder or a version."""
    checkout = Path(__file__).parent.parent
    try:
        dist = distribution("secateurs")
    except PackageNotFoundError:
        return Source(("-e", str(checkout)))
    if (checkout / "pyproject.toml").exists():
        return Source(("-e", str(checkout)))
    origin = json.loads(dist.read_text("direct_url.json") or "{}").get("url", "")
    if origin.startswith("file:"):
        path = Path(url2pathname(unquote(urlparse(origin).path)))
        if path.exists():
            return Source((str(path),))
    return Source((f"secateurs=={dist.version}",))


def _requirements(adapter: str) -> str:
    return (REQUIREMENTS / f"{adapter}.txt").read_text(encoding="utf-8")


def _digest(adapter: str) -> str:
    """Return what an environment depends on, as a checksum."""
    try:
        requires = distribution("secateurs").requires or []
    except PackageNotFoundError:
        requires = []
    # An extra of ours is installed into none of them.
    own = sorted(line for line in requires if "extra ==" not in line)
    words = [_requirements(adapter), repr(sys.version_info[:2]), str(own_source()), *own]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]


def _stamp(adapter: str) -> dict[str, Any]:
    try:
        stamp = json.loads((folder(adapter) / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


@contextlib.contextmanager
def _alone(adapter: str) -> Iterator[None]:
    """Let two processes not make the same environment at once, where the system has file locks."""
    cache().mkdir(parents=True, exist_ok=True)
    if sys.platform == "win32":
        yield
        return
    import fcntl

    with (cache() / f".{adapter}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
