"""Runs every command line of the documents and of the help, on small files under the names that they use.

Lines are those of the `sh` blocks, those behind `$ ` in the `console` blocks, and the examples in the help texts of
docs/cli.md. Each runs in a folder of its own, in which there is what it reads and not what it makes, and must end
with 0. What cannot go so far is listed in `SHORTENED` and in `ENDINGS`, with the reason.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import llmzip
from llmzip.cli.main import main, program
from llmzip.models.embedded import EMBEDDED

ROOT = Path(llmzip.__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
pytestmark = pytest.mark.skipif(not DOCUMENTS[0].exists(), reason="the documents are not installed")

TEXT_BYTES, LOG_BYTES, ARCHIVE_BYTES = 2500, 12_000, 7000
"""Of a stand-in. `llmzip train` wants 20,000 bytes of two logs, `cat --range 5000:6000` must find something."""

PROGRAMS = ("llmzcat", "llmzgrep", "unllmzip")
"""Entry points besides llmzip, which a source tree does not have as files."""

TINY = "--layers 1 --hidden 32 --heads 1 --kv-heads 1 --head-size 32 --mlp 64 --vocab 300 --sequence 32 --batch 256"

# -- the lines -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """A command line of a document.

    Attributes:
        place: file and number of the line.
        text: without its comment.
    """

    place: str
    text: str


def _without_comment(line: str) -> str:
    return re.sub(r"\s+#\s.*", "", line).strip()


def _lines() -> Iterator[Line]:
    for document in DOCUMENTS:
        kind = None
        for number, line in enumerate(document.read_text(encoding="utf-8").splitlines(), 1):
            if line.startswith("```"):
                kind = line[3:] if kind is None else None
                continue
            text = ""
            if kind == "sh":
                text = _without_comment(line)
            elif kind == "console" and line.startswith("$ "):
                text = _without_comment(line[2:])
            elif kind == "text" and re.match(r"  (llmzip|tar) (?!\[)", line):
                text = re.sub(r"\s{3,}.*", "", line.strip())
            if text:
                yield Line(f"{document.name}:{number}", text)


def _without_names(text: str) -> str:
    return re.sub(r"\b[\w-]+(?=\.(txt|log|html|png|svg)\b)", "name", text)


# A line that differs from another one in names of files only is run once.
LINES = (
    list({_without_names(line.text): line for line in reversed(list(_lines()))}.values())
    if DOCUMENTS[0].exists()
    else []
)

# -- how far they go -------------------------------------------------------------------------------------------------

SHORTENED: dict[str, tuple[str, str]] = {
    r"^make ": ("make -n ", "prints what it would run: it installs, runs all tests, or takes minutes"),
    r"^pip install \.$": ("test -f pyproject.toml -a -f setup.py", "builds in a new environment, from the network"),
    r"^pip install torch .*": (r"python -m \g<0> --help", "downloads 200 MB"),
    r"^python corpora/fetch\.py .*$": (r"\g<0> --list", "downloads: lists what it would fetch"),
    r"^python corpora/make_logs\.py .*$": (r"\g<0> --bytes 100000 --days 2", "writes 20 MB"),
    r"^(python examples/classify_by_distance\.py)$": (r"\1 --help", "test_examples.py runs it, with small"),
    r"^(llmzip train (?!/var|--resume).*) --time 20m$": (rf"\1 --steps 2 --no-compile {TINY}", "takes 20 minutes"),
    r"ssh host '(.*)'": (r"sh -c '\1'", "there is no other machine"),
    r"^eval (\"\$\(_LLMZIP_COMPLETE=zsh_source .*)": (r"test -n \1", "there may be no zsh"),
    r"^(_LLMZIP_COMPLETE=fish_source llmzip) \| source": (r'test -n "$(\1)"', "there may be no fish"),
    r"--level 1,6,9 -m base,small": ("--peers gzip --level 1,2 -m small", "six measurements, in two processes each"),
    r"--level 1,6,9 notes\.txt": ("--level 1 notes.txt", "the other levels decode slowly"),
    r"--context 31,127,255,511 a\.txt": ("--context 31,127 a.txt", "the longer contexts are those of the text"),
    r"--programs --timeout 600": ("--program gzip --timeout 600 --no-llmzip", "which programs there are differs"),
    r"^llmzip bench( --text-only.*)? (notes\.txt|canterbury)": (r"\g<0> --peers xz -m small", "all take long"),
}
"""Pattern -> what stands in its place, and why."""

ENDINGS: dict[str, tuple[int, str, str]] = {
    r"-t damaged\.llmz": (4, r"damaged\.llmz: frame 0: damaged", "the archive is damaged"),
    r" damaged\.llmz": (4, r"damaged\.llmz: bytes .* are lost", "the archive is damaged"),
    r"(pull|--model) HuggingFaceTB/": (3, "HF_HUB_OFFLINE|not in the Hugging Face cache", "stops at the download"),
    r"-m org/name": (3, "`llmzip models pull org/name` downloads it", "entropy downloads nothing"),
}
"""Pattern -> exit code, what must be said, and why."""

ONLY_PARSED: dict[str, str] = {
    r"^llmzip train /var/log/app": "reads a folder of the system",
    r"/var/log/app/2026-06-01\.log": "reads a folder of the system",
    r"^llmzip cluster": "starts Ray, which the tests in tests/cluster do",
    r"^llmzip train --resume": "continues an interrupted training, which test_train.py does",
    r"--from app-model": "continues from a model, which test_train.py does",
}
"""Pattern -> why only its options are read."""

NEEDS_SHELL = re.compile(r"[|$(]|^\w+=|^(?!llmzip )")

# -- what they find --------------------------------------------------------------------------------------------------

_LONG_AGO = 1_700_000_000
"""When the logs were written, as seconds since 1970: before yesterday, which is what `find -mtime +1` wants."""

_OUTPUTS = re.compile(r"(?:-o|--output|--html|--plot|--export|>) (\S+)")
_TEXTS = ("a.txt", "b.txt", "c.txt", "notes.txt", "book.txt", "a.log", "b.log")
_LOGS = tuple(f"logs/2026-03-{day}-gateway.log" for day in ("02", "03", "11"))


@dataclass
class Stage:
    """Makes what a line reads, in the current folder."""

    line: str

    def fill(self) -> None:
        words = set(re.findall(r"[^\s'\"()|<>;=,]+", self.line)) - set(_OUTPUTS.findall(self.line))
        if not self.line.startswith("llmzip "):
            self._link_the_project()
        for word in sorted(words):
            found = [name for name in (*_TEXTS, *_LOGS) if _matches(name, word)]
            for name in found or [word]:
                self._make(name)

    def _make(self, name: str) -> None:
        path = Path(name)
        if name in ("notes", "notes/", "canterbury"):
            _write(path / "a.txt")
        elif name in ("a", "b", "c") or path.suffix in (".txt", ".log"):
            _write(path)
        elif name in ("logs", "logs/*.llmz"):
            for log in _LOGS:
                self._make(log)
                if name != "logs":
                    self._archive(Path(f"{log}.llmz"))
        elif name.endswith(".tar.llmz"):
            self._make("logs")
            with llmzip.open(name, "wb", model="small") as file, tarfile.open(fileobj=file, mode="w|") as archive:
                archive.add(_LOGS[0])
        elif name == "app-model":
            shutil.copytree(EMBEDDED[1].folder, path)
        elif name == "my-texts.jsonl":
            topics = [{"topic": topic, "text": f"{topic} is what it says, {n}."} for topic in "ab" for n in range(2)]
            path.write_text("".join(json.dumps(topic) + "\n" for topic in topics))
        elif name == "damaged.llmz":
            self._archive(path)
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 0xFF
            path.write_bytes(data)
        elif path.suffix == ".llmz":
            self._archive(path)
        elif name == "notes.packets":
            _write(Path("for packets"))
            assert main(["packets", "-m", "small", "for packets", "-o", name]) == 0
        elif name == "tokens.llmz":
            self._archive(path)
        elif name == "tokens.npy":
            self._archive(Path("for tokens.llmz"))
            assert main(["windows", "--export", name, "for tokens.llmz"]) == 0

    def _link_the_project(self) -> None:
        for part in ("corpora", "examples", "Makefile", "constraints.txt", "pyproject.toml", "setup.py"):
            Path(part).symlink_to(ROOT / part)

    def _archive(self, path: Path) -> None:
        """Of windows, which every command takes."""
        source = path.with_name("for an archive")
        _write(source, ARCHIVE_BYTES)
        assert main(["-m", "small", "--window-bits", "128", str(source), "-o", str(path)]) == 0


def _matches(name: str, pattern: str) -> bool:
    """Whether a shell would find the name by the pattern."""
    parts, wanted = name.split("/"), pattern.split("/")
    return bool(set(pattern) & set("*[")) and len(parts) == len(wanted) and all(
        re.fullmatch(glob.fnmatch.translate(own), part) for part, own in zip(parts, wanted, strict=True)
    )  # fmt: skip


def _write(path: Path, size: int | None = None) -> None:
    """Some text of the corpus, another part for each name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    is_log = path.parent.name == "logs"
    text = (ROOT / "corpora" / ("service.log" if is_log else "prose-en.txt")).read_bytes()
    begin = sum(path.name.encode()) % 50 * 100
    path.write_bytes(text[begin : begin + (size or (LOG_BYTES if is_log else TEXT_BYTES))])
    if is_log:
        os.utime(path, (_LONG_AGO, _LONG_AGO))


