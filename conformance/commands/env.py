"""``secateurs env``: environments of their own for adapters whose libraries cannot share ours."""

from __future__ import annotations

import click
from rich.console import Console

from conformance import environments
from conformance.commands.common import NOT_STARTED, Failure, debug_option, near
from conformance.report import Page


@click.command()
@click.argument("adapters", nargs=-1, metavar="[ADAPTER]...")
@click.option("--all", "everyone", is_flag=True, help="Every adapter that has such an environment.")
@click.option("--list", "listing", is_flag=True, help="Say which there are and which are made.")
@click.option("--remove", "removing", is_flag=True, help="Remove environments instead.")
@click.option("--path", "showing", is_flag=True, help="Print where environments are or would be.")
@debug_option
def env(
    adapters: tuple[str, ...], everyone: bool, listing: bool, removing: bool, showing: bool
) -> int:
    """Make the environments of adapters, in which `secateurs verify` then runs them.

    Each is a virtual environment in the user's cache folder (SECATEURS_CACHE names another one) with the
    library at the version of its list, and this secateurs. One that is there and whole is left alone.
    """
    if listing + removing + showing > 1:
        raise Failure("give one of --list, --remove and --path")
    known = environments.known()
    for name in adapters:
        if name not in known:
            raise Failure(f"no environment is described for {name!r}{near(name, known)}")
    chosen = list(adapters) or (known if everyone or listing else [])
    if not chosen and not (listing or everyone):
        raise Failure("name an adapter, or give --all; secateurs env --list shows which there are")
    page = Page(Console(highlight=False, soft_wrap=True))
    failed = []
    for name in chosen:
        if listing:
            _list(name, page)
        elif showing:
            click.echo(environments.folder(name))
        elif removing:
            gone = environments.remove(name)
            page.item(f"{name}:", "removed" if gone else "was not there")
        else:
            try:
                _make(name, page)
            except environments.NotMade as error:
                # The others may still be made; each says for itself what went wrong.
                failed.append(name)
                click.echo(f"secateurs: {error}", err=True)
    if failed:
        raise Failure(f"not made: {', '.join(failed)}", NOT_STARTED)
    if listing and not chosen:
        page.line("No adapter has an environment of its own.")
    return 0


def _list(name: str, page: Page) -> None:
    state = "made" if environments.ready(name) else "not made"
    if environments.stale(name):
        state = "out of date: make it again"
    page.item(f"{name.ljust(18)} {state.ljust(8)}", environments.purpose(name))
    page.item("", ", ".join(environments.pins(name)), indent=4)


def _make(name: str, page: Page) -> None:
    made = environments.make(name, lambda line: page.item("", line))
    found = environments.installed(name)
    words = f"{'made' if made else 'is there'}: {len(found)} packages: {', '.join(found)}"
    page.item(f"{name}:", words, "green")
