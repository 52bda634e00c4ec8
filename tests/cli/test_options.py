"""From arguments to settings, without running anything."""

from __future__ import annotations

from typing import Any

import pytest

from llmzip.cli import main
from llmzip.cli.jobs import COMPRESS, DECOMPRESS, LIST, TEST, Options


class Parsed:
    """What a command line came to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("LLMZIP_MODEL", "LLMZIP_THREADS"):
            monkeypatch.delenv(name, raising=False)
        self.options: Options | None = None
        self.names: tuple[str, ...] = ()
        self.talk: tuple[int, int, bool] = (0, 0, False)

        def run(operation: str, files: Any, quiet: int, verbose: int, debug: bool, **values: Any) -> int:
            values.pop("progress", None)
            values.pop("report", None)
            self.names = files or ("-",)
            self.talk = (quiet, verbose, debug)
            self.options = main._options(operation, len(self.names), **values)
            return 0

        monkeypatch.setattr(main, "_run", run)

    def __call__(self, *arguments: str) -> Options:
        self.options = None
        assert main.main(arguments) == 0
        assert self.options is not None
        return self.options


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Parsed:
    return Parsed(monkeypatch)


@pytest.mark.parametrize(
    ("arguments", "operation"),
    [
        ("", COMPRESS),
        ("f", COMPRESS),
        ("-z f", COMPRESS),
        ("-d f", DECOMPRESS),
        ("--uncompress f", DECOMPRESS),
        ("--decompress f", DECOMPRESS),
        ("-t f", TEST),
        ("-l f", LIST),
        ("-dt f", TEST),
        ("-td f", DECOMPRESS),
        ("-dz f", COMPRESS),
        ("-z f -d", DECOMPRESS),
        ("compress f", COMPRESS),
        ("decompress f", DECOMPRESS),
        ("info f", LIST),
        ("-- info", COMPRESS),
        ("./info", COMPRESS),
        ("f info", COMPRESS),
    ],
)
def test_last_mode_wins(parsed: Parsed, arguments: str, operation: str) -> None:
    assert parsed(*arguments.split()).operation == operation


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
    options = parsed("-dkf", "a", "-T4", "b", "-qc")
    assert (options.operation, options.force, options.to_stdout, options.remove) == (DECOMPRESS, True, True, False)
    assert options.decompress.engine.threads == 4
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
    options = parsed("-o", "-", "f")
    assert options.output is None
    assert options.to_stdout


def test_threads_and_device(parsed: Parsed) -> None:
    options = parsed("--threads", "0", "--device", "cuda:1", "f")
    assert options.compress.engine == options.decompress.engine
    assert (options.compress.engine.threads, options.compress.engine.device) == (0, "cuda:1")


def test_environment_sets_compression_defaults_only(parsed: Parsed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMZIP_MODEL", "elsewhere")
    monkeypatch.setenv("LLMZIP_THREADS", "3")
    for arguments in (["f"], ["compress", "f"], ["-d", "f"], ["-t", "f"], ["decompress", "f"]):
        options = parsed(*arguments)
        assert options.decompress.model is None
        assert options.decompress.engine.threads == 3
        if options.operation == COMPRESS:
            assert options.compress.model == "elsewhere"
    options = parsed("-d", "-m", "here", "f")
    assert options.decompress.model == "here"
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


def test_empty_suffix_is_refused() -> None:
    assert main.main(["-S", "", "f"]) == 2


def test_bad_thread_variable_is_a_usage_error(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("LLMZIP_THREADS", "many")
    assert main.main(["f"]) == 2
    assert "'many'" in capsys.readouterr().err
