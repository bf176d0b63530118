"""Both ways of scoring, at a window that is small enough for a test."""

import numpy as np
import pytest
from benchmarks.variant_classes import write_vcf
from benchmarks.variant_windows import (
    REACH,
    by_decode_cache,
    by_full_passes,
    largest_difference,
    make_variants,
)

from reformer import ReformerForCausalLM
from reformer.data.tokenizers import NucleotideTokenizer
from tests.models.small_models import build

LENGTH, WINDOW = 2600, 2048


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("windows")
    letters = "".join(np.random.default_rng(0).choice(list("ACGT"), LENGTH))
    (folder / "g.fa").write_text(f">c\n{letters}\n")
    tokenizer = NucleotideTokenizer()
    model = build(ReformerForCausalLM, vocab_size=len(tokenizer), attn_layers=["local", "lsh"])
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return folder / "model", folder / "g.fa", letters


@pytest.mark.parametrize("window", [WINDOW, 1 << 20])
def test_both_ways_agree_in_windows_within_and_beyond_the_sequence(files, tmp_path, window):
    model, genome, letters = files
    variants = make_variants(letters, WINDOW)
    write_vcf(tmp_path / "v.vcf", "c", LENGTH, variants)
    cached, full = (
        np.array(way(model, tmp_path / "v.vcf", genome, window)) for way in (by_decode_cache, by_full_passes)
    )
    assert cached.shape == (8, 2)
    assert (np.abs(full) > 1e-2).all()
    np.testing.assert_allclose(cached, full, atol=1e-4)


def test_what_is_before_a_place_is_nearly_a_window_on_either_strand(files):
    *_, letters = files
    variants = make_variants(letters, WINDOW)
    assert [len(v.reference) - len(v.alternative) for v in variants] == [-2, 3, -5] * 2
    before = [(v.position, LENGTH - v.position - len(v.reference)) for v in variants]
    assert all(WINDOW - REACH <= max(pair) < WINDOW for pair in before)
    assert {first > last for first, last in before} == {True, False}


@pytest.mark.parametrize("wrong", [1.1e-3, float("nan")])
def test_nothing_is_reported_where_the_scores_differ(wrong):
    assert largest_difference([[1.0, 2.0], [3.0, 4.0]], [[1.0, 2.0], [3.0, 4.0005]]) == pytest.approx(5e-4)
    with pytest.raises(SystemExit, match="differ by"):
        largest_difference([[1.0, 2.0], [3.0, 4.0]], [[1.0, 2.0], [3.0, 4.0 + wrong]])
