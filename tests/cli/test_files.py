"""Files in, files out: names, attributes, what is kept and what is refused."""

from __future__ import annotations

import json
import os
import random
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import llmzip
from llmzip.models.embedded import DEFAULT

from .conftest import ROOT, Run, leftovers

PROSE = (ROOT / "corpora" / "prose-en.txt").read_bytes()[:1500]


def test_round_trip_keeps_source_mode_and_time(run: Run, noise_file: Path, noise: bytes) -> None:
    before = noise_file.stat()
    made = run("noise.bin")
    assert (made.returncode, made.stdout, made.stderr) == (0, b"", b"")
    archive = noise_file.with_name("noise.bin.llmz")
    assert noise_file.read_bytes() == noise
    noise_file.unlink()
    back = run("-d", "noise.bin.llmz")
    assert (back.returncode, back.stdout, back.stderr) == (0, b"", b"")
    assert noise_file.read_bytes() == noise
    for path in (archive, noise_file):
        status = path.stat()
        assert stat.S_IMODE(status.st_mode) == 0o640
        assert status.st_mtime_ns == before.st_mtime_ns
    assert leftovers(noise_file.parent) == []


def test_text_with_the_model(run: Run, tmp_path: Path) -> None:
    text = b"It was a quiet morning, and nobody had noticed the letter on the table.\r\n" * 3
    (tmp_path / "a.txt").write_bytes(text)
    one = run("-vv", "-T1", "a.txt", "-c")
    two = run("compress", "-T2", "-o", "b.llmz", "a.txt")
    assert (one.returncode, two.returncode) == (0, 0)
    assert f"model {DEFAULT.name}".encode() in one.stderr
    assert b"frame 0: mixed" in one.stderr
    assert (tmp_path / "b.llmz").read_bytes() == one.stdout  # threads change no bit
    assert len(one.stdout) < len(text) / 3
    back = run("-dc", "b.llmz", env={"LLMZIP_MODEL": "/nowhere"})  # decoding takes nothing from the environment
    assert (back.returncode, back.stdout) == (0, text)


def test_setuid_bit_is_not_copied(run: Run, noise_file: Path) -> None:
    noise_file.chmod(0o4755)
    assert run("noise.bin").returncode == 0
    assert stat.S_IMODE(noise_file.with_name("noise.bin.llmz").stat().st_mode) == 0o755


def test_output_of_stdin_has_the_umask(run: Run, tmp_path: Path, noise: bytes) -> None:
    assert run("-o", "out", input=noise, preexec_fn=lambda: os.umask(0o027)).returncode == 0
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o640


def test_existing_output_is_left_alone(run: Run, noise_file: Path) -> None:
    target = noise_file.with_name("noise.bin.llmz")
    target.write_text("precious")
    failed = run("noise.bin")
    assert failed.returncode == 1
    assert failed.stderr == b"llmzip: noise.bin.llmz: exists; use -f to overwrite it\n"
    assert target.read_text() == "precious"
    assert run("-kf", "noise.bin").returncode == 0
    assert target.read_bytes() != b"precious"
    assert leftovers(noise_file.parent) == []


def test_dangling_link_counts_as_existing(run: Run, noise_file: Path) -> None:
    target = noise_file.with_name("noise.bin.llmz")
    target.symlink_to("nowhere")
    assert run("noise.bin").returncode == 1
    assert target.is_symlink()
    assert run("-f", "noise.bin").returncode == 0
    assert not target.is_symlink()
    assert not (noise_file.parent / "nowhere").exists()


