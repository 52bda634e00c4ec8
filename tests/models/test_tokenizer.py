"""Checks that any bytes become token ids and back, whatever the tokenizer does to text, and what is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_samples import LACKING, sentencepiece_model
from tokenizers import Regex, normalizers, pre_tokenizers, processors

from llmzip.errors import ModelNotFoundError, TokenizerError
from llmzip.models.config import MAX_VOCAB
from llmzip.models.embedded import DEFAULT
from llmzip.models.token_table import TokenTable, lacking_text
from llmzip.models.tokenizer import Tokenizer
from llmzip.models.tokenizer_file import byte_alphabet

SPECIAL = ("<|endoftext|>", "<s>", "</s>", "<pad>", "[MASK]", " the ")
VOCABULARY = 340

TORTURE = {
    "empty": b"",
    "blank": b" ",
    "line feed": b"\n",
    "ascii": b"The quick brown fox jumps over the lazy dog.",
    "crlf": b"one\r\ntwo\r\n\r\nthree\rfour\n\r",
    "nul": b"a\0b\0\0c\0",
    "leading blanks": b"   three before, two after  ",
    "tabs": b"\t\tx\t \t",
    "special strings": "".join(SPECIAL).encode() + b"<|endoftext|" + b" <s> <pad>\n</s></s>",
    "surrounded specials": b"word <|endoftext|> word<s>word",
    "nfd": "Cafe\u0301 A\u030a \u1112\u1161\u11ab".encode(),
    "nfc": "Café Å 한".encode(),
    "compatibility": "ﬁ ﬃ Ⅷ ² ½ ＡＢＣ ㎞ \u2126 \u212b".encode(),
    "emoji": "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽".encode(),
    "bom": b"\xef\xbb\xbfhello",
    "controls": bytes(range(32)) + b"\x7f" + "\x80\x85\x9f\xa0\u2028\u2029\ufeff\ufffe\uffff".encode(),
    "unassigned": "\U000e0001\U0010ffff\ue000\u0378".encode(),
    "replacement": "\ufffd\ufffd?".encode(),
    "latin-1": "Grüße aus Köln, où ça va très bien".encode("latin-1"),
    "utf-16": "Hello, wörld".encode("utf-16"),
    "wtf-8": b"lone \xed\xa0\x80 high, \xed\xb0\x80 low, \xed\xa0\xbd\xed\xb8\x80 pair",
    "truncated utf-8": "ende €".encode()[:-1],
    "overlong": b"\xc0\x80 \xe0\x80\xaf \xf0\x80\x80\x80 \xf5\x80\x80\x80 \xf8\x88\x80\x80\x80",
    "continuation": b"\x80\x80abc\xbf",
    "one bad byte": b"good text before \xff good text after",
    "every byte": bytes(range(256)),
    "every byte backwards": bytes(range(255, -1, -1)) * 3,
    "bad bytes apart": b"".join(b"\xffab" for _ in range(50)),
    "bad bytes with text between": b"\xfe".join(["mostly fine, wörld ".encode()] * 30),
}


def embedded() -> Tokenizer:
    return Tokenizer(DEFAULT.folder, 4096)


@pytest.fixture(scope="module")
def kinds(make_tokenizer: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    """Tokenizers with everything in them that changes or loses bytes."""
    settings: dict[str, dict[str, Any]] = {
        "plain": {},
        "nfc": {"normalizer": normalizers.NFC()},
        "lowercase": {
            "normalizer": normalizers.Sequence([normalizers.NFKD(), normalizers.Lowercase(), normalizers.Strip()])
        },
        "prefix": {"add_prefix_space": True},
        "special": {"special_tokens": SPECIAL},
        "template": {
            "special_tokens": SPECIAL,
            "post_processor": processors.TemplateProcessing(
                single="<s> $A </s>", pair="<s> $A </s> $B:1 </s>:1", special_tokens=[("<s>", 1), ("</s>", 2)]
            ),
        },
        "blanks dropped": {"before": pre_tokenizers.WhitespaceSplit()},
        "all": {"normalizer": normalizers.NFC(), "add_prefix_space": True, "special_tokens": SPECIAL},
    }
    folder = tmp_path_factory.mktemp("tokenizers")
    made = {
        name: Tokenizer(make_tokenizer(folder / name, vocab_size=VOCABULARY, **fields), VOCABULARY)
        for name, fields in settings.items()
    }
    for name, description in SENTENCEPIECE.items():
        (folder / name).mkdir()
        (folder / name / "tokenizer.json").write_text(json.dumps(description()), encoding="utf-8")
        made[name] = Tokenizer(folder / name, 800)
    made["merges"] = Tokenizer(split_files(make_tokenizer(folder / "merges", vocab_size=VOCABULARY)), VOCABULARY)
    return made | {"embedded": embedded()}


def split_files(folder: Path) -> Path:
    """GPT-2's older form: vocab.json and merges.txt instead of tokenizer.json."""
    model = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(merge) for merge in model["merges"])]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "tokenizer.json").unlink()
    return folder


