"""`benchmarks.visibility`: what it counts as seen is what the layer attends to."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.visibility_simulation import (
    Level,
    Scheme,
    Trial,
    Visibility,
    advantage,
    attention_layer,
    balanced_factors,
    growing,
    repeated_directions,
    schemes,
)

from benchmarks import visibility

NUM_KEYS = 1024


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Path]:
    folder = tmp_path_factory.mktemp("results")
    arguments = ["--max-keys", "16384", "--cosines", "0.95", "--out", str(folder)]
    return visibility.main(arguments), folder


def test_growing_resolution_sees_no_less_than_the_papers_chunks(run: tuple[int, Path]) -> None:
    code, folder = run
    assert json.loads((folder / "visibility.json").read_text())["failures"] == []
    assert code == 0


def test_the_command_writes_results_and_a_picture(run: tuple[int, Path]) -> None:
    code, folder = run
    report: dict[str, Any] = json.loads((folder / "visibility.json").read_text())
    assert code == bool(report["failures"])
    assert {"cpu", "cores", "torch", "date"} <= report["machine"].keys()
    names = ["chunks", "bucket T/C", "bucket fixed", "bucket growing"]
    rows = [(row["num_keys"], row["scheme"]) for row in report["schemes"]]
    assert rows == [(n, name) for n in (1024, 4096, 16384) for name in names]
    assert all(
        0 < row["seen"] <= row["same_bucket"] <= 1 for row in report["schemes"] if row["scheme"] != "chunks"
    )
    products = [row["products_per_token"] for row in report["factors"]]
    assert products == sorted(products, reverse=True)
    assert (folder / "visibility.svg").read_text().rstrip().endswith("</svg>")
    assert sorted(path.name for path in folder.iterdir()) == ["visibility.json", "visibility.svg"]


@pytest.mark.parametrize("name", ["chunks", "bucket T/C", "bucket fixed", "bucket growing"])
def test_seen_means_that_the_layer_gives_it_weight(name: str) -> None:
    trial = Trial(NUM_KEYS, 0.9, seed=3)
    scheme = schemes(NUM_KEYS)[name]
    trial.look(scheme)
    layer = attention_layer(scheme.window)
    if len(scheme.levels) == 1:
        layer.num_buckets = scheme.levels[0].factors
    weights = layer.attend([trial.x, trial.x / 8, torch.eye(NUM_KEYS)[None, None]], trial.seed, None)[0, 0]
    attended = weights[torch.arange(NUM_KEYS), trial.match] > 0
    assert torch.equal(trial.seen[trial.is_query], attended[trial.is_query])
    assert 0.3 < trial.seen[trial.is_query].float().mean() < 1
    assert not trial.seen[~trial.is_query].any()


def test_one_bucket_shows_exactly_the_matches_in_reach() -> None:
    trial = Trial(NUM_KEYS, 0.5, seed=1)
    trial.look(Scheme("bucket", [Level(NUM_KEYS, (1,))]))
    in_reach = torch.arange(NUM_KEYS) - trial.match <= 64
    assert torch.equal(trial.seen, in_reach & trial.is_query)
    assert torch.equal(trial.same_bucket, trial.is_query)


@pytest.mark.parametrize("cosine", [1.0, 0.85, 0.0])
def test_repeats_have_the_cosine_and_matches_are_the_nearest_earlier(cosine: float) -> None:
    x, match = repeated_directions(128, cosine, torch.Generator().manual_seed(0))
    cosines = x[0, 0] @ x[0, 0].T
    torch.testing.assert_close(cosines.diagonal(), torch.ones(128))
    assert (match < torch.arange(128)).all()
    assert (match < 0).sum() == 128 // 8
    group = torch.arange(128)
    for position in range(128):
        if match[position] >= 0:
            group[position] = group[match[position]]
            assert not (group[match[position] + 1 : position] == group[position]).any()
    same = (group[:, None] == group) & ~torch.eye(128, dtype=torch.bool)
    assert same.sum(1).tolist() == [7] * 128
    torch.testing.assert_close(cosines[same], torch.full((128 * 7,), cosine), atol=1e-5, rtol=0)


def test_balanced_factors() -> None:
    assert [balanced_factors(n, 3) for n in (1, 2, 4, 8, 32, 4096)] == [
        (1,),
        (2,),
        (2, 2),
        (2, 2, 2),
        (2, 4, 4),
        (16, 16, 16),
    ]


def test_products_per_token_add_up_over_the_levels() -> None:
    assert (
        Scheme("bucket", [Level(64, (1,)), Level(128, (8, 4)), Level(256, (16,))]).products_per_token
        == (128 * 6 + 256 * 8) / 256
    )
    assert growing(NUM_KEYS).levels[-1].end == NUM_KEYS


def test_only_a_deficit_beyond_the_error_is_a_failure() -> None:
    chunks = Visibility(0.9, 1024, "chunks", 1800, 0.8, 0.01, 0.8, [0.79, 0.81], 32, 0.1)
    better = replace(chunks, scheme="bucket growing", seen=0.9, trials=[0.89, 0.91])
    level = replace(better, seen=0.79, trials=[0.78, 0.80])
    worse = replace(better, seen=0.7, trials=[0.69, 0.71])
    difference, error = advantage(worse, chunks)
    assert difference == pytest.approx(-0.1)
    assert error == pytest.approx((0.8 * 0.2 / 1800 + 0.7 * 0.3 / 1800) ** 0.5)
    assert [len(visibility.find_failures([chunks, growing])) for growing in (better, level, worse)] == [
        0,
        0,
        1,
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-keys", "512"], "--max-keys must be at least 1024, got 512"),
        (["--cosines", "1.5"], "--cosines must be in [0, 1], got 1.5"),
        (["--out", __file__], "--out must be a folder that can be made"),
    ],
)
def test_bad_arguments_are_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        visibility.main(arguments)
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
