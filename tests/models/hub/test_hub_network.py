"""Checks that a name without an owner never goes to the network, whatever takes it; with one it does, where it may."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_hub import TEXT, commit_of, fill

import llmzip
from llmzip.cli import main
from llmzip.models import hub
from llmzip.models.choice import choose_model, fetch_model
from llmzip.models.reference import parse_model

NAMES = ["Base", "smol", "gpt2", "gpt2@main", "nope"]
CALLS: dict[str, Callable[[str], Any]] = {
    "compress": lambda name: llmzip.compress(TEXT, model=name),
    "decompress": lambda name: llmzip.decompress((Path("book.llmz")).read_bytes(), model=name),
    "open": lambda name: llmzip.open("made.llmz", "wb", model=name).close(),
    "choose": choose_model,
    "fetch": lambda name: fetch_model(parse_model(name), print, lambda *arguments: pytest.fail("a bar")),
    "download": lambda name: hub.download(
        hub.parse(name) or pytest.fail(name), print, print, lambda *x: pytest.fail("")
    ),
}
COMMANDS = [
    "-m NAME book.txt",
    "compress -c -m NAME book.txt",
    "-m NAME --rm -f book.txt",
    "-m NAME --engine float book.txt",
    "-d -c -m NAME book.llmz",
    "-t -m NAME book.llmz",
    "decompress -c -m NAME book.llmz",
    "cat -m NAME book.llmz",
    "estimate -m NAME book.txt",
    "distance -m NAME book.txt other.txt",
    "entropy -m NAME book.txt",
    "entropy -m small,NAME book.txt",
    "entropy -m NAME --engine float book.txt",
    "bench --no-peers -m NAME book.txt",
    "windows -m NAME book.txt",
    "packets -m NAME book.txt -o made",
    "models info NAME",
    "models verify NAME",
    "models pull NAME",
    "models list",
    "train book.txt -o made --from NAME",
]


@pytest.fixture
def attempts(tmp_path: Path, cache: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was tried to be reached, in a folder with texts and an archive of a user's model, with a network allowed."""
    from huggingface_hub import constants

    found: list[Any] = []

    def refuse(*arguments: Any, **more: Any) -> Any:
        found.append(arguments)
        raise OSError("a network that the test does not have")

    monkeypatch.chdir(tmp_path)
    (tmp_path / "book.txt").write_bytes(TEXT)
    (tmp_path / "other.txt").write_bytes(TEXT[:500])
    (tmp_path / "book.llmz").write_bytes(llmzip.compress(TEXT, model=checkpoint, level=1))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert not hub.forbidden_by_environment()
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_goes_to_the_network(
    command: str, attempts: list[Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in NAMES[:3]:
        code = main.main([word.replace("NAME", name) for word in command.split()])
        err = capfd.readouterr().err
        assert attempts == [], command
        assert code == (0 if command == "models list" else 2 if "pull" in command else 3), err
        if code == 3:
            assert "org/name" in err or "openai-community/gpt2" in err or command.startswith("bench"), err
        assert "downloaded" not in err and "kept" not in err.replace("source is kept", "")
    assert (tmp_path / "book.txt").read_bytes() == TEXT


@pytest.mark.parametrize("call", CALLS)
def test_no_call_goes_to_the_network(call: str, attempts: list[Any]) -> None:
    for name in NAMES:
        if call == "fetch":
            assert CALLS[call](name) == parse_model(name)
            continue
        with pytest.raises(llmzip.ModelNotFoundError):
            CALLS[call](name)
    assert attempts == []


def test_nor_does_the_variable(
    attempts: list[Any], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LLMZIP_MODEL", "Base")
    for command in ("book.txt", "estimate book.txt", "distance book.txt other.txt"):
        assert main.main(command.split()) == 3
        assert "no model 'Base'; did you mean 'base'?" in capfd.readouterr().err
    assert attempts == []


@pytest.mark.parametrize(
    "command",
    ["-m org/name book.txt", "models pull org/name", "estimate -m org/name book.txt",
     "distance -m org/name book.txt other.txt"],
)  # fmt: skip
def test_with_an_owner_it_is_tried(command: str, attempts: list[Any], capfd: pytest.CaptureFixture[str]) -> None:
    """The same set-up sees it where it happens; and as nothing has arrived, nothing is said to be kept."""
    assert main.main(command.split()) == 3
    err = capfd.readouterr().err
    assert attempts and "org/name cannot be downloaded from https://huggingface.co: " in err
    assert err.count("\n") == 1 and "; try again, or give a folder" in err and "kept" not in err.replace("is kept", "")


def test_what_has_arrived_is_said_to_be_kept(
    attempts: list[Any], cache: Path, files: dict[str, bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    fill(cache, "org/name", commit_of(1), {"config.json": files["config.json"]})
    assert main.main(["models", "pull", "org/name"]) == 3
    assert "what has arrived is kept: try again, or give a folder" in capfd.readouterr().err


def test_a_model_without_an_owner_in_the_cache_is_used(
    attempts: list[Any], cache: Path, files: dict[str, bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    snapshot = fill(cache, "gpt2", commit_of(1), files)
    archive = llmzip.compress(TEXT, model="gpt2", level=1)
    assert llmzip.info(archive).model == f"gpt2@{commit_of(1)}"
    assert llmzip.decompress(archive) == llmzip.decompress(archive, model="gpt2") == TEXT
    for command in ("-f -m gpt2 book.txt", "entropy -m gpt2 book.txt", "models info gpt2", "models verify gpt2"):
        assert main.main(command.split()) == 0, capfd.readouterr().err
    capfd.readouterr()
    assert main.main(["-c", "-m", "gtp2", "book.txt"]) == 3
    assert "no model 'gtp2'; did you mean 'gpt2'?" in capfd.readouterr().err
    (snapshot / "config.json").resolve().write_bytes(b"{}")
    assert main.main(["models", "verify", "gpt2"]) == 3
    fetches = f"`llmzip models pull openai-community/gpt2@{commit_of(1)}` fetches it under its full name"
    assert fetches in capfd.readouterr().err
    (snapshot / "config.json").unlink()
    assert main.main(["-c", "-m", "gpt2", "book.txt"]) == 3
    assert fetches in capfd.readouterr().err
    (cache / "models--gpt2").rename(cache / "away")
    with pytest.raises(llmzip.ModelNotFoundError, match=f"{fetches}; or give its folder with --model DIR"):
        llmzip.decompress(archive)
    assert attempts == []
