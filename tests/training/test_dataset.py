"""Checks the way from text files to token ids, what is held out, and the order of the training sequences."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmzip.errors import LLMZipError, SettingsError
from llmzip.models.tokenizer import Tokenizer
from llmzip.training import dataset, texts
from llmzip.training.dataset import Dataset, Order, Part, Source, samples, survey, write

MakeTokenizer = Callable[..., Path]


def lines(count: int, name: str = "line", width: int = 64) -> bytes:
    """Lines of one width, each of its own number, so that every part of the text is found in one place only."""
    return b"".join(f"{name} {n} of the harbour".ljust(width - 1, ".").encode() + b"\n" for n in range(count))


def make_files(folder: Path, **contents: bytes) -> list[texts.TextFile]:
    """Files name.txt, each an argument of its own."""
    for name, data in contents.items():
        (folder / f"{name}.txt").write_bytes(data)
    return [texts.TextFile(folder / f"{name}.txt", number) for number, name in enumerate(contents)]


def survey_quietly(files: Sequence[texts.TextFile], mix: Mapping[str, float] | None = None, seed: int = 0) -> Any:
    return survey(files, mix or {}, seed)


@pytest.fixture(scope="module")
def tokenizer(make_tokenizer: MakeTokenizer, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A tokenizer of 320 tokens."""
    return Tokenizer(make_tokenizer(tmp_path_factory.mktemp("tokenizer")), 320)


# -- survey ------------------------------------------------------------------------------------------------------------


def test_sizes_are_those_of_the_text(tmp_path: Path) -> None:
    files = make_files(tmp_path, a=lines(300) + b"\0\0" + lines(20), b=b"", c=lines(400), d=b"\0" * 99)
    ticks: list[int] = []
    (source,) = survey(files, {}, 0, ticks.append)
    assert (source.name, source.files, source.share) == ("", files, 1.0)
    assert source.size == sum(ticks) == 64 * 720


def test_patterns_make_sources_of_their_files(tmp_path: Path) -> None:
    files = make_files(tmp_path, a1=lines(300), b1=lines(30), a2=lines(20), c=lines(10), ab=b"")
    found = survey_quietly(files, {"a*": 0.5, "?1.txt": 0.2})
    assert [(source.name, [file.path.name for file in source.files], source.size) for source in found] == [
        ("a*", ["a1.txt", "a2.txt", "ab.txt"], 320 * 64),
        ("?1.txt", ["b1.txt"], 30 * 64),
        ("", ["c.txt"], 10 * 64),
    ]
    assert [source.share for source in found] == pytest.approx([0.5, 0.2, 0.3])


def test_shares_of_patterns_that_match_all_are_relative(tmp_path: Path) -> None:
    files = make_files(tmp_path, a=lines(300), b=lines(30))
    shares = {source.name: source.share for source in survey_quietly(files, {"b*": 0.3, "a*": 0.9})}
    assert shares == pytest.approx({"a*": 0.75, "b*": 0.25})


@pytest.mark.parametrize(
    ("mix", "words"),
    [
        ({"*.py": 0.5}, r"--mix \*\.py: no file matches"),
        ({"*": 0.5, "a*": 0.2}, r"--mix a\*: no file matches"),
        ({"a*": 1.0}, r"the shares sum to 1 and leave nothing for b\.txt"),
        ({"a*": 0.7, "c*": 0.7}, r"the shares sum to 1\.4 and leave nothing for b\.txt"),
    ],
)
def test_mixes_that_do_not_fit_are_refused(mix: dict[str, float], words: str, tmp_path: Path) -> None:
    files = make_files(tmp_path, a=lines(300), b=lines(300), c=lines(9))
    with pytest.raises(SettingsError, match=words):
        survey_quietly(files, mix)


def test_a_pattern_may_be_called_text(tmp_path: Path) -> None:
    for name in ("text", "more"):
        (tmp_path / name).write_bytes(lines(300))
    found = survey_quietly([texts.TextFile(tmp_path / name, 0) for name in ("text", "more")], {"text": 0.2})
    assert [(len(source.files), source.share) for source in found] == [(1, 0.2), (1, 0.8)]


def test_too_little_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LLMZipError, match="the text has 19,968 bytes; at least 20,000 are needed"):
        survey_quietly(make_files(tmp_path, a=lines(312)))
    with pytest.raises(LLMZipError, match="the text has 0 bytes"):
        survey_quietly(make_files(tmp_path, a=b"\0" * 30_000))
    assert survey_quietly(make_files(tmp_path, a=lines(312), b=b"x" * 32))