def sentencepiece(kind: str, byte_tokens: bool, **parts: Any) -> dict[str, Any]:
    """A tokenizer as it comes from a SentencePiece model: a blank is U+2581, the first tokens are special."""
    words = [
        *"\u2581etaniosrhldcumfpgwybvkäöé",
        *(f"\u2581{x}" for x in ("t", "th", "the", "a", "an", "and", "c", "w")),
    ]
    words += ["wi", "win", "wind", "th", "the", "an", "and", "ov", "ove", "over", "hi", "hil", "hill", "hills"]
    vocab = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256) if byte_tokens), *words]
    vocab += [f"{a}{b}" for a in "abcdefghijklmnop" for b in "qrstuvwxyz0123"] + ["\n\n", "<td>"]
    special = [{"content": text, "id": n, "special": True} for n, text in enumerate(vocab[:3])]
    text = [{"content": text, "id": vocab.index(text), "special": False, "lstrip": True} for text in vocab[-2:]]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    model = sentencepiece_model(kind, vocab, byte_tokens)
    prepend = {"type": "Prepend", "prepend": "\u2581"}
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    made = {
        "version": "1.0",
        "added_tokens": [flags | entry for entry in special + text],
        "normalizer": {"type": "Sequence", "normalizers": [prepend, replace]},
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": {"type": "ByteFallback"},
        "model": model,
    }
    return made | parts


METASPACE = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
STRIP = {"type": "Strip", "strip_left": True, "strip_right": True}
NFKC = {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Lowercase"}, STRIP]}
SENTENCEPIECE: dict[str, Callable[[], dict[str, Any]]] = {
    "sentencepiece": lambda: sentencepiece("BPE", True),
    "sentencepiece metaspace": lambda: sentencepiece("BPE", True, normalizer=None, pre_tokenizer=METASPACE),
    "unigram with bytes": lambda: sentencepiece("Unigram", True, normalizer=NFKC, pre_tokenizer=METASPACE),
    "unigram": lambda: sentencepiece("Unigram", False, normalizer=NFKC, pre_tokenizer=METASPACE),
    "bpe without bytes": lambda: sentencepiece("BPE", False),
}

KINDS = [
    "plain", "nfc", "lowercase", "prefix", "special", "template", "blanks dropped", "all", "embedded", "merges",
    *SENTENCEPIECE,
]  # fmt: skip


def check(tokenizer: Tokenizer, data: bytes) -> np.ndarray:
    """The ids of data, which must be whole and make up the data."""
    ids = tokenizer.encode(data)
    assert ids.dtype == np.int64 and ids.ndim == 1
    assert tokenizer.table.decode(ids) == data
    if len(ids):
        assert ids.min() >= 0 and ids.max() < tokenizer.table.vocab_size
    assert len(ids) <= len(data)
    assert tokenizer.table.num_bytes(ids) == len(data)
    assert all(tokenizer.table.entries[i] for i in ids)  # no id that stands for nothing
    return ids


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TORTURE)
def test_torture_texts_come_back(kinds: dict[str, Tokenizer], kind: str, name: str) -> None:
    check(kinds[kind], TORTURE[name])


@pytest.mark.parametrize("kind", KINDS)
def test_every_single_byte_and_pair_of_edge_bytes_comes_back(kinds: dict[str, Tokenizer], kind: str) -> None:
    for byte in range(256):
        check(kinds[kind], bytes([byte]))
    edges = [0, 9, 10, 13, 32, 60, 65, 127, 128, 191, 192, 194, 195, 224, 237, 240, 244, 255]
    for first in edges:
        for second in edges:
            check(kinds[kind], bytes([first, second]))


