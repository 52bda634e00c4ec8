"""GGUF files wherever a model may be named: archives, commands, Ollama's names, and what cannot be a model."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from model_samples import sentences
from safetensors.torch import load_file, save_file

import llmzip
from llmzip.cli.main import main
from llmzip.cli.values import model_names
from llmzip.errors import ModelNotFoundError, ModelUnsupportedError
from llmzip.format.reading import read_archives
from llmzip.models.choice import choose_model, fetch_model, model_for_compressing, resolve_model
from llmzip.models.conversion_cache import Conversion, _kept_path
from llmzip.models.gguf import ollama
from llmzip.models.reference import Kind, parse_model
from llmzip.settings import CompressSettings

TEXT = sentences(3000, 4)
DIGEST = "ab" * 32


def record(archive: bytes) -> Any:
    return next(iter(read_archives(io.BytesIO(archive)))).archive.model


@pytest.fixture
def file(checkpoint: Path, tmp_path: Path, to_gguf: Callable[..., Path]) -> Path:
    """The small Llama as a GGUF file."""
    return to_gguf(tmp_path / "model.gguf", checkpoint)


# -- archives --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("only_models")
def test_a_file_and_its_checkpoint_decode_each_others_archives(checkpoint: Path, file: Path) -> None:
    by_file, by_folder = (llmzip.compress(TEXT, model=place) for place in (file, checkpoint))
    assert (record(by_file).name, record(by_folder).name) == ("model.gguf", "checkpoint")
    assert record(by_file).model_digest == record(by_folder).model_digest
    assert record(by_file).tokenizer_digest == record(by_folder).tokenizer_digest
    assert llmzip.decompress(by_file, model=checkpoint) == llmzip.decompress(by_folder, model=str(file)) == TEXT
    with pytest.raises(ModelNotFoundError, match="give its file with --model FILE"):
        llmzip.decompress(by_file)
    with pytest.raises(ModelNotFoundError, match="there is no such file"):
        llmzip.decompress(by_file, model=file.with_name("other.gguf"))
    with pytest.raises(ModelNotFoundError, match="no such file"):
        llmzip.decompress(by_file, model="other.gguf")


def test_the_program_compresses_and_restores_a_file(file: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(TEXT)
    root = Path(llmzip.__file__).parents[1]
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))

    def run(*arguments: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "llmzip", *arguments],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": path},
            capture_output=True,
            timeout=300,
            check=False,
        )

    done = run("-v", "-m", file.name, "text")
    assert done.returncode == 0, done.stderr
    (tmp_path / "text").unlink()
    done = run("-d", "-m", file.name, "text.llmz")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "text").read_bytes() == TEXT
    done = run("-m", "g/none.gguf", "-c", "text")
    assert done.returncode == 3
    assert done.stderr == b"llmzip: text: model 'g/none.gguf': there is no such file\n"


def test_other_commands_take_a_file(file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text").write_bytes(TEXT[:200])
    for arguments in (
        ["entropy"],
        ["estimate"],
        ["distance", "--first", "40", str(tmp_path / "text")],
    ):
        code = main([*arguments, "-m", str(file), str(tmp_path / "text")])
        assert code == 0, capfd.readouterr().err


def test_training_continues_from_a_file(file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.txt").write_bytes(sentences(60_000, 5))
    out = tmp_path / "trained"
    code = main(
        [
            *("train", str(tmp_path / "text.txt"), "-o", str(out), "--from", str(file)),
            *("--steps", "1", "--batch", "256", "--no-compile", "-q"),
        ]
    )
    assert code == 0, capfd.readouterr().err
    assert json.loads((out / "tokenizer.json").read_text(encoding="utf-8"))["model"]["type"] == "BPE"
    assert llmzip.decompress(llmzip.compress(TEXT, model=out), model=out) == TEXT


def test_the_float_engine_refuses_files(file: Path) -> None:
    with pytest.raises(ModelUnsupportedError, match="the float engine reads checkpoints only, not GGUF files"):
        model_for_compressing(CompressSettings(model=file, arithmetic="float"))


# -- names -----------------------------------------------------------------------------------------------------------


def test_a_file_is_a_model_by_whatever_name(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    renamed = file.rename(tmp_path / "gpt2")
    for name in (renamed, str(renamed), "gpt2", "./gpt2"):
        ref = parse_model(name)
        assert (ref.kind, ref.name, ref.is_place, ref.hub_id) == (Kind.GGUF, "gpt2", True, None)
        assert choose_model(ref).name == "gpt2"


def test_a_comma_may_be_a_part_of_a_files_name(tmp_path: Path) -> None:
    (tmp_path / "a,b.gguf").write_bytes(b"")
    assert model_names([f"{tmp_path}/a,b.gguf,base", "small"]) == (f"{tmp_path}/a,b.gguf", "base", "small")


@pytest.mark.parametrize("name", ["default", "base"])
def test_a_text_with_the_name_of_an_embedded_model_does_not_hide_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(TEXT)
    assert parse_model(name).kind is Kind.EMBEDDED
    assert parse_model(f"./{name}").kind is Kind.GGUF


@pytest.mark.parametrize("name", ["none.gguf", "g/none.gguf", "G/None.GGUF", "./a/none.gguf"])
def test_what_ends_like_a_file_never_means_the_hub(name: str) -> None:
    ref = parse_model(name)
    assert (ref.kind, ref.hub_id) == (Kind.UNKNOWN, None)
    assert fetch_model(ref, print, lambda *arguments: pytest.fail("a bar")) is ref
    with pytest.raises(ModelNotFoundError, match=r"'.*' *: there is no such file"):
        resolve_model(ref)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"Call me Ishmael.", "it is not a GGUF file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "it is a pointer of git-lfs"),
        (b"", "it is empty: the download is incomplete"),
        (b"GGUF\3\0\0\0\0\0\0\0", "its header is cut off"),
    ],
)
def test_the_command_line_says_what_a_file_is_in_one_line(
    content: bytes, message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.gguf").write_bytes(content)
    (tmp_path / "text").write_bytes(TEXT)
    model = str(tmp_path / "model.gguf")
    for arguments in (["-m", model, str(tmp_path / "text")], ["models", "info", model]):
        assert main(arguments) == 3
        error = capfd.readouterr().err
        assert error.count("\n") == 1 and f"model {model}: it" in error and message in error


def test_a_folder_with_an_adapter_says_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelNotFoundError, match=r"no config.json in this folder; it has an adapter: merge it"):
        llmzip.compress(TEXT, model=tmp_path)


def test_a_folder_with_nothing_but_a_file_says_what_to_type(
    file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    file.rename(folder / "model.gguf")
    with pytest.raises(ModelNotFoundError, match=rf"name that one, --model {folder / 'model.gguf'}$"):
        llmzip.compress(TEXT, model=folder)
    assert main(["models", "info", "--json", str(folder)]) == 0
    assert json.loads(capfd.readouterr().out)["parameters"] is None


# -- models info and verify ------------------------------------------------------------------------------------------


def test_info_describes_a_file(file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "info", "--json", "--digests", str(file)]) == 0
    facts = json.loads(capfd.readouterr().out)
    assert (facts["name"], facts["place"], facts["model_type"], facts["runs"]) == ("model.gguf", "gguf", "llama", True)
    assert (facts["tokenizer"], facts["tokenizer_remark"], facts["vocab_size"]) == ("byte-level", None, 320)
    assert facts["quantisations"] == {"F32": 21} and facts["size_bytes"] == file.stat().st_size
    assert len(facts["model_digest"]) == 32 and facts["parameters"] > 50_000
    assert main(["models", "info", str(file)]) == 0
    out = capfd.readouterr().out
    assert f"GGUF file         {file}" in out and "tensors           21 F32" in out
    assert main(["models", "verify", str(file)]) == 3
    assert "is a file, and there is nothing to compare it with" in capfd.readouterr().err


def test_info_says_what_is_not_known(
    checkpoint: Path, tmp_path: Path, to_gguf: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    file = to_gguf(tmp_path / "model.gguf", checkpoint, pre="martian")
    assert main(["models", "info", str(file)]) == 0
    assert (
        "byte-level; splits texts as GPT-2 does, because its own way, 'martian', is not known" in capfd.readouterr().out
    )
    content = file.read_bytes().replace(b"\5\0\0\0\0\0\0\0llama", b"\5\0\0\0\0\0\0\0rwkv7", 1)
    file.write_bytes(content)
    assert main(["models", "info", str(file)]) == 0
    assert "runs              no: GGUF architecture 'rwkv7' is not supported" in capfd.readouterr().out


# -- kept conversions ------------------------------------------------------------------------------------------------


def test_conversions_are_kept_by_file_size_and_time(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("llmzip.models.conversion_cache._MIN_KEPT_BYTES", 0)
    first, kept = Conversion(file).load(64, None), _kept_path(file)
    assert kept is not None and kept.exists()
    monkeypatch.setattr("llmzip.models.conversion_cache.load_model", lambda place: pytest.fail("converted again"))
    assert Conversion(file).load(64, None).digest() == first.digest()
    os.utime(file, (1, 1))
    assert _kept_path(file) != kept


@pytest.mark.usefixtures("only_models")
def test_a_model_in_memory_is_told_from_another_of_the_same_name_and_time(
    checkpoint: Path, to_gguf: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = load_file(checkpoint / "model.safetensors")
    other = tmp_path / "other"
    shutil.copytree(checkpoint, other)
    save_file({name: tensor * 0.5 for name, tensor in weights.items()}, other / "model.safetensors")
    digests = []
    for name, source in (("first", checkpoint), ("second", other)):
        (folder := tmp_path / name).mkdir()
        os.utime(to_gguf(folder / "m.gguf", source), (1, 1))
        monkeypatch.chdir(folder)
        digests.append(record(llmzip.compress(TEXT[:500], model="m.gguf")).model_digest)
    assert digests[0] != digests[1]


# -- Ollama ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def ollama_folder(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of Ollama's with the small Llama as llama:tiny and llama:latest."""
    folder = tmp_path / "ollama"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    (folder / "blobs").mkdir(parents=True)
    file.rename(folder / "blobs" / f"sha256-{digest}")
    for tag in ("tiny", "latest"):
        write_manifest(folder, f"registry.ollama.ai/library/llama/{tag}", digest)
    monkeypatch.setenv("OLLAMA_MODELS", str(folder))
    return folder


