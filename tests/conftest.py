"""What every test runs under: no network, no model hub, two threads, warnings and versions where they can be seen."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import sys
import tempfile

# Before anything imports torch, tokenizers or a Hugging Face library: they read these once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Threads that wait by spinning take a busy machine's cores from each other: ten times slower at worst.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Models that tests store are not the user's, and the user's are not found by tests.
os.environ["XDG_DATA_HOME"] = tempfile.mkdtemp(prefix="llmzip-data-")
os.environ.pop("LLMZIP_MODEL_PATH", None)

import importlib.metadata
import json
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch

from llmzip.engines.base import Readout
from llmzip.engines.cpu.lanes import CpuDecoding, CpuRows
from llmzip.engines.exact import ExactEngine
from llmzip.engines.readout import readout
from llmzip.mixing import coder

# A shell starts its background jobs with interrupts ignored, and the programs under test would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

NUM_THREADS = 2
LOCAL_HOSTS = ("", "localhost", "127.0.0.1", "::1")

hypothesis.settings.register_profile("dev", deadline=None, max_examples=30)
hypothesis.settings.register_profile("ci", deadline=None, max_examples=60, derandomize=True, print_blob=True)
hypothesis.settings.register_profile("deep", deadline=None, max_examples=1000)
DEEP = os.environ.get("LLMZIP_FUZZ") == "deep"
hypothesis.settings.load_profile("deep" if DEEP else "ci" if os.environ.get("CI") else "dev")


def _no_network(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: it sees every connection of this process, whatever library makes it."""
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    else:
        return
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    if name is not None and name not in LOCAL_HOSTS:
        # Not an OSError: a library that is prepared to be offline would swallow it.
        raise RuntimeError(f"a test tried to reach {name!r}; tests must not use the network")


sys.addaudithook(_no_network)
atexit.register(shutil.rmtree, os.environ["XDG_DATA_HOME"], ignore_errors=True)


def pytest_report_header() -> list[str]:
    packages = (
        "torch",
        "transformers",
        "tokenizers",
        "safetensors",
        "constriction",
        "zstandard",
        "numpy",
        "hypothesis",
    )
    versions = []
    for package in packages:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"{package} missing")
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return [
        ", ".join(versions),
        f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, CUDA device: {cuda}",
    ]


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    """Every test starts with the same number of threads, whatever the one before asked for."""
    if torch.get_num_threads() != NUM_THREADS:
        torch.set_num_threads(NUM_THREADS)
    yield


@pytest.fixture(params=coder.CODERS, scope="module")
def each_coder(request: pytest.FixtureRequest) -> Iterator[None]:
    """Runs the tests of a module for constriction and for the compiled coder."""
    if request.param == "constriction":
        pytest.importorskip("constriction", reason="constriction has no build for this machine")
    coder.use(request.param)
    yield
    coder.use()


# -- tokenizers and models ---------------------------------------------------------------------------------------------

MakeTokenizer = Callable[..., Path]

TRAINING_TEXT = """The ferry was late again, and the wind came over the harbour wall in long, even gusts.
The tokenizer that learns from these lines will know the, and, ing, tion and a few more pieces: the rest is bytes.
def add(a, b):\n    return a + b\n\n    # four blanks    and some more        \n1234567890 12 345 6789\n
Ça va très bien, merci; où est l’été? Größe, Straße, Übermut. Cafe\u0301, cafe\u0301, café, café.\n
"""


@pytest.fixture(scope="session")
def make_tokenizer() -> MakeTokenizer:
    """Trains a byte-level BPE and writes its tokenizer.json into a folder.

    Keyword arguments: vocab_size, and the settings that make a tokenizer change what it reads: normalizer,
    add_prefix_space, special_tokens, post_processor, and before, a pre-tokenizer before the byte-level one; lacking,
    the bytes that get no token, as in vocabularies that were trained without the whole alphabet.
    """

    def make(
        folder: Path,
        vocab_size: int = 320,
        normalizer: Any = None,
        add_prefix_space: bool = False,
        special_tokens: tuple[str, ...] = (),
        post_processor: Any = None,
        before: Any = None,
        lacking: bytes = b"",
    ) -> Path:
        import tokenizers
        from tokenizers import decoders, models, pre_tokenizers, trainers

        tokenizer = tokenizers.Tokenizer(models.BPE())
        if normalizer is not None:
            tokenizer.normalizer = normalizer
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
        tokenizer.pre_tokenizer = byte_level if before is None else pre_tokenizers.Sequence([before, byte_level])
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=list(special_tokens),
            show_progress=False,
        )
        tokenizer.train_from_iterator(TRAINING_TEXT.splitlines(keepends=True) * 4, trainer)
        if post_processor is not None:
            tokenizer.post_processor = post_processor
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer.save(str(folder / "tokenizer.json"))
        if lacking:
            from model_samples import take_bytes_away

            take_bytes_away(folder / "tokenizer.json", lacking)
        return folder

    return make


