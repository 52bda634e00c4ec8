"""Checks how models are found in the Hugging Face cache without a network, and what archives can make a reader do."""

from __future__ import annotations

import dataclasses
import errno
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_hub import TEXT, commit_of, etag, fill

import llmzip
from llmzip.cli import main
from llmzip.format import reading, writing
from llmzip.format.headers import USER_MODEL
from llmzip.inference.storing import store_model
from llmzip.models import embedded, hub
from llmzip.models.choice import choose_model
from llmzip.models.embedded import DEFAULT, EMBEDDED, EmbeddedModel

NAME = "keepers/lighthouse"
FIRST, SECOND = commit_of(1), commit_of(2)


@pytest.fixture
def snapshot(cache: Path, files: dict[str, bytes]) -> Path:
    """The model in the cache."""
    return fill(cache, NAME, FIRST, files)


def record_named(archive: bytes, name: str) -> bytes:
    """The archive of one frame, with another name for its model."""
    (frame,) = reading.read_archives(io.BytesIO(archive))
    assert frame.archive.model is not None
    header = dataclasses.replace(frame.archive, model=dataclasses.replace(frame.archive.model, name=name))
    return writing.pack_frame(frame.header, frame.payload, frame.crc32, writing.pack_header(header))


@pytest.fixture(scope="module")
def archive(checkpoint: Path) -> bytes:
    """The text, by the model at its first commit."""
    return record_named(llmzip.compress(TEXT, model=checkpoint, level=1), f"{NAME}@{FIRST}")


# -- compressing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("revision", ["", "@main", f"@{FIRST}", f"@{FIRST[:10]}"])
def test_archives_name_the_commit_and_decode_by_it(snapshot: Path, revision: str, archive: bytes) -> None:
    made = llmzip.compress(TEXT, model=NAME + revision, level=1)
    assert made == archive
    (entry,) = llmzip.info(archive).archives
    assert (entry.model_code, entry.model, entry.frames[0].method) == (USER_MODEL, f"{NAME}@{FIRST}", "lm")
    assert llmzip.decompress(archive) == TEXT


def test_a_folder_gives_the_same_digests(snapshot: Path, checkpoint: Path, archive: bytes) -> None:
    assert llmzip.decompress(archive, model=checkpoint) == TEXT
    assert llmzip.decompress(llmzip.compress(TEXT, model=checkpoint, level=1), model=NAME) == TEXT


def test_tags_and_branches(cache: Path, files: dict[str, bytes], other_files: dict[str, bytes]) -> None:
    fill(cache, NAME, FIRST, files)
    fill(cache, NAME, SECOND, other_files, "refs/pr/4")
    assert choose_model(NAME).name == f"{NAME}@{FIRST}"
    assert choose_model(f"{NAME}@refs/pr/4").name == f"{NAME}@{SECOND}"
    with pytest.raises(llmzip.ModelNotFoundError, match=f"models pull {NAME}@v1` downloads it"):
        choose_model(f"{NAME}@v1")


def test_the_first_digits_of_a_commit_must_be_unique(cache: Path, files: dict[str, bytes]) -> None:
    for last in "ab":
        fill(cache, NAME, FIRST[:39] + last, files, None)
    with pytest.raises(llmzip.ModelNotFoundError):
        choose_model(f"{NAME}@{FIRST[:10]}")
    with pytest.raises(llmzip.ModelNotFoundError):  # without refs/main nobody knows which is the newest
        choose_model(NAME)
    assert choose_model(f"{NAME}@{FIRST[:39]}a").name.endswith("a")


@pytest.mark.parametrize("content", ["", "main", "../../..", FIRST + "0", "\xe9"])
def test_a_damaged_ref_is_no_ref(snapshot: Path, content: str) -> None:
    (snapshot.parents[1] / "refs" / "main").write_text(content, encoding="latin-1")
    with pytest.raises(llmzip.ModelNotFoundError, match="not in the Hugging Face cache"):
        choose_model(NAME)