def write_manifest(folder: Path, name: str, *digests: str) -> Path:
    kinds = [("license", "cd" * 32), *(("model", digest) for digest in digests), ("params", "ef" * 32)]
    layers = [
        {"mediaType": f"application/vnd.ollama.image.{kind}", "digest": f"sha256:{digest}", "size": 1}
        for kind, digest in kinds
    ]
    path = folder / "manifests" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"schemaVersion": 2, "layers": layers}), encoding="utf-8")
    return path


@pytest.mark.usefixtures("only_models")
def test_models_of_ollama_are_found_by_name(
    ollama_folder: Path, checkpoint: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("ollama:llama", "ollama:llama:tiny", "ollama:library/llama:tiny"):
        ref = parse_model(name)
        assert (ref.kind, ref.name, ref.is_place) == (Kind.OLLAMA, name, True)
        assert ref.folder is not None and ref.folder.parent == ollama_folder / "blobs"
    archive = llmzip.compress(TEXT, model="ollama:llama:tiny")
    assert record(archive).name == "ollama:llama:tiny"
    assert llmzip.decompress(archive, model=checkpoint) == llmzip.decompress(archive, model="ollama:llama") == TEXT
    assert main(["models", "verify", "ollama:llama"]) == 0
    assert capfd.readouterr().out.startswith("ok       sha256-")
    assert main(["models", "info", "ollama:llama"]) == 0
    assert "ollama:llama" in capfd.readouterr().out
    blob = next((ollama_folder / "blobs").iterdir())
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    assert main(["models", "verify", "ollama:llama"]) == 3
    assert "is damaged: remove it" in capfd.readouterr().err


def test_models_of_ollama_are_listed(ollama_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    digest = next((ollama_folder / "blobs").iterdir()).name.removeprefix("sha256-")
    write_manifest(ollama_folder, "registry.ollama.ai/someone/theirs/1b", digest)
    write_manifest(ollama_folder, "hf.co/org/name/q4", digest)
    write_manifest(ollama_folder, "registry.ollama.ai/library/gone/latest", DIGEST)
    names = ["ollama:hf.co/org/name:q4", "ollama:llama:latest", "ollama:llama:tiny", "ollama:someone/theirs:1b"]
    assert sorted(name for name, _ in ollama.names()) == names
    assert len({parse_model(name).folder for name in names}) == 1
    assert main(["models", "list", "--json"]) == 0
    listed = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    ours = {fact["name"]: (fact["model_type"], fact["runs"]) for fact in listed if fact["place"] == "ollama"}
    assert ours == dict.fromkeys(names, ("llama", True))


@pytest.mark.parametrize("name", ["nosuch", "llama:nosuch", "../../etc/passwd", "a/b/c/d", "", ":", "llama:..", "a//b"])
def test_names_that_ollama_does_not_have_are_said(name: str, ollama_folder: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=f"Ollama has no such model in {ollama_folder}: `ollama pull"):
        resolve_model(parse_model(f"ollama:{name}"))


def test_manifests_that_lead_nowhere_are_said(ollama_folder: Path) -> None:
    manifest = write_manifest(ollama_folder, "registry.ollama.ai/library/gone/latest", DIGEST)
    with pytest.raises(ModelNotFoundError, match=rf"sha256-{DIGEST} is missing: `ollama pull gone` fetches it"):
        parse_model("ollama:gone")
    write_manifest(ollama_folder, "registry.ollama.ai/library/gone/latest")
    with pytest.raises(ModelUnsupportedError, match="lists 0 GGUF files, not one"):
        parse_model("ollama:gone")
    write_manifest(ollama_folder, "registry.ollama.ai/library/gone/latest", "../../x")
    with pytest.raises(ModelUnsupportedError, match="lists 1 GGUF files, not one"):
        parse_model("ollama:gone")
    for content in (b"{", b"[]", b"\xff", b'{"layers": [1]}'):
        manifest.write_bytes(content)
        with pytest.raises(ModelUnsupportedError, match=rf"{manifest} cannot be read"):
            parse_model("ollama:gone")


def test_the_usual_folders_are_searched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OLLAMA_MODELS", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ollama.searched() == f"{tmp_path}/.ollama/models, /usr/share/ollama/.ollama/models"
    write_manifest(tmp_path / ".ollama" / "models", "registry.ollama.ai/library/gone/latest", DIGEST)
    with pytest.raises(ModelNotFoundError, match=rf"{tmp_path}/\.ollama/models/blobs/sha256-{DIGEST} is missing"):
        ollama.find("gone")
