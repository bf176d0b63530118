import itertools
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from reformer.genomics.annotation.classes import ClassScheme, label_bases
from reformer.genomics.annotation.coding_model import CodingModel
from reformer.genomics.annotation.gene_calls import CalledGene, GeneDecoder
from reformer.genomics.annotation.gene_places import base_codes, state_scores
from reformer.genomics.annotation.grammar import Grammar
from reformer.genomics.annotation.hints import HintModel
from reformer.genomics.annotation.relatives import READINGS, BroughtOver
from reformer.genomics.annotation.signals import SignalModel, Site
from reformer.genomics.coordinates import reverse_complement
from reformer.genomics.genes import spliced

SCHEME = ClassScheme(kinds=("CDS", "intron"))
TIGHT = Grammar(min_intron=4, gene_cost=1.0, intron_cost=-3.0, evidence=1.0)

FULL = replace(
    TIGHT,
    coding_base_cost=0.02,
    intron_base_cost=-0.01,
    intron_lengths=tuple(np.random.default_rng(8).normal(size=9)),
    class_shares=(0.4, *[0.08] * 6, 0.06, 0.06),
)
MANY_SPLICES = replace(FULL, other_splices=("GC-AG", "AT-AC"), intron_cost=-1.0)
CODING = CodingModel(np.random.default_rng(9).normal(size=(3, 4**4, 4)).astype(np.float32))
SIGNALS = SignalModel(
    {
        site: np.random.default_rng(7).normal(size=(length, 4, 4)).astype(np.float32) / 3
        for site, length in (("start", 26), ("donor", 9), ("acceptor", 23))
    }
)


HINTS = HintModel(
    {
        site: np.random.default_rng(n).normal(size=(3, 3, 3, 3)).astype(np.float32)
        for n, site in enumerate(get_args(Site))
    },
    SCHEME,
)


def call(
    letters,
    probabilities,
    grammar=TIGHT,
    scheme=SCHEME,
    blocks=(),
    coding=None,
    signals=None,
    hints=None,
    said=None,
):
    decoder = GeneDecoder(scheme, grammar, coding, signals, hints)
    edges = [0, *blocks, len(letters)]
    for start, end in itertools.pairwise(edges):
        decoder.feed(letters[start:end].encode(), probabilities[start:end], said and said[start:end])
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
            acceptors = [right for left, right in grammar.splices if left == letters[p : p + 2]]
            if p - exon_start < 3 or not acceptors:
                continue
            for q in range(p + grammar.min_intron, len(letters) + 1):
                if letters[q - 2 : q] in acceptors:
                    yield from grow(start, [*exons, p, q], text)

    for start in range(len(letters)):
        if letters[start : start + 3] in grammar.starts:
            for edges in grow(start, [start], ""):
                yield tuple(zip(edges[::2], edges[1::2], strict=True))


def site_nats(letters, strand, exons, signals, hints, said):
    """Of the start and stop codons and the splice sites of a gene."""
    n, codes = len(letters), base_codes(letters.encode())
    if strand == "-":
        exons = [(n - b, n - a) for a, b in exons[::-1]]
        codes = base_codes(reverse_complement(letters).encode())
        said = said and said.reverse_complement(SCHEME)
    sites = [("start", exons[0][0]), ("stop", exons[-1][1])]
    for (_, end), (start, _) in itertools.pairwise(exons):
        sites += [("donor", end), ("acceptor", start)]
    nats = 0.0
    for site, at in sites:
        for model, what in ((signals, codes), (hints, said)):
            nats += 0.0 if model is None else float(model.scores(site, what, np.array([at]))[0])
    return nats


def draw(generator, concentration, length):
    """Probabilities of classes of which all but the coding ones are rarer: together they are no gene."""
    alphas = np.full(len(SCHEME.names), float(concentration))
    alphas[0] /= 20
    alphas[7:] /= 2
    return generator.dirichlet(alphas, length)


def log_of_no_gene(probabilities, grammar):
    """Of what is not coding: introns are in untranslated regions too."""

    def outside(shares):
        return shares[..., 0] + shares[..., 7:].sum(axis=-1)

    prior = outside(np.array(grammar.class_shares)) if grammar.class_shares else 1.0
    return np.log(np.maximum(outside(probabilities), 1e-6) / prior)


