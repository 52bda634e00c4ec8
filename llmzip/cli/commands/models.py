"""The command `llmzip models`: its options and tables. Knows neither the cache's layout nor the byte format."""

from __future__ import annotations

import contextlib
import hashlib
import json as jsonlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click

from ...errors import LLMZipError, ModelMismatchError, ModelNotFoundError, ModelUnsupportedError
from ...format.headers import DIGEST_BYTES
from ...models import hub, layout, store
from ...models.choice import ModelChoice, choose_model, resolve_model, unsupported_reason
from ...models.config import MAX_VOCAB
from ...models.embedded import EMBEDDED, embedded_by_name
from ...models.gguf import ollama
from ...models.reference import Kind, ModelRef, parse_model
from ...models.tokenizer_file import TokenizerFile
from ...system import process
from ...system.fileops import hash_file
from .. import options
from ..command import CONTEXT, Output, command
from ..messages import Messages

_MAX_HEADER_BYTES = 100_000_000  # of a safetensors file, by its specification
_COMMIT_DIGITS = 12  # of a commit, in tables
_ROW = "{:<16}  {}"

# Names of the sizes in configurations: those of the exact engine, and those of most models that it does not run.
_SIZES = {
    name: name
    for name in ("vocab_size", "num_layers", "hidden_size", "mlp_size", "num_heads", "num_kv_heads", "head_dim")
}
_USUAL_NAMES = _SIZES | {
    "num_layers": "num_hidden_layers",
    "mlp_size": "intermediate_size",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
}

_name = click.argument("name", metavar="NAME")


@click.group(
    "models", context_settings=CONTEXT, epilog=options.EXIT_STATUS, invoke_without_command=True, no_args_is_help=False
)
@click.pass_context
def models_command(ctx: click.Context) -> None:
    """List, download, store and check models.

    A model is embedded in the package, a folder with a Hugging Face checkpoint, a GGUF file, one that Ollama keeps on
    this machine (ollama:NAME or ollama:NAME:TAG), stored by llmzip (stored:NAME or stored:DIGEST), or on the Hugging
    Face Hub: org/name, or org/name@revision for a branch, tag or commit. Models from the Hub are in the standard
    Hugging Face cache; HF_HOME or HF_HUB_CACHE set its location. A name without an owner is never looked up on the Hub.

    Archives find a stored model by its digest. It is looked for in the folders that LLMZIP_MODEL_PATH lists, with
    colons between them, then in $XDG_DATA_HOME/llmzip/models (~/.local/share/llmzip/models), then in the Hugging Face
    cache.

    \b
    llmzip models add app-model
    llmzip models pull HuggingFaceTB/SmolLM2-135M
    llmzip --model HuggingFaceTB/SmolLM2-135M book.txt
    """
    if ctx.invoked_subcommand is None:
        names = ", ".join(models_command.commands)
        raise click.UsageError(f"name a command: {names}", ctx)


# -- list ------------------------------------------------------------------------------------------------------------


@command("list")
def list_command(output: Output, messages: Messages) -> None:
    """List the models on this machine.

    These are the embedded models, stored ones, those in the Hugging Face cache that have safetensors, and Ollama's. A
    stored model is followed by the first digits of its digest. The column runs
    says whether the exact engine can run them, judging by the configuration; llmzip models info NAME says why not.
    """
    del messages
    form = "{:>10}  {:<12} {:<10} {}"
    output.line(form.format("size", "type", "runs", "name"))
    for row in _rows():
        kind = row.model_type or layout.config_or_empty(row.folder).get("model_type")
        size, runs = _size_bytes(row.folder), unsupported_reason(row.folder) is None
        output.record(
            name=row.name, place=row.place, commit=row.commit, folder=str(row.folder), size_bytes=size,
            model_type=kind, runs=runs, incomplete=row.is_incomplete, model_digest=row.model_digest,
            tokenizer_digest=row.tokenizer_digest,
        )  # fmt: skip
        shown = row.name if row.commit is None else f"{row.name}@{row.commit[:_COMMIT_DIGITS]}"
        if row.place == Kind.STORED.value and row.model_digest is not None:
            shown += f" ({row.model_digest[:_COMMIT_DIGITS]})"
        word = "incomplete" if row.is_incomplete else "yes" if runs else "no"
        output.line(form.format(hub.size_text(size), str(kind or row.place), word, shown))


class _Row(NamedTuple):
    """A model of the list; digests are the first halves in hexadecimal, None where nobody has computed them."""

    name: str
    place: str
    folder: Path
    commit: str | None = None
    is_incomplete: bool = False
    model_type: str | None = None
    model_digest: str | None = None
    tokenizer_digest: str | None = None


