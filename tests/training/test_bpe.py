"""Checks the tokenizers that are trained: no byte is lost, every run gives the same, and others can load them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmzip.errors import TokenizerError
from llmzip.models.tokenizer import Tokenizer
from llmzip.models.tokenizer_file import byte_alphabet
from llmzip.training import bpe

TEXT = """The ferry was late again, and the wind came over the harbour wall in long, even gusts.\n
Größe, Straße, Übermut: ça va très bien; où est l'été? 猫が好き。 cafe\u0301\n\n
    def add(a, b):\n        return a + b + 1234567890 + 2024\n\tx = {'key': [1, 22, 333]}\r\n"""
SAMPLES = [(TEXT * 3).encode(), b"the wind and the wall " * 20, b"\xff\xfe broken \xc3", b"", b"2024 1234567890\n" * 30]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer of 380 tokens."""
    folder = tmp_path_factory.mktemp("bpe")
    description, found = bpe.train(SAMPLES, 380)
    assert found == 380
    bpe.write(description, folder)
    return folder


def test_every_byte_is_a_token(trained: Path) -> None:
    tokenizer = Tokenizer(trained, 380)
    assert len(set(tokenizer.table.single_bytes().tolist())) == 256
    assert sorted(len(entry) for entry in tokenizer.table.entries)[255:257] == [1, 2]
    assert b"" not in tokenizer.table.entries


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_everything_comes_back(data: bytes, trained: Path) -> None:
    tokenizer = Tokenizer(trained, 380)
    assert tokenizer.table.decode(tokenizer.encode(data)) == data


def test_text_like_the_samples_takes_fewer_tokens(trained: Path) -> None:
    tokenizer = Tokenizer(trained, 380)
    ids = tokenizer.encode(TEXT.encode())
    assert tokenizer.table.decode(ids) == TEXT.encode() and len(ids) < 0.6 * len(TEXT.encode())


@pytest.mark.parametrize(
    ("samples", "tokens"),
    [([], 256), ([b""], 256), ([b"\xff\xfe"], 256), ([b"abc"], 256), ([b"abc", b"abc"], 258), ([TEXT.encode()], None)],
    ids=lambda value: str(value)[:30],
)
def test_few_samples_give_fewer_tokens_and_say_so(samples: list[bytes], tokens: int | None, tmp_path: Path) -> None:
    description, found = bpe.train(samples, 1000)
    assert found == len(json.loads(description)["model"]["vocab"])
    assert 257 < found < 1000 if tokens is None else found == tokens
    bpe.write(description, tmp_path)
    table = Tokenizer(tmp_path, found).table.entries
    assert len(table) == found and b"" not in table


def test_training_is_deterministic(trained: Path) -> None:
    first = bpe.train(SAMPLES, 380)
    assert all(bpe.train(iter(SAMPLES), 380) == first for _ in range(3))
    assert json.loads(first[0]) == json.loads((trained / "tokenizer.json").read_text(encoding="utf-8"))


def test_tokens_do_not_reach_across_what_is_kept_apart() -> None:
    """Digits go in groups of one or two; words have at most the blank before them; line ends stay together."""
    samples = [b"1234 2024 2024 the cat, the cat; a1a1 == != ==\n\n\n" * 50, b"x  y  z    w\r\n\r\n\r\n" * 50]
    description, found = bpe.train(samples, 600)
    alphabet = byte_alphabet()
    tokens = {bytes(alphabet[character] for character in token) for token in json.loads(description)["model"]["vocab"]}
    assert found < 600  # all pairs are used, so what is no token cannot be one
    assert {b"12", b"20", b" the", b" cat", b"==", b" ==", b"\n\n\n", b"\r\n\r\n\r\n"} <= tokens
    assert not {b" 2", b" 20", b"123", b"cat,", b"a1", b" the cat", b"\nx"} & tokens
    assert all(sum(48 <= byte < 58 for byte in token) <= 2 for token in tokens)
    assert all(token == token.rstrip() and b" " not in token.strip() for token in tokens if token.strip())


def test_files_are_compact_and_say_their_class(trained: Path) -> None:
    text = (trained / "tokenizer.json").read_text(encoding="utf-8")
    assert text.count("\n") == 1 and text.endswith("\n") and '": ' not in text
    config = json.loads((trained / "tokenizer_config.json").read_text(encoding="ascii"))
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"


def test_broken_descriptions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"tokenizer\.json cannot be read"):
        bpe.write("{", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["PreTrainedTokenizerFast", "AutoTokenizer"])
def test_transformers_reads_and_writes_the_same(kind: str, trained: Path) -> None:
    theirs = getattr(transformers, kind).from_pretrained(trained)
    ours = Tokenizer(trained, 380)
    assert len(theirs) == 380
    for text in (TEXT, "", " a  b ", "\x00\x01 ½ 😀", "x . y , z ' s"):
        ids = theirs(text)["input_ids"]
        assert ids == ours.encode(text.encode()).tolist()
        assert theirs.decode(ids) == text


def test_a_vocabulary_of_bytes(tmp_path: Path) -> None:
    description, found = bpe.train([TEXT.encode()], 256)
    bpe.write(description, tmp_path)
    assert found == 256
    assert Tokenizer(tmp_path, 256).encode(b"\x00tide\xff").tolist() == [
        int(Tokenizer(tmp_path, 256).table.single_bytes()[byte]) for byte in b"\x00tide\xff"
    ]
