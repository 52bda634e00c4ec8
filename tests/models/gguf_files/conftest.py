"""Writes checkpoints as GGUF files, laid out as llama.cpp's converter does it: independent of what reads them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from safetensors.torch import load_file

BLOCK_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}
GEMMA_NAMES = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
ENDS = {"embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output", "wte": "token_embd"}
ENDS |= {"wpe": "position_embd", "ln_f": "output_norm"}


def architecture_of(config: Mapping[str, Any]) -> str:
    """The name of a checkpoint's family in llama.cpp."""
    kind = config["model_type"]
    return {"mistral": "llama", "gemma3_text": "gemma3"}.get(kind, kind)


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of queries or keys with the two halves of each head interleaved, as llama.cpp rotates them."""
    half = weight.shape[0] // heads // 2
    pieces = [
        weight[2 * half * head + offset + part * half]
        for head in range(heads)
        for offset in range(half)
        for part in (0, 1)
    ]
    return np.stack(pieces)


def converted(config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """The tensors as the converter lays them out."""
    kind, out = architecture_of(config), {}
    for name, tensor in tensors.items():
        array = tensor.to(torch.float32).numpy()
        part, _, suffix = name.removeprefix("model.").removeprefix("transformer.").rpartition(".")
        pieces = part.split(".")
        if pieces[0] in ("layers", "h"):
            inner = ".".join(pieces[2:])
            names = BLOCK_NAMES | (GEMMA_NAMES if kind in ("gemma2", "gemma3") else {})
            if kind in ("llama", "smollm3") and inner in ("self_attn.q_proj", "self_attn.k_proj"):
                field = "num_attention_heads" if "q_proj" in inner else "num_key_value_heads"
                array = interleaved(array, config[field])
            if kind == "gpt2" and array.ndim == 2:
                array = array.T
            place = f"blk.{pieces[1]}.{names[inner]}.{suffix}"
        else:
            place = f"{ENDS[part]}.{suffix}"
        if kind.startswith("gemma") and part.endswith("norm"):
            array = array + np.float32(1)
        if place == "output.weight" and config.get("tie_word_embeddings"):
            continue
        out[place] = np.ascontiguousarray(array)
    return out


def write_settings(writer: gguf.GGUFWriter, config: Mapping[str, Any]) -> None:
    """The metadata of an architecture."""
    kind = architecture_of(config)
    if kind == "gpt2":
        writer.add_block_count(config["n_layer"])
        writer.add_context_length(config["n_positions"])
        writer.add_embedding_length(config["n_embd"])
        writer.add_feed_forward_length(4 * config["n_embd"])
        writer.add_head_count(config["n_head"])
        writer.add_layer_norm_eps(config["layer_norm_epsilon"])
        return
    heads = config["num_attention_heads"]
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    dim = config.get("head_dim") or config["hidden_size"] // heads
    if kind != "phi3" and config.get("head_dim"):
        writer.add_key_length(dim)
        writer.add_value_length(dim)
    rope = config["rope_parameters"]
    rope = rope.get("full_attention", rope)
    if kind not in ("gemma", "gemma2"):
        writer.add_rope_freq_base(rope["rope_theta"])
    if kind == "phi3":
        writer.add_rope_dimension_count(int(dim * rope.get("partial_rotary_factor", 1.0)))
        writer.add_rope_scaling_orig_ctx_len(config["original_max_position_embeddings"])
    if kind in ("llama", "smollm3"):
        writer.add_rope_dimension_count(dim)
    if rope.get("rope_type") == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    if rope.get("rope_type") == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if kind in ("gemma2", "gemma3", "phi3"):
        writer.add_sliding_window(config.get("sliding_window") or 0)
    if kind == "gemma2":
        writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])


def write_tokenizer(
    writer: gguf.GGUFWriter, description: Mapping[str, Any], config: Mapping[str, Any], pre: str
) -> None:
    """The metadata of a byte-level tokenizer, or of one in SentencePiece's form with scores by rank."""
    size, vocabulary = config["vocab_size"], description["model"]["vocab"]
    added = {entry["content"]: entry for entry in description.get("added_tokens", ())}
    texts, types = [f"[PAD{i}]" for i in range(size)], [int(gguf.TokenType.UNUSED)] * size
    is_pieces = bool(description["model"].get("byte_fallback"))
    for text, i in {**vocabulary, **{text: entry["id"] for text, entry in added.items()}}.items():
        texts[i], types[i] = text, int(gguf.TokenType.NORMAL)
        if text in added:
            special = added[text].get("special")
            types[i] = int(gguf.TokenType.CONTROL if special else gguf.TokenType.USER_DEFINED)
            texts[i] = text if special else text.replace("\u2581", " ")
        elif is_pieces and text.startswith("<0x"):
            types[i] = int(gguf.TokenType.BYTE)
        elif is_pieces and text == description["model"].get("unk_token"):
            types[i] = int(gguf.TokenType.UNKNOWN)
    writer.add_tokenizer_model("llama" if is_pieces else "gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(texts)
    writer.add_token_types(types)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in description["model"]["merges"]]
    if is_pieces:
        ranks = {merge.replace(" ", ""): -float(rank) for rank, merge in reversed(list(enumerate(merges)))}
        writer.add_token_scores([ranks.get(text, -1e6) for text in texts])
    else:
        writer.add_token_merges(merges)


