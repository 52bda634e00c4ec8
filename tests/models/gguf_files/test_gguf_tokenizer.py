"""Tokenizers in the metadata of GGUF files encode as those of the checkpoints, and have their digests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
from model_samples import sentencepiece_model
from tokenizers import Regex, pre_tokenizers

from llmzip.errors import TokenizerError
from llmzip.models.gguf import pretokenizers
from llmzip.models.gguf.tokenizer import remark
from llmzip.models.tokenizer import Tokenizer
from llmzip.models.tokenizer_file import TokenizerFile

TEXTS = [
    "The ferry was late again, and the wind came over the harbour wall. It's 1234567 o'clock; we'll see.\n",
    "def f(a,\n        b):\n    return a + b\n\n\n\tx = 10_000\r\n",
    "日本語のテキスト、漢字とかな。 中文测试 한국어\n",
    "🙂🚀👩\u200d👩\u200d👧 Ça va très bien; où est l’été? Größe ▁▁\n",
    "<|endoftext|> is text here, and so is <s>\n",
]
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)


def encoded(tokenizer: Tokenizer, text: str) -> list[bytes]:
    return [tokenizer.table.entries[i] for i in tokenizer.encode(text.encode())]


def same(checkpoint: Path, file: Path, size: int) -> tuple[Tokenizer, Tokenizer]:
    """Both tokenizers, whose digests and ids are the same."""
    expected, found = Tokenizer(checkpoint, size), Tokenizer(file, size)
    assert found.table.digest() == expected.table.digest()
    for text in TEXTS:
        ids = found.encode(text.encode())
        assert ids.tolist() == expected.encode(text.encode()).tolist()
        assert found.table.decode(ids) == text.encode()
    return expected, found


@pytest.fixture
def folder(random_checkpoint: Callable[..., Any], write_checkpoint: Callable[..., Path], tmp_path: Path) -> Path:
    """A checkpoint without a tokenizer."""
    config, tensors = random_checkpoint(vocab_size=400, bos_token_id=3, eos_token_id=0)
    config["rope_parameters"] = {"rope_theta": 10000.0}
    return write_checkpoint(tmp_path / "checkpoint", config, tensors)


BEFORE = {
    "gpt-2": None,
    "smollm": pre_tokenizers.Digits(individual_digits=True),
    "starcoder": pre_tokenizers.Digits(individual_digits=True),
    "llama-bpe": pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
    "qwen2": pre_tokenizers.Split(Regex(LLAMA3.replace("{1,3}", "")), "isolated"),
}


@pytest.mark.parametrize("pre", BEFORE)
def test_byte_level_tokenizers_split_as_the_checkpoints_do(
    pre: str, folder: Path, tmp_path: Path, make_tokenizer: Callable[..., Path], to_gguf: Callable[..., Path]
) -> None:
    make_tokenizer(folder, 390, special_tokens=("<|endoftext|>", "<s>"), before=BEFORE[pre])
    path = folder / "tokenizer.json"
    description = json.loads(path.read_text(encoding="utf-8"))
    if pre in ("llama-bpe", "qwen2"):
        description["pre_tokenizer"]["pretokenizers"][1]["use_regex"] = False
    if pre == "llama-bpe":
        description["model"]["ignore_merges"] = True
    # A token that is text, after the vocabulary; the rows behind it have no token.
    description["added_tokens"].append(description["added_tokens"][0] | {"id": 391, "content": "  ", "special": False})
    path.write_text(json.dumps(description), encoding="utf-8")
    file = to_gguf(tmp_path / "model.gguf", folder, pre=pre)
    _, found = same(folder, file, 400)
    assert found.table.entries[390] == found.table.entries[399] == b"" and found.table.entries[391] == b"  "
    assert remark(file) == ""
    if pre not in ("gpt-2", "llama-bpe"):
        assert encoded(found, "in 1234")[-4:] == [b"1", b"2", b"3", b"4"]


def test_an_unknown_way_to_split_is_said_and_loses_nothing(
    folder: Path, tmp_path: Path, make_tokenizer: Callable[..., Path], to_gguf: Callable[..., Path]
) -> None:
    make_tokenizer(folder, 390)
    file = to_gguf(tmp_path / "model.gguf", folder, pre="martian")
    same(folder, file, 400)
    assert remark(file) == "splits texts as GPT-2 does, because its own way, 'martian', is not known"


SPLIT = {
    "llama-bpe": ["It", "'S", " ", "123", "456", "7", " o", "'clock", "!\n\n", "  ", " x"],
    "qwen2": ["It", "'S", " ", *"1234567", " o", "'clock", "!\n\n", "  ", " x"],
    "tekken": ["It", "'S", " ", *"1234567", " o", "'clock", "!\n\n", "  ", " x"],
    "gpt-4o": ["It'S", " ", "123", "456", "7", " o", "'clock", "!\n\n", "  ", " x"],
    "deepseek-coder": ["It", "'", "S", " ", *"1234567", " o", "'", "clock", "!", "\n", "\n", "  ", " x"],
    "deepseek-v3": ["It", "'S", " ", "123", "456", "7", " o", "'clock", "!\n\n", "  ", " x"],
    "smollm": ["It", "'", "S", " ", *"1234567", " o", "'", "clock", "!", "\n\n  ", " x"],
    "gpt-2": ["It", "'", "S", " 1234567", " o", "'", "clock", "!", "\n\n  ", " x"],
}


@pytest.mark.parametrize("pre", SPLIT)
def test_texts_are_split_by_the_known_ways(pre: str) -> None:
    assert pretokenizers.is_known(pre)
    step = pre_tokenizers.PreTokenizer
    described = {
        "version": "1.0",
        "pre_tokenizer": pretokenizers.pre_tokenizer(pre),
        "model": {"type": "BPE", "vocab": {}, "merges": []},
    }
    from tokenizers import Tokenizer as Fast

    splitter = Fast.from_str(json.dumps(described)).pre_tokenizer
    assert isinstance(splitter, step)
    text = "It'S 1234567 o'clock!\n\n   x"
    pieces = [text[begin:end] for _, (begin, end) in splitter.pre_tokenize_str(text)]
    assert pieces == SPLIT[pre] and "".join(pieces) == text


# -- SentencePiece ---------------------------------------------------------------------------------------------------

WORDS = ["he", "th", "in", "er", "the", "\u2581t", "\u2581the", "\u2581w", "re", "ther", "ing", "an", "and", "\u2581a"]
WORDS += ["\u2581and", "la", "te", "at", "late"]


@pytest.fixture
def pieces(folder: Path) -> Path:
    """A checkpoint with a BPE in SentencePiece's form, and tokens that are text: runs of blanks and of line ends."""
    letters = sorted(
        {character for text in TEXTS[0:2] for character in text.replace(" ", "\u2581")} - {"\n", "\t", "\r"}
    )
    vocab = ["<unk>", "<s>", "</s>", *[f"<0x{byte:02X}>" for byte in range(256)]]
    runs = ["\n", "\n\n", "\n\n\n", "\t", "\u2581\u2581", "\u2581\u2581\u2581", "\u2581\u2581\u2581\u2581"]
    vocab += runs + letters + WORDS
    model = sentencepiece_model("BPE", vocab, True)
    # In the order in which the tokens were made: that of their first merge.
    made = set(letters)
    merges = []
    for word in WORDS:
        pairs = [[word[:n], word[n:]] for n in range(1, len(word)) if word[:n] in made and word[n:] in made]
        merges += sorted(pairs, key=lambda pair: (vocab.index(pair[0]), vocab.index(pair[1])))
        made.add(word)
    model["merges"] = merges
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [{"id": i, "content": vocab[i], "special": True, **plain} for i in range(3)]
    added += [{"id": vocab.index(run), "content": run, "special": False, **plain} for run in runs]
    blanks = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    description = {"version": "1.0", "added_tokens": added, "normalizer": blanks, "model": model}
    (folder / "tokenizer.json").write_text(json.dumps(description), encoding="utf-8")
    return folder


