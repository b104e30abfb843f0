"""The command ``secateurs``.

Exit codes: 0 all as expected, 1 a difference was found, 2 wrong usage, 3 an implementation could not be
started, 130 interrupted. An error is one line on standard error; ``--debug`` adds the traceback.
"""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import click

from conformance import __version__
from conformance.commands.browse import explain, list_all, show
from conformance.commands.common import WRONG_USAGE, Failure, debug_option
from conformance.commands.compare import compare
from conformance.commands.compress import compress
from conformance.commands.diff import diff
from conformance.commands.env import env
from conformance.commands.expectations import expectations
from conformance.commands.fuzz import fuzz_command
from conformance.commands.matrix import matrix
from conformance.commands.recipe import recipe
from conformance.commands.smoke import smoke_command
from conformance.commands.study import study
from conformance.commands.sweep import sweep
from conformance.commands.train import train
from conformance.commands.verify import verify
from conformance.expected import ExpectationsError
from conformance.fixtures import FixtureError

INTERRUPTED = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="secateurs", message="%(prog)s, suite %(version)s")
@debug_option
def cli() -> None:
    """Check gradient clipping, pruning and training steps against their canonical mathematics."""


cli.add_command(verify)
cli.add_command(compare)
cli.add_command(list_all)
cli.add_command(explain)
cli.add_command(show)
cli.add_command(train)
cli.add_command(sweep)
cli.add_command(compress)
cli.add_command(study)
cli.add_command(smoke_command)
cli.add_command(fuzz_command)
cli.add_command(recipe)
cli.add_command(env)
cli.add_command(matrix)
cli.add_command(diff)
cli.add_command(expectations)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that lacks a mathematical sign gets a question mark, not an error.
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    state: dict[str, Any] = {}
    try:
        code = cli.main(
            args=None if arguments is None else list(arguments),
            prog_name="secateurs",
            standalone_mode=False,
            obj=state,
        )
        return code if isinstance(code, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return WRONG_USAGE
    except click.ClickException as error:
        _complain(state, _usage(error))
        return error.code if isinstance(error, Failure) else WRONG_USAGE
    except (click.Abort, KeyboardInterrupt):
        _complain(state, "interrupted")
        return INTERRUPTED
    except (FixtureError, ExpectationsError) as error:
        _complain(state, str(error))
        return WRONG_USAGE
    except Exception as error:
        words = " ".join(str(error).split())
        hint = "" if state.get("debug") else "; run again with --debug for the traceback"
        _complain(state, f"internal error: {type(error).__name__}: {words}{hint}")
        return WRONG_USAGE


def _usage(error: click.ClickException) -> str:
    message = " ".join(error.format_message().split())
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return f"{message} (see {error.ctx.command_path} --help)"
    return message


def _complain(state: dict[str, Any], line: str) -> None:
    if state.get("debug"):
        traceback.print_exc()
    click.echo(f"secateurs: {line}", err=True)


if __name__ == "__main__":
    sys.exit(main())
