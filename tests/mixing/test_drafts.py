"""Checks which method is chosen for what, and that the archives decode; with the embedded model, so on little data."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mixer_samples as samples
import pytest

import llmzip
from llmzip.codec import drafts
from llmzip.codec.drafts import Drafter
from llmzip.codec.levels import level_plan
from llmzip.format.headers import MIXED, FrameHeader
from llmzip.format.plan import header_plan
from llmzip.inference.on_demand import ModelOnDemand
from llmzip.models.choice import choose_model
from llmzip.settings import CompressSettings, EngineSettings

CORPORA = Path(__file__).parents[2] / "corpora"
LEVELS = [1, 2, 4, 9]
ENGLISH = (CORPORA / "prose-en.txt").read_bytes()[:1300]


def binary(num_records: int) -> bytes:
    """Records of numbers, as programs write them."""
    return b"".join(struct.pack("<IHhf", 1_000_000 + 3 * n, n % 7, -n, n * 0.37) for n in range(num_records))


def methods_of(data: bytes, level: int) -> list[str]:
    """The methods of the frames of an archive, which is no larger than it may be and decodes."""
    archive = llmzip.compress(data, level=level)
    assert llmzip.decompress(archive) == data
    assert len(archive) <= len(data) + 19
    return [frame.method for frame in llmzip.info(archive).archives[0].frames]


@pytest.mark.parametrize("level", LEVELS)
def test_english_goes_through_the_model(level: int) -> None:
    assert methods_of(ENGLISH, level) == ["lm" if level == 1 else "mixed"]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("num_bytes", [1, 20, 600, 5000])
def test_noise_is_stored(num_bytes: int, level: int) -> None:
    # Very short noise may come out a byte smaller by luck, with any method.
    found = methods_of(samples.noise(num_bytes), level)
    if num_bytes >= 20:
        assert found == ["stored"]


@pytest.mark.parametrize("level", LEVELS)
def test_binary_goes_through_the_mixer_alone(level: int) -> None:
    found = methods_of(binary(150), level)
    assert found == ["adaptive"] if level > 1 else found[0] in ("lzma", "zstd", "lm")


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("num_bytes", [40, 1000, 33_000])
def test_zeros_are_tiny_with_any_method(num_bytes: int, level: int) -> None:
    data = bytes(num_bytes)
    archive = llmzip.compress(data, level=level)
    assert len(archive) < 48
    assert llmzip.decompress(archive) == data
    if level > 1 and num_bytes == 33_000:
        assert llmzip.info(archive).archives[0].frames[0].method == "adaptive"


def test_noise_needs_no_model(tmp_path: Path) -> None:
    """An empty folder cannot be loaded; noise does not notice, English does."""
    data = samples.noise(5000)
    archive = llmzip.compress(data, model=tmp_path)
    assert llmzip.decompress(archive) == data
    with pytest.raises(llmzip.ModelNotFoundError, match=r"no config\.json"):
        llmzip.compress(ENGLISH, model=tmp_path)


def test_higher_levels_are_not_larger() -> None:
    sizes = [len(llmzip.compress(ENGLISH, level=level)) for level in LEVELS]
    assert sizes[1:] == sorted(sizes[1:], reverse=True)
    assert sizes[1] <= sizes[0] + 4  # the mixer has little to learn from a short text


@pytest.mark.parametrize(
    ("level", "num_tokens", "num_rows", "profile"),
    [
        (1, 128 * 9, 9, 0), (1, 1 << 20, 2048, 3), (2, 128 * 256, 256, 0), (2, 128 * 257, 257, 3), (3, 192 * 9, 9, 3),
        (3, 100, 1, 0), (4, 512 * 9, 18, 3), (5, 1 << 20, 512, 3), (6, 512 * 9, 9, 1), (6, 1 << 16, 128, 1),
        (6, 1 << 20, 256, 3), (7, 4096 * 9, 36, 3), (7, 1 << 20, 128, 3), (8, 4096 * 9, 9, 2), (9, 4096 * 9, 2, 3),
        (9, 1 << 14, 1, 3), (9, 8191, 1, 2), (9, 8192, 1, 3), (9, 5, 1, 2),
        (9, 1 << 21, 64, 2), (9, 63 << 14, 63, 3),
    ],
)  # fmt: skip
def test_levels_have_their_rows(
    hash_engine: Callable[..., Any], level: int, num_tokens: int, num_rows: int, profile: int
) -> None:
    plan, found = level_plan(level, num_tokens, hash_engine(context=512), CompressSettings())
    assert (plan.num_rows, found) == (num_rows, profile)
    # What the header says, or leaves to the profile, gives the same rows again.
    record = {"rows": plan.num_rows, "overlap": plan.overlap} if found == 3 else {}
    header = FrameHeader(MIXED, 1 << 21, 5, num_tokens=num_tokens, profile=found, last=True, **record)
    assert header_plan(header, 512) == plan


def test_a_prompt_counts_where_rows_are_limited_by_memory() -> None:
    class Engine:
        context, stepwise = 1024, False

        def step_bytes(self, rows: int, chunk: int, positions: int) -> int:
            return rows * positions * 5000

    alone, _ = level_plan(1, 1 << 17, Engine(), CompressSettings())
    after, _ = level_plan(1, 1 << 17, Engine(), CompressSettings(), 512)
    assert alone.num_rows == 1024 and after.num_rows == (1 << 30) // (1024 * 5000)


def test_empty_archives_have_no_method() -> None:
    for level in LEVELS:
        assert methods_of(b"", level) == ["stored"]


# -- pieces and samples ------------------------------------------------------------------------------------------------


def method_name(draft: drafts.Draft) -> str:
    """As reports have it."""
    return draft.header.method_name


def drafter(level: int) -> Drafter:
    return Drafter(ModelOnDemand(choose_model("default"), EngineSettings()), CompressSettings(level=level), None)


def test_every_piece_has_its_own_method(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drafts, "PIECE_BYTES", len(ENGLISH))
    data = ENGLISH + samples.noise(2 * len(ENGLISH)) + ENGLISH[::-1][:700]
    found = drafter(2).best_frames(data, alone=False)
    assert b"".join(draft.original for draft in found) == data
    names = [method_name(draft) for draft in found]
    assert names[:2] == ["mixed", "stored"] and len(found[1].original) == 2 * len(ENGLISH)


def test_pieces_for_the_plain_methods_stay_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drafts, "PIECE_BYTES", 1000)
    data = samples.noise(5500)
    found = drafter(9).best_frames(data, alone=False)
    assert [draft.original for draft in found] == [data]


def test_long_pieces_are_sampled_before_they_go_through_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Binary data never goes through the model as a whole, though the text of its size would."""
    seen: list[int] = []
    draft = Drafter._token_draft

    def noted(self: Drafter, piece: Any, *arguments: Any, **options: Any) -> Any:
        seen.append(len(piece.data))
        return draft(self, piece, *arguments, **options)

    monkeypatch.setattr(Drafter, "_token_draft", noted)
    data = binary(3000)
    assert len(data) >= 1 << 15
    found = drafter(4).best_frames(data, alone=False)
    assert b"".join(draft.original for draft in found) == data
    assert method_name(found[0]) == "adaptive"
    assert 1 <= len(seen) <= 8 and max(seen) < len(data) // 15