def _rows() -> Iterator[_Row]:
    """Yields the models on this machine."""
    for model in EMBEDDED:
        if model.folder.is_dir():
            digests = [digest[:DIGEST_BYTES].hex() for digest in (model.model_digest, model.tokenizer_digest)]
            yield _Row(model.name, "embedded", model.folder, None, False, None, *digests)
    for kept in store.stored():
        tokenizer = kept.tokenizer_digest or None
        yield _Row(kept.name, "stored", kept.folder, None, False, kept.model_type, kept.model_digest, tokenizer)
    for snapshot in hub.cached():
        yield _Row(snapshot.name, "hub", snapshot.folder, snapshot.commit, _is_incomplete(snapshot))
    for name, path in ollama.names():
        yield _Row(name, "ollama", path)


def _size_bytes(place: Path) -> int:
    """Returns the bytes of a model's files; links count as the files that they lead to."""
    if layout.is_gguf(place):
        return sum(file.stat().st_size for file in layout.model_files(place))
    return hub.size_bytes(place)


def _is_incomplete(snapshot: hub.Snapshot) -> bool:
    try:
        return bool(hub.missing_files(snapshot))
    except ModelUnsupportedError:
        return True


# -- info ------------------------------------------------------------------------------------------------------------


@command(
    "info",
    _name,
    click.option("--digests", is_flag=True, help="Load the model and show the digests that archives record."),
)
def info_command(output: Output, messages: Messages, name: str, digests: bool) -> None:
    """Describe a model and whether it runs exactly.

    NAME is an embedded model, a folder, a GGUF file, ollama:NAME, stored:NAME, or a Hub name that is in the cache.
    Nothing is downloaded.
    """
    del messages
    ref = resolve_model(parse_model(name))
    choice = choose_model(ref)
    reason = unsupported_reason(choice.folder)
    shape = _shape(choice.folder)
    facts: dict[str, Any] = {
        "name": ref.name,
        "place": ref.kind.value,
        "commit": ref.revision,
        "folder": str(choice.folder),
        "model_type": layout.config_or_empty(choice.folder).get("model_type"),
        "runs": reason is None,
        "reason": reason,
        **shape,
        **_tokenizer(choice.folder, shape["vocab_size"]),
        "quantisations": _quantisations(choice.folder),
        "size_bytes": _size_bytes(choice.folder),
    }
    if digests:
        facts |= _digests(choice)
    output.record(**facts)
    for key, text in _texts(facts).items():
        output.line(_ROW.format(key, text))


def _shape(folder: Path) -> dict[str, Any]:
    """Returns the sizes of a model; None for those that its files do not give."""
    if (folder / layout.INT8).exists():
        from ...models.int8form import describe_int8

        config, num_values = describe_int8(folder / layout.INT8)
        return {**_sizes(config), "context": config.get("context"), "parameters": num_values}
    from ...models import families

    config = layout.config_or_empty(folder)
    try:
        family = families.read(config)
        sizes = {**_sizes(family.settings), "context": family.positions}
    except (ModelUnsupportedError, KeyError, TypeError, ValueError, AttributeError, ArithmeticError):
        sizes = {**_sizes(config, _USUAL_NAMES), "context": config.get("max_position_embeddings")}
    return {**sizes, "parameters": _num_parameters(folder)}


def _sizes(config: Mapping[str, Any], names: Mapping[str, str] = _SIZES) -> dict[str, Any]:
    return {ours: config.get(name) for ours, name in names.items()}


def _num_parameters(folder: Path) -> int | None:
    """Returns how many numbers the weights have, by the headers of their files; None if those cannot be read."""
    total = 0
    if layout.is_gguf(folder):
        from ...models.gguf.reader import open_gguf

        return sum(math.prod(tensor.shape) for tensor in open_gguf(folder).tensors.values())
    try:
        for name in hub.weight_files(folder, [path.name for path in folder.iterdir()]):
            with (folder / name).open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                header = jsonlib.loads(file.read(min(length, _MAX_HEADER_BYTES)))
            total += sum(math.prod(entry["shape"]) for key, entry in header.items() if key != "__metadata__")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ModelUnsupportedError):
        return None
    return total or None


def _tokenizer(folder: Path, vocab_size: object) -> dict[str, Any]:
    """Returns the kind of a tokenizer, the bytes that it has no token for, and what a user of a GGUF file should know.

    What the files do not say is None.
    """
    from ...models.gguf.tokenizer import remark
    from ...models.token_table import TokenTable  # here, so that --help is quick

    facts: dict[str, Any] = {"tokenizer": None, "lacking_bytes": None}
    facts["tokenizer_remark"] = remark(folder) or None if layout.is_gguf(folder) else None
    with contextlib.suppress(LLMZipError):
        file = TokenizerFile.read(folder)
        facts["tokenizer"] = file.kind or str(file.description["model"].get("type"))
        if type(vocab_size) is int and 0 < vocab_size <= MAX_VOCAB:
            facts["lacking_bytes"] = list(TokenTable(file.byte_table(vocab_size)).lacking)
    return facts


