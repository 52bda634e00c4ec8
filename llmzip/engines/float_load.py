"""Loads a checkpoint as a model of transformers that runs token by token; must not know the engine.

What is not a causal language model, or needs code or files other than its own, is refused with the reason.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import EngineError, LLMZipError, ModelUnsupportedError
from ..models import layout
from ..models.checkpoints import Tensors
from ..system.memory import allocations_checked
from . import float_steps

_CONSTANTS = re.compile(r"(^|\.)(masked_bias|inv_freq|position_ids|attn(\.attention)?\.bias|embed_positions\.weights)$")
"""Tensors that older versions of transformers stored although the configuration determines them: masks, positions."""

_ALIGNMENT = 64
"""Alignment of torch's allocations on the CPU in bytes; on CUDA it is 512."""

_MAX_REASON_CHARACTERS = 200
"""Length of an error of transformers in a message of ours."""


@dataclass(frozen=True)
class Model:
    """A model of transformers that runs token by token.

    Attributes:
        module: the model.
        way: how it takes one token of every row at a time.
    """

    module: Any
    way: float_steps.Way

    @property
    def config(self) -> Any:
        """The part of its configuration that describes its language model."""
        return self.module.config.get_text_config()


def load(folder: Path, config: dict[str, Any], device: torch.device, dtype: torch.dtype) -> tuple[Model, int]:
    """Loads a model; returns it and the number of its logits.

    Args:
        folder: the checkpoint's.
        config: the fields of its config.json.
        device: where to load the model.
        dtype: type of its tensors.

    Raises:
        ModelUnsupportedError: as for FloatEngine.
        EngineError: transformers is not installed, or this version runs no model in a way that llmzip knows.
        ResourceError: the model does not fit into memory.
    """
    try:
        import transformers
        from transformers.utils import logging
    except ImportError:
        raise EngineError("the float engine needs transformers: pip install 'llmzip[float]'") from None
    if config.get("auto_map"):
        raise ModelUnsupportedError(f"model {folder}: it needs code from its repository, which is never run")
    if config.get("is_encoder_decoder"):
        raise ModelUnsupportedError(f"model {folder}: an encoder-decoder is no causal language model")
    Tensors(folder)  # refuses pickled weights before transformers looks for them
    _check_files(folder, config)
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        with _refusing(f"model {folder}: transformers cannot load it"):
            found: Any = transformers.AutoModelForCausalLM.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=dtype,
                attn_implementation="eager", output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are refused below, by name
            )  # fmt: skip
            module, loading = found
            _check_tensors(folder, loading)
            module = _aligned(module.eval().to(device))
        return _check_causal(module, str(config.get("model_type")), folder, device)
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _aligned(module: Any) -> Any:
    """Moves tensors to addresses that torch would have chosen; returns the module.

    Tensors may be in the mapped file, at whatever address its header leaves for them, and kernels for unaligned memory
    add up in another order: a rewritten checkpoint would give other bits.
    """
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.data_ptr() % _ALIGNMENT:
            tensor.data = tensor.data.clone()
    return module


@contextlib.contextmanager
def _refusing(what: str) -> Iterator[None]:
    """Turns whatever transformers raises into one line, except for a lack of memory.

    A configuration may hold anything, and most of it is first read in the middle of the arithmetic: the class of the
    error cannot be known.

    Raises:
        ModelUnsupportedError: its message begins with `what`.
        ResourceError: there is not enough memory.
    """
    try:
        with allocations_checked("not enough memory for the model"):
            yield
    except (LLMZipError, MemoryError):
        raise
    except Exception as error:
        text = " ".join(str(error).split()).partition(" For details look at")[0]  # at a report that nobody sees
        reason = text[:_MAX_REASON_CHARACTERS] or type(error).__name__
        raise ModelUnsupportedError(f"{what}: {reason}") from None


def _check_files(folder: Path, config: dict[str, Any]) -> None:
    """Checks that transformers will read the files that the digest covers, and no others that define the model.

    Raises:
        ModelUnsupportedError: it would read others.
    """
    for name in ("transformers_weights", "configuration_files"):
        if config.get(name):
            raise ModelUnsupportedError(f"model {folder}: {layout.CONFIG} names other files under {name}; remove that")
    names = {path.name for path in folder.iterdir()}
    if "adapter_config.json" in names:  # read where the package peft is installed, ignored elsewhere
        raise ModelUnsupportedError(
            f"model {folder}: adapter_config.json says that it is an adapter; merge it into its model first"
        )
    if layout.WEIGHTS in names and layout.weight_files(folder, names) != [layout.WEIGHTS]:
        raise ModelUnsupportedError(
            f"model {folder}: holds {layout.WEIGHTS} and {layout.INDEX}, which may differ; remove one of them"
        )


