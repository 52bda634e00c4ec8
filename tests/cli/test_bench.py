"""`llmzip bench`: verified rows, programs that fail in every way, files that cannot be read, what is written."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmzip.api.oneshot import compress
from llmzip.bench import peers
from llmzip.cli.main import main

from .conftest import COMMAND, ROOT, environment

Call = Callable[..., tuple[int, str, str]]

# Stand-ins for programs. Python's own path is in their first line: the PATH of these tests leads nowhere else.
_GOOD = """
import gzip, sys
if "--version" in sys.argv:
    print("good 1.0")
elif "-d" in sys.argv:
    sys.stdout.buffer.write(gzip.decompress(sys.stdin.buffer.read()))
else:
    sys.stdout.buffer.write(gzip.compress(open(sys.argv[-1], "rb").read(), 9, mtime=0))
"""
_ARCHIVER = """
import sys
archive = sys.argv[2]
if sys.argv[1] == "add":
    open(archive, "wb").write(b"an archive of " + sys.argv[3].encode() + b":" + open(sys.argv[3], "rb").read())
else:
    name, _, text = open(archive, "rb").read().removeprefix(b"an archive of ").partition(b":")
    open(name, "wb").write(text)
"""
_LIES = """
import sys
sys.stdout.buffer.write(b"three" if "-d" in sys.argv else b"3")
"""
_FAILS = """
import sys
print("reading", file=sys.stderr)
sys.exit("the disk is\\x1b tired" if "--version" not in sys.argv else 0)
"""
_CRASHES = """
import os, signal
os.kill(os.getpid(), signal.SIGSEGV)
"""
_HANGS = """
import os, sys, time
if "--version" not in sys.argv:
    open(os.environ["HANGS_AS"], "w").write(str(os.getpid()))
    time.sleep(600)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Small texts of some kinds."""
    texts = tmp_path / "texts"
    texts.mkdir()
    for name in ("prose-de.txt", "latin1.txt"):
        (texts / name).write_bytes((ROOT / "corpora" / name).read_bytes())
    (texts / "empty").touch()
    (texts / ".hidden").write_text("not looked at")
    return texts


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Call:
    """Runs llmzip in this process, in the test's folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        capfdbinary.readouterr()
        code = main(["bench", *arguments])
        out, err = capfdbinary.readouterr()
        return code, out.decode(), err.decode()

    return run


def records(out: str, kind: str = "row") -> list[dict[str, Any]]:
    return [facts for facts in map(json.loads, out.splitlines()) if facts["record"] == kind]


# -- libraries and llmzip --------------------------------------------------------------------------------------------


def test_libraries(call: Call, folder: Path) -> None:
    code, out, err = call("--no-llmzip", "--peers", "gzip,xz", "--pieces", "1KB", "--json", "texts")
    assert (code, err) == (0, "")
    rows = {(row["file"], row["compressor"], row["piece_bytes"]): row for row in records(out)}
    assert len(rows) == 12 and not any(".hidden" in file for file, _, _ in rows)
    text = (folder / "prose-de.txt").read_bytes()
    whole, cut = (rows["texts/prose-de.txt", "gzip -9", piece] for piece in (None, 1000))
    assert whole["compressed_bytes"] == len(peers.LIBRARIES[0].compress(text))
    assert whole["archive_sha256"] == hashlib.sha256(peers.LIBRARIES[0].compress(text)).hexdigest()
    pieces = [text[start : start + 1000] for start in range(0, len(text), 1000)]
    assert cut["compressed_bytes"] == sum(len(peers.LIBRARIES[0].compress(piece)) for piece in pieces)
    assert (cut["num_pieces"], cut["sha256"]) == (3, hashlib.sha256(text).hexdigest())
    assert whole["bits_per_character"] == 8 * whole["compressed_bytes"] / len(text.decode())
    assert 1 <= len(whole["compress_times"]) <= 3 and whole["compress_bytes_per_second"] > 0
    assert 1_000_000 < whole["decompress_peak_bytes"] < 200_000_000
    # A file that is shorter than a piece is one, and not measured twice.
    short = rows["texts/latin1.txt", "gzip -9", 1000]
    assert short["compress_times"] == rows["texts/latin1.txt", "gzip -9", None]["compress_times"]
    assert short["characters"] is None and short["bits_per_character"] is None and short["bits_per_byte"] > 0
    empty = rows["texts/empty", "gzip -9", None]
    assert (empty["status"], empty["compressed_bytes"], empty["ratio"]) == ("ok", 20, None)
    gzip = next(total for total in records(out, "total") if total["compressor"] == "gzip -9")
    assert (gzip["num_files"], gzip["original_bytes"]) == (3, len(text) + (folder / "latin1.txt").stat().st_size)


