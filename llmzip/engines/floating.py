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
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .. import forks, layout
from ..errors import EngineError, LLMZipError, ModelUnsupportedError
from . import families, ops, tables
from .checkpoints import Tensors
from .config import MAX_CONTEXT, MAX_VOCAB, ExactConfig
from .memory import allocations_checked

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_UNSTABLE_KEYS = ("transformers_version", "_name_or_path", "dtype", "torch_dtype", "use_cache")
_DEFAULT_CONTEXT = 1024

_LARGEST = 1e9
"""Of logits; what is beyond is as good as infinite, and its products would leave the range of the numbers."""

_CONSTANTS = re.compile(r"(^|\.)(masked_bias|inv_freq|position_ids|attn(\.attention)?\.bias|embed_positions\.weights)$")
"""Tensors that older versions of transformers stored, though they follow from the configuration: masks, positions."""

_computing_lock = forks.Lock()


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
        threads: of the CPU, which the bits depend on; None for what torch is set to.

    Raises:
        ModelUnsupportedError: transformers does not know it, it is no causal model, it needs code of its own, its
            tensors are not those that its configuration asks for, or the context is out of range.
        EngineError: transformers is not installed.
        ResourceError: it does not fit into the memory.
    """

    stepwise = True
    callers = 1

    def __init__(
        self,
        folder: Path,
        device: torch.device | str = "cpu",
        dtype: str = "float32",
        context: int | None = None,
        start_token: int | None = None,
        threads: int | None = None,
    ) -> None:
        self.device, self.dtype = torch.device(device), dtype
        self._threads = threads or torch.get_num_threads()
        with _computing(self._threads):
            self._threads = torch.get_num_threads()  # should torch have taken another number
            self._model, self.vocab_size = _load(folder, layout.read_config(folder), self.device, DTYPES[dtype])
        inner = self._model.config
        longest = _longest(inner, folder)
        self.context = context or min(_DEFAULT_CONTEXT, longest or _DEFAULT_CONTEXT)
        if longest is not None and self.context > longest:
            raise ModelUnsupportedError(f"model {folder}: {longest} positions, fewer than the {self.context} asked for")
        if not 2 <= self.context <= MAX_CONTEXT:
            raise ModelUnsupportedError(
                f"model {folder}: a context of {self.context:,} positions is out of range (2 to {MAX_CONTEXT:,})"
            )
        if not 16 <= self.vocab_size <= MAX_VOCAB:
            raise ModelUnsupportedError(f"model {folder}: a vocabulary of {self.vocab_size:,} is out of range")
        self.start_token = _start_token(inner, self.vocab_size) if start_token is None else start_token
        self.batch_tokens = self.context
        self._exp2 = torch.from_numpy(tables.exp2_table()).to(self.device)

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self._model.module.parameters())

    @property
    def weights_bytes(self) -> int:
        return self.num_parameters * DTYPES[self.dtype].itemsize

    def flops_per_token(self, length: int) -> int | None:
        """Of one token's forward pass, on the average over a sequence of so many; None if its shape has no formula."""
        try:
            family = families.read(self._model.module.config.to_dict())
            config = ExactConfig(planes=2, context=self.context, start_token=0, **family.settings)
        except (ModelUnsupportedError, *families.MISSTATED):
            return None
        return config.flops_per_token(length)

    def new_cache(self, rows: int, chunk: int, positions: int) -> FloatCache:
        return FloatCache()

    def step_bytes(self, rows: int, chunk: int, positions: int) -> int:
        config = self._model.config
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
        with _computing(self._threads):
            logits, cache.state = self._model.step(ids, cache.state, cache.length)
        cache.length += 1
        return logits

    @torch.inference_mode()
    def prefill(self, ids: torch.Tensor) -> torch.Tensor:
        """Logits behind all of some rows' inputs at once, (B, T) to (B, T, V) float32.

        For measuring only: their last bits are not those of `forward`.
        """
        if ids.shape[1] > self.context:
            raise EngineError(f"{ids.shape[1]} positions exceed the context of {self.context}")
        with _computing(self._threads):
            return self._model.whole(ids)

    @torch.inference_mode()
    def masses(self, hidden: torch.Tensor) -> torch.Tensor:
        """Integers from the logits that `forward` gave, (n, V): as numerics section 6.7 from its z."""
        logits = torch.nan_to_num(hidden, nan=-_LARGEST).clamp_(-_LARGEST, _LARGEST)
        steps = logits * tables.log2e_steps()
        peak = steps.amax(-1, keepdim=True).add_(0.5)
        return ops.exp2_lookup(self._exp2, ops.exp2_index(torch.sub(peak, steps, out=steps)))

    def environment(self) -> str:
        """Everything that the bits may depend on, as `name=value` joined by blanks."""
        import transformers

        attention = str(self._model.module.config._attn_implementation)
        return environment(self.device, self._threads, str(transformers.__version__), attention)


