"""``secateurs study``: an algorithm step by step, in the terminal or as one page."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import click

from conformance.commands.common import Failure, debug_option, near, target, write_whole


@click.command("study")
@click.argument("name", metavar="[TOPIC]", required=False)
@click.option(
    "--html",
    "page_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write one page with everything, to be opened in a browser.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="CONTROL=VALUE",
    help="Put a control somewhere else, threshold=1 say; may be repeated.",
)
@click.option(
    "--stage", "stage_id", metavar="STAGE", help="Print one stage only, by its name or number."
)
@click.option(
    "--input",
    "input_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Study tensors of your own: .npy, .npz or .safetensors (topics value, norm, global_norm).",
)
@click.option(
    "--threshold",
    type=float,
    help="The threshold for --input; half the norm, or of the largest, by default.",
)
@debug_option
def study(
    name: str | None,
    page_file: Path | None,
    settings: tuple[str, ...],
    stage_id: str | None,
    input_file: Path | None,
    threshold: float | None,
) -> None:
    """Show an algorithm step by step: formula, numbers, and the lines that compute them.

    Without TOPIC: list the topics.
    """
    # By name, and only here: the suite imports nothing of refimpl, which the topics show.
    topics = import_module("adapters.study")
    refusal = import_module("adapters.study.model").StudyError
    if name is None:
        _list(topics.TOPICS)
        return
    if name not in topics.TOPICS:
        raise Failure(f"no topic {name!r}{near(name, topics.TOPICS)}")
    target(page_file)
    if threshold is not None and input_file is None:
        raise Failure(
            "--threshold belongs to --input; the fixtures' own controls are moved with --set"
        )
    try:
        if input_file is None:
            topic = topics.load(name)
        else:
            topic = import_module("adapters.study.inputs").topic(name, input_file, threshold)
        at = topic.start() | dict(_setting(topic, text) for text in settings)
        stage = _stage(topic, stage_id) if stage_id else None
    except refusal as error:
        raise Failure(str(error)) from None
    if page_file is not None:
        page = import_module("adapters.study.html").page(topic.with_start(**at))
        write_whole(page_file, page)
        click.echo(f"wrote {page_file}", err=True)
        return
    from rich.console import Console

    show = import_module("adapters.study.terminal").show
    show(Console(highlight=False, width=_width()), topic, at, stage)


def _width() -> int:
    from rich.console import Console

    console = Console()
    return max(60, min(console.width, 120)) if console.is_terminal else 100


def _list(topics: dict[str, tuple[str, str]]) -> None:
    for name, (_, about) in topics.items():
        click.echo(f"{name:14} {about}")
    click.echo("\nsecateurs study global_norm          in the terminal")
    click.echo("secateurs study global_norm --html study.html")
    click.echo("secateurs study global_norm --input my.npy --threshold 1")


def _setting(topic: Any, text: str) -> tuple[str, int]:
    name, equals, value = text.partition("=")
    if not equals:
        raise Failure(f"--set needs CONTROL=VALUE, got {text!r}")
    control = topic.control(name)
    for index, stop in enumerate(control.stops):
        if value in (stop.label, str(stop.value)) or _equal(value, stop.value):
            return name, index
    labels = [stop.label for stop in control.stops]
    raise Failure(f"{name} has no stop {value!r}; there are: {', '.join(labels)}")


def _equal(text: str, value: Any) -> bool:
    try:
        return isinstance(value, int | float) and float(text) == value
    except ValueError:
        return False


def _stage(topic: Any, wanted: str) -> Any:
    for number, stage in enumerate(topic.stages, 1):
        if wanted in (stage.id, str(number)):
            return stage
    known = ", ".join(stage.id for stage in topic.stages)
    raise Failure(f"{topic.name} has no stage {wanted!r}; there are: {known}")
