"""What the package compresses, the decoder written from the documents alone turns back into the same bytes."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import decoder
import pytest

import llmzip

SEED = Path(llmzip.__file__).parent / "embedded" / "seed"
ENGLISH = b"""\
The lighthouse keeper wrote one line each evening, and when the winter was over he had a book. It said little about
the sea. It said how much oil was left, which lamp had smoked, and who had come up the path: the postman on Tuesdays,
a boy with bread, and once a man who wanted to know whether the light could be seen from the other side of the hills.
It could not, the keeper told him, but on clear nights one could see where it went. The man stayed until it was dark,
looked for a long time, thanked him, and walked home the way he had come. Nobody asked about the light again until
the spring, and by then there was a railway.

"How far is it?" they said. "Twenty miles," he answered, "or a little less, if the weather is good and you do not
stop to look at anything."

| month | oil (litres) | lamps | visitors |
|-------|-------------:|------:|---------:|
| Jan.  |        112.5 |     3 |        4 |
| Feb.  |         98.0 |     2 |        9 |
"""


def method_of(archive: bytes) -> int:
    """The method of an archive's first frame, where the header is 4 bytes."""
    return archive[4] & 7


INPUTS = {
    "empty": (b"", 6, decoder.STORED),
    "one byte": (b"a", 6, decoder.STORED),
    "short English": (ENGLISH[:60], 6, decoder.LM),
    "several rows": (ENGLISH, 1, decoder.LM),
    "invalid UTF-8": (ENGLISH[:50] + b"\xff\xc3\x28\x80" + ENGLISH[60:90], 9, decoder.LM),
    "repetitive": (b"0123456789abcdef" * 256, 6, decoder.ZSTD),
    "numbers": (b"".join((n * n).to_bytes(4, "little") for n in range(1000)), 6, decoder.LZMA),
    "random": (random.Random(5).randbytes(1500), 6, decoder.STORED),
}


@pytest.mark.parametrize("name", INPUTS)
def test_one_archive(name: str) -> None:
    data, level, method = INPUTS[name]
    archive = llmzip.compress(data, level=level)
    assert method_of(archive) == method
    if name == "several rows":
        assert int.from_bytes(archive[9:11], "little") >= 256, "fewer tokens make a single row"
    assert decoder.decode(archive, SEED) == data


def test_the_example_of_the_document() -> None:
    archive = bytes.fromhex("F74C5A01 08000000 85 00000000")
    assert llmzip.compress(b"") == archive
    assert decoder.decode(archive, SEED) == b""


def test_concatenated_archives() -> None:
    archives = llmzip.compress(b"\0" * 300) + llmzip.compress(ENGLISH[:40]) + llmzip.compress(b"")
    assert decoder.decode(archives, SEED) == b"\0" * 300 + ENGLISH[:40]


def test_frames_and_index() -> None:
    compressor = llmzip.Compressor(level=6)
    parts = [ENGLISH[:70], b"xyz" * 500, ENGLISH[100:150]]
    archive = b""
    for part in parts:
        archive += compressor.compress(part) + compressor.flush(compressor.FLUSH_FRAME)
    archive += compressor.flush()
    assert archive.endswith(decoder.INDEX_MAGIC)
    assert decoder.decode(archive, SEED) == b"".join(parts)


def test_user_model_whose_context_begins_anew(tmp_path: Path) -> None:
    """The embedded weights with a short context: a model record, a window, and two new beginnings of the context."""
    folder = shutil.copytree(SEED, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config |= {"context": 32, "windows": [9] * config["num_layers"]}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    archive = llmzip.compress(ENGLISH[:300], level=1, model=str(folder))
    assert archive[3] >> 4 == 15
    assert decoder.decode(archive, folder) == ENGLISH[:300]
    with pytest.raises(decoder.ArchiveError, match="another model"):
        decoder.decode(archive, SEED)


@pytest.mark.parametrize("place", [0, 3, 4, 5, 8, 12, -6, -5, -1])
def test_damage_is_found(place: int) -> None:
    archive = bytearray(llmzip.compress(b"abcd" * 50))
    archive[place] ^= 2
    with pytest.raises(decoder.ArchiveError):
        decoder.decode(bytes(archive), SEED)
