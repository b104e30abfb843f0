"""Environments of adapters: made whole or not at all, kept, made again, and used by verify."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from conformance import environments, participants
from conformance.cli import main


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return the list of an environment for an adapter called ghost, and let nothing be installed."""
    folder = tmp_path / "environments"
    folder.mkdir()
    path = folder / "ghost.txt"
    path.write_text("# haunts tests\n--only-binary :all:\nspook==1.2  # why\n")
    monkeypatch.setattr(environments, "REQUIREMENTS", folder)
    monkeypatch.setenv("SECATEURS_CACHE", str(tmp_path / "cache"))
    return path


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Collect what would be run; a venv appears, ``pip list`` answers."""
    ran: list[list[str]] = []

    def run(command: list[str], adapter: str) -> str:
        ran.append(command)
        if "venv" in command:
            environments.python(adapter).parent.mkdir(parents=True)
            environments.python(adapter).touch()
        return "pip==1\nspook==1.2\n" if "list" in command else ""

    monkeypatch.setattr(environments, "_run", run)
    return ran


def test_it_is_made_once_and_again_when_its_list_changes(
    listed: Path, commands: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["env", "ghost"]) == 0
    said = capsys.readouterr().out
    assert "spook==1.2" in said
    assert "haunts" not in said
    assert len(commands) == 3
    assert main(["env", "ghost"]) == 0
    assert "is there" in capsys.readouterr().out
    assert len(commands) == 3
    listed.write_text("spook==1.3\n")
    assert not environments.ready("ghost")
    assert main(["env", "--list"]) == 0
    assert "out of date" in capsys.readouterr().out
    assert main(["env", "ghost"]) == 0
    assert len(commands) == 6


def test_pip_gets_the_list_and_this_secateurs_in_one_call(
    listed: Path, commands: list[list[str]]
) -> None:
    assert main(["env", "ghost"]) == 0
    (install,) = [command for command in commands if "install" in command]
    assert install[install.index("-r") + 1] == str(listed)
    assert install[-2:] == ["-e", str(Path(__file__).parents[2])]
    assert install[0] == str(environments.python("ghost"))


def test_what_is_half_made_is_never_used(
    listed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(command: list[str], adapter: str) -> str:
        if "venv" in command:
            environments.python(adapter).parent.mkdir(parents=True)
            environments.python(adapter).touch()
            return ""
        assert not environments.ready(adapter)
        raise environments.NotMade("the environment of ghost could not be made: no spook==1.2")

    monkeypatch.setattr(environments, "_run", run)
    assert main(["env", "ghost"]) == 3
    assert "no spook==1.2" in capsys.readouterr().err
    assert not environments.folder("ghost").exists()


def test_one_left_by_a_killed_process_is_not_used_but_made_anew(
    listed: Path, commands: list[list[str]]
) -> None:
    environments.python("ghost").parent.mkdir(parents=True)
    environments.python("ghost").touch()
    assert not environments.ready("ghost")
    assert environments.stale("ghost")
    assert main(["env", "ghost"]) == 0
    assert environments.ready("ghost")


def test_remove_and_path(
    listed: Path, commands: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["env", "ghost"])
    capsys.readouterr()
    assert main(["env", "--path", "ghost"]) == 0
    assert capsys.readouterr().out.strip() == str(environments.folder("ghost"))
    assert main(["env", "--remove", "ghost"]) == 0
    assert not environments.folder("ghost").exists()
    assert main(["env", "--remove", "ghost"]) == 0
    assert "was not there" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["spectre"], [], ["--list", "--path", "ghost"]])
def test_wrong_usage_is_one_line(
    words: list[str], listed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["env", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_adapter_runs_there_only_if_its_library_is_absent_here(
    listed: Path, commands: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ghost_adapter.py").write_text("import spook_that_is_not_here\n")
    (tmp_path / "tame_adapter.py").write_text("import json\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert participants.command("ghost", "ghost_adapter")[0] == sys.executable
    assert "secateurs env ghost" in participants.place("ghost", "ghost_adapter")
    main(["env", "ghost"])
    assert participants.command("ghost", "ghost_adapter")[0] == str(environments.python("ghost"))
    assert participants.place("ghost", "ghost_adapter") == "in an environment of its own"
    # The adapter imports nothing at its top, but spook, which the environment is for, is not here.
    assert participants.command("ghost", "tame_adapter")[0] == str(environments.python("ghost"))
    listed.write_text("# what is here too\nnumpy[extra]==1.2\n")
    main(["env", "ghost"])
    assert participants.command("ghost", "tame_adapter")[0] == sys.executable
    assert participants.place("ghost", "tame_adapter") == "installed"


def test_a_failing_command_is_told_in_its_own_words(listed: Path) -> None:
    wrong = [sys.executable, "-c", "import sys; sys.exit('ERROR: no such thing')"]
    with pytest.raises(environments.NotMade, match="ghost could not be made: ERROR: no such thing"):
        environments._run(wrong, "ghost")


def test_every_shipped_list_says_what_it_is_for_and_pins_each_package() -> None:
    for name in environments.known():
        assert environments.purpose(name), f"{name}.txt: the first line must be a comment"
        assert environments.pins(name), name
        for line in environments.pins(name):
            assert "==" in line or " @ " in line, f"{name}.txt: {line!r} has no one version"


@pytest.mark.slow
def test_a_real_one_serves_the_protocol(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "environments"
    folder.mkdir()
    (folder / "refimpl.txt").write_text("# the canonical code at an older numpy\nnumpy==2.3.5\n")
    monkeypatch.setattr(environments, "REQUIREMENTS", folder)
    monkeypatch.setenv("SECATEURS_CACHE", str(tmp_path / "cache"))
    assert main(["env", "refimpl"]) == 0, capsys.readouterr().err
    assert "numpy==2.3.5" in environments.installed("refimpl")
    done = subprocess.run(
        [str(environments.python("refimpl")), "-P", "-m", "adapters", "refimpl"],
        input='{"cmd": "start", "protocol": 1}\n{"cmd": "stop"}\n',
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["implementation"]["name"] == "refimpl"
