"""llmzcat, llmzgrep and unllmzip as processes: what they do, their names in help, how they are installed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from llmzip import __version__
from llmzip._version import FORMAT_VERSION
from llmzip.cli import programs

from .conftest import ROOT, environment

NAMES = ("llmzcat", "llmzgrep", "unllmzip")


def run(name: str, folder: Path, *arguments: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    """Runs a program as its installed script would, in a folder."""
    script = f"import sys; from llmzip.cli.programs import {name}; sys.exit({name}())"
    if "input" not in options:
        options.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        [sys.executable, "-c", script, *arguments],
        cwd=folder,
        env=environment(),
        capture_output=True,
        timeout=120,
        check=False,
        **options,
    )


def test_the_entry_points_are_those_of_the_package() -> None:
    scripts = (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("[project.scripts]\n")[2]
    entries = dict(re.findall(r'^(\w+) = "([\w.:]+)"$', scripts.partition("\n[")[0], re.MULTILINE))
    assert entries.pop("llmzip") == "llmzip.cli.main:main"
    assert entries == {name: f"llmzip.cli.programs:{name}" for name in NAMES}
    assert all(callable(getattr(programs, name)) for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_help_and_version_have_the_name(name: str, tmp_path: Path) -> None:
    done = run(name, tmp_path, "--help")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(f"Usage: {name} [OPTIONS] ".encode()) and b"Exit status" in done.stdout
    for option in ("-V", "--version"):
        done = run(name, tmp_path, option)
        assert done.stdout.decode() == f"{name} {__version__} (archive format {FORMAT_VERSION})\n"
    done = run(name, tmp_path, "--no-such-option")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.endswith(f"for help: {name} --help\n".encode()) and done.stderr.count(b"\n") == 2


def test_llmzcat_writes_texts_like_zcat(archive: Path, noise: bytes) -> None:
    folder = archive.parent
    for names in ((archive.name,), ("noise.bin",)):  # as zcat finds notes.gz for notes
        done = run("llmzcat", folder, *names)
        assert (done.returncode, done.stdout, done.stderr) == (0, noise, b"")
    done = run("llmzcat", folder, archive.name, "-", archive.name, input=archive.read_bytes())
    assert (done.returncode, done.stdout) == (0, 3 * noise)
    assert run("llmzcat", folder, input=archive.read_bytes()).stdout == noise
    assert sorted(path.name for path in folder.iterdir()) == [archive.name]
    (folder / "plain").write_bytes(b"not an archive")
    done = run("llmzcat", folder, "plain", archive.name)
    assert (done.returncode, done.stdout, done.stderr) == (1, noise, b"llmzip: plain: not an llmzip archive\n")
    done = run("llmzcat", folder, "-f", "plain", archive.name)
    assert (done.returncode, done.stdout) == (0, b"not an archive" + noise)
    damaged = bytearray(archive.read_bytes())
    damaged[50] ^= 1
    archive.write_bytes(damaged)
    assert run("llmzcat", folder, archive.name).returncode == 4


def test_unllmzip_writes_files_like_gunzip(archive: Path, noise: bytes) -> None:
    folder = archive.parent
    done = run("unllmzip", folder, "noise.bin")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert (folder / "noise.bin").read_bytes() == noise and archive.exists()
    assert run("unllmzip", folder, archive.name).returncode == 1  # is there already
    assert run("unllmzip", folder, "-f", "--rm", archive.name).returncode == 0
    assert not archive.exists()


def test_unllmzip_tests_lists_and_filters(archive: Path, noise: bytes) -> None:
    """A filter is what logrotate, tar and bsdtar start."""
    folder = archive.parent
    data = archive.read_bytes()
    for options in ((), ("-d",), ("-c",)):
        done = run("unllmzip", folder, *options, input=data)
        assert (done.returncode, done.stdout, done.stderr) == (0, noise, b"")
    done = run("unllmzip", folder, "-c", archive.name)
    assert (done.returncode, done.stdout) == (0, noise)
    done = run("unllmzip", folder, "-t", archive.name)
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"noise.bin.llmz" in run("unllmzip", folder, "-l", archive.name).stdout
    assert not (folder / "noise.bin").exists()
    assert run("unllmzip", folder, "-z", "x").returncode == 2


def test_llmzgrep_finds_lines_like_zgrep(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one\ntwo\nthree\n")
    assert subprocess.run(
        [sys.executable, "-m", "llmzip", "--rm", "-1", "-m", "small", "a"], cwd=tmp_path, env=environment(), check=True
    )
    (tmp_path / "b").write_bytes(b"two b\n")
    done = run("llmzgrep", tmp_path, "-n", "t", "a", "b")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"a.llmz:2:two\na.llmz:3:three\nb:1:two b\n", b"")
    assert run("llmzgrep", tmp_path, "four", "a").returncode == 1
    assert run("llmzgrep", tmp_path, "four", "c").returncode == 2


def test_completion_has_the_name(tmp_path: Path) -> None:
    script = "from llmzip.cli.programs import unllmzip; unllmzip()"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(_UNLLMZIP_COMPLETE="bash_complete", COMP_WORDS="unllmzip --th", COMP_CWORD="1"),
        capture_output=True,
        check=False,
    )
    assert done.stdout == b"plain,--threads\n"