@pytest.mark.parametrize(
    ("ratio", "looks", "tried"), [(0.5, 1, True), (1.05, 2, True), (1.2, 2, False), (1.3, 1, False)]
)
def test_a_second_look_is_taken_only_where_the_first_is_not_clear(
    monkeypatch: pytest.MonkeyPatch, ratio: float, looks: int, tried: bool
) -> None:
    text = b"".join((CORPORA / name).read_bytes() for name in ("prose-en.txt", "technical-en.txt", "code-c.txt"))
    assert len(text) >= 1 << 15
    plain_bits = 8 * len(drafts._plain_draft(text).payload) / len(text)
    seen: list[int] = []
    asked: list[int] = []

    def bits_of(self: Drafter, parts: list[bytes], level: int, number: int) -> float:
        seen.append(sum(map(len, parts)))
        return ratio * plain_bits * seen[-1]

    def by_model(self: Drafter, piece: Any, *arguments: Any) -> Any:
        asked.append(len(piece.data))
        return iter(())

    monkeypatch.setattr(Drafter, "_sample_bits", bits_of)
    monkeypatch.setattr(Drafter, "_by_model", by_model)
    drafter(1).best_frames(text, alone=False)
    assert len(seen) == looks and asked == [len(text)] * tried


@pytest.mark.parametrize("level", LEVELS)
def test_progress_adds_up(level: int) -> None:
    for data in (ENGLISH[:500], samples.noise(600), bytes(700)):
        done: list[int] = []
        model = ModelOnDemand(choose_model("default"), EngineSettings())
        Drafter(model, CompressSettings(level=level), done.append).best_frames(data, alone=False)
        assert sum(done) == len(data)
