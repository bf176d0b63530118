import itertools

import numpy as np
import pytest

from reformer.genomics.annotation.classes import ClassScheme, label_bases
from reformer.genomics.annotation.coding_model import CodingModel
from reformer.genomics.annotation.gene_calls import CalledGene, GeneDecoder
from reformer.genomics.annotation.gene_places import base_codes
from reformer.genomics.annotation.grammar import Grammar
from reformer.genomics.coordinates import reverse_complement
from reformer.genomics.genes import spliced

SCHEME = ClassScheme(kinds=("CDS", "intron"))
TIGHT = Grammar(min_intron=4, gene_cost=1.0, intron_cost=0.5, evidence=1.0)


CODING = CodingModel(np.random.default_rng(9).normal(size=(3, 4**4, 4)).astype(np.float32))


def call(letters, probabilities, grammar=TIGHT, scheme=SCHEME, blocks=(), coding=None):
    decoder = GeneDecoder(scheme, grammar, coding)
    edges = [0, *blocks, len(letters)]
    for start, end in itertools.pairwise(edges):
        decoder.feed(letters[start:end].encode(), probabilities[start:end])
    return decoder.finish()


def legal_genes(letters, grammar):
    """All legal genes on "+": lists of exons, by trying every start, splice site and stop."""

    def grow(start, exons, text):
        exon_start = exons[-1] if exons else start
        for p in range(exon_start, len(letters) + 1):
            if p > exon_start:
                text += letters[p - 1]
                if len(text) % 3 == 0 and text[-3:] in grammar.stops:
                    if p - exon_start >= 3:
                        yield [*exons, p]
                    return
            if p - exon_start >= 3 and letters[p : p + 2] == grammar.donor:
                for q in range(p + grammar.min_intron, len(letters) + 1):
                    if letters[q - 2 : q] == grammar.acceptor:
                        yield from grow(start, [*exons, p, q], text)

    for start in range(len(letters)):
        if letters[start : start + 3] in grammar.starts:
            for edges in grow(start, [start], ""):
                yield tuple(zip(edges[::2], edges[1::2], strict=True))


def best_path(letters, probabilities, grammar, coding=None):
    """The score and genes of the best legal path, by trying every gene at every place."""
    logs = grammar.evidence * np.log(np.maximum(probabilities, 1e-6))
    if coding is not None:
        logs[:, 1:7] += coding.by_place(base_codes(letters.encode()))  # "CDS+0" to "CDS-2"
    no_gene = grammar.evidence * np.log(np.maximum(probabilities[:, 0], 1e-6))
    n = len(letters)
    genes = [("+", exons) for exons in legal_genes(letters, grammar)]
    genes += [
        ("-", tuple((n - b, n - a) for a, b in exons[::-1]))
        for exons in legal_genes(reverse_complement(letters), grammar)
    ]

    def score(strand, exons):
        called = CalledGene(strand, exons, 0.0).gene("s", "g")
        labels = label_bases(SCHEME, [called], {"s": n})["s"]
        span = np.arange(exons[0][0], exons[-1][1])
        return logs[span, labels[span]].sum() - grammar.gene_cost - grammar.intron_cost * (len(exons) - 1)

    best = [(0.0, [])]
    ending = {}
    for strand, exons in genes:
        ending.setdefault(exons[-1][1], []).append((strand, exons))
    for end in range(1, n + 1):
        options = [(best[end - 1][0] + no_gene[end - 1], best[end - 1][1])]
        for strand, exons in ending.get(end, []):
            before = best[exons[0][0]]
            options.append((before[0] + score(strand, exons), [*before[1], (strand, exons)]))
        best.append(max(options, key=lambda option: option[0]))
    return best[-1], len(genes)