def test_suffix_rules(run: Run, archive: Path, noise: bytes) -> None:
    folder = archive.parent
    again = run("noise.bin.llmz")
    assert again.returncode == 1
    assert b"already has the suffix .llmz" in again.stderr
    archive.rename(folder / "plain")
    unknown = run("-d", "plain")
    assert unknown.returncode == 1
    assert b"use -o FILE" in unknown.stderr
    assert run("-d", "plain", "-o", "out").returncode == 0
    assert (folder / "out").read_bytes() == noise
    (folder / "plain").rename(folder / ".llmz")
    assert run("-d", ".llmz").returncode == 1  # nothing would be left of the name
    (folder / ".llmz").rename(folder / "x.zz")
    assert run("-d", "-S", ".zz", "x.zz").returncode == 0
    assert (folder / "x").read_bytes() == noise
    assert run("-S", ".zz", "x", "-f").returncode == 0
    (folder / "x.zz").rename(folder / "y.llmz")
    assert run("-d", "-S", ".zz", "y.llmz").returncode == 0  # the usual suffix still counts
    assert (folder / "y").read_bytes() == noise


def test_one_missing_file_does_not_stop_the_others(run: Run, noise_file: Path, noise: bytes) -> None:
    noise_file.with_name("third").write_bytes(noise[:1000])
    done = run("noise.bin", "missing", "third")
    assert done.returncode == 1
    assert done.stderr == b"llmzip: missing: No such file or directory\n"
    assert noise_file.with_name("noise.bin.llmz").exists()
    assert noise_file.with_name("third.llmz").exists()


def test_quiet_keeps_the_exit_code(run: Run) -> None:
    assert run("-q", "missing").stderr != b""
    silent = run("-qq", "missing")
    assert (silent.returncode, silent.stderr) == (1, b"")


def test_rm_removes_after_verifying(run: Run, noise_file: Path, noise: bytes) -> None:
    assert run("--rm", "noise.bin").returncode == 0
    assert not noise_file.exists()
    archive = noise_file.with_name("noise.bin.llmz")
    assert run("-d", "--rm", "noise.bin.llmz").returncode == 0
    assert not archive.exists()
    assert noise_file.read_bytes() == noise


def test_rm_removes_nothing_without_a_file_as_output(run: Run, noise_file: Path) -> None:
    made = run("--rm", "-c", "noise.bin")
    assert made.returncode == 0
    assert noise_file.exists()
    noise_file.with_name("a.llmz").write_bytes(made.stdout)
    assert run("--rm", "-t", "a.llmz").returncode == 0
    assert noise_file.with_name("a.llmz").exists()


def test_rm_refuses_a_pipe_that_has_a_name(run: Run, tmp_path: Path) -> None:
    read, write = os.pipe()
    os.write(write, b"text")
    os.close(write)
    done = run("-f", "--rm", "-o", "out.llmz", f"/dev/fd/{read}", pass_fds=(read,))
    os.close(read)
    assert done.returncode == 1 and b"the text of a pipe" in done.stderr and done.stderr.count(b"\n") == 1
    assert not (tmp_path / "out.llmz").exists()


def test_rm_refuses_links_without_force(run: Run, noise_file: Path) -> None:
    folder = noise_file.parent
    (folder / "soft").symlink_to("noise.bin")
    assert run("soft").returncode == 0
    refused = run("--rm", "-o", "out", "soft")
    assert refused.returncode == 1
    assert b"symbolic link" in refused.stderr
    os.link(noise_file, folder / "hard")
    refused = run("--rm", "hard")
    assert refused.returncode == 1
    assert b"hard link" in refused.stderr
    assert not (folder / "hard.llmz").exists()
    assert run("--rm", "-f", "hard").returncode == 0
    assert not (folder / "hard").exists()
    assert noise_file.exists()


def test_input_is_not_output(run: Run, noise_file: Path, noise: bytes) -> None:
    os.link(noise_file, noise_file.with_name("other"))
    for name in ("noise.bin", "other"):
        refused = run("-f", "-o", name, "noise.bin")
        assert refused.returncode == 1
        assert b"same file" in refused.stderr
    assert noise_file.read_bytes() == noise


