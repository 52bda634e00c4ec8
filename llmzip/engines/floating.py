"""Any causal language model of transformers, in floating point; must not know text or archives.

It promises less than the exact engine: the same bits only on the same hardware with the same software, and only while
every call has the same shapes. So a frame is coded step by step in both directions, all rows in every step, and the
environment is stored and compared. What a step gives becomes integers by the tables of the exact arithmetic.
Shapes: B rows, T new tokens, V vocabulary.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ..errors import EngineError, ModelUnsupportedError
from ..layout import read_config
from . import ops, tables
from .checkpoints import Tensors
from .config import MAX_VOCAB

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_UNSTABLE_KEYS = ("transformers_version", "_name_or_path", "dtype", "torch_dtype", "use_cache")
_DEFAULT_CONTEXT = 1024


class FloatCache:
    """What the model keeps of the tokens that the rows were fed, in whatever form it keeps it."""

    def __init__(self) -> None:
        self.length = 0
        self.state: Any = None

    def reset(self) -> None:
        """Forgets everything."""
        self.length, self.state = 0, None


class FloatEngine:
    """Runs a model of transformers on one device. One object, one call at a time.

    Args:
        folder: of the checkpoint.
        device: to run on.
        dtype: of the computation.
        context: most input tokens that one position may see; None for the model's own length, at most 1,024.
        start_token: fed before a row's first token; None for the model's BOS, else its EOS, else 0.

    Raises:
        ModelUnsupportedError: transformers does not know it, it is no causal model, or it needs code of its own.
        EngineError: transformers is not installed.
    """

    stepwise = True

    def __init__(
        self,
        folder: Path,
        device: torch.device | str = "cpu",
        dtype: str = "float32",
        context: int | None = None,
        start_token: int | None = None,
    ) -> None:
        self.device, self.dtype = torch.device(device), dtype
        config = read_config(folder)
        self._model, self.vocab_size, self._cache_name = _load(folder, config, self.device, DTYPES[dtype])
        self._accepts_position = "cache_position" in inspect.signature(self._model.forward).parameters
        inner = self._model.config.get_text_config()
        longest = getattr(inner, "max_position_embeddings", None) or getattr(inner, "n_positions", None)
        self.context = context or min(_DEFAULT_CONTEXT, longest or _DEFAULT_CONTEXT)
        if longest is not None and self.context > longest:
            raise ModelUnsupportedError(f"model {folder}: {longest} positions, fewer than the {self.context} asked for")
        if not 16 <= self.vocab_size <= MAX_VOCAB:
            raise ModelUnsupportedError(f"model {folder}: a vocabulary of {self.vocab_size:,} is out of range")
        self.start_token = _start_token(inner, self.vocab_size) if start_token is None else start_token
        self.batch_tokens = self.context
        self._exp2 = torch.from_numpy(tables.exp2_table()).to(self.device)

    def new_cache(self, rows: int, chunk: int, positions: int) -> FloatCache:
        return FloatCache()

    def step_bytes(self, rows: int, chunk: int, positions: int) -> int:
        config = self._model.config.get_text_config()
        layers, hidden = (int(getattr(config, name, 0) or 0) for name in ("num_hidden_layers", "hidden_size"))
        kept = min(positions, self.context) * 2 * layers * hidden * DTYPES[self.dtype].itemsize
        return rows * (kept + 24 * self.vocab_size)

    @torch.inference_mode()
    def forward(self, ids: torch.Tensor, cache: FloatCache | None = None) -> torch.Tensor:
        """Logits of one new token of every row: (B, 1, V) float32."""
        if cache is None or ids.shape[1] != 1:
            raise EngineError("the float engine takes one token of every row at a time")
        if cache.length >= self.context:
            raise EngineError(f"{cache.length + 1} positions exceed the context of {self.context}")
        inputs: dict[str, Any] = {"input_ids": ids, "use_cache": True, "return_dict": True}
        if cache.state is not None:
            inputs[self._cache_name] = cache.state
        if self._accepts_position:
            inputs["cache_position"] = torch.arange(cache.length, cache.length + 1, device=self.device)
        with _deterministic():
            found = self._model(**inputs)
        cache.state = getattr(found, self._cache_name)
        cache.length += 1
        logits: torch.Tensor = found.logits.float()
        return logits

    @torch.inference_mode()
    def masses(self, hidden: torch.Tensor) -> torch.Tensor:
        """Integers from the logits that `forward` gave, (n, V): as numerics section 6.7 from its z."""
        logits = torch.nan_to_num(hidden, nan=-1e9, posinf=1e9, neginf=-1e9)
        steps = logits * tables.log2e_steps()
        peak = steps.amax(-1, keepdim=True).add_(0.5)
        return ops.exp2_lookup(self._exp2, ops.exp2_index(torch.sub(peak, steps, out=steps)))

    def environment(self) -> str:
        """Everything that the bits may depend on, as `name=value` joined by blanks."""
        import transformers

        return environment(self.device, str(transformers.__version__), str(self._model.config._attn_implementation))


def environment(device: torch.device, transformers_version: str, attention: str) -> str:
    """Device and software, in one line of at most 200 characters."""
    if device.type == "cuda":
        hardware = f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}".replace(" ", "_")
    else:
        hardware = f"{platform.machine()}-{torch.backends.cpu.get_cpu_capability()}-{_processor()}-{os.cpu_count()}"
    line = (
        f"device={device.type} hardware={hardware} threads={torch.get_num_threads()} attention={attention} "
        f"torch={torch.__version__} transformers={transformers_version}"
    )
    return line.encode("ascii", "replace").decode("ascii")[:200]


def _processor() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("model name"):
                return "_".join(line.split(":", 1)[1].split())
    return platform.processor().replace(" ", "_")


@contextlib.contextmanager
def _deterministic() -> Iterator[None]:
    """Torch's deterministic kernels, for as long as a step takes."""
    before, warn = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn)


