"""Streams by other names, FIFOs, devices; and files of one run that must not replace each other."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import llmzip

from .conftest import Run, environment, leftovers

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no descriptors have names there")


def bash(folder: Path, script: str) -> subprocess.CompletedProcess[bytes]:
    """Runs a script in which `llmzip` is the program."""
    return subprocess.run(
        ["bash", "-c", f'llmzip() {{ "{sys.executable}" -m llmzip "$@"; }}\n{script}'],
        cwd=folder, env=environment(), capture_output=True, timeout=120, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def test_fifo_as_input_needs_a_name_for_the_output(run: Run, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    refused = run("pipe")  # and does not wait for a writer
    assert refused.returncode == 1
    assert refused.stderr == (b"llmzip: pipe: is not a regular file; name its output with -c or -o FILE, or use -f\n")


@pytest.mark.parametrize(
    ("script", "out"),
    [
        ("llmzip -c <(cat noise.bin) | llmzip -d", None),
        ("llmzip -o a.llmz <(cat noise.bin); llmzip -dc a.llmz", None),
        ("llmzip -c noise.bin > a.llmz; llmzip -dc <(cat a.llmz)", None),
        ("llmzip -t <(llmzip -c noise.bin); echo $?", b"0\n"),
        (
            "llmzip noise.bin -o >(llmzip -d > out; mv out done); while [ ! -e done ]; do sleep 0.1; done; cat done",
            None,
        ),
        ("llmzip -c noise.bin | llmzip cat --range 5:9 -", b"5:9"),
        ("llmzip cat <(llmzip -c noise.bin)", None),
        ("mkfifo p; (llmzip noise.bin -o p &) ; llmzip -dc p", None),
        ("llmzip -c /dev/stdin < noise.bin | llmzip -d /dev/stdin", None),
        ("exec 7< noise.bin; llmzip -c /dev/fd/7 | llmzip -d", None),
    ],
)
def test_fifos_and_process_substitution(
    tmp_path: Path, noise_file: Path, noise: bytes, script: str, out: bytes | None
) -> None:
    done = bash(tmp_path, script)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == {None: noise, b"5:9": noise[5:9]}.get(out, out)


@pytest.mark.parametrize("name", ["/dev/fd/1", "/dev/stdout", "/proc/self/fd/1", "link"])
@pytest.mark.parametrize("redirection", ["2> err | cat", "2> err > out; cat out", "2>&1 | cat"])
def test_other_names_of_the_standard_output(
    tmp_path: Path, noise_file: Path, noise: bytes, name: str, redirection: str
) -> None:
    (tmp_path / "link").symlink_to("/dev/fd/1")
    done = bash(tmp_path, f"llmzip -f noise.bin -o {name} {redirection}")
    assert llmzip.decompress(done.stdout) == noise
    assert (tmp_path / "link").is_symlink()
    assert not leftovers(tmp_path)
    assert not leftovers(Path("/dev"))


@pytest.mark.parametrize("name", ["/dev/fd/2", "/dev/stderr"])
def test_standard_error_as_output(tmp_path: Path, noise_file: Path, noise: bytes, name: str) -> None:
    bash(tmp_path, f"llmzip -f noise.bin -o {name} 2> out")
    assert llmzip.decompress((tmp_path / "out").read_bytes()) == noise
    assert Path("/dev/stderr").is_symlink()


def test_device_as_output_needs_force_and_survives(run: Run, tmp_path: Path, noise_file: Path) -> None:
    refused = run("-o", "/dev/zero", "noise.bin")
    assert refused.returncode == 1
    assert b"use -f to write into it" in refused.stderr
    assert run("-o", "/dev/null", "noise.bin").returncode == 0
    assert run("-f", "-o", "/dev/null", "noise.bin").returncode == 0
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    refused = run("-f", "--rm", "-o", "/dev/null", "noise.bin")
    assert refused.returncode == 1
    assert noise_file.exists()


def test_standard_output_that_is_the_input(tmp_path: Path, noise_file: Path, noise: bytes) -> None:
    done = bash(tmp_path, "llmzip -c noise.bin 1<> noise.bin")
    assert done.returncode == 1
    assert done.stderr.startswith(b"llmzip: noise.bin: the output is the same file as the input")
    assert noise_file.read_bytes() == noise


@pytest.mark.parametrize(
    ("script", "what"),
    [
        ("llmzip -f --report log noise.bin -o log", "output log"),
        ("llmzip -f --report new noise.bin -o ./new", "output ./new"),
        ("llmzip -f --report noise.bin.llmz noise.bin", "output noise.bin.llmz"),
        ("ln log link; llmzip -f --report link noise.bin -o log", "output log"),
        ("llmzip -f --report noise.bin < noise.bin > out", "input file -"),
        ("llmzip -c --report log noise.bin >> log", "output on the standard output"),
        ("llmzip -c --report /dev/stdout noise.bin", "standard output, where the data goes"),
        ("llmzip -c --report log --prompt-file log noise.bin > out", "file of --prompt-file"),
    ],
)
def test_report_that_is_an_input_or_output(
    tmp_path: Path, noise_file: Path, noise: bytes, script: str, what: str
) -> None:
    (tmp_path / "log").write_bytes(b"kept\n")
    done = bash(tmp_path, script)
    assert done.returncode == 2
    assert done.stderr.startswith(f"llmzip: --report would write into the {what}".encode())
    assert (noise_file.read_bytes(), (tmp_path / "log").read_bytes()) == (noise, b"kept\n")
    assert not (tmp_path / "new").exists()


def test_report_on_a_descriptor(tmp_path: Path, noise_file: Path) -> None:
    done = bash(tmp_path, "llmzip -f --report /dev/stdout noise.bin; llmzip -f --report /dev/fd/5 noise.bin 5>> log")
    assert json.loads(done.stdout) | {"elapsed_seconds": 0} == json.loads((tmp_path / "log").read_bytes()) | {
        "elapsed_seconds": 0
    }


def test_outputs_spare_the_other_files_of_the_run(tmp_path: Path, noise_file: Path, noise: bytes) -> None:
    """Even with --force: each of these lost a text."""
    (tmp_path / "other").write_bytes(b"other")
    done = bash(tmp_path, "llmzip -c other > noise.bin.llmz; llmzip -d -f noise.bin.llmz noise.bin")
    assert b"llmzip: noise.bin: is also an input; use another name" in done.stderr
    assert noise_file.read_bytes() == noise
    done = bash(tmp_path, "llmzip noise.bin -fo a.llmz; llmzip other -o a.x; llmzip -d -S .x --rm a.llmz a.x")
    assert done.returncode == 1
    assert b"llmzip: a: exists; use -f" in done.stderr
    done = bash(tmp_path, "llmzip noise.bin -fo a.llmz; llmzip -d -f -S .x --rm a.llmz a.x")
    assert b"llmzip: a: is already an output of this run" in done.stderr
    assert (tmp_path / "a").read_bytes() == noise
    assert (tmp_path / "a.x").exists()
    done = bash(tmp_path, "llmzip -f noise.bin noise.bin")
    assert (done.returncode, done.stderr) == (0, b"")  # loses nothing
    done = bash(tmp_path, "llmzip -f --prompt-file other noise.bin -o other")
    assert b"llmzip: other: is the prompt" in done.stderr
    assert (tmp_path / "other").read_bytes() == b"other"


@pytest.mark.parametrize("export", ["noise.bin", "./noise.bin", "link.npy", "/dev/stdout", "-"])
def test_exports_spare_their_input(run: Run, tmp_path: Path, noise_file: Path, noise: bytes, export: str) -> None:
    (tmp_path / "link.npy.json").symlink_to("noise.bin")
    refused = run("windows", "-m", "small", "--export", export, "noise.bin")
    assert (refused.returncode, noise_file.read_bytes()) == (2, noise)
    assert b"llmzip: --export " in refused.stderr


@pytest.mark.parametrize("name", ["noise.bin", "./noise.bin"])
@pytest.mark.parametrize("option", ["--html", "--plot"])
def test_pages_spare_their_input(run: Run, noise_file: Path, noise: bytes, option: str, name: str) -> None:
    noise_file.rename(noise_file.with_name("t.svg"))
    name = name.replace("noise.bin", "t.svg")
    refused = run("entropy", "-f", "-m", "small", option, name, "t.svg")
    assert refused.returncode == 1
    assert b"is the text itself" in refused.stderr
    assert noise_file.with_name("t.svg").read_bytes() == noise
    refused = run("entropy", "-f", "-m", "small", option, "/dev/stdout", "t.svg")
    assert (refused.returncode, refused.stdout) == (2, b"")
