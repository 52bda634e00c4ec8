"""Checks the float engine on architectures that the exact one does not run, and what it refuses."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from llmzip import rows
from llmzip.engines import floating
from llmzip.engines.floating import FloatEngine
from llmzip.errors import EngineError, ModelNotFoundError, ModelUnsupportedError

VOCABULARY = 96
COMMON = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "initializer_range": 0.3}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "mamba": ("Mamba", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}),
    "mixture of experts": (
        "Mixtral",
        {
            "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
            "intermediate_size": 48, "num_local_experts": 4, "max_position_embeddings": 256,
        },
    ),
    "bloom": ("Bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 2}),
    "opt": (
        "OPT",
        {
            "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 64,
            "max_position_embeddings": 64, "word_embed_proj_dim": 32,
        },
    ),
    "llama": ("Llama", {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}),
}  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Random checkpoints."""
    made = {}
    for name, (kind, fields) in FAMILIES.items():
        torch.manual_seed(3)
        config = getattr(transformers, f"{kind}Config")(**COMMON | fields)
        made[name] = tmp_path_factory.mktemp("float")
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(made[name])
    return made


def tokens(count: int) -> np.ndarray:
    return np.random.default_rng(4).integers(3, VOCABULARY, count)


@pytest.mark.parametrize("name", FAMILIES)
def test_rows_come_back(name: str, folders: dict[str, Path]) -> None:
    engine, text = FloatEngine(folders[name]), tokens(83)
    plan = rows.RowPlan(len(text), 3, 1)
    payload, bits = rows.encode(engine, text, plan)
    assert 8 * len(payload) == pytest.approx(bits, abs=80)
    lengths = np.ones(engine.vocab_size, dtype=np.int64)
    found = rows.decode(FloatEngine(folders[name]), payload, plan, lambda ids: int(lengths[ids].sum()), len(text))
    assert found.tolist() == text.tolist()


@pytest.mark.parametrize("name", ["mamba", "opt"])
def test_contexts_begin_anew(name: str, folders: dict[str, Path]) -> None:
    engine, text = FloatEngine(folders[name], context=12), tokens(70)
    plan = rows.RowPlan(len(text), 2, 4)
    payload, _ = rows.encode(engine, text, plan)
    found = rows.decode(engine, payload, plan, len, len(text))
    assert found.tolist() == text.tolist()
    whole, _ = rows.encode(FloatEngine(folders[name]), text, plan)
    assert whole != payload


@pytest.mark.parametrize("name", FAMILIES)
def test_code_length_is_that_of_transformers(name: str, folders: dict[str, Path]) -> None:
    engine, text = FloatEngine(folders[name]), tokens(50)
    model = transformers.AutoModelForCausalLM.from_pretrained(folders[name], dtype=torch.float32).eval()
    with torch.no_grad():
        logits = model(torch.tensor([[engine.start_token, *text[:-1]]])).logits[0].double()
    expected = -float(logits.log_softmax(-1)[torch.arange(len(text)), torch.from_numpy(text)].sum()) / math.log(2)
    _, bits = rows.encode(engine, text, rows.RowPlan(len(text), 1, 1))
    assert bits == pytest.approx(expected, rel=1e-3)
    assert engine.start_token == 1 and engine.vocab_size == VOCABULARY


def test_the_environment_tells_what_bits_depend_on(folders: dict[str, Path]) -> None:
    line = FloatEngine(folders["llama"]).environment()
    assert line.isascii() and len(line) <= 200
    fields = dict(part.split("=", 1) for part in line.split(" "))
    assert fields["device"] == "cpu" and fields["torch"] == torch.__version__
    assert fields["threads"] == str(torch.get_num_threads())
    assert fields["transformers"] == transformers.__version__ and fields["attention"] == "eager"


def test_digests_tell_models_apart(folders: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    source = folders["llama"]
    config, tensors = json.loads((source / "config.json").read_text()), load_file(source / "model.safetensors")
    digests = [floating.digest(source)]

    def changed(name: str, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> bytes:
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config), encoding="utf-8")
        save_file(tensors, tmp_path / name / "model.safetensors", {"format": "pt"})
        return floating.digest(tmp_path / name)

    assert changed("same", config | {"transformers_version": "0", "_name_or_path": "x"}, tensors) == digests[0]
    digests.append(changed("config", config | {"rms_norm_eps": 0.5}, tensors))
    name = next(iter(tensors))
    digests.append(changed("weight", config, tensors | {name: tensors[name] * 1.5}))
    digests.append(changed("dtype", config, tensors | {name: tensors[name].bfloat16()}))
    digests.append(changed("name", config, tensors | {"more": torch.ones(3)}))
    assert len(set(digests)) == 5


# -- what is refused ---------------------------------------------------------------------------------------------------

SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


def test_models_that_look_ahead_are_refused(tmp_path: Path) -> None:
    config = transformers.BertConfig(vocab_size=64, **SMALL)
    transformers.BertForMaskedLM(config).save_pretrained(tmp_path)
    with pytest.raises(ModelUnsupportedError, match="no causal language model"):
        FloatEngine(tmp_path)


def test_encoder_decoders_are_refused(tmp_path: Path) -> None:
    config = transformers.T5Config(vocab_size=64, d_model=32, d_ff=32, num_layers=1, num_heads=2, d_kv=16)
    transformers.T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    with pytest.raises(ModelUnsupportedError, match="encoder-decoder"):
        FloatEngine(tmp_path)


def test_image_models_are_refused(tmp_path: Path) -> None:
    config = transformers.ViTConfig(image_size=16, patch_size=8, **SMALL)
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path)
    with pytest.raises(ModelUnsupportedError, match="transformers cannot load it"):
        FloatEngine(tmp_path)


def test_code_of_the_repository_is_never_run(folders: dict[str, Path], tmp_path: Path) -> None:
    config = json.loads((folders["llama"] / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_own.OwnForCausalLM"}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (tmp_path / "modeling_own.py").write_text("raise SystemExit('ran')\n", encoding="utf-8")
    (tmp_path / "model.safetensors").symlink_to(folders["llama"] / "model.safetensors")
    with pytest.raises(ModelUnsupportedError, match="needs code from its repository, which is never run"):
        FloatEngine(tmp_path)


def test_pickled_weights_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((folders["llama"] / "config.json").read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02")
    with pytest.raises(ModelNotFoundError, match="pickled weights are refused"):
        FloatEngine(tmp_path)


def test_too_long_a_context_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(ModelUnsupportedError, match="64 positions, fewer than the 65 asked for"):
        FloatEngine(folders["opt"], context=65)


def test_only_single_steps_are_taken(folders: dict[str, Path]) -> None:
    engine = FloatEngine(folders["llama"])
    with pytest.raises(EngineError, match="one token of every row"):
        engine.forward(torch.zeros((1, 2), dtype=torch.int64), engine.new_cache(1, 1, 8))