@pytest.fixture(scope="session")
def random_checkpoint() -> Callable[..., tuple[dict[str, Any], dict[str, torch.Tensor]]]:
    """A Hugging Face config and tensors of a small random decoder, large enough in its values not to be flat.

    Keyword arguments overwrite fields of the config; `qk_norm` and `biases` add those tensors.
    """

    def make(
        seed: int = 0, qk_norm: bool = False, biases: tuple[str, ...] = (), **fields: Any
    ) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        config: dict[str, Any] = {
            "model_type": "qwen3" if qk_norm else "llama",
            "hidden_act": "silu",
            "vocab_size": 100,
            "hidden_size": 48,
            "intermediate_size": 80,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "rms_norm_eps": 1e-6,
            "max_position_embeddings": 96,
            "rope_theta": 10000.0,
            "bos_token_id": 1,
        } | fields
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int, std: float = 1.0) -> torch.Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float32, device="cpu") * std

        hidden, mlp, dim = config["hidden_size"], config["intermediate_size"], config["head_dim"]
        heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        tensors = {
            "model.embed_tokens.weight": normal(config["vocab_size"], hidden),
            "lm_head.weight": normal(config["vocab_size"], hidden, std=3 / hidden**0.5),
            "model.norm.weight": 1 + normal(hidden, std=0.2),
        }
        for number in range(config["num_hidden_layers"]):
            layer = f"model.layers.{number}."
            tensors[layer + "input_layernorm.weight"] = 1 + normal(hidden, std=0.2)
            tensors[layer + "post_attention_layernorm.weight"] = 1 + normal(hidden, std=0.2)
            shapes = {
                "self_attn.q_proj": (heads * dim, hidden),
                "self_attn.k_proj": (kv_heads * dim, hidden),
                "self_attn.v_proj": (kv_heads * dim, hidden),
                "self_attn.o_proj": (hidden, heads * dim),
                "mlp.gate_proj": (mlp, hidden),
                "mlp.up_proj": (mlp, hidden),
                "mlp.down_proj": (hidden, mlp),
            }
            for name, (rows, columns) in shapes.items():
                tensors[f"{layer}{name}.weight"] = normal(rows, columns, std=1.5 / columns**0.5)
                if name in biases:
                    tensors[f"{layer}{name}.bias"] = normal(rows, std=0.5)
            if qk_norm:
                tensors[layer + "self_attn.q_norm.weight"] = 1 + normal(dim, std=0.2)
                tensors[layer + "self_attn.k_norm.weight"] = 1 + normal(dim, std=0.2)
        return config, tensors

    return make