def _check_tensors(folder: Path, loading: Mapping[str, Any]) -> None:
    """Checks in transformers' report that it found every tensor: it fills missing ones with random numbers.

    Raises:
        ModelUnsupportedError: a tensor is missing, has another shape or is not used; the message names it.
    """
    for name in sorted(loading["missing_keys"]):
        raise ModelUnsupportedError(f"model {folder}: the checkpoint lacks {name}")
    for name, stored, wanted in sorted(loading["mismatched_keys"]):
        shapes = ["x".join(map(str, shape)) for shape in (stored, wanted)]
        raise ModelUnsupportedError(
            f"model {folder}: {name} has the shape {shapes[0]}, its configuration asks for {shapes[1]}"
        )
    for name in sorted(loading["unexpected_keys"]):
        if not _CONSTANTS.search(name):
            raise ModelUnsupportedError(f"model {folder}: its configuration has no use for {name}")


@torch.inference_mode()
def _check_causal(module: Any, kind: str, folder: Path, device: torch.device) -> tuple[Model, int]:
    """Returns a model and the number of its logits, if its predictions do not look ahead and it runs step by step.

    Raises:
        ModelUnsupportedError: it looks ahead, or does not run step by step.
        EngineError: this version of transformers runs no model in a way that llmzip knows.
        ResourceError: there is not enough memory.
    """
    ids = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 9], [6, 5, 7, 8]], device=device)
    try:
        with _refusing(f"model {folder}: it does not predict tokens from tokens"):
            logits = float_steps.whole(module, ids)
            spread = float((logits[0, 3] - logits[1, 3]).abs().max())
            ahead = float((logits[0, :3] - logits[1, :3]).abs().max()) > 1e-3 * spread
    except ModelUnsupportedError as error:
        _check_understood(error)
        raise
    if not bool(logits.isfinite().any()):
        raise ModelUnsupportedError(f"model {folder}: its predictions are not numbers")
    if ahead:
        raise ModelUnsupportedError(f"model {folder}: its predictions look ahead: it is no causal language model")
    steps = 3
    try:
        way = float_steps.find(module, ids[:, :steps], logits[:, :steps])
    except float_steps.NoWayError as error:
        raise _no_way(error, kind, folder) from None
    return Model(module, way), int(logits.shape[-1])


def _no_way(error: float_steps.NoWayError, kind: str, folder: Path) -> ModelUnsupportedError:
    """Returns the error for a model that does not run token by token, if others do.

    Raises:
        EngineError: others do not run either.
    """
    version = _check_understood(error)
    if error.gives_state:
        what = f"llmzip cannot carry the state of {kind} from token to token with transformers {version}"
    else:
        what = f"{kind} keeps no state between tokens with transformers {version}"
    return ModelUnsupportedError(f"model {folder}: {what}: {error}")


def _check_understood(error: Exception) -> str:
    """Checks that llmzip can run a Llama with this transformers, so that an error is the model's; returns the version.

    Raises:
        EngineError: it cannot; a name that this module relies on has changed.
    """
    import transformers

    version = str(transformers.__version__)
    if not _runs_a_llama(transformers):
        raise EngineError(
            f"llmzip does not work with transformers {version}: not even a small Llama runs token by token; "
            f"install another version of transformers ({error})"
        ) from None
    return version


def _runs_a_llama(transformers: Any) -> bool:
    """Returns whether a Llama runs token by token: every version of transformers has it, and it is known to work."""
    with torch.random.fork_rng([]), contextlib.suppress(Exception):
        config = transformers.LlamaConfig(
            vocab_size=16, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            initializer_range=0.5, attn_implementation="eager",
        )  # fmt: skip
        module = transformers.AutoModelForCausalLM.from_config(config).eval()
        ids = torch.tensor([[1, 2, 3], [3, 1, 2]])
        float_steps.find(module, ids, float_steps.whole(module, ids))
        return True
    return False