def test_slices_are_a_uniform_sample(tmp_path: Path) -> None:
    """Of 6,000 documents, two thirds are taken, none twice, from everywhere alike."""
    files = make_files(tmp_path, a=b"\0".join(b"document %d" % n for n in range(6000)))
    (source,) = survey_quietly(files)
    taken = [int(piece.split()[1]) for piece in source.slices]
    assert len(taken) == len(set(taken)) == 4000
    for part in range(6):
        assert sum(number // 1000 == part for number in taken) == pytest.approx(4000 / 6, abs=90)
    assert survey_quietly(files)[0].slices == source.slices
    assert survey_quietly(files, seed=1)[0].slices != source.slices


def test_slices_lie_anywhere_in_their_block(tmp_path: Path) -> None:
    data = lines(2000)
    (source,) = survey_quietly(make_files(tmp_path, a=data))
    places = [data.index(piece) for piece in source.slices]
    assert places == sorted(places) and all(len(piece) == 3000 for piece in source.slices[:-1])
    assert len({place % 64 for place in places}) > 5 and len(places) == len(data) // 8192


def test_samples_keep_to_the_shares() -> None:
    sources = [
        Source("much", [], share=0.6, slices=[bytes([n]) * 3000 for n in range(90)]),
        Source("little", [], share=0.1, slices=[b"l" * 3000] * 2),
        Source("some", [], share=0.3, slices=[b"s" * 3000] * 90),
    ]
    taken = list(samples(sources, 100_000))
    assert taken[:20] == sources[0].slices[:20]
    sizes = [sum(map(len, (piece for piece in taken if piece in source.slices))) for source in sources]
    assert sizes == [60_000, 6000, 30_000]
    assert len(list(samples(sources))) == 182


# -- tokens on the disk ------------------------------------------------------------------------------------------------


def make(
    folder: Path,
    files: Sequence[texts.TextFile],
    tokenizer: Tokenizer,
    hold_out: bool = False,
    mix: Mapping[str, float] | None = None,
) -> Dataset:
    """A dataset of files, whose arguments are called argument 0, 1, ..."""
    folder.mkdir(exist_ok=True)
    sources = survey_quietly(files, mix)
    names = [f"argument {number}" for number in range(len(files))]
    ticks: list[int] = []
    write(folder, sources, names, tokenizer=tokenizer, hold_out=hold_out, progress=ticks.append)
    data = Dataset(folder)
    assert sum(ticks) == sum(len(text) for text in decoded(data, tokenizer))
    return data


def decoded(data: Dataset, tokenizer: Tokenizer) -> list[bytes]:
    """The text of each part; the parts must have no gaps."""
    assert [part.start for part in data.parts] == [0, *np.cumsum([part.length for part in data.parts])[:-1]]
    assert sum(part.length for part in data.parts) == len(data.ids)
    return [tokenizer.table.decode(data.ids[part.start : part.start + part.length]) for part in data.parts]


def test_ids_are_the_documents_with_nul_between(tokenizer: Tokenizer, tmp_path: Path) -> None:
    odd = bytes(range(1, 256)) + "Größe, €, 😀\r\n\r\n".encode()
    files = make_files(tmp_path, a=lines(200) + b"\0\0" + odd, b=b"\0", c=lines(150, "other") + b"\0")
    data = make(tmp_path / "out", files, tokenizer)
    assert decoded(data, tokenizer) == [b"\0".join([lines(200), odd, lines(150, "other")])]
    assert data.ids.dtype == np.uint16 and data.held_out == {}
    (part,) = data.parts
    assert (part.name, part.num_bytes, part.share) == ("", 350 * 64 + len(odd), 1.0)
    assert part.length < 0.9 * part.num_bytes  # the tokenizer's merges are used


def test_sources_are_parts(tokenizer: Tokenizer, tmp_path: Path) -> None:
    files = make_files(tmp_path, a1=lines(90), b=lines(300, "other"), a2=lines(20, "third"))
    data = make(tmp_path / "out", files, tokenizer, mix={"a*": 0.25})
    assert decoded(data, tokenizer) == [lines(90) + b"\0" + lines(20, "third"), lines(300, "other")]
    assert [(part.name, part.num_bytes, part.share) for part in data.parts] == [
        ("a*", 110 * 64, 0.25),
        ("", 300 * 64, 0.75),
    ]


def test_text_longer_than_what_is_tokenised_at_once(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "_ENCODE_BYTES", 1500)
    files = make_files(tmp_path, a=lines(200) + b"\0" + lines(200, "two"), b=lines(9, "three"))
    data = make(tmp_path / "out", files, tokenizer)
    assert decoded(data, tokenizer) == [b"\0".join([lines(200), lines(200, "two"), lines(9, "three")])]


def test_large_vocabularies_take_four_bytes(make_tokenizer: MakeTokenizer, tmp_path: Path) -> None:
    folder = make_tokenizer(tmp_path / "tokenizer")
    files = make_files(tmp_path, a=lines(400))
    for vocab_size, dtype in ((1 << 16, np.uint16), ((1 << 16) + 1, np.uint32)):
        tokenizer = Tokenizer(folder, vocab_size)
        data = make(tmp_path / f"out {vocab_size}", files, tokenizer)
        assert data.ids.dtype == dtype and decoded(data, tokenizer) == [lines(400)]


@pytest.mark.parametrize("count", [900, 3000, 9000])
def test_a_hundredth_is_held_out(count: int, tokenizer: Tokenizer, tmp_path: Path) -> None:
    text = lines(count)
    data = make(tmp_path / "out", make_files(tmp_path, a=text), tokenizer, hold_out=True)
    kept = text
    pieces = data.held_out["argument 0"].split(b"\0")
    for piece in pieces:
        assert kept.count(piece) == 1 and piece.endswith(b"\n")
        kept = kept.replace(piece, b"")
    assert decoded(data, tokenizer) == [kept]
    assert len(text) - len(kept) == pytest.approx(len(text) / 100, rel=0.5)
    assert len(pieces) == pytest.approx(4, abs=3)


@pytest.mark.parametrize("count", [313, 399])
def test_something_of_the_smallest_texts_is_held_out(count: int, tokenizer: Tokenizer, tmp_path: Path) -> None:
    files = make_files(tmp_path, a=lines(count))
    assert make(tmp_path / "out", files, tokenizer, hold_out=True).held_out["argument 0"]


def test_of_much_text_a_mebibyte_is_held_out(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "_MAX_HELD_OUT_BYTES", 3000)
    monkeypatch.setattr(dataset, "_MAX_BLOCK_BYTES", 512)
    data = make(tmp_path / "out", make_files(tmp_path, a=lines(10_000)), tokenizer, hold_out=True)
    assert 2000 < len(data.held_out["argument 0"]) <= 3000 + 512


def test_held_out_text_is_told_by_argument_or_pattern(tokenizer: Tokenizer, tmp_path: Path) -> None:
    files = make_files(tmp_path, a=lines(2000), b=lines(2000, "other"), c=lines(2000, "third"))
    data = make(tmp_path / "out", files, tokenizer, hold_out=True, mix={"b.*": 0.5})
    names = {"b.*": b"other ", "argument 0": b"line ", "argument 2": b"third "}
    assert data.held_out.keys() == names.keys()
    for name, word in names.items():
        assert all(line.startswith(word) for line in data.held_out[name].replace(b"\0", b"").splitlines())


def test_held_out_text_of_many_arguments_is_one(tokenizer: Tokenizer, tmp_path: Path) -> None:
    files = make_files(tmp_path, **{f"f{n}": lines(500 if n else 2000, f"file{n}") for n in range(9)})
    data = make(tmp_path / "many", files, tokenizer, hold_out=True, mix={"f0*": 0.5})
    assert sorted(data.held_out) == ["f0*", "held out"]
    assert len({line.split()[0] for line in data.held_out["held out"].splitlines()}) > 2
    data = make(tmp_path / "few", files[:8], tokenizer, hold_out=True)
    assert len(data.held_out) > 2 and all(name.startswith("argument") for name in data.held_out)


def test_documents_that_are_held_out_as_a_whole_leave_no_trace(tokenizer: Tokenizer, tmp_path: Path) -> None:
    documents = [lines(8, f"document {n}") for n in range(300)]
    data = make(tmp_path / "out", make_files(tmp_path, a=b"\0".join(documents)), tokenizer, hold_out=True)
    kept = decoded(data, tokenizer)[0].split(b"\0")
    away = data.held_out["argument 0"].split(b"\0")
    assert [kept.index(document) for document in documents if document not in away] == list(range(297))
    assert away == [documents[49], documents[149], documents[249]]


def test_documents_stay_apart_when_their_beginning_is_held_out(tokenizer: Tokenizer, tmp_path: Path) -> None:
    documents = [lines(56, f"document {n}") for n in range(56)]  # 7 blocks each; the 50th block begins number 7
    data = make(tmp_path / "out", make_files(tmp_path, a=b"\0".join(documents)), tokenizer, hold_out=True)
    assert data.held_out["argument 0"].startswith(b"document 7 0 ")
    for document in decoded(data, tokenizer)[0].split(b"\0"):
        assert len({line.split()[1] for line in document.splitlines()}) == 1


def test_datasets_are_deterministic(tokenizer: Tokenizer, tmp_path: Path) -> None:
    files = make_files(tmp_path, a=lines(1000))
    first = make(tmp_path / "1", files, tokenizer, hold_out=True)
    second = make(tmp_path / "2", files, tokenizer, hold_out=True)
    assert first.digest == second.digest and first.parts == second.parts and first.held_out == second.held_out
    assert make(tmp_path / "3", files, tokenizer).digest != first.digest


def test_digest_sees_ids_and_index(tokenizer: Tokenizer, tmp_path: Path) -> None:
    digests = {make(tmp_path / "out", make_files(tmp_path, a=lines(1000)), tokenizer).digest}
    ids, index = tmp_path / "out" / "tokens.bin", tmp_path / "out" / "tokens.json"
    raw = bytearray(ids.read_bytes())
    raw[-1] ^= 1
    ids.write_bytes(raw)
    digests.add(Dataset(tmp_path / "out").digest)
    described = json.loads(index.read_text())
    described["parts"][0]["share"] = 0.5
    index.write_text(json.dumps(described))
    digests.add(Dataset(tmp_path / "out").digest)
    assert len(digests) == 3


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokens.json", None),
        ("tokens.json", b"{"),
        ("tokens.json", b"\xff\xfe"),
        ("tokens.json", b"[]"),
        ("tokens.json", b'{"parts": [], "held_out": {}}'),
        ("tokens.json", b'{"parts": [{"name": "a"}], "dtype": "<u2", "held_out": {}}'),
        ("tokens.json", b'{"parts": [], "dtype": "<x2", "held_out": {}}'),
        ("tokens.json", b'{"parts": [], "dtype": "<u2", "held_out": {"a": "xyz"}}'),
        ("tokens.bin", None),
        ("tokens.bin", b""),
        ("tokens.bin", b"odd"),
    ],
)
def test_broken_datasets_are_named(name: str, content: bytes | None, tokenizer: Tokenizer, tmp_path: Path) -> None:
    make(tmp_path / "out", make_files(tmp_path, a=lines(400)), tokenizer)
    if content is None:
        (tmp_path / "out" / name).unlink()
    else:
        (tmp_path / "out" / name).write_bytes(content)
    with pytest.raises(LLMZipError, match="out: the tokens cannot be read") as caught:
        Dataset(tmp_path / "out")
    assert "\n" not in str(caught.value)