def best_path(letters, probabilities, grammar, coding=None, signals=None, hints=None, said=None):
    """The score and genes of the best legal path, by trying every gene at every place."""
    shares = np.array(grammar.class_shares or np.ones(len(SCHEME.names)))
    logs, outside = np.log(np.maximum(probabilities, 1e-6) / shares), log_of_no_gene(probabilities, grammar)
    beyond = np.maximum(logs[:, 7:] - outside[:, None], 0)
    logs[:, 7:] -= (1 - grammar.intron_evidence) * beyond
    logs, no_gene = grammar.evidence * logs, grammar.evidence * outside
    if coding is not None:
        logs[:, 1:7] += coding.by_place(base_codes(letters.encode()))  # "CDS+0" to "CDS-2"
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
        is_coding = labels[span] < 7
        nats = logs[span, labels[span]].sum() - grammar.gene_cost
        nats -= grammar.coding_base_cost * is_coding.sum() + grammar.intron_base_cost * (~is_coding).sum()
        for (_, end), (start, _) in itertools.pairwise(exons):
            longer = [*grammar.intron_lengths, *[0.0] * n]
            nats += longer[start - end] - grammar.intron_cost
        return nats + site_nats(letters, strand, exons, signals, hints, said)

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
    probabilities = draw(generator, 0.3, len(letters))
    for evidence in (1.0, 0.3, 0.1):
        grammar = Grammar(min_intron=4, gene_cost=0.2, intron_cost=0.1, evidence=evidence)
        (_, genes), _ = best_path(letters, probabilities, grammar)
        assert [(gene.strand, gene.exons) for gene in call(letters, probabilities, grammar)] == genes


@pytest.mark.parametrize(
    ("grammar", "coding", "signals"),
    [
        (TIGHT, None, None),
        (TIGHT, CODING, None),
        (TIGHT, None, SIGNALS),
        (FULL, CODING, SIGNALS),
        (MANY_SPLICES, CODING, SIGNALS),
        (replace(FULL, intron_evidence=0.0), CODING, None),
        (replace(FULL, intron_evidence=0.3), CODING, SIGNALS),
    ],
    ids=["", "codons", "signals", "all", "splices", "no introns seen", "few introns seen"],
)
@pytest.mark.parametrize("seed", range(40))
def test_the_path_is_the_best_of_all_legal_ones(seed, grammar, coding, signals):
    generator = np.random.default_rng(seed)
    # Letters in which codons and splice sites are common.
    words = ["ATG", "TAA", "GT", "AG", "CAT", "TTA", "CT", "AC", "TGA", "A", "C", "G", "T", "TCA"]
    letters = "".join(generator.choice(words, 26))[:60]
    concentration = generator.choice([0.3, 1.0, 3.0])
    probabilities = draw(generator, concentration, len(letters))
    (score, genes), _ = best_path(letters, probabilities, grammar, coding, signals)
    found = call(letters, probabilities, grammar, coding=coding, signals=signals)
    no_gene = log_of_no_gene(probabilities, grammar).sum()
    assert no_gene + sum(gene.score for gene in found) == pytest.approx(score)
    assert [(gene.strand, gene.exons) for gene in found] == genes


def draw_what_relatives_say(generator, length):
    """In runs of some bases, weights of all three levels."""
    runs = length // 4 + 1
    classes = generator.integers(len(SCHEME.names), size=(runs, len(READINGS))).repeat(4, axis=0)[:length]
    weights = generator.choice([0, 60, 200], p=[0.9, 0.05, 0.05], size=(length, len(READINGS)))
    return BroughtOver(classes.astype(np.uint8), weights.astype(np.uint8))


@pytest.mark.parametrize("seed", range(40))
def test_what_relatives_say_of_sites_counts(seed):
    generator = np.random.default_rng(seed)
    words = ["ATG", "TAA", "GT", "AG", "CAT", "TTA", "CT", "AC", "TGA", "A", "C", "G", "T", "TCA"]
    letters = "".join(generator.choice(words, 26))[:60]
    probabilities = draw(generator, 1.0, len(letters))
    said = draw_what_relatives_say(generator, len(letters))
    everything = {"coding": CODING, "signals": SIGNALS, "hints": HINTS, "said": said}
    (score, genes), _ = best_path(letters, probabilities, FULL, **everything)
    found = call(letters, probabilities, FULL, **everything)
    no_gene = log_of_no_gene(probabilities, FULL).sum()
    assert FULL.evidence * no_gene + sum(gene.score for gene in found) == pytest.approx(score)
    assert [(gene.strand, gene.exons) for gene in found] == genes
    in_blocks = call(letters, probabilities, FULL, blocks=(7, 31), **everything)
    assert [gene.exons for gene in in_blocks] == [gene.exons for gene in found]


