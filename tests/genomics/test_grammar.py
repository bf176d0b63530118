import math

import pytest

from reformer.genomics.annotation import read_genes
from reformer.genomics.genome import Genome
from reformer.genomics.grammar import Grammar
from reformer.genomics.quickstart import TRAIN_FILE, yeast_file
from tests.genomics.test_classes import gene


def test_the_grammar_of_yeast():
    genes = read_genes(yeast_file("ScerR64_I.gff.gz"))
    with Genome(yeast_file(TRAIN_FILE)) as genome:
        grammar = Grammar.of(genes, genome.letters, sum(genome.lengths.values()))
    assert (grammar.starts, grammar.stops) == (("ATG",), ("TAA", "TAG", "TGA"))
    assert (grammar.donor, grammar.min_intron) == ("GT", 45)
    assert 5 < grammar.gene_cost < 8
    assert Grammar(**grammar.to_json()) == grammar


def test_other_starts_and_no_introns():
    letters = "GTGAAATAGCCTTACCCCAT"
    genes = [gene("a", "+", [(0, 9)], [(0, 9)]), gene("b", "-", [(11, 20)], [(11, 20)])]

    def read(interval):
        return letters[interval.start : interval.end]

    grammar = Grammar.of(genes, read, len(letters))
    assert grammar.starts == ("ATG", "GTG")
    assert grammar.stops == ("TAA", "TAG")
    assert grammar.donor is None
    assert grammar.gene_cost == pytest.approx(math.log(2 / 2))
    with pytest.raises(ValueError, match="whole codons"):
        Grammar.of([gene("c", "+", [(0, 8)], [(0, 8)])], read, len(letters))
