"""From arguments to settings, without running anything."""

from __future__ import annotations

from typing import Any

import pytest

from llmzip.cli import main
from llmzip.cli.commands import archive
from llmzip.cli.inputs import Selection
from llmzip.cli.request import Arguments, Mode, Request


class Parsed:
    """What a command line came to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("LLMZIP_MODEL", "LLMZIP_THREADS"):
            monkeypatch.delenv(name, raising=False)
        self.request: Request | None = None
        self.names: tuple[str, ...] = ()
        self.talk: tuple[int, int, bool] = (0, 0, False)

        def run(mode: Mode | None, files: Any, quiet: int, verbose: int, debug: bool, **values: Any) -> int:
            values.pop("progress", None)
            self.names = files or ("-",)
            self.talk = (quiet, verbose, debug)
            archive.selected(values)
            self.request = archive.parsed(mode, len(self.names), values)
            return 0

        monkeypatch.setattr(archive, "_run", run)

    def __call__(self, *arguments: str) -> Request:
        self.request = None
        assert main.main(arguments) == 0
        assert self.request is not None
        return self.request


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Parsed:
    return Parsed(monkeypatch)


@pytest.mark.parametrize(
    ("arguments", "mode"),
    [
        ("", Mode.COMPRESS),
        ("f", Mode.COMPRESS),
        ("-z f", Mode.COMPRESS),
        ("-d f", Mode.DECOMPRESS),
        ("--uncompress f", Mode.DECOMPRESS),
        ("--decompress f", Mode.DECOMPRESS),
        ("-t f", Mode.TEST),
        ("-l f", Mode.LIST),
        ("-dt f", Mode.TEST),
        ("-td f", Mode.DECOMPRESS),
        ("-dz f", Mode.COMPRESS),
        ("-z f -d", Mode.DECOMPRESS),
        ("compress f", Mode.COMPRESS),
        ("decompress f", Mode.DECOMPRESS),
        ("info f", Mode.LIST),
        ("-- info", Mode.COMPRESS),
        ("./info", Mode.COMPRESS),
        ("f info", Mode.COMPRESS),
    ],
)
def test_last_mode_wins(parsed: Parsed, arguments: str, mode: Mode) -> None:
    assert parsed(*arguments.split()).mode is mode


@pytest.mark.parametrize(
    ("arguments", "level"),
    [
        ("f", 6),
        ("-1 f", 1),
        ("-9 f", 9),
        ("-5c f", 5),
        ("-c7v f", 7),
        ("-1 -9 f", 9),
        ("-9 f -1", 1),
        ("-48 f", 8),
        ("--fast f", 1),
        ("--best f", 9),
        ("--best --fast f", 1),
        ("compress -3 f", 3),
        ("compress f --best", 9),
    ],
)
def test_last_level_wins(parsed: Parsed, arguments: str, level: int) -> None:
    assert parsed(*arguments.split()).compress.level == level


def test_clusters_and_options_after_names(parsed: Parsed) -> None:
    request = parsed("-dkf", "a", "-T4", "b", "-qc")
    assert (request.mode, request.force, request.to_stdout, request.remove) == (Mode.DECOMPRESS, True, True, False)
    assert request.decompress.engine.threads == 4
    assert parsed.names == ("a", "b")
    assert parsed.talk == (1, 0, False)
    parsed("-tvv", "a")
    assert parsed.talk == (0, 2, False)


@pytest.mark.parametrize(
    ("arguments", "removes"),
    [
        ("f", False),
        ("--rm f", True),
        ("-k f", False),
        ("--rm -k f", False),
        ("-k --rm f", True),
        ("--rm --keep f", False),
    ],
)
def test_keep_and_rm(parsed: Parsed, arguments: str, removes: bool) -> None:
    assert parsed(*arguments.split()).remove is removes


def test_names(parsed: Parsed) -> None:
    parsed()
    assert parsed.names == ("-",)
    parsed("a", "-", "b")
    assert parsed.names == ("a", "-", "b")
    parsed("--", "-d", "info")
    assert parsed.names == ("-d", "info")
    parsed("")
    assert parsed.names == ("",)


def test_output_dash_is_stdout(parsed: Parsed) -> None:
    request = parsed("-o", "-", "f")
    assert request.output is None
    assert request.to_stdout


def test_threads_and_device(parsed: Parsed) -> None:
    request = parsed("--threads", "0", "--device", "cuda:1", "f")
    assert request.compress.engine == request.decompress.engine
    assert (request.compress.engine.threads, request.compress.engine.device) == (0, "cuda:1")


def test_environment_sets_compression_defaults_only(parsed: Parsed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMZIP_MODEL", "elsewhere")
    monkeypatch.setenv("LLMZIP_THREADS", "3")
    for arguments in (["f"], ["compress", "f"], ["-d", "f"], ["-t", "f"], ["decompress", "f"]):
        request = parsed(*arguments)
        assert request.decompress.model is None
        assert request.decompress.engine.threads == 3
        if request.mode == Mode.COMPRESS:
            assert request.compress.model == "elsewhere"
    request = parsed("-d", "-m", "here", "f")
    assert request.decompress.model == "here"
    assert parsed("-m", "here", "f").compress.model == "here"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--nope", "--nope"),
        ("compress --nope", "--nope"),
        ("-T x f", "integer"),
        ("-T -1 f", "threads"),
        ("-T 5000 f", "threads"),
        ("--device tpu f", "device"),
        ("-o x a b", "one input"),
        ("-c -o x a", "exclude"),
        ("-t -o x a", "-l and -t"),
        ("-l -o x a", "-l and -t"),
        ("--json a", "--report"),
        ("-S a/b f", "suffix"),
        ("-m", "argument"),
        ("-0 f", "-0"),
        ("-M 1 f", "-M"),
    ],
)
def test_usage_errors(arguments: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(arguments.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("llmzip: ")
    assert words in err
    assert "--help" in err


@pytest.mark.parametrize("command", [[], ["compress"], ["decompress"], ["info"]], ids=" ".join)
def test_every_option_is_an_argument_with_the_same_default(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("LLMZIP_MODEL", "LLMZIP_THREADS"):
        monkeypatch.delenv(variable, raising=False)
    parsed: list[Arguments] = []
    selections: list[Selection] = []

    def run(mode: Mode | None, files: Any, quiet: int, verbose: int, debug: bool, **values: Any) -> int:
        values.pop("progress", None)
        selections.append(archive.selected(values))
        parsed.append(Arguments(**values))
        return 0

    monkeypatch.setattr(archive, "_run", run)
    assert main.main([*command, "f"]) == 0
    assert parsed == [Arguments()]
    assert selections == [Selection()]


def test_empty_suffix_is_refused() -> None:
    assert main.main(["-S", "", "f"]) == 2


def test_bad_thread_variable_is_a_usage_error(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("LLMZIP_THREADS", "many")
    assert main.main(["f"]) == 2
    assert "'many'" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "size"), [("1", 1), ("64KiB", 65536), ("100k", 100_000), ("2MiB", 2 << 20)])
def test_the_size_of_frames_is_read_like_other_sizes(parsed: Parsed, text: str, size: int) -> None:
    for arguments in (("--frame-bytes", text, "f"), ("compress", f"--frame-bytes={text}", "f")):
        assert parsed(*arguments).compress.frame_bytes == size
    assert parsed("f").compress.frame_bytes is None


@pytest.mark.parametrize("text", ["2097153", "3MiB", "64 MiB"])
def test_larger_frames_are_refused_with_one_line(text: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--frame-bytes", text, "f"]) == 2
    first, help_line, *rest = capfd.readouterr().err.splitlines()
    assert first.startswith("llmzip: frame_bytes must be 1 to 2,097,152, not ") and not rest
    assert help_line == "llmzip: for help: llmzip --help"