@pytest.mark.parametrize("kind", KINDS)
def test_random_bytes_come_back(kinds: dict[str, Tokenizer], kind: str, rng: np.random.Generator) -> None:
    for size in [3, 4, 5, 8, 20, 100, 1000, 20_000]:
        check(kinds[kind], rng.bytes(size))
    pieces = [*TORTURE.values()]
    for _ in range(20):
        check(kinds[kind], b"".join(pieces[n] for n in rng.integers(0, len(pieces), 6)))


@pytest.mark.parametrize(
    "data",
    [
        b"x" * 1_000_000,
        ("ab" * 7 + "é").encode() * 60_000,
        b"\xff" * 300_000,
        b" " * 300_000,
        b"\n" * 300_000,
        b"word " * 60_000,
    ],
    ids=["a letter", "letters", "bad bytes", "blanks", "line feeds", "words"],
)
@pytest.mark.parametrize("kind", ["plain", "all", "embedded"])
def test_long_texts_come_back(kinds: dict[str, Tokenizer], kind: str, data: bytes) -> None:
    check(kinds[kind], data)


@pytest.mark.parametrize("place", range(-4, 5))
def test_characters_where_pieces_are_cut_come_back(kinds: dict[str, Tokenizer], place: int) -> None:
    # A text is cut into pieces; nothing may happen to what lies across a cut.
    for filler in (b"x", b"ab ", b"a\n"):
        size = (1 << 15) + place
        head = (filler * size)[:size]
        for middle in ("€é👍".encode(), b"\r\n", b"  ", b"\xff\xfe", b"<|endoftext|>"):
            check(kinds["all"], head + middle + head)


def test_texts_are_tokenised_and_not_spelled(kinds: dict[str, Tokenizer]) -> None:
    text = ("The wind came over the hills, and the day was cold and bright in April. " * 40).encode()
    for kind in [kind for kind in KINDS if not kinds[kind].table.lacking]:  # those here know no capitals
        # What loses a single blank is spelled byte by byte.
        assert (len(check(kinds[kind], text)) < 0.7 * len(text)) == (kind != "blanks dropped"), kind
    assert len(check(kinds["embedded"], text)) < 0.3 * len(text)


def test_a_bad_byte_costs_only_its_surroundings(kinds: dict[str, Tokenizer]) -> None:
    text = b"the wind came over the hills and the day was cold and bright " * 20
    clean = len(check(kinds["embedded"], text))
    assert len(check(kinds["embedded"], text[:600] + b"\xff" + text[600:])) <= clean + 12


def test_special_strings_are_plain_text(kinds: dict[str, Tokenizer]) -> None:
    tokenizer = kinds["special"]
    for text in SPECIAL:
        ids = check(tokenizer, text.encode())
        assert b"".join(tokenizer.table.entries[i] for i in ids) == text.encode()
        assert tokenizer.table.entries[SPECIAL.index(text)] == b""
        assert SPECIAL.index(text) not in ids


# -- the table ---------------------------------------------------------------------------------------------------------


def test_byte_alphabet_is_that_of_byte_level_tokenizers() -> None:
    alphabet = byte_alphabet()
    assert sorted(alphabet) == sorted(pre_tokenizers.ByteLevel.alphabet())
    assert sorted(alphabet.values()) == list(range(256))
    splitter = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for character in ("a", " ", "\n", "é", "€", "\0", "👍"):
        ((written, _),) = splitter.pre_tokenize_str(character)
        assert bytes(alphabet[part] for part in written) == character.encode()


def test_digest_is_that_of_the_format() -> None:
    table = [b"a", b"", b"\xff\0", b"longer"]
    whole = [*table, *(bytes([byte]) for byte in range(256) if byte != ord("a"))]  # 255 byte tokens after its own
    blob = b"llmzip tokens 259\n" + b"".join(len(entry).to_bytes(4, "little") + entry for entry in whole)
    assert TokenTable(table).digest() == hashlib.sha256(blob).digest()


def test_tables_that_join_to_the_same_bytes_have_other_digests() -> None:
    digests = {TokenTable(table).digest() for table in ([b"ab", b"c"], [b"a", b"bc"], [b"ab", b"c", b""], [b"abc"])}
    assert len(digests) == 4


def test_embedded_tokenizer_is_the_one_of_the_format() -> None:
    assert embedded().table.digest() == DEFAULT.tokenizer_digest


