"""Help, version and what they cost; docs/cli.md repeats the help word for word."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from llmzip import __version__
from llmzip._version import FORMAT_VERSION

from .conftest import ROOT, Run, environment

DOCUMENT = ROOT / "docs" / "cli.md"
MODELS_COMMANDS = ["list", "info", "pull", "verify"]
COMMANDS = ["compress", "decompress", "info", "train", "models", *(f"models {name}" for name in MODELS_COMMANDS)]
COMMANDS += ["cat", "windows", "packets", "entropy", "distance", "estimate", "bench"]
_BLOCK = re.compile(r"(<!-- help: (llmzip[^>]*?) -->\n```text\n)(.*?)(```\n)", re.DOTALL)


def help_of(command: str) -> str:
    """What `--help` prints."""
    words = command.split()[1:]
    done = subprocess.run(
        [sys.executable, "-m", "llmzip", *words, "--help"], env=environment(), capture_output=True, check=True
    )
    return done.stdout.decode()


@pytest.mark.skipif(not DOCUMENT.exists(), reason="the documents are not installed")
@pytest.mark.skipif(
    tuple(int(part) for part in version("click").split(".")[:2]) < (8, 2), reason="older click wraps lines elsewhere"
)
def test_document_repeats_the_help() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    commands = [match.group(2) for match in _BLOCK.finditer(text)]
    assert commands == ["llmzip", *(f"llmzip {name}" for name in COMMANDS)]
    current = _BLOCK.sub(lambda match: match.group(1) + help_of(match.group(2)) + match.group(4), text)
    if os.environ.get("LLMZIP_UPDATE_DOCS") == "1":
        DOCUMENT.write_text(current, encoding="utf-8")
    else:
        assert text == current, "run LLMZIP_UPDATE_DOCS=1 python -m pytest tests/cli/test_help.py"


@pytest.mark.parametrize(
    "arguments",
    [
        ["-h"],
        ["--help"],
        ["compress", "-h"],
        ["decompress", "--help"],
        ["info", "-h"],
        ["train", "-h"],
        ["models", "-h"],
        ["models", "list", "--help"],
        ["models", "info", "-h"],
        ["models", "pull", "-h"],
        ["models", "verify", "-h"],
        ["bench", "-h"],
    ],
)
def test_help_goes_to_stdout(run: Run, arguments: list[str]) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"Usage: llmzip")
    assert b"Exit codes:" in done.stdout
    assert max(map(len, done.stdout.decode().splitlines())) <= 88


@pytest.mark.parametrize("argument", ["-V", "--version"])
def test_version(run: Run, argument: str) -> None:
    done = run(argument)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == f"llmzip {__version__} (archive format {FORMAT_VERSION})\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["-V"],
        ["-l", "noise.bin.llmz"],
        ["info", "noise.bin.llmz"],
        ["train", "--help"],
        ["models", "pull", "--help"],
        ["bench", "--help"],
    ],
)
def test_light_commands_import_nothing_heavy(archive: Path, arguments: list[str]) -> None:
    program = (
        "import sys; from llmzip.cli import main; code = main(sys.argv[1:])\n"
        "heavy = {'torch', 'transformers', 'numpy', 'tokenizers', 'safetensors', 'constriction', 'tqdm'}\n"
        "heavy.add('huggingface_hub')\n"
        "print(code, sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=archive.parent,
        env=environment(),
        capture_output=True,
        check=True,
    )
    assert done.stderr == b"0 []\n"
    assert done.stdout


def test_shell_completion(tmp_path: Path) -> None:
    (tmp_path / "notes").touch()

    def complete(*words: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-m", "llmzip"],
            env=environment(
                _LLMZIP_COMPLETE="bash_complete", COMP_WORDS=" ".join(words), COMP_CWORD=str(len(words) - 1)
            ),
            capture_output=True,
            check=False,
        )
        return done.stdout.decode().split()

    assert "plain,compress" in complete("llmzip", "com")
    assert "plain,--decompress" in complete("llmzip", "--dec")
    assert "plain,--device" in complete("llmzip", "compress", "--dev")
    assert [line.partition(",")[0] for line in complete("llmzip", "compress", "no")] == ["file"]
    assert [line.partition(",")[0] for line in complete("llmzip", "no")] == ["file"]
