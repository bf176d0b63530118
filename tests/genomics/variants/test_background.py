"""Random changes, and quantiles among their scores: against counts, and of changes that are random or not."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from reformer import ReformerForCausalLM
from reformer.errors import UserError
from reformer.genomics.annotation.annotator import Annotator
from reformer.genomics.coordinates import Interval
from reformer.genomics.genome import Genome
from reformer.genomics.tracks.levels import Levels
from reformer.genomics.tracks.predictor import TrackPredictor, TrackSettings
from reformer.genomics.variants.background import Kind, QuantileScorer, draw_changes
from reformer.genomics.variants.causal_likelihood import CausalLikelihood
from reformer.genomics.variants.changes import Change
from reformer.genomics.variants.gene_scorer import GeneScorer
from reformer.genomics.variants.scorers import LanguageScorer
from reformer.genomics.variants.track_scorer import TrackScorer
from tests.genomics.variants.gene_models import coding_text, gene_settings, silent_network
from tests.models.small_models import build

COLUMNS = "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
SUBSTITUTION = ("a", 11, "A", "C")
OTHERS = [
    SUBSTITUTION,
    ("a", 21, "AAA", "CCC"),
    ("a", 31, "A", "ATTTT"),
    ("a", 41, "A", "AG"),
    ("a", 51, "AAA", "A"),
    ("b", 11, "A", "G"),
]


def write_vcf(path: Path, *lines: tuple[str, int, str, str]) -> Path:
    path.write_text(COLUMNS + "".join(f"{n}\t{p}\t.\t{ref}\t{alt}\t.\t.\t.\n" for n, p, ref, alt in lines))
    return path


@pytest.fixture
def genome(tmp_path):
    """Three sequences that begin with a hundred A; half of the first has no bases that are known."""
    generator = np.random.default_rng(0)
    a, b, c = ("".join(generator.choice(list("ACGTacgt"), length)) for length in (2900, 900, 900))
    start = "A" * 100
    (tmp_path / "g.fa").write_text(f">a\n{start}{a}{'N' * 3000}\n>b\n{start}{b}\n>c\n{start}{c}\n")
    with Genome(tmp_path / "g.fa") as opened:
        yield opened


def kinds_of(drawn):
    return Counter(Kind.of(change) for changes in drawn.values() for change in changes)


def test_what_is_drawn_is_of_the_kinds_and_sizes_of_the_file(genome, tmp_path):
    drawn = draw_changes(write_vcf(tmp_path / "v.vcf", *OTHERS), genome, 400, 0)
    assert kinds_of(drawn) == dict.fromkeys(Kind, 400)
    for name, changes in drawn.items():
        assert changes == sorted(changes, key=lambda change: change.start)
        for change in changes:
            old = genome.letters(Interval(name, change.start, max(change.end, change.start + 1))).upper()
            assert set(old) <= set("ACGT")
            if change.end > change.start and change.inserted:
                assert Change.of(change.start, old, change.inserted) == change  # nothing is left to trim
    sizes = Counter(
        (change.end - change.start, len(change.inserted)) for changes in drawn.values() for change in changes
    )
    assert sizes.keys() == {(1, 1), (3, 3), (0, 4), (0, 1), (2, 0)}
    assert abs(sizes[0, 4] - 200) < 60  # six standard deviations


def test_substitutions_are_uniform_over_the_known_bases_of_the_sequences_with_variants(genome, tmp_path):
    wrong = ("c", 11, "G", "C")  # REF is not the genome's: nothing to be compared with
    drawn = draw_changes(write_vcf(tmp_path / "v.vcf", *OTHERS, wrong), genome, 3000, 0)
    found = {
        name: [one for one in changes if Kind.of(one) is Kind.SUBSTITUTION] for name, changes in drawn.items()
    }
    assert found.keys() == {"a", "b"}
    assert abs(len(found["a"]) - 2250) < 6 * (3000 * 0.25 * 0.75) ** 0.5
    places = np.array([change.start for change in found["a"]])
    assert places.max() < 3000
    expected = len(places) / 10
    assert (np.abs(np.histogram(places, 10, (0, 3000))[0] - expected) < 6 * expected**0.5).all()
    new = Counter(change.inserted for change in found["a"] if change.start < 100)
    assert new.keys() == {"C", "G", "T"}


def test_the_seed_draws_and_nothing_else(genome, tmp_path):
    def draw(*lines, seed=0, number=50):
        return draw_changes(write_vcf(tmp_path / "v.vcf", *lines), genome, number, seed)

    whole = draw(*OTHERS)
    assert draw(*reversed(OTHERS)) == whole
    assert draw(*OTHERS, seed=1) != whole
    # Neither other kinds nor a larger number change what comes first.
    alone = draw(SUBSTITUTION, ("b", 11, "A", "G"), number=20)
    assert kinds_of(alone) == {Kind.SUBSTITUTION: 20}
    for name, changes in alone.items():
        assert not set(changes) - set(whole[name])


def test_a_file_without_changes_to_score_draws_nothing(genome, tmp_path):
    lines = (("a", 11, "A", "."), ("a", 12, "A", "<DEL>"), ("a", 13, "A", "A"), ("a", 14, "C", "G"))
    assert draw_changes(write_vcf(tmp_path / "v.vcf", *lines), genome, 10, 0) == {}


def test_sequences_without_bases_are_an_error(tmp_path):
    (tmp_path / "g.fa").write_text(f">c\n{'N' * 500}\n")
    source = write_vcf(tmp_path / "v.vcf", ("c", 5, "N", "A"))
    with (
        Genome(tmp_path / "g.fa") as genome,
        pytest.raises(UserError, match="no place for a random substitution in 10,000 tries"),
    ):
        draw_changes(source, genome, 1, 0)


def language_scorer():
    model = build(ReformerForCausalLM, vocab_size=9, attn_layers=["local"])
    return LanguageScorer(CausalLikelihood(model, 64, 32), "fold")


def test_a_quantile_counts_the_random_changes_that_score_no_higher(genome, tmp_path):
    drawn = draw_changes(write_vcf(tmp_path / "v.vcf", *OTHERS), genome, 19, 0)
    calls = []
    plain = language_scorer()
    scorer = QuantileScorer(plain, genome, drawn, calls.append)
    assert sum(calls) == 76
    assert [field.name for field in scorer.fields[:3]] == [
        "REFORMER_LLR", "REFORMER_LLR_QUANTILE", "REFORMER_LLR_FWD"
    ]  # fmt: skip
    asked = [
        Change(200, 201, "A"),
        Change(205, 206, "C"),
        Change(210, 212, ""),
        Change(215, 215, "ACG"),
        Change(220, 222, "TG"),
        Change(6000, 6000, "A"),  # behind the last base
        Change(230, 230, ""),  # nothing changes
    ]
    found = scorer.scores(genome, "a", asked)
    scores, quantiles = found[::2], found[1::2]
    np.testing.assert_allclose(scores, plain.scores(genome, "a", asked), atol=1e-6)
    background = [
        (Kind.of(change), column)
        for name, changes in drawn.items()
        for change, column in zip(changes, plain.scores(genome, name, changes).T, strict=True)
    ]
    for number, change in enumerate(asked[:5]):
        own = np.array([column for kind, column in background if kind is Kind.of(change)])
        assert own.shape == (19, 3)
        expected = ((own <= scores[:, number]).sum(axis=0) + 1) / 20
        np.testing.assert_allclose(quantiles[:, number], expected)
    assert np.isnan(scores[1, 5])
    assert np.isnan(quantiles[1, 5:]).all()
    # Of a kind without random changes nothing can be said.
    alone = QuantileScorer(plain, genome, {"b": [Change(200, 201, "A")]})
    assert np.isnan(alone.scores(genome, "a", asked)[1::2, 2:]).all()


def test_quantiles_of_random_changes_are_uniform(genome, tmp_path):
    """Kolmogorov-Smirnov between two samples of one distribution; the bound is that of a p-value of 1e-4."""
    source = write_vcf(tmp_path / "v.vcf", SUBSTITUTION, ("a", 51, "AAA", "A"))
    number = 100
    scorer = QuantileScorer(language_scorer(), genome, draw_changes(source, genome, number, 0))
    found = {Kind.SUBSTITUTION: [], Kind.DELETION: []}
    for name, changes in draw_changes(source, genome, number, 1).items():
        for change, quantile in zip(changes, scorer.scores(genome, name, changes)[1], strict=True):
            found[Kind.of(change)].append(quantile)
    for quantiles in found.values():
        quantiles = np.sort(quantiles)
        assert 0 < quantiles[0] <= quantiles[-1] <= 1
        assert len(set(quantiles)) > number / 3
        distance = np.abs(quantiles - np.arange(1, number + 1) / number).max()
        assert distance < 2.23 * (2 / number) ** 0.5


def test_a_stop_codon_is_lower_than_most_and_what_lies_outside_genes_is_not(tmp_path):
    generator = np.random.default_rng(1)
    flanks = ["".join(generator.choice(list("ACGT"), 600)) for _ in range(2)]
    letters = flanks[0] + coding_text(generator, 300) + flanks[1]
    (tmp_path / "g.fa").write_text(f">c\n{letters}\n")
    codons = range(603, 1500, 3)
    stops = [place for place in codons if letters[place : place + 3] == "GAA"][10:30]
    shifts = [place for place in codons if letters[place : place + 3] == "CTG"][10:20]
    changes = [Change(place, place + 1, "T") for place in stops]
    changes += [Change(place, place, "A") for place in shifts]
    outside = [Change(place, place + 1, "A" if letters[place] != "A" else "C") for place in range(100, 120)]
    source = write_vcf(
        tmp_path / "v.vcf",
        *(("c", place + 1, letters[place], "T") for place in stops),
        *(("c", place, letters[place - 1], letters[place - 1] + "A") for place in shifts),
    )
    settings = gene_settings()
    with Genome(tmp_path / "g.fa") as genome:
        scorer = GeneScorer(Annotator(silent_network(settings), settings), 3000, genome.path)
        scorer = QuantileScorer(scorer, genome, draw_changes(source, genome, 99, 0))
        _, low = scorer.scores(genome, "c", changes)
        _, high = scorer.scores(genome, "c", outside)
    assert low[: len(stops)].max() <= 0.1
    assert np.median(low[len(stops) :]) < 0.5  # half of the sequence is outside the gene
    assert high.min() > 0.5


def test_a_track_must_not_be_called_like_the_quantile_of_another(genome):
    levels = Levels(1.0, 0.0, 3.0, (0.0, 1.0, 8.0))
    settings = TrackSettings(("a", "a_QUANTILE"), (levels, levels), (0, 1), "fold")
    scorer = TrackScorer(TrackPredictor(None, settings), 64)
    with pytest.raises(UserError, match="REFORMER_TRACK_a_QUANTILE is both a score and a quantile"):
        QuantileScorer(scorer, genome, {})
