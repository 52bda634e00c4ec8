"""Makes every test vector from nothing; `python tests/contract/vectors/generate.py` writes them, the test compares.

good-* must decode to the text beside them, bad-* must end in CorruptError or TruncatedError, unsupported-* in
FormatError or ModelError, whatever else the reader is. README.md of this folder lists them.
"""

from __future__ import annotations

import dataclasses
import lzma
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import llmzip
from llmzip._version import FORMAT_VERSION
from llmzip.codec.methods import compress_plain
from llmzip.codec.rows import FrameCoder
from llmzip.codec.writer import ArchiveWriter
from llmzip.format import headers, numbers, writing
from llmzip.format.headers import LM, LZMA, MIXED, SKIP, STORED, ZSTD, FrameHeader, Header, ModelRecord
from llmzip.format.lzma2 import lzma_filters
from llmzip.format.plan import profile_plan
from llmzip.format.recovery import HEAD_BYTES, PACKET_MAGIC
from llmzip.inference import load
from llmzip.mixing.mixer import encode_bytes
from llmzip.models.assembly import assemble
from llmzip.models.choice import choose_model
from llmzip.models.config import ExactConfig
from llmzip.models.embedded import DEFAULT
from llmzip.models.int8form import save_int8
from llmzip.models.model import ExactModel
from llmzip.settings import CompressSettings, EngineSettings

FOLDER = Path(__file__).parent
TEXT = b"The tide comes in, and the tide goes out, and the harbour master writes it down.\n"
REPEATED = TEXT * 60
VERSION_1_MIXED = bytes.fromhex("f74c5a214c51141d861b151c37fd41df3652fe9680c4daf3d811aa7f9d1abdaa93")
VERSION_1_LM = bytes.fromhex("f74c5a210951121d9b01357d129a4707872cfb4602e4fc63a1332b1abdaa93")
"""What llmzip 0.1 made of TEXT, at level 6 and at level 1: nothing here can make them again."""
ODD = b"\r\n\0<|endoftext|>\xed\xa0\x80\xff\xfe" + "e\u0301 Grüße, 世界".encode()


def _frame(method: int, payload: bytes, original: bytes, last: bool, prefix: bytes = b"", **fields: int) -> bytes:
    header = FrameHeader(method, len(original), len(payload), last=last, **fields)
    return writing.pack_frame(header, payload, zlib.crc32(original), prefix)


def _plain(method: int) -> bytes:
    """An archive of one frame by one method, whatever would be smallest."""
    import zstandard

    if method == LZMA:
        payload = lzma.compress(REPEATED, lzma.FORMAT_RAW, filters=lzma_filters(len(REPEATED)))
    else:
        parameters = zstandard.ZstdCompressionParameters.from_level(
            3, format=zstandard.FORMAT_ZSTD1_MAGICLESS, write_content_size=False, write_checksum=False
        )
        payload = zstandard.ZstdCompressor(compression_params=parameters).compress(REPEATED)
    return _frame(method, payload, REPEATED, True, writing.pack_header(Header()))


def _adaptive(original: bytes) -> bytes:
    payload, _ = encode_bytes(original)
    return _frame(MIXED, payload, original, True, writing.pack_header(Header()))


def _frames_and_index(*, last: bool = True) -> bytes:
    head = writing.pack_header(Header())
    first = _frame(STORED, TEXT, TEXT, False, head)
    skipped = _frame(SKIP, b"a note for somebody else", b"", False)
    second = _frame(STORED, b"more", b"more", last)
    sizes = (len(first) - len(head), len(skipped), len(second))
    line_feeds = (TEXT.count(b"\n"), 0, 0)
    return first + skipped + second + writing.pack_index(list(zip(sizes, (len(TEXT), 0, 4), line_feeds, strict=True)))


