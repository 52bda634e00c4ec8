"""Help, version and what they cost; docs/cli.md repeats the help word for word."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import click
import pytest

from llmzip import __version__
from llmzip._version import FORMAT_VERSION
from llmzip.cli import main
from llmzip.codec.levels import LEVELS
from llmzip.engines import floating
from llmzip.format import headers, packets
from llmzip.measures import budget, entropy, surprisal
from llmzip.models.embedded import DEFAULT
from llmzip.settings import (
    DEFAULT_LEVEL,
    MAX_FRAME_BYTES,
    MAX_LEVEL,
    MIN_LEVEL,
    USUAL_CONTEXT,
    CompressSettings,
    EngineSettings,
)
from llmzip.training.schedule import ADAM, DEFAULT_RATES, MUON
from llmzip.training.settings import DEFAULT_SECONDS, TrainSettings
from llmzip.training.shapes import PRESETS

from .conftest import ROOT, Run, environment

DOCUMENT = ROOT / "docs" / "cli.md"
MODELS_COMMANDS = ["list", "info", "pull", "verify"]
COMMANDS = ["compress", "decompress", "info", "train", "models", *(f"models {name}" for name in MODELS_COMMANDS)]
CLUSTER_COMMANDS = ["cluster", *(f"cluster {name}" for name in ("compress", "decompress", "test", "entropy"))]
COMMANDS += ["cat", "grep", "windows", "packets", "entropy", "distance", "estimate", *CLUSTER_COMMANDS, "bench"]
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


def options_of(command: click.Command, name: str = "llmzip") -> Iterator[tuple[str, click.Option]]:
    """All options of the program, with the command that each belongs to."""
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            yield name, parameter
    for word, below in getattr(command, "commands", {}).items():
        yield from options_of(below, f"{name} {word}".rstrip("\0 "))


NUMBERS: dict[str, list[object]] = {
    "--fast": [MIN_LEVEL, MIN_LEVEL + 1, MAX_LEVEL, DEFAULT_LEVEL],
    "--level": [DEFAULT_LEVEL],
    "--context": [USUAL_CONTEXT],
    "--rows": [f"{headers.MAX_STEPS:,}"],
    "--window-bits": [headers.MIN_WINDOW_BITS, f"{headers.MAX_WINDOW_BITS:,}"],
    "--packet-bytes": [packets.MIN_PACKET_BYTES, packets.MAX_PACKET_BYTES],
    "--piece-bytes": [entropy.LMIC_PIECE_BYTES],
    "--span-percentile": [f"{surprisal.DEFAULT_PERCENTILE:g}"],
    "--preset": [2, 3, 5, 7, 22, 2, 2, 4, 5, 16],  # a test below computes them
    "--time": [90, 20, 2, int(DEFAULT_SECONDS / 60)],  # examples, and the default
    "--rate": [DEFAULT_RATES[MUON], DEFAULT_RATES[ADAM]],
    "--threads": [0],
    "--gpus-per-worker": [0.5],
    "--range": [0, 0],
    "--lines": [1, 1],
    "--line-number": [1],
    "--silent": [0],
    "--stride": [1],
    "--frame-bytes": [64, MAX_FRAME_BYTES >> 20, headers.MAX_LM_BYTES >> 20],
    "--programs": [7],  # 7z
}
"""Option -> the numbers in its help, from the constants that make them true."""


def test_numbers_in_the_help_are_those_of_the_program() -> None:
    seen = set()
    for command, option in options_of(main.program):
        numbers = re.findall(r"(?<![\w.])\d+(?:,\d{3})*(?:\.\d+)?", option.help or "")
        name = option.opts[-1]
        if numbers:
            seen.add(name)
            assert numbers == [str(number) for number in NUMBERS.get(name, [])], f"{command} {name}: {option.help}"
    assert seen == set(NUMBERS)


def test_the_help_of_levels_is_true() -> None:
    """Each level has rows of its own but the first two, which the mixer tells apart."""
    assert list(LEVELS) == list(range(MIN_LEVEL, MAX_LEVEL + 1))
    assert [level for level, meaning in LEVELS.items() if not meaning.mixes] == [MIN_LEVEL]
    rows = [(meaning.min_row_tokens, meaning.max_rows) for meaning in LEVELS.values()]
    assert rows[0] == rows[1] and len(set(rows)) == MAX_LEVEL - 1
    tokens, most = zip(*rows, strict=True)
    assert list(tokens) == sorted(tokens) and list(most) == sorted(most, reverse=True)
    (text,) = {option.help for _, option in options_of(main.program) if option.opts[-1] == "--fast"}
    assert text is not None and text.startswith("-1 skips the mixer: fastest to compress")


def test_defaults_in_the_help_are_those_of_the_settings() -> None:
    known = {
        "--engine": CompressSettings().arithmetic,
        "--dtype": CompressSettings().dtype,
        "--device": EngineSettings().device,
        "--suffix": headers.SUFFIX,
        "--preset": TrainSettings(("text",), Path()).preset,
        "--seconds": budget.DEFAULT_SECONDS,
    }
    for command, option in options_of(main.program):
        if option.opts[-1] in known:
            assert option.default == known[option.opts[-1]], (command, option.opts)
    assert floating._DEFAULT_CONTEXT == USUAL_CONTEXT
    for _, option in options_of(main.program):
        if option.opts[-1] == "--model" and "[default" in (option.help or ""):
            assert f"[default: {DEFAULT.name}]" in (option.help or "")


def test_presets_have_the_sizes_that_the_help_tells() -> None:
    (text,) = {option.help for _, option in options_of(main.program) if option.opts[-1] == "--preset"}
    weights = [int(n) for n in re.findall(r"\d+", str(text).partition("million")[0])]
    found = [round(PRESETS[name].num_parameters / 1e6) for name in ("small", "bytes", "medium", "base", "large")]
    assert weights == found


def test_names_keep_their_capitals() -> None:
    for command, option in options_of(main.program):
        for wrong in ("hugging face", "hugging Face", " hub ", " hub,", "lmic", "gpus"):
            assert wrong not in f"{option.help} ", (command, option.opts)
        first = (option.help or "A")[0]
        assert first.isupper() or first in "-a", (command, option.opts, option.help)


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
        ["cluster", "-h"],
        ["cluster", "entropy", "--help"],
        ["bench", "-h"],
    ],
)
def test_help_goes_to_stdout(run: Run, arguments: list[str]) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"Usage: llmzip")
    assert b"Exit status:" in done.stdout
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
        ["cluster", "compress", "--help"],
        ["bench", "--help"],
    ],
)
def test_light_commands_import_nothing_heavy(archive: Path, arguments: list[str]) -> None:
    program = (
        "import sys; from llmzip.cli.main import main; code = main(sys.argv[1:])\n"
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


def test_commands_are_imported_when_they_are_used() -> None:
    later = {name: entry for name, entry in main.program.commands._entries.items() if isinstance(entry, main.Later)}
    assert {"train", "models", "entropy", "cluster"} <= later.keys()
    for name, entry in later.items():
        command = main.program.commands[name]
        assert command.name == name and command.get_short_help_str(80) == entry.help
    modules = sorted({f"llmzip.cli.commands.{entry.place.partition(':')[0]}" for entry in later.values()})
    code = (
        "import sys\n"
        "from llmzip.cli.main import main\n"
        "code = main(['--help'])\n"
        f"print(code, sorted(set({modules!r}) & set(sys.modules)))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    assert result.stdout.splitlines()[-1] == "0 []"
