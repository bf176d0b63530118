import math

import pytest

from reformer.genomics.annotation.grammar import Grammar
from reformer.genomics.formats.annotation import read_genes
from reformer.genomics.genome import Genome
from reformer.genomics.quickstart import TRAIN_FILE, yeast_file
from tests.genomics.annotation.test_classes import gene


def test_the_grammar_of_yeast():
    genes = read_genes(yeast_file("ScerR64_I.gff.gz"))
    with Genome(yeast_file(TRAIN_FILE)) as genome:
        grammar = Grammar.of(genes, genome.letters, sum(genome.lengths.values()))
    assert (grammar.starts, grammar.stops) == (("ATG",), ("TAA", "TAG", "TGA"))
    assert (grammar.donor, grammar.min_intron) == ("GT", 45)
    assert 5 < grammar.gene_cost < 8
    assert grammar.intron_evidence == pytest.approx(3 / 53)
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


def test_overlaps_are_those_of_the_annotation_where_there_are_no_introns():
    spans = [(i * 95, i * 95 + 99) for i in range(40)]
    genes = [gene(f"g{i}", "+", [span], [span]) for i, span in enumerate(spans)]
    letters = "ATG" + "C" * 5000
    grammar = Grammar.of(genes, lambda interval: letters[interval.start : interval.end], 5000)
    assert (grammar.donor, grammar.max_overlap) == (None, 4)
    slipped = [*genes, gene("s", "+", [(4200, 4230), (4229, 4300)], [(4200, 4230), (4229, 4300)])]
    assert Grammar.of(slipped, lambda i: letters[i.start : i.end], 5000).donor is None
    spliced = [*genes, gene("s", "+", [(4200, 4230), (4280, 4300)], [(4200, 4230), (4280, 4300)])]
    assert Grammar.of(spliced, lambda i: letters[i.start : i.end], 5000).max_overlap == 0


def test_a_long_gene_has_no_more_evidence_than_a_short_one():
    letters = "ATG" + "C" * 9999 + "TAA"
    for length, evidence in ((1500, 0.0125), (4000, 20 / 4000)):
        found = gene("a", "+", [(0, 300), (length - 300, length)], [(0, 300), (length - 300, length)])
        grammar = Grammar.of([found], lambda i: letters[i.start : i.end], 10_005)
        assert grammar.evidence == pytest.approx(evidence)


def test_other_ends_of_introns_are_taken_where_the_annotation_has_them():
    def grammar(*introns):
        text, genes = "", []
        for number, (donor, acceptor) in enumerate(introns):
            text += f"ATG{donor}{'C' * 30}{acceptor}TAA"
            start = len(text) - 40
            pieces = [(start, start + 3), (start + 37, start + 40)]
            genes.append(gene(f"g{number}", "+", pieces, pieces))
        return Grammar.of(genes, lambda i: text[i.start : i.end], len(text))

    usual, odd = ("GT", "AG"), [("GC", "AG"), ("AT", "AC")]
    assert grammar(usual, usual, *odd).other_splices == ()  # one alone may be a mistake
    found = grammar(*[usual] * 20, *odd, *odd, ("CT", "AC"), ("CT", "AC"))
    assert found.splices == (("GT", "AG"), ("GC", "AG"), ("AT", "AC"))
    assert grammar(*[usual] * 400, *odd, *odd).splices == (("GT", "AG"),)
    assert Grammar(**found.to_json()) == found
    old = {name: value for name, value in found.to_json().items() if name != "other_splices"}
    assert Grammar(**old).splices == (("GT", "AG"),)