# -- the order ---------------------------------------------------------------------------------------------------------


def parts_of(*lengths_and_shares: tuple[int, float]) -> list[Part]:
    """Parts without gaps."""
    parts: list[Part] = []
    for number, (length, share) in enumerate(lengths_and_shares):
        start = parts[-1].start + parts[-1].length if parts else 0
        parts.append(Part(f"source {number}", start, length, 3 * length, share))
    return parts


def owners(parts: Sequence[Part], starts: np.ndarray, sequence: int) -> np.ndarray:
    """The part of each sequence; none may reach over a part's end."""
    found = np.searchsorted([part.start + part.length for part in parts], starts, side="right")
    for part, number in zip(parts, range(len(parts)), strict=True):
        own = starts[found == number]
        assert (own >= part.start).all() and (own + sequence <= part.start + part.length).all()
    return found


def shares(most: int) -> st.SearchStrategy[list[float]]:
    return st.lists(st.floats(0.01, 1.0), min_size=1, max_size=most)


ORDERS = {
    "lengths": st.lists(st.integers(0, 400), min_size=9, max_size=9),
    "sequence": st.integers(1, 30),
    "total": st.integers(1, 300),
    "seed": st.integers(0, 1 << 64),
}


@given(weights=shares(4), **ORDERS)
def test_within_an_epoch_everything_comes_once(
    weights: list[float], lengths: list[int], sequence: int, total: int, seed: int
) -> None:
    parts = parts_of(*((2 * sequence + extra, share) for extra, share in zip(lengths, weights, strict=False)))
    starts = Order(parts, sequence, total, seed).starts(0, total)
    assert starts.dtype == np.int64 and len(starts) == total
    found = owners(parts, starts, sequence)
    for number, part in enumerate(parts):
        own = starts[found == number]
        per_epoch = part.length // sequence - 1
        for first in range(0, len(own), per_epoch):
            epoch = np.sort(own[first : first + per_epoch])
            assert (np.diff(epoch) >= sequence).all()  # no token twice
            if len(epoch) == per_epoch:
                assert (np.diff(epoch) == sequence).all()  # no gap
                assert part.length - per_epoch * sequence < 2 * sequence  # the margins


