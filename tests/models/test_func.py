"""torch.func's transforms on whole models: gradients and vector-Jacobian products."""

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, vjp

from reformer import ReformerForCausalLM
from tests.models.small_models import build, gradients, tokens

LAYERS = [["local"], ["lsh"], ["full"], ["local", "lsh", "full"]]


def _parameters(model: ReformerForCausalLM) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("residual", ["int32", "float32"])
@pytest.mark.parametrize("window", ["bucket", "chunk"])
@pytest.mark.parametrize("layers", LAYERS, ids=str)
def test_grad(layers: list[str], window: str, residual: str) -> None:
    model = build(ReformerForCausalLM, attn_layers=layers, lsh_window=window, residual=residual)
    x = tokens(2, 30)
    model(x, labels=x).loss.backward()

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        return functional_call(model, parameters, (x,), {"labels": x}).loss

    found = grad(loss)(_parameters(model))
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5, msg=name)


def test_grad_of_induction() -> None:
    model, x = build(ReformerForCausalLM, attn_layers=["lsh"], lsh_induction_length=5), tokens(2, 30)
    model(x, labels=x).loss.backward()
    found = grad(lambda p: functional_call(model, p, (x,), {"labels": x}).loss)(_parameters(model))
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5, msg=name)


def test_vjp_of_the_embeddings() -> None:
    model, x = build(ReformerForCausalLM), tokens(1, 20)
    embeds = model.get_input_embeddings()(x).detach()
    logits, pull = vjp(lambda e: model(inputs_embeds=e).logits, embeds)
    weights = torch.linspace(-1, 1, logits.numel()).view_as(logits)
    leaf = embeds.clone().requires_grad_()
    (model(inputs_embeds=leaf).logits * weights).sum().backward()
    torch.testing.assert_close(pull(weights)[0], leaf.grad, rtol=1e-4, atol=1e-5)


def test_grad_in_training_mode_repeats_dropout() -> None:
    model = build(ReformerForCausalLM, hidden_dropout_prob=0.2, lsh_attention_probs_dropout_prob=0.2).train()
    x = tokens(2, 30)
    torch.manual_seed(0)
    model(x, labels=x).loss.backward()
    torch.manual_seed(0)
    found = grad(lambda p: functional_call(model, p, (x,), {"labels": x}).loss)(_parameters(model))
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5, msg=name)
