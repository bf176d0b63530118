"""Forward passes: lengths, what comes out, what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch

from reformer import (
    ReformerConfig,
    ReformerForCausalLM,
    ReformerForMaskedLM,
    ReformerForTokenClassification,
    ReformerModel,
)
from tests.models.small_models import HEADS, VOCAB_SIZE, build, tokens


@pytest.mark.parametrize("length", [1, 2, 63, 65, 1000, pytest.param(5000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("window", ["bucket", "chunk"])
@pytest.mark.parametrize("cls", [ReformerForCausalLM, ReformerForMaskedLM])
def test_any_length(cls: Any, window: str, length: int) -> None:
    model = build(cls, lsh_window=window, lsh_attn_chunk_length=64, local_attn_chunk_length=64).train()
    x = tokens(1, length)
    output = model(x, labels=x)
    output.loss.backward()
    assert output.loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("positions", ["axial", "learned"])
def test_positions_end_where_the_configuration_says(positions: str) -> None:
    model = build(ReformerModel, position_embedding_type=positions)
    assert model(tokens(1, 320)).last_hidden_state.shape == (1, 320, 64)
    with pytest.raises(ValueError, match="321 positions"):
        model(tokens(1, 321))


@pytest.mark.parametrize("positions", ["axial", "learned", "rotary"])
@torch.no_grad()
def test_positions_matter(positions: str) -> None:
    """A repeated token has the same output everywhere without positions, and only without."""
    x = torch.full((1, 30), 5)
    placeless = build(ReformerModel, position_embedding_type="none", attn_layers=["full"])(
        x
    ).last_hidden_state
    torch.testing.assert_close(placeless, placeless[:, :1].expand_as(placeless))
    x[0, 3] = 6  # rotary positions show in how near another token is
    placed = build(ReformerModel, position_embedding_type=positions, attn_layers=["full"])(
        x
    ).last_hidden_state
    assert not torch.allclose(placed[0, 10], placed[0, 20])


@torch.no_grad()
def test_output_is_the_two_normalised_streams() -> None:
    model = build(ReformerModel)
    x = tokens(2, 50)
    output = model(x)
    assert output.last_hidden_state.shape == (2, 50, 64)
    assert output.hidden_states is None
    assert output.attentions is None
    encoded = model.encode(x)
    torch.testing.assert_close(output.last_hidden_state, model.encoder.layer_norm(encoded.hidden))


@torch.no_grad()
def test_hidden_states() -> None:
    model = build(ReformerModel)
    x = tokens(2, 50)
    output = model(x, output_hidden_states=True)
    assert torch.equal(output.last_hidden_state, model(x).last_hidden_state)
    assert [state.shape for state in output.hidden_states] == [(2, 50, 32)] * 4
    embeddings = model.get_input_embeddings()(x)
    torch.testing.assert_close(output.hidden_states[0], embeddings, rtol=0, atol=2.0**-21)
    streams = model.encode(x).hidden
    assert torch.equal(output.hidden_states[-1], streams[..., 32:])


@pytest.mark.parametrize("window", ["bucket", "chunk"])
@pytest.mark.parametrize("causal", [True, False])
@torch.no_grad()
def test_attentions(causal: bool, window: str) -> None:
    changes = {} if causal else {"lsh_num_chunks_after": 1, "local_num_chunks_after": 1}
    model = build(ReformerModel, is_decoder=causal, lsh_window=window, **changes)
    x = tokens(2, 50)
    output = model(x, output_attentions=True)
    torch.testing.assert_close(output.last_hidden_state, model(x).last_hidden_state)
    assert [weights.shape for weights in output.attentions] == [(2, 2, 50, 50)] * 3
    for weights in output.attentions:
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, 50))
        assert bool(weights.triu(1).any()) != causal


def test_attentions_of_long_inputs_are_an_error() -> None:
    model = build(ReformerModel)
    with pytest.raises(ValueError, match="T must be at most 2048, got 2049"):
        model(tokens(1, 2049), output_attentions=True)
    assert model(tokens(1, 2049)).attentions is None


@torch.no_grad()
def test_the_configuration_can_ask_for_more_output() -> None:
    model = build(ReformerModel)
    model.config.output_hidden_states = True
    assert len(model(tokens(1, 20)).hidden_states) == 4
    assert model(tokens(1, 20), output_hidden_states=False).hidden_states is None


@pytest.mark.parametrize("cls", [ReformerModel, *HEADS])
@torch.no_grad()
def test_tuples(cls: Any) -> None:
    model = build(cls)
    found = model(tokens(1, 20), return_dict=False)
    assert isinstance(found, tuple)
    wanted = model(tokens(1, 20)).to_tuple()
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("cls", [ReformerModel, *HEADS])
@torch.no_grad()
def test_inputs_embeds(cls: Any) -> None:
    model = build(cls)
    x = tokens(2, 20)
    embeds = model.get_input_embeddings()(x)
    wanted = model(x).to_tuple()
    assert all(torch.equal(a, b) for a, b in zip(model(inputs_embeds=embeds).to_tuple(), wanted, strict=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give either input_ids or inputs_embeds"),
        ({"input_ids": tokens(1, 5), "inputs_embeds": torch.zeros(1, 5, 32)}, "give either input_ids or"),
        ({"input_ids": tokens(5)}, r"input_ids must be \[B, T\] with T >= 1, got \[5\]"),
        ({"input_ids": tokens(2, 0)}, r"input_ids must be \[B, T\] with T >= 1, got \[2, 0\]"),
        (
            {"inputs_embeds": torch.zeros(5, 32)},
            r"inputs_embeds must be \[B, T, d\] with T >= 1, got \[5, 32\]",
        ),
        (
            {"input_ids": tokens(2, 5), "attention_mask": torch.ones(2, 4)},
            r"attention_mask must be \[2, 5\], got \[2, 4\]",
        ),
    ],
)
def test_inputs_that_do_not_fit(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(ReformerModel)(**arguments)


@pytest.mark.parametrize("size", [VOCAB_SIZE + 9, VOCAB_SIZE - 5])
@torch.no_grad()
def test_resize_token_embeddings(size: int) -> None:
    model = build(ReformerForCausalLM)
    torch.nn.init.normal_(model.lm_head.bias)
    x = tokens(1, 20).clamp(max=VOCAB_SIZE - 6)
    before = model(x).logits
    model.resize_token_embeddings(size, mean_resizing=False)
    after = model(x, labels=x).logits
    assert model.config.vocab_size == size
    assert after.shape == (1, 20, size)
    kept = min(size, VOCAB_SIZE)
    torch.testing.assert_close(after[..., :kept], before[..., :kept])
    assert all(p.requires_grad for p in model.parameters())


def test_a_resized_model_trains_its_new_rows() -> None:
    model = build(ReformerForCausalLM)
    model.resize_token_embeddings(VOCAB_SIZE + 2, mean_resizing=False)
    x = torch.full((1, 10), VOCAB_SIZE + 1)
    model(x, labels=x).loss.backward()
    assert model.get_input_embeddings().weight.grad[-1].any()
    assert model.lm_head.bias.grad[-1] != 0


@torch.no_grad()
def test_chunk_sizes_change_nothing() -> None:
    x = tokens(2, 50)
    wanted = build(ReformerForCausalLM, residual="float32").double()(x, labels=x)
    changes = {"chunk_size_feed_forward": 7, "chunk_size_lm_head": 9}
    found = build(ReformerForCausalLM, residual="float32", **changes).double()(x, labels=x)
    torch.testing.assert_close(found.logits, wanted.logits, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.loss, wanted.loss, rtol=0, atol=1e-12)


@torch.no_grad()
def test_all_streams_give_nearly_the_same() -> None:
    x = tokens(2, 50)
    exact = build(ReformerForTokenClassification, residual="float32").double()(x).logits
    for changes in ({}, {"residual": "float32"}, {"reversible": False}):
        found = build(ReformerForTokenClassification, **changes)(x).logits
        torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-4)


class TestInputFeatures:
    """Numbers beside the tokens, added to their embeddings."""

    @staticmethod
    def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(9, (2, 40), generator=generator)
        mask = torch.ones(2, 40, dtype=torch.long)
        mask[1, :13] = 0  # padding first, which the model puts behind
        return ids, mask, torch.randn(2, 40, 5, generator=generator)

    def test_they_are_added_to_the_embeddings(self) -> None:
        model = build(ReformerForTokenClassification, vocab_size=9, num_labels=3, num_input_features=5)
        ids, mask, features = self.inputs()
        with torch.no_grad():
            found = model(ids, mask, input_features=features).logits
            projection = model.reformer.embeddings.feature_projection
            embeds = model.get_input_embeddings()(ids) + projection(features)
            model.reformer.embeddings.feature_projection = None
            expected = model(inputs_embeds=embeds, attention_mask=mask).logits
        torch.testing.assert_close(found[mask.bool()], expected[mask.bool()])

    def test_they_are_learned_from_and_saved(self, tmp_path: Path) -> None:
        model = build(ReformerForTokenClassification, vocab_size=9, num_labels=3, num_input_features=5)
        ids, mask, features = self.inputs()
        model(ids, mask, labels=ids % 3, input_features=features).loss.backward()
        assert model.reformer.embeddings.feature_projection.weight.grad.abs().max() > 0
        model.save_pretrained(tmp_path)
        again = ReformerForTokenClassification.from_pretrained(tmp_path)
        with torch.no_grad():
            assert torch.equal(
                again(ids, mask, input_features=features).logits,
                model(ids, mask, input_features=features).logits,
            )

    def test_what_cannot_be(self) -> None:
        model = build(ReformerForTokenClassification, vocab_size=9, num_labels=3, num_input_features=5)
        ids, mask, features = self.inputs()
        with pytest.raises(ValueError, match="num_input_features in the configuration and input_features go"):
            model(ids, mask)
        with pytest.raises(ValueError, match=r"input_features must be \[2, 40, 5\], got \[2, 40, 4\]"):
            model(ids, mask, input_features=features[..., :4])
        with pytest.raises(ValueError, match="go together"):
            build(ReformerForTokenClassification, vocab_size=9)(ids, mask, input_features=features)
        with pytest.raises(ValueError, match="cannot be for a decoder, nor with rc_equivariant"):
            ReformerConfig(num_input_features=5, is_decoder=True)
        with pytest.raises(ValueError, match="must not be negative"):
            ReformerConfig(num_input_features=-1)