def test_folders_and_embedded_models_win(
    cache: Path, files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (NAME, DEFAULT.name, "default"):
        fill(cache, name, FIRST, files)
    assert choose_model(DEFAULT.name).embedded is choose_model("default").embedded is DEFAULT
    assert choose_model(f"{DEFAULT.name}@main").name == f"{DEFAULT.name}@{FIRST}"
    monkeypatch.chdir(tmp_path)
    assert choose_model(NAME).name == f"{NAME}@{FIRST}"
    (tmp_path / NAME).mkdir(parents=True)
    assert choose_model(NAME).name == "lighthouse"
    with pytest.raises(llmzip.ModelNotFoundError, match="neither a folder"):
        choose_model(Path("keepers") / "other")  # a path never means the Hub


def test_a_model_that_is_not_here_is_named_with_what_to_do(cache: Path) -> None:
    with pytest.raises(
        llmzip.ModelNotFoundError,
        match=f"model '{NAME}' is neither a folder nor an embedded model .*, and not in the Hugging Face cache: "
        f"`llmzip models pull {NAME}` downloads it$",
    ):
        llmzip.compress(TEXT, model=NAME)
    assert list(cache.iterdir()) == []


# -- incomplete snapshots ----------------------------------------------------------------------------------------------


def incomplete(names: str) -> str:
    """What is said of a snapshot that lacks files."""
    pinned = f"{NAME}@{FIRST}"
    return rf"{pinned} is incomplete in the Hugging Face cache \({names} missing\): `llmzip models pull {pinned}`"


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("how", ["absent", "broken link"])
def test_a_file_that_is_missing_is_named(snapshot: Path, name: str, how: str, archive: bytes) -> None:
    (snapshot / name).resolve().unlink()
    if how == "absent":
        (snapshot / name).unlink()
    with pytest.raises(llmzip.ModelNotFoundError, match=incomplete(name)):
        llmzip.compress(TEXT, model=NAME)
    for override in (None, NAME, f"{NAME}@{FIRST}"):
        with pytest.raises(llmzip.ModelNotFoundError, match=incomplete(name)):
            llmzip.decompress(archive, model=override)


def test_shards_that_the_index_names_must_be_here(cache: Path, files: dict[str, bytes]) -> None:
    shards = [f"model-0000{n}-of-00005.safetensors" for n in range(1, 6)]
    index = {"weight_map": {f"tensor {n}": shard for n, shard in enumerate(shards)}}
    sharded = {name: data for name, data in files.items() if name != "model.safetensors"}
    sharded |= {"model.safetensors.index.json": json.dumps(index).encode(), shards[1]: b""}
    folder = fill(cache, NAME, FIRST, sharded)
    with pytest.raises(
        llmzip.ModelNotFoundError, match=incomplete(f"{shards[0]}, {shards[2]}, {shards[3]} and 1 more")
    ):
        choose_model(NAME)
    (folder / "model.safetensors.index.json").resolve().unlink()
    with pytest.raises(llmzip.ModelNotFoundError, match=incomplete("model.safetensors.index.json")):
        choose_model(NAME)
    (folder / "model.safetensors.index.json").unlink()
    (folder / "model.safetensors.index.json").write_text("[1]")
    with pytest.raises(llmzip.ModelUnsupportedError, match=r"model\.safetensors\.index\.json cannot be read"):
        choose_model(NAME)


def test_other_forms_of_the_tokenizer_and_the_weights(cache: Path, files: dict[str, bytes]) -> None:
    old = {name: data for name, data in files.items() if name != "tokenizer.json"}
    fill(cache, NAME, FIRST, old | {"vocab.json": b"{}", "merges.txt": b""})
    assert choose_model(NAME).name == f"{NAME}@{FIRST}"
    fill(cache, NAME, SECOND, {"config.json": b"{}", "tokenizer.json": b"{}", "model.llmzw": b""})
    assert choose_model(NAME).name == f"{NAME}@{SECOND}"


# -- decompressing -----------------------------------------------------------------------------------------------------


def test_the_cache_may_move(snapshot: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, archive: bytes) -> None:
    from huggingface_hub import constants

    moved = cache.rename(cache.parent / "moved")
    with pytest.raises(llmzip.ModelNotFoundError, match=r"not in .* or the Hugging Face cache"):
        llmzip.decompress(archive)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(moved))
    assert llmzip.decompress(archive) == TEXT


def test_a_stored_model_serves_archives_when_the_cache_is_gone(snapshot: Path, cache: Path, archive: bytes) -> None:
    model, _ = store_model(NAME)
    assert model.name == f"{NAME}@{FIRST}"
    shutil.rmtree(cache)
    assert llmzip.decompress(archive) == TEXT
    assert llmzip.info(llmzip.compress(TEXT, model=f"stored:{model.name}")).model == model.name