def test_epochs_differ() -> None:
    parts = parts_of((1000, 1.0))
    starts = Order(parts, 10, 99 * 40, 3).starts(0, 99 * 40).reshape(40, 99)
    offsets = starts.min(1)
    assert len(set(offsets.tolist())) > 5 and offsets.max() < 10
    ranks = {tuple(np.argsort(epoch).tolist()) for epoch in starts}
    assert len(ranks) == 40
    assert abs(np.corrcoef(starts[:, :-1].ravel(), starts[:, 1:].ravel())[0, 1]) < 0.1  # no runs of neighbours


def test_seeds_differ_and_sources_too() -> None:
    parts = parts_of((1000, 0.5), (1000, 0.5))
    first = Order(parts, 10, 100, 0).starts(0, 100)
    assert np.array_equal(first, Order(parts, 10, 100, 0).starts(0, 100))
    assert not np.array_equal(first, Order(parts, 10, 100, 1).starts(0, 100))
    found = owners(parts, first, 10)
    assert not np.array_equal(first[found == 0], first[found == 1] - 1000)


def most_from_shares(weights: Sequence[float], total: int) -> float:
    """How far the numbers of sequences are from the shares, at worst over all sources and beginnings."""
    parts = parts_of(*((40, share) for share in weights))
    found = owners(parts, Order(parts, 10, total, 0).starts(0, total), 10)
    counts = np.cumsum(found[:, None] == np.arange(len(parts)), 0)
    wanted = np.arange(1, total + 1)[:, None] * (np.array(weights) / np.sum(weights))
    return float(np.abs(counts - wanted).max())


