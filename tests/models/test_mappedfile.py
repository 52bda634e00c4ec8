"""Checks version 2 of the weight file: what goes in comes out, mapped and aligned, and no damage gets through."""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmzip.errors import ModelUnsupportedError
from llmzip.models import mappedfile, weightfile
from llmzip.models.convert import convert
from llmzip.models.embedded import EMBEDDED
from llmzip.models.int8form import describe_int8, load_int8, save_int8
from llmzip.models.layout import INT8
from llmzip.models.mappedfile import BOTH, ROWS, TILES
from llmzip.models.matrix import Int8Matrix, to_tiles
from llmzip.models.model import ExactModel
from llmzip.models.weights import load_model

CONFIG = {"layers": 2, "theta": 10000.5}
DIGEST = bytes(range(32))
Make = Callable[..., tuple[dict[str, Any], dict[str, Any]]]

# -- the document, word for word ---------------------------------------------------------------------------------------


def slow_read(data: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The header, and name -> array, by docs/weights.md alone and value by value."""
    length = int.from_bytes(data[4:8], "little")
    assert data[:4] == b"\xf7LW\x02" and int.from_bytes(data[8:12], "little") == zlib.crc32(data[12 : 12 + length])
    header, at, tensors = json.loads(data[12 : 12 + length]), 12 + length, {}
    for name, kind, shape, layout in header["tensors"]:
        found = []
        for part in layout.split(" and "):
            while at % 64:
                assert data[at] == 0
                at += 1
            size = math.prod(shape) * {"int8": 1, "float32": 4}[kind]
            raw, at = data[at : at + size], at + size
            if part == "tiles":
                n_k = ((n, k) for n in range(shape[0]) for k in range(shape[1]))
                raw = bytes(raw[n // 16 * 16 * shape[1] + k // 4 * 64 + n % 16 * 4 + k % 4] for n, k in n_k)
            found.append(raw)
        assert all(raw == found[0] for raw in found)
        tensors[name] = np.frombuffer(found[0], {"int8": "<i1", "float32": "<f4"}[kind]).reshape(shape)
    assert at == len(data)
    return header, tensors


def file_of(
    tensors: Any = (("a", "int8", (3,), "rows"),),
    arrays: bytes = b"abc",
    header: bytes | None = None,
    version: int = 2,
    **fields: Any,
) -> bytes:
    """A file with a right crc32 and otherwise whatever is asked for."""
    described = {"config": {}, "numerics": 1, "digest": DIGEST.hex(), "tensors": tensors} | fields
    text = json.dumps(described).encode() if header is None else header
    out = b"\xf7LW" + bytes([version]) + len(text).to_bytes(4, "little") + zlib.crc32(text).to_bytes(4, "little") + text
    return out + bytes(-len(out) % 64) + arrays


def written(path: Path, tensors: dict[str, Any], layouts: dict[str, str], digest: bytes = DIGEST) -> bytes:
    """Writes a file, and returns its bytes."""
    with path.open("wb") as file:
        mappedfile.write(file, CONFIG, 1, digest, tensors, layouts)
    return path.read_bytes()


def same(found: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Whether all names, shapes, types and bits agree; NaNs are compared by their bits."""
    pairs = [(np.asarray(found[name]), np.asarray(array)) for name, array in expected.items() if name in found]
    return found.keys() == expected.keys() and all(
        (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes()) for a, b in pairs
    )


# -- round trips -------------------------------------------------------------------------------------------------------


@st.composite
def tensors_and_layouts(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, str]]:
    """Arrays and matrices of any shape and bits, the matrices of whole tiles in any layout."""
    tensors: dict[str, Any] = {}
    layouts: dict[str, str] = {}
    for name in draw(st.lists(st.text(max_size=6), max_size=4, unique=True)):
        random = np.random.default_rng(draw(st.integers(0, 1 << 32)))
        how = draw(st.sampled_from(["float32", "int8", "matrix", "tiled"]))
        if how == "float32":
            shape = tuple(draw(st.lists(st.integers(0, 6), max_size=4)))
            tensors[name] = np.frombuffer(random.bytes(4 * math.prod(shape)), "<f4").reshape(shape)
        elif how == "int8":
            tensors[name] = random.integers(-128, 128, draw(st.integers(0, 200))).astype(np.int8)
        else:
            sizes = (draw(st.integers(0, 40)), draw(st.integers(0, 90)))
            if how == "tiled":
                sizes = (16 * draw(st.integers(0, 3)), 64 * draw(st.integers(0, 3)))
                layouts[name] = draw(st.sampled_from([ROWS, TILES, BOTH]))
            rows = random.integers(-127, 128, sizes).astype(np.int8)
            by_tiles = how == "tiled" and draw(st.booleans())
            tensors[name] = Int8Matrix(tiles=to_tiles(rows)) if by_tiles else Int8Matrix(rows)
    return tensors, layouts