def test_evidence_weighs_probabilities_against_costs():
    generator = np.random.default_rng(3)
    letters = "".join(generator.choice(list("ACGT"), 60))
    probabilities = generator.dirichlet(np.full(len(SCHEME.names), 0.3), len(letters))
    for evidence in (1.0, 0.3, 0.1):
        grammar = Grammar(min_intron=4, gene_cost=0.2, intron_cost=0.1, evidence=evidence)
        (_, genes), _ = best_path(letters, probabilities, grammar)
        assert [(gene.strand, gene.exons) for gene in call(letters, probabilities, grammar)] == genes


@pytest.mark.parametrize("coding", [None, CODING], ids=["", "codons"])
@pytest.mark.parametrize("seed", range(40))
def test_the_path_is_the_best_of_all_legal_ones(seed, coding):
    generator = np.random.default_rng(seed)
    # Letters in which codons and splice sites are common.
    words = ["ATG", "TAA", "GT", "AG", "CAT", "TTA", "CT", "AC", "TGA", "A", "C", "G", "T", "TCA"]
    letters = "".join(generator.choice(words, 26))[:60]
    concentration = generator.choice([0.3, 1.0, 3.0])
    probabilities = generator.dirichlet(np.full(len(SCHEME.names), concentration), len(letters))
    (score, genes), _ = best_path(letters, probabilities, TIGHT, coding)
    found = call(letters, probabilities, coding=coding)
    no_gene = np.log(np.maximum(probabilities[:, 0], 1e-6)).sum()
    assert no_gene + sum(gene.score for gene in found) == pytest.approx(score)
    assert [(gene.strand, gene.exons) for gene in found] == genes


def test_the_cases_above_hold_genes_of_both_strands_and_introns():
    seen = set()
    for seed in range(40):
        generator = np.random.default_rng(seed)
        words = ["ATG", "TAA", "GT", "AG", "CAT", "TTA", "CT", "AC", "TGA", "A", "C", "G", "T", "TCA"]
        letters = "".join(generator.choice(words, 26))[:60]
        concentration = generator.choice([0.3, 1.0, 3.0])
        probabilities = generator.dirichlet(np.full(len(SCHEME.names), concentration), len(letters))
        for gene in call(letters, probabilities):
            seen.add((gene.strand, len(gene.exons) > 1))
    assert seen == {("+", False), ("-", False), ("+", True), ("-", True)}


@pytest.fixture(scope="module")
def random_case():
    generator = np.random.default_rng(0)
    letters = "".join(generator.choice(list("ACGT"), 20_000))
    return letters, generator.dirichlet(np.full(len(SCHEME.names), 0.5), len(letters))


def test_every_called_gene_is_legal(random_case):
    letters, probabilities = random_case
    grammar = Grammar(min_intron=30, gene_cost=0.1, intron_cost=0.1, evidence=1.0)
    genes = call(letters, probabilities, grammar)
    assert len(genes) > 50
    assert any(len(gene.exons) > 1 for gene in genes)
    end = 0
    for gene in genes:
        assert gene.exons[0][0] >= end
        end = gene.exons[-1][1]
        (transcript,) = gene.gene("s", "g").transcripts
        coding = spliced(letters, transcript.cds, gene.strand)
        codons = [coding[i : i + 3] for i in range(0, len(coding), 3)]
        assert codons[0] == "ATG"
        assert codons[-1] in grammar.stops
        assert not set(codons[:-1]) & set(grammar.stops)
        for intron in transcript.introns:
            text = spliced(letters, [intron], gene.strand)
            assert text.startswith("GT")
            assert text.endswith("AG")
            assert len(text) >= 30


@pytest.mark.parametrize("coding", [None, CODING], ids=["", "codons"])
def test_blocks_of_any_size_give_the_same_genes(random_case, coding):
    letters, probabilities = (part[:3000] for part in random_case)
    whole = call(letters, probabilities, coding=coding)
    assert whole
    for blocks in (range(1, 3000), range(7, 3000, 7), [1, 2, 3, 5, 1500, 2999]):
        pieces = call(letters, probabilities, blocks=blocks, coding=coding)
        assert [(g.strand, g.exons) for g in pieces] == [(g.strand, g.exons) for g in whole]


