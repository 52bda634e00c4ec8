"""The options --html, --plot and --spans of entropy: what they write and print, and what they refuse."""

from __future__ import annotations

import importlib.util
import json
import os
import pty
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from llmzip.cli.command import has_colours

from .conftest import ROOT, Run, environment, leftovers

TEXT = (ROOT / "corpora" / "prose-de.txt").read_bytes()[:1500].decode("utf-8", "ignore").encode()
HOSTILE = b"</script><img src=x onerror=alert(1)>\r\n\x00\x1b[31m \xff\xe6\x9d \xe2\x80\xae\n" + TEXT[:200]
Call = Callable[..., tuple[int, str, str]]
needs_matplotlib = pytest.mark.skipif(not importlib.util.find_spec("matplotlib"), reason="matplotlib is not installed")


@pytest.fixture
def call(call_with: Callable[..., Call]) -> Call:
    return call_with({"tide.txt": TEXT, "b.txt": TEXT[:300]}, "entropy")


class Text(HTMLParser):
    """The text in the rows of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found, self._open = b"", []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in ("meta", "path"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("meta", "path"):
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "i" in self._open:
            self.found += bytes.fromhex(data) if self._open[-1] == "u" else data.encode()


def text_of(page: Path) -> bytes:
    reader = Text()
    reader.feed(page.read_bytes().decode())
    reader.close()
    return reader.found


@pytest.mark.parametrize("data", [TEXT, HOSTILE], ids=["prose", "hostile"])
def test_a_page(call: Call, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "tide.txt").write_bytes(data)
    code, out, _ = call("--json", "--html", "page.html", "tide.txt")
    row = json.loads(out)
    assert code == 0 and row["file"] == "tide.txt" and leftovers(tmp_path) == []
    page = tmp_path / "page.html"
    assert text_of(page) == data
    html = page.read_text("utf-8")
    assert f"<dd>{row['bits_per_byte']:.4f}</dd>" in html and f"<dd>{row['tokens']:,}</dd>" in html
    assert f"Model small, context whole text ({row['tokens']:,} of 16,384)</p>" in html
    facts = json.loads(re.findall(r'id="data">(.*?)</script>', html, re.DOTALL)[0])
    assert facts["alternatives"] == 5 and facts["vocabulary"] == 4096
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(page.stat().st_mode) == 0o666 & ~umask


def test_tables_stay_what_they_are(call: Call) -> None:
    plain = call("tide.txt")
    assert call("--html", "page.html", "tide.txt") == plain and plain[0] == 0


def test_the_standard_input(run: Run, tmp_path: Path) -> None:
    done = run("entropy", "-m", "small", "--html", "page.html", "-", input=TEXT[:300])
    assert (done.returncode, done.stderr) == (0, b"")
    assert (
        text_of(tmp_path / "page.html") == TEXT[:300] and b"<h1>(stdin)</h1>" in (tmp_path / "page.html").read_bytes()
    )


def test_spans(call: Call) -> None:
    code, out, err = call("--spans", "--json", "tide.txt")
    assert (code, err) == (0, "")
    spans = [json.loads(line) for line in out.splitlines()]
    assert "".join(span["text"] for span in spans).encode() == TEXT
    begin = 0
    for span in spans:
        assert span["schema"] == 1 and span["begin"] == begin and span["bytes"] == len(span["text"].encode())
        begin += span["bytes"]
    row = json.loads(call("--json", "tide.txt")[1])
    assert sum(span["bits"] for span in spans) == pytest.approx(row["total_bits"])
    assert sum(span["tokens"] for span in spans) == row["tokens"] > len(spans) > 20
    # People get the same, with bars.
    code, out, err = call("--spans", "tide.txt")
    assert (code, err) == (0, "") and out == "".join(span["text"] + "|" for span in spans) + "\n"


def test_rules_of_spans(call: Call) -> None:
    def count(*arguments: str) -> int:
        code, out, err = call("--spans", *arguments, "tide.txt")
        assert (code, err) == (0, "") and out.replace("|", "") == TEXT.decode() + "\n"
        return out.count("|")

    usual = count()
    assert usual == count("--span-rule", "combined", "--span-percentile", "30") < count("--span-rule", "monotonic")
    assert usual < count("--span-rule", "global")
    assert count("--span-percentile", "60") < usual < count("--span-percentile", "1")


def test_a_short_context_is_said_with_its_stride(call: Call, tmp_path: Path) -> None:
    assert call("--context", "63", "--html", "page.html", "tide.txt")[0] == 0
    assert "Model small, context 63 tokens, stride 31</p>" in (tmp_path / "page.html").read_text("utf-8")


@pytest.mark.parametrize("command", [["entropy", "--spans"], ["windows", "--show", "--window-bits", "64"]])
def test_colours_of_cut_texts(
    call_with: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    text = b"Low tide.\n\nThe harbour is dry,\nand the boats lie on their sides.\n"
    call = call_with({"tide.txt": text})
    arguments = [*command, "-m", "small", "tide.txt"]
    code, plain, err = call(*arguments)
    assert (code, err) == (0, "") and b"\x1b" not in plain and plain.count(b"|") > 2
    assert call(*arguments, "--color", "never") == call(*arguments, "--color", "auto") == (0, plain, "")
    monkeypatch.setenv("NO_COLOR", "1")
    code, coloured, err = call(*arguments, "--color", "always")  # who says so overrules the variable
    assert (code, err) == (0, "") and b"|" not in coloured
    assert re.sub(rb"\x1b\[[0-9;]*m", b"", coloured) == plain.replace(b"|", b"")
    for line in coloured.split(b"\n"):  # every colour ends where its line ends
        assert line.count(b"\x1b[42;30m") + line.count(b"\x1b[46;30m") == line.count(b"\x1b[0m")
        assert not line or line.endswith(b"\x1b[0m")
    pieces = re.findall(rb"\x1b\[4[26];30m", coloured)
    assert len(set(pieces)) == 2


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [({}, True), ({"NO_COLOR": ""}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
)
def test_which_terminals_have_colours(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], coloured: bool
) -> None:
    above, below = pty.openpty()
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    try:
        assert has_colours("auto", below) is coloured
        assert (has_colours("always", below), has_colours("never", below)) == (True, False)
    finally:
        os.close(above)
        os.close(below)


def test_spans_on_a_terminal_have_colours(tmp_path: Path) -> None:
    (tmp_path / "tide.txt").write_bytes(b"Low tide.\x1b[31m\n")
    above, below = pty.openpty()
    command = [sys.executable, "-m", "llmzip", "entropy", "-m", "small", "--spans", "tide.txt"]
    terminal = environment(TERM="xterm")
    terminal.pop("NO_COLOR", None)
    done = subprocess.run(
        command, cwd=tmp_path, env=terminal, stdin=subprocess.DEVNULL, stdout=below, stderr=subprocess.PIPE,
        timeout=60, check=False,
    )  # fmt: skip
    os.close(below)
    out = os.read(above, 1 << 16)
    os.close(above)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"|" not in out and out.startswith(b"\x1b[42;30mLow") and b"\x1b[46;30m" in out
    assert re.sub(rb"\x1b\[[0-9;]*m", b"", out) == b"Low tide.?[31m\r\n\r\n"


@needs_matplotlib
def test_plots(call: Call, tmp_path: Path) -> None:
    titles = {
        ("tide.txt",): ["tide.txt: where the bits go, model small, context whole text (", "mean "],
        ("tide.txt", "b.txt"): ["tide.txt: where the bits go", "b.txt: where the bits go"],
        ("--context", "31,127", "tide.txt", "b.txt"): ["Bits against the context", "context, tokens", "b.txt"],
        ("-m", "small", "-m", "base", "--context", "31,63", "b.txt"): [
            "Bits against the context, b.txt", "Bits against the size of the model, context 63", "7.4 M",
        ],
    }  # fmt: skip
    for arguments, words in titles.items():
        code, _, err = call("-f", "--plot", "plot.svg", *arguments)
        assert (code, err) == (0, "")
        svg = (tmp_path / "plot.svg").read_text()
        for word in words:
            assert f"<!-- {word}" in svg or f" {word} -->" in svg or word in svg, (arguments, word)
    code, _, err = call("--plot", "plot.PNG", "b.txt")
    assert (code, err) == (0, "") and (tmp_path / "plot.PNG").read_bytes().startswith(b"\x89PNG\r\n")
    assert leftovers(tmp_path) == []


@needs_matplotlib
def test_a_plot_has_what_could_be_measured(call: Call, tmp_path: Path) -> None:
    code, _, err = call("--plot", "plot.svg", "missing", "b.txt")
    assert code == 1 and err.startswith("llmzip: missing: No such file") and (tmp_path / "plot.svg").exists()
    code, _, _ = call("--plot", "none.svg", "missing")
    assert code == 1 and not (tmp_path / "none.svg").exists()


def test_without_matplotlib_there_is_a_line_before_the_work(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    code, out, err = call("--plot", "plot.png", "tide.txt")
    assert (code, out, err) == (1, "", "llmzip: --plot needs matplotlib: pip install 'llmzip[bench]'\n")


@needs_matplotlib
@pytest.mark.parametrize("option", ["--html", "--plot"])
def test_files_are_not_overwritten_without_force(call: Call, tmp_path: Path, option: str) -> None:
    out = tmp_path / "out.svg"
    out.write_text("mine")
    code, printed, err = call(option, "out.svg", "b.txt")
    assert (code, printed, err) == (1, "", "llmzip: out.svg: exists; use -f to overwrite it\n")
    assert out.read_text() == "mine"
    code, _, err = call("-f", option, "out.svg", "b.txt")
    assert (code, err) == (0, "") and out.read_bytes() != b"mine" and leftovers(tmp_path) == []
    # The text itself is safe from -f, by any name.
    (tmp_path / "link.svg").hardlink_to(tmp_path / "b.txt")
    code, _, err = call("-f", option, "link.svg", "b.txt")
    assert code == 1 and "link.svg: is the text itself" in err and (tmp_path / "b.txt").read_bytes() == TEXT[:300]
    code, _, err = call(option, "nowhere/out.svg", "b.txt")
    assert code == 1 and "nowhere/out.svg: there is no folder nowhere" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--color", "never", "tide.txt"], "--color needs --spans"),
        (["--html", "p.html", "tide.txt", "b.txt"], "--html takes one FILE, one --model and one --context"),
        (["--html", "p.html", "-m", "small", "-m", "base", "tide.txt"], "--html takes one FILE"),
        (["--html", "p.html", "--context", "31,63", "tide.txt"], "--html takes one FILE"),
        (["--spans", "tide.txt", "b.txt"], "--spans takes one FILE"),
        (["--spans", "--csv", "tide.txt"], "--csv and --spans exclude each other"),
        (["--span-rule", "global", "tide.txt"], "need --spans"),
        (["--span-percentile", "3", "tide.txt"], "need --spans"),
        (["--spans", "--span-rule", "monotonic", "--span-percentile", "3", "tide.txt"], "has no effect"),
        (["--spans", "--span-percentile", "101", "tide.txt"], "span-percentile"),
        (["--html", "-", "tide.txt"], "--html needs the name of a file"),
        (["--plot", "p.pdf", "tide.txt"], "must end in .png or .svg"),
        (["--plot", "p.svg", "--html", "./p.svg", "tide.txt"], "need different files"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_use(call: Call, tmp_path: Path, arguments: list[str], words: str) -> None:
    before = sorted(tmp_path.iterdir())
    code, out, err = call(*arguments)
    assert (code, out) == (2, "") and words in err and err.count("\n") <= 2
    assert sorted(tmp_path.iterdir()) == before