def environment(device: torch.device, threads: int, transformers_version: str, attention: str) -> str:
    """Device and software, in one line of at most 200 characters."""
    if device.type == "cuda":
        hardware = f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}".replace(" ", "_")
    else:
        hardware = f"{platform.machine()}-{torch.backends.cpu.get_cpu_capability()}-{_processor()}-{os.cpu_count()}"
    line = (
        f"device={device.type} hardware={hardware} threads={threads} attention={attention} "
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
def _computing(threads: int) -> Iterator[None]:
    """Torch with so many threads and its deterministic kernels, for as long as a step takes.

    Both are settings of the whole process, which others change between two steps; so they are set for each, and engines
    in several threads of Python take turns.
    """
    with _computing_lock, forks.whole:
        if threads > 1 and forks.is_single():
            raise EngineError(
                f"the float engine cannot compute with {threads} threads in a child of a process that used this build "
                "of torch; start the child by multiprocessing's method spawn"
            )
        torch.set_num_threads(threads)
        before = torch.are_deterministic_algorithms_enabled()
        warn = torch.is_deterministic_algorithms_warn_only_enabled()
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
    config = {name: value for name, value in layout.read_config(folder).items() if name not in _UNSTABLE_KEYS}
    sha = hashlib.sha256(b"llmzip float model, version 1\n")
    sha.update(json.dumps(config, sort_keys=True, separators=(",", ":")).encode() + b"\n")
    tensors = Tensors(folder)
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        sha.update(f"{name} {str(tensor.dtype).removeprefix('torch.')} {'x'.join(map(str, tensor.shape))}\n".encode())
        sha.update(tensor.flatten().view(torch.uint8).numpy().data)
    return sha.digest()


@dataclass(frozen=True)
class _Model:
    """A model of transformers that takes one token of every row at a time.

    Attributes:
        module: the model.
        kind: its model_type.
        cache_name: what its forward function calls the state that it takes and gives back.
        takes_position: whether that function asks for the number of the position.
    """

    module: Any
    kind: str
    cache_name: str
    takes_position: bool

    @property
    def config(self) -> Any:
        """What its configuration says of text."""
        return self.module.config.get_text_config()

    def whole(self, ids: torch.Tensor) -> torch.Tensor:
        """Logits behind all tokens of every row, (B, T) to (B, T, V) float32."""
        logits: torch.Tensor = self.module(input_ids=ids, use_cache=False, return_dict=True).logits
        return logits.float()

    def step(self, ids: torch.Tensor, state: Any, position: int) -> tuple[torch.Tensor, Any]:
        """Logits behind one token of every row, (B, 1, V) float32, and the state behind it.

        Args:
            ids: (B, 1).
            state: behind the token before, None at the first.
            position: how many tokens came before.
        """
        inputs: dict[str, Any] = {"input_ids": ids, "use_cache": True, "return_dict": True}
        if state is not None:
            inputs[self.cache_name] = state
        if self.takes_position:
            inputs["cache_position"] = torch.arange(position, position + 1, device=ids.device)
        found = self.module(**inputs)
        return found.logits.float(), getattr(found, self.cache_name, None)


def _load(folder: Path, config: dict[str, Any], device: torch.device, dtype: torch.dtype) -> tuple[_Model, int]:
    """The model, and the number of its logits."""
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
            module = module.eval().to(device)
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
    return _check_causal(module, str(config.get("model_type")), folder, device)


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
        with allocations_checked():
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
def _check_causal(module: Any, kind: str, folder: Path, device: torch.device) -> tuple[_Model, int]:
    """The model and the number of its logits, if its predictions do not look ahead and it can be run step by step.

    Raises:
        ModelUnsupportedError: it is not so.
        ResourceError: the memory does not do.
    """
    ids = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 9]], device=device)
    with _refusing(f"model {folder}: it does not predict tokens from tokens"):
        logits = module(ids).logits.float()
        spread = float((logits[0, 3] - logits[1, 3]).abs().max())
        ahead = float((logits[0, :3] - logits[1, :3]).abs().max()) > 1e-3 * spread
    if ahead:
        raise ModelUnsupportedError(f"model {folder}: its predictions look ahead: it is no causal language model")
    parameters = inspect.signature(module.forward).parameters
    name = next((name for name in ("past_key_values", "cache_params") if name in parameters), None)
    forgets = ModelUnsupportedError(f"model {folder}: {kind} keeps no state between tokens")
    if name is None:
        raise forgets
    model, state = _Model(module, kind, name, "cache_position" in parameters), None
    with _refusing(f"model {folder}: it cannot be run token by token"):
        for position in range(2):
            _, state = model.step(ids[:, position : position + 1], state, position)
            if state is None:
                raise forgets
    return model, int(logits.shape[-1])


def _longest(config: Any, folder: Path) -> int | None:
    """How many positions a model has; None if its configuration does not tell.

    Raises:
        ModelUnsupportedError: it says something else than a number.
    """
    for name in ("max_position_embeddings", "n_positions"):
        value = getattr(config, name, None)
        if value is not None and type(value) is not int:
            raise ModelUnsupportedError(f"model {folder}: {name} is {value!r:.50}, not a whole number")
        if value is not None and value > 0:  # 0 and -1 stand for no limit
            return value
    return None


def _start_token(config: Any, vocab_size: int) -> int:
    found = (getattr(config, name, None) for name in ("bos_token_id", "eos_token_id"))
    return next((token for token in found if type(token) is int and 0 <= token < vocab_size), 0)
