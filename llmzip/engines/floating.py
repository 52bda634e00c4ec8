"""The float engine: any causal language model of transformers, in floating point; must not know text or archives.

It promises less than the exact engine: the same bits only on the same hardware with the same software, and only while
every call has the same shapes. So a frame is coded step by step in both directions, with all rows in every step, and
the environment is stored and compared. The tables of the exact arithmetic convert the logits of a step to integers.
Shapes: B rows, T new tokens, V vocabulary.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch

from ..errors import EngineError, ModelUnsupportedError
from ..models import families, layout
from ..models.checkpoints import Tensors
from ..models.config import MAX_CONTEXT, MAX_VOCAB, MISSTATED, ExactConfig
from ..numerics import ops, tables
from ..system import forks, processor
from . import float_load, float_steps
from .base import Readout
from .byte_tokens import as_inputs
from .float_steps import MAX_LOGIT
from .frequencies import TOTAL_BITS
from .readout import readout
from .torch_arrays import ids_on, with_byte_tokens

if TYPE_CHECKING:
    from ..format.plan import Rows

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""Types of the computation by their names in settings."""

_UNSTABLE_KEYS = ("transformers_version", "_name_or_path", "dtype", "torch_dtype", "use_cache")
"""Fields of a configuration that do not describe the model."""

_DEFAULT_CONTEXT = 2048
"""Positions that a model sees unless the caller asks for another number: more make every step slower."""

_MAX_THREADS = 4096
"""Threads that an archive may ask for."""

_MIN_CONTEXT = 2
_MIN_VOCAB = 16

_MAX_ENVIRONMENT_BYTES = 200
"""Length of the environment in an archive."""

_computing_lock = forks.Lock()


class FloatCache:
    """What the model keeps of the tokens that its rows have read, in whatever form it keeps it.

    Attributes:
        length: number of positions read so far.
        state: the model's own; None before the first token.
    """

    def __init__(self) -> None:
        self.length = 0
        self.state: Any = None

    def reset(self) -> None:
        """Forgets everything."""
        self.length, self.state = 0, None


