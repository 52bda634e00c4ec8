"""Checks what a name for a model refers to, and that a reference is parsed once and then taken as it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llmzip.errors import ModelNotFoundError
from llmzip.models import hub
from llmzip.models.choice import choose_model, fetch_model, resolve_model
from llmzip.models.embedded import DEFAULT, EMBEDDED
from llmzip.models.reference import Kind, ModelRef, parse_model
from llmzip.settings import CompressSettings

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "name", "revision"),
    [("org/name", "org/name", None), ("org/name@v1", "org/name", "v1"), ("gpt2@main", "gpt2", "main")],
)
def test_ids_of_the_hub_keep_their_revision(text: str, name: str, revision: str | None) -> None:
    ref = parse_model(text)
    assert (ref.kind, ref.name, ref.revision, ref.folder, ref.embedded) == (Kind.HUB, name, revision, None, None)
    assert ref.hub_id == hub.HubId(name, revision) and os.fspath(ref) == text


@pytest.mark.parametrize("name", ["default", *(model.name for model in EMBEDDED)])
def test_embedded_models_have_a_folder_and_no_id(name: str) -> None:
    model = DEFAULT if name == "default" else next(model for model in EMBEDDED if model.name == name)
    for ref in (parse_model(name), parse_model(Path(name))):
        assert (ref.kind, ref.name, ref.folder, ref.embedded) == (Kind.EMBEDDED, model.name, model.folder, model)
        assert ref.hub_id is None and ref.text == name


def test_folders_come_first_and_keep_their_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("base", "org/name", "name@v1"):
        Path(name).mkdir(parents=True)
        ref = parse_model(name)
        assert (ref.kind, ref.name, ref.folder) == (Kind.FOLDER, Path(name).name, Path(name))
        assert (ref.hub_id, ref.embedded, ref.revision) == (None, None, None)


@pytest.mark.parametrize("name", ["no such model", "a/b/c", "./base", "", "\0", Path("org/name"), "org/name@"])
def test_other_names_refer_to_nothing_and_are_refused_when_resolved(name: str | Path) -> None:
    ref = parse_model(name)
    assert (ref.kind, ref.folder, ref.embedded, ref.hub_id) == (Kind.UNKNOWN, None, None, None)
    with pytest.raises(ModelNotFoundError, match="neither a folder nor an embedded model"):
        resolve_model(ref)


def test_a_reference_is_not_parsed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = parse_model("org/name")
    assert parse_model(ref) is ref
    monkeypatch.chdir(tmp_path)
    Path("org/name").mkdir(parents=True)
    assert parse_model(CompressSettings(model=ref).model).kind is Kind.HUB


def test_the_cache_is_searched_once_for_a_fetched_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = hub.Snapshot("org/name", COMMIT, tmp_path)
    searches: list[hub.HubId] = []

    def find(model: hub.HubId) -> hub.Snapshot:
        searches.append(model)
        return found

    monkeypatch.setattr(hub, "find", find)
    monkeypatch.setattr(hub, "missing_files", lambda snapshot: [])
    ref = fetch_model(parse_model("org/name@v1"), print, lambda *arguments: pytest.fail("a bar"))
    assert ref == ModelRef(f"org/name@{COMMIT}", Kind.HUB, "org/name", COMMIT, tmp_path)
    choice = choose_model(ref)
    assert (choice.name, choice.folder, choice.embedded) == (f"org/name@{COMMIT}", tmp_path, None)
    assert searches == [hub.HubId("org/name", "v1")]