def test_another_commit_is_not_taken_for_the_archives(
    snapshot: Path, cache: Path, checkpoint: Path, other_files: dict[str, bytes], archive: bytes
) -> None:
    digest = llmzip.info(archive).archives[0].model_digest
    shutil.rmtree(snapshot)
    fill(cache, NAME, SECOND, other_files)
    for override in (None, NAME):  # who gives only the name means the commit of the archive
        with pytest.raises(
            llmzip.ModelNotFoundError,
            match=f"needs model {NAME}, commit {FIRST}, digest {digest}, which is not in .*the Hugging Face cache .*: "
            f"`llmzip models pull {NAME}@{FIRST}` downloads it; or give its folder with --model DIR",
        ):
            llmzip.decompress(archive, model=override)
    for override in (f"{NAME}@main", f"{NAME}@{SECOND}"):
        with pytest.raises(llmzip.ModelMismatchError, match=f"expected model digest {digest}, found "):
            llmzip.decompress(archive, model=override)
    assert llmzip.decompress(archive, model=checkpoint) == TEXT


def test_archives_keep_to_their_commit_when_the_branch_moves(
    snapshot: Path, cache: Path, other_files: dict[str, bytes], archive: bytes
) -> None:
    archives = [archive]
    fill(cache, NAME, SECOND, other_files)
    archives.append(llmzip.compress(TEXT, model=NAME, level=1))
    assert [llmzip.info(archive).archives[0].model for archive in archives] == [f"{NAME}@{FIRST}", f"{NAME}@{SECOND}"]
    for override in (None, NAME):
        assert [llmzip.decompress(archive, model=override) for archive in archives] == [TEXT, TEXT]


def test_a_changed_snapshot_is_told_by_its_digest(
    snapshot: Path, other_files: dict[str, bytes], archive: bytes
) -> None:
    (snapshot / "model.safetensors").resolve().write_bytes(other_files["model.safetensors"])
    with pytest.raises(llmzip.ModelMismatchError, match="another model than the archive's"):
        llmzip.decompress(archive)


def test_a_name_that_is_no_folder_is_said_to_be_none(cache: Path, archive: bytes) -> None:
    archive = record_named(archive, "bigrams")
    with pytest.raises(
        llmzip.ModelNotFoundError,
        match=f"needs model 'bigrams' .*: '{NAME}' is neither a folder nor a file, and not in the Hugging Face cache",
    ):
        llmzip.decompress(archive, model=NAME)
    for override in ("a/b/c", "./keepers", DEFAULT.name):
        with pytest.raises(llmzip.ModelNotFoundError, match=f"'{override}' is neither a folder nor a file$"):
            llmzip.decompress(archive, model=override)


def test_rm_verifies_with_the_model_in_the_cache(
    snapshot: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], archive: bytes
) -> None:
    (tmp_path / "book.txt").write_bytes(TEXT)
    assert main.main(["-1", "--rm", "-m", NAME, str(tmp_path / "book.txt")]) == 0
    assert not (tmp_path / "book.txt").exists()
    assert (tmp_path / "book.txt.llmz").read_bytes() == archive
    assert main.main(["-d", "--rm", str(tmp_path / "book.txt.llmz")]) == 0
    assert (tmp_path / "book.txt").read_bytes() == TEXT
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "name",
    [
        f"../../etc@{FIRST}",
        f"/etc@{FIRST}",
        f"a/b/c@{FIRST}",
        f"keepers--lighthouse@{FIRST}",
        f"keepers/light\x1b[31mhouse@{FIRST}",
        f"keepers/lighthouse\n@{FIRST}",
        f"keepers\\lighthouse@{FIRST}",
        f"keepers/*@{FIRST}",
        f"{NAME}@{FIRST}@{FIRST}",
        f"{NAME}@{FIRST}\n",
        f"{NAME}@{FIRST[:10]}",
        f"{NAME}@{FIRST.upper()}",
        f"{NAME}@main",
        f"{NAME}@../snapshots/{FIRST}",
        NAME,
        "",
    ],
)
def test_names_in_archives_open_nothing(
    snapshot: Path, cache: Path, name: str, capfd: pytest.CaptureFixture[str], tmp_path: Path, archive: bytes
) -> None:
    archive = record_named(archive, name)
    model, _, commit = name.partition("@")
    if "\\" not in name and "*" not in name:  # bait, where a careless reader would look
        bait = cache / ("models--" + model.replace("/", "--")) / "snapshots" / (commit.split("/")[-1] or "main")
        if not bait.exists():
            bait.parent.mkdir(parents=True, exist_ok=True)
            bait.symlink_to(snapshot)
    with pytest.raises(llmzip.ModelNotFoundError, match=r"give its folder with --model DIR$"):
        llmzip.decompress(archive)
    (tmp_path / "x.llmz").write_bytes(archive)
    assert main.main(["-d", str(tmp_path / "x.llmz")]) == 3
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1 and err[:-1].isprintable()
    assert not (tmp_path / "x").exists()


