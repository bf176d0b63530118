"""The same weights in transformers' Reformer: the same names, and the same logits."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.models import reformer as theirs

from reformer import ReformerConfig, ReformerForCausalLM, ReformerForMaskedLM, ReformerModel
from reformer.layers.transformers_layout import TransformersLayout

SHARED: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 32,
    "attention_head_size": 8,
    "num_attention_heads": 2,
    "feed_forward_size": 48,
    "attn_layers": ["local", "lsh"],
    "lsh_attn_chunk_length": 16,
    "local_attn_chunk_length": 16,
    "num_hashes": 2,
    "num_buckets": 8,
    "hash_seed": 7,
    "axial_pos_shape": [8, 16],
    "axial_pos_embds_dim": [12, 20],
    "max_position_embeddings": 128,
    "is_decoder": True,
}
LAYERS = [["local"], ["lsh"], ["lsh", "local"], ["local", "lsh", "local", "lsh"]]
FLOAT = {"residual": "float32"}


def _pair(ours: dict[str, Any] | None = None, **changes: Any) -> tuple[nn.Module, nn.Module]:
    """Their model, with large random weights, and ours with the same, through its state dict alone."""
    values = SHARED | changes
    causal = values["is_decoder"]
    torch.manual_seed(0)
    their_class = theirs.ReformerModelWithLMHead if causal else theirs.ReformerForMaskedLM
    their_model = their_class(theirs.ReformerConfig(**values, initializer_range=0.2)).eval()
    our_class = ReformerForCausalLM if causal else ReformerForMaskedLM
    our_config = ReformerConfig.from_dict(their_model.config.to_dict() | (ours or {}))
    our_model = our_class(our_config).eval()
    our_model.load_state_dict(their_model.state_dict())
    return their_model, our_model


def _ids(length: int) -> Tensor:
    return torch.randint(3, 40, (2, length), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def _assert_same_logits(their_model: nn.Module, our_model: nn.Module, length: int) -> None:
    """In float64, where their -1e5 for a query's own key rounds nothing."""
    ids = _ids(length)
    wanted = their_model.double()(ids).logits
    torch.testing.assert_close(our_model.double()(ids).logits, wanted, rtol=0, atol=1e-9)


@pytest.mark.parametrize("axial", [True, False], ids=["axial", "learned"])
@pytest.mark.parametrize(
    "layers", [["local"], ["lsh"], ["lsh", "local"], ["local", "lsh", "local", "lsh"]], ids=str
)
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
def test_state_dicts_have_the_same_names_and_shapes(causal: bool, layers: list[str], axial: bool) -> None:
    their_model, our_model = _pair(attn_layers=layers, axial_pos_embds=axial, is_decoder=causal)
    their_shapes = {name: tensor.shape for name, tensor in their_model.state_dict().items()}
    assert {name: tensor.shape for name, tensor in our_model.state_dict().items()} == their_shapes
    base = ReformerModel(our_model.config).state_dict()
    assert {f"reformer.{name}" for name in base} == {n for n in their_shapes if n.startswith("reformer.")}


@pytest.mark.parametrize("num_buckets", [8, [4, 4]])
@pytest.mark.parametrize("axial", [True, False], ids=["axial", "learned"])
@pytest.mark.parametrize(
    "layers", [["local"], ["lsh"], ["lsh", "local"], ["local", "lsh", "local", "lsh"]], ids=str
)
@pytest.mark.usefixtures("rotations_of_float32")
def test_causal_logits(layers: list[str], axial: bool, num_buckets: int | list[int]) -> None:
    models = _pair(FLOAT, attn_layers=layers, axial_pos_embds=axial, num_buckets=num_buckets)
    for length in (128, 96, 32, 16, 100, 5):  # theirs pads what is no multiple of 16
        _assert_same_logits(*models, length)


@pytest.mark.parametrize("before", [0, 2])
@pytest.mark.usefixtures("rotations_of_float32")
def test_causal_logits_with_other_windows(before: int) -> None:
    changes = {"lsh_num_chunks_before": before, "local_num_chunks_before": before, "num_hashes": 3}
    _assert_same_logits(*_pair(FLOAT, **changes), 128)


@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.usefixtures("rotations_of_float32")
def test_bidirectional_lsh_logits(after: int) -> None:
    models = _pair(FLOAT, attn_layers=["lsh", "lsh"], is_decoder=False, lsh_num_chunks_after=after)
    for length in (128, 96, 16):
        _assert_same_logits(*models, length)


@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.usefixtures("rotations_of_float32")
def test_bidirectional_local_logits(after: int) -> None:
    """Their first and last chunk see each other; with two chunks, a chunk sees the other twice."""
    models = _pair(FLOAT, attn_layers=["local"], is_decoder=False, local_num_chunks_after=after)
    for length in (128, 32, 100, 16, 5):
        _assert_same_logits(*models, length)


@pytest.mark.parametrize("length", [128, 64, 16, 96])
@pytest.mark.usefixtures("rotations_of_float32")
def test_a_number_of_buckets_that_is_not_given(length: int) -> None:
    _assert_same_logits(*_pair(FLOAT, num_buckets=None), length)


@pytest.mark.parametrize(("length", "factors"), [(256, (32,)), (512, (8, 8)), (4096, (16, 32))])
@pytest.mark.usefixtures("rotations_of_float32")
def test_a_large_number_of_buckets_that_is_not_given(length: int, factors: tuple[int, ...]) -> None:
    """Theirs makes two factors of more than 2 max((positions / C)^0.5, C) buckets."""
    axial = {"axial_pos_shape": [64, 64], "max_position_embeddings": 4096}
    models = _pair(FLOAT, num_buckets=None, **axial)
    assert TransformersLayout(16, 16, 4096).bucket_factors(length, 16) == factors
    _assert_same_logits(*models, length)


@torch.no_grad()
def test_the_bias_of_the_head_is_added_as_trax_does() -> None:
    """transformers 5.23 loads it and does not add it."""
    their_model, our_model = _pair(FLOAT, attn_layers=["local"])
    bias = torch.linspace(-1, 1, 40)
    for model in (their_model, our_model):
        model.lm_head.bias.copy_(bias)
    wanted = their_model(_ids(32)).logits + bias
    torch.testing.assert_close(our_model(_ids(32)).logits, wanted, rtol=0, atol=1e-5)


@torch.no_grad()
def test_exact_streams_can_be_asked_for() -> None:
    their_model, our_model = _pair({"residual": "int32"}, is_decoder=False)
    torch.testing.assert_close(our_model(_ids(100)).logits, their_model(_ids(100)).logits, rtol=0, atol=1e-4)


@torch.no_grad()
def test_in_float32_logits_agree_where_a_query_sees_more_than_itself() -> None:
    """Elsewhere their -1e5 in float32 rounds weights by up to 0.4 %."""
    their_model, our_model = _pair()
    ids = _ids(128)
    output = our_model(ids, output_attentions=True)
    weight_of_own_key = output.attentions[1].diagonal(dim1=-2, dim2=-1).amax(1)
    alone = weight_of_own_key == 1
    assert alone[:, 0].all()
    assert alone.sum() < 20
    wanted = their_model(ids).logits
    torch.testing.assert_close(output.logits[~alone], wanted[~alone], rtol=0, atol=1e-4)
    torch.testing.assert_close(output.logits, wanted, rtol=0, atol=2e-2)