def vectors() -> Iterator[tuple[str, bytes, bytes | None]]:
    """Name, archive, and the text of good ones."""
    lm = llmzip.compress(TEXT, level=1)
    odd = llmzip.compress(ODD, level=1)
    mixture = TEXT * 2 + ODD + TEXT.upper() + TEXT[::-1] + bytes(range(256))
    prose = (FOLDER.parents[2] / "corpora" / "prose-en.txt").read_bytes()[:1500]
    stored = llmzip.compress(b"\x00")
    yield "good-empty", llmzip.compress(b""), b""
    yield "good-stored", stored, b"\x00"
    yield "good-lm", lm, TEXT
    yield "good-lm-odd-bytes", odd, ODD
    yield "good-lm-rows", llmzip.compress(prose, level=1), prose
    yield "good-mixed", llmzip.compress(TEXT), TEXT
    yield "good-mixed-rows", llmzip.compress(mixture, level=2), mixture
    yield "good-mixed-without-model", _adaptive(ODD * 3), ODD * 3
    yield "good-lzma", _plain(LZMA), REPEATED
    yield "good-zstd", _plain(ZSTD), REPEATED
    yield "good-frames-skip-index", _frames_and_index(), TEXT + b"more"
    yield "good-concatenated", lm + stored + _frames_and_index(), TEXT + b"\x00" + TEXT + b"more"
    yield "bad-empty-file", b"", None
    yield "bad-magic-only", headers.MAGIC, None
    yield "bad-truncated", lm[:-1], None
    yield "bad-payload", lm[:12] + bytes([lm[12] ^ 1]) + lm[13:], None
    yield "bad-crc32", lm[:-1] + bytes([lm[-1] ^ 1]), None
    yield "bad-no-last-frame", _frames_and_index(last=False), None
    yield from _index_vectors()
    head, beside_model = (writing.pack_header(Header(code)) for code in (0, DEFAULT.code))
    yield "bad-wide-sizes", _recheck(head + b"\x18" + b"\1\0" + b"\1\0" + b"\0\0" + b"x"), None
    yield "bad-stored-sizes", _recheck(head + b"\x08\x02\x01\x00x"), None
    yield "bad-tokens-above-bytes", _recheck(beside_model + b"\x09\x02\x01\x03x"), None
    yield "bad-rows-above-tokens", _recheck(beside_model + b"\xc9\x02\x01\x02\x03\x01x"), None
    yield "bad-long-varint", _recheck(beside_model + b"\xc9\x02\x01\x02\x81\x00\x01x"), None
    yield "bad-mixed-profile-without-tokens", _recheck(head + b"\x4c\x02\x01\x00x"), None
    yield "bad-lm-without-tokens", _recheck(beside_model + b"\x09\x02\x01\x00x"), None
    yield "bad-lzma-too-short", _frame(LZMA, compress_plain(REPEATED)[1], REPEATED + b"x", True, head), None
    yield "bad-zstd-garbage", _frame(ZSTD, b"no zstd frame", REPEATED, True, head), None

    yield from _window_vectors(prose[:700])
    yield from _carried_vectors()
    yield from _recovery_vectors(stored)

    yield "unsupported-foreign", b"PK\x03\x04 this is another format", None
    yield "unsupported-trailing-data", stored + b"garbage", None
    yield "unsupported-version", headers.MAGIC + bytes([FORMAT_VERSION + 1]) + stored[4:], None
    yield "unsupported-version-1", VERSION_1_MIXED, None
    yield "unsupported-version-1-lm", VERSION_1_LM, None
    yield "unsupported-version-1-concatenated", stored + VERSION_1_MIXED + stored, None
    for name, code in (("code", 13), ("retired", 1)):
        yield f"unsupported-model-{name}", _recheck(writing.pack_header(Header(code)) + b"\x09\x02\x01\x02x"), None
    record = ModelRecord("some/model", b"\x11" * 16, b"\x22" * 16, planes=2, context=1024, start_token=0)
    yield "unsupported-model-missing", _user_model(record), None
    yield (
        "unsupported-numerics",
        _user_model(ModelRecord("m", b"\1" * 16, b"\2" * 16, planes=1, context=64, start_token=0, numerics=9)),
        None,
    )