def digest(folder: Path) -> bytes:
    """SHA-256 of a checkpoint: its configuration, less what says nothing of the model, and its tensors as stored.

    Raises:
        ModelError: it cannot be read.
    """
    config = {name: value for name, value in read_config(folder).items() if name not in _UNSTABLE_KEYS}
    sha = hashlib.sha256(b"llmzip float model, version 1\n")
    sha.update(json.dumps(config, sort_keys=True, separators=(",", ":")).encode() + b"\n")
    tensors = Tensors(folder)
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        sha.update(f"{name} {str(tensor.dtype).removeprefix('torch.')} {'x'.join(map(str, tensor.shape))}\n".encode())
        sha.update(tensor.flatten().view(torch.uint8).numpy().data)
    return sha.digest()


def _load(folder: Path, config: dict[str, Any], device: torch.device, dtype: torch.dtype) -> tuple[Any, int, str]:
    """The model, the number of its logits, and what its cache is called in its forward function."""
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
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=dtype,
            attn_implementation="eager",
        )  # fmt: skip
        model = model.eval().to(device)  # type: ignore[no-untyped-call]
    except (ValueError, OSError, KeyError, TypeError, AttributeError, RuntimeError, ImportError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelUnsupportedError(f"model {folder}: transformers cannot load it: {reason}") from None
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
    vocab_size = _check_causal(model, folder, device)
    names = inspect.signature(model.forward).parameters
    cache = next((name for name in ("past_key_values", "cache_params") if name in names), None)
    if cache is None:
        raise ModelUnsupportedError(f"model {folder}: {config.get('model_type')} keeps no state between tokens")
    return model, vocab_size, cache


@torch.inference_mode()
def _check_causal(model: Any, folder: Path, device: torch.device) -> int:
    """The number of logits, of a model whose predictions do not look ahead.

    Raises:
        ModelUnsupportedError: they do, or there are none.
    """
    ids = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 9]], device=device)
    try:
        logits = model(ids).logits.float()
    except (AttributeError, RuntimeError, ValueError, TypeError, IndexError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelUnsupportedError(f"model {folder}: it does not predict tokens from tokens: {reason}") from None
    spread = float((logits[0, 3] - logits[1, 3]).abs().max())
    if float((logits[0, :3] - logits[1, :3]).abs().max()) > 1e-3 * spread:
        raise ModelUnsupportedError(f"model {folder}: its predictions look ahead: it is no causal language model")
    return int(logits.shape[-1])


def _start_token(config: Any, vocab_size: int) -> int:
    found = (getattr(config, name, None) for name in ("bos_token_id", "eos_token_id"))
    return next((token for token in found if type(token) is int and 0 <= token < vocab_size), 0)
