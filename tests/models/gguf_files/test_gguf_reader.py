"""Headers of GGUF files: what is damaged or not supported gets one line, and costs neither memory nor a traceback."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest

from llmzip.cli.main import main
from llmzip.errors import LLMZipError, ModelNotFoundError, ModelUnsupportedError
from llmzip.models.gguf.reader import open_gguf, part_files
from llmzip.models.tokenizer import Tokenizer
from llmzip.models.weights import load_model

U32, STRING, ARRAY = 4, 8, 9


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def field(name: str, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def tensor(name: str, *sizes: int, kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, offset)


def header(*parts: bytes, tensors: int = 0, fields: int = 0, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, fields) + b"".join(parts)


def one_tensor(*sizes: int, kind: int = 0, offset: int = 0, data: int = 4096) -> bytes:
    start = header(tensor("t", *sizes, kind=kind, offset=offset), tensors=1)
    return start + bytes(-len(start) % 32 + data)


def layers_of_the_same_bytes() -> bytes:
    start = header(*[tensor(f"t{n}", 32, 32) for n in range(300)], tensors=300)
    return start + bytes(-len(start) % 32 + 4096)


DAMAGED = {
    "a text": (b"Call me Ishmael. Some years ago", "it is not a GGUF file"),
    "nothing but its name": (b"GGUF", "its header is cut off"),
    "version 1": (header(version=1), "GGUF version 1 is not supported, only 2 and 3"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian byte order"),
    "billions of tensors": (header(tensors=1 << 40), "1,099,511,627,776 tensors"),
    "billions of fields": (header(fields=(1 << 64) - 1), "18,446,744,073,709,551,615 fields"),
    "a long name": (header(struct.pack("<Q", 1 << 62), fields=1), "damaged: a field's name of"),
    "a name beyond the end": (header(struct.pack("<Q", 5000), b"abc", fields=1), "its header is cut off"),
    "a long string": (header(field("a", STRING, struct.pack("<Q", 1 << 40)), fields=1), "the field a of 1,099,"),
    "an array beyond the end": (
        header(field("a", ARRAY, struct.pack("<IQ", U32, 1 << 61)), fields=1),
        "its header is cut off",
    ),
    "strings beyond the end": (
        header(field("a", ARRAY, struct.pack("<IQQ", STRING, 3, 1 << 63)), fields=1),
        "its header is cut off",
    ),
    "billions of strings": (header(field("a", ARRAY, struct.pack("<IQ", STRING, 1 << 50)), fields=1), "strings"),
    "arrays of arrays": (header(field("a", ARRAY, struct.pack("<IQ", ARRAY, 1)), fields=1), "an array of the kind 9"),
    "an unknown kind": (header(field("a", 99, b""), fields=1), "the field a is of the unknown kind 99"),
    "a field twice": (header(*[field("a", U32, bytes(4))] * 2, fields=2), "the field a appears twice"),
    "no dimensions": (header(tensor("t"), tensors=1), "tensor t has 0 dimensions"),
    "many dimensions": (header(text("t") + struct.pack("<I", 1 << 31), tensors=1), "dimensions"),
    "an empty dimension": (one_tensor(0, 4), r"tensor t has the dimensions \(0, 4\)"),
    "an absurd dimension": (one_tensor(1 << 63), "tensor t has the dimensions"),
    "overflowing dimensions": (one_tensor(1 << 31, 1 << 31, 1 << 31, 4), "tensor t reaches beyond the end"),
    "too much": (one_tensor(1024, 2), "tensor t reaches beyond the end of the file"),
    "an offset beyond the end": (one_tensor(4, offset=1 << 63), "tensor t reaches beyond the end"),
    "an odd offset": (one_tensor(4, offset=4), "tensor t reaches beyond the end"),
    "tensors of the same bytes": (layers_of_the_same_bytes(), "damaged: tensor t1 overlaps others"),
    "an unknown quantisation": (one_tensor(32, kind=77), "tensor t has the quantisation 77, which is not supported"),
    "integers": (one_tensor(32, kind=26), "tensor t has the quantisation I32, which is not supported"),
    "part of a block": (one_tensor(48, kind=8), "tensor t of quantisation Q8_0 has rows of 48 values"),
    "a tensor twice": (
        header(*[tensor("t", 4)] * 2, tensors=2) + bytes(256),
        "tensor t appears twice",
    ),
    "no alignment": (
        header(field("general.alignment", U32, bytes(4)), fields=1),
        "general.alignment is out of range",
    ),
    "nothing": (b"", "it is empty: the download is incomplete"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "a pointer of git-lfs"),
    "a page": (b"<!doctype html>\n<html>", "it is a web page"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_told_in_one_line_and_takes_no_memory(name: str, tmp_path: Path) -> None:
    content, message = DAMAGED[name]
    (tmp_path / "model.gguf").write_bytes(content)
    open_any(tmp_path)  # modules are loaded before memory is counted
    tracemalloc.start()
    try:
        with pytest.raises(ModelUnsupportedError, match=message) as caught:
            open_gguf(tmp_path / "model.gguf")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)


def open_any(folder: Path) -> None:
    (folder / "any.gguf").write_bytes(one_tensor(4))
    assert open_gguf(folder / "any.gguf").tensors["t"].shape == (4,)


def test_what_is_right_is_read(tmp_path: Path) -> None:
    fields = [
        field("a", U32, struct.pack("<I", 7)),
        field("b", STRING, text("Größe")),
        field("c", ARRAY, struct.pack("<IQ", STRING, 2) + text("x") + text("")),
        field("d", ARRAY, struct.pack("<IQhh", 3, 2, -1, 1)),
        field("e", 7, b"\1"),
    ]
    start = header(*fields, tensor("t", 4, 2), tensors=1, fields=5)
    values = np.arange(8, dtype="<f4").tobytes()
    (tmp_path / "model.gguf").write_bytes(start + bytes(-len(start) % 32) + values)
    file = open_gguf(tmp_path / "model.gguf")
    assert (file.metadata["a"], file.metadata["b"], file.metadata["e"]) == (7, "Größe", True)
    assert (file.metadata["c"].values(), file.metadata["d"].values()) == (["x", ""], [-1, 1])
    assert file.tensors["t"].shape == (2, 4)
    assert file.tensors["t"].values().tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert file.quantisations() == {"F32": 1}
    assert open_gguf(tmp_path / "model.gguf") is file


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(header(field("a", U32, struct.pack("<I", 7)), fields=1))
    assert open_gguf(path).metadata == {"a": 7}
    path.write_bytes(header(field("a", U32, struct.pack("<I", 8)), field("b", U32, bytes(4)), fields=2))
    assert open_gguf(path).metadata == {"a": 8, "b": 0}


# -- parts -----------------------------------------------------------------------------------------------------------


def test_a_split_file_is_the_model_of_the_whole(checkpoint: Path, tmp_path: Path, to_gguf: Callable[..., Path]) -> None:
    whole = to_gguf(tmp_path / "whole.gguf", checkpoint)
    (tmp_path / "split").mkdir()
    first = to_gguf(tmp_path / "split" / "model.gguf", checkpoint, split=8)
    assert first.name == "model-00001-of-00003.gguf"
    assert [path.name[-14:-5] for path in part_files(first)] == ["-of-00003"] * 3
    assert load_model(first).digest() == load_model(whole).digest()
    tables = [Tokenizer(path, 320).table.digest() for path in (first, whole)]
    assert tables[0] == tables[1]
    second = first.with_name("model-00002-of-00003.gguf")
    with pytest.raises(ModelUnsupportedError, match="it is part 2 of 3: name the first part, model-00001-of-00003"):
        open_gguf(second)
    third = first.with_name("model-00003-of-00003.gguf")
    content = third.read_bytes()
    third.write_bytes(content[:-1])
    with pytest.raises(ModelUnsupportedError, match=r"^model-00003-of-00003.gguf: tensor .* reaches beyond the end"):
        open_gguf(first)
    third.write_bytes(second.read_bytes())
    with pytest.raises(ModelUnsupportedError, match=r"^model-00003-of-00003.gguf: it is one of 3 parts"):
        open_gguf(first)
    third.unlink()
    with pytest.raises(ModelNotFoundError, match=r"its part model-00003-of-00003.gguf is missing"):
        open_gguf(first)
    renamed = first.rename(tmp_path / "renamed.gguf")
    with pytest.raises(ModelUnsupportedError, match="it is one of 3 parts, unlike what its name says"):
        open_gguf(renamed)


# -- chance ----------------------------------------------------------------------------------------------------------


def test_random_damage_is_an_error_of_ours_or_another_model(
    checkpoint: Path, tmp_path: Path, to_gguf: Callable[..., Path], rng: np.random.Generator, effort: int
) -> None:
    content = to_gguf(tmp_path / "model.gguf", checkpoint, gguf.GGMLQuantizationType.Q4_0).read_bytes()
    place = content.index(b"token_embd.weight")
    outcomes = set()
    for number in range(150 * effort):
        damaged = bytearray(content)
        for _ in range(int(rng.integers(1, 4))):
            # Mostly the header, whose end is behind the names of the tensors.
            where = int(rng.integers(0, place + 3000 if number % 4 else len(content)))
            damaged[where] = int(rng.integers(0, 256))
        if number % 10 == 9:
            del damaged[int(rng.integers(0, len(content))) :]
        path = tmp_path / "damaged.gguf"
        path.write_bytes(damaged)
        try:
            model = load_model(path)
            Tokenizer(path, model.config.vocab_size)
            outcomes.add("another model")
        except LLMZipError as error:
            assert "\n" not in str(error)
            outcomes.add("refused")
        assert main(["models", "info", "--json", str(path)]) in (0, 3)
    assert outcomes == {"another model", "refused"}