def _tokenizer_text(facts: Mapping[str, Any]) -> str:
    from ...models.token_table import lacking_text

    note = lacking_text(bytes(facts["lacking_bytes"] or ()))
    return ", ".join(filter(None, (facts["tokenizer"] or "not readable", note)))


def _quantisations(place: Path) -> dict[str, int] | None:
    """Returns how many tensors of a GGUF file have each quantisation; None for other models."""
    if not layout.is_gguf(place):
        return None
    from ...models.gguf.reader import open_gguf

    return open_gguf(place).quantisations()


def _digests(choice: ModelChoice) -> dict[str, str]:
    """Returns the digests as archives record them: whole for an embedded model, else their first half."""
    from ...inference.load import load
    from ...settings import EngineSettings

    if choice.embedded is not None:
        model, tokenizer = choice.embedded.model_digest, choice.embedded.tokenizer_digest
        load(choice, EngineSettings())  # checks them
    else:
        record = load(choice, EngineSettings()).record
        model, tokenizer = record.model_digest, record.tokenizer_digest
    return {"model_digest": model.hex(), "tokenizer_digest": tokenizer.hex()}


def _texts(facts: dict[str, Any]) -> dict[str, str]:
    """Returns the facts as people read them, by their titles."""

    def number(key: str) -> str:
        value = facts[key]
        return f"{value:,}" if isinstance(value, int) else "?"

    texts = {
        "name": facts["name"],
        "commit": facts["commit"] or "",
        "folder" if facts["quantisations"] is None else "GGUF file": facts["folder"],
        "model type": facts["model_type"] or ("embedded" if facts["place"] == "embedded" else "?"),
        "runs": "yes" if facts["runs"] else f"no: {facts['reason']}",
        "parameters": number("parameters"),
        "layers": f"{number('num_layers')}, hidden size {number('hidden_size')}, MLP {number('mlp_size')}",
        "heads": f"{number('num_heads')} of size {number('head_dim')}, {number('num_kv_heads')} for keys and values",
        "context": f"{number('context')} positions",
        "vocabulary": number("vocab_size"),
        "tokenizer": "; ".join(filter(None, (_tokenizer_text(facts), facts["tokenizer_remark"]))),
        "tensors": ", ".join(f"{count} {name}" for name, count in (facts["quantisations"] or {}).items()),
        "size on disk": hub.size_text(facts["size_bytes"]),
        "model digest": facts.get("model_digest", ""),
        "tokenizer digest": facts.get("tokenizer_digest", ""),
    }
    return {key: str(text) for key, text in texts.items() if text}


# -- pull ------------------------------------------------------------------------------------------------------------


@command("pull", click.argument("name", metavar="ORG/NAME[@REVISION]"), options.progress)
def pull_command(output: Output, messages: Messages, name: str) -> None:
    """Download a model from the Hugging Face Hub.

    Download the configuration, the tokenizer and safetensors, never pickled weights; files that are in the cache are
    kept. Print the commit and the folder. For gated and private models, log in with hf auth login or set HF_TOKEN.
    """
    model = hub.parse(name)
    if model is None or not model.has_owner:
        hint = ""
        if embedded_by_name(name) is not None:
            hint = "; it is an embedded model, so there is nothing to download"
        elif model is not None and not model.with_owner.startswith("org/"):
            hint = f"; did you mean {model.with_owner}?"
        raise click.UsageError(
            f"{name!r} is not of the form org/name or org/name@revision{hint}", click.get_current_context(silent=True)
        )
    snapshot = hub.download(model, lambda folder: None, messages.notice, messages.progress)
    reason = unsupported_reason(snapshot.folder)
    if reason is not None:
        messages.notice(f"the exact engine cannot run it: {reason}; use --engine float")
    output.record(name=snapshot.name, commit=snapshot.commit, folder=str(snapshot.folder))
    output.line(_ROW.format("name", snapshot.name))
    output.line(_ROW.format("commit", snapshot.commit))
    output.line(_ROW.format("folder", snapshot.folder))


# -- add and remove --------------------------------------------------------------------------------------------------


