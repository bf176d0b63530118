import itertools

import numpy as np
import pytest

from reformer.data.build import build_token_array
from reformer.genomics.annotation.annotate import AnnotatedRecord, annotate_genome, called_genes
from reformer.genomics.annotation.annotator import AnnotationSettings, Annotator
from reformer.genomics.annotation.classes import ClassScheme, label_bases
from reformer.genomics.annotation.command import final_labels
from reformer.genomics.annotation.grammar import Grammar
from reformer.genomics.base_encoding import BaseEncoding
from reformer.genomics.formats.annotation import read_genes
from reformer.genomics.formats.bed import read_bed
from reformer.genomics.formats.gff3 import read_gff3
from reformer.genomics.windows import Windows

SCHEME = ClassScheme(kinds=("CDS", "intron"))


class Oracle(Annotator):
    """Gives the true labels of each record, found by its letters, nearly all of the probability."""

    def __init__(self, grammar, records):
        super().__init__(None, AnnotationSettings(SCHEME, BaseEncoding(), grammar))
        self._records = records
        self.lengths = []

    def probabilities(self, tokens, *, both_strands=True, brought_over=None):
        self.lengths.append(len(tokens))
        text = np.asarray(tokens).tobytes()
        for known, labels in self._records:
            if (at := known.find(text)) >= 0:
                one_hot = np.eye(len(SCHEME.names), dtype=np.float32)[labels[at : at + len(tokens)]]
                return one_hot * 0.9 + np.float32(0.1 / len(SCHEME.names))
        raise AssertionError("not a piece of a record")


@pytest.fixture
def genome(tmp_path):
    """A genome with the genes that a decoder may call of it, as the truth."""
    generator = np.random.default_rng(0)
    texts = ["".join(generator.choice(list("ACGT"), length)) for length in (4000, 50, 2500)]
    fasta = tmp_path / "genome.fa"
    fasta.write_text("".join(f">s{number}\n{text}\n" for number, text in enumerate(texts)))
    return build_token_array(fasta, tmp_path / "cache")


def oracle_and_truth(array, tmp_path):
    """Legal genes of random probabilities serve as the truth."""
    grammar = Grammar(min_intron=30, gene_cost=0.1, intron_cost=-20.0, evidence=1.0)
    generator = np.random.default_rng(1)
    source = Oracle(grammar, [])
    alphas = np.where([name.startswith("CDS") for name in SCHEME.names], 0.5, 0.1)
    source.probabilities = lambda tokens, both_strands, brought_over: generator.dirichlet(
        alphas, len(tokens)
    ).astype(np.float32)
    (tmp_path / "truth").mkdir()
    genes = called_genes(annotate_genome(source, array, tmp_path / "truth", tracks=False))
    labels = label_bases(SCHEME, genes, {r.name: r.length for r in array.records})
    records = [(array.window(r.start, r.length).tobytes(), labels[r.name]) for r in array.records]
    return Oracle(Grammar(min_intron=30, gene_cost=0.0, intron_cost=0.0, evidence=1.0), records), genes


@pytest.mark.parametrize("windows", [Windows(), Windows(500, 40)])
def test_what_a_model_knows_comes_out_as_genes(genome, tmp_path, windows):
    oracle, genes = oracle_and_truth(genome, tmp_path)
    (tmp_path / "out").mkdir()
    pieces = []
    annotate_genome(
        oracle, genome, tmp_path / "out", windows=windows, take=lambda *piece: pieces.append(piece)
    )
    found = read_genes(tmp_path / "out" / "genes.gff3")
    key = [(g.interval, [(s.start, s.end, s.phase) for s in g.transcripts[0].cds]) for g in genes]
    assert len(key) > 20
    assert key == [(g.interval, [(s.start, s.end, s.phase) for s in g.transcripts[0].cds]) for g in found]
    regions = list(read_bed(tmp_path / "out" / "genes.bed"))
    assert [(r.interval, r.name) for r in regions] == [(g.interval, g.name) for g in found]
    assert any(len(r.blocks) > 1 for r in regions)
    for region, gene in zip(regions, found, strict=True):
        assert set(region.blocks) == set(gene.transcripts[0].exons)
        assert region.thick == (region.interval.start, region.interval.end)
        assert 0 <= region.score <= 1000
    rows = (tmp_path / "out" / "genes.tsv").read_text().splitlines()
    assert len(rows) == 1 + len(genes)
    assert max(oracle.lengths) == min(windows.length, 4000)
    assert not (tmp_path / "out" / ".probabilities").exists()
    ends = {name: 0 for name, *_ in genome.records}
    for record, start, probabilities in pieces:
        assert start == ends[record.name]
        ends[record.name] += len(probabilities)
    assert ends == {r.name: r.length for r in genome.records}
    assert all(a.start <= b.start for a, b in itertools.pairwise(g.interval for g in found[:2]))


