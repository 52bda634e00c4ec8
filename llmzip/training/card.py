"""The model card, README.md of a model's folder, with the fields that Hugging Face reads; must not know torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._version import __version__
from .schedule import ADAM, Plan
from .shapes import Shape, to_config

if TYPE_CHECKING:
    from ..models.model import ExactModel
    from .trainer import Facts


_MAX_NAMES = 8
"""Names of training texts that a card lists; of more it says how many."""


@dataclass(frozen=True)
class Result:
    """What one validation text became.

    Attributes:
        name: of the text.
        num_bytes: bytes that the code lengths are about; the same rows for both.
        float_bits, exact_bits: code lengths by the network and by the exact engine, each row from an empty context.
        original_bytes: bytes that the archives are about: the beginning of the text.
        archive_bytes, xz_bytes, zstd_bytes: sizes of whole archives; llmzip's at its default level, decoded and
            compared.
    """

    name: str
    num_bytes: int
    float_bits: float
    exact_bits: float
    original_bytes: int
    archive_bytes: int
    xz_bytes: int
    zstd_bytes: int


def text(name: str, facts: Facts, *, model: ExactModel, results: Sequence[Result], folder: Path) -> str:
    """Returns the card.

    Args:
        name: of the model.
        facts: of the training.
        model: its int8 form.
        results: on the validation texts.
        folder: with the model's files, for their sizes.
    """
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        "tags: [llmzip, compression]",
        "---",
        f"# {name}",
        "",
        "A language model for lossless compression, trained by `llmzip train`. To compress with it, or decompress:",
        "",
        f"    llmzip --model {name} FILE",
        f"    llmzip -d --model {name} FILE.llmz",
        "",
        "To decompress, only `model.llmzw` and `tokenizer.json` of this folder are needed.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {key} | {value} |" for key, value in _about(facts, model, folder).items()),
        "",
        "## Results on validation text",
        "",
        *table(results),
        "",
        "float and exact: bits per byte of rows of one sequence that each start from an empty context, by the network",
        "and by the exact engine. llmzip, xz -9e, zstd -19: bits per byte of archives of the beginning of each text,",
        "without the model's size; llmzip at its default level, decoded and compared.",
        "",
        "## Progress",
        "",
        "| step | training, bits/token | validation, bits/byte |",
        "|---:|---:|---|",
        *(
            f"| {step:,} | {loss:.3f} | {', '.join(f'{key} {value:.3f}' for key, value in evaluated.items())} |"
            for step, loss, evaluated in facts.history
        ),
    ]
    return "\n".join(lines) + "\n"


def _about(facts: Facts, model: ExactModel, folder: Path) -> dict[str, str]:
    """Returns the rows of the card's first table."""
    shape, plan, about = Shape(**facts.shape), Plan(**facts.plan), facts.about
    origin = f"continued from `{about['from']}`" if about.get("from") else "from scratch"
    tokens = plan.steps * plan.batch_tokens
    embedding = "tied" if shape.tied else "untied"
    return {
        "shape": f"{to_config(shape)['model_type']}; {shape.describe()}; {embedding} embedding",
        "tokenizer": f"byte-level BPE, {shape.vocab_size:,} tokens, {about['bytes'] / about['tokens']:.2f} bytes each",
        "training": f"{origin}; {plan.steps:,} steps of {plan.batch_tokens:,} tokens, {tokens / 1e6:.1f} M tokens",
        "time": f"{facts.seconds / 60:.1f} min on {facts.device}, {facts.threads} threads, {facts.dtype}",
        "rates": _rates(plan),
        "data": _data(about),
        "seed": f"{facts.seed}",
        "made by": f"llmzip {__version__}, torch {facts.torch_version}",
        "int8 form": f"{(folder / 'model.llmzw').stat().st_size:,} bytes, {model.config.planes} plane(s)",
        "model digest": f"`{model.digest().hex()}`",
    }


def _rates(plan: Plan) -> str:
    """Returns the learning rates of a plan."""
    if plan.optimizer == ADAM:
        return f"Adam {plan.matrix_rate:g}, weight decay {plan.weight_decay:g}"
    return f"Muon {plan.matrix_rate:g}, weight decay {plan.weight_decay:g}; Adam {plan.embedding_rate:.4g}"


def _data(about: Mapping[str, Any]) -> str:
    """Returns which texts were trained on, and the share of each source in the sequences."""
    names = about["texts"]
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    parts = f"{about['bytes']:,} bytes"
    if about["mix"]:
        parts = "; ".join(
            f"{_code(part['name']) or 'the rest'} {part['num_bytes']:,} bytes, "
            f"{100 * part['share']:.0f} % of the sequences"
            for part in about["parts"]
        )
    return f"{', '.join(map(_code, names[:_MAX_NAMES]))}{more}: {parts}"


def _code(name: str) -> str:
    return f"`{name}`" if name else ""


def table(results: Sequence[Result]) -> list[str]:
    """Returns the lines of a Markdown table of results, aligned for a terminal too."""
    heads = ("text", "bytes", "float", "exact", "llmzip", "xz -9e", "zstd -19")
    body = [
        (
            result.name,
            f"{result.original_bytes:,}",
            f"{result.float_bits / result.num_bytes:.4f}",
            f"{result.exact_bits / result.num_bytes:.4f}",
            *(
                f"{8 * size / result.original_bytes:.3f}"
                for size in (result.archive_bytes, result.xz_bytes, result.zstd_bytes)
            ),
        )
        for result in results
    ]
    widths = [max(len(row[i]) for row in [heads, *body]) for i in range(len(heads))]

    def line(cells: Sequence[str]) -> str:
        first, *rest = (f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        return f"| {first.strip():<{widths[0]}} | {' | '.join(rest)} |"

    rule = "|" + "|".join("-" * (width + 1) + ("-" if i == 0 else ":") for i, width in enumerate(widths)) + "|"
    return [line(heads), rule, *map(line, body)]
