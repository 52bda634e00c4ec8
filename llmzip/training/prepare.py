"""From settings to a training at its first step: texts, tokenizer, tokens, shape, plan. Must not know how to train."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from ..engines import devices
from ..errors import LLMZipError, ModelUnsupportedError, SettingsError
from ..models import weights
from ..models.choice import choose_model
from ..models.convert import convert
from ..models.tokenizer import Tokenizer
from ..models.tokenizer_file import TokenizerFile
from . import bpe, checkpoint, dataset, hfweights, machine, planning, schedule, shapes, texts
from .listener import Listener
from .network import Network
from .settings import TrainSettings
from .shapes import Shape
from .trainer import Facts, Sample, Trainer, evaluated_rows, make_samples

_MAX_SAMPLE_BYTES = 1 << 20
"""1 MiB of each validation text is tokenised for the samples."""
MODEL_FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "model.llmzw",
    "README.md",
)
"""What a training leaves in the model's folder."""


def prepare(settings: TrainSettings, listener: Listener) -> Trainer:
    """Does everything up to the first checkpoint, which is on the disk when this returns.

    Raises:
        LLMZipError: something is wrong with the settings, the texts, the model or the disk.
    """
    try:
        return _prepare(settings, listener)
    except OSError as error:
        raise LLMZipError(f"{settings.folder}: cannot be written: {error.strerror or error}") from None


def _prepare(settings: TrainSettings, listener: Listener) -> Trainer:
    device = torch.device(devices.find(settings.engine.device))
    if settings.engine.threads is not None:
        torch.set_num_threads(settings.engine.threads or os.cpu_count() or 1)
    _check_folder(settings)
    texts.check_size(settings.texts, settings.folder)  # before a model is loaded
    passed_over: list[Path] = []
    files = texts.find(settings.texts, settings.folder, passed_over)
    texts.find(settings.valid)  # refuses a missing file before all text is read
    base = None if settings.start_from is None else _Base(settings)
    started = time.monotonic()
    with listener.progress("reading", None) as advance:
        sources = dataset.survey(files, settings.mix, settings.seed, advance)
    total = sum(source.size for source in sources)
    listener.fact(f"text: {len(files):,} files, {total:,} bytes")
    if passed_over:
        listener.fact(f"passed over: {len(passed_over):,} files that are not text, such as {passed_over[0]}")
    folder = _empty_folder(settings)
    if base is None:
        shape = _new_tokenizer(settings.shape(), sources, folder, listener)
    else:
        shape = base.shape
        bpe.write(base.tokenizer, folder)
    tokenizer = Tokenizer(folder, shape.vocab_size)
    with listener.progress("tokenising", total) as advance:
        dataset.write(
            folder, sources, settings.texts, tokenizer=tokenizer, hold_out=not settings.valid, progress=advance
        )
    data = dataset.Dataset(folder)
    listener.fact(
        f"tokens: {len(data.ids):,}, {data.num_bytes / len(data.ids):.2f} bytes each "
        f"({time.monotonic() - started:.0f} s)"
    )
    listener.fact(f"model: {shape.describe()}")
    start_token = int(tokenizer.table.single_bytes()[0]) if base is None else base.start_token
    facts = _facts(settings, data, shape, device=device, start_token=start_token)
    _write_valid(folder, read_valid(settings.valid) or data.held_out)
    planning.make(settings, facts, data, folder=folder, listener=listener)
    trainer = Trainer(folder, facts, data, samples(folder, facts))
    if base is None:
        trainer.network.initialise(settings.seed)
    else:
        base.fill(trainer, settings.seed)
    trainer.save()
    return trainer