def test_hints_need_what_relatives_say():
    decoder = GeneDecoder(SCHEME, TIGHT, hints=HINTS)
    with pytest.raises(ValueError, match="hints need it"):
        decoder.feed(b"AC", np.ones((2, len(SCHEME.names))))


def test_splices_pair_donors_with_their_own_acceptors():
    seen = set()
    for seed in range(60):
        generator = np.random.default_rng(seed)
        letters = "".join(
            generator.choice(["ATG", "TAA", "CAT", "TTA", "GC", "AT", "AG", "AC", "GT", "CT"], 60)
        )
        probabilities = draw(generator, 0.3, len(letters))
        for gene in call(letters, probabilities, replace(MANY_SPLICES, gene_cost=0.0)):
            (transcript,) = gene.gene("s", "g").transcripts
            for intron in transcript.introns:
                text = spliced(letters, [intron], gene.strand)
                seen.add((text[:2], text[-2:], gene.strand))
    pairs = {("GT", "AG"), ("GC", "AG"), ("AT", "AC")}
    assert seen == {(*pair, strand) for pair in pairs for strand in "+-"}


def test_the_cases_above_hold_genes_of_both_strands_and_introns():
    seen = set()
    for seed in range(40):
        generator = np.random.default_rng(seed)
        words = ["ATG", "TAA", "GT", "AG", "CAT", "TTA", "CT", "AC", "TGA", "A", "C", "G", "T", "TCA"]
        letters = "".join(generator.choice(words, 26))[:60]
        concentration = generator.choice([0.3, 1.0, 3.0])
        probabilities = draw(generator, concentration, len(letters))
        for gene in call(letters, probabilities):
            seen.add((gene.strand, len(gene.exons) > 1))
    assert seen == {("+", False), ("-", False), ("+", True), ("-", True)}


@pytest.fixture(scope="module")
def random_case():
    generator = np.random.default_rng(0)
    letters = "".join(generator.choice(list("ACGT"), 20_000))
    return letters, draw(generator, 0.5, len(letters))


def test_every_called_gene_is_legal(random_case):
    letters, probabilities = random_case
    grammar = Grammar(min_intron=30, gene_cost=0.1, intron_cost=-20.0, evidence=1.0)
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


@pytest.mark.parametrize(
    ("coding", "signals"), [(None, None), (CODING, None), (None, SIGNALS), (CODING, SIGNALS)]
)
def test_blocks_of_any_size_give_the_same_genes(random_case, coding, signals):
    letters, probabilities = (part[:3000] for part in random_case)
    whole = call(letters, probabilities, FULL, coding=coding, signals=signals)
    assert whole
    for blocks in (range(1, 3000), range(7, 3000, 7), [1, 2, 3, 5, 1500, 2999]):
        pieces = call(letters, probabilities, FULL, blocks=blocks, coding=coding, signals=signals)
        assert [(g.strand, g.exons) for g in pieces] == [(g.strand, g.exons) for g in whole]


@pytest.mark.parametrize(("coding", "signals"), [(None, None), (CODING, None), (CODING, SIGNALS)])
def test_the_other_strand_gives_the_other_genes(random_case, coding, signals):
    letters, probabilities = (part[:5000] for part in random_case)
    given = {"grammar": FULL, "coding": coding, "signals": signals}
    forwards = call(letters, probabilities, **given)
    backwards = call(reverse_complement(letters), probabilities[::-1][:, SCHEME.other_strand], **given)
    n = len(letters)
    mirrored = [tuple((n - b, n - a) for a, b in gene.exons[::-1]) for gene in backwards[::-1]]
    assert [gene.exons for gene in forwards] == mirrored