def test_rna_genes_utr_and_features_are_written(tmp_path):
    """What a model knows of them comes out under the names of the Sequence Ontology."""
    scheme = ClassScheme(
        ("CDS", "RNA", "UTR"), features={"repeat": ("repeat_region", "LTR")}, by_strand=("repeat",)
    )
    letters = "".join(np.random.default_rng(0).choice(list("ACGT"), 1000)) + "ATG" + "GCT" * 60 + "TAA"
    (tmp_path / "g.fa").write_text(f">s\n{letters}{letters[:500]}\n")
    array = build_token_array(tmp_path / "g.fa", tmp_path / "cache")
    classes = np.zeros(len(array), dtype=np.uint8)
    known = [("RNA-", 100, 172), ("repeat+", 300, 700), ("RNA+", 900, 930), ("UTR+", 970, 1000)]
    for name, start, end in [*known, ("UTR+", 1186, 1250)]:
        classes[start:end] = scheme.names.index(name)
    classes[1000:1186] = [scheme.names.index(f"CDS+{i % 3}") for i in range(186)]
    rows = np.eye(len(scheme.names), dtype=np.float32)[classes] * 0.9 + np.float32(0.1 / len(scheme.names))
    shortest = {"RNA": 36, "UTR": 10, "repeat": 50}
    grammar = Grammar(donor=None, gene_cost=5.0, evidence=1.0)
    settings = AnnotationSettings(scheme, BaseEncoding(), grammar, shortest_runs=shortest)
    settings.write(tmp_path)
    annotator = Annotator(None, AnnotationSettings.read(tmp_path))
    assert annotator.settings == settings
    annotator.probabilities = lambda tokens, both_strands, brought_over: rows.copy()
    (tmp_path / "out").mkdir()
    annotate_genome(annotator, array, tmp_path / "out", tracks=False)
    features = list(read_gff3(tmp_path / "out" / "genes.gff3"))
    assert [(f.type, f.interval.start, f.interval.end, f.interval.strand) for f in features] == [
        *((kind, 100, 172, "-") for kind in ("ncRNA_gene", "ncRNA", "exon")),
        ("repeat_region", 300, 700, "+"),
        *((kind, 970, 1250, "+") for kind in ("gene", "mRNA", "exon")),
        ("five_prime_UTR", 970, 1000, "+"),
        ("three_prime_UTR", 1186, 1250, "+"),
        ("CDS", 1000, 1186, "+"),
    ]
    probability = pytest.approx(0.9 + 0.1 / len(scheme.names), abs=1e-4)
    assert [f.score for f in features if f.score is not None] == [probability, probability]
    lines = list(read_bed(tmp_path / "out" / "genes.bed"))
    places = [(line.name, line.interval.start) for line in lines]
    assert places == [("rna1", 100), ("repeat1", 300), ("g1", 970)]
    assert lines[0].score == round(1000 * float(rows[100].max()))
    assert lines[2].thick == (1000, 1186)
    assert len((tmp_path / "out" / "genes.tsv").read_text().splitlines()) == 2
    labels = final_labels(scheme, array, called_genes([AnnotatedRecord("s", len(array))]), classes)
    assert (labels == np.where(np.char.startswith(np.array(scheme.names)[classes], "CDS"), 0, classes)).all()
