"""How much memory a process and its children have, where the system says so (Linux).

Counted is what is theirs alone: resident pages that are not of a file. An address-space limit would not do:
frameworks reserve far more than they ever touch.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

PROC = Path("/proc")
POLL_SECONDS = 0.05
GROUP_SECONDS = 0.5
"""How often the children are looked for; the process itself is looked at with every poll."""


def known() -> bool:
    """Say whether this system tells how much memory a process has."""
    return (PROC / "self" / "statm").exists()


def of_process(pid: int) -> float:
    """Return the MiB that a process has for itself; 0 if it is gone or the system does not say."""
    try:
        _, resident, shared = map(int, (PROC / str(pid) / "statm").read_text().split()[:3])
    except (OSError, ValueError):
        return 0.0
    return float((resident - shared) * os.sysconf("SC_PAGE_SIZE") / 2**20)


def of_group(group: int) -> float:
    """Return the MiB that all processes of a group have."""
    return sum(of_process(pid) for pid in _members(group))


def _members(group: int) -> list[int]:
    found = []
    for entry in PROC.iterdir() if known() else ():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                # The name in parentheses may hold anything, spaces too.
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[2]) == group:
                    found.append(int(entry.name))
    return found


class Watch:
    """Kills a process and its group as soon as they have more memory than they may."""

    def __init__(self, process: subprocess.Popen[bytes], limit: int) -> None:
        """Watch from now on; ``limit`` is in MiB, 0 is none."""
        self.process, self.limit = process, limit
        self.reason = ""
        """Why the process was killed; empty if it was not."""
        self._ended = threading.Event()
        if limit and known():
            threading.Thread(target=self._watch, daemon=True).start()

    def look(self, group: bool = False) -> bool:
        """Look now; True if there was too much, and the process is killed."""
        if not self.limit or self.reason:
            return bool(self.reason)
        used = of_group(self.process.pid) if group else of_process(self.process.pid)
        if used <= self.limit or self.process.poll() is not None:
            return False
        self.reason = (
            f"had {used:.0f} MiB of memory, more than the {self.limit} allowed, and was killed"
        )
        with contextlib.suppress(OSError):
            os.killpg(self.process.pid, signal.SIGKILL)
        return True

    def end(self) -> None:
        """Watch no longer."""
        self._ended.set()

    def _watch(self) -> None:
        looked = time.monotonic()
        while not self._ended.wait(POLL_SECONDS):
            whole = time.monotonic() - looked > GROUP_SECONDS
            if whole:
                looked = time.monotonic()
            if self.look(group=whole) or self.process.poll() is not None:
                return