def _index_vectors() -> Iterator[tuple[str, bytes, bytes | None]]:
    frames, line_feeds = _frames_and_index(), TEXT.count(b"\n")
    yield "bad-index", frames[:-14] + bytes([frames[-14] ^ 1]) + frames[-13:], None
    yield "bad-index-missing", frames[: -len(writing.pack_index([(94, 81, 1), (37, 0, 0), (14, 4, 0)]))], None
    yield "bad-index-wrong", _wrong_index(len(TEXT) + 1, line_feeds), None
    yield "bad-index-line-feeds", _wrong_index(len(TEXT), line_feeds + 1), None
    yield "bad-index-more-line-feeds-than-bytes", _wrong_index(len(TEXT), len(TEXT) + 1), None


def _window_vectors(prose: bytes) -> Iterator[tuple[str, bytes, bytes | None]]:
    windows = _windows(prose, 32)
    yield "good-windows", windows, prose
    yield "good-windows-of-16-bits", _windows(TEXT, 16), TEXT
    yield "good-windows-kept-context", _windows(prose, 16, model_reset=False), prose
    beside_model = writing.pack_header(Header(DEFAULT.code))
    yield "bad-windows-window", _recheck(windows[:44] + bytes([windows[44] ^ 8]) + windows[45:-5], windows[-4:]), None
    yield "bad-windows-directory", _recheck(windows[:-6] + bytes([windows[-6] ^ 8]), windows[-4:]), None
    yield "bad-windows-empty", _recheck(beside_model + b"\x0d\x02\x05\x01\x10\x00\x01\x01" + bytes(5)), None


