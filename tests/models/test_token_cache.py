"""Checks that large tokenizers are kept, told apart and never trusted, and that reduced ones give the same ids."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from llmzip.errors import TokenizerError
from llmzip.models import token_cache, tokenizer_library
from llmzip.models.tokenizer import Tokenizer

TEXT = (
    "The ferry was late again, and the wind came over the harbour wall at 17:45.\n\n\tfor (int i = 0; i < 10; ++i)\n"
    "Ça où 東京 – naïve café 😀 \u2581 <0x0A> <|endoftext|> snow snow snow.\r\n   "
)
KINDS = ("byte-level", "sentencepiece", "unigram")


def description(kind: str) -> dict[str, Any]:
    """A tokenizer of a kind, trained on a text, with added tokens of which some are in the vocabulary."""
    words = (TEXT * 3).splitlines()
    if kind == "unigram":
        tokenizer = FastTokenizer(models.Unigram())
        tokenizer.train_from_iterator(
            [word.replace(" ", "\u2581") for word in words],
            trainers.UnigramTrainer(vocab_size=200, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False),
        )
        found = json.loads(tokenizer.to_str())
        taken = {text for text, _ in found["model"]["vocab"]}
        missing = (f"<0x{byte:02X}>" for byte in range(256))
        found["model"]["vocab"] += [[text, -20.0] for text in missing if text not in taken]
        return found
    byte_level = kind == "byte-level"
    tokenizer = FastTokenizer(models.BPE(unk_token=None if byte_level else "<unk>", byte_fallback=not byte_level))
    alphabet = pre_tokenizers.ByteLevel.alphabet() if byte_level else []
    special = [] if byte_level else ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    if byte_level:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
    else:
        tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    trainer = trainers.BpeTrainer(
        vocab_size=420, initial_alphabet=alphabet, special_tokens=special, show_progress=False, min_frequency=1
    )
    tokenizer.train_from_iterator(words, trainer)
    found = json.loads(tokenizer.to_str())
    found["added_tokens"] = []
    size = len(found["model"]["vocab"])
    found["model"]["vocab"]["\n\n"] = size
    for content, i in (("\n\n", size), ("++i", size + 1), ("never", size + 2), ("snow snow", size + 4)):
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
        found["added_tokens"].append({"id": i, "content": content, **flags})
    return found


VOCAB_SIZE = 1000


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of kept tokenizers, with every one large enough for it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(token_cache, "_MIN_KEPT_TOKENS", 0)
    return tmp_path / "cache" / "llmzip" / "models"


def folder(tmp_path: Path, kind: str = "byte-level") -> Path:
    path = tmp_path / kind
    path.mkdir()
    (path / "tokenizer.json").write_text(json.dumps(description(kind)), encoding="utf-8")
    return path


def the_file(cache: Path) -> Path:
    (path,) = cache.iterdir()
    return path


def no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes loading a whole tokenizer fail."""
    monkeypatch.setattr(tokenizer_library, "_whole", lambda *arguments: pytest.fail("the whole library was loaded"))
    monkeypatch.setattr(tokenizer_library.TokenizerFile, "read", lambda folder: pytest.fail("a file was parsed"))


def samples() -> list[bytes]:
    """Texts and what is not one, of all lengths."""
    chance = random.Random(5)
    data = TEXT.encode() + bytes(range(256)) + "Ünknöwn 猫 \U0001f40e".encode()
    pieces = [data[: chance.randrange(len(data))][chance.randrange(len(data)) :] for _ in range(40)]
    return [b"", b" ", b"\n\n", data, *(piece for piece in pieces if piece)]