def test_single_bytes_are_the_lowest_ids() -> None:
    table = [b"ab"] + [bytes([byte]) for byte in range(256)] + [b"a", b"\0"]
    assert TokenTable(table).single_bytes().tolist() == list(range(1, 257))


@pytest.mark.parametrize(
    ("lacking", "text"),
    [
        ([], ""),
        ([255], "no token for 1 byte (ff): coded as byte tokens"),
        ([0, 1], "no token for 2 bytes (00 01): coded as byte tokens"),
        ([4, 19, 20, *range(0xF5, 0x100)], "no token for 14 bytes (04 13 14 f5-ff): coded as byte tokens"),
    ],
    ids=["none", "one", "two", "ranges"],
)  # fmt: skip
def test_bytes_without_a_token_get_byte_tokens(lacking: list[int], text: str) -> None:
    table = [b"", *(bytes([byte]) for byte in range(255, -1, -1) if byte not in lacking), b"ab"]
    tokens = TokenTable(table)
    assert tokens.lacking == bytes(lacking) and tokens.num_byte_tokens == len(lacking)
    assert tokens.entries == [*table, *(bytes([byte]) for byte in lacking)]
    assert tokens.vocab_size == len(tokens.entries)
    assert lacking_text(tokens.lacking) == text
    everything = bytes(range(256)) + b"ab"
    ids = tokens.encode_bytes(everything)
    assert len(ids) == tokens.num_bytes(ids) == len(everything) and tokens.decode(ids) == everything
    assert ids[lacking].tolist() == list(range(len(table), tokens.vocab_size))
    assert sorted(set(range(tokens.vocab_size)) - set(ids.tolist())) == [0, len(table) - 1]


@pytest.mark.parametrize("table", [[], [b""], [b""] * 400])
def test_tables_that_stand_for_nothing_are_refused(table: list[bytes]) -> None:
    with pytest.raises(TokenizerError, match="no token that stands for text"):
        TokenTable(table)


def test_byte_tokens_that_have_no_room_are_refused() -> None:
    table = [b"a", *[b""] * (MAX_VOCAB - 256)]
    assert TokenTable(table).vocab_size == MAX_VOCAB
    with pytest.raises(TokenizerError, match=r"no token for 255 of the 256 bytes, and there is no room .* 300,000"):
        TokenTable([*table, b""])


def test_byte_tokens_are_used_for_their_bytes_and_for_nothing_else(
    make_tokenizer: Callable[..., Path], tmp_path: Path
) -> None:
    tokenizer = Tokenizer(make_tokenizer(tmp_path, vocab_size=VOCABULARY, lacking=LACKING), VOCABULARY)
    assert tokenizer.table.lacking == LACKING and tokenizer.table.vocab_size == VOCABULARY + len(LACKING)
    for name, data in TORTURE.items():
        ids = check(tokenizer, data)
        found = [tokenizer.table.entries[i] for i in ids[ids >= VOCABULARY]]
        assert found == [bytes([byte]) for byte in data if byte in LACKING], name
    text = b"the wind and the wind"
    plain = check(tokenizer, text).tolist()
    assert len(plain) < 12 and max(plain) < VOCABULARY
    for byte in b"\x04\xc0":  # what is around them is left to the library
        ids = check(tokenizer, text + bytes([byte]) + text).tolist()
        assert ids == [*plain, VOCABULARY + LACKING.index(byte), *plain]


def test_sentencepiece_tokens_are_used(kinds: dict[str, Tokenizer]) -> None:
    text = b"the wind and the wind\n\n<td> and"
    for name in SENTENCEPIECE:
        tokenizer = kinds[name]
        ids = check(tokenizer, text)
        assert len(ids) < len(text) / 2, name
        assert {tokenizer.table.entries[i] for i in ids} >= {b" the", b"\n\n", b"<td>"}


@pytest.mark.parametrize("kind", SENTENCEPIECE)
def test_odd_characters_cost_only_their_neighbourhood(kinds: dict[str, Tokenizer], kind: str) -> None:
    tokenizer = kinds[kind]
    text = b"the wind and " * 1000
    plain = len(check(tokenizer, text))
    for odd in ("\u2581", "\u212b", "\u4e00", "<s>", "\xff".encode("latin-1").decode("latin-1")):
        changed = text[:6500] + odd.encode() + text[6500:]
        assert len(check(tokenizer, changed)) < plain + 40


