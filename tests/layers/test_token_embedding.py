"""The lookup of tokens' vectors."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from reformer.layers.token_embedding import TokenEmbedding
from reformer.ops import large_tensors


@pytest.mark.parametrize("shape", [(), (5,), (2, 9), (1, 3000)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_looks_up_as_torch_does(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    embedding = TokenEmbedding(11, 6).to(dtype)
    ids = torch.randint(11, shape)
    found, wanted = embedding(ids), F.embedding(ids, embedding.weight)
    assert torch.equal(found, wanted)
    grad = torch.randn_like(wanted)
    of_found, of_wanted = (torch.autograd.grad(x, embedding.weight, grad)[0] for x in (found, wanted))
    assert torch.equal(of_found, of_wanted)


def test_a_long_sequence_lies_in_memory_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    original = large_tensors._Memory.bytes
    monkeypatch.setattr(
        large_tensors._Memory, "bytes", lambda self, number: (asked.append(number), original(self, number))[1]
    )
    embedding = TokenEmbedding(4, 64)
    ids = torch.randint(4, (1, 1 << 16))
    assert torch.equal(embedding(ids), embedding.weight[ids])
    assert asked == [(1 << 16) * 64 * 4]


def test_no_token_outside_the_table() -> None:
    for token in (-1, 4):
        with pytest.raises((IndexError, RuntimeError), match="index"):
            TokenEmbedding(4, 2)(torch.tensor([0, token]))


def test_other_options_are_those_of_torch() -> None:
    embedding = TokenEmbedding(4, 2, padding_idx=0)
    embedding(torch.tensor([0, 1])).sum().backward()
    assert embedding.weight.grad is not None
    assert embedding.weight.grad[0].abs().sum() == 0
    assert isinstance(embedding, nn.Embedding)
