"""The synthetic variants are what they are said to be, by biopython's translation of the changed gene."""

import numpy as np
import pytest
from benchmarks.variant_classes import VariantMaker
from benchmarks.variants import ANNOTATION, GENOME, NUMBERS, auroc, compare
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


def test_each_class_is_what_it_says(yeast):
    letters, genes = yeast
    variants = VariantMaker(letters, genes, 0).draw(dict.fromkeys(NUMBERS, 30))
    assert len({variant.position for variant in variants}) == 180
    coding = [t for gene in genes for t in gene.transcripts if t.cds]
    for variant in variants:
        assert letters[variant.position :].startswith(variant.reference)
        assert variant.reference != variant.alternative
        hit = [t for t in coding if any(s.start <= variant.position < s.end for s in t.cds)]
        in_gene = [g for g in genes if g.interval.start <= variant.position < g.interval.end]
        if variant.kind in ("intergenic", "repeat indel"):
            assert not in_gene
            continue
        pairs = [proteins_with(letters, variant, transcript) for transcript in hit]
        found = set()
        for before, after in pairs:
            if variant.kind == "frameshift":
                found |= (
                    {"frameshift"} if abs(len(variant.reference) - len(variant.alternative)) == 1 else set()
                )
                continue
            stop, stop_before = after.find("*"), before.find("*")
            nonsense = stop < stop_before
            found |= {"synonymous" if before == after else "nonsense" if nonsense else "missense"}
        assert variant.kind in found


def test_auroc_and_its_interval():
    rng = np.random.default_rng(0)
    lower, higher = rng.normal(size=200), rng.normal(size=200)
    assert auroc(lower, lower) == 0.5
    assert auroc(np.array([1.0, 2]), np.array([3.0, 2])) == 0.875
    low, high = compare(lower, higher, 0)["interval_95"]
    assert low < 0.5 < high
    assert high - low < 0.15
    assert compare(lower - 2, higher, 0)["interval_95"][0] > 0.85
