"""Checks the network that is trained against transformers and the exact engine, and its loss against torch's."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import transformers

from llmzip.engines.exact import ExactEngine
from llmzip.models.convert import convert
from llmzip.training import hfweights, network
from llmzip.training.network import Network, attention, bits, loss_sum, plain_loss_and_slope
from llmzip.training.shapes import Shape, to_config

FORMS = ["qwen3", "qwen3 untied", "qwen2", "qwen2 untied", "mistral", "mistral untied"]
RandomNetwork = Callable[..., Network]


def by_transformers(network: Network, **fields: object) -> transformers.PreTrainedModel:
    """The same model in transformers, from what is exported; every weight must find its place."""
    config = transformers.AutoConfig.for_model(**to_config(network.shape) | fields)
    model = transformers.AutoModelForCausalLM.from_config(
        config, attn_implementation="eager", dtype=torch.float32
    ).eval()
    result = model.load_state_dict(hfweights.export(network), strict=False)
    assert result.unexpected_keys == []
    assert result.missing_keys == (["lm_head.weight"] if network.shape.tied else [])
    return model


def random_ids(shape: Shape, *sizes: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(shape.vocab_size, sizes, generator=torch.Generator().manual_seed(seed))


# -- forward -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_logits_are_those_of_transformers(form: str, shapes: dict[str, Shape], random_network: RandomNetwork) -> None:
    network = random_network(shapes[form])
    model = by_transformers(network)
    assert type(model).__name__ == f"{form.split(maxsplit=1)[0].title()}ForCausalLM"
    for ids in (random_ids(network.shape, 3, network.shape.sequence), random_ids(network.shape, 1, 5, seed=2)):
        with torch.no_grad():
            ours, theirs = F.linear(network(ids), network.output_weight), model(ids).logits
        assert theirs.std() > 0.5
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_every_parameter_has_its_gradient(form: str, shapes: dict[str, Shape], random_network: RandomNetwork) -> None:
    """By autograd through our network and through transformers'."""
    network = random_network(shapes[form])
    model = by_transformers(network)
    ids = random_ids(network.shape, 2, network.shape.sequence)
    loss_sum(network(ids[:, :-1]).flatten(0, 1), network.output_weight, ids[:, 1:].flatten()).backward()
    F.cross_entropy(model(ids[:, :-1]).logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="sum").backward()
    theirs = {name: parameter.grad for name, parameter in model.named_parameters()}
    for name, parts in hfweights.names(network.shape).items():
        expected = torch.cat([theirs[part] for part, _ in parts])
        found = network.get_parameter(name).grad
        assert expected.abs().max() > 0
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("form", FORMS)
def test_exported_models_cost_the_same_beyond_the_sequence(
    form: str, shapes: dict[str, Shape], random_network: RandomNetwork
) -> None:
    """The exact engine against transformers on text of many windows, sampled from the model itself."""
    network = random_network(shapes[form])
    ids = sampled_ids(network, 301)
    exact, true = exact_bits(network, ids), float_bits(network, ids)
    assert 7 < true.mean() < 8
    assert exact.sum() == pytest.approx(float(true.sum()), rel=1e-3)
    # With the rounding of the weights taken out, every token's cost is near, and a window off by one is told apart.
    round_weights(network)
    exact, true = exact_bits(network, ids), float_bits(network, ids)
    assert exact.sum() == pytest.approx(float(true.sum()), rel=5e-4)
    assert (exact - true).abs().mean() < 0.03 and (exact - true).abs().max() < 0.2
    sequence = network.shape.sequence
    for window in (sequence - 1, sequence + 1, 4096):
        other = float_bits(network, ids, window)
        assert (other - true)[sequence:].abs().mean() > 0.07
        assert torch.allclose(other[: sequence - 1], true[: sequence - 1], atol=1e-3)


def sampled_ids(network: Network, length: int) -> torch.Tensor:
    """(1, length) tokens that the network itself finds likely."""
    random = torch.Generator().manual_seed(5)
    ids = torch.tensor([[7]])
    while ids.shape[1] < length:
        with torch.no_grad():
            logits = F.linear(network(ids[:, -network.shape.sequence :])[0, -1], network.output_weight)
        ids = torch.cat([ids, torch.multinomial(logits.softmax(-1), 1, generator=random)[None]], 1)
    return ids


def exact_bits(network: Network, ids: torch.Tensor) -> torch.Tensor:
    """The cost of each token after the first by the exact engine's masses."""
    engine = ExactEngine(convert(to_config(network.shape), hfweights.export(network), 2, 1 << 20))
    assert engine.context > 10_000
    masses = torch.from_numpy(engine.masses(engine.forward(ids[:, :-1].numpy())[0])).double()
    return -torch.log2(masses.gather(1, ids[0, 1:, None])[:, 0] / masses.sum(1))