def test_other_letters_end_nothing_and_begin_nothing():
    letters = "CCATGNNNGCATAACC"
    probabilities = np.full((len(letters), len(SCHEME.names)), 1e-3)
    probabilities[:, SCHEME.names.index("CDS+0") :][:, :3] = 0.3
    (gene,) = call(letters, probabilities, Grammar(gene_cost=0.0))
    assert gene.exons == ((2, 14),)


def test_introns_without_a_class_are_no_gene():
    probabilities = np.random.default_rng(4).dirichlet(np.ones(7), 30)
    scores = state_scores(ClassScheme(kinds=("CDS",)), probabilities, 0)
    np.testing.assert_array_equal(scores[:, 7:], scores[:, [0, 0]])


def test_coding_must_be_among_the_classes():
    with pytest.raises(ValueError, match="CDS"):
        GeneDecoder(ClassScheme(kinds=("exon",)), TIGHT)
    with pytest.raises(ValueError, match="2 letters"):
        GeneDecoder(SCHEME, TIGHT).feed(b"AC", np.ones((1, len(SCHEME.names))))


def best_gain_with_overlaps(letters, probabilities, grammar):
    """The nats that the best chain of genes brings in, neighbours of which overlap as far as they may."""
    logs = grammar.evidence * np.log(np.maximum(probabilities, 1e-6))
    no_gene = grammar.evidence * log_of_no_gene(probabilities, grammar)
    n = len(letters)
    genes = [(exons[0], "+") for exons in legal_genes(letters, grammar)]
    genes += [
        ((n - exons[0][1], n - exons[0][0]), "-")
        for exons in legal_genes(reverse_complement(letters), grammar)
    ]
    genes = [gene for gene in genes if gene[0][1] - gene[0][0] >= grammar.min_gene]
    genes.sort(key=lambda gene: (gene[0][1], gene[1] == "+"))  # of those that end together, "-" is first

    def gain(span, strand):
        called = CalledGene(strand, (span,), 0.0).gene("s", "g")
        labels = label_bases(SCHEME, [called], {"s": n})["s"][slice(*span)]
        rows = logs[slice(*span)]
        return (rows[np.arange(len(rows)), labels] - no_gene[slice(*span)]).sum() - grammar.gene_cost

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


@pytest.mark.parametrize("min_gene", [3, 12, 21])
@pytest.mark.parametrize("seed", range(30))
def test_neighbours_overlap_as_far_as_they_may(seed, min_gene):
    generator = np.random.default_rng(seed)
    words = ["ATG", "TAA", "CAT", "TTA", "ATGA", "TCAT", "TAATG", "CATTA", "TGA", "A", "C", "G", "TCA"]
    letters = "".join(generator.choice(words, 30))[:80]
    probabilities = draw(generator, 0.5, len(letters))
    gains = []
    for max_overlap in (0, 4, 12):
        grammar = Grammar(donor=None, gene_cost=0.2, evidence=0.3, max_overlap=max_overlap, min_gene=min_gene)
        found = call(letters, probabilities, grammar)
        gains.append(sum(gene.score for gene in found))
        assert gains[-1] == pytest.approx(best_gain_with_overlaps(letters, probabilities, grammar))
        for left, right in itertools.pairwise(gene.exons[0] for gene in found):
            assert left[0] < right[0]
            assert left[1] - right[0] <= max_overlap
        assert all(gene.exons[0][1] - gene.exons[0][0] >= min_gene for gene in found)
    assert gains == sorted(gains)


def test_some_of_these_genes_overlap_on_either_strand():
    seen = set()
    for seed in range(30):
        generator = np.random.default_rng(seed)
        words = ["ATG", "TAA", "CAT", "TTA", "ATGA", "TCAT", "TAATG", "CATTA", "TGA", "A", "C", "G", "TCA"]
        letters = "".join(generator.choice(words, 30))[:80]
        probabilities = draw(generator, 0.5, len(letters))
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
    no_gene = 1 - probabilities[:, 1:7].sum(axis=1)
    expected = np.log(0.9 / no_gene).sum() - TIGHT.intron_cost
    assert open_score(letters, probabilities, TIGHT) == pytest.approx(expected)
    assert call(letters, probabilities) == []


def call_open(letters, probabilities, grammar, coding=None, signals=None):
    decoder = GeneDecoder(SCHEME, grammar, coding, signals, open_ends=True, free_start=False)
    decoder.feed(letters.encode(), probabilities)
    return decoder.finish()