def write_gguf(
    path: Path,
    folder: Path,
    kind: Kind = Kind.F32,
    *,
    pre: str = "gpt-2",
    extra: Mapping[str, np.ndarray] | None = None,
    edit: Callable[[gguf.GGUFWriter], None] = lambda writer: None,
    split: int = 0,
) -> Path:
    """Writes a checkpoint's folder as a GGUF file.

    Args:
        path: of the file.
        folder: of the checkpoint.
        kind: quantisation of the matrices whose rows it fits.
        pre: kind of pre-tokenizer.
        extra: further tensors.
        edit: adds further metadata.
        split: tensors in each of several parts; 0 for one file.

    Returns:
        the path, or that of the first part.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    writer = gguf.GGUFWriter(path, architecture_of(config), split_max_tensors=split)
    write_settings(writer, config)
    if config.get("bos_token_id") is not None:
        writer.add_bos_token_id(config["bos_token_id"])
    if config.get("eos_token_id") is not None:
        writer.add_eos_token_id(config["eos_token_id"])
    if (folder / "tokenizer.json").exists():
        description = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        write_tokenizer(writer, description, config, pre)
    edit(writer)
    for name, array in {**converted(config, load_file(folder / "model.safetensors")), **(extra or {})}.items():
        if array.ndim == 2 and array.shape[1] % gguf.GGML_QUANT_SIZES[kind][0] == 0 and kind != Kind.F32:
            packed = gguf.quantize(array, kind)
            writer.add_tensor(name, packed, raw_dtype=kind)
        else:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path if not split else sorted(path.parent.glob(f"{path.stem}-*.gguf"))[0]


@pytest.fixture(scope="session")
def to_gguf() -> Callable[..., Path]:
    """The function `write_gguf`."""
    return write_gguf


@pytest.fixture
def checkpoint(
    make_tokenizer: Callable[..., Path],
    random_checkpoint: Callable[..., Any],
    write_checkpoint: Callable[..., Path],
    tmp_path: Path,
) -> Path:
    """A small Llama with a byte-level tokenizer."""
    config, tensors = random_checkpoint(vocab_size=320, hidden_size=64, intermediate_size=96, bos_token_id=3)
    config["rope_parameters"] = {"rope_theta": 10000.0, "rope_type": "default"}
    return write_checkpoint(make_tokenizer(tmp_path / "checkpoint", 320), config, tensors)
