"""`--recovery` and `llmzip repair`: what is written, where it goes, and what other commands make of recovery data."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import llmzip
from llmzip.inference import load

from .conftest import ROOT, Run, leftovers

NOISE = random.Random(4).randbytes(30_000)

Call = Callable[..., tuple[int, bytes, str]]


@pytest.fixture
def call(call_with: Callable[..., Call]) -> Call:
    run = call_with({"noise": NOISE})
    assert run("--recovery", "5%", "noise")[0] == 0
    return run


def damage(path: Path, *places: int) -> bytes:
    whole = path.read_bytes()
    data = bytearray(whole)
    for place in places:
        data[place : place + 100] = bytes(len(data[place : place + 100]))
    path.write_bytes(data)
    return whole


def test_compressing_with_recovery_data(call: Call, tmp_path: Path) -> None:
    made = (tmp_path / "noise.llmz").read_bytes()
    assert made == llmzip.compress(NOISE, recovery=5)
    plain = llmzip.compress(NOISE)
    assert made.startswith(plain) and len(plain) < len(made)
    assert call("-c", "--recovery", "5", "noise")[1] == made
    assert call("compress", "-c", "--recovery", "5.0 %", "noise")[1] == made
    assert call("-dc", "noise.llmz")[1] == NOISE
    assert call("-c", "noise")[1] == plain
    for wrong in ("0", "101%", "x", "-1", "5 percent"):
        code, out, err = call("-c", f"--recovery={wrong}", "noise")
        assert (code, out) == (2, b"") and err, wrong
    with pytest.raises(ValueError, match="recovery must be"):
        llmzip.compress(b"", recovery=0)


def test_removing_the_source_checks_the_archive_with_its_recovery_data(call: Call, tmp_path: Path) -> None:
    code, _, err = call("--rm", "-f", "--recovery", "10%", "noise")
    assert (code, err) == (0, "") and not (tmp_path / "noise").exists()
    assert call("-dc", "noise.llmz")[1] == NOISE


def test_a_copy_is_mended(call: Call, tmp_path: Path) -> None:
    archive = tmp_path / "noise.llmz"
    whole = damage(archive, 0, 20_000, 31_000)
    spoilt = archive.read_bytes()
    code, out, err = call("repair", "noise.llmz")
    assert (code, err) == (0, "")
    lines = out.decode().splitlines()
    assert lines[0].startswith("noise.llmz: restored 2 of 118 blocks of 256 bytes, wrote 1 of ")
    assert lines[1:] == ["noise.llmz: wrote noise.repaired.llmz"]
    assert (tmp_path / "noise.repaired.llmz").read_bytes() == whole and archive.read_bytes() == spoilt
    code, out, err = call("repair", "noise.llmz")
    assert (code, out) == (1, b"") and err == "llmzip: noise.repaired.llmz: exists; use -f to overwrite it\n"
    assert call("repair", "-f", "noise.llmz")[0] == 0
    assert call("repair", "-o", "noise.llmz", "noise.repaired.llmz")[0] == 1
    assert call("repair", "-f", "-o", "noise.llmz", "noise.repaired.llmz")[0] == 0
    assert archive.read_bytes() == whole and leftovers(tmp_path) == []


def test_in_place(call: Call, tmp_path: Path) -> None:
    archive = tmp_path / "noise.llmz"
    os.utime(archive, (1_600_000_000, 1_600_000_000))
    archive.chmod(0o640)
    whole = damage(archive, 5000)
    os.utime(archive, (1_600_000_000, 1_600_000_000))
    (tmp_path / "link").symlink_to("noise.llmz")
    code, out, _ = call("repair", "--json", "--in-place", "link")
    record = json.loads(out)
    assert code == 0 and record["output"] == str(archive) and record["is_changed"] is True
    assert (record["restored_blocks"], record["moved_blocks"], record["rewritten_packets"]) == (1, 0, 0)
    assert record["protected"] == [{"begin": 0, "bytes": 30_016, "restored_blocks": 1}]
    assert archive.read_bytes() == whole and (tmp_path / "link").is_symlink()
    assert archive.stat().st_mode & 0o777 == 0o640 and archive.stat().st_mtime == 1_600_000_000
    code, out, _ = call("repair", "--in-place", "noise.llmz")
    assert (code, out) == (0, b"noise.llmz: nothing is damaged\n") and leftovers(tmp_path) == []


def test_what_cannot_be_mended_stays_as_it_is(call: Call, tmp_path: Path) -> None:
    archive = tmp_path / "noise.llmz"
    damage(archive, *range(0, 12_000, 600))
    spoilt = archive.read_bytes()
    for options in (["--in-place"], ["-o", "new"], []):
        code, out, err = call("repair", *options, "noise.llmz")
        assert (code, out) == (4, b"") and err.count("\n") == 1
        assert err.startswith("llmzip: noise.llmz: cannot be repaired: ") and "--salvage" in err
    assert archive.read_bytes() == spoilt
    assert sorted(path.name for path in tmp_path.iterdir()) == ["noise", "noise.llmz"]
    (tmp_path / "plain.llmz").write_bytes(llmzip.compress(NOISE))
    code, out, err = call("repair", "plain.llmz")
    assert (code, out) == (1, b"") and "plain.llmz: no recovery data was found" in err
    (tmp_path / "empty").touch()
    assert call("repair", "empty")[0] == 1
    assert call("repair", "missing")[0] == 1
    assert call("repair", "--in-place", "-o", "new", "noise.llmz")[0] == 2


def test_pipes(run: Run, tmp_path: Path) -> None:
    whole = llmzip.compress(NOISE, recovery=5)
    done = run("repair", "-", "-o", "new", input=whole[:70] + b"?" + whole[71:])
    assert done.returncode == 0 and (tmp_path / "new").read_bytes() == whole
    assert run("repair", "-", input=whole).returncode == 2


def test_the_rest_of_the_file_is_checked_too(call: Call, tmp_path: Path) -> None:
    archive = tmp_path / "noise.llmz"
    whole, other = archive.read_bytes(), llmzip.compress(NOISE[:300])
    archive.write_bytes(whole[:900] + b"??" + whole[902:] + other[:100] + b"??" + other[102:])
    code, _, err = call("repair", "noise.llmz")
    assert code == 4 and "protects only a part of the file: frame 0: damaged" in err
    assert (tmp_path / "noise.repaired.llmz").read_bytes().startswith(whole)


def test_damaged_recovery_data_is_named_and_costs_no_text(call: Call, tmp_path: Path) -> None:
    archive = tmp_path / "noise.llmz"
    whole = damage(archive, 31_000)
    for command in (["-t"], ["-d"]):
        code, out, err = call(*command, "-f", "noise.llmz")
        assert (code, out) == (4, b"")
        assert "damaged recovery data: packet" in err and "no text is lost, and llmzip repair mends the file" in err
    assert call("-dc", "noise.llmz")[1] == NOISE
    code, out, err = call("cat", "--salvage", "noise.llmz")
    assert (code, out) == (4, NOISE) and "no text is lost" in err
    assert call("repair", "--in-place", "noise.llmz")[0] == 0 and archive.read_bytes() == whole
    assert call("-t", "noise.llmz")[0] == 0


def test_lists_show_it(call: Call) -> None:
    code, out, _ = call("-l", "noise.llmz")
    text = out.decode()
    assert code == 0 and "for 30,016 before it: mends up to 13 damaged of 118 blocks of 256 bytes" in text
    record = json.loads(call("-l", "--json", "noise.llmz")[1])
    assert record["original_bytes"] == 30_000
    assert [archive["recovery"] for archive in record["archives"]] == [
        None, {"protected_bytes": 30_016, "block_bytes": 256, "num_blocks": 118, "parity_blocks": 13},
    ]  # fmt: skip


def test_parts_are_found_by_the_index_before_it(call: Call, tmp_path: Path) -> None:
    compressor = llmzip.Compressor(recovery=5)
    parts = [NOISE[n * 1000 : n * 1000 + 1000] for n in range(9)]
    data = b"".join(compressor.compress(part) + compressor.flush(compressor.FLUSH_FRAME) for part in parts)
    (tmp_path / "a.llmz").write_bytes(data + compressor.flush())
    damage(tmp_path / "a.llmz", 1200)  # what is read by the index does not mind
    assert call("cat", "--range", "5500:6500", "a.llmz")[1] == NOISE[5500:6500]
    assert call("cat", "a.llmz")[0] == 4
    with llmzip.open(tmp_path / "noise.llmz", "ab") as file:
        file.write(b"more")
    assert call("-dc", "noise.llmz")[1] == NOISE + b"more"
    damage(tmp_path / "noise.llmz", 1200)
    assert call("repair", "--in-place", "noise.llmz")[0] == 0
    assert call("-dc", "noise.llmz")[1] == NOISE + b"more"


def test_a_carried_model_is_mended(call: Call, lacking_model: Path, tmp_path: Path) -> None:
    """With the model's folder gone, so that the text decodes by the mended model only."""
    text = (ROOT / "corpora" / "prose-en.txt").read_bytes()[:3000]
    (tmp_path / "notes").write_bytes(text)
    folder = Path(shutil.copytree(lacking_model, tmp_path / "model"))
    assert call("-1", "-m", str(folder), "--with-model", "--recovery", "10%", "notes")[0] == 0
    shutil.rmtree(folder)
    load.forget()
    path = tmp_path / "notes.llmz"
    archives = json.loads(call("-l", "--json", "notes.llmz")[1])["archives"]
    assert [archive["carries_model"] for archive in archives] == [True, False]
    begin, protected = archives[0]["frames"][0]["offset_bytes"], archives[1]["recovery"]["protected_bytes"]
    assert begin > 1_000_000 and protected < path.stat().st_size
    for places in ([0], [50_000, 400_000, begin - 200], [begin - 50], range(1000, begin, 30_000)):
        whole = damage(path, *places)
        assert call("-t", "notes.llmz")[0] in (1, 4)
        code, out, err = call("repair", "--in-place", "notes.llmz")
        assert (code, err) == (0, ""), out
        assert path.read_bytes() == whole
    assert call("-dc", "notes.llmz") == (0, text, "")
    assert call("cat", "--range", "100:200", "notes.llmz")[1] == text[100:200]