@pytest.mark.parametrize("seed", range(20))
def test_genes_of_open_ends_are_the_best_path(seed):
    """Their gains add up to its score; they are legal but for what is cut off; so on the other strand."""
    generator = np.random.default_rng(seed)
    words = ["ATG", "TAA", "GT", "AG", "CAT", "TTA", "CT", "AC", "TGA", "A", "C", "G", "T", "TCA", "GCTGAA"]
    letters = "".join(generator.choice(words, 60))
    probabilities = draw(generator, 0.3, len(letters))
    grammar = replace(FULL, gene_cost=0.3, evidence=0.5)
    genes = call_open(letters, probabilities, grammar, CODING, SIGNALS)
    decoder = GeneDecoder(SCHEME, grammar, CODING, SIGNALS, open_ends=True, free_start=False)
    decoder.feed(letters.encode(), probabilities)
    assert sum(gene.score for gene in genes) == pytest.approx(decoder.score())
    for number, gene in enumerate(genes):
        assert gene.partial[0] <= (number == 0)
        assert gene.partial[1] <= (number == len(genes) - 1)
        begins, ends = gene.partial[:: -1 if gene.strand == "-" else 1]
        (transcript,) = gene.gene("s", "g").transcripts
        coding = spliced(letters, transcript.cds, gene.strand)[gene.phase :]
        codons = [coding[i : i + 3] for i in range(0, len(coding), 3)]
        assert begins or (gene.phase == 0 and codons[0] == "ATG")
        assert ends or codons[-1] in grammar.stops
        assert not set(codons[:-1]) & set(grammar.stops)
    mirrored = call_open(
        reverse_complement(letters), probabilities[::-1][:, SCHEME.other_strand], grammar, CODING, SIGNALS
    )
    n = len(letters)
    assert [(g.exons, g.phase, g.partial) for g in genes] == [
        (tuple((n - b, n - a) for a, b in g.exons[::-1]), g.phase, g.partial[::-1]) for g in mirrored[::-1]
    ]


@pytest.mark.parametrize("on_other_strand", [False, True])
@pytest.mark.parametrize(
    ("left", "right"), [(8, 0), (9, 0), (10, 3), (0, 1), (0, 8), (21, 0), (0, 20), (9, 4)]
)
def test_a_gene_is_found_in_what_a_cut_leaves_of_it(left, right, on_other_strand):
    letters = "CCCC" + "ATGGCAGC" + "GTCCCCCCCCAG" + "AGCAGCATAA" + "CCCC"
    exons = ((4, 12), (24, 34))
    if on_other_strand:
        letters, exons = reverse_complement(letters), tuple((38 - b, 38 - a) for a, b in exons[::-1])
    whole = CalledGene("-" if on_other_strand else "+", exons, 0.0).gene("s", "g")
    labels = label_bases(SCHEME, [whole], {"s": 38})["s"][left : 38 - right]
    probabilities = np.where(labels[:, None] == np.arange(len(SCHEME.names)), 0.9, 0.01)
    (found,) = call_open(letters[left : 38 - right], probabilities, TIGHT)
    kept = [(max(a - left, 0), min(b - left, 38 - right - left)) for a, b in exons]
    assert found.exons == tuple((a, b) for a, b in kept if a < b)
    assert found.partial == (left > exons[0][0], 38 - right < exons[-1][1])
    assert found.gene("s", "g").partial == found.partial
    first = found.gene("s", "g").transcripts[0].cds[0]
    same = [
        s for s in whole.transcripts[0].cds if s.start - left <= first.start and first.end <= s.end - left
    ]
    cut_off = same[0].end - left - first.end if on_other_strand else first.start - (same[0].start - left)
    assert first.phase == (same[0].phase - cut_off) % 3
    assert call(letters[left : 38 - right], probabilities) in ([], [found])


def test_a_class_of_features_named_like_coding_is_no_gene():
    scheme = ClassScheme(kinds=("CDS",), features={"CDS_relic": ("pseudogene",)})
    probabilities = np.random.default_rng(6).dirichlet(np.ones(len(scheme.names)), 30)
    scores = state_scores(scheme, probabilities, 0)
    relic = scheme.names.index("CDS_relic")
    np.testing.assert_allclose(np.exp(scores[:, 0]), probabilities[:, 0] + probabilities[:, relic], rtol=1e-9)