@given(weights=shares(3), total=st.integers(1, 300))
@example(weights=[0.7, 0.2, 0.1], total=200)
@example(weights=[0.01, 1.0], total=300)
def test_sources_have_their_shares_at_any_time(weights: list[float], total: int) -> None:
    assert most_from_shares(weights, total) <= 1


@given(weights=shares(9), total=st.integers(1, 300))
def test_many_sources_have_their_shares_nearly(weights: list[float], total: int) -> None:
    """Each is due within half a sequence of its time; the others' halves add up."""
    share = np.array(weights) / np.sum(weights)
    bound = 0.5 * (1 - share) + share * 0.5 * (len(weights) - 1)
    assert most_from_shares(weights, total) <= bound.max() + 1e-6


@given(weights=shares(4), first=st.integers(0, 200), count=st.integers(0, 200), **ORDERS)
def test_any_slice_is_that_of_the_whole(
    weights: list[float], lengths: list[int], sequence: int, total: int, seed: int, first: int, count: int
) -> None:
    """A training that goes on needs no sequence before; and it may ask in any order."""
    total += first + count
    parts = parts_of(*((2 * sequence + extra, share) for extra, share in zip(lengths, weights, strict=False)))
    order = Order(parts, sequence, total, seed)
    part = order.starts(first, count)
    whole = order.starts(0, total)
    assert np.array_equal(part, whole[first : first + count])
    assert np.array_equal(order.starts(first, count), part)
    assert np.array_equal(Order(parts, sequence, first + count, seed).starts(0, first + count), whole[: first + count])


def test_epochs_count_the_tokens() -> None:
    order = Order(parts_of((600, 0.5), (400, 0.5)), 10, 100, 0)
    assert order.epochs(100) == 1.0 and order.epochs(250) == 2.5


def test_sources_that_are_too_short_are_named() -> None:
    with pytest.raises(SettingsError, match=r"source 1: 1,999 tokens are too few for sequences of 1,000; .*--sequence"):
        Order(parts_of((5000, 0.5), (1999, 0.5)), 1000, 3, 0)
    assert len(Order(parts_of((5000, 0.5), (2000, 0.5)), 1000, 3, 0).starts(0, 3)) == 3


def test_golden_order() -> None:
    """Checkpoints rely on it: a training that goes on after an update must see the same sequences."""
    starts = Order(parts_of((130, 0.6), (100, 0.3), (64, 0.1)), 8, 40, 7).starts(0, 40)
    assert starts.tolist() == [
        17, 132, 25, 105, 212, 245, 9, 1, 180, 65, 57, 148, 49, 41, 269, 188, 97, 89, 172, 33,
        81, 140, 113, 73, 156, 285, 58, 34, 164, 82, 74, 204, 42, 98, 196, 237, 18, 90, 163, 66,
    ]  # fmt: skip
