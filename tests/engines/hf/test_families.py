"""Checks that the exact engine's code length is that of transformers in float32, for every family and storage."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from llmzip.codec import rows
from llmzip.engines.exact import ExactEngine
from llmzip.errors import ModelNotFoundError, ModelUnsupportedError
from llmzip.format.plan import profile_plan
from llmzip.inference.progress import ByteMeter
from llmzip.models.tokenizer import Tokenizer
from llmzip.models.weights import load_model

BARE = {"rope_type": "default", "rope_theta": 5000.0}
LINEAR = {"rope_type": "linear", "rope_theta": 20000.0, "factor": 2.5}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 50000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 128}
LONG = {
    "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0 + n / 7 for n in range(12)],
    "long_factor": [4.0] * 12, "original_max_position_embeddings": 512,
}  # fmt: skip
GEMMA2 = {"head_dim": 32, "sliding_window": 24, "query_pre_attn_scalar": 24, "tie_word_embeddings": True}
GEMMA3 = {
    "head_dim": 32, "sliding_window": 24, "query_pre_attn_scalar": 32, "tie_word_embeddings": True,
    "layer_types": ["sliding_attention", "full_attention"],
}  # fmt: skip
GPT2 = {"n_embd": 96, "n_layer": 2, "n_head": 4, "n_positions": 512, "tie_word_embeddings": True}
NEOX = {"hidden_act": "gelu", "tie_word_embeddings": False}
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
    "smollm3": ("SmolLM3", {"no_rope_layers": [1, 0], "tie_word_embeddings": True}),
    "phi3": ("Phi3", {"sliding_window": None}),
    "phi3 window, part rotated": ("Phi3", {"sliding_window": 40, "partial_rotary_factor": 0.5}),
    "phi3 longrope": ("Phi3", {"sliding_window": None, "rope_parameters": LONG, "max_position_embeddings": 2048}),
    "gemma": ("Gemma", {"head_dim": 32, "tie_word_embeddings": True}),
    "gemma heads of 256": ("Gemma", {"head_dim": 256, "num_key_value_heads": 1, "tie_word_embeddings": True}),
    "gemma2": ("Gemma2", GEMMA2),
    "gemma2 strong caps": ("Gemma2", GEMMA2 | {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 12.0}),
    "gemma3": ("Gemma3Text", GEMMA3),
    "gemma3 scaled": (
        "Gemma3Text",
        GEMMA3 | {"rope_parameters": {"full_attention": LINEAR, "sliding_attention": BARE}},
    ),
    "gpt2": ("GPT2", GPT2),
    "gpt2 gelu": ("GPT2", GPT2 | {"activation_function": "gelu", "n_inner": 100}),
    "gpt-neox": ("GPTNeoX", NEOX),
    "gpt-neox one after the other": ("GPTNeoX", NEOX | {"use_parallel_residual": False, "attention_bias": False}),
    "gpt-neox all rotated": ("GPTNeoX", NEOX | {"rotary_pct": 1.0, "hidden_act": "gelu_new"}),
    "llama linear": ("Llama", {"rope_parameters": LINEAR}),
    "llama dynamic": ("Llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}}),
    "llama llama3": ("Llama", {"rope_parameters": LLAMA3}),
    "llama yarn": ("Llama", {"rope_parameters": YARN, "head_dim": 64}),
    "llama yarn, given gain": ("Llama", {"rope_parameters": YARN | {"attention_factor": 0.8, "beta_fast": 16.0}}),
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
    hidden = engine.forward(np.array([[1, *tokens[:-1]]]))
    masses = engine.masses(hidden[0])
    assert not np.array_equal(masses[10], masses[11])
    parts = torch.from_numpy(engine.readout().frequencies.intervals(masses, np.array(tokens))).double()
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


@pytest.mark.parametrize("planes", [1, 2])
@pytest.mark.parametrize("name", FAMILIES)
def test_steps_give_the_bits_of_prefill(
    name: str, planes: int, checkpoint: Callable[[str], Path], sequence: list[int]
) -> None:
    engine = ExactEngine(load_model(checkpoint(name), planes=planes))
    ids = np.array([[1, *sequence[:69]], [1, *sequence[100:169]], [1, *sequence[200:269]]])
    whole = engine.forward(ids)
    cache = engine.new_cache(3, 40, 70)
    pieces = [engine.forward(part, cache) for part in np.split(ids, np.cumsum([1, 1, 40, *[1] * 27]), 1)]
    assert np.array_equal(np.concatenate(pieces, 1), whole)
    assert np.array_equal(engine.forward(ids[1:2]), whole[1:2])


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["llama", "mistral", "qwen2", "qwen3", "smollm3", "phi3", "gemma", "gemma2", "gemma3", "gpt2", "gpt-neox"]
)
def test_long_and_odd_texts_come_back(
    name: str, checkpoint: Callable[[str], Path], make_tokenizer: Callable[..., Path], tmp_path: Path
) -> None:
    """100 KB of text, and all that tokenizers stumble over, with a vocabulary of its own."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(checkpoint(name))
    config.vocab_size = 320
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    make_tokenizer(tmp_path, vocab_size=320)
    tokenizer, engine = Tokenizer(tmp_path, 320), ExactEngine(load_model(tmp_path, planes=1, context=200))
    odd = b"a\r\n\0 <|endoftext|>\xff\xfe\xed\xa0\x80" + "e\u0301 \u2581 \U0001f469\u200d\U0001f467".encode()
    for data in (
        odd,
        bytes(range(256)),
        b" ",
        (Path(__file__).parents[3] / "corpora" / "prose-en.txt").read_bytes() * 9,
    ):
        text = data[:100_000]
        tokens = tokenizer.encode(text)
        plan = profile_plan(0, len(tokens), engine.context)
        payload, _ = rows.FrameCoder(engine).encode(tokens, plan)
        back = rows.FrameCoder(engine).decode(payload, plan, ByteMeter(tokenizer.table.num_bytes, len(text)))
        assert tokenizer.table.decode(back) == text


def rounded(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Every matrix rounded to 127 steps of its rows, and back to float."""

    def steps(tensor: torch.Tensor) -> torch.Tensor:
        scale = tensor.abs().amax(1, keepdim=True) / 127
        return (tensor / scale).round() * scale

    def by_output(name: str, tensor: torch.Tensor) -> torch.Tensor:
        turned = ".c_" in name  # GPT-2 stores its matrices the other way round
        return steps(tensor.T).T.contiguous() if turned else steps(tensor)

    return {name: by_output(name, tensor) if tensor.ndim == 2 else tensor for name, tensor in tensors.items()}


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
    with pytest.raises(ModelNotFoundError, match=f"{shards[1].name} is missing: the download is incomplete"):
        load_model(tmp_path)


def test_saved_configs_of_unknown_rope_scaling_are_refused(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    config = json.loads((checkpoint("llama") / "config.json").read_text(encoding="utf-8"))
    config["rope_parameters"] = {"rope_type": "spiral", "rope_theta": 10000.0, "factor": 2.0}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (tmp_path / "model.safetensors").symlink_to(checkpoint("llama") / "model.safetensors")
    with pytest.raises(ModelUnsupportedError, match="rope type 'spiral' is not supported"):
        load_model(tmp_path)


SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
GROUPED = SMALL | {"num_key_value_heads": 1}


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("Bloom", {"hidden_size": 32, "n_layer": 1, "n_head": 2}),
        ("Mamba", {"hidden_size": 32, "num_hidden_layers": 1}),
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