@pytest.mark.parametrize("kind", ["byte-level", "sentencepiece"])
def test_reduced_tokenizers_give_the_same_ids(
    cache: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder(tmp_path, kind)
    whole = Tokenizer(path, VOCAB_SIZE)
    expected = [whole.encode(data) for data in samples()]
    ids = set(np.concatenate(expected).tolist())
    added = {entry["content"]: entry["id"] for entry in description(kind)["added_tokens"]}
    assert added["++i"] in ids and added["snow snow"] in ids and added["\n\n"] in ids
    no_library(monkeypatch)
    monkeypatch.setattr(tokenizer_library, "_MAX_REDUCED_TEXTS", 1000)
    kept = Tokenizer(path, VOCAB_SIZE)
    assert kept.table.entries == whole.table.entries and kept.table.digest() == whole.table.digest()
    for data, right in zip(samples(), expected, strict=True):
        np.testing.assert_array_equal(kept.encode(data), right)


def test_other_kinds_are_kept_for_decoding(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder(tmp_path, "unigram")
    whole = Tokenizer(path, VOCAB_SIZE)
    assert the_file(cache).suffix == ".tokens"
    kept = Tokenizer(path, VOCAB_SIZE)
    for data in samples():
        np.testing.assert_array_equal(kept.encode(data), whole.encode(data))
    no_library(monkeypatch)
    assert Tokenizer(path, VOCAB_SIZE).table.digest() == whole.table.digest()


def test_tokens_that_are_no_part_of_the_text_are_not_reduced(cache: Path, tmp_path: Path) -> None:
    found = description("sentencepiece")
    found["normalizer"] = None
    found["pre_tokenizer"] = {"type": "Metaspace", "replacement": "_", "prepend_scheme": "never", "split": False}
    (path := tmp_path / "m").mkdir()
    (path / "tokenizer.json").write_text(json.dumps(found), encoding="utf-8")
    whole, kept = (Tokenizer(path, VOCAB_SIZE) for _ in range(2))
    for data in samples():
        np.testing.assert_array_equal(kept.encode(data), whole.encode(data))
    read = token_cache.read(path, VOCAB_SIZE)
    assert read is not None and not read.can_reduce


def test_gaps_between_ids_do_not_move_added_tokens(cache: Path, tmp_path: Path) -> None:
    found = description("sentencepiece")
    vocab = found["model"]["vocab"]
    found["model"]["vocab"] = {text: i if i < 300 else i + 100 for text, i in vocab.items()}
    ids = {"  ": 900, "   ": 901, "++i": 902}
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    found["added_tokens"] = [{"id": i, "content": content, **plain} for content, i in ids.items()]
    (path := tmp_path / "m").mkdir()
    (path / "tokenizer.json").write_text(json.dumps(found), encoding="utf-8")
    whole, kept = (Tokenizer(path, VOCAB_SIZE) for _ in range(2))
    text = b"the  ferry   ++i snow"
    assert set(ids.values()) <= set(whole.encode(text).tolist())
    for data in (text, *samples()):
        np.testing.assert_array_equal(kept.encode(data), whole.encode(data))


def bytes_that_merge(found: dict[str, Any]) -> None:
    found["model"]["vocab"]["<0xC3><0x9C>"] = VOCAB_SIZE - 1
    found["model"]["merges"].append(["<0xC3>", "<0x9C>"])


def unknown_that_merges(found: dict[str, Any]) -> None:
    found["model"]["byte_fallback"] = False
    found["model"]["vocab"]["<unk>s"] = VOCAB_SIZE - 1
    found["model"]["merges"].insert(0, ["<unk>", "s"])


def two_of_one_id(found: dict[str, Any]) -> None:
    found["model"]["vocab"]["Q"] = found["model"]["vocab"][found["model"]["merges"][0][0]]


@pytest.mark.parametrize("change", [bytes_that_merge, unknown_that_merges, two_of_one_id])
def test_merges_of_what_the_text_does_not_contain_are_not_reduced(
    cache: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    found = description("sentencepiece")
    change(found)
    (path := tmp_path / "m").mkdir()
    (path / "tokenizer.json").write_text(json.dumps(found), encoding="utf-8")
    whole, kept = (Tokenizer(path, VOCAB_SIZE) for _ in range(2))
    for data in ("Ünk snow".encode(), "Xs 猫s snow".encode(), *samples()):
        np.testing.assert_array_equal(kept.encode(data), whole.encode(data))
    read = token_cache.read(path, VOCAB_SIZE)
    assert read is not None and not read.can_reduce


def test_long_and_many_texts_load_the_whole_library(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder(tmp_path)
    Tokenizer(path, VOCAB_SIZE)
    loaded: list[int] = []
    load = tokenizer_library._whole
    monkeypatch.setattr(tokenizer_library, "_whole", lambda *a: (loaded.append(1), load(*a))[1])
    long, many = Tokenizer(path, VOCAB_SIZE), Tokenizer(path, VOCAB_SIZE)
    long.encode(b"snow " * 3000)
    assert len(loaded) == 1
    for _ in range(20):
        many.encode(b"snow")
    assert len(loaded) == 2


def test_decoding_with_a_kept_tokenizer_imports_no_library(cache: Path, tmp_path: Path) -> None:
    path = folder(tmp_path)
    ids = Tokenizer(path, VOCAB_SIZE).encode(TEXT.encode())
    code = (
        "import sys, numpy as np\nfrom pathlib import Path\nfrom llmzip.models import tokenizer_file\n"
        "from llmzip.models.tokenizer import Tokenizer\n"
        "tokenizer_file.json = None  # nothing can be parsed\n"
        f"table = Tokenizer(Path({str(path)!r}), {VOCAB_SIZE}).table\n"
        f"sys.stdout.buffer.write(table.decode(np.array({ids.tolist()})))\n"
        "assert 'tokenizers' not in sys.modules\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=environment)
    assert done.stdout == TEXT.encode()


def test_changed_files_are_parsed_anew(cache: Path, tmp_path: Path) -> None:
    path = folder(tmp_path)
    Tokenizer(path, VOCAB_SIZE)
    changed = description("byte-level")
    del changed["added_tokens"][1]
    (path / "tokenizer.json").write_text(json.dumps(changed), encoding="utf-8")
    tokenizer = Tokenizer(path, VOCAB_SIZE)
    assert b"++i" not in tokenizer.table.entries
    the_file(cache)  # what was kept before is removed
    Tokenizer(path, VOCAB_SIZE + 1)
    assert len(list(cache.iterdir())) == 2


def test_a_file_that_took_the_place_of_another_is_told_apart(cache: Path, tmp_path: Path) -> None:
    path = folder(tmp_path)
    Tokenizer(path, VOCAB_SIZE)
    old, status = path / "tokenizer.json", (path / "tokenizer.json").stat()
    new = old.read_bytes().replace(b'"never"', b'"again"')
    old.unlink()
    old.write_bytes(new)  # of the same size and, as unpacked from some archives, of the same time
    os.utime(old, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert old.stat().st_size == status.st_size and old.stat().st_mtime_ns == status.st_mtime_ns
    assert b"again" in Tokenizer(path, VOCAB_SIZE).table.entries


def test_a_tokenizer_that_is_replaced_while_it_is_in_use_is_refused(cache: Path, tmp_path: Path) -> None:
    path = folder(tmp_path)
    whole = Tokenizer(path, VOCAB_SIZE)
    touched, replaced = (Tokenizer(path, VOCAB_SIZE) for _ in range(2))
    os.utime(path / "tokenizer.json", (1, 1))
    long = b"snow " * 3000
    np.testing.assert_array_equal(touched.encode(long), whole.encode(long))
    changed = description("byte-level")
    changed["model"]["vocab"] |= {"zzz": 997}
    (path / "tokenizer.json").write_text(json.dumps(changed), encoding="utf-8")
    with pytest.raises(TokenizerError, match="was replaced by another one while it was in use"):
        replaced.encode(long)


@pytest.mark.parametrize("where", [0.0, 0.001, 0.3, 0.6, 0.999])
def test_damage_is_found(cache: Path, tmp_path: Path, where: float) -> None:
    path = folder(tmp_path)
    digest = Tokenizer(path, VOCAB_SIZE).table.digest()
    right = the_file(cache).read_bytes()
    data = bytearray(right)
    data[int(where * len(data))] ^= 0x55
    for damaged in (bytes(data), right[: int(where * len(right))], b"", b"\xff" * 100):
        the_file(cache).write_bytes(damaged)
        assert token_cache.read(path, VOCAB_SIZE) is None
        assert Tokenizer(path, VOCAB_SIZE).table.digest() == digest
        assert the_file(cache).read_bytes() == right  # kept again


HOSTILE: dict[str, dict[str, Any]] = {
    "a length beyond the end": {"entry_lengths": lambda a: np.full_like(a, 2**32 - 1)},
    "fewer tokens": {"entry_lengths": lambda a: a[:-1]},
    "no tokens": {"entry_lengths": lambda a: a[:0], "entry_bytes": lambda a: a[:0]},
    "texts beyond the end": {"text_lengths": lambda a: a + 1},
    "an id outside": {"text_ids": lambda a: a + VOCAB_SIZE},
    "a negative id": {"text_ids": lambda a: -1 - a},
    "a merge outside": {"merges": lambda a: a + 10_000},
    "a negative merge": {"merges": lambda a: -1 - a},
    "merges of two": {"merges": lambda a: a[:, :2].copy()},
    "flat merges": {"merges": lambda a: a[:, 0].copy()},
    "an outside place": {"always": lambda a: np.array([1 << 30], dtype=a.dtype)},
    "another type": {"text_ids": lambda a: a.astype(np.int64)},
    "a list": {"description": lambda a: np.frombuffer(b"[]", dtype=np.uint8)},
    "no JSON": {"description": lambda a: np.frombuffer(b"{", dtype=np.uint8)},
    "deep JSON": {"description": lambda a: np.frombuffer(b"[" * 100_000, dtype=np.uint8)},
    "a model that is none": {"description": lambda a: np.frombuffer(b'{"model":3,"added_tokens":[]}', dtype=np.uint8)},
    "odd added tokens": {"description": lambda a: np.frombuffer(b'{"model":{},"added_tokens":[3]}', dtype=np.uint8)},
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_with_the_right_digest_is_refused(cache: Path, tmp_path: Path, kind: str) -> None:
    path = folder(tmp_path)
    digest = Tokenizer(path, VOCAB_SIZE).table.digest()
    right = the_file(cache).read_bytes()
    arrays = load_file(the_file(cache))
    arrays.pop("digest")
    for name, change in HOSTILE[kind].items():
        arrays[name] = np.ascontiguousarray(change(arrays[name]))
    arrays["digest"] = np.frombuffer(token_cache._digest(arrays), dtype=np.uint8)
    save_file(arrays, the_file(cache))
    assert token_cache.read(path, VOCAB_SIZE) is None
    assert Tokenizer(path, VOCAB_SIZE).table.digest() == digest and the_file(cache).read_bytes() == right


def test_a_description_that_the_library_refuses_is_not_fatal(cache: Path, tmp_path: Path) -> None:
    path = folder(tmp_path)
    whole = Tokenizer(path, VOCAB_SIZE)
    arrays = load_file(the_file(cache))
    arrays.pop("digest")
    odd = json.loads(arrays["description"].tobytes()) | {"pre_tokenizer": {"type": "ByteLevel", "use_regex": 7}}
    arrays["description"] = np.frombuffer(json.dumps(odd).encode(), dtype=np.uint8)
    arrays["digest"] = np.frombuffer(token_cache._digest(arrays), dtype=np.uint8)
    save_file(arrays, the_file(cache))
    np.testing.assert_array_equal(Tokenizer(path, VOCAB_SIZE).encode(b"the snow"), whole.encode(b"the snow"))


def test_a_tokenizer_that_the_library_refuses_is_not_kept(cache: Path, tmp_path: Path) -> None:
    path = folder(tmp_path)
    odd = description("byte-level") | {"pre_tokenizer": {"type": "ByteLevel", "use_regex": 7}}
    (path / "tokenizer.json").write_text(json.dumps(odd), encoding="utf-8")
    for _ in range(2):
        with pytest.raises(TokenizerError, match="cannot be loaded"):
            Tokenizer(path, VOCAB_SIZE)
    assert not cache.exists()


def test_small_tokenizers_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Tokenizer(folder(tmp_path), VOCAB_SIZE)
    assert not (tmp_path / "cache").exists()


def test_without_a_place_for_it_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(token_cache, "_MIN_KEPT_TOKENS", 0)
    path = folder(tmp_path)
    assert Tokenizer(path, VOCAB_SIZE).table.digest() == Tokenizer(path, VOCAB_SIZE).table.digest()
