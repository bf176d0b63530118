"""Gradients of whole models: exact reversal, functional calls, accumulation, low precision."""

from typing import Any

import pytest
import torch
from torch import Tensor

from reformer import ReformerForCausalLM, ReformerForMaskedLM
from tests.models.small_models import HEADS, assert_identical, build, gradients, tokens

DROPOUT = {
    "hidden_dropout_prob": 0.1,
    "lsh_attention_probs_dropout_prob": 0.1,
    "local_attention_probs_dropout_prob": 0.1,
}


def _loss_of(outputs: Any) -> Tensor:
    return sum(output.float().sin().sum() for output in outputs.to_tuple())


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "autocast"])
@pytest.mark.parametrize(
    ("cls", "options"),
    [*((cls, {}) for cls in HEADS), (ReformerForCausalLM, {"lsh_induction_length": 5})],
    ids=[*(cls.__name__ for cls in HEADS), "induction"],
)
def test_reversible_and_stored_gradients_are_identical(
    cls: Any, options: dict[str, int], autocast: bool, training: bool
) -> None:
    x = tokens(2, 70)
    mask = torch.ones_like(x)
    mask[1, :25] = 0
    found = []
    for reversible in (True, False):
        options = {"chunk_size_feed_forward": 33, **options}
        model = build(cls, reversible=reversible, **options, **DROPOUT).train(training)
        model.reformer.encoder.layers[0].requires_grad_(False)
        torch.manual_seed(3)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            outputs = model(x, mask)
        _loss_of(outputs).backward()
        found.append(gradients(model))
    assert_identical(*found)
    assert not any(name.startswith("reformer.encoder.layers.0.") for name in found[0])
    assert all(gradient.any() for gradient in found[0].values())


def test_hidden_states_and_attentions_do_not_change_gradients() -> None:
    """They take the path that stores activations."""
    x = tokens(2, 50)
    found = []
    for options in ({}, {"output_hidden_states": True}, {"output_attentions": True}):
        model = build(ReformerForCausalLM, **DROPOUT).train()
        torch.manual_seed(3)
        model(x, labels=x, **options).loss.backward()
        found.append(gradients(model))
    assert_identical(found[0], found[1])
    assert_identical(found[0], found[2])


def test_second_backward_gives_the_same_gradients() -> None:
    model = build(ReformerForCausalLM, chunk_size_lm_head=16, **DROPOUT).train()
    x = tokens(2, 50)
    loss = model(x, labels=x).loss
    found = []
    for _ in range(3):
        model.zero_grad()
        loss.backward(retain_graph=True)
        found.append(gradients(model))
    assert_identical(found[0], found[1])
    assert_identical(found[0], found[2])


@pytest.mark.parametrize("reversible", [True, False])
def test_functional_call_gives_gradients_of_replaced_parameters(reversible: bool) -> None:
    x = tokens(2, 50)
    arguments = {"labels": x}
    model = build(ReformerForCausalLM, reversible=reversible, chunk_size_lm_head=16)
    other = build(ReformerForCausalLM, seed=7, reversible=reversible, chunk_size_lm_head=16)
    replaced = {name: p.detach().clone().requires_grad_() for name, p in other.named_parameters()}
    loss = torch.func.functional_call(model, replaced, (x,), arguments).loss
    loss.backward()
    assert not gradients(model)
    found = {name: p.grad for name, p in replaced.items()}
    other(x, **arguments).loss.backward()
    assert_identical(found, gradients(other))


def test_functional_call_with_parameters_that_have_a_graph() -> None:
    """As a hypernetwork or a weight-decayed copy would have: the gradient flows through to its source."""
    model = build(ReformerForCausalLM)
    x = tokens(1, 50)
    scale = torch.ones((), requires_grad=True)
    replaced = {name: p.detach() * scale for name, p in model.named_parameters()}
    torch.func.functional_call(model, replaced, (x,), {"labels": x}).loss.backward()
    model(x, labels=x).loss.backward()
    wanted = sum((p.grad * p.detach()).sum() for p in model.parameters())
    torch.testing.assert_close(scale.grad, wanted, rtol=1e-4, atol=1e-4)