def _new_tokenizer(shape: Shape, sources: Sequence[dataset.Source], folder: Path, listener: Listener) -> Shape:
    """Trains a tokenizer and writes it; returns the shape with the vocabulary that the text has pairs for."""
    description, vocab_size = bpe.train(dataset.samples(sources), shape.vocab_size)
    bpe.write(description, folder)
    if vocab_size <= 256 < shape.vocab_size:
        raise LLMZipError("the text has no words in UTF-8 that occur more than once: nothing to train on")
    if vocab_size < shape.vocab_size:
        listener.fact(f"vocabulary: {vocab_size:,} tokens, all that this text has pairs for")
    return dataclasses.replace(shape, vocab_size=min(vocab_size, shape.vocab_size))


def _facts(
    settings: TrainSettings, data: dataset.Dataset, shape: Shape, *, device: torch.device, start_token: int
) -> Facts:
    """Returns what is settled before a plan is made."""
    dtype = machine.choose_dtype(device)
    return Facts(
        shape=shapes.as_dict(shape),
        plan={},
        seed=settings.seed,
        dtype=str(dtype).removeprefix("torch."),
        compiled=False,
        threads=torch.get_num_threads(),
        device=str(device),
        torch_version=str(torch.__version__),
        start_token=start_token,
        tokens_digest=data.digest,
        peak_flops=machine.matrix_flops(device, dtype),
        about={
            "texts": list(settings.texts),
            "valid": list(settings.valid),
            "mix": dict(settings.mix),
            "from": None if settings.start_from is None else os.fspath(settings.start_from),
            "parts": [vars(part) for part in data.parts],
            "bytes": data.num_bytes,
            "tokens": len(data.ids),
            "preset": settings.preset,
        },
    )


def resume(folder: Path, steps: int | None = None, seconds: float | None = None) -> Trainer:
    """Returns the unfinished training in a model's folder.

    Args:
        folder: of the model.
        steps: number of steps in all, to end sooner or later than planned; None for the planned number.
        seconds: time for the steps that are left, instead of `steps`; None for no limit.

    Raises:
        SettingsError: no steps are left.
        LLMZipError: there is no unfinished training, or it cannot be read.
    """
    inside = folder / checkpoint.FOLDER
    if not checkpoint.exists(inside):
        raise LLMZipError(f"{folder}: no unfinished training here")

    def new_steps(facts: Facts, done: int) -> int:
        wanted = steps if steps is not None else done + 1
        facts.time_limit = None if seconds is None else facts.seconds + seconds
        if seconds is not None:
            if not done:
                raise SettingsError("--time: no step is done yet, so their time is unknown; use --steps")
            wanted = done + max(1, int(seconds * done / facts.seconds))
        if wanted <= done:
            raise SettingsError(f"--steps: {done:,} steps are done already")
        return wanted

    changed = steps is not None or seconds is not None
    return Trainer.resume(
        inside, dataset.Dataset(inside), lambda facts: samples(inside, facts), new_steps if changed else None
    )


def samples(folder: Path, facts: Facts) -> list[Sample]:
    """Returns the validation texts of a training as rows of tokens."""
    shape = Shape(**facts.shape)
    tokenizer = Tokenizer(folder, shape.vocab_size)
    lengths = np.array([len(entry) for entry in tokenizer.table.entries])
    tokens = {}
    for name, text in valid_texts(folder).items():
        ids = tokenizer.encode(text[:_MAX_SAMPLE_BYTES])
        known = np.where(ids < shape.vocab_size, ids, facts.start_token)  # what engines feed for byte tokens
        tokens[name] = (known, lengths[ids])
    rows = evaluated_rows(shape, schedule.Plan(**facts.plan))
    return make_samples(tokens, shape.sequence, facts.start_token, total_rows=rows)


def read_valid(names: Sequence[str]) -> dict[str, bytes]:
    """Reads whole validation files: name -> text. Files below one directory are joined by NUL bytes."""
    joined: dict[str, list[bytes]] = {}
    for file in texts.find(names):
        joined.setdefault(os.fspath(names[file.source]), []).append(b"".join(texts.chunks(file.path)))
    return {name: b"\0".join(parts) for name, parts in joined.items()}


