"""Foreign, damaged, newer and impossible: one line, the documented exit code, nothing half-written."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from llmzip._version import FORMAT_VERSION
from llmzip.format import headers, writing

from .conftest import Run, environment, leftovers


def only_line(err: bytes) -> str:
    """The one line that a failure may print."""
    text = err.decode()
    assert text.count("\n") == 1, text
    assert text.startswith("llmzip: ")
    return text.removeprefix("llmzip: ").rstrip()


def test_foreign_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.llmz").write_bytes(b"a letter to a friend")
    for option in ("-d", "-t", "-l", "-dc"):
        done = run(option, "a.llmz")
        assert (done.returncode, done.stdout) == (1, b"")
        assert only_line(done.stderr).startswith("a.llmz: not an llmzip archive")
    assert not (tmp_path / "a").exists()
    assert leftovers(tmp_path) == []


def test_empty_file_is_no_archive(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.llmz").write_bytes(b"")
    done = run("-d", "a.llmz")
    assert done.returncode in (1, 4)
    only_line(done.stderr)
    assert not (tmp_path / "a").exists()


def test_truncated(run: Run, archive: Path) -> None:
    archive.write_bytes(archive.read_bytes()[:-1])
    for option in ("-d", "-t", "-dc"):
        done = run(option, "noise.bin.llmz")
        assert (done.returncode, done.stdout) == (4, b"")
        assert "truncated" in only_line(done.stderr)
    assert not archive.with_name("noise.bin").exists()
    assert leftovers(archive.parent) == []


def test_damaged(run: Run, archive: Path) -> None:
    data = bytearray(archive.read_bytes())
    data[1000] ^= 1
    archive.write_bytes(data)
    done = run("-d", "noise.bin.llmz")
    assert done.returncode == 4
    assert "damaged" in only_line(done.stderr)
    assert "no output was written" in only_line(done.stderr)
    assert not archive.with_name("noise.bin").exists()
    assert run("-l", "noise.bin.llmz").returncode == 0  # headers only: documented


def test_damage_after_a_good_archive(run: Run, archive: Path, noise: bytes) -> None:
    archive.write_bytes(archive.read_bytes() + b"garbage")
    done = run("-dc", "noise.bin.llmz")
    assert done.returncode == 1
    assert done.stdout == noise  # what was written before is verified
    assert "the 4,096 bytes written before it are verified" in only_line(done.stderr)
    assert run("-d", "noise.bin.llmz").returncode == 1
    assert not archive.with_name("noise.bin").exists()


def test_newer_format_version(run: Run, archive: Path) -> None:
    data = bytearray(archive.read_bytes())
    data[len(headers.MAGIC)] = data[len(headers.MAGIC)] & 0xF0 | FORMAT_VERSION + 1
    archive.write_bytes(data)
    for option in ("-d", "-l"):
        done = run(option, "noise.bin.llmz")
        assert done.returncode == 1
        assert f"version {FORMAT_VERSION + 1}" in only_line(done.stderr)


def test_missing_model(run: Run, archive: Path) -> None:
    record = headers.ModelRecord("their-model", b"\xaa" * 16, b"\xbb" * 16, planes=1, context=64, start_token=0)
    prefix = writing.pack_header(headers.Header(headers.USER_MODEL, record))
    frame = headers.FrameHeader(headers.LM, last=True, original_bytes=5, payload_bytes=3, num_tokens=4)
    archive.write_bytes(writing.pack_frame(frame, b"abc", 0, prefix))
    done = run("-d", "noise.bin.llmz", env={"LLMZIP_MODEL": str(archive.parent)})
    assert done.returncode == 3
    line = only_line(done.stderr)
    assert "their-model" in line
    assert "aa" * 16 in line
    assert "--model" in line
    listed = run("-l", "noise.bin.llmz")  # needs no model
    assert listed.returncode == 0
    assert b"their-model" in listed.stdout
    archive.with_name("cut.llmz").write_bytes(archive.read_bytes()[:-1])
    mixed = run("-t", "noise.bin.llmz", "cut.llmz")  # two kinds of failure
    assert mixed.returncode == 1


def test_unknown_model_to_compress_with(run: Run, noise_file: Path) -> None:
    done = run("-m", "no-such-model", "noise.bin")
    assert done.returncode == 3
    assert "no-such-model" in only_line(done.stderr)
    assert not noise_file.with_name("noise.bin.llmz").exists()
    assert run("noise.bin", env={"LLMZIP_MODEL": "no-such-model"}).returncode == 3


@pytest.mark.parametrize("arguments", [["noise.bin"], ["--rm", "noise.bin"]])
def test_file_that_cannot_be_written(run: Run, noise_file: Path, noise: bytes, arguments: list[str]) -> None:
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # noqa: E731
    done = run(*arguments, preexec_fn=limit)
    assert done.returncode == 1
    line = only_line(done.stderr)
    assert line == "noise.bin.llmz: File too large; no output was written, the source is kept"
    assert noise_file.read_bytes() == noise
    assert sorted(path.name for path in noise_file.parent.iterdir()) == ["noise.bin"]


def test_folder_that_is_not_there(run: Run, noise_file: Path) -> None:
    done = run("-o", "no/such/folder", "noise.bin")
    assert done.returncode == 1
    assert only_line(done.stderr).startswith("no/such/folder: No such file or directory")


def test_internal_error_is_one_line(run: Run, noise_file: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import llmzip.codec.writer as writer\n"
        "def broken(*arguments, **keywords): raise RuntimeError('two\\nlines')\n"
        "writer.compress_stream = broken\n"
    )
    env = {"PYTHONPATH": os.pathsep.join([str(tmp_path), environment()["PYTHONPATH"]])}
    done = run("noise.bin", env=env)
    assert done.returncode == 1
    line = only_line(done.stderr)
    assert line.startswith("noise.bin: internal error: RuntimeError: two lines; report it")
    assert b"Traceback" in run("--debug", "noise.bin", env=env).stderr
    assert not noise_file.with_name("noise.bin.llmz").exists()
    assert leftovers(tmp_path) == []