# -- what is refused ---------------------------------------------------------------------------------------------------


def described(folder: Path, change: Callable[[dict[str, Any]], object], make: Callable[..., Path]) -> Path:
    """A tokenizer folder with a change in its description."""
    make(folder, vocab_size=VOCABULARY)
    path = folder / "tokenizer.json"
    description = json.loads(path.read_text(encoding="utf-8"))
    change(description)
    path.write_text(json.dumps(description), encoding="utf-8")
    return folder


def all_special(description: dict[str, Any]) -> None:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    vocab = description["model"]["vocab"]
    description["added_tokens"] = [flags | {"content": text, "id": i, "special": True} for text, i in vocab.items()]


def word_level(description: dict[str, Any]) -> None:
    description["model"] = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}


def metaspace(description: dict[str, Any]) -> None:
    description["pre_tokenizer"] = description["decoder"] = {
        "type": "Metaspace",
        "replacement": "_",
        "prepend_scheme": "always",
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (all_special, "no token that stands for text"),
        (word_level, "tokenizer is of kind WordLevel"),
        (metaspace, "tokenizer is of kind BPE"),
        (lambda description: description["model"].update(vocab=[["a", 0.1]]), "outside the model's vocabulary"),
        (lambda description: description["model"].update(vocab=[["a"]]), "in an unknown form"),
        (lambda description: description.pop("model"), "describes no tokenizer"),
        (lambda description: description["model"]["vocab"].update(extra=VOCABULARY), f"token {VOCABULARY} is outside"),
        (lambda description: description["model"]["vocab"].update(extra=-1), "token -1 is outside"),
        (lambda description: description["model"]["vocab"].update(extra="7"), "token 7 is outside"),
        (lambda description: description["model"].update(merges=[["never", "seen"]]), "cannot be loaded"),
        (lambda description: description.update(pre_tokenizer={"type": "ByteLevel"}), "cannot be loaded"),
    ],
    ids=[
        "nothing to say",
        "words",
        "metaspace",
        "unigram",
        "pairs",
        "nothing",
        "above",
        "below",
        "text id",
        "merges",
        "fields",
    ],
)
def test_unfit_tokenizers_are_refused_with_the_reason(
    change: Callable[[dict[str, Any]], object], words: str, make_tokenizer: Callable[..., Path], tmp_path: Path
) -> None:
    folder = described(tmp_path / "t", change, make_tokenizer)
    with pytest.raises(TokenizerError, match=words) as caught:
        Tokenizer(folder, VOCABULARY)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[]", b"null", b'"text"', b'{"model": []}', b'{"model": {"type": "BPE", "vocab": {}}}'],
)
def test_broken_descriptions_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(TokenizerError, match="tokenizer"):
        Tokenizer(tmp_path, VOCABULARY)


@pytest.mark.parametrize("added", [[{"id": 3}], [3], ["text"], {"content": "a"}, 7, [None], [{"content": []}]], ids=str)
def test_broken_added_tokens_are_refused_or_passed_over(
    added: object, make_tokenizer: Callable[..., Path], tmp_path: Path
) -> None:
    folder = described(tmp_path / "t", lambda description: description.update(added_tokens=added), make_tokenizer)
    try:
        tokenizer = Tokenizer(folder, VOCABULARY)
    except TokenizerError as error:
        assert str(folder) in str(error)
    else:
        check(tokenizer, TORTURE["special strings"])


def test_a_missing_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"no tokenizer\.json in this folder"):
        Tokenizer(tmp_path, VOCABULARY)


def test_ids_beyond_the_tokenizer_stand_for_nothing(make_tokenizer: Callable[..., Path], tmp_path: Path) -> None:
    tokenizer = Tokenizer(make_tokenizer(tmp_path, vocab_size=300), 1024)
    assert tokenizer.table.vocab_size == 1024
    assert tokenizer.table.entries[300:] == [b""] * 724
    check(tokenizer, TORTURE["every byte"])


def test_equal_texts_give_equal_ids_even_where_merges_are_dropped(
    make_tokenizer: Callable[..., Path], tmp_path: Path
) -> None:
    folder = described(tmp_path / "t", lambda description: description["model"].update(dropout=0.5), make_tokenizer)
    tokenizer = Tokenizer(folder, VOCABULARY)
    text = b"the wind came over the hills and the tokenizer learns from these lines " * 5
    assert len({check(tokenizer, text).tobytes() for _ in range(10)}) == 1