def _carried_vectors() -> Iterator[tuple[str, bytes, bytes | None]]:
    """Files that carry their model, which is as small as models can be and knows nothing."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "tiny"
        place.mkdir()
        save_int8(_tiny_model(), place)
        shutil.copy(DEFAULT.folder.with_name("bytes") / "tokenizer.json", place)
        choice = choose_model(place)
        loaded = load.load(choice, EngineSettings(device="cpu"))
        model = load.carried_model(choice, loaded)
        first, second = (_coded_by(loaded, text) for text in (TEXT, TEXT[:20]))
    unit = writing.pack_carried(model)
    stored = llmzip.compress(b"\0")
    yield "good-carried-model", unit + first + stored + second, TEXT + b"\0" + TEXT[:20]
    yield "good-carried-again", unit + first + unit + second, TEXT + TEXT[:20]
    yield "good-carried-unused", unit + stored, b"\0"
    yield "bad-carried-alone", unit, None
    yield "bad-carried-at-the-end", unit + first + unit, None
    yield "bad-carried-data", unit[:100] + bytes([unit[100] ^ 1]) + unit[101:] + first, None
    yield "bad-carried-fields", unit[:36] + bytes([unit[36] ^ 1]) + unit[37:] + first, None
    others = {
        "weights": {"weights": model.weights[:-4] + bytes(4)},
        "table": {"table": model.table[:-9] + bytes(9)},
        "table-size": {"table_bytes": model.table_bytes + 1},
        "table-of-another": {"table": _lzma(b"\1" * 256 + bytes(range(255, -1, -1)))},
        "limit": {"table_bytes": 0},
    }
    for name, fields in others.items():
        yield f"bad-carried-{name}", writing.pack_carried(dataclasses.replace(model, **fields)) + first, None
    another = dataclasses.replace(model, model_digest=bytes(16))
    yield "unsupported-carried-another", writing.pack_carried(another) + first, None
    yield "unsupported-carried-too-late", first + unit + second, None


def _coded_by(model: load.LoadedModel, text: bytes) -> bytes:
    """An archive by method lm, however bad the model is."""
    tokens = model.tokenizer.encode(text)
    payload, _ = FrameCoder(model.engine).encode(tokens, profile_plan(0, len(tokens), model.engine.context))
    return _frame(LM, payload, text, True, writing.pack_header(model.header(b"")), num_tokens=len(tokens))


def _lzma(data: bytes) -> bytes:
    return lzma.compress(data, lzma.FORMAT_RAW, filters=lzma_filters(len(data)))


def _tiny_model() -> ExactModel:
    """A layer of 16 numbers with two rows that are nearly alike; its tokens are the bytes."""
    config = ExactConfig.from_dict(
        {
            "context": 64, "head_dim": 16, "hidden_size": 16, "mlp_size": 16, "norm_eps": 2.0**-20, "num_heads": 1,
            "num_kv_heads": 1, "num_layers": 1, "planes": 1, "rope_theta": 10000.0, "start_token": 0,
            "vocab_size": 256, "windows": [0],
        }
    )  # fmt: skip
    shapes = {"qkv": (48, 16), "out": (16, 16), "gate_up": (32, 16), "down": (16, 16)}
    tensors: dict[str, np.ndarray] = {"final_norm": np.ones(16, np.float32)}
    for name, shape in {
        "embedding": (256, 16),
        **{f"layers.0.{name}": shape for name, shape in shapes.items()},
    }.items():
        numbers = np.arange(shape[0] * shape[1], dtype=np.int64)
        tensors[f"{name}_q"] = ((numbers * numbers * 31 + numbers * 7) % 61 - 30).astype(np.int8).reshape(shape)
        tensors[f"{name}_scale"] = np.full(shape[0], 2.0**-6, np.float32)
    tensors |= {f"layers.0.{name}": np.ones(16, np.float32) for name in ("input_norm", "post_norm")}
    return assemble(config, tensors.get)


def _windows(text: bytes, window_bits: int, model_reset: bool = True) -> bytes:
    settings = CompressSettings(model="small", window_bits=window_bits, model_reset=model_reset)
    writer = ArchiveWriter(settings)
    return writer.write(text) + writer.finish()


def _user_model(record: ModelRecord) -> bytes:
    head = writing.pack_header(Header(headers.USER_MODEL, record))
    return _frame(LM, b"abc", b"some text", True, head, num_tokens=3)


def _wrong_index(original_bytes: int, line_feeds: int) -> bytes:
    """Two frames and a well-formed index that says something else of the first one."""
    head = writing.pack_header(Header())
    return (
        _frame(STORED, TEXT, TEXT, False, head)
        + _frame(STORED, b"more", b"more", True)
        + writing.pack_index([(94, original_bytes, line_feeds), (14, 4, 0)])
    )


def _recovery_vectors(stored: bytes) -> Iterator[tuple[str, bytes, bytes | None]]:
    yield "good-recovery", llmzip.compress(TEXT, level=1, recovery=5), TEXT
    protected = llmzip.compress(b"\x00", recovery=5)
    yield "good-recovery-amid", protected + stored, b"\x00" * 2
    yield "bad-recovery-packet", _damaged_packet(protected), None


def _damaged_packet(archive: bytes) -> bytes:
    """The archive with a damaged packet of recovery data, in a frame whose crc8 is right."""
    place = archive.index(PACKET_MAGIC)  # after a header of 4 bytes, a tag, and three sizes of 2 bytes
    end = place + int.from_bytes(archive[place - 4 : place - 2], "little")
    frame = bytearray(archive[place - 11 : end])
    frame[11 + HEAD_BYTES + 3] ^= 1
    return archive[: place - 11] + bytes(frame) + bytes([numbers.crc8(bytes(frame))]) + archive[end + 1 :]


def _recheck(head_and_payload: bytes, crc32: bytes = zlib.crc32(b"x").to_bytes(4, "little")) -> bytes:
    """A frame that breaks a rule but has a right checksum."""
    return head_and_payload + bytes([numbers.crc8(head_and_payload)]) + crc32


def main() -> int:
    """Writes all vectors and removes files that are no vector any more."""
    wanted = {}
    for name, archive, text in vectors():
        wanted[f"{name}.llmz"] = archive
        if text is not None:
            wanted[f"{name}.txt"] = text
    for file in [*FOLDER.glob("*.llmz"), *FOLDER.glob("*.txt")]:
        if file.name not in wanted:
            file.unlink()
    for name, data in wanted.items():
        (FOLDER / name).write_bytes(data)
    print(f"{len(wanted)} files")
    return 0


if __name__ == "__main__":
    sys.exit(main())