class FloatEngine:
    """Runs a model of transformers on one device. One object, one call at a time.

    Args:
        folder: the checkpoint's.
        device: to run on.
        dtype: type of the computation, one of DTYPES.
        context: number of input tokens that one position may see at most; None for the model's own length, but at most
            1,024.
        start_token: the id fed before a row's first token; None for the model's BOS, else its EOS, else 0.
        threads: number of CPU threads, on which the bits depend; None for what torch is set to.

    Attributes:
        vocab_size: number of ids: the model's own and those of `add_byte_tokens`.

    Raises:
        ModelUnsupportedError: transformers does not know the model, it is not a causal language model, it needs code
            of its own, its tensors are not those that its configuration describes, or the context or the start token
            is out of range.
        EngineError: transformers is not installed.
        ResourceError: the model does not fit into memory.
    """

    stepwise = True
    callers = 1
    is_compiled = False
    floor_bits = 0

    def __init__(
        self,
        folder: Path,
        device: object = "cpu",
        dtype: str = "float32",
        context: int | None = None,
        start_token: int | None = None,
        threads: int | None = None,
    ) -> None:
        self.device, self.dtype = str(device), dtype
        self._place = torch.device(self.device)
        self._threads = threads or torch.get_num_threads()
        with _computing(self._threads):
            self._threads = torch.get_num_threads()  # torch may have chosen another number
            self._model, self.vocab_size = float_load.load(
                folder, layout.read_config(folder), self._place, DTYPES[dtype]
            )
        inner = self._model.config
        longest = _longest(inner, folder)
        self.context = context or min(_DEFAULT_CONTEXT, longest or _DEFAULT_CONTEXT)
        if longest is not None and self.context > longest:
            raise ModelUnsupportedError(f"model {folder}: {longest} positions, fewer than the {self.context} asked for")
        if not _MIN_CONTEXT <= self.context <= MAX_CONTEXT:
            raise ModelUnsupportedError(
                f"model {folder}: a context of {self.context:,} positions is out of range "
                f"({_MIN_CONTEXT} to {MAX_CONTEXT:,})"
            )
        if not _MIN_VOCAB <= self.vocab_size <= MAX_VOCAB:
            raise ModelUnsupportedError(f"model {folder}: a vocabulary of {self.vocab_size:,} is out of range")
        self.start_token = _start_token(inner, self.vocab_size) if start_token is None else start_token
        if not 0 <= self.start_token < self.vocab_size:
            raise ModelUnsupportedError(
                f"model {folder}: start token {self.start_token:,} is outside its vocabulary of {self.vocab_size:,}"
            )
        self._byte_tokens = 0
        self.batch_tokens = self.context
        self._exp2 = torch.from_numpy(tables.exp2_table()).to(self._place)

    def add_byte_tokens(self, count: int) -> None:
        """Adds tokens of single bytes after the model's own, whose number is only known once the model is loaded."""
        self._byte_tokens += count
        self.vocab_size += count

    @property
    def num_parameters(self) -> int:
        """Number of weights."""
        return sum(parameter.numel() for parameter in self._model.module.parameters())

    @property
    def weights_bytes(self) -> int:
        """Size of the weights in memory, in bytes."""
        return self.num_parameters * DTYPES[self.dtype].itemsize

    def flops_per_token(self, length: int) -> int | None:
        """Returns the operations of one token's forward pass, averaged over a sequence of `length` tokens.

        None if there is no formula for the model's shape.
        """
        try:
            family = families.read(self._model.module.config.to_dict())
            config = ExactConfig(planes=2, context=self.context, start_token=0, **family.settings)
        except (ModelUnsupportedError, *MISSTATED):
            return None
        return config.flops_per_token(length)

    def new_cache(self, rows: int, chunk: int, positions: int) -> FloatCache:
        """Returns an empty cache, as `Engine.new_cache`."""
        return FloatCache()

    def step_bytes(self, rows: int, chunk: int, positions: int) -> int:
        """Estimates the memory of a cache and of one step of all rows, in bytes."""
        config = self._model.config
        layers, hidden = (int(getattr(config, name, 0) or 0) for name in ("num_hidden_layers", "hidden_size"))
        kept = min(positions, self.context) * 2 * layers * hidden * DTYPES[self.dtype].itemsize
        return rows * (kept + 24 * self.vocab_size)

    @torch.inference_mode()
    def forward(self, ids: np.ndarray, cache: FloatCache | None = None) -> torch.Tensor:
        """Computes the logits after one new token of every row, (B, 1, V) float32, without byte tokens."""
        if cache is None or ids.shape[1] != 1:
            raise EngineError("the float engine takes one token of every row at a time")
        if cache.length >= self.context:
            raise EngineError(f"{cache.length + 1} positions exceed the context of {self.context}")
        inputs, model = self._inputs(ids), self._model
        with _computing(self._threads):
            logits, cache.state = float_steps.step(model.module, model.way, inputs, cache.state, cache.length)
        cache.length += 1
        return logits

    @torch.inference_mode()
    def prefill(self, ids: np.ndarray) -> torch.Tensor:
        """Computes the logits after all inputs of some rows at once, (B, T) to (B, T, V) float32.

        For measurements only: their last bits are not those of `forward`.
        """
        if ids.shape[1] > self.context:
            raise EngineError(f"{ids.shape[1]} positions exceed the context of {self.context}")
        inputs = self._inputs(ids)
        with _computing(self._threads):
            return float_steps.whole(self._model.module, inputs)

    def _inputs(self, ids: np.ndarray) -> torch.Tensor:
        """Returns ids as the model is fed them, on its device."""
        if self._byte_tokens:
            ids = as_inputs(ids, self.vocab_size - self._byte_tokens, self.start_token)
        return ids_on(ids, self._place)

    @torch.inference_mode()
    def masses(self, hidden: torch.Tensor) -> torch.Tensor:
        """Converts logits of `forward`, (n, V), to masses, as docs/numerics.md section 6.7 does from its z."""
        logits = torch.nan_to_num(hidden, nan=-MAX_LOGIT).clamp_(-MAX_LOGIT, MAX_LOGIT)
        steps = logits * tables.log2e_steps()
        peak = steps.amax(-1, keepdim=True).add_(0.5)
        masses = ops.exp2_lookup(self._exp2, ops.exp2_index(torch.sub(peak, steps, out=steps)))
        return with_byte_tokens(masses, self._byte_tokens)

    def compiled_rows(self, cache: FloatCache, inputs: np.ndarray, rows: Rows, skipped: int) -> NoReturn:
        """Fails: it has none."""
        raise TypeError("the float engine has no compiled rows")

    def readout(self, total_bits: int = TOTAL_BITS) -> Readout:
        """Returns a new readout, as `Engine.readout`."""
        return readout(self.vocab_size, self.device, total_bits=total_bits)

    def environment(self) -> str:
        """Describes everything that the bits may depend on, as `environment` does."""
        import transformers

        attention = str(self._model.module.config._attn_implementation)
        return environment(self._place, self._threads, str(transformers.__version__), attention)