# -- running them ----------------------------------------------------------------------------------------------------


def _shortened(line: str) -> str:
    for pattern, (instead, _) in SHORTENED.items():
        line = re.sub(pattern, instead, line)
    return line


@contextlib.contextmanager
def _standing_in(descriptor: int, name: str | None) -> Iterator[None]:
    """A standard stream comes from a file, or goes to one."""
    if name is None:
        yield
        return
    kept = os.dup(descriptor)
    opened = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC if descriptor else os.O_RDONLY)
    os.dup2(opened, descriptor)
    os.close(opened)
    try:
        yield
    finally:
        os.dup2(kept, descriptor)
        os.close(kept)


def _words(command: str) -> tuple[list[str], dict[str, str]]:
    """The arguments of a simple command as a shell would give them, and its redirections."""
    redirections = dict(re.findall(r"\s([<>]) (\S+)", command))
    arguments = []
    for word in shlex.split(re.sub(r"\s[<>] \S+", "", command))[1:]:
        arguments += sorted(glob.glob(word)) or [word]
    return arguments, redirections


def _run_here(line: str) -> int:
    """Runs commands of llmzip in this process, one after the other as long as they end with 0."""
    code = 0
    for command in line.split(" && "):
        arguments, redirections = _words(command)
        with _standing_in(0, redirections.get("<")), _standing_in(1, redirections.get(">")):
            code = main(arguments)
        if code:
            break
    return code