_VALID_NAMES = "valid.json"
_VALID_FOLDER = "valid"


def _write_valid(folder: Path, valid: dict[str, bytes]) -> None:
    (folder / _VALID_FOLDER).mkdir(exist_ok=True)
    for number, text in enumerate(valid.values()):
        (folder / _VALID_FOLDER / str(number)).write_bytes(text)
    (folder / _VALID_NAMES).write_text(json.dumps(list(valid)) + "\n", encoding="utf-8")


def valid_texts(folder: Path) -> dict[str, bytes]:
    """Reads the validation texts in a training's folder: name -> text."""
    try:
        names = json.loads((folder / _VALID_NAMES).read_text(encoding="utf-8"))
        return {name: (folder / _VALID_FOLDER / str(number)).read_bytes() for number, name in enumerate(names)}
    except (OSError, ValueError, TypeError) as error:
        raise LLMZipError(f"{folder}: the validation texts cannot be read: {error}") from None


# -- folders and base models -----------------------------------------------------------------------------------------


def _check_folder(settings: TrainSettings) -> None:
    """Refuses to overwrite a model or an unfinished training without `force`."""
    if settings.folder.exists() and not settings.folder.is_dir():
        raise SettingsError(f"{settings.folder}: exists and is not a directory")
    if settings.force:
        return
    if checkpoint.exists(settings.folder / checkpoint.FOLDER):
        raise LLMZipError(
            f"{settings.folder}: holds an unfinished training: continue it with --resume, or replace it with --force"
        )
    existing = [name for name in MODEL_FILES if (settings.folder / name).exists()]
    if existing:
        raise LLMZipError(f"{settings.folder}: holds a model ({existing[0]}): use --force to replace it")


def _empty_folder(settings: TrainSettings) -> Path:
    """Creates an empty folder for an unfinished training."""
    inside = settings.folder / checkpoint.FOLDER
    try:
        shutil.rmtree(inside, ignore_errors=True)
        inside.mkdir(parents=True)
    except OSError as error:
        raise LLMZipError(f"{inside}: cannot be created: {error.strerror}") from None
    return inside


class _Base:
    """The model to continue from: a checkpoint, or else an int8 form."""

    def __init__(self, settings: TrainSettings) -> None:
        assert settings.start_from is not None
        self.folder = choose_model(settings.start_from).folder
        sequence = settings.overrides.get("sequence")
        self._load: Callable[[Network], None]
        if weights.is_int8(self.folder) and not (self.folder / "config.json").exists():
            exact = weights.load_model(self.folder)
            self.start_token = exact.config.start_token
            self.shape = hfweights.shape_of_int8(exact, sequence)
            self._load = lambda network: hfweights.load_int8(network, exact)
        else:
            config, tensors = weights.read_checkpoint(self.folder)
            try:
                loaded_shape = self.shape = shapes.from_config(config, sequence)
                # What the exact engine cannot run is refused now, not after the training.
                self.start_token = convert(config, tensors, 1, shapes.DECODED_CONTEXT).config.start_token
            except ModelUnsupportedError as error:
                raise ModelUnsupportedError(f"model {self.folder}: {error}") from None
            self._load = lambda network: hfweights.load(network, tensors, loaded_shape)
        layers = settings.overrides.get("num_layers", self.shape.num_layers)
        if layers < self.shape.num_layers:
            raise SettingsError(f"--layers: the model has {self.shape.num_layers}, and --from can only add some")
        self.shape = dataclasses.replace(self.shape, num_layers=layers)
        self.tokenizer = json.dumps(TokenizerFile.read(self.folder).description, ensure_ascii=False)

    def fill(self, trainer: Trainer, seed: int) -> None:
        """Loads the weights into the network; layers that the model lacks come after its own, and do nothing yet."""
        trainer.network.initialise(seed)
        try:
            self._load(trainer.network)
        except ModelUnsupportedError as error:
            raise ModelUnsupportedError(f"model {self.folder}: {error}") from None