def test_a_name_of_a_model_that_is_here_does_not_replace_its_digest(
    snapshot: Path, cache: Path, other_files: dict[str, bytes], archive: bytes
) -> None:
    fill(cache, NAME, SECOND, other_files)
    with pytest.raises(llmzip.ModelMismatchError):
        llmzip.decompress(record_named(archive, f"{NAME}@{SECOND}"))


# -- llmzip models -----------------------------------------------------------------------------------------------------


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[str], list[str]]:
    """Exit code and lines of both outputs."""
    code = main.main(["models", *arguments])
    out, err = capfd.readouterr()
    return code, out.splitlines(), err.splitlines()


def test_list(cache: Path, files: dict[str, bytes], capfd: pytest.CaptureFixture[str]) -> None:
    fill(cache, NAME, FIRST, files)
    broken = fill(cache, NAME, SECOND, files)
    (broken / "config.json").unlink()
    bert = json.dumps({"model_type": "bert", "vocab_size": 5}).encode()
    fill(cache, "bert", FIRST, files | {"config.json": bert})
    fill(cache, "pickles", FIRST, {"config.json": b"{}", "pytorch_model.bin": b""})
    fill(cache, "odd/name", "no-commit", files)
    fill(cache, "..", FIRST, files)
    (cache / f"datasets--{NAME}" / "snapshots" / FIRST).mkdir(parents=True)
    code, lines, err = run(capfd, "list")
    assert (code, err) == (0, [])
    assert lines[0].split() == ["size", "type", "runs", "name"]
    assert [line.split()[2:] for line in lines[1:]] == [
        *(["embedded", "yes", model.name] for model in EMBEDDED),
        ["bert", "no", f"bert@{FIRST[:12]}"],
        ["llama", "yes", f"{NAME}@{FIRST[:12]}"],
        ["hub", "incomplete", f"{NAME}@{SECOND[:12]}"],
    ]
    assert FIRST < SECOND
    code, lines, err = run(capfd, "list", "--json")
    found = [json.loads(line) for line in lines]
    assert all(entry["schema"] == 1 for entry in found)
    assert {(entry["name"], entry["commit"], entry["runs"], entry["incomplete"]) for entry in found} == {
        *((model.name, None, True, False) for model in EMBEDDED),
        ("bert", FIRST, False, False),
        (NAME, FIRST, True, False),
        (NAME, SECOND, False, True),
    }
    size = {entry["name"]: entry["size_bytes"] for entry in found if entry["commit"] == FIRST}
    assert size[NAME] == sum(map(len, files.values()))