def float_bits(network: Network, ids: torch.Tensor, window: int | None = None) -> torch.Tensor:
    """The cost by transformers, with the window of the exported configuration or another."""
    fields = {} if window is None else {"sliding_window": window}
    with torch.no_grad():
        logits = by_transformers(network, **fields)(ids[:, :-1]).logits[0].double()
    return F.cross_entropy(logits, ids[0, 1:], reduction="none") / math.log(2)


def round_weights(network: Network) -> None:
    """Rounds every matrix to 127 steps of its rows."""
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 2:
                scale = parameter.abs().amax(1, keepdim=True) / 127
                parameter.copy_((parameter / scale).round() * scale)


def test_later_tokens_and_other_rows_change_nothing(shapes: dict[str, Shape], random_network: RandomNetwork) -> None:
    network = random_network(shapes["qwen3"])
    ids = random_ids(network.shape, 3, 20)
    changed = ids.clone()
    changed[0, 12:] = 5
    changed[2] = 6
    with torch.no_grad():
        before, after = network(ids), network(changed)
        short = network(ids[:, :12])
    torch.testing.assert_close(after[0, :12], before[0, :12])
    torch.testing.assert_close(after[1], before[1])
    torch.testing.assert_close(short, before[:, :12])
    assert (after[0, 12:] - before[0, 12:]).abs().amax(1).min() > 1e-3


@pytest.mark.parametrize("form", FORMS)
def test_bfloat16_is_near(form: str, shapes: dict[str, Shape], random_network: RandomNetwork) -> None:
    narrow, wide = random_network(shapes[form], dtype=torch.bfloat16), random_network(shapes[form])
    ids = random_ids(wide.shape, 4, wide.shape.sequence + 1)
    with torch.no_grad():
        hidden = narrow(ids[:, :-1])
    assert hidden.dtype == torch.bfloat16
    assert {parameter.dtype for parameter in narrow.parameters()} == {torch.float32}
    assert bits(narrow, ids).mean() == pytest.approx(float(bits(wide, ids).mean()), rel=0.01)


# -- attention ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 5, 127, 128, 129, 300])
@pytest.mark.parametrize(("heads", "groups"), [(4, 1), (6, 2), (3, 3)])
def test_gradients_of_attention_are_those_of_the_definition(length: int, heads: int, groups: int) -> None:
    random = torch.Generator().manual_seed(length)
    inputs = [torch.randn(2, length, n, 16, generator=random, requires_grad=True) for n in (heads, groups, groups)]
    slope = torch.randn(2, length, heads, 16, generator=random)
    found = attention(*inputs)
    found.backward(slope)
    ours = [tensor.grad for tensor in inputs]
    for tensor in inputs:
        tensor.grad = None
    q, k, v = inputs
    k, v = (x.repeat_interleave(heads // groups, 2) for x in (k, v))
    scores = torch.einsum("bthd,bshd->bhts", q, k) / 4
    scores = scores.masked_fill(torch.ones(length, length, dtype=torch.bool).triu(1), -torch.inf)
    expected = torch.einsum("bhts,bshd->bthd", scores.softmax(-1), v)
    expected.backward(slope)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours, [tensor.grad for tensor in inputs], rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(attention(*inputs), expected, rtol=1e-4, atol=1e-5)


# -- the loss ----------------------------------------------------------------------------------------------------------


def check_loss(n: int, seed: int) -> None:
    """Compares the loss of n tokens of 50, and its gradients, with torch's."""
    random = torch.Generator().manual_seed(seed)
    hidden, weight = (torch.randn(rows, 16, generator=random, requires_grad=True) for rows in (n, 50))
    targets = torch.randint(50, (n,), generator=random)
    found = loss_sum(hidden, weight, targets)
    (found * 0.37).backward()
    ours = hidden.grad, weight.grad
    hidden.grad = weight.grad = None
    expected = F.cross_entropy(hidden @ weight.T, targets, reduction="sum")
    (expected * 0.37).backward()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(ours, (hidden.grad, weight.grad), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n", [1, 7, 1023, 1024, 1025, 2048, 2500])
def test_loss_and_gradients_are_those_of_torch(n: int) -> None:
    check_loss(n, seed=n)


@pytest.mark.parametrize("values", [1, 50, 333, 2000])
def test_chunks_of_any_size_give_the_plain_loss(values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_LOSS_VALUES", values)
    check_loss(70, seed=values)


def test_the_loss_in_other_chunks_is_the_same() -> None:
    random = torch.Generator().manual_seed(9)
    hidden, weight = (torch.randn(n, 16, generator=random, requires_grad=True) for n in (700, 50))
    targets = torch.randint(50, (700,), generator=random)
    found = []
    for slope in (None, plain_loss_and_slope):
        hidden.grad = weight.grad = None
        loss = loss_sum(hidden, weight, targets, slope)
        loss.backward()
        found.append((loss.detach(), hidden.grad, weight.grad))
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-4)


def test_loss_survives_extreme_logits() -> None:
    hidden = torch.tensor([[1e4, -1e4], [-3e4, 1.0]], requires_grad=True)
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 2.0]], requires_grad=True)
    loss = loss_sum(hidden, weight, torch.tensor([1, 2]))
    loss.backward()
    assert loss.item() == pytest.approx(2e4)
    for tensor in (hidden.grad, weight.grad):
        assert tensor is not None and torch.isfinite(tensor).all()