def test_tables(call: Call, folder: Path) -> None:
    code, out, err = call("--no-llmzip", "--peers", "bzip2", "texts/empty", "texts")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "texts/empty: 0 bytes, empty, so no ratio"  # and once
    assert sum(line.startswith("texts/empty:") for line in lines) == 1
    assert any(line.startswith("texts/latin1.txt: 958 bytes, not valid UTF-8, so no bits/char") for line in lines)
    assert lines[-3].startswith("all 3 files, whole files: ") and lines[-1].split()[:2] == ["bzip2", "-9"]


def test_a_file_keeps_the_name_that_was_given(call: Call, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "plain.txt").write_bytes((folder / "prose-de.txt").read_bytes())
    names = ["plain.txt", "./texts/latin1.txt", str(folder / "prose-de.txt")]
    code, out, err = call("--no-llmzip", "--peers", "gzip", "--json", "-o", "out", *names)
    assert (code, err) == (0, "")
    assert [row["file"] for row in records(out)] == names
    assert [line.partition(",")[0] for line in (tmp_path / "out/results.csv").read_text().splitlines()[1:]] == names
    both = ["-m", "small", "--csv", *names]
    assert main(["entropy", *both]) == 0


def test_llmzip_and_a_second_run_that_measures_nothing(folder: Path, tmp_path: Path) -> None:
    (folder / "empty").unlink()
    (folder / "latin1.txt").unlink()
    program = (
        "import sys; from llmzip.cli.main import main; code = main(sys.argv[1:])\n"
        "print(code, sorted({'torch', 'tokenizers'} & set(sys.modules)), file=sys.stderr)"
    )
    arguments = ["bench", "-m", "small", "--level", "1", "--peers", "gzip", "--json", "-T", "2", "-o", "out", "texts"]
    command = [sys.executable, "-c", program, *arguments]

    def run() -> list[dict[str, Any]]:
        done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, check=True, timeout=120)
        assert done.stderr.decode().splitlines()[-1] == "0 []"
        return records(done.stdout.decode())

    rows = run()
    gzip, llmzip = rows
    assert llmzip["compressor"] == "llmzip -1 small" and llmzip["via"] == "llmzip"
    assert llmzip["compressed_bytes"] < gzip["compressed_bytes"] and llmzip["methods"] == ["lm"]
    text = next(file for file in sorted((tmp_path / "texts").iterdir())).read_bytes()
    sizes = [len(compress(text, model="small", level=1, with_model=with_model)) for with_model in (False, True)]
    model = sizes[1] - sizes[0]
    assert llmzip["model_bytes"] == model and gzip["model_bytes"] == 0
    assert llmzip["compressed_bytes_with_model"] == llmzip["compressed_bytes"] + model
    assert llmzip["bound_bits"] < 8 * llmzip["compressed_bytes"] and len(llmzip["compress_times"]) == 1
    assert llmzip["load_seconds"] > 0 and llmzip["decompress_peak_bytes"] > 50_000_000
    out = tmp_path / "out"
    names = {"results.json", "results.jsonl", "results.csv", "results.md"}
    assert names <= {path.name for path in out.iterdir()}
    log = (out / "results.jsonl").read_bytes()
    facts = json.loads((out / "results.json").read_text())
    assert facts["schema"] == 1 and facts["run"]["command"].startswith("llmzip bench -m small --level 1")
    assert facts["run"]["command"].endswith("--json -T 2 -o out texts")
    assert facts["run"]["machine"]["processor"] and facts["rows"][1]["archive_sha256"] == llmzip["archive_sha256"]
    (out / "results.jsonl").write_bytes(log + b'{"half a li')
    assert run() == rows and (out / "results.jsonl").read_bytes() == log + b'{"half a li\n'


