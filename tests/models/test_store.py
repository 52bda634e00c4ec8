"""Checks that models are stored whole or not at all, found by their digests, and named where they are missing."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from model_samples import sentences

import llmzip
from llmzip.cli.main import main
from llmzip.codec.writer import ArchiveWriter
from llmzip.errors import LLMZipError, ModelMismatchError, ModelNotFoundError, ModelUnsupportedError, TokenizerError
from llmzip.inference.storing import store_model
from llmzip.models import int8form, layout, store
from llmzip.models.embedded import DEFAULT
from llmzip.models.reference import Kind, parse_model
from llmzip.settings import CompressSettings, SettingsError
from llmzip.system import folders

TEXT = sentences(1500, 8)
pytestmark = pytest.mark.usefixtures("only_models", "place")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that models are added to: empty, and so is the cache."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "data" / "llmzip" / "models"


@pytest.fixture
def checkpoint(
    make_tokenizer: Callable[..., Path],
    random_checkpoint: Callable[..., Any],
    write_checkpoint: Callable[..., Path],
    tmp_path: Path,
) -> Path:
    """A small Llama with a byte-level tokenizer."""
    config, tensors = random_checkpoint(vocab_size=320)
    return write_checkpoint(make_tokenizer(tmp_path / "my llama"), config, tensors)  # fmt: skip


def names(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir()) if place.exists() else []


def compressed(model: Path, context: int | None) -> bytes:
    writer = ArchiveWriter(CompressSettings(model=model, context=context))
    return writer.write(TEXT) + writer.finish()


def entry(archive: bytes) -> Any:
    return llmzip.info(archive).archives[0]


# -- archives --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("context", [None, 31, 64])
def test_a_stored_checkpoint_serves_every_context_when_the_folder_is_gone(
    checkpoint: Path, place: Path, context: int | None
) -> None:
    archive = compressed(checkpoint, context)
    assert entry(archive).model_folder is None
    model, is_new = store_model(checkpoint)
    assert is_new and model.is_converted and model.name == "my llama" and model.folder.parent == place
    shutil.rmtree(checkpoint)
    assert entry(archive).model_folder == str(model.folder)
    for _ in range(2):  # at first the digest with these settings is computed, then it is kept
        assert llmzip.decompress(archive) == TEXT
    kept = list((place.parents[2] / "cache" / "llmzip").glob("digests/*"))
    assert len(kept) == (0 if context is None else 1)


def test_archives_of_a_stored_model_are_those_of_its_folder(checkpoint: Path, place: Path) -> None:
    model, _ = store_model(checkpoint)
    archive = llmzip.compress(TEXT, model=checkpoint)
    assert entry(archive).model_digest == model.model_digest
    assert entry(archive).tokenizer_digest == model.tokenizer_digest
    for name in ("stored:my llama", f"stored:{model.model_digest[:6]}", model.folder):
        assert llmzip.decompress(llmzip.compress(TEXT, model=name), model=checkpoint) == TEXT
        assert llmzip.decompress(archive, model=name) == TEXT
    assert llmzip.compress(TEXT, model="stored:my llama") == archive


def test_folders_with_their_own_settings_are_stored_as_they_are(lacking_model: Path) -> None:
    archive = llmzip.compress(TEXT, model=lacking_model)
    model, _ = store_model(lacking_model)
    assert not model.is_converted
    assert llmzip.decompress(archive) == TEXT
    with pytest.raises(SettingsError, match="--context is for checkpoints"):
        compressed(model.folder, 64)


def test_equal_weights_with_two_tokenizers_are_two_models(lacking_model: Path, tmp_path: Path) -> None:
    small = DEFAULT.folder.with_name("small")
    other = shutil.copytree(lacking_model, tmp_path / "other")
    description = json.loads((small / "tokenizer.json").read_text(encoding="utf-8"))
    vocab = description["model"]["vocab"]
    last = max(vocab, key=vocab.__getitem__)
    vocab["qzqz"] = vocab.pop(last)
    description["model"]["merges"] = [merge for merge in description["model"]["merges"] if "".join(merge) != last]
    (other / "tokenizer.json").write_text(json.dumps(description), encoding="utf-8")
    archives = [llmzip.compress(TEXT, model=folder) for folder in (lacking_model, other)]
    stored = [store_model(folder)[0] for folder in (lacking_model, other)]
    assert stored[0].model_digest == stored[1].model_digest and stored[0].folder != stored[1].folder
    assert [llmzip.decompress(archive) for archive in archives] == [TEXT, TEXT]
    with pytest.raises(ModelNotFoundError, match="several stored models are meant; name a digest"):
        parse_model(f"stored:{stored[0].model_digest[:8]}")


def test_folders_of_the_path_come_first_and_may_be_those_of_llmzip_train(
    lacking_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = llmzip.compress(TEXT, model=lacking_model)
    own, _ = store_model(lacking_model)
    listed = shutil.copytree(lacking_model, tmp_path / "shared" / "any name")
    assert entry(archive).model_folder == str(own.folder)
    for path in (listed.parent, listed, f"/nowhere:{listed.parent}:"):
        monkeypatch.setenv("LLMZIP_MODEL_PATH", str(path))
        assert entry(archive).model_folder == str(listed)
        assert llmzip.decompress(archive) == TEXT
    elsewhere, is_new = store_model(lacking_model, tmp_path / "second")
    assert is_new and elsewhere.folder.parent == tmp_path / "second"
    monkeypatch.setenv("LLMZIP_MODEL_PATH", f"{tmp_path / 'second'}:{listed}")
    assert entry(archive).model_folder == str(elsewhere.folder)


def test_a_missing_model_is_named_with_its_digest_and_every_place(
    checkpoint: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    archive = tmp_path / "x.llmz"
    archive.write_bytes(llmzip.compress(TEXT, model=checkpoint))
    monkeypatch.setenv("LLMZIP_MODEL_PATH", "/srv/models:/opt/models")
    digest = entry(archive.read_bytes()).model_digest
    assert main(["-dc", str(archive)]) == 3
    assert capfd.readouterr().err == (
        f"llmzip: {archive}: needs model 'my llama' with digest {digest}, which is not in /srv/models "
        f"(LLMZIP_MODEL_PATH), /opt/models (LLMZIP_MODEL_PATH) or {place}: `llmzip models add DIR` stores it, or give "
        "its folder with --model DIR\n"
    )
    assert main(["-l", str(archive)]) == 0
    assert f"model my llama, digest {digest}: not on this machine\n" in capfd.readouterr().out
    store_model(checkpoint)
    assert main(["info", str(archive)]) == 0
    assert re.search(f"model my llama, digest {digest}: in {place}/", capfd.readouterr().out)
    assert main(["-l", "--json", str(archive)]) == 0
    assert json.loads(capfd.readouterr().out)["archives"][0]["model_folder"].startswith(str(place))
    assert main(["cat", "--range", "3:9", str(archive)]) == 0
    assert capfd.readouterr().out.encode() == TEXT[3:9]


def test_relative_data_folders_and_missing_homes_are_no_places(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/me")
    assert store.own_place() == Path("/home/me/.local/share/llmzip/models")
    archive = llmzip.compress(TEXT, model=checkpoint)
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError()))
    assert store.places() == []
    with pytest.raises(ModelNotFoundError, match=r"digest [0-9a-f]{32}: give its folder with --model DIR"):
        llmzip.decompress(archive)
    with pytest.raises(ModelNotFoundError, match="neither HOME nor XDG_DATA_HOME is set"):
        store_model(checkpoint)


# -- writing ---------------------------------------------------------------------------------------------------------


def test_adding_twice_changes_nothing(checkpoint: Path, place: Path) -> None:
    first, is_new = store_model(checkpoint)
    before = {file.name: file.stat() for file in first.folder.iterdir()}
    second, is_new_again = store_model(checkpoint)
    assert (is_new, is_new_again) == (True, False) and first == second
    assert {file.name: file.stat() for file in first.folder.iterdir()} == before
    assert sorted(before) == ["model.llmzw", "stored.json", "tokenizer.json"] and len(names(place)) == 1


def test_a_stored_model_can_be_stored_elsewhere(checkpoint: Path, tmp_path: Path) -> None:
    first, _ = store_model(checkpoint)
    second, _ = store_model("stored:my llama", tmp_path / "other")
    assert (second.name, second.model_digest, second.is_converted) == (first.name, first.model_digest, True)
    for file in first.folder.iterdir():
        assert (second.folder / file.name).read_bytes() == file.read_bytes()


def test_processes_that_add_at_once_harm_nothing(checkpoint: Path, place: Path, tmp_path: Path) -> None:
    root = str(Path(llmzip.__file__).parents[1])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "llmzip", "models", "add", str(checkpoint)]

    def run(number: int) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, check=False)

    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(run, range(3)))
    assert [process.returncode for process in done] == [0, 0, 0], done
    assert sum(b"stored before" not in process.stdout for process in done) == 1
    assert len(names(place)) == 1
    store.check(place / names(place)[0])


def test_a_full_disk_leaves_nothing(
    checkpoint: Path, place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: Any) -> None:
        Path(arguments[-1]).write_bytes(b"a part")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(int8form, "write_int8", fail)
    assert main(["models", "add", str(checkpoint)]) == 1
    assert capfd.readouterr().err == f"llmzip: the model cannot be stored in {place}: No space left on device\n"
    assert names(place) == []


def test_what_killed_processes_left_is_removed_when_it_is_old(checkpoint: Path, place: Path) -> None:
    old, new = place / ".llmzip-0123456789abcdef.tmp", place / ".llmzip-fedcba9876543210.tmp"
    for folder in (old, new):
        folder.mkdir(parents=True)
        (folder / layout.INT8).write_bytes(b"a part")
    os.utime(old, (1, 1))
    assert store.stored() == []
    store_model(checkpoint)
    assert old.name not in names(place) and new.name in names(place)


def test_folders_are_published_whole(tmp_path: Path) -> None:
    name = tmp_path / "name"
    with folders.temporary(tmp_path) as first, folders.temporary(tmp_path) as second:
        (first / "file").write_bytes(b"1")
        (second / "file").write_bytes(b"2")
        assert folders.publish(first, name, lambda path: pytest.fail("nothing is there"))
        assert not folders.publish(second, name, lambda path: True)
        assert (name / "file").read_bytes() == b"1"
        assert folders.publish(second, name, lambda path: False)
    assert (name / "file").read_bytes() == b"2" and names(tmp_path) == ["name"]


# -- damage ----------------------------------------------------------------------------------------------------------


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("at", [-1, -5000, 3000])
def test_damaged_weights_are_named_and_replaced(
    checkpoint: Path, at: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    archive = llmzip.compress(TEXT, model=checkpoint)
    model, _ = store_model(checkpoint)
    flip(model.folder / layout.INT8, at)
    advice = f"the stored model is damaged: `llmzip models remove {model.model_digest}` removes it, then add it again"
    for name in (None, "stored:my llama"):
        with pytest.raises(ModelUnsupportedError, match=re.escape(f"{model.folder}")) as caught:
            llmzip.decompress(archive, model=name)
        assert str(caught.value).endswith(advice)
    assert main(["models", "verify", "stored:my llama"]) == 3
    assert advice in capfd.readouterr().err
    again, is_new = store_model(checkpoint)
    assert is_new and again.folder == model.folder
    assert llmzip.decompress(archive) == TEXT
    assert main(["models", "verify", "stored:my llama"]) == 0


def test_another_models_files_are_named(checkpoint: Path, lacking_model: Path) -> None:
    archive = llmzip.compress(TEXT, model=checkpoint)
    model, _ = store_model(checkpoint)
    other, _ = store_model(lacking_model)
    shutil.copy(other.folder / layout.INT8, model.folder)
    shutil.copy(other.folder / "tokenizer.json", model.folder)
    with pytest.raises((ModelMismatchError, ModelUnsupportedError), match="the stored model is damaged"):
        llmzip.decompress(archive)
    store_model(checkpoint)
    (model.folder / "tokenizer.json").write_bytes(b"{")
    with pytest.raises(TokenizerError, match=re.escape(str(model.folder))):
        llmzip.decompress(archive)
    assert store_model(checkpoint)[1]
    assert llmzip.decompress(archive) == TEXT


@pytest.mark.parametrize(
    "facts", [b"", b"[]", b"{}", b"\xff", b'{"name": 1}', b"[" * 10_000, b'{"model_digest": "../../x"}', b" " * 70_000]
)
def test_damaged_descriptions_are_no_descriptions(checkpoint: Path, facts: bytes) -> None:
    archives = [llmzip.compress(TEXT, model=checkpoint), compressed(checkpoint, 31)]
    model, _ = store_model(checkpoint)
    (model.folder / "stored.json").write_bytes(facts)
    assert llmzip.decompress(archives[0]) == TEXT  # the folder's name is enough for what it was stored with
    with pytest.raises(ModelNotFoundError, match="which is not in"):
        llmzip.decompress(archives[1])
    assert [listed.name for listed in store.stored()] == [model.folder.name]
    assert store_model(checkpoint)[1]
    assert [llmzip.decompress(archive) for archive in archives] == [TEXT, TEXT]


# -- commands --------------------------------------------------------------------------------------------------------


def test_models_are_listed_described_and_removed(
    checkpoint: Path, lacking_model: Path, place: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    assert main(["models", "add", str(checkpoint), str(lacking_model)]) == 0
    out = capfd.readouterr().out
    digests = re.findall("model digest +([0-9a-f]{32})", out)
    assert main(["models", "list"]) == 0
    assert re.search(f"llama +yes +my llama \\({digests[0][:12]}\\)\n", capfd.readouterr().out)
    assert main(["models", "list", "--json"]) == 0
    rows = [row for row in map(json.loads, capfd.readouterr().out.splitlines()) if row["place"] == "stored"]
    assert {row["model_digest"] for row in rows} == set(digests)
    assert main(["models", "info", "--digests", "stored:my llama"]) == 0
    assert digests[0] in capfd.readouterr().out
    monkeypatch.setenv("LLMZIP_MODEL_PATH", str(lacking_model.parent))
    assert main(["models", "remove", digests[0][:8], "stored:small-lacking"]) == 0
    assert main(["models", "remove", "small-lacking"]) == 1
    assert "is a model's folder of yours, not a stored copy; it is kept" in capfd.readouterr().err
    monkeypatch.delenv("LLMZIP_MODEL_PATH")
    assert names(place) == [] and lacking_model.exists()
    assert main(["models", "remove", "my llama"]) == 3
    assert f"no stored model 'my llama' in {place}" in capfd.readouterr().err
    ref = parse_model("stored:my llama")
    assert ref.kind is Kind.STORED and ref.folder is None
    assert main(["-c", "-m", "stored:my llama", str(checkpoint / "config.json")]) == 3
    assert f"no stored model has this name or digest; looked in {place}" in capfd.readouterr().err


def test_what_cannot_be_stored_is_refused(tmp_path: Path, place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(LLMZipError, match="model base is embedded in llmzip"):
        store_model("base")
    for name in (str(tmp_path / "nothing"), str(tmp_path)):
        assert main(["models", "add", name]) == 3
    assert names(place) == []
    (tmp_path / "file").write_bytes(b"")
    model = DEFAULT.folder.with_name("small")
    copy = shutil.copytree(model, tmp_path / "copy")
    assert main(["models", "add", str(copy), "--to", str(tmp_path / "file")]) == 1
    assert "cannot be stored" in capfd.readouterr().err
