"""What the package compresses, the decoder written from the documents alone turns back into the same bytes."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import decoder
import pytest
from weights import read_weights

import llmzip
from llmzip.mixing import mixer
from llmzip.models import weightfile
from llmzip.models.embedded import DEFAULT

EMBEDDED = DEFAULT.folder
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
    "short English": (ENGLISH[:60], 1, decoder.LM),
    "several rows": (ENGLISH, 1, decoder.LM),
    "invalid UTF-8": (ENGLISH[:50] + b"\xff\xc3\x28\x80" + ENGLISH[60:90], 1, decoder.LM),
    "repetitive": (b"0123456789abcdef" * 256, 1, decoder.ZSTD),
    "numbers": (b"".join((n * n).to_bytes(4, "little") for n in range(1000)), 1, decoder.LZMA),
    "random": (random.Random(5).randbytes(1500), 6, decoder.STORED),
}


@pytest.mark.parametrize("name", INPUTS)
def test_one_archive(name: str) -> None:
    data, level, method = INPUTS[name]
    archive = llmzip.compress(data, level=level)
    assert method_of(archive) == method
    if name == "several rows":
        assert int.from_bytes(archive[9:11], "little") >= 256, "fewer tokens make a single row"
    assert decoder.decode(archive, EMBEDDED) == data


CSV = "".join(f'{n},"item {n % 7}",{n * 37 % 1000}.{n % 10},({n % 3}; [a{n % 4}])\n' for n in range(60)).encode()
CODE = b"def f(x):\n    return {'a': [x, (x + 1) * <b>], 'c': (x)}\n\n" * 3 + b"if (a[0] > b) { c = d; }\n"
REPEATED = ENGLISH[:180] + b"\n" + ENGLISH[60:180] + b" and again: " + ENGLISH[:110]
NO_UTF8 = ENGLISH[:90] + b"\xff\0\1\2\3\4\4\4\2\2\2\2\x80\xc8 Gr\xf6\xdfe " + "été 日本語 ".encode() + ENGLISH[90:150]


@pytest.mark.parametrize(
    ("data", "level"),
    [(ENGLISH, 2), (CSV[:230], 2), (CODE, 6), (REPEATED, 9), (NO_UTF8, 9), (b"Yes.", 9)],
    ids=["two rows", "fields", "brackets", "matches", "no UTF-8", "a few tokens"],
)
def test_mixed(data: bytes, level: int) -> None:
    archive = llmzip.compress(data, level=level)
    assert method_of(archive) == decoder.MIXED and archive[3] >> 4 == DEFAULT.code
    assert decoder.decode(archive, EMBEDDED) == data


@pytest.fixture
def small_model(tmp_path: Path, make_tokenizer: Callable[..., Path]) -> Path:
    """A layer of the embedded model with a tokenizer of a few tokens: it knows nothing, but it is fast."""
    folder = make_tokenizer(tmp_path / "small")
    size = len(decoder.token_bytes(folder / "tokenizer.json"))
    config, tensors = read_weights(EMBEDDED / "model.llmzw")
    kept = {name: tensor for name, tensor in tensors.items() if "layers." not in name or name.startswith("layers.0.")}
    kept |= {name: tensor[:size].copy() for name, tensor in kept.items() if name.startswith(("embedding_", "head_"))}
    config |= {"num_layers": 1, "windows": [40], "context": 96, "vocab_size": size, "start_token": 0}
    (folder / "model.llmzw").write_bytes(weightfile.pack(config, 1, kept))
    return folder


def test_mixed_rows_of_several_groups(small_model: Path) -> None:
    """More rows than 32, no multiple of it, in contexts that begin anew; in the last step there are fewer."""
    words = [word for word in decoder.token_bytes(small_model / "tokenizer.json") if len(word) > 2 and word.isascii()]
    data = b"".join(random.Random(3).choices(words, k=4050))
    archive = llmzip.compress(data, level=2, model=str(small_model))
    tag = 5 + archive[4]  # the header with its model record ends here
    width = (archive[tag] >> 4 & 3) + 1
    count = int.from_bytes(archive[tag + 1 + 2 * width : tag + 1 + 3 * width], "little")
    rows = count // 128
    assert archive[3] >> 4 == 15 and archive[tag] & 7 == decoder.MIXED and archive[tag] >> 6 == 0
    assert 32 < rows < 64 and count % rows > 0
    assert decoder.decode(archive, small_model) == data


ADAPTIVE = {
    "binary": b"".join((n * n).to_bytes(4, "little") for n in range(300)),
    "zeros": bytes(500),
    "digits": bytes(random.Random(2).choices(b"0123456789", k=800)),
    "lines": b"".join(bytes(random.Random(n).choices(b"ACGT", k=30)) + b"\n" for n in range(30)),
}


@pytest.mark.parametrize("name", ADAPTIVE)
def test_adaptive(name: str) -> None:
    data = ADAPTIVE[name]
    archive = llmzip.compress(data, level=6)
    assert method_of(archive) == decoder.MIXED and archive[3] >> 4 == 0, "no model is needed"
    assert decoder.decode(archive, EMBEDDED) == data


@pytest.mark.parametrize("data", [b"\0", b"a", b"\xff", b"\n\n", bytes(300), bytes(range(256)) * 2])
def test_adaptive_frames_that_are_seldom_written(data: bytes) -> None:
    """Of data that other methods store in less, the mixer's payload alone."""
    payload, _ = mixer.encode_bytes(data)
    assert decoder.decode_adaptive(bytes(payload), len(data)) == data


def test_the_example_of_the_document() -> None:
    archive = bytes.fromhex("F74C5A02 08000000 3B 00000000")
    assert llmzip.compress(b"") == archive
    assert decoder.decode(archive, EMBEDDED) == b""


def test_concatenated_archives() -> None:
    archives = llmzip.compress(b"\0" * 300) + llmzip.compress(ENGLISH[:40]) + llmzip.compress(b"")
    assert decoder.decode(archives, EMBEDDED) == b"\0" * 300 + ENGLISH[:40]


def test_frames_and_index() -> None:
    compressor = llmzip.Compressor(level=6)
    parts = [ENGLISH[:70], b"xyz" * 500, ENGLISH[100:150]]
    archive = b""
    for part in parts:
        archive += compressor.compress(part) + compressor.flush(compressor.FLUSH_FRAME)
    archive += compressor.flush()
    assert archive.endswith(decoder.INDEX_MAGIC)
    assert decoder.decode(archive, EMBEDDED) == b"".join(parts)


def test_user_model_whose_context_begins_anew(tmp_path: Path) -> None:
    """The embedded weights with a short context: a model record, a window, and two new beginnings of the context."""
    folder = shutil.copytree(EMBEDDED, tmp_path / "model")
    config, tensors = read_weights(folder / "model.llmzw")
    config |= {"context": 32, "windows": [9] * config["num_layers"]}
    (folder / "model.llmzw").write_bytes(weightfile.pack(config, 1, tensors))
    archive = llmzip.compress(ENGLISH[:300], level=1, model=str(folder))
    assert archive[3] >> 4 == 15
    assert decoder.decode(archive, folder) == ENGLISH[:300]
    with pytest.raises(decoder.ArchiveError, match="another model"):
        decoder.decode(archive, EMBEDDED)


@pytest.mark.parametrize("place", [0, 3, 4, 5, 8, 12, -6, -5, -1])
def test_damage_is_found(place: int) -> None:
    archive = bytearray(llmzip.compress(b"abcd" * 50))
    archive[place] ^= 2
    with pytest.raises(decoder.ArchiveError):
        decoder.decode(bytes(archive), EMBEDDED)