def _run_in_a_shell(line: str, folder: Path) -> tuple[int, str]:
    """Runs anything else, with llmzip on the PATH."""
    commands = folder / "commands"
    commands.mkdir()
    entries = [(name, f"-c 'from llmzip.cli.programs import {name}; {name}()'") for name in PROGRAMS]
    for name, call in (("llmzip", "-m llmzip"), ("python", ""), *entries):
        (commands / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {call} "$@"\n')
        (commands / name).chmod(0o755)
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    search = f"{commands}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash" if "bash_source" in line else "sh", "-c", line],
        env=os.environ | {"PATH": search, "PYTHONPATH": path, "PYTHONWARNINGS": ""},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with an empty cache of the Hub, and small as the model to compress with."""
    from huggingface_hub import constants

    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LLMZIP_MODEL", "small")
    return work


@pytest.mark.parametrize("line", LINES, ids=lambda line: f"{line.place} {line.text[:50]}")
def test_documented_command(line: Line, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    if "--plot" in line.text:
        pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    if line.text.startswith("tar ") and b"GNU" not in subprocess.check_output(["tar", "--version"]):
        pytest.skip("tar is not GNU's, which has -I")
    if any(re.search(pattern, line.text) for pattern in ONLY_PARSED):
        _check_options(_words(line.text)[0])
        return
    text = _shortened(line.text)
    Stage(text).fill()
    capfd.readouterr()
    if NEEDS_SHELL.search(text):
        code, said = _run_in_a_shell(text, folder.parent)
    else:
        code = _run_here(text)
        captured = capfd.readouterr()
        said = captured.out + captured.err
    expected, words = next(
        ((code, words) for pattern, (code, words, _) in ENDINGS.items() if re.search(pattern, line.text)), (0, "")
    )
    assert code == expected, f"{line.place}: {line.text}\n{said}"
    assert re.search(words, said), said


def _check_options(arguments: list[str]) -> None:
    """Whether the command line's own parser takes the arguments."""
    name = arguments[0] if arguments[0] in program.commands else "\0"
    command = program.commands[name]
    command.make_context("llmzip", arguments[name != "\0" :]).close()


# -- the lists themselves --------------------------------------------------------------------------------------------


def test_there_are_lines_of_every_kind() -> None:
    places = {line.place.partition(":")[0] for line in LINES}
    assert {"README.md", "cli.md", "entropy.md", "windows.md", "training.md", "benchmarks.md"} <= places
    assert len(LINES) > 60


@pytest.mark.parametrize("table", [SHORTENED, ENDINGS, ONLY_PARSED], ids=["SHORTENED", "ENDINGS", "ONLY_PARSED"])
def test_every_exception_is_needed(table: dict[str, object]) -> None:
    unused = [pattern for pattern in table if not any(re.search(pattern, line.text) for line in LINES)]
    assert unused == []


def test_a_wrong_line_fails(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for text in ("llmzip entropy -m base,small,large a.txt", "llmzip cat --columns 1:2 notes.txt.llmz"):
        Stage(text).fill()
        assert _run_here(text) != 0
    with pytest.raises(Exception, match="No such option"):
        _check_options(["train", "--no-such-option"])
