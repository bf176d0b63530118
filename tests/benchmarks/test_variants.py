"""The synthetic variants are what they are said to be, by biopython's translation of the changed gene."""

import numpy as np
import pytest
from benchmarks.variant_classes import SyntheticVariant, VariantMaker
from benchmarks.variants import ANNOTATION, COMPARISONS, GENOME, NUMBERS, Scored, compare, groups_of, summary
from Bio.Seq import Seq

from reformer.genomics.coordinates import Interval, reverse_complement
from reformer.genomics.formats.annotation import read_genes
from reformer.genomics.genome import Genome
from reformer.genomics.quickstart import yeast_file


@pytest.fixture(scope="module")
def yeast():
    with Genome(yeast_file(GENOME)) as genome:
        ((name, length),) = genome.lengths.items()
        letters = genome.letters(Interval(name, 0, length)).upper()
    return letters, read_genes(yeast_file(ANNOTATION))


def proteins_with(letters, variant, transcript):
    """The protein as it is and with the variant, which may move the positions behind it."""
    changed = letters[: variant.position] + variant.alternative
    changed += letters[variant.position + len(variant.reference) :]
    shift = len(variant.alternative) - len(variant.reference)
    proteins = []
    for text, move in ((letters, 0), (changed, shift)):
        pieces = sorted((segment.start, segment.end) for segment in transcript.cds)
        moved = [(s + move * (s > variant.position), e + move * (e > variant.position)) for s, e in pieces]
        coding = "".join(text[s:e] for s, e in moved)
        coding = reverse_complement(coding) if transcript.strand == "-" else coding
        proteins.append(str(Seq(coding[: len(coding) // 3 * 3]).translate()))
    return proteins


def kinds_in(letters, variant, transcript):
    """What a variant is to a transcript."""
    before, after = proteins_with(letters, variant, transcript)
    if len(variant.reference) != len(variant.alternative):
        # The first base that is lost or gained lies behind the one that both alleles begin with.
        pieces = sorted((segment.start, segment.end) for segment in transcript.cds)
        changed = (
            sum(end - start for start, end in pieces) + len(variant.alternative) - len(variant.reference)
        )
        inside = any(start <= variant.position and variant.position + 1 < end for start, end in pieces)
        return "frameshift" if inside and changed % 3 and before.rstrip("*") != after else "in frame"
    stop, stop_before = after.find("*"), before.find("*")
    return "synonymous" if before == after else "nonsense" if stop < stop_before else "missense"


def test_each_class_is_what_it_says(yeast):
    letters, genes = yeast
    variants = VariantMaker(letters, genes, 0).draw(dict.fromkeys(NUMBERS, 30))
    assert len({variant.position for variant in variants}) == 180
    coding = [t for gene in genes for t in gene.transcripts if t.cds]
    for variant in variants:
        assert letters[variant.position :].startswith(variant.reference)
        assert variant.reference != variant.alternative
        in_gene = [g for g in genes if g.interval.start <= variant.position < g.interval.end]
        if variant.kind in ("intergenic", "repeat indel"):
            assert not in_gene
            continue
        hit = [t for t in coding if any(s.start <= variant.position < s.end for s in t.cds)]
        assert variant.kind in {kinds_in(letters, variant, transcript) for transcript in hit}


def test_a_change_of_whole_codons_or_behind_a_gene_is_no_frameshift(yeast):
    """That the test above would tell."""
    letters, genes = yeast
    transcript = next(t for gene in genes for t in gene.transcripts if len(t.cds) == 1)
    start, end = transcript.cds[0].start, transcript.cds[0].end
    place, last = (start + end) // 2, end - 1
    whole = SyntheticVariant(place, letters[place], letters[place] + "GCA", "frameshift")
    behind = SyntheticVariant(last, letters[last], letters[last] + "G", "frameshift")
    one = SyntheticVariant(place, letters[place], letters[place] + "G", "frameshift")
    found = [kinds_in(letters, variant, transcript) for variant in (whole, behind, one)]
    assert found == ["in frame", "in frame", "frameshift"]


def scored(scores, groups=None):
    return Scored(np.asarray(scores, float), np.arange(len(scores)) if groups is None else np.asarray(groups))


def test_auroc_and_its_interval():
    rng = np.random.default_rng(0)
    lower, higher = rng.normal(size=200), rng.normal(size=200)
    assert compare(scored(lower), scored(lower))["auroc"] == 0.5
    assert compare(scored([1, 2]), scored([3, 2]))["auroc"] == 0.875
    low, high = compare(scored(lower), scored(higher, np.arange(200, 400)))["interval_95"]
    assert low < 0.5 < high
    assert high - low < 0.15
    assert compare(scored(lower - 2), scored(higher))["interval_95"][0] > 0.85


def test_variants_of_one_gene_count_as_one_observation():
    """20 genes with 20 variants each that are all alike: as sure as 20 variants, not as 400."""
    rng = np.random.default_rng(1)
    genes = np.arange(20)
    lower, higher = rng.normal(size=20), rng.normal(0.5, size=20)
    few = compare(scored(lower, genes), scored(higher, genes))
    many = compare(*(scored(np.repeat(x, 20), np.repeat(genes, 20)) for x in (lower, higher)))
    assert many | {"numbers": few["numbers"]} == few
    alone = compare(scored(np.repeat(lower, 20)), scored(np.repeat(higher, 20), np.arange(400, 800)))
    (low, high), (narrow_low, narrow_high) = few["interval_95"], alone["interval_95"]
    assert high - low > 2 * (narrow_high - narrow_low)


def test_groups_are_genes_and_what_lies_between(yeast):
    _, genes = yeast
    places = [(gene.interval.start, gene.interval.end) for gene in genes]
    firsts, lasts = (groups_of([at(place) for place in places], genes) for at in (first_of, last_of))
    assert (firsts % 2 == 1).all()
    assert (firsts == lasts).all()  # so genes that overlap are one
    assert 50 < len(set(firsts)) < len(genes)
    free = [i for i in range(0, 230_000, 500) if not any(start <= i < end for start, end in places)]
    gaps = groups_of(free, genes)
    assert (gaps % 2 == 0).all()
    for one, other, gap, next_gap in zip(free, free[1:], gaps, gaps[1:], strict=False):
        assert (gap == next_gap) == (not any(one < start < other for start, _ in places))


def first_of(place):
    return place[0]


def last_of(place):
    return place[1] - 1


def test_the_summary_is_over_seeds():
    def row(model, seed, auroc, low, high):
        one = {"auroc": auroc, "interval_95": [low, high]}
        return {"model": model, "seed": seed, "comparisons": dict.fromkeys(COMPARISONS, one)}

    found = summary(
        [row("genes", 0, 0.9, 0.8, 0.95), row("genes", 1, 0.8, 0.7, 0.9), row("masked", 0, 0.5, 0.4, 0.6)]
    )
    genes, masked = (found[name]["missense against synonymous"] for name in ("genes", "masked"))
    assert genes["seeds"] == 2
    assert genes["mean"] == pytest.approx(0.85)
    assert (genes["min"], genes["max"], genes["intervals_95"]) == (0.8, 0.9, [0.7, 0.95])
    assert masked == {"seeds": 1, "mean": 0.5, "min": 0.5, "max": 0.5, "intervals_95": [0.4, 0.6]}
