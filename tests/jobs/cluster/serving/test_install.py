"""`coppice serve install`: what it makes, what it refuses, and that a second call goes on."""

import re
import subprocess
from pathlib import Path

import pytest

from jobs.cluster.serving import install
from jobs.cluster.serving.install import VERSION, install_server, requirements
from schemas.errors import InputError


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that would have been run."""
    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> None:
        commands.append(command)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(install, "_NEEDED_BYTES", 0)
    return commands


def test_an_environment_is_made_with_pins_and_told_of_first(tmp_path: Path, ran: list[list[str]]):
    said: list[str] = []
    program = install_server(tmp_path / "vllm", said.append)

    assert program == tmp_path / "vllm" / "venv" / "bin" / "vllm"
    assert [command[1:3] for command in ran] == [["-m", "venv"], ["-m", "pip"], ["--version"]]
    assert f"vllm=={VERSION}" in (tmp_path / "vllm" / "requirements.txt").read_text().splitlines()
    assert "198 packages" in said[0]

    ran.clear()
    install_server(tmp_path / "vllm", said.append)
    assert not ran
    assert "already" in said[-1]


def test_every_package_is_pinned_to_one_version():
    lines = [line for line in requirements().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9._-]+==[0-9][A-Za-z0-9.]*", line) for line in lines)
    assert len({line.partition("==")[0] for line in lines}) == len(lines)


def test_one_that_was_cut_off_is_gone_on_with(
    tmp_path: Path, ran: list[list[str]], monkeypatch: pytest.MonkeyPatch
):
    def fail(command: list[str], **_: object) -> None:
        raise subprocess.CalledProcessError(1, command, output=b"one\nno space left on device\n")

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "run", fail)
        with pytest.raises(InputError, match="no space left on device"):
            install_server(tmp_path / "vllm", lambda line: None)
    install_server(tmp_path / "vllm", lambda line: None)
    assert len(ran) == 3


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path, ran: list[list[str]]):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds something else"):
        install_server(tmp_path, lambda line: None)
    with pytest.raises(InputError, match="is no folder"):
        install_server(tmp_path / "notes.txt", lambda line: None)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "coppice-serve.json").write_text('{"vllm": "0.1", "is_complete": true}')
    with pytest.raises(InputError, match=r"holds vLLM 0\.1"):
        install_server(tmp_path / "old", lambda line: None)
    assert not ran


def test_a_disk_without_room_is_refused_before_anything_is_made(
    tmp_path: Path, ran: list[list[str]], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(install, "_NEEDED_BYTES", 10**18)
    with pytest.raises(InputError, match="GB free"):
        install_server(tmp_path / "vllm", lambda line: None)
    assert not (tmp_path / "vllm").exists()
