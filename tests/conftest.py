"""What every test starts from."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    # A shell that starts a job in the background has it ignore Ctrl-C, and so do the programs it starts:
    # those that are sent one here would never hear it.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