def environment(device: torch.device, threads: int, transformers_version: str, attention: str) -> str:
    """Describes device and software as `name=value`, separated by spaces: at most 200 ASCII characters."""
    if device.type == "cuda":
        hardware = f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}".replace(" ", "_")
    else:
        processor_name = "_".join(processor.name().split())
        hardware = f"{platform.machine()}-{torch.backends.cpu.get_cpu_capability()}-{processor_name}-{os.cpu_count()}"
    line = (
        f"device={device.type} hardware={hardware} threads={threads} attention={attention} "
        f"torch={torch.__version__} transformers={transformers_version}"
    )
    return line.encode("ascii", "replace").decode("ascii")[:_MAX_ENVIRONMENT_BYTES]


def threads_of(environment: str) -> int | None:
    """Returns the number of threads that an archive's environment names; None if it names none that can be."""
    fields = dict(part.split("=", 1) for part in environment.split(" ") if "=" in part)
    number = fields.get("threads", "")
    return int(number) if number.isdecimal() and 1 <= int(number) <= _MAX_THREADS else None


@contextlib.contextmanager
def _computing(threads: int) -> Iterator[None]:
    """Sets torch's number of threads and its deterministic kernels for as long as a step takes.

    Both are settings of the whole process, which others may change between two steps. So each step sets them, and
    engines in several threads of Python take turns.
    """
    with _computing_lock, forks.whole:
        if threads > 1 and forks.is_single():
            raise EngineError(
                f"the float engine cannot compute with {threads} threads in a child of a process that used this build "
                "of torch; start the child with multiprocessing's method spawn"
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
    """Computes the SHA-256 of a checkpoint: of its configuration, less _UNSTABLE_KEYS, and its tensors as stored.

    Raises:
        ModelError: the checkpoint cannot be read.
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


def _longest(config: Any, folder: Path) -> int | None:
    """Returns how many positions a model has; None if its configuration does not say.

    Raises:
        ModelUnsupportedError: the configuration says something other than a number.
    """
    for name in ("max_position_embeddings", "n_positions"):
        value = getattr(config, name, None)
        if value is not None and type(value) is not int:
            raise ModelUnsupportedError(f"model {folder}: {name} is {value!r:.50}, not a whole number")
        if value is not None and value > 0:  # 0 and -1 stand for no limit
            return value
    return None


def _start_token(config: Any, vocab_size: int) -> int:
    """Returns the model's BOS, else its EOS, else 0."""
    tokens = (getattr(config, name, None) for name in ("bos_token_id", "eos_token_id"))
    return next((token for token in tokens if type(token) is int and 0 <= token < vocab_size), 0)
