"""Checks that weights come back from Hugging Face's names and from the int8 form, and how rows are rounded."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmzip.errors import ModelUnsupportedError
from llmzip.models.convert import convert, quantise_rows
from llmzip.models.int8form import save_int8
from llmzip.models.weights import load_model
from llmzip.numerics.ops import TINY
from llmzip.training import hfweights
from llmzip.training.network import Network
from llmzip.training.shapes import Shape, to_config

FORMS = ["qwen3", "qwen3 untied", "qwen2", "qwen2 untied", "mistral", "mistral untied"]
RandomNetwork = Callable[..., Network]
Checkpoint = tuple[dict[str, Any], dict[str, torch.Tensor]]


def same(a: Network, b: Network) -> bool:
    others = dict(b.named_parameters())
    return all(torch.equal(parameter, others[name]) for name, parameter in a.named_parameters())


# -- Hugging Face's names ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_exported_weights_come_back(form: str, shapes: dict[str, Shape], random_network: RandomNetwork) -> None:
    network, other = random_network(shapes[form]), random_network(shapes[form], seed=1)
    tensors = hfweights.export(network)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert sum(tensor.numel() for tensor in tensors.values()) == network.shape.num_parameters
    assert not same(network, other)
    hfweights.load(other, tensors)
    assert same(network, other)


def test_parts_of_fused_matrices_have_their_names(shapes: dict[str, Shape], random_network: RandomNetwork) -> None:
    network = random_network(shapes["qwen2"])
    tensors = hfweights.export(network)
    layer = "model.layers.1."
    parts = [tensors[f"{layer}self_attn.{name}_proj.weight"] for name in "qkv"]
    assert [len(part) for part in parts] == [64, 16, 16]
    assert torch.equal(torch.cat(parts), network.get_parameter("layers.1.qkv"))
    assert torch.equal(tensors[f"{layer}mlp.up_proj.weight"], network.get_parameter("layers.1.gate_up")[40:])
    assert torch.equal(tensors[f"{layer}self_attn.v_proj.bias"], network.get_parameter("layers.1.qkv_bias")[80:])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_weights_of_other_types_are_read(
    dtype: torch.dtype, shapes: dict[str, Shape], random_network: RandomNetwork
) -> None:
    network = random_network(shapes["qwen3"])
    stored = {name: tensor.to(dtype) for name, tensor in hfweights.export(network).items()}
    other = Network(shapes["qwen3"])
    hfweights.load(other, stored)
    found = hfweights.export(other)
    assert all(torch.equal(found[name], tensor.float()) for name, tensor in stored.items())


def test_tensors_that_the_network_has_no_place_for_are_named(
    shapes: dict[str, Shape], random_network: RandomNetwork
) -> None:
    network = random_network(shapes["mistral"])
    tensors = hfweights.export(network)
    for name in ("lm_head.weight", "model.layers.0.self_attn.rotary_emb.inv_freq"):  # a tied head; a constant
        tensors[name] = torch.ones(3)
    hfweights.load(network, tensors)
    tensors["model.layers.1.self_attn.o_proj.bias"] = torch.ones(64)
    with pytest.raises(ModelUnsupportedError, match=r"unknown tensor model\.layers\.1\.self_attn\.o_proj\.bias"):
        hfweights.load(network, tensors)


@pytest.mark.parametrize("form", FORMS)
def test_missing_tensors_are_named(form: str, shapes: dict[str, Shape], random_network: RandomNetwork) -> None:
    network = random_network(shapes[form])
    tensors = hfweights.export(network)
    for name in tensors:
        without = {other: tensor for other, tensor in tensors.items() if other != name}
        with pytest.raises(ModelUnsupportedError, match=f"^weights: tensor {name} is missing$"):
            hfweights.load(network, without)


LAYER = "model.layers.0."


@pytest.mark.parametrize(
    ("name", "sizes", "words"),
    [
        ("model.embed_tokens.weight", (301, 32), r"embed_tokens\.weight is \(301, 32\), not \(300, 32\)"),
        (f"{LAYER}mlp.down_proj.weight", (32, 41), r"down_proj\.weight is \(32, 41\), not \(32, 40\)"),
        (f"{LAYER}self_attn.k_norm.weight", (8,), r"k_norm\.weight is \(8,\), not \(16,\)"),
        (f"{LAYER}self_attn.v_proj.weight", (31, 32), r"v_proj\.weight is \(31, 32\), not \(32, 32\)"),
        ("model.norm.weight", (32, 1), r"norm\.weight is \(32, 1\), not \(32,\)"),
    ],
)
def test_tensors_of_another_shape_are_named(
    name: str, sizes: tuple[int, ...], words: str, shapes: dict[str, Shape], random_network: RandomNetwork
) -> None:
    network = random_network(shapes["qwen3"])
    with pytest.raises(ModelUnsupportedError, match=words):
        hfweights.load(network, hfweights.export(network) | {name: torch.zeros(sizes)})


@pytest.mark.parametrize(
    "parts",
    [
        {"self_attn.q_proj": (32, 32), "self_attn.k_proj": (64, 32)},
        {"mlp.gate_proj": (39, 32), "mlp.up_proj": (41, 32)},
        {"self_attn.k_proj": (32, 31)},
        {"mlp.up_proj": (40,)},
    ],
    ids=str,
)
def test_parts_of_another_shape_are_named(
    parts: dict[str, tuple[int, ...]], shapes: dict[str, Shape], random_network: RandomNetwork
) -> None:
    network = random_network(shapes["qwen3"])
    changed = {f"{LAYER}{name}.weight": torch.zeros(sizes) for name, sizes in parts.items()}
    with pytest.raises(ModelUnsupportedError, match="_proj"):
        hfweights.load(network, hfweights.export(network) | changed)


# -- the int8 form -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", [0.0, 9.0])
@pytest.mark.parametrize("form", FORMS)
def test_int8_forms_come_back_as_what_they_stand_for(
    form: str, grid: float, shapes: dict[str, Shape], random_network: RandomNetwork, tmp_path: Path
) -> None:
    network = random_network(shapes[form])
    tensors = hfweights.export(network)
    save_int8(convert(to_config(network.shape), tensors, 2, 1000, start_token=5, grid=grid), tmp_path)
    model = load_model(tmp_path)
    shape = hfweights.shape_of_int8(model, None)
    rounded = float(np.float32(network.shape.norm_eps))
    assert shape == dataclasses.replace(network.shape, norm_eps=rounded)
    other = Network(shape)
    hfweights.load_int8(other, model)
    for name, tensor in hfweights.export(other).items():
        if tensor.ndim == 1:
            assert torch.equal(tensor, tensors[name])
        else:
            step = tensors[name].abs().amax(1) / 127
            least = grid / 127 * tensors[name].square().mean(1).sqrt()
            error = (tensor - tensors[name]).abs().amax(1)
            assert (error <= 0.54 * torch.maximum(step, least) * 1.25).all() and error.max() > 0
    found = model.tensors()
    for name in ("embedding", "layers.0.gate_up"):
        steps = (
            other.get_parameter(name).detach() / torch.from_numpy(np.array(found[f"{name}_scale"]))[:, None]
        ).round()
        assert np.array_equal(steps.numpy().astype(np.int8), found[f"{name}_q"])


@pytest.mark.parametrize(
    ("fields", "asked", "sequence"),
    [
        ({}, None, 96),
        ({}, 50, 50),
        ({"max_position_embeddings": 4096}, None, 1024),
        ({"model_type": "mistral", "sliding_window": 33}, None, 33),
        ({"model_type": "mistral", "sliding_window": 33}, 64, 64),
        ({"model_type": "qwen2", "sliding_window": 33, "use_sliding_window": True, "max_window_layers": 1}, None, 33),
    ],
)
def test_sequence_is_the_window_else_the_context(
    fields: dict[str, Any], asked: int | None, sequence: int, random_checkpoint: Callable[..., Checkpoint]
) -> None:
    biases = tuple(f"self_attn.{name}_proj" for name in "qkv") if fields.get("model_type") == "qwen2" else ()
    model = convert(*random_checkpoint(vocab_size=300, biases=biases, **fields), 1, 1 << 17)
    shape = hfweights.shape_of_int8(model, asked)
    assert shape.sequence == sequence
    assert (shape.vocab_size, shape.hidden_size, shape.num_heads, shape.num_kv_heads) == (300, 48, 4, 2)
    assert (shape.tied, shape.qk_norm, shape.qkv_bias) == (False, False, bool(biases))


@pytest.mark.parametrize(
    "biases", [("self_attn.o_proj",), ("mlp.gate_proj", "mlp.up_proj"), ("mlp.down_proj",)], ids=str
)
def test_biases_that_no_network_has_are_refused(
    biases: tuple[str, ...], random_checkpoint: Callable[..., Checkpoint]
) -> None:
    model = convert(*random_checkpoint(vocab_size=300, biases=biases), 1, 50)
    with pytest.raises(ModelUnsupportedError, match="biases cannot be trained"):
        hfweights.shape_of_int8(model, None)


# -- rows on a grid ----------------------------------------------------------------------------------------------------


@given(
    rows=st.integers(1, 6),
    columns=st.integers(1, 70),
    seed=st.integers(0, 1 << 32),
    size=st.integers(-12, 12),
    tail=st.sampled_from([0.0, 1.0, 4.0]),
    grid=st.sampled_from([0.5, 3.0, 9.0, 20.0, 126.0]),
)
def test_rows_are_rounded_to_steps_of_five_bits(
    rows: int, columns: int, seed: int, size: int, tail: float, grid: float
) -> None:
    """The step is the least of five bits that keeps the largest value within 127 and the root mean square in `grid`."""
    random = np.random.default_rng(seed)
    values = random.standard_normal((rows, columns)) * np.exp(tail * random.standard_normal((rows, 1))) * 10.0**size
    values *= np.exp(tail * random.standard_normal((rows, columns)))
    values = np.clip(values, -1e15, 1e15)  # float32 holds the squares
    weight = torch.from_numpy(values.astype(np.float32))
    w_q, scale = quantise_rows(weight, grid)
    assert w_q.dtype == torch.int8 and w_q.shape == weight.shape
    assert scale.dtype == torch.float32 and scale.shape == (rows,)
    wide, step = weight.double(), scale.double()
    assert w_q.to(torch.int16).abs().max() <= 127
    assert ((w_q * step[:, None] - wide).abs() <= step[:, None] * 0.50001).all()
    mantissa = torch.frexp(scale)[0] * 32
    assert torch.equal(mantissa, mantissa.round())
    least = torch.maximum(wide.abs().amax(1), grid * wide.square().mean(1).sqrt()).clamp(min=TINY) / 127
    assert (step >= least * 0.99999).all() and (step <= least * 1.0626).all()


def test_rows_of_zeros_stay_zeros() -> None:
    weight = torch.zeros(3, 5)
    weight[1] = 1e-3
    w_q, scale = quantise_rows(weight, 9.0)
    assert not w_q[[0, 2]].any() and w_q[1].eq(14).all()
    assert torch.isfinite(scale).all() and (scale > 0).all()


def test_a_coarse_grid_takes_fewer_values(rng: np.random.Generator) -> None:
    weight = torch.from_numpy(rng.standard_normal((50, 400)).astype(np.float32))
    fine, coarse = quantise_rows(weight)[0], quantise_rows(weight, 9.0)[0]
    assert fine.abs().amax(1).eq(127).all()
    assert 40 < coarse.abs().amax(1).float().mean() < 60
    assert coarse.float().square().mean().sqrt() == pytest.approx(127 / 9, rel=0.05)
