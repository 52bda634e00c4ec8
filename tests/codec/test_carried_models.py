"""Checks files that carry their model: they decode without it anywhere else, and hostile ones do no harm."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_samples import LACKING, sentences

import llmzip
from llmzip.cli.main import main
from llmzip.codec.writer import ArchiveWriter
from llmzip.errors import CorruptError, LLMZipError, ModelNotFoundError, ModelUnsupportedError, SettingsError
from llmzip.format.headers import CarriedModel
from llmzip.format.lzma2 import lzma_filters
from llmzip.format.reading import read_archives
from llmzip.format.writing import pack_carried
from llmzip.inference import load
from llmzip.models import carried, weightfile
from llmzip.models.token_table import TokenTable
from llmzip.models.weights import load_model
from llmzip.settings import CompressSettings

TEXT = sentences(1500, 8)
VECTOR = Path(__file__).parents[1] / "contract" / "vectors" / "good-carried-model.llmz"
pytestmark = pytest.mark.usefixtures("only_models")


@pytest.fixture
def checkpoint(
    make_tokenizer: Callable[..., Path], random_checkpoint: Callable[..., Any], write_checkpoint: Callable[..., Path],
    tmp_path: Path,
) -> Path:  # fmt: skip
    """A small Llama with a byte-level tokenizer."""
    config, tensors = random_checkpoint(vocab_size=320)
    return write_checkpoint(make_tokenizer(tmp_path / "my llama"), config, tensors)


@pytest.fixture(autouse=True)
def _nothing_in_memory() -> Iterator[None]:
    load.forget()
    yield
    load.forget()


def model_of(data: bytes) -> CarriedModel:
    """The model that a file carries."""
    found = next(frame.archive.carried for frame in read_archives(io.BytesIO(data)) if frame.archive.carried)
    assert found is not None
    return found


def gone(folder: Path) -> None:
    load.forget()
    shutil.rmtree(folder)


# -- decoding --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("is_checkpoint", "settings"),
    [
        (True, {"level": 6}),
        (True, {"context": 31}),
        (True, {"rows": 3}),
        (False, {"level": 1}),
        (False, {"level": 6}),
        (False, {"window_bits": 128}),
        (False, {"window_bits": 128, "model_reset": False}),
    ],
)
def test_archives_decode_when_the_folder_is_gone(
    checkpoint: Path, lacking_model: Path, tmp_path: Path, is_checkpoint: bool, settings: dict[str, Any]
) -> None:
    folder = checkpoint if is_checkpoint else shutil.copytree(lacking_model, tmp_path / "m")
    text = TEXT + LACKING
    writer = ArchiveWriter(CompressSettings(model=folder, with_model=True, **settings))
    data = writer.write(text) + writer.finish()
    assert writer.report.compressed_bytes == len(data)
    plain = ArchiveWriter(CompressSettings(model=folder, **settings))
    archive = plain.write(text) + plain.finish()
    assert data == pack_carried(model_of(data)) + archive  # the archive itself is the same
    gone(folder)
    assert llmzip.decompress(data) == text
    load.forget()
    assert llmzip.open(io.BytesIO(data)).read() == text
    with pytest.raises(ModelNotFoundError):
        llmzip.decompress(archive)


def test_bytes_may_come_one_by_one_and_through_pipes(checkpoint: Path) -> None:
    data = llmzip.compress(TEXT, model=checkpoint, with_model=True)
    gone(checkpoint)
    decompressor = llmzip.Decompressor()
    out = b"".join(decompressor.decompress(data[at : at + 997]) for at in range(0, len(data), 997))
    assert out == TEXT and decompressor.eof

    class Pipe(io.RawIOBase):
        source = io.BytesIO(data)

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            piece = self.source.read(min(len(buffer), 333))
            buffer[: len(piece)] = piece
            return len(piece)

    assert llmzip.info(Pipe()).archives[0].carries_model
    Pipe.source.seek(0)
    assert llmzip.open(Pipe()).read() == TEXT


def test_embedded_models_are_carried_and_named_by_their_digests(tmp_path: Path) -> None:
    data = llmzip.compress(TEXT, model="bytes", level=1, with_model=True)
    entry = llmzip.info(data).archives[0]
    assert (entry.model_code, entry.model, entry.carries_model) == (15, "bytes", True)
    assert llmzip.decompress(data) == TEXT
    model, table = carried.unpack(model_of(data))
    assert model.digest().startswith(bytes.fromhex(entry.model_digest or ""))
    assert table.vocab_size == 256


def test_no_model_is_carried_that_no_frame_needs(checkpoint: Path) -> None:
    noise = os.urandom(500)
    assert llmzip.compress(noise, model=checkpoint, with_model=True) == llmzip.compress(noise)
    assert llmzip.compress(b"", model=checkpoint, with_model=True) == llmzip.compress(b"")


def test_a_carried_model_comes_before_any_other(checkpoint: Path, tmp_path: Path) -> None:
    data = llmzip.compress(TEXT, model=checkpoint, with_model=True)
    gone(checkpoint)
    for name in (tmp_path / "nothing", tmp_path, "org/name"):
        assert llmzip.decompress(data, model=name) == TEXT


def test_what_cannot_be_combined_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--with-model cannot be combined with a prompt"):
        llmzip.compress(TEXT, model=checkpoint, with_model=True, prompt=b"before")
    with pytest.raises(SettingsError, match="--with-model cannot be combined with the float engine"):
        llmzip.compress(TEXT, model=checkpoint, with_model=True, arithmetic="float")
    with pytest.raises(TypeError, match="with_model must be bool"):
        llmzip.compress(TEXT, with_model=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="with_model is for writing"):
        llmzip.open(VECTOR, with_model=True)


# -- files of several archives ---------------------------------------------------------------------------------------


def test_a_file_carries_its_model_once(checkpoint: Path, tmp_path: Path, capfdbinary: Any) -> None:
    parts = [TEXT[:400], os.urandom(50), TEXT[400:]]
    for number, part in enumerate(parts):
        (tmp_path / str(number)).write_bytes(part)
    names = [str(tmp_path / str(number)) for number in range(3)]
    assert main(["-c", "--with-model", "-m", str(checkpoint), *names]) == 0
    data = capfdbinary.readouterr().out
    unit = pack_carried(model_of(data))
    assert data.count(unit[:36]) == 1 and data.startswith(unit)
    gone(checkpoint)
    assert llmzip.decompress(data) == b"".join(parts)
    # Archives may be joined in any order as long as the model comes first.
    path = tmp_path / "joined.llmz"
    path.write_bytes(data + data[len(unit) :])
    assert main(["-dc", str(path)]) == 0
    assert capfdbinary.readouterr().out == b"".join(parts) * 2
    assert main(["cat", "--range", "390:410", str(path)]) == 0
    assert capfdbinary.readouterr().out == b"".join(parts)[390:410]
    path.write_bytes(data[len(unit) :] + data)
    assert main(["-t", str(path)]) == 3
    assert b"which is not in" in capfdbinary.readouterr().err


def test_separate_outputs_carry_it_each(checkpoint: Path, tmp_path: Path) -> None:
    names = [str(tmp_path / name) for name in "ab"]
    for name in names:
        Path(name).write_bytes(TEXT)
    assert main(["--with-model", "-m", str(checkpoint), *names]) == 0
    gone(checkpoint)
    for name in names:
        assert llmzip.decompress(Path(f"{name}.llmz").read_bytes()) == TEXT
    assert main(["-t", *(f"{name}.llmz" for name in names)]) == 0


def test_appending_writes_it_once(checkpoint: Path, lacking_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "log.llmz"
    sizes = []
    for model in (checkpoint, checkpoint, lacking_model, checkpoint):
        with llmzip.open(path, "ab", model=model, with_model=True) as file:
            file.write(TEXT)
        sizes.append(path.stat().st_size)
    unit = pack_carried(model_of(path.read_bytes()))
    assert sizes[1] - sizes[0] == sizes[0] - len(unit) < len(unit)
    assert sizes[3] - sizes[2] == sizes[0]  # it is out of scope after another model
    gone(checkpoint)
    assert llmzip.decompress(path.read_bytes()) == TEXT * 4
    assert [entry.carries_model for entry in llmzip.info(path).archives] == [True] * 4


def test_ranges_are_found_by_the_index(checkpoint: Path, tmp_path: Path, capfdbinary: Any) -> None:
    path = tmp_path / "frames.llmz"
    with llmzip.open(path, "wb", model=checkpoint, with_model=True, level=1) as file:
        for at in range(0, 1500, 500):
            file.write(TEXT[at : at + 500])
            file.flush()
    gone(checkpoint)
    from llmzip.format.index import read_index

    with path.open("rb") as source:
        index = read_index(source)
        assert index is not None and len(index) >= 3 and index.header.carried is not None
    assert main(["cat", "--range", "600:900", str(path)]) == 0
    assert capfdbinary.readouterr().out == TEXT[600:900]


def test_listing_shows_it(checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.llmz"
    path.write_bytes(llmzip.compress(TEXT, model=checkpoint, with_model=True))
    gone(checkpoint)
    assert main(["-l", str(path)]) == 0
    entry = llmzip.info(path).archives[0]
    assert f"model my llama, digest {entry.model_digest}: in the archive\n" in capfd.readouterr().out
    assert main(["-l", "--json", str(path)]) == 0
    listed = json.loads(capfd.readouterr().out)["archives"][0]
    assert listed["carries_model"] is True and listed["model_folder"] is None


def test_decoding_writes_nothing(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.llmz"
    path.write_bytes(llmzip.compress(TEXT, model=checkpoint, with_model=True))
    gone(checkpoint)
    root = str(Path(llmzip.__file__).parents[1])
    home = tmp_path / "home"
    home.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "llmzip", "-dc", str(path)],
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])), "HOME": str(home)}
        | {"XDG_CACHE_HOME": str(home / "cache"), "XDG_DATA_HOME": str(home / "data"), "TMPDIR": str(home)},
        capture_output=True, check=False, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, TEXT), done.stderr
    # What the self-test of the processor keeps is all there is.
    assert {file.parent.name for file in home.rglob("*") if file.is_file()} <= {"selftest"}


# -- hostile files ---------------------------------------------------------------------------------------------------


@pytest.fixture
def parts() -> tuple[CarriedModel, bytes]:
    """A carried model of 5 KB, and an archive of its."""
    data = VECTOR.read_bytes()
    model = model_of(data)
    return model, data[len(pack_carried(model)) :]


def test_every_truncation_and_every_changed_byte_is_noticed(parts: tuple[CarriedModel, bytes], effort: int) -> None:
    data, text = VECTOR.read_bytes(), VECTOR.with_suffix(".txt").read_bytes()
    step = 1 if effort > 1 else 7
    whole = {len(data)}
    unit = len(pack_carried(parts[0]))
    for size in {*range(0, 80), *range(80, unit, step), unit}:
        with pytest.raises(CorruptError):
            llmzip.decompress(data[:size])
    assert llmzip.decompress(data) == text and whole
    for at in {*range(0, 80), *range(80, unit, step), *range(unit - 8, unit + 8)}:
        damaged = bytearray(data)
        damaged[at] ^= 1 << at % 8
        with pytest.raises(LLMZipError):
            llmzip.decompress(bytes(damaged))


def test_damage_behind_right_checksums_is_noticed(
    parts: tuple[CarriedModel, bytes], rng: np.random.Generator, effort: int
) -> None:
    model, archive = parts
    for _ in range(60 * effort):
        for field in ("weights", "table"):
            content = bytearray(getattr(model, field))
            for _ in range(int(rng.integers(1, 4))):
                content[int(rng.integers(len(content)))] = int(rng.integers(256))
            if field == "weights":  # its own checksum
                content[-4:] = zlib.crc32(content[:-4]).to_bytes(4, "little")
            if bytes(content) == getattr(model, field):
                continue
            data = pack_carried(dataclasses.replace(model, **{field: bytes(content)})) + archive
            # LZMA's padding apart, nothing else than the model itself has its digests.
            try:
                assert llmzip.decompress(data) == VECTOR.with_suffix(".txt").read_bytes()
            except CorruptError as error:
                assert "carried model" in str(error)


@pytest.mark.parametrize("header", [
    {"tensors": [["embedding_q", "int8", [1 << 20, 1 << 20]]]},
    {"tensors": [["embedding_q", "int8", [0, 1 << 30]]]},
    {"tensors": [[f"{n}", "int8", [(1 << 31) - 1]] for n in range(1000)]},
    {"tensors": [["embedding_q", "int8", [40_000]]]},
    {"tensors": [], "config": {}},
    {"tensors": [], "config": {"vocab_size": 1 << 40}},
    {"numerics": 7, "tensors": []},
    {},
])  # fmt: skip
def test_claims_take_no_memory(header: dict[str, Any], parts: tuple[CarriedModel, bytes]) -> None:
    model, archive = parts
    text = json.dumps({"numerics": 1, "config": {}} | header).encode()
    body = weightfile.MAGIC + b"\x01" + len(text).to_bytes(4, "little") + text + b"\x01\x00" + bytes(2000)
    weights = body + zlib.crc32(body).to_bytes(4, "little")
    data = pack_carried(dataclasses.replace(model, weights=weights)) + archive
    tracemalloc.start()
    try:
        with pytest.raises(CorruptError, match="carried model"):
            llmzip.decompress(data)
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("sizes", [(0xFFFFFFFF, 1, 1), (1 << 31, 1, 1), (1, 1 << 26, 1), (1, (1 << 26) + 1, 1),
                                   (1, 1, 0), (1, 1, (1 << 26) + 1)])  # fmt: skip
@pytest.mark.parametrize("reader", ["decompress", "info", "Decompressor"])
def test_sizes_that_are_not_there_take_no_memory(
    sizes: tuple[int, int, int], reader: str, parts: tuple[CarriedModel, bytes]
) -> None:
    fields = pack_carried(parts[0])[:36] + b"".join(size.to_bytes(4, "little") for size in sizes)
    data = fields + zlib.crc32(fields).to_bytes(4, "little") + bytes(500)
    tracemalloc.start()
    try:
        if reader == "Decompressor":
            decompressor = llmzip.Decompressor()
            try:
                assert decompressor.decompress(data) == b"" and not decompressor.eof
            except CorruptError as error:
                assert "limit" in str(error)
        else:
            with pytest.raises(CorruptError, match=r"limit|truncated"):
                getattr(llmzip, reader)(data)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_tables_that_expand_are_refused(parts: tuple[CarriedModel, bytes]) -> None:
    import lzma

    model, archive = parts
    for size in (1 << 26, 1000):
        text = bytes(1 << 24)
        table = lzma.compress(text, lzma.FORMAT_RAW, filters=lzma_filters(size))
        data = pack_carried(dataclasses.replace(model, table=table, table_bytes=size)) + archive
        with pytest.raises(CorruptError, match="carried model is damaged: its table of tokens"):
            llmzip.decompress(data)


def test_models_that_readers_would_refuse_are_not_written(checkpoint: Path) -> None:
    model = load_model(checkpoint)
    tensors = {name: np.zeros_like(np.asarray(tensor)) for name, tensor in model.tensors().items()}
    same = dataclasses.replace(model, layers=model.layers)
    object.__setattr__(same, "tensors", lambda: {n: np.zeros((4000, 40), t.dtype) for n, t in tensors.items()})
    with pytest.raises(ModelUnsupportedError, match="nearly all"):
        carried.pack(same, TokenTable([bytes([byte]) for byte in range(256)]))
