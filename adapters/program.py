"""An adapter that is a program in another language: it speaks the protocol itself, here it is only started."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

from adapters.base import NotStarted

NOT_INSTALLED = 3


class Program:
    """A program under test; ``command`` returns its command line and raises NotStarted if there is none."""

    def __init__(self, name: str, command: Callable[[], list[str]]) -> None:
        """Remember how the program is found; nothing is looked for until :meth:`serve`."""
        self.name, self.command = name, command

    def serve(self) -> None:
        """Become the program; exit with 3 if what it needs is not here.

        Raises:
            SystemExit: always, where a process cannot become another one (Windows).
        """
        try:
            command = self.command()
        except NotStarted as reason:
            print(f"{self.name}: {reason}", file=sys.stderr)
            raise SystemExit(NOT_INSTALLED) from None
        if os.name == "posix":
            os.execvp(command[0], command)
        raise SystemExit(subprocess.call(command))
