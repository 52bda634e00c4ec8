"""Checks that the exact engine's code length is that of transformers in float32, for every family and storage."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from llmzip.engines.exact import ExactEngine
from llmzip.engines.freqs import Frequencies
from llmzip.engines.weights import load_model
from llmzip.errors import ModelUnsupportedError

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {"head_dim": 24}),
    "llama tied": ("Llama", {"head_dim": 64, "tie_word_embeddings": True}),
    "llama heads of 128, no groups": ("Llama", {"head_dim": 128, "num_attention_heads": 2}),
    "llama one key head": ("Llama", {"head_dim": 32, "num_key_value_heads": 1}),
    "llama biases": ("Llama", {"attention_bias": True, "mlp_bias": True, "rope_theta": 5e5, "rms_norm_eps": 0.02}),
    "mistral": ("Mistral", {"sliding_window": None, "head_dim": 32}),
    "mistral window": ("Mistral", {"sliding_window": 24, "head_dim": 32}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen2 windows": ("Qwen2", {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1}),
    "qwen3": ("Qwen3", {"head_dim": 64}),
    "qwen3 window": (
        "Qwen3",
        {"head_dim": 32, "use_sliding_window": True, "sliding_window": 20, "max_window_layers": 0},
    ),
}

Bits = Callable[[Path, list[int]], torch.Tensor]


@pytest.fixture(scope="module")
def checkpoint(
    make_family: Callable[..., Any], train: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """The folder of a family's checkpoint, made when it is first asked for."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            kind, fields = FAMILIES[name]
            made[name] = tmp_path_factory.mktemp("family")
            train(make_family(kind, fields)).save_pretrained(made[name])
        return made[name]

    return make


def exact_bits(folder: Path, tokens: list[int], planes: int = 2) -> torch.Tensor:
    """The cost in bits of each token by the frequencies that the coder would use."""
    engine = ExactEngine(load_model(folder, planes=planes))
    assert engine.start_token == 1
    hidden = engine.forward(torch.tensor([[1, *tokens[:-1]]]))
    masses = engine.masses(hidden[0])
    assert not torch.equal(masses[10], masses[11])
    parts = Frequencies(engine.vocab_size).intervals(masses, torch.tensor(tokens)).double()
    return 48 - parts[:, 1].log2() - parts[:, 3].log2()


@pytest.mark.parametrize("name", FAMILIES)
def test_code_length_is_that_of_transformers(
    name: str, checkpoint: Callable[[str], Path], float_bits: Bits, sequence: list[int]
) -> None:
    folder = checkpoint(name)
    exact, true = exact_bits(folder, sequence), float_bits(folder, sequence)
    # The model must have learnt something and not everything, or any engine would pass.
    assert 1.0 < true.mean() < 4.5 and true.min() < 0.2 and true.max() > 7
    assert exact.sum() == pytest.approx(float(true.sum()), rel=1e-3)
    assert (exact - true).abs().max() < 0.35


@pytest.mark.parametrize("name", FAMILIES)
def test_tokens_cost_what_transformers_says_with_the_same_integer_weights(
    name: str, checkpoint: Callable[[str], Path], float_bits: Bits, sequence: list[int], tmp_path: Path
) -> None:
    """With the rounding of the weights taken out, what is left is the engine's own arithmetic."""
    folder = checkpoint(name)
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    save_file(rounded(load_file(folder / "model.safetensors")), tmp_path / "model.safetensors", {"format": "pt"})
    exact, true = exact_bits(tmp_path, sequence), float_bits(tmp_path, sequence)
    assert exact.sum() == pytest.approx(float(true.sum()), rel=4e-4)
    assert (exact - true).abs().max() < 0.12


def rounded(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Every matrix rounded to 127 steps of its rows, and back to float."""

    def steps(tensor: torch.Tensor) -> torch.Tensor:
        scale = tensor.abs().amax(1, keepdim=True) / 127
        return (tensor / scale).round() * scale

    return {name: steps(tensor) if tensor.ndim == 2 else tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_one_plane_costs_little_more(
    name: str, checkpoint: Callable[[str], Path], float_bits: Bits, sequence: list[int]
) -> None:
    folder = checkpoint(name)
    one = exact_bits(folder, sequence, planes=1)
    assert one.sum() == pytest.approx(float(float_bits(folder, sequence).sum()), rel=1e-2)
    assert not torch.equal(one, exact_bits(folder, sequence))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["llama tied", "qwen2", "qwen3"])
def test_half_precision_checkpoints(
    name: str,
    dtype: torch.dtype,
    checkpoint: Callable[[str], Path],
    float_bits: Bits,
    sequence: list[int],
    tmp_path: Path,
) -> None:
    source = load_file(checkpoint(name) / "model.safetensors")
    config = json.loads((checkpoint(name) / "config.json").read_text(encoding="utf-8"))
    config["dtype"] = str(dtype).removeprefix("torch.")
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    halves = {key: tensor.to(dtype) for key, tensor in source.items()}
    save_file(halves, tmp_path / "model.safetensors", {"format": "pt"})
    exact, true = exact_bits(tmp_path, sequence), float_bits(tmp_path, sequence)
    assert exact.sum() == pytest.approx(float(true.sum()), rel=1e-3)


@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_sharded_checkpoints_are_the_same_model(name: str, checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint(name))
    model.save_pretrained(tmp_path, max_shard_size="150KB")
    shards = list(tmp_path.glob("*.safetensors"))
    assert len(shards) > 2
    assert load_model(tmp_path).digest() == load_model(checkpoint(name)).digest()
    shards[1].unlink()
    with pytest.raises(ModelUnsupportedError, match=shards[1].name):
        load_model(tmp_path)


def test_saved_configs_of_rope_scaling_are_refused(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    """As transformers writes them, the scalings that the engine does not know must be refused by their name."""
    import transformers

    scalings: dict[str, dict[str, float]] = {
        "linear": {"factor": 2.0},
        "dynamic": {"factor": 2.0},
        "yarn": {"factor": 4.0, "original_max_position_embeddings": 128},
        "llama3": {
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 256,
        },
    }
    for kind, fields in scalings.items():
        config = transformers.AutoConfig.from_pretrained(checkpoint("llama"))
        config.rope_parameters = {"rope_type": kind, "rope_theta": 10000.0, **fields}
        config.save_pretrained(tmp_path / kind)
        (tmp_path / kind / "model.safetensors").symlink_to(checkpoint("llama") / "model.safetensors")
        with pytest.raises(ModelUnsupportedError, match=f"rope type '{kind}' is not supported"):
            load_model(tmp_path / kind)


SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
GROUPED = SMALL | {"num_key_value_heads": 1}


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("GPT2", {"n_embd": 32, "n_layer": 1, "n_head": 2}),
        ("GPTNeoX", SMALL),
        ("Gemma", GROUPED | {"head_dim": 16}),
        ("Phi3", GROUPED),
        ("Mixtral", GROUPED | {"num_local_experts": 2}),
    ],
)
def test_other_families_are_refused_by_name(kind: str, fields: dict[str, Any], tmp_path: Path) -> None:
    import transformers

    config = getattr(transformers, f"{kind}Config")(
        vocab_size=64, bos_token_id=1, eos_token_id=2, pad_token_id=0, **fields
    )
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(
        ModelUnsupportedError, match=f"model_type '{config.model_type}' is not one the exact engine runs"
    ):
        load_model(tmp_path)
