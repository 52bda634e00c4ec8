"""Checks how the float engine finds out the way a model runs token by token: by what it does, not by names."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from llmzip.engines import float_steps
from llmzip.engines.floating import FloatEngine
from llmzip.errors import EngineError, ModelUnsupportedError, ResourceError

VOCABULARY, WIDTH = 20, 16
IDS = torch.tensor([[1, 2, 3], [1, 2, 4], [6, 5, 7]])


class Sums(torch.nn.Module):
    """A causal model: it predicts from a decaying sum of what it has read and from the number of the position."""

    dtype = torch.float32
    takes, gives = "memory", "memory"
    knows_position = True
    """From its state; else it has to be told, and takes each token for the first."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(8)
        self.embed = torch.nn.Embedding(VOCABULARY, WIDTH)
        self.places = torch.nn.Embedding(64, WIDTH)
        self.head = torch.nn.Linear(WIDTH, VOCABULARY)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        memory: Any = None,
        use_cache: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        return self.read(input_ids, position_ids, memory, use_cache)

    def read(self, ids: torch.Tensor, positions: torch.Tensor | None, memory: Any, use_cache: bool | None) -> Any:
        total, count = memory or (torch.zeros(len(ids), WIDTH), 0)
        if positions is None:
            first = count if self.knows_position else 0
            positions = torch.arange(first, first + ids.shape[1]).expand(ids.shape)
        sums = []
        for token in self.embed(ids).unbind(1):
            total = 0.7 * total + token
            sums.append(total)
        logits = self.head(torch.tanh(torch.stack(sums, 1) + self.places(positions)))
        state = {self.gives: self.keep(memory, (total, count + ids.shape[1]))} if use_cache else {}
        return SimpleNamespace(logits=logits, loss=None, **state)

    def keep(self, before: Any, state: Any) -> Any:
        return state


class OtherNames(Sums):
    gives = "next_memory"


