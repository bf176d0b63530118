"""DistributedDataParallel on two processes: its hooks see the gradients of the reversible stack."""

import gc
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from reformer import ReformerForCausalLM, ReformerForSeq2SeqLM, ReformerSeq2SeqConfig
from tests.layers import child
from tests.models.small_models import build, config, gradients, tokens

WORLD_SIZE = 2


CHANGES = {
    "chunk_size_lm_head": 16,
    "chunk_size_feed_forward": 33,
    "hidden_dropout_prob": 0.1,
    "lsh_attention_probs_dropout_prob": 0.1,
}


def _causal() -> ReformerForCausalLM:
    model = build(ReformerForCausalLM, **CHANGES)
    model.reformer.encoder.layers[1].feed_forward.requires_grad_(False)
    return model.train()


def _seq2seq() -> ReformerForSeq2SeqLM:
    torch.manual_seed(0)
    halves = {"encoder": config(is_decoder=False, **CHANGES), "decoder": config(**CHANGES)}
    model = ReformerForSeq2SeqLM(ReformerSeq2SeqConfig(**halves, tie_word_embeddings=True))
    model.decoder.encoder.layers[1].cross_attention.requires_grad_(False)
    return model.train()


MODELS: dict[str, Any] = {"causal": _causal, "seq2seq": _seq2seq}


class _WithUnused(nn.Module):
    """Has a parameter that no loss reaches."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.unused = nn.Linear(3, 3)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.model(*args, **kwargs)


def _backward(model: nn.Module, rank: int) -> None:
    """What process `rank` does: its own batch, its own seed."""
    x = tokens(2, 70, seed=rank)
    torch.manual_seed(100 + rank)
    model(x, labels=x).loss.backward()


def _single_process_gradients(name: str) -> dict[str, Tensor]:
    mean: dict[str, Tensor] = {}
    for rank in range(WORLD_SIZE):
        model = MODELS[name]()
        _backward(model, rank)
        for parameter, gradient in gradients(model).items():
            part = gradient / WORLD_SIZE
            mean[parameter] = mean[parameter] + part if parameter in mean else part
    return mean


def _largest_error(
    name: str, rank: int, wanted: dict[str, Tensor], *, find_unused: bool, unused: bool
) -> float:
    """Of all parameters' gradients, relative to the gradient, in the second of two steps."""
    model = MODELS[name]()
    inner = _WithUnused(model) if unused else model
    parallel = DistributedDataParallel(inner, find_unused_parameters=find_unused)
    for _ in range(2):
        model.zero_grad()
        _backward(parallel, rank)
    found = gradients(model)
    assert found.keys() == wanted.keys()
    return max(
        ((found[parameter] - gradient).norm() / gradient.norm()).item()
        for parameter, gradient in wanted.items()
    )


def compare(name: str, rank: int, init_file: str) -> list[float]:
    """In a process of its own: the largest error, case by case."""
    dist.init_process_group(
        "gloo",
        init_method=f"file://{init_file}",
        rank=rank,
        world_size=WORLD_SIZE,
        timeout=timedelta(seconds=60),
    )
    wanted = _single_process_gradients(name)
    errors = [
        _largest_error(name, rank, wanted, find_unused=find_unused, unused=unused)
        for find_unused, unused in ((False, False), (True, False), (True, True))
    ]
    # No destructor may hold the last reference to the group: it would wait for threads that wait for Python.
    gc.collect()
    dist.barrier()
    dist.destroy_process_group()
    return errors


@pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo")
@pytest.mark.parametrize("name", MODELS)
def test_averaged_gradients_are_those_of_a_single_process(name: str, tmp_path: Path) -> None:
    arguments = [(name, rank, str(tmp_path / "init")) for rank in range(WORLD_SIZE)]
    results = child.call_together("tests.models.test_distributed:compare", arguments)
    for errors in results:
        assert len(errors) == 3
        assert max(errors) < 1e-6
