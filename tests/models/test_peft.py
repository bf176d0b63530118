"""LoRA by PEFT on our models: only adapters are trained, reversible layers or not."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor

from reformer import ReformerForCausalLM
from tests.models.small_models import assert_identical, build, gradients, tokens
from tests.models.test_seq2seq import build as build_seq2seq

TARGETS: list[Any] = [
    ["query_key", "query", "key", "value"],
    ["query_key", "value", "dense.dense", "output.dense"],
    "all-linear",
]
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def _adapted(targets: Any, **changes: Any) -> PeftModel:
    model = build(ReformerForCausalLM, **changes)
    torch.manual_seed(1)
    options = {"r": 4, "init_lora_weights": False, "task_type": "CAUSAL_LM", "target_modules": targets}
    return get_peft_model(model, LoraConfig(**options))


def _gradients(model: PeftModel, x: Tensor) -> dict[str, Tensor]:
    torch.manual_seed(2)
    model.train()(input_ids=x, labels=x).loss.backward()
    return gradients(model)


@pytest.mark.parametrize("targets", TARGETS, ids=str)
def test_gradients_are_those_of_stored_activations_and_of_adapters_alone(targets: Any) -> None:
    x = tokens(2, 30)
    rebuilt, stored = (_gradients(_adapted(targets, reversible=r), x) for r in (True, False))
    assert_identical(rebuilt, stored)
    assert rebuilt
    assert all("lora_" in name for name in rebuilt)
    assert all(gradient.any() for gradient in rebuilt.values())
    trained = {name for name, p in _adapted(targets).named_parameters() if p.requires_grad}
    assert rebuilt.keys() == trained


@pytest.mark.parametrize("targets", TARGETS, ids=str)
@torch.no_grad()
def test_merged_adapters_compute_the_same(targets: Any) -> None:
    model, x = _adapted(targets).eval(), tokens(2, 30)
    adapted = model(input_ids=x).logits
    with model.disable_adapter():
        assert torch.equal(model(input_ids=x).logits, build(ReformerForCausalLM)(x).logits)
    merged = model.merge_and_unload()
    assert type(merged) is ReformerForCausalLM
    torch.testing.assert_close(merged(x).logits, adapted, rtol=0, atol=1e-3)
    assert (adapted - build(ReformerForCausalLM)(x).logits).abs().max() > 0.1


def test_training_moves_adapters_alone_and_they_are_saved(tmp_path: Path) -> None:
    model, x = _adapted(TARGETS[1]), tokens(2, 30)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    _gradients(model, x)
    optimizer.step()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name, p in model.named_parameters() if p.requires_grad}
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(build(ReformerForCausalLM), tmp_path)
    assert torch.equal(loaded.eval()(input_ids=x).logits, model.eval()(input_ids=x).logits)


def test_an_encoder_decoder_is_adapted() -> None:
    x, y = tokens(2, 30), tokens(2, 12, seed=2)
    found = []
    for reversible in (True, False):
        half = {"reversible": reversible}
        torch.manual_seed(1)
        config = LoraConfig(
            r=4,
            init_lora_weights=False,
            task_type="SEQ_2_SEQ_LM",
            target_modules=["query_key", "query", "value"],
        )
        model = get_peft_model(build_seq2seq(encoder=half, decoder=half, eos_token_id=None), config)
        torch.manual_seed(2)
        model.train()(input_ids=x, labels=y).loss.backward()
        found.append(gradients(model))
    assert_identical(*found)
    assert found[0].keys() == {name for name, p in model.named_parameters() if p.requires_grad}
    assert any("cross_attention" in name for name in found[0])
    options: dict[str, Any] = {"max_new_tokens": 12, "do_sample": False}
    adapted = model.eval().generate(input_ids=x, **options)
    assert torch.equal(model.merge_and_unload().generate(x, **options), adapted)


def test_dropout_in_adapters_needs_stored_activations() -> None:
    """It draws from torch's global generator, so a backward pass could not draw it again."""
    x = tokens(2, 30)
    for reversible in (True, False):
        config = LoraConfig(r=4, target_modules=TARGETS[0], lora_dropout=0.5)
        model = get_peft_model(build(ReformerForCausalLM, reversible=reversible), config)
        if reversible:
            with pytest.raises(RuntimeError, match="use reversible=False with it"):
                _gradients(model, x)
        else:
            assert _gradients(model, x)