def test_a_tied_embedding_gets_both_gradients(shapes: dict[str, Shape], random_network: RandomNetwork) -> None:
    network = random_network(shapes["mistral"])
    ids = random_ids(network.shape, 2, 12)
    parts = []
    for detach in ("hidden", "weight", ""):
        network.zero_grad()
        hidden, weight = network(ids[:, :-1]).flatten(0, 1), network.output_weight
        hidden = hidden.detach().requires_grad_() if detach == "hidden" else hidden
        loss_sum(hidden, weight.detach() if detach == "weight" else weight, ids[:, 1:].flatten()).backward()
        assert network.embedding.grad is not None
        parts.append(network.embedding.grad.clone())
    assert parts[0].abs().max() > 0 and parts[1].abs().max() > 0
    torch.testing.assert_close(parts[2], parts[0] + parts[1], rtol=1e-4, atol=1e-4)


def test_loss_is_the_same_at_every_run(shapes: dict[str, Shape], random_network: RandomNetwork) -> None:
    network = random_network(shapes["qwen3"])
    ids = random_ids(network.shape, 100, network.shape.sequence)
    gradients = []
    for _ in range(3):
        network.zero_grad()
        loss_sum(network(ids[:, :-1]).flatten(0, 1), network.output_weight, ids[:, 1:].flatten()).backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    for other in gradients[1:]:
        assert all(torch.equal(a, b) for a, b in zip(gradients[0], other, strict=True))


@pytest.mark.parametrize("form", ["qwen3", "qwen2 untied"])
def test_bits_are_the_loss_of_each_token(form: str, shapes: dict[str, Shape], random_network: RandomNetwork) -> None:
    network = random_network(shapes[form])
    ids = random_ids(network.shape, 3, network.shape.sequence + 1)
    found = bits(network, ids)
    assert found.shape == (3, network.shape.sequence) and found.dtype == torch.float64 and not found.requires_grad
    logits = by_transformers(network)(ids[:, :-1]).logits.detach()
    expected = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none") / math.log(2)
    torch.testing.assert_close(found.flatten(), expected.double(), rtol=1e-4, atol=1e-4)
    loss = loss_sum(network(ids[:, :-1]).flatten(0, 1), network.output_weight, ids[:, 1:].flatten())
    assert loss.item() / math.log(2) == pytest.approx(float(found.sum()), rel=1e-5)


# -- the beginning -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_initial_weights_depend_on_the_seed_only(form: str, shapes: dict[str, Shape]) -> None:
    def made(seed: int, noise: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(noise)
        network = Network(shapes[form])
        network.initialise(seed)
        return {name: parameter.detach() for name, parameter in network.named_parameters()}

    first, again, other = made(3, 0), made(3, 1), made(4, 0)
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())
    differ = {name.rsplit(".", 1)[-1] for name, tensor in first.items() if not torch.equal(tensor, other[name])}
    assert differ == {"embedding", "qkv", "gate_up"}


def test_initial_weights_have_their_sizes() -> None:
    network = Network(Shape(num_layers=2, tied=False, vocab_size=2000))
    network.initialise(0)
    found = {name: parameter.detach() for name, parameter in network.named_parameters()}
    assert found["embedding"].std() == pytest.approx(0.005, rel=0.02) and not found["head"].any()
    for layer in ("layers.0.", "layers.1."):
        for name in ("qkv", "gate_up"):
            assert found[layer + name].std() * 256**0.5 == pytest.approx(0.6, rel=0.02)
        assert not found[layer + "out"].any() and not found[layer + "down"].any()
        assert (found[layer + "q_norm"] == 1.5).all() and (found[layer + "k_norm"] == 1.5).all()
        assert (found[layer + "input_norm"] == 1).all() and (found[layer + "post_norm"] == 1).all()
    assert not torch.equal(found["layers.0.qkv"], found["layers.1.qkv"])


@pytest.mark.parametrize("form", FORMS)
def test_all_tokens_are_nearly_alike_at_first(form: str, shapes: dict[str, Shape]) -> None:
    network = Network(shapes[form])
    network.initialise(0)
    found = bits(network, random_ids(network.shape, 4, network.shape.sequence + 1))
    uniform = math.log2(network.shape.vocab_size)
    assert float(found.mean()) == pytest.approx(uniform, abs=1e-6 if not network.shape.tied else 0.1)


@pytest.mark.parametrize("form", FORMS)
def test_parameters_are_counted(form: str, shapes: dict[str, Shape]) -> None:
    network = Network(shapes[form])
    assert sum(parameter.numel() for parameter in network.parameters()) == network.shape.num_parameters
    longer = dataclasses.replace(network.shape, sequence=100)
    assert Network(longer).cos.shape == (100, 1, network.shape.head_dim // 2)
