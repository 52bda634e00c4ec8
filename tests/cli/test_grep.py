"""The command grep: what it prints is what grep prints of the text, and so are its exit statuses."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import llmzip
from llmzip.cli.main import main

from .conftest import Run

Call = Callable[..., tuple[int, bytes, str]]

LOG = b"""\
10:00 info  start of the job
10:01 warn  disk at 81 %
10:02 error timeout of node-7
10:03 info  retry
10:04 info  retry
10:05 error Timeout of node-8
10:06 info  done
"""
UNICODE = "Straße\nSTRASSE\nÄpfel\näpfel\nplain\n".encode()


def packed(text: bytes, frame_bytes: int = 50) -> bytes:
    return llmzip.compress(text, level=1, model="small", frame_bytes=frame_bytes)


@pytest.fixture
def call(call_with: Callable[..., Call]) -> Call:
    return call_with({"a.log": LOG, "a.llmz": packed(LOG), "u.llmz": packed(UNICODE), "b.llmz": packed(b"other\n")})


def out(call: Call, *arguments: str, code: int = 0) -> bytes:
    found, output, err = call("grep", *arguments)
    assert (found, err) == (code, "")
    return output


# -- as grep ----------------------------------------------------------------------------------------------------------

has_grep = pytest.mark.skipif(
    shutil.which("grep") is None
    or b"GNU" not in subprocess.run(["grep", "-V"], stdout=subprocess.PIPE, check=False).stdout,
    reason="needs GNU grep",
)
LINES = st.lists(
    st.sampled_from(["ab", "a b", "AB", "abab", "", "b", "xab", "ab_", "é", "aé b", "c.c", "\r"]), max_size=12
)
NUMBER = st.integers(0, 3).map(str)
OPTIONS = st.lists(
    st.one_of(
        st.sampled_from(
            [["-n"], ["-i"], ["-v"], ["-c"], ["-l"], ["-L"], ["-w"], ["-x"], ["-H"], ["-h"], ["-o"], ["-Z"]]
        ),
        st.tuples(st.sampled_from(["-m", "-A", "-B", "-C"]), NUMBER).map(list),
    ),
    max_size=4,
)
PATTERNS = st.sampled_from(["ab", "b$", "^a", "^$", "[ab]+", "c.c", "é", "a|b", ".", "x?ab", "(ab)+"])


@has_grep
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(st.tuples(LINES, st.booleans()), min_size=1, max_size=3),
    chosen=OPTIONS,
    patterns=st.lists(PATTERNS, min_size=1, max_size=2),
    fixed=st.booleans(),
    frame_bytes=st.integers(1, 9),
)
def test_any_options_print_what_grep_prints(
    texts: list[tuple[list[str], bool]],
    chosen: list[list[str]],
    patterns: list[str],
    fixed: bool,
    frame_bytes: int,
    tmp_path: Path,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    """With archives of small frames, so that lines and matches cross them."""
    options = [word for option in chosen for word in option]
    plain = {option[0] for option in chosen}
    if {"-l", "-L"} <= plain or {"-o", "-v"} <= plain:  # the one excludes the other; grep 3.4 and 3.11 differ
        return
    arguments = [*options, *(["-F"] if fixed else []), *[word for text in patterns for word in ("-e", text)]]
    archives, files = tmp_path / "archives", tmp_path / "files"
    names = [f"f{number}" for number in range(len(texts))]
    for folder in (archives, files):
        folder.mkdir(exist_ok=True)
    for name, (lines, has_end) in zip(names, texts, strict=True):
        text = "\n".join(lines).encode() + (b"\n" if lines and has_end else b"")
        (files / name).write_bytes(text)
        (archives / name).write_bytes(packed(text, frame_bytes))
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    environment.pop("GREP_COLORS", None)
    done = subprocess.run(
        ["grep", *([] if fixed else ["-E"]), *arguments, *names],
        cwd=files,
        capture_output=True,
        check=False,
        env=environment,
    )
    for folder in (archives, files):
        os.chdir(folder)
        capfdbinary.readouterr()
        assert main(["grep", *arguments, *names]) == done.returncode, arguments
        assert capfdbinary.readouterr().out == done.stdout, arguments


@has_grep
def test_colours_are_those_of_grep(call: Call) -> None:
    """But for the codes that erase the rest of a line."""
    for arguments in (["-n", "retry|timeout"], ["-H", "-C1", "warn"], ["-o", "-n", "node-[0-9]"], ["-c", "-H", "info"]):
        environment = {**os.environ, "LC_ALL": "C.UTF-8", "GREP_COLORS": "ne"}
        wanted = subprocess.run(
            ["grep", "-E", "--color=always", *arguments, "a.log"], capture_output=True, check=False, env=environment
        ).stdout
        found = out(call, "--color", "always", *arguments, "a.log")
        assert found == wanted.replace(b"\x1b[K", b"")


# -- one by one --------------------------------------------------------------------------------------------------------


def test_lines_are_found_in_archives_and_files(call: Call) -> None:
    expected = b"3:10:02 error timeout of node-7\n6:10:05 error Timeout of node-8\n"
    for name in ("a.llmz", "a.log"):
        assert out(call, "-n", "error", name) == expected
    both = out(call, "-n", "error", "a.llmz", "a.log")
    assert both == b"".join(
        name + b":" + line + b"\n" for name in (b"a.llmz", b"a.log") for line in expected.splitlines()
    )
    assert out(call, "nothing like this", "a.llmz", code=1) == b""


def test_no_file_is_opened_for_a_count_of_zero(call: Call) -> None:
    for arguments in (["-m0", "info"], ["-c", "-m0", "info"], ["-l", "-m", "0", "info"], ["-v", "-m0", "info"]):
        assert out(call, *arguments, "a.llmz", "none.llmz", code=1) == b""
    assert call("grep", "-L", "-m0", "info", "a.llmz")[1] == b"a.llmz\n"


def test_the_syntax_is_that_of_python(call: Call) -> None:
    assert out(call, "-c", r"node-(?:7|9)\b", "a.llmz") == b"1\n"
    assert out(call, "-c", "(?i)TIMEOUT", "a.llmz") == b"2\n"
    assert out(call, "-cw", "(?i)TIME", "a.llmz", code=1) == b"0\n"
    assert out(call, "-cw", "(?x) node # a comment", "a.llmz") == b"2\n"
    assert out(call, "-cE", "warn|done", "a.llmz") == out(call, "-cP", "warn|done", "a.llmz") == b"2\n"
    assert out(call, "-c", "-e", "warn\ndone", "a.llmz") == b"2\n"
    assert out(call, "-c", "-e", "(w)arn\\b", "-e", "(re)t\\w", "a.llmz") == b"3\n"
    for pattern, words in (
        ("(", "unterminated subpattern"),
        ("*", "nothing to repeat"),
        ("a{1,99999999999}", "too large"),
    ):
        code, output, err = call("grep", pattern, "a.llmz")
        assert (code, output) == (2, b"") and "is not a regular expression of Python's re" in err and words in err
        assert err.count("\n") == 2 and "llmzip grep --help" in err


def test_lines_are_text_in_utf_8(call: Call, tmp_path: Path) -> None:
    assert out(call, "-i", "äpfel", "u.llmz") == "Äpfel\näpfel\n".encode()
    assert out(call, "^.{6}$", "u.llmz") == "Straße\n".encode()
    assert out(call, "-o", "[ß]", "u.llmz") == "ß\n".encode()
    (tmp_path / "latin1").write_bytes(b"caf\xe9 noir\nplain\n")
    assert out(call, "caf. noir", "latin1") == b"caf\xe9 noir\n"
    assert out(call, "-o", r"\w+\W", "latin1") == b"caf\xe9\n"


def test_context_is_separated(call: Call) -> None:
    assert out(call, "-nC1", "warn|done", "a.llmz") == (
        b"1-10:00 info  start of the job\n2:10:01 warn  disk at 81 %\n3-10:02 error timeout of node-7\n"
        b"--\n6-10:05 error Timeout of node-8\n7:10:06 info  done\n"
    )
    assert out(call, "-m1", "-A2", "retry", "a.llmz") == (
        b"10:03 info  retry\n10:04 info  retry\n10:05 error Timeout of node-8\n"
    )


def test_binary_texts_are_not_printed(call: Call, tmp_path: Path) -> None:
    text = b"first key\n" * 3 + b"second \0 key\nkey\n"
    (tmp_path / "bin").write_bytes(text)
    (tmp_path / "bin.llmz").write_bytes(llmzip.compress(text))
    for name in ("bin", "bin.llmz"):
        assert out(call, "key", name) == f"Binary file {name} matches\n".encode()
        assert out(call, "-a", "key", name) == b"first key\n" * 3 + b"second \0 key\nkey\n"
        assert out(call, "-c", "key", name) == b"5\n"
        assert out(call, "-l", "key", name) == f"{name}\n".encode()
        assert out(call, "-I", "key", name, code=1) == b""
        assert out(call, "none", name, code=1) == b""


def test_quiet_ends_at_the_first_line(call: Call, tmp_path: Path) -> None:
    """What is damaged after it is not read, and an error before it does not count."""
    damaged = bytearray(packed(LOG))
    damaged[-40] ^= 1
    (tmp_path / "bad.llmz").write_bytes(damaged)
    assert out(call, "-q", "start", "bad.llmz") == b""
    code, output, err = call("grep", "-q", "start", "missing", "a.llmz")
    assert (code, output) == (0, b"") and "missing: No such file" in err
    assert call("grep", "-q", "nothing", "bad.llmz")[0] == 2


def test_errors_have_status_2_and_the_others_are_searched(call: Call, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    damaged = bytearray(packed(LOG))
    damaged[-40] ^= 1
    (tmp_path / "bad.llmz").write_bytes(damaged)
    code, output, err = call("grep", "-h", "warn", "missing", "folder", "bad.llmz", "a.llmz")
    assert (code, output) == (2, b"10:01 warn  disk at 81 %\n" * 2)
    first, second, third = err.splitlines()
    assert first == "llmzip: missing: No such file or directory"
    assert second.startswith("llmzip: folder: is a directory") and third.startswith("llmzip: bad.llmz: ")
    code, output, err = call("grep", "-hs", "warn", "missing", "folder", "bad.llmz", "a.llmz")
    assert (code, err.count("\n")) == (2, 1) and err.startswith("llmzip: bad.llmz: ")
    code, output, err = call("grep", "-c", "warn", "bad.llmz", "a.llmz")
    assert (code, output, err.count("\n")) == (2, b"a.llmz:1\n", 1)  # no count of a part
    code, output, err = call("grep", "-L", "nothing", "bad.llmz", "a.llmz")
    assert (code, output, err.count("\n")) == (2, b"a.llmz\n", 1)
    assert out(call, "-l", "warn", "bad.llmz", "a.llmz") == b"bad.llmz\na.llmz\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "a PATTERN is missing"),
        (["-l", "-L", "x", "a.log"], "-l and -L exclude each other"),
        (["-m", "-1", "x", "a.log"], "-m"),
        (["--colour", "blue", "x", "a.log"], "'blue' is not one of"),
        (["--threads", "-3", "x", "a.log"], "threads must be"),
        (["-R", "x", "."], "No such option"),
    ],
)
def test_wrong_use(call: Call, arguments: list[str], words: str) -> None:
    code, output, err = call("grep", *arguments)
    assert (code, output) == (2, b"")
    assert words in err and err.count("\n") == 2


def test_names_may_be_anything(call: Call, tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9\n.llmz")
    (tmp_path / name).write_bytes(packed(LOG))
    assert out(call, "-lZ", "info", name, "a.llmz") == b"caf\xe9\n.llmz\0a.llmz\0"
    assert out(call, "-cH", "info", name) == b"caf\xe9\n.llmz:4\n"


# -- as a process ------------------------------------------------------------------------------------------------------


def test_the_standard_input_is_an_archive_or_a_text(run: Run) -> None:
    for data in (packed(LOG), LOG):
        done = run("grep", "-c", "info", input=data)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"4\n", b"")
        done = run("grep", "-Hc", "info", "-", input=data)
        assert (done.returncode, done.stdout) == (0, b"(standard input):4\n")
    assert run("grep", "x", input=b"").returncode == 1


def test_plain_files_load_no_model(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.log").write_bytes(LOG)
    code = (
        "import sys; from llmzip.cli.main import main; code = main(['grep', '-c', 'info', 'a.log'])\n"
        "print(code, sorted({'torch', 'tokenizers', 'llmzip.inference.load'} & set(sys.modules)))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(llmzip.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=False, env=environment)
    assert done.stdout == b"4\n0 []\n"


def test_a_reader_that_has_gone_ends_it(run: Run, tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(b"line\n" * 400_000)
    with subprocess.Popen(
        [sys.executable, "-m", "llmzip", "grep", "line", "long"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(llmzip.__file__).parents[1])},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"line\n"
        process.stdout.close()
        assert process.wait(timeout=60) == -13


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_has_status_2(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.log").write_bytes(LOG)
    with open("/dev/full", "wb") as full:
        done = run("grep", "info", "a.log", stdout=full)
    assert done.returncode == 2 and b"No space left" in done.stderr


def bottles(number: int) -> bytes:
    return b"%d green bottles, hanging on the wall\n" % number


def test_many_small_archives(run: Run, tmp_path: Path) -> None:
    """They are decoded together, which changes nothing."""
    names = [f"{number}.llmz" for number in range(9)]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(
            llmzip.compress(b"%d green bottles, hanging on the wall\n" % number, model="small")
        )
    done = run("grep", "-h", "[2-4] green", *names)
    assert done.stdout == b"".join(b"%d green bottles, hanging on the wall\n" % number for number in (2, 3, 4))
    assert (done.returncode, done.stderr) == (0, b"")