def test_gradients_add_up_over_micro_batches() -> None:
    model = build(ReformerForMaskedLM, residual="float32").double()
    x = tokens(4, 50)
    model(x, labels=x).loss.backward()
    whole = gradients(model)
    model.zero_grad()
    for part in x.split(1):
        (model(part, labels=part).loss / 4).backward()
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, whole[name], rtol=1e-9, atol=1e-12, msg=name)


def test_two_forwards_before_the_backward() -> None:
    model = build(ReformerForCausalLM)
    first, second = tokens(1, 50, seed=1), tokens(1, 70, seed=2)
    (model(first, labels=first).loss + model(second, labels=second).loss).backward()
    together = gradients(model)
    model.zero_grad()
    model(second, labels=second).loss.backward()
    model(first, labels=first).loss.backward()
    assert_identical(together, gradients(model))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("cls", HEADS)
def test_every_dtype(cls: Any, dtype: torch.dtype) -> None:
    exact = build(cls).double()
    model = build(cls).to(dtype).train()
    x = tokens(2, 70)
    outputs = model(x)
    _loss_of(outputs).backward()
    assert all(output.dtype == dtype for output in outputs.to_tuple())
    for name, p in model.named_parameters():
        assert p.grad is not None, name
        assert p.grad.dtype == dtype
        assert p.grad.isfinite().all(), name
    if dtype == torch.float64:
        assert all(
            torch.equal(a, b) for a, b in zip(model.eval()(x).to_tuple(), exact(x).to_tuple(), strict=True)
        )


def test_errors_of_low_precision_are_of_its_size() -> None:
    """Without hashing, whose decisions may turn at any difference."""
    x = tokens(2, 70)
    wanted = build(ReformerForMaskedLM, attn_layers=["local", "full"]).double()(x).logits
    for dtype, bound in ((torch.float32, 1e-5), (torch.float16, 2e-2), (torch.bfloat16, 2e-1)):
        found = build(ReformerForMaskedLM, attn_layers=["local", "full"]).to(dtype)(x).logits
        error = ((found.double() - wanted).norm() / wanted.norm()).item()
        assert error < bound, dtype


def test_autocast_is_near_float32() -> None:
    model = build(ReformerForCausalLM, attn_layers=["local", "full"])
    x = tokens(2, 70)
    exact = model(x, labels=x).loss
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(x, labels=x).loss
    torch.testing.assert_close(loss, exact, rtol=2e-2, atol=0)
    assert loss.dtype == torch.float32


def test_embeddings_can_be_frozen() -> None:
    """Then no input of the stack has a gradient, but its parameters do."""
    model = build(ReformerForCausalLM).train()
    model.get_input_embeddings().requires_grad_(False)
    x = tokens(2, 50)
    model(x, labels=x).loss.backward()
    assert set(gradients(model)) == {name for name, p in model.named_parameters() if p.requires_grad}


def _step(model: ReformerForCausalLM) -> None:
    x = tokens(1, 30)
    model(x, labels=x).loss.backward()


@pytest.mark.parametrize("reversible", [True, False])
def test_overflow_of_the_streams_names_the_layer(reversible: bool) -> None:
    model = build(ReformerForCausalLM, reversible=reversible)
    with torch.no_grad():
        model.reformer.encoder.layers[1].feed_forward.output.dense.weight.mul_(1e4)
    with pytest.raises(FloatingPointError, match="layer 1: adding the feed-forward branch"):
        _step(model)


@pytest.mark.parametrize("reversible", [True, False])
def test_nan_weights_name_the_layer(reversible: bool) -> None:
    model = build(ReformerForCausalLM, reversible=reversible)
    with torch.no_grad():
        model.reformer.encoder.layers[2].attention.self_attention.query.weight[0, 0] = torch.nan
    with pytest.raises(FloatingPointError, match="layer 2: adding the attention branch"):
        _step(model)


def test_a_module_of_others_that_draws_random_numbers_is_repeated_or_refused() -> None:
    """PEFT's LoRA puts dropout of torch's inside the branches."""
    found = []
    for reversible in (True, False):
        model = build(ReformerForCausalLM, reversible=reversible).train()
        for layer in model.reformer.encoder.layers:
            dense = layer.attention.output.dense
            layer.attention.output.dense = torch.nn.Sequential(dense, torch.nn.Dropout(0.3))
        torch.manual_seed(3)
        try:
            _step(model)
        except RuntimeError:
            return
        found.append(gradients(model))
    assert_identical(*found)