class Hidden(Sums):
    """A decorator hides the names."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return super().forward(*args, **kwargs)


class InPlace(Sums):
    """The state is changed in place, and given back at the first token only."""

    def keep(self, before: Any, state: Any) -> Any:
        if before is None:
            return list(state)
        before[:] = state
        return None


class Untold(Sums):
    """The number of the position has to be passed."""

    knows_position = False


class Slots(Sums):
    """`cache_position` is the slot of a state of four, not the position."""

    def forward(self, input_ids: torch.Tensor, memory: Any = None, **others: Any) -> Any:
        if memory is not None:
            if others.get("cache_position") is None:
                raise ValueError("the slot is missing")
            if others["cache_position"][0] < 4:
                memory = (memory[0].flip(1), memory[1])
        return self.read(input_ids, None, memory, others.get("use_cache"))


class Inside(Sums):
    """The state stays in the model, where two texts would mix; what is given back is no state."""

    def forward(self, input_ids: torch.Tensor, memory: Any = None, use_cache: bool | None = None, **_: Any) -> Any:
        found = self.read(input_ids, None, self.inside if memory and use_cache else None, use_cache)
        if use_cache:
            self.inside = found.memory
            found.memory = "inside"
        return found


class Forgetful(Sums):
    def forward(self, input_ids: torch.Tensor, **others: Any) -> Any:
        return self.read(input_ids, None, None, others.get("use_cache"))


class Bare(Sums):
    def forward(self, input_ids: torch.Tensor, **others: Any) -> Any:
        return SimpleNamespace(logits=self.read(input_ids, None, None, None).logits, hidden_states=(1, 2))


def find(module: Any) -> float_steps.Way:
    with torch.inference_mode():
        return float_steps.find(module, IDS, float_steps.whole(module, IDS))


@pytest.mark.parametrize(
    ("kind", "way"),
    [
        (Sums, float_steps.Way("memory", "memory", {})),
        (OtherNames, float_steps.Way("next_memory", "memory", {})),
        (Hidden, float_steps.Way("memory", "memory", {})),
        (InPlace, float_steps.Way("memory", "memory", {})),
        (Untold, float_steps.Way("memory", "memory", {"position_ids": 0})),
        (Slots, float_steps.Way("memory", "memory", {"cache_position": 64})),
    ],
)
def test_the_way_is_found_by_what_it_does(kind: type[Sums], way: float_steps.Way) -> None:
    module = kind()
    assert find(module) == way
    text, state, steps = torch.arange(2, 14).view(2, 6), None, []
    with torch.inference_mode():
        for position in range(6):
            logits, state = float_steps.step(module, way, text[:, position : position + 1], state, position)
            steps.append(logits)
        assert torch.allclose(torch.cat(steps, 1), float_steps.whole(module, text), atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "gives", "reason"),
    [
        (Inside, True, "steps differ from the whole sequence"),
        (Forgetful, True, "steps differ from the whole sequence"),
        (Bare, False, "returns nothing but its predictions"),
    ],
)
def test_no_way(kind: type[Sums], gives: bool, reason: str) -> None:
    with pytest.raises(float_steps.NoWayError, match=reason) as caught:
        find(kind())
    assert caught.value.gives_state is gives and "\n" not in str(caught.value)


def test_a_lack_of_memory_is_no_wrong_way() -> None:
    class Large(Sums):
        def keep(self, before: Any, state: Any) -> Any:
            raise MemoryError

    with pytest.raises(ResourceError):
        find(Large())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", [Sums, Untold])
def test_short_types_are_not_taken_for_forgetting(kind: type[Sums], dtype: torch.dtype) -> None:
    """Steps round differently from the whole; a wrong position is still told from that."""

    class Rough(kind):  # type: ignore[misc,valid-type]
        def read(self, *args: Any) -> Any:
            found = super().read(*args)
            noise = torch.randn(found.logits.shape, generator=self.generator) * torch.finfo(dtype).eps * 4
            found.logits = found.logits * (1 + noise)
            return found

    module = Rough()
    module.dtype, module.generator = dtype, torch.Generator().manual_seed(1)
    assert find(module).positions == ({} if kind is Sums else {"position_ids": 0})


# -- models of transformers --------------------------------------------------------------------------------------------

SMALL = {
    "vocab_size": 32, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "initializer_range": 0.3,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "Llama": {},
    "Mamba": {"state_size": 8},
    "Mamba2": {"state_size": 8, "num_heads": 4, "head_dim": 16, "n_groups": 1},
    "Lfm2": {"num_key_value_heads": 1, "layer_types": ["conv", "full_attention"]},
    "OPT": {"ffn_dim": 32, "word_embed_proj_dim": 32, "max_position_embeddings": 64},
    "Jamba": {
        "num_key_value_heads": 1, "num_experts": 2, "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 8,
        "use_mamba_kernels": False,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    def make(kind: str, **fields: Any) -> Path:
        torch.manual_seed(5)
        folder = tmp_path_factory.mktemp(kind)
        config = getattr(transformers, f"{kind}Config")(**SMALL | fields)
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        return folder

    return make


def stored(folder: Path) -> dict[str, torch.Tensor]:
    """A checkpoint's tensors, apart from its file, which may be written anew."""
    return {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_steps_predict_what_the_whole_does(kind: str, dtype: str, checkpoint: Callable[..., Path]) -> None:
    engine = FloatEngine(checkpoint(kind, **KINDS[kind]), dtype=dtype)
    text = np.array([[1, 7, 7, 9, 30, 8, 12, 3, 21, 5], [1, 4, 20, 5, 6, 19, 3, 3, 3, 11]])
    cache = engine.new_cache(2, 1, 16)
    steps = torch.cat([engine.forward(text[:, at : at + 1], cache) for at in range(text.shape[1])], 1)
    wanted = engine.prefill(text)
    apart = float((steps - wanted).square().mean().sqrt() / wanted.square().mean().sqrt())
    assert apart < (1e-4 if dtype == "float32" else 0.1)


def test_nothing_is_printed(checkpoint: Callable[..., Path]) -> None:
    """No warning of transformers reaches whoever uses the engine: no name that is going out of use, no advice."""
    folders = [str(checkpoint(kind, **fields)) for kind, fields in KINDS.items()]
    program = (
        "import sys, numpy as np\nfrom pathlib import Path\nfrom llmzip.engines.floating import FloatEngine\n"
        "for folder in sys.argv[1:]:\n"
        "    engine = FloatEngine(Path(folder))\n"
        "    cache = engine.new_cache(1, 1, 8)\n"
        "    for token in range(1, 6): engine.forward(np.array([[token]]), cache)\n"
        "    engine.prefill(np.array([[1, 2, 3]]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "default::DeprecationWarning:transformers", "-c", program, *folders],
        capture_output=True, text=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_model_without_state_is_told_from_a_foreign_transformers(
    checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    stateless = checkpoint("OpenAIGPT", n_embd=32, n_layer=1, n_head=2)
    llama = checkpoint("Llama")
    seed = torch.random.get_rng_state()
    with pytest.raises(
        ModelUnsupportedError,
        match=rf"openai-gpt keeps no state between tokens with transformers {transformers.__version__}",
    ):
        FloatEngine(stateless)
    assert torch.equal(torch.random.get_rng_state(), seed)
    # A version that calls the state what llmzip takes for something else.
    name = FloatEngine(llama)._model.way.output
    monkeypatch.setattr(float_steps, "_NO_STATES", {*float_steps._NO_STATES, name})
    with pytest.raises(EngineError, match=r"does not work with transformers .*: .*; install another version") as caught:
        FloatEngine(llama)
    assert "model" not in str(caught.value).split(":")[0]
    # A version that takes none of the arguments.
    monkeypatch.undo()

    def foreign(*_: Any, **__: Any) -> Any:
        raise TypeError("forward() got an unexpected keyword argument 'use_cache'")

    monkeypatch.setattr(transformers.LlamaForCausalLM, "forward", foreign)
    with pytest.raises(EngineError, match=r"does not work with transformers .*: .* argument 'use_cache'"):
        FloatEngine(llama)


def test_predictions_that_are_no_numbers_are_refused(checkpoint: Callable[..., Path]) -> None:
    folder = checkpoint("Llama")
    tensors = stored(folder)
    tensors["model.norm.weight"].fill_(float("nan"))
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelUnsupportedError, match="its predictions are not numbers"):
        FloatEngine(folder)


def test_bits_do_not_depend_on_where_tensors_lie_in_the_file(checkpoint: Callable[..., Path]) -> None:
    folder = checkpoint("Llama")
    ids, found = np.array([[1, 2, 3, 4, 5, 6, 7, 8]]), []
    tensors = stored(folder)
    for more in range(8):
        save_file(tensors, folder / "model.safetensors", {"format": "pt", "pad": " " * 8 * more})
        engine = FloatEngine(folder)
        assert all(parameter.data_ptr() % 64 == 0 for parameter in engine._model.module.parameters())
        found.append(engine.prefill(ids))
    assert all(torch.equal(logits, found[0]) for logits in found)