@given(given_tensors=tensors_and_layouts())
def test_what_goes_in_comes_out_and_the_slow_reader_agrees(
    given_tensors: tuple[dict[str, Any], dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    tensors, layouts = given_tensors
    path = tmp_path_factory.mktemp("files") / INT8
    data = written(path, tensors, layouts)
    header, found = mappedfile.read(path)
    described, slow = slow_read(data)
    assert header.config == described["config"] == CONFIG and header.numerics == described["numerics"] == 1
    assert header.digest == bytes.fromhex(described["digest"]) == DIGEST
    assert same(found, tensors) and same(slow, tensors)
    assert list(found) == sorted(tensors) and header.num_bytes == len(data)
    assert mappedfile.read_header(path) == header


def test_arrays_are_mapped_aligned_and_read_only(tmp_path: Path, rng: np.random.Generator) -> None:
    rows = rng.integers(-127, 128, (48, 128)).astype(np.int8)
    tensors = {"b": Int8Matrix(rows), "t": Int8Matrix(rows), "r": Int8Matrix(rows), "v": np.ones(5, np.float32)}
    written(tmp_path / INT8, tensors, {"b": BOTH, "t": TILES})
    _, found = mappedfile.read(tmp_path / INT8)
    matrices = [found[name] for name in "btr"]
    assert [repr(matrix) for matrix in matrices] == [
        f"Int8Matrix(48 x 128, {layout})" for layout in ("rows and tiles", "tiles", "rows")
    ]
    assert all(isinstance(matrix, Int8Matrix) for matrix in matrices)
    arrays = [found["b"].rows, found["b"].tiles, found["t"].tiles, found["r"].rows, found["v"]]
    for array in arrays:
        assert array.ctypes.data % 64 == 0 and not array.flags.writeable and array.flags.c_contiguous
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("this system does not list what is mapped")
    ranges = [line.split()[0].split("-") for line in maps.read_text().splitlines() if str(tmp_path) in line]
    for array in arrays:
        assert any(int(begin, 16) <= array.ctypes.data < int(end, 16) for begin, end in ranges)


def test_a_file_that_cannot_be_mapped_is_read(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any, **named: Any) -> None:
        raise OSError(19, "No such device")

    tensors = {"a": Int8Matrix(rng.integers(-9, 9, (16, 64)).astype(np.int8)), "b": np.ones(3, np.float32)}
    written(tmp_path / INT8, tensors, {"a": TILES})
    monkeypatch.setattr(mappedfile.mmap, "mmap", refuse)
    _, found = mappedfile.read(tmp_path / INT8)
    assert same(found, tensors)
    assert found["a"].tiles.ctypes.data % 64 == 0 and not found["b"].flags.writeable


GOLDEN = "689cf03dea363060bda3de096e14b47b5aad1eec557d4d85954996c09379122e"
"""SHA-256 of what `write` wrote when the format was settled. If it ever changes, the format needs a new version."""


def test_golden_file(tmp_path: Path) -> None:
    rows = ((7 * np.arange(32)[:, None] + 3 * np.arange(64)) % 255 - 127).astype(np.int8)
    tensors = {
        "m": Int8Matrix(rows),
        "a": np.array([1.0, -0.0, np.inf], dtype=np.float32),
        "e": Int8Matrix(rows[::-1]),
        "p": Int8Matrix(rows[:5]),
    }
    data = written(tmp_path / INT8, tensors, {"m": TILES, "e": BOTH})
    assert hashlib.sha256(data).hexdigest() == GOLDEN
    assert same(slow_read(data)[1], tensors) and same(mappedfile.read(tmp_path / INT8)[1], tensors)


# -- damage ------------------------------------------------------------------------------------------------------------


def refused(path: Path, data: bytes, read: Callable[[Path], object] = mappedfile.read) -> str:
    """What the error says; any other exception is a failure."""
    path.write_bytes(data)
    with pytest.raises(ModelUnsupportedError) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def traced() -> Iterator[None]:
    """Makes tracemalloc count what a test allocates."""
    tracemalloc.start()
    yield
    tracemalloc.stop()


WIDE = [("a", "int8", [16, 64], "rows and tiles")]
HOSTILE: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "not one of llmzip's"),
    "another format": (b"GGUF" + bytes(100), "not one of llmzip's"),
    "version 1": (file_of(version=1), "not of version 2"),
    "version 3": (file_of(version=3), "not of version 2"),
    "a prefix": (file_of()[:11], "truncated"),
    "a header that is too long": (b"\xf7LW\2\1\0\x10\0" + bytes(1 << 21), "header is too long"),
    "a header of 4 GiB": (b"\xf7LW\2\xff\xff\xff\xff" + bytes(100), "header is too long"),
    "a header behind the end": (b"\xf7LW\2\xff\xff\0\0" + bytes(100), "truncated"),
    "a header of nothing": (file_of(header=b""), "header is wrong"),
    "a header of lists": (file_of(header=b"[" * 100_000), "header is wrong"),
    "a header in Latin-1": (file_of(header=b'{"config":{"\xe9":1}}'), "header is wrong"),
    "a list for a header": (file_of(header=b"[]"), "header is wrong"),
    "no digest": (file_of(header=b'{"config":{},"numerics":1,"tensors":[]}'), "header is wrong"),
    "no tensors": (file_of(tensors=None), "header is wrong"),
    "a config of numbers": (file_of(config=3), "header is wrong"),
    "numerics of words": (file_of(numerics="one"), "header is wrong"),
    "numerics of infinity": (file_of(numerics=math.inf), "header is wrong"),
    "a digest of half the size": (file_of(digest="00" * 16), "not a SHA-256"),
    "a digest with blanks": (file_of(digest="00 " * 21 + "0"), "not a SHA-256"),
    "a digest of numbers": (file_of(digest=3), "not a SHA-256"),
    "tensors of numbers": (file_of(tensors=[1, 2]), "header is wrong"),
    "a tensor without a layout": (file_of(tensors=[("a", "int8", [3])]), "header is wrong"),
    "a tensor of int16": (file_of(tensors=[("a", "int16", [3], "rows")]), "not a tensor"),
    "a kind of lists": (file_of(tensors=[("a", [], [3], "rows")]), "header is wrong"),
    "a name of numbers": (file_of(tensors=[(3, "int8", [3], "rows")]), "not a tensor"),
    "two tensors of one name": (file_of(tensors=[("a", "int8", [1], "rows")] * 2), "two of it"),
    "columns for a layout": (file_of(tensors=[("a", "int8", [3], "columns")]), "layout"),
    "a layout of lists": (file_of(tensors=[("a", "int8", [3], ["rows"])]), "header is wrong|layout"),
    "a vector in tiles": (file_of(tensors=[("a", "int8", [1024], "tiles")]), "layout"),
    "floats in tiles": (file_of(tensors=[("a", "float32", [16, 64], "tiles")]), "layout"),
    "odd rows in tiles": (file_of(tensors=[("a", "int8", [17, 64], "tiles")]), "layout"),
    "odd columns in tiles": (file_of(tensors=[("a", "int8", [16, 68], "rows and tiles")]), "layout"),
    "a shape of words": (file_of(tensors=[("a", "int8", ["x"], "rows")]), "header is wrong"),
    "a shape of NaN": (file_of(tensors=[("a", "int8", [math.nan], "rows")]), "header is wrong"),
    "a shape of nothing": (file_of(tensors=[("a", "int8", None, "rows")]), "header is wrong"),
    "a negative size": (file_of(tensors=[("a", "int8", [-3], "rows")]), "-3 is not a size"),
    "two negative sizes": (file_of(tensors=[("a", "int8", [-1, -3], "rows")]), "-1 is not a size"),
    "a size of 100 digits": (file_of(tensors=[("a", "float32", [10**100], "rows")]), "is not a size"),
    "nine dimensions": (file_of(tensors=[("a", "int8", [1] * 9, "rows")]), "too many dimensions"),
    "two gigabytes": (file_of(tensors=[("a", "int8", [(1 << 31) - 1], "rows")]), "truncated"),
    "sizes that overflow": (file_of(tensors=[("a", "float32", [1 << 30, 1 << 30, 1 << 30], "rows")]), "truncated"),
    "many gigabytes": (file_of(tensors=[(str(n), "int8", [1 << 30], "rows") for n in range(2000)]), "truncated"),
    "huge sizes beside a zero": (file_of(tensors=[("a", "int8", [1 << 30] * 3 + [0], "rows")]), "left over"),
    "a value too many": (file_of(arrays=b"abcd"), "left over"),
    "a value too few": (file_of(arrays=b"ab"), "truncated"),
    "no arrays": (file_of(arrays=b""), "truncated"),
    "rows without tiles": (file_of(tensors=WIDE, arrays=bytes(1024)), "truncated"),
    "rows that differ from the tiles": (file_of(tensors=WIDE, arrays=bytes(2047) + b"\1"), "of a differ"),
    "bytes between the arrays": (
        file_of(tensors=[("a", "int8", [3], "rows"), ("b", "int8", [1], "rows")], arrays=b"abc\1" + bytes(60) + b"b"),
        "between its arrays",
    ),
}  # fmt: skip


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(name: str, tmp_path: Path) -> None:
    data, words = HOSTILE[name]
    tracemalloc.reset_peak()
    said = refused(tmp_path / INT8, data)
    assert any(part in said for part in words.split("|")), said
    assert tracemalloc.get_traced_memory()[1] < 8 << 20


