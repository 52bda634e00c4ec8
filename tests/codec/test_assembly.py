"""Checks what is refused when the archives of parts become units, and units a file."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

import llmzip
from llmzip.codec import drafts, packing, writer
from llmzip.codec.assembly import assemble_unit, compress_pieces
from llmzip.codec.joining import join_archives
from llmzip.codec.reader import FrameDecoder
from llmzip.format.headers import LAST_FLAG
from llmzip.format.reading import read_archives
from llmzip.settings import CompressSettings, DecompressSettings

PIECE = 600
UNIT = 4 * PIECE
TEXT = (Path(__file__).parents[2] / "corpora" / "prose-en.txt").read_bytes()[:UNIT]
MADE = CompressSettings(level=1, model="small")


@pytest.fixture(autouse=True)
def _small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drafts, "PIECE_BYTES", PIECE)
    monkeypatch.setattr(writer, "UNIT_BYTES", UNIT)


@pytest.fixture
def parts() -> list[bytes]:
    """The archives of the halves of the text."""
    return [compress_pieces(TEXT[: 2 * PIECE], MADE), compress_pieces(TEXT[2 * PIECE :], MADE)]


def assembled(parts: list[bytes], data: bytes = TEXT, made: CompressSettings = MADE) -> bytes:
    return assemble_unit(data, parts, made, alone=True)


def line_feeds_of(archives: list[bytes]) -> Iterator[int]:
    """The line feeds of each frame, which joining does not ask the archives for."""
    decoder = FrameDecoder(DecompressSettings())
    for archive in archives:
        for frame in read_archives(io.BytesIO(archive)):
            yield decoder.decode(frame).count(b"\n")


def joined(archives: list[bytes]) -> bytes:
    sink = io.BytesIO()
    join_archives(map(io.BytesIO, archives), sink, line_feeds_of(archives))
    return sink.getvalue()


# -- parts -------------------------------------------------------------------------------------------------------------


def test_the_model_does_not_run_again(parts: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    expected = llmzip.compress(TEXT, level=1, model="small")

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("the model was asked again")

    monkeypatch.setattr(drafts.Drafter, "_token_draft", fail)
    monkeypatch.setattr("llmzip.inference.load.load", fail)
    assert assembled(parts) == expected


def test_parts_name_the_model_even_if_they_do_not_need_it() -> None:
    noise = random.Random(1).randbytes(UNIT)
    part = compress_pieces(noise, MADE)
    assert llmzip.info(part).archives[0].model == "small"
    assert assemble_unit(noise, [part], MADE, alone=False)[3] == part[3]
    assert assembled([part], noise) == llmzip.compress(noise, level=1, model="small")


def test_progress_adds_up() -> None:
    done: list[int] = []
    compress_pieces(TEXT, MADE, done.append)
    assert sum(done) == len(TEXT)


def test_parts_of_other_bytes_are_refused(parts: list[bytes]) -> None:
    with pytest.raises(llmzip.CorruptError, match="part 1: frame 0: its text is not that of the unit"):
        assembled(parts[::-1])
    other = TEXT[:PIECE] + b"x" + TEXT[PIECE + 1 :]
    with pytest.raises(llmzip.CorruptError, match="part 1: frame 1: its text is not that of the unit"):
        assembled(parts, other)


def test_parts_that_are_too_few_or_too_many_are_refused(parts: list[bytes]) -> None:
    empty = compress_pieces(b"", MADE)
    for few in ([], parts[:1]):
        with pytest.raises(llmzip.CorruptError, match="the parts end before the unit does"):
            assembled(few)
    for many in ([*parts, parts[0]], [*parts, empty]):
        with pytest.raises(llmzip.CorruptError, match="part 3: frame 0: begins where the unit ends"):
            assembled(many)
    with pytest.raises(llmzip.CorruptError, match="part 1: frame 0: its 0 bytes are not a piece of the unit"):
        assembled([empty, *parts])
    with pytest.raises(llmzip.CorruptError, match="part 1: frame 0: begins where the unit ends"):
        assembled(parts, b"")


def test_parts_that_are_not_cut_at_pieces_are_refused() -> None:
    parts = [compress_pieces(TEXT[:500], MADE), compress_pieces(TEXT[500:], MADE)]
    with pytest.raises(llmzip.CorruptError, match="part 1: frame 0: its 500 bytes are not a piece of the unit"):
        assembled(parts)


@pytest.mark.parametrize("other", [CompressSettings(level=1), CompressSettings(model="small", prompt=b"Once upon")])
def test_parts_of_another_model_or_prompt_are_refused(parts: list[bytes], other: CompressSettings) -> None:
    with pytest.raises(llmzip.CorruptError, match="part 1: made with another model or prompt"):
        assembled(parts, made=other)


def test_archives_of_windows_are_no_parts() -> None:
    compressor = writer.ArchiveWriter(CompressSettings(model="small", window_bits=512))
    archive = compressor.write(TEXT[:PIECE]) + compressor.finish()
    with pytest.raises(llmzip.CorruptError, match="part 1: frame 0: its 600 bytes are not a piece of the unit"):
        assembled([archive], TEXT[:PIECE])


def test_damage_anywhere_in_a_part_is_refused(parts: list[bytes]) -> None:
    for place in range(len(parts[1])):
        damaged = bytearray(parts[1])
        damaged[place] ^= 1 << place % 8
        with pytest.raises(llmzip.CorruptError, match="part 2: "):
            assembled([parts[0], bytes(damaged)])
    for size in (0, 1, 4, len(parts[1]) // 2, len(parts[1]) - 1):
        with pytest.raises(llmzip.CorruptError, match="part 2: truncated: "):
            assembled([parts[0], parts[1][:size]])


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (CompressSettings(window_bits=512), "an archive of windows cannot be made in parts"),
        (CompressSettings(arithmetic="float"), "an archive of the float engine cannot be made in parts"),
    ],
)
def test_settings_whose_archives_have_no_parts_are_refused(made: CompressSettings, message: str) -> None:
    for make in (lambda: compress_pieces(TEXT, made), lambda: assemble_unit(TEXT, [], made, alone=True)):
        with pytest.raises(llmzip.SettingsError, match=message):
            make()


def test_more_than_a_unit_is_refused() -> None:
    for make in (lambda: compress_pieces(TEXT + b"x", MADE), lambda: assemble_unit(TEXT + b"x", [], MADE, alone=True)):
        with pytest.raises(llmzip.SettingsError, match="at most 2,400 bytes, not 2,401"):
            make()


def test_models_of_users_are_named_by_parts(lacking_model: Path) -> None:
    made = CompressSettings(level=1, model=lacking_model)
    data = TEXT[: 2 * PIECE]
    parts = [compress_pieces(data[:PIECE], made), compress_pieces(data[PIECE:], made)]
    expected = llmzip.compress(data, level=1, model=lacking_model)
    assert assembled(parts, data, made) == expected
    with pytest.raises(llmzip.CorruptError, match="part 1: made with another model or prompt"):
        assembled(parts, data)


# -- joining -----------------------------------------------------------------------------------------------------------


def test_one_archive_joined_is_itself() -> None:
    for data in (b"", b"x", TEXT):
        archive = llmzip.compress(data, level=1, model="small")
        assert joined([archive]) == archive


def test_files_of_several_archives_are_joined_too(parts: list[bytes]) -> None:
    assert joined([b"".join(parts), parts[0]]) == joined([*parts, parts[0]])
    assert llmzip.decompress(joined([*parts, parts[0]])) == TEXT + TEXT[: 2 * PIECE]


def test_sources_may_be_opened_and_closed_one_after_the_other(parts: list[bytes], tmp_path: Path) -> None:
    paths = [tmp_path / str(number) for number in range(len(parts))]
    for path, part in zip(paths, parts, strict=True):
        path.write_bytes(part)

    def opened() -> Iterator[io.BufferedReader]:
        for path in paths:
            with path.open("rb") as file:
                yield file

    sink = io.BytesIO()
    join_archives(opened(), sink, line_feeds_of(parts))
    assert sink.getvalue() == joined(parts)


def test_archives_of_other_models_are_not_joined(parts: list[bytes]) -> None:
    others = [llmzip.compress(TEXT[:PIECE]), llmzip.compress(TEXT[:PIECE], model="small", prompt=b"Once upon")]
    for other in others:
        with pytest.raises(llmzip.FormatError, match="archive 3 cannot be joined to the first one"):
            joined([*parts, other])


def test_archives_of_empty_files_are_not_joined_to_others(parts: list[bytes]) -> None:
    empty = compress_pieces(b"", MADE)
    for archives in ([empty, *parts], [parts[0], empty], [empty, empty]):
        with pytest.raises(llmzip.FormatError, match="the archive of an empty file cannot be joined"):
            joined(archives)


def test_nothing_is_not_joined() -> None:
    with pytest.raises(llmzip.TruncatedError, match="there are no archives to join"):
        joined([])


def test_damaged_archives_are_not_joined(parts: list[bytes]) -> None:
    damaged = bytearray(parts[1])
    damaged[len(damaged) // 2] ^= 4
    with pytest.raises(llmzip.CorruptError, match="archive 2: frame 1: damaged: "):
        joined([parts[0], bytes(damaged)])
    with pytest.raises(llmzip.TruncatedError, match="archive 2: truncated: "):
        joined([parts[0], parts[1][:-1]])
    with pytest.raises(llmzip.FormatError, match="archive 1: not an llmzip archive"):
        joined([TEXT])


def test_more_frames_than_the_format_allows_are_refused(parts: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing.headers, "MAX_INDEX_ENTRIES", 3)
    with pytest.raises(llmzip.ResourceError, match="an archive cannot have more than 3 frames"):
        joined(parts)


def test_only_the_first_and_the_last_frame_change(parts: list[bytes]) -> None:
    """Every frame keeps its bytes but for tag and check, and the tag but for the mark."""
    whole = joined([*parts, *parts])
    before = [frame for part in (*parts, *parts) for frame in frames_of(part)]
    after = frames_of(whole)
    assert [frame[0] & LAST_FLAG for frame in after] == [0] * 7 + [LAST_FLAG]
    for old, new in zip(before, after, strict=True):
        assert new[0] & ~LAST_FLAG == old[0] & ~LAST_FLAG
        assert new[1:-5] == old[1:-5] and new[-4:] == old[-4:]


def frames_of(archive: bytes) -> list[bytes]:
    """The frames as they are in the archive."""
    frames = read_archives(io.BytesIO(archive), skip_payloads=True)
    return [archive[frame.offset_bytes : frame.offset_bytes + frame.size_bytes] for frame in frames]
