"""Archives of windows by the embedded model: any bytes, any width, both kinds of context; damage stays where it is."""

from __future__ import annotations

import io

import pytest

from llmzip.codec.reader import decompress_stream
from llmzip.codec.writer import ArchiveWriter
from llmzip.errors import CorruptError, SettingsError
from llmzip.format.headers import FRESH, KEPT, WINDOWS, Frame
from llmzip.format.reading import read_archives
from llmzip.inference.load import load
from llmzip.models.choice import choose_model
from llmzip.settings import CompressSettings, DecompressSettings, EngineSettings
from llmzip.windows import frames as window_frames

TEXTS = {
    "English": b"The tide comes in, and the tide goes out, and the harbour master writes it down. " * 4,
    "no UTF-8": bytes(range(256)) + b"\xed\xa0\x80\xff" + "Größe, 世界, cafe\u0301".encode(),
    "one byte": b"a",
    "special tokens": b"<|endoftext|><s></s>\r\n\0\0\0\r\n",
    "blanks": b" " * 300 + b"\t\n" * 40,
}


def archive_of(text: bytes, window_bits: int, model_reset: bool = True) -> bytes:
    settings = CompressSettings(model="small", window_bits=window_bits, model_reset=model_reset)
    writer = ArchiveWriter(settings)
    return writer.write(text) + writer.finish()


def text_of(archive: bytes) -> bytes:
    sink = io.BytesIO()
    decompress_stream(io.BytesIO(archive), sink, DecompressSettings())
    return sink.getvalue()


def only_frame(archive: bytes) -> Frame:
    (frame,) = read_archives(io.BytesIO(archive))
    return frame


@pytest.mark.parametrize("model_reset", [True, False])
@pytest.mark.parametrize("window_bits", [16, 37, 128, 65536])
@pytest.mark.parametrize("name", TEXTS)
def test_any_bytes_come_back(name: str, window_bits: int, model_reset: bool) -> None:
    archive = archive_of(TEXTS[name], window_bits, model_reset)
    assert text_of(archive) == TEXTS[name]
    header = only_frame(archive).header
    if header.method == WINDOWS:
        assert header.profile == (FRESH if model_reset else KEPT)
        assert header.windows is not None and header.windows.window_bits == window_bits


@pytest.mark.parametrize("window_bits", [16, 24, 128])
def test_the_model_of_bytes(window_bits: int) -> None:
    text = TEXTS["English"] + TEXTS["no UTF-8"]
    settings = CompressSettings(model="bytes", window_bits=window_bits)
    writer = ArchiveWriter(settings)
    archive = writer.write(text) + writer.finish()
    frame = only_frame(archive)
    assert frame.header.num_tokens == len(text)
    assert frame.archive.model_code == 4
    assert text_of(archive) == text


def test_what_would_grow_is_stored() -> None:
    noise = bytes((n * n * 7919 >> 5) % 256 for n in range(600))
    assert only_frame(archive_of(noise, 16)).header.method_name == "stored"
    assert only_frame(archive_of(b"a", 65536)).header.method_name == "stored"


def test_each_window_decodes_alone_to_its_place() -> None:
    text = TEXTS["English"]
    frame = only_frame(archive_of(text, 48))
    model = load(choose_model("small"), EngineSettings())
    record = frame.header.windows
    assert record is not None and record.count > 10
    decoded = window_frames.decode_windows(model, frame.header, frame.payload, range(record.count))
    all_texts, spare = decoded.texts, decoded.spare_bits
    assert ((spare >= 0) & (spare < 48)).all() and decoded.counts.sum() == frame.header.num_tokens
    assert b"".join(all_texts) == text
    for number in (0, 1, 7, record.count - 1):
        begin, end = number * 48 // 8, (number + 1) * 48 // 8
        alone = bytes(begin) + frame.payload[begin:end] + bytes(len(frame.payload) - end)
        wanted = range(number, number + 1)
        assert window_frames.decode_windows(model, frame.header, alone, wanted).texts == [all_texts[number]]
        part = frame.payload[begin:end]
        assert window_frames.decode_windows(model, frame.header, part, wanted, first=number).texts == [
            all_texts[number]
        ]


def test_damage_names_the_bytes_that_are_lost() -> None:
    text = TEXTS["English"] * 10
    frame = only_frame(archive_of(text, 64))
    model, record = load(choose_model("small"), EngineSettings()), frame.header.windows
    assert record is not None
    groups = window_frames.directory(frame.header, frame.payload[record.data_bytes :])
    assert [group.end for group in groups][-1] == len(text)
    damaged = bytearray(frame.payload)
    damaged[8 * 3] ^= 0x40
    with pytest.raises(CorruptError, match=f"damaged: windows with bytes 0 to {groups[0].end:,}$"):
        window_frames.decode(model, frame.header, bytes(damaged), None)
    texts = window_frames.decode_windows(model, frame.header, bytes(damaged), range(record.count)).texts
    good = window_frames.decode_windows(model, frame.header, frame.payload, range(record.count)).texts
    assert [number for number in range(record.count) if texts[number] != good[number]] == [3]


def test_frames_are_encoded_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    text = TEXTS["English"] + TEXTS["no UTF-8"] + TEXTS["English"]
    monkeypatch.setattr(window_frames, "piece_bytes", lambda window_bits: 250)
    archive = archive_of(text, 64)
    frames = list(read_archives(io.BytesIO(archive)))
    assert [frame.header.original_bytes for frame in frames] == [250] * (len(text) // 250) + [len(text) % 250]
    for number, frame in enumerate(frames):  # neighbours change nothing
        assert only_frame(archive_of(text[250 * number :][:250], 64)).payload == frame.payload
    assert text_of(archive) == text


def test_frames_hold_enough_windows_and_not_too_many() -> None:
    assert [window_frames.piece_bytes(bits) for bits in (16, 512, 1024, 4096, 65536)] == [
        1 << 15, 1 << 15, 1 << 16, 1 << 18, 1 << 21,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"window_bits": 15}, "16 to 65,536"), ({"window_bits": 65537}, "16 to 65,536"),
        ({"window_bits": 64, "prompt": b"x"}, "a prompt"), ({"window_bits": 64, "rows": 3}, "rows"),
        ({"window_bits": 64, "arithmetic": "float"}, "float engine"), ({"model_reset": False}, "only windows"),
    ],
)  # fmt: skip
def test_settings_that_do_not_go_together(fields: dict[str, object], reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        CompressSettings(**fields)  # type: ignore[arg-type]
