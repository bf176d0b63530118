"""`benchmarks.gpu`: what it does without a GPU, and what it makes of what it has measured."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.gpu_ops import FLASH, crossover
from benchmarks.gpu_training import LARGE, PEERS, SMALL, make_model

from benchmarks import gpu


def test_without_a_gpu_it_says_so_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match=r"^benchmarks\.gpu: torch sees no CUDA device here$"):
        gpu.main(["--out", str(tmp_path)])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("ours", "expected"),
    [([9, 1, 1], 64), ([1, 1, 1], 32), ([1, 9, 1], 128), ([1, 1, 9], None), ([2, 2, 2], None)],
)
def test_crossover_is_from_where_on_ours_is_faster(ours: list[float], expected: int | None) -> None:
    lengths = {
        str(length): {
            name: {"forward_backward_seconds": {"median": seconds}}
            for name, seconds in (("chunk", own), (FLASH, 2))
        }
        for length, own in zip((32, 64, 128), ours, strict=True)
    }
    assert crossover(lengths, "chunk") == expected


def test_a_part_that_fails_is_a_result(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gpu, "describe_gpu", dict)
    results = gpu.Results(tmp_path / "gpu.json")

    def fails() -> Any:
        raise RuntimeError("no luck")

    gpu.run_part(results, "first", lambda: {"agrees": True})
    assert gpu.run_part(results, "second", fails) == {"error": "RuntimeError: no luck"}
    written = json.loads((tmp_path / "gpu.json").read_text())
    assert written["first"] == {"agrees": True}
    assert written["second"] == {"error": "RuntimeError: no luck"}
    assert set(written["seconds"]) == {"first", "second"}
    assert [path.name for path in tmp_path.iterdir()] == ["gpu.json"]


@pytest.mark.parametrize("peer", PEERS)
def test_models_of_the_benchmark_train(peer: str) -> None:
    config = (SMALL if peer == "transformers" else LARGE) | {
        "hidden_size": 32,
        "feed_forward_size": 32,
        "num_attention_heads": 2,
        "attention_head_size": 16,
    }
    torch.manual_seed(0)
    model = make_model(peer, config, 256).train()
    tokens = torch.randint(3, 256, (1, 256))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(input_ids=tokens, labels=tokens).loss
    loss.backward()
    assert 5 < loss < 6.5  # about log(256)
