"""Checks the way from a name or an archive's header to a model's folder, and what is said when it is another model."""

from __future__ import annotations

import re
import shutil
import zlib
from pathlib import Path

import pytest

import llmzip
from llmzip.errors import FormatError, ModelMismatchError, ModelNotFoundError, ModelUnsupportedError, SettingsError
from llmzip.format.headers import LM, LZMA, STORED, USER_MODEL, FrameHeader, Header, ModelRecord
from llmzip.format.writing import pack_frame, pack_header
from llmzip.models import hub
from llmzip.models.choice import (
    ModelChoice,
    choose_model,
    describe_model,
    fetch_model,
    model_for_archive,
    model_for_compressing,
)
from llmzip.models.embedded import DEFAULT, EMBEDDED, RETIRED
from llmzip.models.reference import parse_model
from llmzip.settings import CompressSettings

RECORD = ModelRecord("their model", bytes(range(16)), bytes(range(16, 32)), planes=1, context=300, start_token=5)
ARCHIVE = Header(USER_MODEL, RECORD)


# -- choosing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["default", DEFAULT.name])
def test_embedded_models_are_chosen_by_name(name: str) -> None:
    choice = choose_model(name)
    assert choice.embedded is DEFAULT and choice.name == DEFAULT.name
    assert choice.expected == (DEFAULT.model_digest, DEFAULT.tokenizer_digest)
    assert (choice.planes, choice.context, choice.start_token) == (None, None, None)


def test_embedded_models_have_names_and_codes_of_their_own() -> None:
    assert len({model.code for model in EMBEDDED}) == len({model.name for model in EMBEDDED}) == len(EMBEDDED)
    assert all(1 <= model.code <= 14 for model in EMBEDDED)
    for model in EMBEDDED:
        assert {file.name for file in model.folder.iterdir()} == {"MODEL_CARD.md", "model.llmzw", "tokenizer.json"}
    assert all(len(model.model_digest) == len(model.tokenizer_digest) == 32 for model in EMBEDDED)


def test_folders_are_chosen_by_path(tmp_path: Path) -> None:
    folder = tmp_path / "my model"
    folder.mkdir()
    for name in (folder, str(folder), f"{folder}/", folder / "."):
        choice = choose_model(name)
        assert choice.name == "my model" and choice.folder.samefile(folder)
        assert choice.embedded is None and choice.expected is None


def test_a_folder_wins_over_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / DEFAULT.name).mkdir()
    monkeypatch.chdir(tmp_path)
    assert choose_model(DEFAULT.name).embedded is None
    assert choose_model("default").embedded is DEFAULT