def test_directories(run: Run, tmp_path: Path, noise_file: Path) -> None:
    (tmp_path / "folder").mkdir()
    for arguments in (["folder"], ["-d", "folder"], ["-l", "folder"], ["-f", "folder"], ["-fo", "folder", "noise.bin"]):
        refused = run(*arguments)
        assert refused.returncode == 1
        assert refused.stderr.startswith(b"llmzip: folder: is a directory; ")


def test_names_are_masked(run: Run) -> None:
    failed = run("a\x1b[31m\nb")
    assert failed.stderr == b"llmzip: a?[31m?b: No such file or directory\n"


def test_names_that_are_no_utf8(run: Run, tmp_path: Path, noise: bytes) -> None:
    name = b"caf\xe9"
    path = os.path.join(os.fsencode(tmp_path), name)
    try:
        Path(os.fsdecode(path)).write_bytes(noise)
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    assert run(name, "--report", "-", env={"PYTHONUTF8": "1"}).returncode == 0
    listed = run(b"--json", b"-l", name + b".llmz", env={"PYTHONUTF8": "1"})
    assert listed.returncode == 0
    record = json.loads(listed.stdout)
    assert record["file"] == "caf\\xe9.llmz"
    assert bytes.fromhex(record["file_hex"]) == name + b".llmz"
    assert listed.stderr == b""


def test_empty_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    assert run("-v", "empty").returncode == 0
    assert 0 < (tmp_path / "empty.llmz").stat().st_size <= 16
    back = run("-dc", "empty.llmz")
    assert (back.returncode, back.stdout) == (0, b"")


def test_verbose_lines(run: Run, noise_file: Path) -> None:
    line = run("-v", "noise.bin").stderr.decode()
    assert line.startswith("noise.bin: 4,096 -> 4,112 bytes (100.4 %, 8.03 bits/byte), ")
    assert line.count("\n") == 1
    lines = run("-tvv", "noise.bin.llmz").stderr.decode().splitlines()
    assert lines[0].startswith("noise.bin.llmz: OK, 4,112 -> 4,096 bytes")
    assert lines[1].startswith("  model none")
    assert lines[2].startswith("  frame 0: stored, 4,096 original")
    assert run("-t", "noise.bin.llmz").stderr == b""


def test_a_model_that_was_of_no_use_is_said(call_with: Callable[..., Any], tmp_path: Path) -> None:
    call = call_with({"digits": b"0123456789" * 300, "empty": b"", "prose": PROSE})
    help_text = "method zstd: model small did not help here; the archive does not need it"
    code, _, err = call("-v", "-m", "small", "digits")
    lines = err.splitlines()
    assert code == 0 and len(lines) == 2 and re.sub("method [a-z]+", "method zstd", lines[1]) == f"digits: {help_text}"
    method = re.findall("method ([a-z]+)", lines[1])
    assert json.loads(call("-l", "--json", "digits.llmz")[1])["frames_by_method"] == {method[0]: 1}
    assert "did not help" not in call("-f", "-m", "small", "digits")[2]  # only -v tells
    assert "did not help" not in call("-fv", "digits")[2]  # nobody has asked for a model
    assert "did not help" not in call("-v", "-m", "small", "empty")[2]
    code, _, err = call("-v", "-m", "small", "prose")
    assert code == 0 and len(err.splitlines()) == 1
    assert "did not help" not in call("-tv", "digits.llmz")[2]


def test_report(run: Run, noise_file: Path) -> None:
    done = run("--report", "log", "noise.bin", "missing")
    assert done.returncode == 1
    first, second = (json.loads(line) for line in noise_file.with_name("log").read_text().splitlines())
    assert (first["schema"], first["operation"], first["file"]) == (1, "compress", "noise.bin")
    assert (first["original_bytes"], first["compressed_bytes"], first["error"]) == (4096, 4112, None)
    assert first["output"] == "noise.bin.llmz"
    assert second["error"]["code"] == 1
    again = run("-t", "--report", "log", "noise.bin.llmz")  # appended
    assert again.returncode == 0
    assert len(noise_file.with_name("log").read_text().splitlines()) == 3
    on_stderr = run("-t", "--report", "-", "noise.bin.llmz")
    assert json.loads(on_stderr.stderr)["operation"] == "test"
    refused = run("--report", "noise.bin", "-f", "noise.bin")
    assert refused.returncode == 2
    assert noise_file.stat().st_size == 4096
    assert run("--report", "no/such/folder", "-f", "noise.bin").returncode == 1


