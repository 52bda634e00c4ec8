"""From a trained network to a model's folder: checkpoint, int8 form, figures. Must not know how it was trained.

Everything is built inside the folder of the unfinished training and moved to its place at the end, so a training that
is killed here finishes when it is resumed.
"""

from __future__ import annotations

import json
import lzma
import os
import shutil
from pathlib import Path
from typing import Any

import torch
import zstandard
from safetensors.torch import save_file

from ..api.oneshot import compress, decompress
from ..engines import planes
from ..engines.exact import ExactEngine
from ..errors import LLMZipError
from ..models.convert import convert
from ..models.int8form import save_int8
from ..models.model import ExactModel
from . import card, checkpoint, hfweights, shapes
from .card import Result
from .listener import Listener
from .prepare import valid_texts
from .trainer import Sample, Trainer

GRID = 9.0
"""Steps of 9/127 of a row's root mean square cost 0.001 bits/byte; entropy-coded, a weight takes 5.9 bits (log.md)."""

_ARCHIVE_BYTES = 1 << 18  # 256 KiB of each validation text are compressed
_ARCHIVE_BYTES_LARGE = 1 << 11  # 2 KiB if the model is large, which decompresses some dozen bytes a second
_BUILD = "model"


def finish(trainer: Trainer, listener: Listener) -> list[Result]:
    """Writes the model into its folder and removes what only the training needed.

    Raises:
        LLMZipError: the model cannot be written, or the exact engine refuses it.
    """
    unfinished = trainer.folder
    folder, build = unfinished.parent, unfinished / _BUILD
    config = shapes.to_config(trainer.shape, trainer.facts.start_token)
    trainer.release()
    tensors = hfweights.export(trainer.network)
    model = _to_int8(trainer, config, tensors)
    try:
        shutil.rmtree(build, ignore_errors=True)
        build.mkdir()
        _write_checkpoint(build, config, tensors)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            if (unfinished / name).exists():
                shutil.copyfile(unfinished / name, build / name)
        save_int8(model, build)
        results = _results(trainer, model, build, listener)
        (build / "README.md").write_text(
            card.text(folder.resolve().name, trainer.facts, model=model, results=results, folder=build),
            encoding="utf-8",
            errors="replace",  # names of files may not be valid UTF-8
        )
        (folder / "model.safetensors.index.json").unlink(missing_ok=True)  # of a model that is replaced
        for path in sorted(build.iterdir()):
            os.replace(path, folder / path.name)
        # Checkpoints first: without them there is no unfinished training; without tokens there would be a broken one.
        checkpoint.remove(unfinished)
        shutil.rmtree(unfinished)
    except OSError as error:
        raise LLMZipError(
            f"{folder}: the model cannot be written: {error.strerror}; the training is kept, --resume finishes it"
        ) from None
    return results


def _to_int8(trainer: Trainer, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> ExactModel:
    """Returns the int8 form, with one plane of activations, or two if that is measurably better."""
    model = convert(config, tensors, 1, shapes.DECODED_CONTEXT, start_token=trainer.facts.start_token, grid=GRID)
    return planes.choose(model, [row.numpy() for sample in trainer.samples for row in sample.rows], "cpu")


def exact_bits(engine: ExactEngine, sample: Sample) -> float:
    """Returns the code length of a sample by the exact engine's frequencies."""
    return sum(planes.code_bits(engine, row.numpy()) for row in sample.rows)


def _write_checkpoint(build: Path, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    (build / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="ascii")
    narrow = {name: tensor.to(torch.bfloat16) for name, tensor in tensors.items()}
    save_file(narrow, build / "model.safetensors", {"format": "pt"})
    shutil.copymode(build / "config.json", build / "model.safetensors")  # safetensors writes for the owner only


def _results(trainer: Trainer, model: ExactModel, build: Path, listener: Listener) -> list[Result]:
    """Compresses the beginning of each validation text, by llmzip and others; checks that llmzip's archives decode."""
    engine = ExactEngine(model, trainer.device)
    texts = valid_texts(trainer.folder)
    results = []
    device = trainer.facts.device
    archive_bytes = _ARCHIVE_BYTES_LARGE if trainer.shape.is_large else _ARCHIVE_BYTES
    total = sum(min(archive_bytes, len(texts[sample.name])) for sample in trainer.samples)
    with listener.progress("compressing the validation text", total) as advance:
        for sample in trainer.samples:
            data = texts[sample.name][:archive_bytes]
            archive = compress(data, model=build, device=device)
            if decompress(archive, model=build, device=device) != data:
                raise LLMZipError(f"{sample.name}: the archive does not decode to the text; please report this")
            results.append(
                Result(
                    sample.name,
                    sample.num_bytes,
                    trainer.sample_bits(sample),
                    exact_bits(engine, sample),
                    len(data),
                    len(archive),
                    len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)),
                    len(zstandard.ZstdCompressor(level=19).compress(data)),
                )
            )
            if advance is not None:
                advance(len(data))
    return results
