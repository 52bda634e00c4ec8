"""A checkpoint to a model of transformers that runs token by token, and what is refused; must not know the engine."""

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
from . import floatsteps

_CONSTANTS = re.compile(r"(^|\.)(masked_bias|inv_freq|position_ids|attn(\.attention)?\.bias|embed_positions\.weights)$")
"""Tensors that older versions of transformers stored, though they follow from the configuration: masks, positions."""

_ALIGNMENT = 64
"""Bytes; torch's allocations on the CPU begin at multiples of it, on CUDA at those of 512."""


@dataclass(frozen=True)
class Model:
    """A model of transformers, and how it takes one token of every row at a time."""

    module: Any
    way: floatsteps.Way

    @property
    def config(self) -> Any:
        """What its configuration says of text."""
        return self.module.config.get_text_config()


def load(folder: Path, config: dict[str, Any], device: torch.device, dtype: torch.dtype) -> tuple[Model, int]:
    """The model, and the number of its logits.

    Args:
        folder: of the checkpoint.
        config: what its configuration says.
        device: where the model goes.
        dtype: of its tensors.

    Raises:
        ModelUnsupportedError: as FloatEngine.
        EngineError: transformers is not installed, or runs no model in a way that is known here.
        ResourceError: it does not fit into the memory.
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
    """The module with its tensors where torch would have put them.

    They may lie in the mapped file, at whatever address its header leaves for them, and kernels for unaligned memory
    add up in another order: a checkpoint that was written anew would give other bits.
    """
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.data_ptr() % _ALIGNMENT:
            tensor.data = tensor.data.clone()
    return module


@contextlib.contextmanager
def _refusing(what: str) -> Iterator[None]:
    """Turns whatever transformers raises into one line, but for a lack of memory.

    A configuration may hold anything, and most of it is first looked at in the midst of the arithmetic: there is no
    telling which class of error that ends with.

    Raises:
        ModelUnsupportedError: beginning with `what`.
        ResourceError: the memory does not do.
    """
    try:
        with allocations_checked("not enough memory for the model"):
            yield
    except (LLMZipError, MemoryError):
        raise
    except Exception as error:
        text = " ".join(str(error).split()).partition(" For details look at")[0]  # at a report that is not shown
        reason = text[:200] or type(error).__name__
        raise ModelUnsupportedError(f"{what}: {reason}") from None


def _check_files(folder: Path, config: dict[str, Any]) -> None:
    """Transformers must read the files that the digest covers, and nothing else that says what the model is.

    Raises:
        ModelUnsupportedError: it would not.
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
    """What transformers says about loading: every tensor must have been there. It fills others with random numbers.

    Raises:
        ModelUnsupportedError: naming the first one that was not, or that nothing was done with.
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
    """The model and the number of its logits, if its predictions do not look ahead and it can be run step by step.

    Raises:
        ModelUnsupportedError: it is not so.
        EngineError: this version of transformers runs no model in a way that is known here.
        ResourceError: the memory does not do.
    """
    ids = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 9], [6, 5, 7, 8]], device=device)
    try:
        with _refusing(f"model {folder}: it does not predict tokens from tokens"):
            logits = floatsteps.whole(module, ids)
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
        way = floatsteps.find(module, ids[:, :steps], logits[:, :steps])
    except floatsteps.NoWayError as error:
        raise _no_way(error, kind, folder) from None
    return Model(module, way), int(logits.shape[-1])


def _no_way(error: floatsteps.NoWayError, kind: str, folder: Path) -> ModelUnsupportedError:
    """That a model does not run token by token, once it is sure that others do.

    Raises:
        EngineError: they do not.
    """
    version = _check_understood(error)
    if error.gives_state:
        what = f"llmzip cannot carry the state of {kind} from token to token with transformers {version}"
    else:
        what = f"{kind} keeps no state between tokens with transformers {version}"
    return ModelUnsupportedError(f"model {folder}: {what}: {error}")


def _check_understood(error: Exception) -> str:
    """The version of transformers, of which llmzip runs a Llama at least: so an error is the model's own.

    Raises:
        EngineError: not even that; a name that this module relies on has changed.
    """
    import transformers

    version = str(transformers.__version__)
    if not _runs_a_llama(transformers):
        raise EngineError(
            f"llmzip and transformers {version} do not understand each other: not even a small Llama runs token by "
            f"token; install another version of transformers ({error})"
        ) from None
    return version


def _runs_a_llama(transformers: Any) -> bool:
    """Whether a model that every version of transformers has, and that is known to work, runs token by token."""
    with torch.random.fork_rng([]), contextlib.suppress(Exception):
        config = transformers.LlamaConfig(
            vocab_size=16, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            initializer_range=0.5, attn_implementation="eager",
        )  # fmt: skip
        module = transformers.AutoModelForCausalLM.from_config(config).eval()
        ids = torch.tensor([[1, 2, 3], [3, 1, 2]])
        floatsteps.find(module, ids, floatsteps.whole(module, ids))
        return True
    return False