def test_sentencepiece_merges_follow_from_scores(pieces: Path, tmp_path: Path, to_gguf: Callable[..., Path]) -> None:
    file = to_gguf(tmp_path / "model.gguf", pieces, pre="default")
    _, found = same(pieces, file, 400)
    assert TokenizerFile.read(file).kind == "sentencepiece"
    assert encoded(found, "late and the\n\n    the") == [b"late", b" and", b" the", b"\n\n", b"    ", b"the"]
    described = TokenizerFile.read(file).description["model"]
    original = json.loads((pieces / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    assert described["type"] == "BPE" and described["byte_fallback"]
    assert set(map(tuple, described["merges"])) >= set(map(tuple, original["merges"]))


def test_without_scores_the_order_of_the_tokens_is_that_of_the_merges(
    pieces: Path, tmp_path: Path, to_gguf: Callable[..., Path]
) -> None:
    """Converters that know no scores write the same for all."""

    def edit(writer: gguf.GGUFWriter) -> None:
        writer.kv_data[0]["tokenizer.ggml.scores"].value = [-1000.0] * 400

    same(pieces, to_gguf(tmp_path / "model.gguf", pieces, edit=edit, pre="default"), 400)


def test_runs_of_blanks_are_tokens_of_a_checkpoint_too(pieces: Path) -> None:
    """Gemma's tokenizer.json lists them with the mark for a blank, which stands for a blank in the text."""
    tokenizer = Tokenizer(pieces, 400)
    assert encoded(tokenizer, "the    the") == [b"the", b"    ", b"the"]
    assert b"".join(encoded(tokenizer, "▁▁")) == "▁▁".encode()


# -- what is refused -------------------------------------------------------------------------------------------------


def change(name: str, value: Any) -> Callable[[gguf.GGUFWriter], None]:
    """Replaces a field; None removes it."""

    def edit(writer: gguf.GGUFWriter) -> None:
        fields = writer.kv_data[0]
        if value is None:
            del fields[name]
        else:
            fields[name].value = value

    return edit


REFUSED = {
    "no tokenizer": ("model", None, r"its metadata hold no tokenizer \(tokenizer.ggml.model\)"),
    "WordPiece": ("model", "bert", "its tokenizer is of kind 'bert'; supported are gpt2"),
    "Unigram": ("model", "t5", "its tokenizer is of kind 't5'"),
    "no tokens": ("tokens", None, "its metadata lack tokenizer.ggml.tokens"),
    "no merges": ("merges", None, "its metadata lack tokenizer.ggml.merges"),
    "few types": ("token_type", [1, 1], "its metadata have 2 tokenizer.ggml.token_type for 400 tokens"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_missing_or_of_another_kind_is_named(
    name: str, folder: Path, tmp_path: Path, make_tokenizer: Callable[..., Path], to_gguf: Callable[..., Path]
) -> None:
    part, value, message = REFUSED[name]
    make_tokenizer(folder, 390)
    file = to_gguf(tmp_path / "model.gguf", folder, edit=change(f"tokenizer.ggml.{part}", value))
    with pytest.raises(TokenizerError, match=f"model .*model.gguf: {message}"):
        Tokenizer(file, 400)


def test_more_tokens_than_rows_are_refused_and_fewer_stand_for_nothing(
    folder: Path, tmp_path: Path, make_tokenizer: Callable[..., Path], to_gguf: Callable[..., Path]
) -> None:
    make_tokenizer(folder, 390)
    file = to_gguf(tmp_path / "model.gguf", folder)
    with pytest.raises(TokenizerError, match="is outside the model's vocabulary of 380"):
        Tokenizer(file, 380)
    assert Tokenizer(file, 420).table.entries[400:] == [b""] * 20


def test_merges_that_lead_nowhere_are_left_out(
    folder: Path, tmp_path: Path, make_tokenizer: Callable[..., Path], to_gguf: Callable[..., Path]
) -> None:
    make_tokenizer(folder, 390)

    def edit(writer: gguf.GGUFWriter) -> None:
        writer.kv_data[0]["tokenizer.ggml.merges"].value += ["q z", "nonsense", "", "x y z"]

    same(folder, to_gguf(tmp_path / "model.gguf", folder, edit=edit), 400)