@pytest.mark.parametrize("coding", [None, CODING], ids=["", "codons"])
def test_the_other_strand_gives_the_other_genes(random_case, coding):
    letters, probabilities = (part[:5000] for part in random_case)
    forwards = call(letters, probabilities, coding=coding)
    backwards = call(reverse_complement(letters), probabilities[::-1][:, SCHEME.other_strand], coding=coding)
    n = len(letters)
    mirrored = [tuple((n - b, n - a) for a, b in gene.exons[::-1]) for gene in backwards[::-1]]
    assert [gene.exons for gene in forwards] == mirrored


def test_other_letters_end_nothing_and_begin_nothing():
    letters = "CCATGNNNGCATAACC"
    probabilities = np.full((len(letters), len(SCHEME.names)), 1e-3)
    probabilities[:, SCHEME.names.index("CDS+0") :][:, :3] = 0.3
    (gene,) = call(letters, probabilities, Grammar(gene_cost=0.0))
    assert gene.exons == ((2, 14),)


def test_coding_must_be_among_the_classes():
    with pytest.raises(ValueError, match="CDS"):
        GeneDecoder(ClassScheme(kinds=("exon",)), TIGHT)
    with pytest.raises(ValueError, match="2 letters"):
        GeneDecoder(SCHEME, TIGHT).feed(b"AC", np.ones((1, len(SCHEME.names))))


def best_gain_with_overlaps(letters, probabilities, grammar):
    """The nats that the best chain of genes brings in, neighbours of which overlap as far as they may."""
    logs = grammar.evidence * np.log(np.maximum(probabilities, 1e-6))
    n = len(letters)
    genes = [(exons[0], "+") for exons in legal_genes(letters, grammar)]
    genes += [
        ((n - exons[0][1], n - exons[0][0]), "-")
        for exons in legal_genes(reverse_complement(letters), grammar)
    ]
    genes.sort(key=lambda gene: (gene[0][1], gene[1] == "+"))  # of those that end together, "-" is first

    def gain(span, strand):
        called = CalledGene(strand, (span,), 0.0).gene("s", "g")
        labels = label_bases(SCHEME, [called], {"s": n})["s"][slice(*span)]
        rows = logs[slice(*span)]
        return (rows[np.arange(len(rows)), labels] - rows[:, 0]).sum() - grammar.gene_cost

    totals = []
    for (start, end), strand in genes:
        before = [
            total
            for total, ((a, b), other) in zip(totals, genes, strict=False)
            if b <= start
            or (a < start and b - start <= grammar.max_overlap and (b, other == "+") < (end, strand == "+"))
        ]
        totals.append(gain((start, end), strand) + max([0.0, *before]))
    return max([0.0, *totals])


@pytest.mark.parametrize("seed", range(30))
def test_neighbours_overlap_as_far_as_they_may(seed):
    generator = np.random.default_rng(seed)
    words = ["ATG", "TAA", "CAT", "TTA", "ATGA", "TCAT", "TAATG", "CATTA", "TGA", "A", "C", "G", "TCA"]
    letters = "".join(generator.choice(words, 30))[:80]
    probabilities = generator.dirichlet(np.full(len(SCHEME.names), 0.5), len(letters))
    gains = []
    for max_overlap in (0, 4, 12):
        grammar = Grammar(donor=None, gene_cost=0.2, evidence=0.3, max_overlap=max_overlap)
        found = call(letters, probabilities, grammar)
        gains.append(sum(gene.score for gene in found))
        assert gains[-1] == pytest.approx(best_gain_with_overlaps(letters, probabilities, grammar))
        for left, right in itertools.pairwise(gene.exons[0] for gene in found):
            assert left[0] < right[0]
            assert left[1] - right[0] <= max_overlap
    assert gains == sorted(gains)