def test_list_and_info(run: Run, archive: Path) -> None:
    archive.with_name("two.llmz").write_bytes(archive.read_bytes() * 2)
    listed = run("-l", "noise.bin.llmz", "two.llmz")
    assert (listed.returncode, listed.stderr) == (0, b"")
    heading, first, second, totals = listed.stdout.decode().splitlines()
    assert heading.split() == ["compressed", "uncompressed", "ratio", "bits/byte", "frames", "model", "name"]
    assert first.split() == ["4,112", "4,096", "100.4", "%", "8.03", "1", "-", "noise.bin.llmz"]
    assert second.split() == ["8,224", "8,192", "100.4", "%", "8.03", "2", "-", "two.llmz"]
    assert totals.split() == ["12,336", "12,288", "100.4", "%", "8.03", "3", "(2", "files)"]
    assert run("info", "noise.bin.llmz", "two.llmz").stdout == listed.stdout
    frames = run("-lv", "two.llmz").stdout.decode()
    assert frames.count("frame 0: stored") == 2
    assert "crc32 " in frames
    with archive.open("rb") as stream:
        assert b"(stdin)" in run("-l", stdin=stream).stdout


def test_list_as_json(run: Run, archive: Path) -> None:
    archive.with_name("foreign").write_bytes(b"no archive")
    listed = run("-l", "--json", "noise.bin.llmz", "foreign", "missing")
    assert listed.returncode == 1
    good, foreign, missing = (json.loads(line) for line in listed.stdout.splitlines())
    assert (good["schema"], good["file"], good["original_bytes"], good["error"]) == (1, "noise.bin.llmz", 4096, None)
    assert good["archives"][0]["frames"][0]["method"] == "stored"
    assert (good["bits_per_byte"], good["num_frames"]) == (8 * 4112 / 4096, 1)
    assert (good["frames_by_method"], good["model"]) == ({"stored": 1}, None)
    assert (foreign["error"]["code"], foreign["error"]["kind"]) == (1, "FormatError")
    assert missing["error"]["kind"] == "FileNotFoundError"
    tested = run("-t", "--json", "noise.bin.llmz")
    assert json.loads(tested.stdout)["operation"] == "test"


def test_headers_tell_in_json_what_decoding_tells(call_with: Callable[..., Any], tmp_path: Path) -> None:
    call = call_with({"prose": PROSE, "noise": random.Random(2).randbytes(999), "empty": b""})
    for name, model in (("prose", "small"), ("noise", "small"), ("empty", "small")):
        assert call("-m", model, name)[0] == 0
    both = b"".join((tmp_path / f"{name}.llmz").read_bytes() for name in ("noise", "prose"))
    (tmp_path / "both.llmz").write_bytes(both)
    for name in ("prose.llmz", "noise.llmz", "empty.llmz", "both.llmz"):
        listed, tested = (json.loads(call(operation, "--json", name)[1]) for operation in ("-l", "-t"))
        same = {
            "file",
            "original_bytes",
            "compressed_bytes",
            "bits_per_byte",
            "num_frames",
            "frames_by_method",
            "model",
        }
        assert {key: listed[key] for key in same} == {key: tested[key] for key in same}, name
    assert llmzip.info("prose.llmz").model == "small"


def test_debug_shows_the_traceback(run: Run) -> None:
    assert b"Traceback" not in run("missing").stderr
    assert b"Traceback" in run("--debug", "missing").stderr