def test_list_without_a_cache(cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    cache.rmdir()
    code, lines, err = run(capfd, "list")
    assert (code, err, len(lines)) == (0, [], 1 + len(EMBEDDED))


def test_info(snapshot: Path, files: dict[str, bytes], capfd: pytest.CaptureFixture[str], archive: bytes) -> None:
    code, lines, err = run(capfd, "info", NAME, "--digests")
    assert (code, err) == (0, [])
    facts = {line[:16].strip(): line[18:] for line in lines}
    entry = llmzip.info(archive).archives[0]
    assert facts["name"] == NAME and facts["commit"] == FIRST and facts["folder"] == str(snapshot)
    assert (facts["model type"], facts["runs"], facts["context"]) == ("llama", "yes", "256 positions")
    assert facts["tokenizer"] == "byte-level"
    assert (facts["model digest"], facts["tokenizer digest"]) == (entry.model_digest, entry.tokenizer_digest)
    code, lines, err = run(capfd, "info", NAME, "--json")
    found = json.loads(lines[0])
    # Embedding, head, four attention matrices, three of the MLP, three norms.
    assert found["parameters"] == 2 * 320 * 320 + 4 * 32 * 320 + 3 * 16 * 320 + 3 * 320
    assert found["size_bytes"] == sum(map(len, files.values()))
    assert (found["num_layers"], found["vocab_size"], found["reason"]) == (1, 320, None)
    assert "model_digest" not in found


def test_info_tells_why_a_model_does_not_run(
    cache: Path, files: dict[str, bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    bert = json.dumps({"model_type": "bert", "vocab_size": 5, "num_hidden_layers": 7}).encode()
    fill(cache, "bert", FIRST, files | {"config.json": bert})
    code, lines, _ = run(capfd, "info", "bert")
    assert code == 0
    assert any(
        line.startswith("runs") and "no: model_type 'bert' is not one the exact engine runs" in line for line in lines
    )
    assert any(line.startswith("layers") and line.split()[1] == "7," for line in lines)
    code, lines, err = run(capfd, "info", "nobody/nothing")
    assert (code, lines, len(err)) == (3, [], 1)
    assert "models pull nobody/nothing" in err[0]


def test_info_of_a_folder(checkpoint: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, lines, _ = run(capfd, "info", str(checkpoint), "--json")
    found = json.loads(lines[0])
    assert (code, found["place"], found["commit"], found["folder"]) == (0, "folder", None, str(checkpoint))


def test_verify(snapshot: Path, files: dict[str, bytes], capfd: pytest.CaptureFixture[str]) -> None:
    code, lines, err = run(capfd, "verify", NAME)
    assert (code, err) == (0, [])
    assert lines == [f"ok       {name}" for name in sorted(files)]


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_verify_finds_one_changed_byte(
    snapshot: Path, files: dict[str, bytes], name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    blob = (snapshot / name).resolve()
    blob.write_bytes(files[name][:-1] + bytes([files[name][-1] ^ 1]))
    code, lines, err = run(capfd, "verify", f"{NAME}@{FIRST}")
    assert code == 3
    assert [line for line in lines if not line.startswith("ok ")] == [f"damaged  {name}"]
    assert len(err) == 1
    assert f"1 of 3 files differ from the Hub's: {name} is damaged; remove {blob}, then " in err[0]
    assert f"`llmzip models pull {NAME}@{FIRST}`" in err[0]
    code, lines, _ = run(capfd, "verify", "--json", NAME)
    assert code == 3
    verdicts = {entry["file"]: entry["verdict"] for entry in map(json.loads, lines)}
    assert verdicts == dict.fromkeys(files, "ok") | {name: "damaged"}


def test_verify_does_not_call_ok_what_it_cannot_check(snapshot: Path, capfd: pytest.CaptureFixture[str]) -> None:
    blob = (snapshot / "config.json").resolve()
    (snapshot / "config.json").unlink()
    shutil.copy(blob, snapshot / "config.json")
    (snapshot / "README.md").symlink_to("../../blobs/gone")
    code, lines, _ = run(capfd, "verify", NAME)
    assert code == 3
    assert {"unchecked config.json", "missing  README.md"} <= set(lines)


def test_verify_sees_through_a_blob_that_is_a_link_itself(
    snapshot: Path, files: dict[str, bytes], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    blob = (snapshot / "model.safetensors").resolve()
    blob.rename(tmp_path / "stored elsewhere")
    blob.symlink_to(tmp_path / "stored elsewhere")
    assert blob.name == etag("model.safetensors", files["model.safetensors"])
    assert run(capfd, "verify", NAME)[0] == 0
    (tmp_path / "stored elsewhere").write_bytes(b"")
    code, _, err = run(capfd, "verify", NAME)
    assert code == 3 and f"remove {tmp_path / 'stored elsewhere'}" in err[0]


def test_verify_embedded_models(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(capfd, "verify", DEFAULT.name)[0] == 0
    own = DEFAULT
    wrong = EmbeddedModel(own.code, own.name, bytes(32), own.tokenizer_digest)
    monkeypatch.setattr(embedded, "EMBEDDED", (wrong,))
    code, lines, err = run(capfd, "verify", own.name)
    assert (code, lines) == (3, [])
    assert f"expected model digest {bytes(32).hex()}, found {own.model_digest.hex()}" in err[0]


def test_verify_knows_nothing_of_folders(checkpoint: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capfd, "verify", str(checkpoint))
    assert code == 3 and "is a folder, and there is nothing to compare it with" in err[0]


@pytest.mark.parametrize("arguments", [[], ["pull"], ["pull", "a/b/c"], ["pull", "../x"], ["nothing"]])
def test_wrong_usage(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    code, lines, err = run(capfd, *arguments)
    assert (code, lines, len(err)) == (2, [], 2)
    assert err[1].startswith("llmzip: for help: llmzip models")


# -- what goes wrong while downloading ---------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["exact", "float"])
def test_only_the_exact_engine_refuses_models_before_their_weights(
    tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    asked: list[hub.HubId] = []

    def download(wanted: hub.HubId, accept: Callable[[Path], None], *rest: object) -> hub.Snapshot:
        asked.append(wanted)
        accept(tmp_path)
        raise llmzip.ModelNotFoundError("accepted")

    monkeypatch.setattr(hub, "find", lambda wanted: None)
    monkeypatch.setattr(hub, "forbidden_by_environment", lambda: False)
    monkeypatch.setattr(hub, "download", download)
    assert main.main(["--engine", engine, "-m", f"{NAME}@v1", "nothing"]) == 3
    assert asked == [hub.HubId(NAME, "v1")]
    words = {"exact": "model_type 'bert' is not one the exact engine runs", "float": "llmzip: accepted\n"}
    assert words[engine] in capfd.readouterr().err


def test_the_environment_forbids_downloads(cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, lines, err = run(capfd, "pull", NAME)
    assert (code, lines) == (3, [])
    assert err == [f"llmzip: model {NAME} is not downloaded: HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE forbids it"]


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_VERBOSITY", "info")
    for name in ("HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_PROGRESS_BARS"):
        monkeypatch.delenv(name, raising=False)
    hub.cache_folder()
    assert os.environ["HF_HUB_VERBOSITY"] == "info"
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] == "1"


def test_errors_of_the_library_become_one_line(cache: Path) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    wanted = hub.HubId(NAME)
    refused = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
    unreachable = LocalEntryNotFoundError("cannot find\nthe file")
    unreachable.__cause__ = refused
    for error, words in (
        (OSError(errno.ENOSPC, "No space left on device"), f"the disk of {cache} is full; HF_HUB_CACHE names another"),
        (
            PermissionError(errno.EACCES, "Permission denied", "/blobs/x"),
            "cannot be stored: Permission denied: /blobs/x",
        ),
        (unreachable, "cannot be downloaded from https://.*: Connection refused; try again, or give a folder"),
        (RuntimeError("first line\nsecond line"), "cannot be downloaded from https://.*: first line; "),
        (RuntimeError(), "cannot be downloaded from https://.*: RuntimeError; "),
    ):
        with pytest.raises(llmzip.ModelNotFoundError, match=words) as caught, hub._explained(wanted):
            raise error
        assert "\n" not in str(caught.value) and caught.value.__cause__ is error


def test_the_bar_counts_what_comes_into_the_folder(tmp_path: Path) -> None:
    (tmp_path / "before").write_bytes(bytes(7))
    counted: list[int] = []
    with hub._watched(tmp_path, counted.append):
        (tmp_path / "x.incomplete").write_bytes(bytes(1000))
        (tmp_path / "x.incomplete").rename(tmp_path / "x")
        (tmp_path / "before").unlink()
        (tmp_path / "y").write_bytes(bytes(50))
    assert sum(counted) == 1043
    with hub._watched(tmp_path / "nowhere", counted.append), hub._watched(tmp_path, None):
        pass
    assert sum(counted) == 1043


def test_interruptions_are_not_explained_away() -> None:
    with pytest.raises(KeyboardInterrupt), hub._explained(hub.HubId(NAME)):
        raise KeyboardInterrupt


def test_a_model_that_does_not_fit_on_the_disk_is_not_begun(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(9, 9, 2_500_000))
    hub._check_room(hub.HubId(NAME), 2_500_000)
    hub._check_room(hub.HubId(NAME), None)
    with pytest.raises(llmzip.ModelNotFoundError, match=r"it needs 2\.6 MB, and the disk of .* has 2\.5 MB free"):
        hub._check_room(hub.HubId(NAME), 2_600_000)