def test_some_of_these_genes_overlap_on_either_strand():
    seen = set()
    for seed in range(30):
        generator = np.random.default_rng(seed)
        words = ["ATG", "TAA", "CAT", "TTA", "ATGA", "TCAT", "TAATG", "CATTA", "TGA", "A", "C", "G", "TCA"]
        letters = "".join(generator.choice(words, 30))[:80]
        probabilities = generator.dirichlet(np.full(len(SCHEME.names), 0.5), len(letters))
        grammar = Grammar(donor=None, gene_cost=0.2, evidence=0.3, max_overlap=12)
        for left, right in itertools.pairwise(call(letters, probabilities, grammar)):
            if left.exons[0][1] > right.exons[0][0]:
                seen.add(left.strand + right.strand)
    assert seen == {"++", "+-", "-+", "--"}


def open_score(letters, probabilities, grammar, coding=None):
    decoder = GeneDecoder(SCHEME, grammar, coding, open_ends=True)
    decoder.feed(letters.encode(), probabilities)
    return decoder.score()


def best_open_gain(letters, probabilities, grammar):
    """The same, base by base, for genes without introns: where the path is, and with how many nats."""
    logs = grammar.evidence * np.log(np.maximum(probabilities, 1e-6))
    none, coding = 0.0, {(strand, a): 0.0 for strand in "+-" for a in range(3)}
    for p in range(len(letters) + 1):
        before, after = letters[max(p - 3, 0) : p], letters[p : p + 3]
        if before in grammar.stops:
            none, coding["+", p % 3] = max(none, coding["+", p % 3]), -np.inf
        if reverse_complement(before) in grammar.starts:
            none = max(none, coding["-", p % 3])
        if after in grammar.starts:
            coding["+", p % 3] = max(coding["+", p % 3], none - grammar.gene_cost)
        if reverse_complement(after) in grammar.stops:
            coding["-", p % 3] = none - grammar.gene_cost
        if p < len(letters):
            for strand, a in coding:
                left = (p - a) % 3
                place = left if strand == "+" else 2 - left
                coding[strand, a] += logs[p, SCHEME.number("CDS", strand, place)] - logs[p, 0]
    return max(none, *coding.values())


@pytest.mark.parametrize("seed", range(40))
def test_the_score_of_open_ends_is_that_of_the_best_path(seed):
    generator = np.random.default_rng(seed)
    words = ["ATG", "TAA", "CAT", "TTA", "TGA", "A", "C", "G", "T", "TCA", "GCT", "GAA"]
    letters = "".join(generator.choice(words, 40))
    probabilities = generator.dirichlet(np.full(7, 1.0), len(letters))  # introns have none
    probabilities = np.pad(probabilities, ((0, 0), (0, len(SCHEME.names) - 7)))
    grammar = Grammar(donor=None, gene_cost=1.0, evidence=generator.choice([0.2, 1.0]))
    found = open_score(letters, probabilities, grammar)
    assert found == pytest.approx(best_open_gain(letters, probabilities, grammar))
    assert found >= sum(gene.score for gene in call(letters, probabilities, grammar)) - 1e-9


@pytest.mark.parametrize("on_other_strand", [False, True])
def test_introns_may_go_on_beyond_the_ends(on_other_strand):
    parts = [("intron+", "CCCCCCAG"), ("CDS+0", "GCA"), ("intron+", "GTCCCC")]
    letters = "".join(text for _, text in parts)
    probabilities = np.full((len(letters), len(SCHEME.names)), 0.01)
    classes = [SCHEME.names.index(name) for name, text in parts for _ in text]
    classes[9], classes[10] = (SCHEME.names.index(f"CDS+{place}") for place in (1, 2))
    probabilities[np.arange(len(letters)), classes] = 0.9
    if on_other_strand:
        letters, probabilities = reverse_complement(letters), probabilities[::-1][:, SCHEME.other_strand]
    no_gene = 1 - probabilities[:, 1:].sum(axis=1)
    expected = np.log(0.9 / no_gene).sum() - TIGHT.intron_cost
    assert open_score(letters, probabilities, TIGHT) == pytest.approx(expected)
    assert call(letters, probabilities) == []
