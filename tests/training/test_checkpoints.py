import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from transformers import get_scheduler

from reformer.errors import UserError
from reformer.training import checkpoints


def parts(fused: bool) -> tuple[nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    torch.manual_seed(0)
    model = nn.Linear(5, 3)
    groups = [{"params": [model.weight], "weight_decay": 0.1}, {"params": [model.bias]}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3 / 3, fused=fused)
    return model, optimizer, get_scheduler("cosine", optimizer, num_warmup_steps=3, num_training_steps=20)


def steps(number: int, model: nn.Module, optimizer: torch.optim.Optimizer, scheduler: object) -> list[float]:
    losses = []
    for _ in range(number):
        loss = model(torch.randn(4, 5)).square().mean() * random.random() * np.random.rand()  # noqa: NPY002
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()  # type: ignore[attr-defined]
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("fused", [False, True])
def test_training_goes_on_bit_for_bit(tmp_path: Path, fused: bool) -> None:
    model, optimizer, scheduler = parts(fused)
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    steps(5, model, optimizer, scheduler)
    checkpoints.save_optimizer(optimizer, tmp_path)
    checkpoints.save_scheduler(scheduler, tmp_path)
    checkpoints.save_rng_state(tmp_path, 0)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    expected = steps(5, model, optimizer, scheduler)

    model, optimizer, scheduler = parts(fused)
    model.load_state_dict(weights)
    checkpoints.load_optimizer(optimizer, tmp_path)
    checkpoints.load_scheduler(scheduler, tmp_path)
    checkpoints.load_rng_state(tmp_path, 0)
    assert steps(5, model, optimizer, scheduler) == expected


def test_gauss_of_python_and_numpy_is_kept(tmp_path: Path) -> None:
    random.gauss(0, 1)
    np.random.randn()  # noqa: NPY002 - the second of a pair is remembered
    checkpoints.save_rng_state(tmp_path, 0)
    expected = [random.gauss(0, 1), np.random.randn(), np.random.randn()]  # noqa: NPY002
    checkpoints.load_rng_state(tmp_path, 0)
    assert [random.gauss(0, 1), np.random.randn(), np.random.randn()] == expected  # noqa: NPY002


@pytest.mark.parametrize(
    "file", ["optimizer.safetensors", "optimizer.json", "scheduler.json", "rng_state_0.json"]
)
@pytest.mark.parametrize("damage", ["missing", "cut off"])
def test_damage_is_named(tmp_path: Path, file: str, damage: str) -> None:
    model, optimizer, scheduler = parts(False)
    steps(1, model, optimizer, scheduler)
    checkpoints.save_optimizer(optimizer, tmp_path)
    checkpoints.save_scheduler(scheduler, tmp_path)
    checkpoints.save_rng_state(tmp_path, 0)
    path = tmp_path / file
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-3])

    def load_all() -> None:
        checkpoints.load_optimizer(optimizer, tmp_path)
        checkpoints.load_scheduler(scheduler, tmp_path)
        checkpoints.load_rng_state(tmp_path, 0)

    with pytest.raises(UserError, match=file):
        load_all()


def test_optimizer_of_another_model(tmp_path: Path) -> None:
    model, optimizer, scheduler = parts(False)
    steps(1, model, optimizer, scheduler)
    checkpoints.save_optimizer(optimizer, tmp_path)
    other = torch.optim.AdamW([nn.Parameter(torch.zeros(2))])
    with pytest.raises(UserError, match=r"optimizer.json"):
        checkpoints.load_optimizer(other, tmp_path)