@command(
    "add",
    click.argument("names", metavar="NAME...", nargs=-1, required=True),
    click.option(
        "--to", "place", metavar="DIR", type=click.Path(path_type=Path),
        help="Folder to store in, such as one that LLMZIP_MODEL_PATH lists.  [default: that of your data]",
    ),
)  # fmt: skip
def add_command(output: Output, messages: Messages, names: tuple[str, ...], place: Path | None) -> None:
    """Store models, so that archives find them.

    NAME is a folder, a GGUF file, ollama:NAME, or a Hub name that is in the cache. Its int8 weights and its tokenizer
    are copied into $XDG_DATA_HOME/llmzip/models (~/.local/share/llmzip/models), in a folder that is named by their
    digests. Archives of it then decompress without --model, whatever context they were made with, even if NAME is gone.
    A model that is stored already is compared with its digests, and replaced if it is damaged.
    """
    from ...inference.storing import store_model

    for name in names:
        with process.signals_clean_up(lambda signal_name: messages.stopped(signal_name, "nothing was stored")):
            model, is_new = store_model(name, place)
        size = _size_bytes(model.folder)
        output.record(
            name=model.name, folder=str(model.folder), size_bytes=size, model_digest=model.model_digest,
            tokenizer_digest=model.tokenizer_digest, is_new=is_new,
        )  # fmt: skip
        output.line(_ROW.format("name", model.name))
        output.line(_ROW.format("model digest", model.model_digest))
        output.line(_ROW.format("folder", model.folder))
        output.line(_ROW.format("size on disk", hub.size_text(size) + ("" if is_new else ", stored before")))


@command("remove", click.argument("names", metavar="NAME|DIGEST...", nargs=-1, required=True))
def remove_command(output: Output, messages: Messages, names: tuple[str, ...]) -> None:
    """Remove stored models.

    DIGEST may be its first digits, at least 4. The model is removed from every place where models are stored; archives
    of it then need --model. Other models, such as those of the Hugging Face cache, are never removed.
    """
    del messages
    for name in names:
        for model in store.remove(name.removeprefix(store.PREFIX)):
            output.record(name=model.name, folder=str(model.folder), model_digest=model.model_digest)
            output.line(_ROW.format("removed", model.folder))


# -- verify ----------------------------------------------------------------------------------------------------------


@command("verify", _name)
def verify_command(output: Output, messages: Messages, name: str) -> None:
    """Verify a model against its published hashes.

    The files of a Hub model are compared with their hashes on the Hub, an embedded model with the digests in the
    format's specification, a stored model with the digests that it is stored by, the file of one of Ollama with the
    hash in its name. Any difference ends with exit status 3.
    """
    del messages
    ref = resolve_model(parse_model(name))
    if ref.kind is Kind.EMBEDDED:
        from ...inference.load import load
        from ...settings import EngineSettings

        load(choose_model(ref), EngineSettings())
        output.record(name=ref.name, file=None, verdict="ok")
        output.line("ok       model and tokenizer digest")
        return
    if ref.kind is Kind.STORED and ref.folder is not None:
        store.check(ref.folder)
        output.record(name=ref.name, file=None, verdict="ok")
        output.line("ok       model and tokenizer digest")
        return
    if ref.folder is not None and (digest := ollama.blob_digest(ref.folder)) is not None:
        _verify_blob(output, ref, digest)
        return
    snapshot = None if ref.hub_id is None else hub.find(ref.hub_id)
    if snapshot is None:
        raise ModelNotFoundError(
            f"model {name!r} is a {'file' if ref.kind is Kind.GGUF else 'folder'}, and there is nothing to compare it "
            f"with; `llmzip models info --digests {name}` shows its digests"
        )
    wrong, num_files = [], 0
    for file in hub.checked_files(snapshot):
        num_files += 1
        output.record(name=snapshot.name, commit=snapshot.commit, file=file.name, verdict=file.verdict)
        output.line(f"{file.verdict:<8} {file.name}")
        if file.verdict != "ok":
            wrong.append(file)
    if wrong:
        first = wrong[0]
        raise ModelMismatchError(
            f"model {snapshot}: {len(wrong)} of {num_files} files differ from the Hub's: "
            f"{first.name} is {first.verdict}; remove {first.blob}, then "
            + hub.how_to_pull(hub.HubId(snapshot.name, snapshot.commit), "fetches it again")
        )


def _verify_blob(output: Output, ref: ModelRef, digest: str) -> None:
    """Compares a file of Ollama with the SHA-256 in its name."""
    assert ref.folder is not None  # resolved
    verdict = "ok" if hash_file(ref.folder, hashlib.sha256()) == digest else "damaged"
    output.record(name=ref.name, file=ref.folder.name, verdict=verdict)
    output.line(f"{verdict:<8} {ref.folder.name}")
    if verdict != "ok":
        raise ModelMismatchError(f"model {ref.name}: {ref.folder} is damaged: remove it, then pull the model again")


for _subcommand in (list_command, info_command, pull_command, add_command, remove_command, verify_command):
    models_command.add_command(_subcommand)