@pytest.fixture(scope="session")
def write_checkpoint() -> Callable[..., Path]:
    """Writes a config and tensors into a folder, as Hugging Face lays them out."""

    def write(folder: Path, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Path:
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        save_file(tensors, folder / "model.safetensors")
        return folder

    return write


@pytest.fixture
def only_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """What needs no model is not tried: for models so tiny that zstd beats them."""
    from llmzip.codec import drafts
    from llmzip.format.headers import FrameHeader

    def stored(data: bytes) -> drafts.Draft:
        return drafts.Draft(FrameHeader.stored(len(data)), data, data)

    monkeypatch.setattr(drafts, "_plain_draft", stored)
    monkeypatch.setattr(drafts, "_adaptive_draft", stored)


@pytest.fixture(scope="session")
def lacking_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model small with a tokenizer that lacks 21 bytes: they are byte tokens, and it works on text."""
    import shutil

    from model_samples import LACKING, take_bytes_away

    from llmzip.models.embedded import embedded_by_name

    small = embedded_by_name("small")
    assert small is not None
    folder = tmp_path_factory.mktemp("lacking") / "small-lacking"
    folder.mkdir()
    for name in ("model.llmzw", "tokenizer.json"):
        shutil.copy(small.folder / name, folder)
    take_bytes_away(folder / "tokenizer.json", LACKING)
    return folder


# -- an engine without weights -----------------------------------------------------------------------------------------


class HashCache:
    """What a HashEngine remembers of its rows: a hash of all inputs of the context."""

    def __init__(self, state: np.ndarray, length: int = 0) -> None:
        self.state = state
        self.length = length

    def reset(self) -> None:
        self.length = 0

    def rows(self, rows: slice) -> HashCache:
        return HashCache(self.state[rows], self.length)

    def adopt(self, part: HashCache) -> None:
        self.length = part.length


class HashEngine:
    """An engine whose masses are a hash of every input since its context began, so that any slip changes them."""

    stepwise = False
    callers = 1
    is_compiled = False
    floor_bits = 0

    def __init__(self, vocab_size: int = 16, context: int = 7, start_token: int = 3, batch_tokens: int = 1024) -> None:
        self.vocab_size = vocab_size
        self.context = context
        self.start_token = start_token
        self.batch_tokens = batch_tokens
        self.device = "cpu"
        self.most_tokens = 0  # in one call of forward

    def new_cache(self, rows: int, chunk: int, positions: int) -> HashCache:
        return HashCache(np.zeros(rows, dtype=np.int64))

    def step_bytes(self, rows: int, chunk: int, positions: int) -> int:
        return 8 * rows

    def forward(self, ids: np.ndarray, cache: HashCache | None = None) -> np.ndarray:
        cache = cache or self.new_cache(*ids.shape, self.context)
        if cache.length + ids.shape[1] > self.context:
            raise ValueError("more inputs than the context holds")
        self.most_tokens = max(self.most_tokens, ids.size)
        state = cache.state if cache.length else np.zeros_like(cache.state)
        states = []
        for column in ids.T:
            state = (state * 8191 + column + 1) % 1_000_003
            states.append(state)
        cache.state[:] = state
        cache.length += ids.shape[1]
        return np.stack(states, 1)[:, :, None].astype(np.float32)  # below 2^24: exact

    def masses(self, hidden: np.ndarray) -> np.ndarray:
        state = hidden.astype(np.int64)
        symbols = np.arange(1, self.vocab_size + 1)
        value = state * 2_654_435_761 + symbols * 40_503 + state * symbols * symbols
        masses = (value ^ (value >> 13)) % (1 << 21) - (1 << 20)  # about half of them 0
        masses = np.maximum(masses, 0)
        masses[np.arange(len(masses)), state[:, 0] % self.vocab_size] = 1 << 20
        return masses.astype(np.int32)

    def readout(self, total_bits: int = 24) -> Readout:
        return readout(self.vocab_size, self.device, total_bits=total_bits)


@pytest.fixture(scope="session")
def hash_engine() -> type[HashEngine]:
    """The class HashEngine."""
    return HashEngine


@pytest.fixture(scope="session")
def effort() -> int:
    """How often tests with random data repeat what they do: once, or with LLMZIP_FUZZ=deep many times."""
    return 30 if DEEP else 1


@pytest.fixture
def passed_tokens(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens went through exact engines, call by call, in Python and in compiled rows."""
    forward, read, advance, passed = ExactEngine.forward, CpuRows.read, CpuDecoding.advance, []

    def counted(self: ExactEngine, ids: np.ndarray, cache: Any = None) -> Any:
        passed.append(int(np.prod(ids.shape)))
        return forward(self, ids, cache)

    def counted_read(self: CpuRows, sink: Any, first_step: int, last_step: int, first_place: int) -> None:
        passed.append(self.counts.num_rows * (last_step - first_step))
        read(self, sink, first_step, last_step, first_place)

    def counted_advance(self: CpuDecoding, last_step: int) -> int:
        begun, reached = self.step, advance(self, last_step)
        passed.append(self.num_rows * (reached - begun))
        return reached

    monkeypatch.setattr(ExactEngine, "forward", counted)
    monkeypatch.setattr(CpuRows, "read", counted_read)
    monkeypatch.setattr(CpuDecoding, "advance", counted_advance)
    return passed


# -- numbers -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Random numbers that are the same in every run, and differ between tests."""
    return np.random.default_rng(list(request.node.nodeid.encode()))