def test_an_index_is_found_between_a_carried_model_and_recovery_data(call: Call, tmp_path: Path) -> None:
    """Only the end is read: the model's archive has frames whose text is found without decoding those before."""
    text = (ROOT / "corpora" / "prose-en.txt").read_bytes()[:3000]
    (tmp_path / "notes").write_bytes(text)
    options = ("--frame-bytes", "500", "--with-model", "--recovery", "2%")
    assert call("-1", "-m", "small", *options, "notes")[0] == 0
    data = bytearray((tmp_path / "notes.llmz").read_bytes())
    frames = json.loads(call("-l", "--json", "notes.llmz")[1])["archives"][0]["frames"]
    assert len(frames) == 6
    place = frames[0]["offset_bytes"] + 30
    data[place : place + 20] = bytes(20)
    (tmp_path / "notes.llmz").write_bytes(data)
    assert call("cat", "--range", "1200:1300", "notes.llmz") == (0, text[1200:1300], "")
    assert call("cat", "--range", "-100:", "notes.llmz") == (0, text[-100:], "")
    assert call("-t", "notes.llmz")[0] == 4


def test_a_carried_model_serves_archives_after_recovery_data(call: Call, lacking_model: Path, tmp_path: Path) -> None:
    texts = [(ROOT / "corpora" / "prose-en.txt").read_bytes()[begin : begin + 2000] for begin in (0, 5000)]
    for name, text in zip("ab", texts, strict=True):
        (tmp_path / name).write_bytes(text)
    options = ("-1", "-m", str(lacking_model), "--with-model", "--recovery", "10%", "-c")
    made = call(*options, "a", "b")[1]
    alone = call(*options, "a")[1]
    assert made.startswith(alone) and len(made) < len(alone) + 20_000
    load.forget()
    (tmp_path / "x").write_bytes(made)
    assert call("-dc", "x") == (0, b"".join(texts), "")
    for place in (1000, len(alone) + 100):  # each archive has recovery data of its own
        damage(tmp_path / "x", place)
        assert call("-t", "x")[0] == 4
        assert call("repair", "--in-place", "x")[0] == 0
        assert (tmp_path / "x").read_bytes() == made