@given(data=st.binary(max_size=300))
def test_random_headers_are_refused_or_read(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("files") / INT8
    path.write_bytes(file_of(header=data))
    with pytest.raises(ModelUnsupportedError):
        mappedfile.read(path)


# -- models ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def model(random_checkpoint: Make) -> ExactModel:
    """A model with a tied head, some of whose matrices are of whole tiles."""
    config, source = random_checkpoint(hidden_size=64, vocab_size=112, intermediate_size=64, tie_word_embeddings=True)
    del source["lm_head.weight"]
    return convert(config, source, 2, 50)


def test_every_changed_byte_and_every_truncation_is_refused(model: ExactModel, tmp_path: Path) -> None:
    save_int8(model, tmp_path)
    data = (tmp_path / INT8).read_bytes()
    places = {*range(1400), *range(len(data) - 300, len(data)), *range(0, len(data), 211)}
    for place in sorted(places):
        for flip in (1, 128):
            changed = data[:place] + bytes([data[place] ^ flip]) + data[place + 1 :]
            refused(tmp_path / "damaged.llmzw", changed, load_int8)
    for length in {*range(1400), *range(1400, len(data), 997), len(data) - 1}:
        refused(tmp_path / "damaged.llmzw", data[:length], load_int8)
    refused(tmp_path / "damaged.llmzw", data + b"\0", load_int8)


def test_tensors_that_no_digest_covers_are_refused(model: ExactModel, tmp_path: Path) -> None:
    tensors = model.tensors() | {"layers.0.hidden": np.ones(3, dtype=np.float32)}
    with (tmp_path / INT8).open("wb") as file:
        mappedfile.write(file, model.config.as_dict(), 1, model.digest(), tensors, {})
    with pytest.raises(ModelUnsupportedError, match=r"unknown tensor layers\.0\.hidden"):
        load_int8(tmp_path / INT8)


def test_a_wrong_digest_is_refused(model: ExactModel, tmp_path: Path) -> None:
    with (tmp_path / INT8).open("wb") as file:
        mappedfile.write(file, model.config.as_dict(), 1, DIGEST, model.tensors(), {})
    with pytest.raises(ModelUnsupportedError, match=r"model\.llmzw: damaged: the digest of its weights is wrong"):
        load_int8(tmp_path / INT8)


def test_a_tied_head_is_mapped_in_both_layouts(model: ExactModel, tmp_path: Path) -> None:
    save_int8(model, tmp_path)
    loaded = load_int8(tmp_path / INT8)
    assert loaded.is_tied and loaded.head_q is loaded.embedding_q and loaded.digest() == model.digest()
    assert repr(loaded.embedding_q) == "Int8Matrix(112 x 64, rows and tiles)"
    assert repr(loaded.layers[0].gate_up_q) == "Int8Matrix(128 x 64, tiles)"


def test_saving_over_a_mapped_file_leaves_the_loaded_model_as_it_was(model: ExactModel, tmp_path: Path) -> None:
    save_int8(model, tmp_path)
    loaded, digest = load_int8(tmp_path / INT8), model.digest()
    save_int8(loaded, tmp_path)
    save_int8(model.with_settings(1, 20, 3), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [INT8]
    fresh = ExactModel(**{name: getattr(loaded, name) for name in loaded.__dataclass_fields__})  # without its digest
    assert fresh.digest() == digest != load_int8(tmp_path / INT8).digest()


def test_version_1_is_still_read(model: ExactModel, tmp_path: Path) -> None:
    arrays = {name: np.asarray(tensor) for name, tensor in model.tensors().items()}
    (tmp_path / INT8).write_bytes(weightfile.pack(model.config.as_dict(), 1, arrays))
    loaded = load_model(tmp_path)
    assert loaded.digest() == model.digest() and loaded.is_tied
    facts = describe_int8(tmp_path / INT8)
    save_int8(model, tmp_path)
    assert describe_int8(tmp_path / INT8) == facts
    assert facts.num_values == sum(array.size for array in arrays.values())


# -- the models of the package -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("embedded", EMBEDDED, ids=lambda entry: entry.name)
def test_embedded_models_need_no_memory_of_their_own(embedded: Any) -> None:
    assert mappedfile.is_mapped_form(embedded.folder / INT8)
    model = load_model(embedded.folder)
    assert model.digest() == embedded.model_digest
    layouts = {repr(tensor).partition(", ")[2] for name, tensor in model.tensors().items() if name.endswith("_q")}
    assert layouts == {"tiles)", "rows and tiles)"}


def test_loading_the_embedded_models_imports_no_torch() -> None:
    code = (
        "import sys\n"
        "from llmzip.models.embedded import EMBEDDED\n"
        "from llmzip.models.weights import load_model\n"
        "from llmzip.models.conversion_cache import Conversion\n"
        "from llmzip.models.tokenizer import Tokenizer\n"
        "for entry in EMBEDDED:\n"
        "    model = load_model(entry.folder)\n"
        "    entry_digest = Tokenizer(entry.folder, model.config.vocab_size).table.digest()\n"
        "    assert (model.digest(), entry_digest) == (entry.model_digest, entry.tokenizer_digest)\n"
        "print(sorted({'torch', 'huggingface_hub', 'transformers', 'httpx'} & set(sys.modules)))\n"
    )
    root = str(Path(mappedfile.__file__).parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    result = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True, timeout=60,
        env=os.environ | {"PYTHONPATH": path},
    )  # fmt: skip
    assert result.stdout == "[]\n"