@pytest.mark.parametrize("name", ["no such model", "/no/such/folder", "~", "a/b/c", "./model", "../model"])
def test_other_names_are_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = f"model '{name}' is neither a folder nor an embedded model .*, and no name like org/name on the Hugging Face"
    with pytest.raises(ModelNotFoundError, match=text):
        choose_model(name)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Base", "no model 'Base'; did you mean 'base'? (for a model of the Hugging Face Hub write org/name)"),
        (
            "smal@main",
            "no model 'smal@main'; did you mean 'small'? (for a model of the Hugging Face Hub write org/name)",
        ),
        ("gpt2", "in the Hugging Face cache; for a model of the Hugging Face Hub write openai-community/gpt2"),
        ("distilgpt2@v1", "for a model of the Hugging Face Hub write distilbert/distilgpt2@v1"),
        ("SEED", "'SEED' is neither a folder nor an embedded model (base, small, bytes), and not in the Hugging Face"),
    ],
)
def test_names_without_an_owner_are_never_looked_up_on_the_hub(
    name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(hub, "forbidden_by_environment", lambda: False)
    monkeypatch.setattr(hub, "download", lambda *arguments: pytest.fail("it was fetched"))
    ref = parse_model(name)
    assert fetch_model(ref, print, lambda *arguments: pytest.fail("a bar")) is ref
    with pytest.raises(ModelNotFoundError, match=re.escape(said)):
        choose_model(name)


@pytest.mark.parametrize("name", ["org/model", "org/model@v1"])
def test_names_of_the_hub_are_looked_up_and_never_fetched(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(hub, "download", lambda *arguments: pytest.fail("it was fetched"))
    text = f"model '{name}' is neither a folder .*, and not in the Hugging Face cache: `llmzip models pull {name}`"
    with pytest.raises(ModelNotFoundError, match=text):
        choose_model(name)


@pytest.mark.parametrize("name", ["default", DEFAULT.name, Path("org/model"), "no such model", "here", "a/b/c"])
def test_only_names_of_the_hub_are_fetched(name: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    monkeypatch.setattr(hub, "download", lambda *arguments: pytest.fail("it was fetched"))
    ref = parse_model(name)
    assert fetch_model(ref, print, lambda *arguments: pytest.fail("a bar")) is ref


def test_a_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    with pytest.raises(ModelUnsupportedError, match="it is not a GGUF file; of a checkpoint name the folder"):
        choose_model(tmp_path / "model.safetensors")


# -- archives ----------------------------------------------------------------------------------------------------------


def test_embedded_models_of_archives_need_nothing() -> None:
    for override in (None, "anything", "/no/such/folder"):
        assert model_for_archive(Header(DEFAULT.code), override).embedded is DEFAULT


def test_user_models_of_archives_need_their_folder(tmp_path: Path) -> None:
    with pytest.raises(
        ModelNotFoundError,
        match=f"'their model' with digest {RECORD.model_digest.hex()}, which is not in .* or give its",
    ):
        model_for_archive(ARCHIVE, None)
    with pytest.raises(ModelNotFoundError, match="'/no/such' is neither a folder nor a file"):
        model_for_archive(ARCHIVE, "/no/such")
    choice = model_for_archive(ARCHIVE, tmp_path)
    assert (choice.planes, choice.context, choice.start_token) == (1, 300, 5)
    assert choice.expected == (RECORD.model_digest, RECORD.tokenizer_digest)


def test_an_archives_name_for_its_model_is_never_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their model").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelNotFoundError, match="give its folder"):
        model_for_archive(ARCHIVE, None)


def test_digests_may_be_whole_or_their_first_half() -> None:
    model, tokenizer = bytes(range(32)), bytes(range(100, 132))
    for expected in ((model, tokenizer), (model[:16], tokenizer[:16])):
        ModelChoice("m", Path("folder"), expected=expected).check(model, tokenizer)
    ModelChoice("m", Path("folder")).check(model, tokenizer)


def test_a_mismatch_names_both_digests_and_the_folder() -> None:
    model, tokenizer, other = bytes(range(32)), bytes(range(100, 132)), b"\xee" * 32
    choice = ModelChoice("m", Path("some folder"), expected=(model[:16], tokenizer[:16]))
    for found, kind, wanted in (((other, tokenizer), "model", model), ((model, other), "tokenizer", tokenizer)):
        with pytest.raises(ModelMismatchError) as caught:
            choice.check(*found)
        text = str(caught.value)
        assert f"another {kind} than the archive's: expected {kind} digest {wanted[:16].hex()}" in text
        assert f"found {other[:16].hex()} in some folder" in text


def test_headers_are_described_without_loading_anything() -> None:
    assert describe_model(Header()) == (None, None, None)
    digests = DEFAULT.model_digest.hex(), DEFAULT.tokenizer_digest.hex()
    assert describe_model(Header(DEFAULT.code)) == (DEFAULT.name, *digests)
    assert describe_model(ARCHIVE) == ("their model", RECORD.model_digest.hex(), RECORD.tokenizer_digest.hex())
    assert describe_model(Header(9)) == ("unknown embedded model 9", None, None)


def archive(code: int, method: int) -> bytes:
    """An archive of three bytes with any model code."""
    header = FrameHeader(method, 3, 3, num_tokens=3 if method == LM else 0, last=True)
    return pack_frame(header, b"abc", zlib.crc32(b"abc"), pack_header(Header(code)))


@pytest.mark.parametrize("code", sorted({*range(1, 14)} - {model.code for model in EMBEDDED}))
def test_unassigned_model_codes_are_refused_by_number(code: int) -> None:
    with pytest.raises(FormatError, match=f"model {code}\\b"):
        model_for_archive(Header(code), None)
    with pytest.raises(FormatError, match=f"model {code}\\b"):
        llmzip.decompress(archive(code, LM))


@pytest.mark.parametrize(("code", "name"), RETIRED.items())
def test_retired_models_are_refused_by_name(code: int, name: str) -> None:
    assert code not in {model.code for model in EMBEDDED}
    with pytest.raises(FormatError, match=f"embedded model {code} \\(`{name}`, of an earlier version\\)"):
        llmzip.decompress(archive(code, LM))


@pytest.mark.parametrize("method", [STORED, LZMA])
def test_unassigned_model_codes_are_refused_whatever_the_frames_need(method: int) -> None:
    # Format section 2: a reader MUST refuse them; the archive may hold more than this version understands.
    with pytest.raises(FormatError, match=r"model 13\b"):
        llmzip.decompress(archive(13, method))


def test_a_frame_that_needs_a_model_in_an_archive_without_one_is_refused() -> None:
    with pytest.raises(llmzip.LLMZipError):
        llmzip.decompress(archive(0, LM))


# -- a context of its own ----------------------------------------------------------------------------------------------


def test_a_context_is_for_checkpoints(tmp_path: Path) -> None:
    folder = shutil.copytree(EMBEDDED[-1].folder, tmp_path / "mine")
    for name in ("default", "small", folder):
        with pytest.raises(SettingsError, match="--context is for checkpoints"):
            model_for_compressing(CompressSettings(model=name, context=64))


def test_archives_of_embedded_models_with_a_prompt_need_no_folder() -> None:
    archive = llmzip.compress(b"the tide comes in", model="small", prompt=b"the tide goes out", level=1)
    for name in (None, "small", "default", "/no/such/folder"):
        assert llmzip.decompress(archive, model=name, prompt=b"the tide goes out") == b"the tide comes in"