def test_gpt2s_two_files_with_its_special_token(tmp_path: Path) -> None:
    vocab = {character: n for n, character in enumerate(byte_alphabet())} | {"<|endoftext|>": 256}
    (tmp_path / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    (tmp_path / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    tokenizer = Tokenizer(tmp_path, 257)
    assert tokenizer.table.entries[256] == b""
    check(tokenizer, b"a <|endoftext|> b")


# -- odd descriptions that are right -----------------------------------------------------------------------------------


def test_a_model_without_a_type_is_guessed(make_tokenizer: Callable[..., Path], tmp_path: Path) -> None:
    # So are the tokenizers of GPT-2 on the Hub.
    tokenizer = Tokenizer(
        described(tmp_path / "t", lambda found: found["model"].pop("type"), make_tokenizer), VOCABULARY
    )
    assert len(check(tokenizer, b"the wind and the wind")) < 12
    unigram = sentencepiece("Unigram", True)
    del unigram["model"]["type"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(unigram), encoding="utf-8")
    assert len(check(Tokenizer(tmp_path, 800), b"the wind and the wind")) < 12


def test_added_tokens_behind_special_ones_keep_their_ids(make_tokenizer: Callable[..., Path], tmp_path: Path) -> None:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    texts = [("<|end|>", True), ("<|start|>", True), ("<tool_call>", False), ("</tool_call>", False)]
    first = VOCABULARY
    added = [flags | {"content": text, "id": first + n, "special": special} for n, (text, special) in enumerate(texts)]
    folder = described(tmp_path / "t", lambda found: found.update(added_tokens=added), make_tokenizer)
    ids = check(Tokenizer(folder, first + 9), b"<tool_call>the wind</tool_call><|end|>").tolist()
    assert ids[0] == first + 2 and first + 3 in ids and first not in ids


@pytest.mark.parametrize("byte_fallback", [True, False])
def test_a_unigram_without_an_unknown_token(byte_fallback: bool, tmp_path: Path) -> None:
    made = sentencepiece("Unigram", byte_fallback)
    del made["model"]["unk_id"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(made), encoding="utf-8")
    tokenizer = Tokenizer(tmp_path, 800)
    check(tokenizer, "the wind \u4e16\u754c Z\u00df and the wind".encode() * 9)
    assert len(check(tokenizer, b"the wind and the wind")) < 12


def test_a_bpe_whose_unknown_token_is_not_there(tmp_path: Path) -> None:
    made = sentencepiece("BPE", False)
    made["model"]["unk_token"] = "<nowhere>"
    (tmp_path / "tokenizer.json").write_text(json.dumps(made), encoding="utf-8")
    check(Tokenizer(tmp_path, 800), "the wind \u4e16\u754c Z".encode() * 9)


@pytest.mark.parametrize("mark", ["continuing_subword_prefix", "end_of_word_suffix"])
def test_marks_of_words_are_refused(mark: str, make_tokenizer: Callable[..., Path], tmp_path: Path) -> None:
    """The first may end the library's process; the second would be taken for text, so that nothing fits."""
    folder = described(tmp_path / "t", lambda found: found["model"].update({mark: "##"}), make_tokenizer)
    with pytest.raises(TokenizerError, match=mark):
        Tokenizer(folder, VOCABULARY)


LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
SPLITS = {
    "digits": (pre_tokenizers.Digits(individual_digits=True), b"in 1984", {4, 5, 6}),
    "split": (pre_tokenizers.Split(Regex(LLAMA3), "isolated"), b"the 1234567", {4, 7, 10}),
    "removed": (pre_tokenizers.Split(Regex(LLAMA3), "removed", invert=True), b"the 1234567", {4, 7, 10}),
    "punctuation": (pre_tokenizers.Punctuation(behavior="isolated"), b"    # four", {4, 5}),
}
"""A step, a text, and offsets in it where tokens must end."""


@pytest.mark.parametrize("name", SPLITS)
def test_texts_are_split_before_the_merges(name: str, make_tokenizer: Callable[..., Path], tmp_path: Path) -> None:
    step, text, ends = SPLITS[name]
    tokenizer = Tokenizer(make_tokenizer(tmp_path, vocab_size=400, before=step), 400)
    for data in TORTURE.values():
        check(tokenizer, data)
    assert ends <= set(np.cumsum([len(tokenizer.table.entries[i]) for i in check(tokenizer, text)]).tolist())
    words = b"The ferry was late again, and the wind came over the harbour wall in long, even gusts. "
    assert len(check(tokenizer, words)) < len(words) / 2  # not spelled


def test_bytes_may_be_written_as_characters_by_the_normalizer(
    make_tokenizer: Callable[..., Path], tmp_path: Path
) -> None:
    def change(description: dict[str, Any]) -> None:
        description["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "ByteLevel"}]}
        pattern = {"Regex": r"\u0120?\p{L}+|\p{N}+"}
        description["pre_tokenizer"] = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}

    tokenizer = Tokenizer(described(tmp_path / "t", change, make_tokenizer), VOCABULARY)
    for data in TORTURE.values():
        check(tokenizer, data)
    assert len(check(tokenizer, b"the wind and the wind")) < 12


@pytest.mark.parametrize("scheme", ["first", "never", "always"])
@pytest.mark.parametrize("split", [True, False])
def test_no_blank_is_put_before_a_text(scheme: str, split: bool, tmp_path: Path) -> None:
    step = METASPACE | {"prepend_scheme": scheme, "split": split}
    made = sentencepiece("BPE", True, normalizer=None, pre_tokenizer=step)
    (tmp_path / "tokenizer.json").write_text(json.dumps(made), encoding="utf-8")
    tokenizer = Tokenizer(tmp_path, 800)
    entries = [tokenizer.table.entries[i] for i in check(tokenizer, b"the wind")]
    assert entries == [b"the", b" w", b"i", b"n", b"d"]
    for data in TORTURE.values():
        check(tokenizer, data)


def test_byte_tokens_without_merges_for_whole_words(tmp_path: Path) -> None:
    made = sentencepiece("BPE", True)
    made["model"] |= {"ignore_merges": True}
    (tmp_path / "tokenizer.json").write_text(json.dumps(made), encoding="utf-8")
    tokenizer = Tokenizer(tmp_path, 800)
    for data in TORTURE.values():
        check(tokenizer, data)
    assert len(check(tokenizer, "the wind 世".encode())) < 12


@pytest.mark.parametrize("in_vocabulary", [True, False])
def test_special_tokens_beyond_the_models_rows_stand_for_nothing(
    in_vocabulary: bool, make_tokenizer: Callable[..., Path], tmp_path: Path
) -> None:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)

    def change(description: dict[str, Any]) -> None:
        first = len(description["model"]["vocab"])
        names = [("<pad>", first + 3, True), ("<tool>", first + 4, False)]
        description["added_tokens"] = [
            flags | {"content": text, "id": i, "special": special} for text, i, special in names
        ]
        if in_vocabulary:
            description["model"]["vocab"]["<pad>"] = first + 3

    folder = described(tmp_path / "t", change, make_tokenizer)
    tokenizer = Tokenizer(folder, VOCABULARY)
    check(tokenizer, b"<pad> the wind <tool>" + TORTURE["every byte"])
    assert tokenizer.table.vocab_size == VOCABULARY


def test_a_unigrams_special_token_beyond_the_models_rows_stands_for_nothing(tmp_path: Path) -> None:
    description = sentencepiece("Unigram", True)
    vocab = description["model"]["vocab"]
    vocab_size = len(vocab)
    vocab.append(["<pad>", 0.0])  # a list has room for it, unlike a model's embedding
    description["added_tokens"].append(dict(description["added_tokens"][0], content="<pad>", id=vocab_size))
    (tmp_path / "tokenizer.json").write_text(json.dumps(description), encoding="utf-8")
    check(Tokenizer(tmp_path, vocab_size), b"the wind <pad> over the hill")


@pytest.mark.parametrize("name", ["tekken.json", "tiktoken.model", "tokenizer.model"])
def test_other_files_of_tokenizers_are_named(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(ModelNotFoundError, match=f"no tokenizer.json in this folder; it has {name}: transformers"):
        Tokenizer(tmp_path, VOCABULARY)


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.json"])
def test_deep_nesting_is_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / "merges.txt").write_text("", encoding="utf-8")
    (tmp_path / name).write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(TokenizerError, match="cannot be read"):
        Tokenizer(tmp_path, VOCABULARY)
