"""--resume: a run that was killed at any moment goes on, and its output is that of a run that was not."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import llmzip

from .conftest import ROOT, environment, leftovers
from .test_signals import wait_until

TEXT = (ROOT / "corpora" / "prose-en.txt").read_bytes()[:24_000]
NOISE = random.Random(2).randbytes(6_000)

# Frames of 2,000 bytes and units of 16,000, so that a short run has many of them.
SMALL_FRAMES = """
import sys, time
from llmzip.codec import drafts, methods, writer
drafts.PIECE_BYTES, writer.UNIT_BYTES = 2000, 16_000
plain = methods.compress_plain
methods.compress_plain = lambda data: time.sleep({delay}) or plain(data)
from llmzip.windows import frames
encode = frames.encode
frames.encode = lambda *arguments, **more: time.sleep({delay}) or encode(*arguments, **more)
from llmzip.cli.main import main
sys.exit(main(sys.argv[1:]))
"""

Call = Callable[..., tuple[int, bytes, str]]


@pytest.fixture
def call(call_with: Callable[..., Call]) -> Call:
    return call_with({"a": TEXT + NOISE + TEXT[:7000]})


def start(folder: Path, *arguments: str, delay: float = 0.02) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", SMALL_FRAMES.format(delay=delay), *arguments],
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finished(process: subprocess.Popen[bytes]) -> str:
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return err.decode()


def wait_until_it_grows(path: Path, process: subprocess.Popen[bytes]) -> None:
    begun = size(path)
    wait_until(lambda: size(path) > begun or process.poll() is not None)


def kill_amid_work(process: subprocess.Popen[bytes], partial: Path, seconds: float) -> None:
    """Kills a process some seconds after it has added something to what it keeps."""
    wait_until_it_grows(partial, process)
    time.sleep(seconds)
    process.kill()
    process.communicate(timeout=60)


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@pytest.mark.parametrize(
    ("options", "seed"),
    [
        (("-1", "-m", "small"), 0),
        (("-1", "-m", "small"), 1),
        (("--window-bits", "64", "-m", "small"), 2),
        (("-1", "-m", "small", "--with-model", "--recovery", "5%"), 3),
    ],
)
def test_compression_killed_at_random_moments(call: Call, tmp_path: Path, options: tuple[str, ...], seed: int) -> None:
    finished(start(tmp_path, *options, "a", "-o", "expected"))
    expected = (tmp_path / "expected").read_bytes()
    assert llmzip.decompress(expected) == (tmp_path / "a").read_bytes()
    rng, partial = random.Random(seed), tmp_path / "a.llmz.partial"
    sizes = []
    for _ in range(4):
        kill_amid_work(start(tmp_path, *options, "--resume", "a"), partial, rng.random() / 4)
        if (tmp_path / "a.llmz").exists():
            break
        sizes.append(size(partial))
        if rng.random() < 0.5:  # a kill amid a write, and a power cut
            with partial.open("r+b") as file:
                file.truncate(max(size(partial) - rng.randrange(1, 200), 0))
                file.seek(0, os.SEEK_END)
                file.write(bytes(rng.randrange(100)))
    assert len(sizes) > 1 and sizes[-1] > sizes[0] > 0
    if not (tmp_path / "a.llmz").exists():
        finished(start(tmp_path, *options, "--resume", "a"))
    assert (tmp_path / "a.llmz").read_bytes() == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "a.llmz", "expected"]


def test_nothing_is_computed_twice(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llmzip.codec import drafts, writer

    monkeypatch.setattr(drafts, "PIECE_BYTES", 2000)
    monkeypatch.setattr(writer, "UNIT_BYTES", 16_000)
    coded: list[int] = []
    by_model = drafts.Drafter._token_draft

    def count(self, piece, level, progress, *, plain=None):
        if plain is not None:
            coded.append(len(piece.data))
            if len(coded) == limit:
                raise KeyboardInterrupt
        return by_model(self, piece, level, progress, plain=plain)

    monkeypatch.setattr(drafts.Drafter, "_token_draft", count)
    limit = 0
    assert call("-1", "-m", "small", "-o", "expected", "a")[0] == 0
    once = len(coded)
    coded.clear()
    limit = 15
    monkeypatch.setattr("llmzip.system.process.die_by_signal", lambda number: (_ for _ in ()).throw(SystemExit(130)))
    with pytest.raises(SystemExit):
        call("-1", "-m", "small", "--resume", "a")
    assert (tmp_path / "a.llmz.partial").exists()
    limit = 0
    assert call("-1", "-m", "small", "--resume", "a")[0] == 0
    assert len(coded) == once + 1  # the piece that was interrupted
    assert (tmp_path / "a.llmz").read_bytes() == (tmp_path / "expected").read_bytes()


def test_other_settings_are_refused_and_other_inputs_are_not(call: Call, tmp_path: Path) -> None:
    process = start(tmp_path, "-1", "-m", "small", "--resume", "a", delay=0.1)
    partial = tmp_path / "a.llmz.partial"
    wait_until(lambda: size(partial) > 3000)
    busy = call("-1", "-m", "small", "--resume", "a")
    process.kill()
    process.communicate(timeout=60)
    assert busy[0] == 1 and busy[2] == ("llmzip: a.llmz: a.llmz.partial is in use: another llmzip works on it\n")
    kept = partial.read_bytes()
    for options, name in ((("-2", "-m", "small"), "level"), (("-1", "-m", "base"), "model"),
                          (("-1", "-m", "small", "--rows", "3"), "rows")):  # fmt: skip
        code, out, err = call(*options, "--resume", "a")
        assert (code, out) == (1, b"")
        assert err == (
            f"llmzip: a: a.llmz.partial was begun with another setting of {name}: run the same command again, or "
            "remove it to begin anew; no output was written\n"
        )
        assert partial.read_bytes() == kept
    around = ("-1", "-m", "small", "--with-model", "--recovery", "1%")  # what is around the frames may differ
    finished(start(tmp_path, *around, "--resume", "a"))
    finished(start(tmp_path, *around, "a", "-o", "expected"))
    assert (tmp_path / "a.llmz").read_bytes() == (tmp_path / "expected").read_bytes()
    assert size(tmp_path / "expected") > 1_000_000
    (tmp_path / "a.llmz").unlink()
    partial.write_bytes(kept)
    changed = TEXT[100:] + NOISE  # nothing of it was done
    (tmp_path / "a").write_bytes(changed)
    finished(start(tmp_path, "-1", "-m", "small", "--resume", "a"))
    assert llmzip.decompress((tmp_path / "a.llmz").read_bytes()) == changed
    assert not partial.exists()


def test_a_damaged_journal_costs_time_and_nothing_else(call: Call, tmp_path: Path) -> None:
    finished(start(tmp_path, "-1", "-m", "small", "a", "-o", "expected"))
    process = start(tmp_path, "-1", "-m", "small", "--resume", "a")
    partial = tmp_path / "a.llmz.partial"
    wait_until(lambda: size(partial) > 12_000)
    process.kill()
    process.communicate(timeout=60)
    data = bytearray(partial.read_bytes())
    for place in range(1000, len(data), 2500):
        data[place] ^= 0xFF
    partial.write_bytes(data)
    finished(start(tmp_path, "-1", "-m", "small", "--resume", "a"))
    assert (tmp_path / "a.llmz").read_bytes() == (tmp_path / "expected").read_bytes()


def test_files_of_others_are_left_alone(call: Call, tmp_path: Path) -> None:
    (tmp_path / "a.llmz.partial").write_bytes(b"something of mine")
    code, _, err = call("--resume", "a")
    assert code == 1 and "a.llmz.partial holds something else than what --resume keeps; remove it" in err
    assert (tmp_path / "a.llmz.partial").read_bytes() == b"something of mine"
    (tmp_path / "n.llmz").write_bytes(llmzip.compress(NOISE))
    for other in (b"something of mine", NOISE + b"!", b"?" + NOISE[1:]):
        (tmp_path / "n.partial").write_bytes(other)
        code, _, err = call("-d", "--resume", "n.llmz")
        if other.startswith(NOISE):  # the text, and more: as a larger file that was begun there leaves it
            assert code == 0 and (tmp_path / "n").read_bytes() == NOISE
            (tmp_path / "n").unlink()
            continue
        assert code == 1 and "holds something else than a beginning of the text; remove it" in err
        assert (tmp_path / "n.partial").read_bytes() == other and not (tmp_path / "n").exists()
    (tmp_path / "n.partial").unlink()
    (tmp_path / "n.partial").symlink_to("a")
    assert call("-d", "--resume", "n.llmz")[0] == 1
    assert (tmp_path / "a").read_bytes() == TEXT + NOISE + TEXT[:7000]


def test_where_it_makes_no_sense(call: Call, tmp_path: Path) -> None:
    for options in (["-c", "a"], ["-t", "a"], ["-l", "a"], ["-o", "-", "a"]):
        code, out, err = call("--resume", *options)
        assert (code, out) == (2, b"") and "--resume needs files as output" in err
    code, _, err = call("--resume", "-f", "-o", "/dev/null", "a")
    assert code == 1 and "/dev/null" in err
    (tmp_path / "a.llmz").write_bytes(b"")
    assert call("--resume", "a")[0] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "a.llmz"]


@pytest.mark.parametrize("seed", range(2))
def test_decompression_killed_at_random_moments(call: Call, tmp_path: Path, seed: int) -> None:
    finished(start(tmp_path, "-1", "-m", "small", "a", delay=0))
    text = (tmp_path / "a").read_bytes()
    (tmp_path / "a").unlink()
    rng, partial, known = random.Random(seed), tmp_path / "a.partial", []
    for _ in range(4):
        kill_amid_work(start(tmp_path, "-d", "--resume", "a.llmz"), partial, rng.random() / 10)
        if (tmp_path / "a").exists():
            break
        known.append(size(partial))
        assert text.startswith(partial.read_bytes())
        if rng.random() < 0.5:
            with partial.open("r+b") as file:
                file.seek(max(size(partial) - 100, 0))
                file.write(bytes(rng.randrange(300)))
    if not (tmp_path / "a").exists():
        finished(start(tmp_path, "-d", "--resume", "a.llmz"))
    assert known and (tmp_path / "a").read_bytes() == text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "a.llmz"]


def test_known_text_is_not_decoded_again(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llmzip.codec.reader import FrameDecoder

    finished(start(tmp_path, "-1", "-m", "small", "a", delay=0))
    text = (tmp_path / "a").read_bytes()
    (tmp_path / "a").unlink()
    decoded = []
    decode = FrameDecoder.decode
    monkeypatch.setattr(
        FrameDecoder, "decode", lambda self, frame, progress=None: decoded.append(1) or decode(self, frame, progress)
    )
    (tmp_path / "a.partial").write_bytes(text[:20_500])
    assert call("-d", "--resume", "a.llmz")[0] == 0
    assert (tmp_path / "a").read_bytes() == text and len(decoded) < len(text) / 2000 - 8
    (tmp_path / "a").unlink()
    (tmp_path / "a.partial").write_bytes(text)
    decoded.clear()
    assert call("-d", "--resume", "a.llmz")[0] == 0 and not decoded
    assert (tmp_path / "a").read_bytes() == text


def test_a_signal_keeps_what_is_done(call: Call, tmp_path: Path) -> None:
    process = start(tmp_path, "-1", "-m", "small", "--resume", "a", delay=0.1)
    wait_until(lambda: size(tmp_path / "a.llmz.partial") > 3000)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM
    assert "stopped by SIGTERM; what is done is kept; the same command continues" in err.decode()
    assert leftovers(tmp_path) == [] and (tmp_path / "a.llmz.partial").exists()
