"""Checks the float engine on architectures that the exact one does not run, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from llmzip.codec import rows
from llmzip.engines import floating
from llmzip.engines.floating import FloatEngine
from llmzip.errors import EngineError, ModelNotFoundError, ModelUnsupportedError, ResourceError
from llmzip.format.headers import ENGINE_FLOAT
from llmzip.format.plan import RowPlan
from llmzip.inference import load
from llmzip.inference.progress import ByteMeter
from llmzip.models.choice import ModelChoice, choose_model
from llmzip.settings import EngineSettings

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


def copy(
    source: Path,
    target: Path,
    tensors: Callable[[dict[str, torch.Tensor]], Any] | None = None,
    **fields: Any,
) -> Path:
    """A checkpoint with other fields in its configuration, and its tensors changed in place."""
    shutil.copytree(source, target)
    config = json.loads((target / "config.json").read_text(encoding="utf-8"))
    (target / "config.json").write_text(json.dumps(config | fields), encoding="utf-8")
    if tensors is not None:
        found = load_file(source / "model.safetensors")  # not from the file that is written
        tensors(found)
        save_file(found, target / "model.safetensors", {"format": "pt"})
    return target


def tokens(count: int) -> np.ndarray:
    return np.random.default_rng(4).integers(3, VOCABULARY, count)


@pytest.mark.parametrize("name", FAMILIES)
def test_rows_come_back(name: str, folders: dict[str, Path]) -> None:
    engine, text = FloatEngine(folders[name]), tokens(83)
    plan = RowPlan(len(text), 3, 1)
    payload, bits = rows.FrameCoder(engine).encode(text, plan)
    assert 8 * len(payload) == pytest.approx(bits, abs=80)
    lengths = np.ones(engine.vocab_size, dtype=np.int64)
    found = rows.FrameCoder(FloatEngine(folders[name])).decode(
        payload, plan, ByteMeter(lambda ids: int(lengths[ids].sum()), len(text))
    )
    assert found.tolist() == text.tolist()


@pytest.mark.parametrize("name", ["mamba", "opt"])
def test_contexts_begin_anew(name: str, folders: dict[str, Path]) -> None:
    engine, text = FloatEngine(folders[name], context=12), tokens(70)
    plan = RowPlan(len(text), 2, 4)
    payload, _ = rows.FrameCoder(engine).encode(text, plan)
    found = rows.FrameCoder(engine).decode(payload, plan, ByteMeter(len, len(text)))
    assert found.tolist() == text.tolist()
    whole, _ = rows.FrameCoder(FloatEngine(folders[name])).encode(text, plan)
    assert whole != payload


@pytest.mark.parametrize("name", FAMILIES)
def test_code_length_is_that_of_transformers(name: str, folders: dict[str, Path]) -> None:
    engine, text = FloatEngine(folders[name]), tokens(50)
    model = transformers.AutoModelForCausalLM.from_pretrained(folders[name], dtype=torch.float32).eval()
    with torch.no_grad():
        logits = model(torch.tensor([[engine.start_token, *text[:-1]]])).logits[0].double()
    expected = -float(logits.log_softmax(-1)[torch.arange(len(text)), torch.from_numpy(text)].sum()) / math.log(2)
    _, bits = rows.FrameCoder(engine).encode(text, RowPlan(len(text), 1, 1))
    assert bits == pytest.approx(expected, rel=1e-3)
    assert engine.start_token == 1 and engine.vocab_size == VOCABULARY


def test_the_environment_tells_what_bits_depend_on(folders: dict[str, Path]) -> None:
    line = FloatEngine(folders["llama"]).environment()
    assert line.isascii() and len(line) <= 200
    fields = dict(part.split("=", 1) for part in line.split(" "))
    assert fields["device"] == "cpu" and fields["torch"] == torch.__version__
    assert fields["threads"] == str(torch.get_num_threads())
    assert fields["transformers"] == transformers.__version__ and fields["attention"] == "eager"


def test_threads_are_the_archives_or_the_writers(
    make_tokenizer: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = transformers.LlamaConfig(**COMMON | SMALL | {"vocab_size": 320})
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(make_tokenizer(tmp_path))
    choice = dataclasses.replace(choose_model(str(tmp_path)), engine=ENGINE_FLOAT)
    embed, used = torch.nn.Embedding.forward, set()

    def watched(self: torch.nn.Embedding, ids: torch.Tensor) -> torch.Tensor:
        used.add(torch.get_num_threads())
        return embed(self, ids)

    monkeypatch.setattr(torch.nn.Embedding, "forward", watched)

    def threads(choice: ModelChoice, asked: int | None) -> tuple[str, set[int]]:
        """What the environment says, and what was used while something else set another number."""
        loaded = load.load(choice, EngineSettings(device="cpu", threads=asked))
        torch.set_num_threads(2)
        used.clear()
        loaded.engine.forward(np.zeros((1, 1), dtype=np.int64), loaded.engine.new_cache(1, 1, 1))
        named = dict(part.split("=", 1) for part in loaded.record.environment.split(" "))["threads"]
        archived.append(dataclasses.replace(choice, environment=loaded.record.environment))
        return named, set(used)

    archived: list[ModelChoice] = []
    assert threads(choice, 1) == ("1", {1})
    assert threads(archived[0], None) == threads(archived[0], 2) == threads(archived[0], 3) == ("1", {1})
    assert threads(choice, 3) == ("3", {3})
    torch.set_num_threads(2)
    assert threads(choice, None) == ("2", {2})


def test_logits_beyond_all_measure_are_cut(folders: dict[str, Path]) -> None:
    engine, more = FloatEngine(folders["llama"]), [float("nan"), float("-inf"), -3e38, -1e9, 0.0]
    first = None
    for largest in (1e9, 1.1e9, 2e35, 3.4e38, float("inf")):
        masses = engine.masses(torch.tensor([[largest, largest, *more] + [0.0] * (VOCABULARY - 7)]))
        first = masses if first is None else first
        assert masses.tolist() == first.tolist() and int(masses[0, 0]) == int(masses.max()) > 0


def test_ignored_constants_of_older_checkpoints(folders: dict[str, Path], tmp_path: Path) -> None:
    """What older versions of transformers stored beside the weights does no harm."""
    text = tokens(20)

    def bits(folder: Path) -> float:
        return rows.FrameCoder(FloatEngine(folder)).encode(text, RowPlan(len(text), 1, 1))[1]

    fields = {"hidden_size": 32, "num_layers": 1, "num_heads": 2, "attention_types": [[["global"], 1]]}
    torch.manual_seed(3)
    config = transformers.GPTNeoConfig(**COMMON | fields)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "neo")

    def masks(tensors: dict[str, torch.Tensor]) -> None:
        for name, shape in {"bias": (1, 1, 8, 8), "masked_bias": ()}.items():
            tensors[f"transformer.h.0.attn.attention.{name}"] = torch.ones(shape)

    def frequencies(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)

    for source, change in ((tmp_path / "neo", masks), (folders["llama"], frequencies)):
        assert bits(copy(source, tmp_path / f"{source.name}-old", change)) == bits(source)


def test_tied_heads_may_be_stored_or_not(tmp_path: Path) -> None:
    config = transformers.LlamaConfig(**COMMON | SMALL | {"tie_word_embeddings": True})
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "tied")
    assert "lm_head.weight" not in load_file(tmp_path / "tied" / "model.safetensors")

    def head(tensors: dict[str, torch.Tensor]) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()

    text, plan = tokens(20), RowPlan(20, 1, 1)
    payloads = {
        rows.FrameCoder(FloatEngine(folder)).encode(text, plan)[0]
        for folder in (tmp_path / "tied", copy(tmp_path / "tied", tmp_path / "stored", head))
    }
    assert len(payloads) == 1


def test_digests_tell_models_apart(folders: dict[str, Path], tmp_path: Path) -> None:
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


def _drop(name: str) -> Callable[[dict[str, torch.Tensor]], Any]:
    return lambda tensors: tensors.pop(name)


def _rename(name: str, other: str) -> Callable[[dict[str, torch.Tensor]], Any]:
    return lambda tensors: tensors.update({other: tensors.pop(name)})


@pytest.mark.parametrize(
    ("family", "change", "reason"),
    [
        ("llama", _drop("model.layers.1.mlp.up_proj.weight"), "lacks model.layers.1.mlp.up_proj.weight"),
        ("llama", _drop("lm_head.weight"), "lacks lm_head.weight"),
        ("llama", _rename("model.norm.weight", "model.norm.weigth"), "lacks model.norm.weight"),
        ("llama", lambda tensors: tensors.update(more=torch.ones(3)), "no use for more$"),
        (
            "llama",
            lambda tensors: tensors.update({"model.norm.weight": torch.ones(7)}),
            r"model.norm.weight has the shape 7, its configuration asks for 32$",
        ),
        (
            "mixture of experts",
            _drop("model.layers.0.block_sparse_moe.experts.1.w3.weight"),
            "cannot load it: .* conversion",
        ),
        ("mamba", _drop("backbone.layers.0.mixer.A_log"), "lacks backbone.layers.0.mixer.A_log"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(
    family: str, change: Callable[[dict[str, torch.Tensor]], Any], reason: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    """Transformers would fill in random numbers, others at each run."""
    with pytest.raises(ModelUnsupportedError, match=reason) as caught:
        FloatEngine(copy(folders[family], tmp_path / "other", change))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("positions", [0, -1, None, 200_000])
def test_odd_numbers_of_positions(positions: int | None, folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copy(folders["bloom"], tmp_path / "other", max_position_embeddings=positions)
    assert FloatEngine(folder).context == 2048
    with pytest.raises(ModelUnsupportedError, match=r"a context of 131,073 positions is out of range"):
        FloatEngine(folder, context=131_073)


def test_one_position_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copy(folders["llama"], tmp_path / "other", max_position_embeddings=1)
    with pytest.raises(ModelUnsupportedError, match=r"a context of 1 positions is out of range \(2 to 131,072\)"):
        FloatEngine(folder)


@pytest.mark.parametrize(
    "fields",
    [
        {"hidden_size": "x"},
        {"max_position_embeddings": "512"},
        {"max_position_embeddings": 512.5},
        {"rope_parameters": [1]},
        {"num_attention_heads": 0},
        {"num_hidden_layers": -1},
        {"vocab_size": None},
        {"model_type": ["llama"]},
        {"quantization_config": 7},
    ],
)
def test_wrong_types_in_the_configuration_are_one_line(
    fields: dict[str, Any], folders: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(ModelUnsupportedError, match=r"^model .*: .") as caught:
        FloatEngine(copy(folders["llama"], tmp_path / "other", **fields))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "seen"),
    [(MemoryError, ResourceError), (KeyboardInterrupt, KeyboardInterrupt), (SystemExit, SystemExit)],
)
def test_not_every_error_is_the_models(
    error: type[BaseException], seen: type[BaseException], folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", fail)
    with pytest.raises(seen):
        FloatEngine(folders["llama"])


def test_models_that_give_no_state_back_are_refused(tmp_path: Path) -> None:
    config = transformers.RecurrentGemmaConfig(**COMMON | SMALL | {"num_hidden_layers": 3, "lru_width": 32})
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    # Transformers 5.0 leaves one of its buffers uninitialised when it loads the model.
    reason = "recurrent_gemma keeps no state between tokens|its predictions are not numbers"
    with pytest.raises(ModelUnsupportedError, match=reason):
        FloatEngine(tmp_path)


def test_weights_that_are_there_twice_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    """Transformers would read the one file, the digest the others."""
    folder = copy(folders["llama"], tmp_path / "twice")

    def point_to(name: str) -> None:
        index = {"metadata": {}, "weight_map": dict.fromkeys(load_file(folder / "model.safetensors"), name)}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")

    point_to("model.safetensors")
    FloatEngine(folder)  # they are the same
    shutil.copy(folder / "model.safetensors", folder / "model-1.safetensors")
    point_to("model-1.safetensors")
    with pytest.raises(ModelUnsupportedError, match=r"holds model\.safetensors and .*; remove one of them"):
        FloatEngine(folder)
    (folder / "model.safetensors").unlink()
    FloatEngine(folder)


def test_files_beside_the_usual_ones_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    """Transformers would follow them, and the digest does not cover them."""
    for name in ("transformers_weights", "configuration_files"):
        folder = copy(folders["llama"], tmp_path / name, **{name: ["other.safetensors"]})
        with pytest.raises(ModelUnsupportedError, match=f"config.json names other files under {name}"):
            FloatEngine(folder)
    (copy(folders["llama"], tmp_path / "adapted") / "adapter_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelUnsupportedError, match=r"adapter_config.json"):
        FloatEngine(tmp_path / "adapted")


def test_only_single_steps_are_taken(folders: dict[str, Path]) -> None:
    engine = FloatEngine(folders["llama"])
    with pytest.raises(EngineError, match="one token of every row"):
        engine.forward(np.zeros((1, 2), dtype=np.int64), engine.new_cache(1, 1, 8))