def test_what_is_not_installed_is_said(call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "brotli", None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    text = "the library brotli is not installed: pip install 'llmzip[bench]'"
    code, out, err = call("--no-llmzip", "-o", "out", "texts/latin1.txt")
    assert code == 0 and f"missing: {text}" in out
    assert err == "llmzip: no chart: matplotlib is not installed: pip install 'llmzip[bench]'\n"
    report = Path("out/results.md").read_text()
    assert text in report and "- command: `llmzip bench --no-llmzip -o out texts/latin1.txt`" in report
    code, out, err = call("--no-llmzip", "--peers", "brotli", "texts/latin1.txt")
    assert code == 1 and err == f"llmzip: texts/latin1.txt: brotli -q 11 --lgwin=24: {text}\n"  # it was asked for


# -- programs --------------------------------------------------------------------------------------------------------


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with nothing on it but programs of our own."""
    place = tmp_path / "bin"
    place.mkdir()
    codes = {
        "gzip": _GOOD, "bzip2": _LIES, "xz": _FAILS, "zstd": _HANGS, "brotli": _CRASHES, "zpaq": _ARCHIVER,
    }  # fmt: skip
    for name, code in codes.items():
        (place / name).write_text(f"#!{sys.executable} -S\n{code}")
        (place / name).chmod(0o755)
    (place / "cmix").write_text("no program")
    (place / "cmix").chmod(0o755)
    monkeypatch.setenv("PATH", str(place))
    monkeypatch.setenv("HANGS_AS", str(tmp_path / "hangs-as"))
    return place


def has_ended(number: int) -> bool:
    """Whether a process is gone, or a zombie, within some seconds: a kill does not wait."""
    for _ in range(100):
        try:
            if Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_programs_that_work_and_that_do_not(call: Call, folder: Path, fakes: Path, tmp_path: Path) -> None:
    code, out, err = call("--no-llmzip", "--no-peers", "--programs", "--timeout", "1.5", "--json", "texts/prose-de.txt")
    rows = {row["compressor"]: row for row in records(out)}
    assert code == 1 and len(rows) == len(peers.PROGRAMS)
    good = rows["gzip -9"]
    size = len(peers.LIBRARIES[0].compress((folder / "prose-de.txt").read_bytes()))
    assert (good["status"], good["compressed_bytes"], good["via"]) == ("ok", size, "program")
    assert good["version"].startswith("good 1.0 (sha256 ") and good["command"] == "gzip -9 -n -c text > packed.gzip"
    errors = {name: row["error"] for name, row in rows.items() if row["status"] == "failed"}
    assert errors == {
        "bzip2 -9": "the decompressed text is NOT the original",
        "xz -9e": "exit status 1: the disk is\x1b tired",
        "zstd -19": "stopped after 1.5 s (--timeout)",
        "zstd --ultra -22 --long=27": "stopped after 1.5 s (--timeout)",
        "brotli -q 11 --lgwin=24": "crashed, killed by SIGSEGV",
        "cmix": "cannot be started: Exec format error",
    }
    assert all(row["compressed_bytes"] is None for row in rows.values() if row["status"] != "ok")
    missing = rows["7z PPMd"]
    assert (missing["status"], missing["error"]) == (
        "missing",
        "the program 7zz or 7z or 7za or 7zr is not on the PATH",
    )
    lines = err.splitlines()
    assert len(lines) == len(errors) and "llmzip: texts/prose-de.txt: bzip2 -9 (program): the decompressed" in err
    assert "\x1b" not in err
    assert has_ended(int((tmp_path / "hangs-as").read_text()))


def test_a_program_on_pieces_and_a_missing_one_by_name(call: Call, folder: Path, fakes: Path) -> None:
    arguments = ["--no-llmzip", "--no-peers", "--program", "gzip,zpaq", "--repeat", "2", "--pieces", "1KiB", "--json"]
    code, out, err = call(*arguments, "texts/prose-de.txt")
    whole, archiver, cut, archivers = records(out)
    size = (folder / "prose-de.txt").stat().st_size
    extra = len("an archive of text:")
    assert (archiver["compressed_bytes"], archivers["compressed_bytes"]) == (size + extra, size + 3 * extra)
    assert (code, err) == (0, "") and len(cut["compress_times"]) == len(whole["decompress_times"]) == 2
    assert cut["num_pieces"] == 3 and cut["compressed_bytes"] > whole["compressed_bytes"]
    code, _, err = call("--no-llmzip", "--no-peers", "--program", "paq8px", "texts/prose-de.txt")
    text = "paq8px -8 (program): the program paq8px is not on the PATH"
    assert (code, err) == (1, f"llmzip: texts/prose-de.txt: {text}\n")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_a_signal_ends_the_programs_too(folder: Path, fakes: Path, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    hangs_as = tmp_path / "hangs-as"
    process = subprocess.Popen(
        [*COMMAND, "bench", "--no-llmzip", "--no-peers", "--program", "zstd", "texts/prose-de.txt"],
        cwd=tmp_path, env=environment(TMPDIR=str(tmp_path / "tmp")), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    with process:
        deadline = time.monotonic() + 30
        while not (hangs_as.exists() and hangs_as.read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGTERM
    assert b"stopped by SIGTERM; nothing is kept" in err
    assert has_ended(int(hangs_as.read_text())) and not list((tmp_path / "tmp").iterdir())


# -- wrong use -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "Missing argument"),
        (["--level", "10", "texts"], "'10' is not 1 to 9"),
        (["--level", "six", "texts"], "'six' is not 1 to 9"),
        (["--pieces", "0", "texts"], "'0' is not a number of bytes"),
        (["--pieces", "1QB", "texts"], "'1QB' is not a number of bytes"),
        (["--peers", "gzip,zip", "texts"], "no library compressor 'zip'; there are gzip, bzip2, xz, zstd, brotli"),
        (["--program", "lz5", "texts"], "no program 'lz5'"),
        (["--no-llmzip", "--no-peers", "texts"], "nothing to compare"),
        (["--no-peers", "--peers", "gzip", "texts"], "exclude each other"),
    ],
)
def test_wrong_use(call: Call, folder: Path, arguments: list[str], text: str) -> None:
    code, out, err = call(*arguments)
    assert (code, out) == (2, "") and text in err and len(err.splitlines()) <= 2


def test_a_model_that_is_not_here(call: Call, folder: Path) -> None:
    code, out, err = call("-m", "nosuch/model", "texts")
    assert (code, out) == (3, "") and "models pull nosuch/model" in err and len(err.splitlines()) == 1


def test_files_that_cannot_be_read(call: Call, folder: Path) -> None:
    code, out, err = call("--no-llmzip", "--peers", "gzip", "gone.txt", "texts/latin1.txt", "--json")
    assert (code, err) == (1, "llmzip: gone.txt: No such file or directory\n")
    assert [row["status"] for row in records(out)] == ["ok"] and records(out, "problem")[0]["file"] == "gone.txt"
    code, out, err = call("--no-llmzip", "--peers", "gzip", "/dev/zero")
    assert (code, out, err) == (1, "", "llmzip: /dev/zero: not a regular file\n")
    code, out, err = call("--no-llmzip", "--peers", "gzip", "--most-bytes", "0.5K", "texts")
    assert code == 2 and "'0.5K'" in err
    (folder / "empty").write_bytes(b"\0")
    code, out, err = call("--no-llmzip", "--peers", "gzip", "--text-only", "--most-bytes", "900B", "texts")
    assert (code, err) == (1, "llmzip: there is no file to measure; see --most-bytes and --text-only\n")


def test_pipes_are_measured_like_files(call: Call, folder: Path) -> None:
    os.mkfifo("pipe")
    writer = threading.Thread(target=lambda: Path("pipe").write_bytes(b"from a pipe " * 50))
    writer.start()
    code, out, _ = call("--no-llmzip", "--peers", "gzip", "--json", "--pieces", "100", "pipe", "texts/latin1.txt")
    writer.join()
    assert code == 0
    assert ("pipe", 600) in {(row["file"], row["original_bytes"]) for row in records(out)}


def test_results_spare_the_texts(call: Call, folder: Path) -> None:
    (folder / "results.json").write_text("a text of the user's")
    code, _, err = call("--no-llmzip", "--peers", "gzip", "-o", "texts", "texts")
    assert (code, err.count("\n")) == (1, 1) and "results.json: would be overwritten by the results" in err
    assert (folder / "results.json").read_text() == "a text of the user's"
    assert not (folder / "results.csv").exists()
    (folder / "results.json").unlink()
    (folder / "results.md").symlink_to("latin1.txt")  # another name of a text
    kept = (folder / "latin1.txt").read_bytes()
    code, _, err = call("--no-llmzip", "--peers", "gzip", "-o", "texts", "texts/latin1.txt")
    assert code == 1 and "latin1.txt: would be overwritten by the results" in err
    assert (folder / "latin1.txt").read_bytes() == kept


def test_a_file_that_vanishes_meanwhile(call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llmzip.bench import measure

    real = measure.measure

    def first(text: measure.Text, *rest: Any) -> Any:
        (folder / "prose-de.txt").unlink(missing_ok=True)
        return real(text, *rest)

    monkeypatch.setattr(measure, "measure", first)
    code, out, err = call("--no-llmzip", "--peers", "gzip", "--json", "texts")
    assert (code, err) == (1, "llmzip: texts/prose-de.txt: No such file or directory\n")
    assert [row["file"] for row in records(out)] == ["texts/empty", "texts/latin1.txt"]


@pytest.mark.parametrize("name", ["texts/latin1.txt", "texts/latin1.txt/below"])
def test_an_output_folder_that_cannot_be_one(call: Call, folder: Path, name: str) -> None:
    code, out, err = call("--no-llmzip", "--peers", "gzip", "-o", name, "texts/latin1.txt")
    assert (code, out) == (1, "") and err.startswith(f"llmzip: {name}") and len(err.splitlines()) == 1
