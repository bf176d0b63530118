"""Files that we write are read by the libraries of the field, and theirs by us, with the same content.

Here are the formats whose own tests do not have it: see `test_bed` (pysam), `test_genome` (pyfaidx),
`test_tracks` (pybigtools, pyBigWig), `test_tables` (pyarrow, h5py), `test_structures` (Biopython) and
`test_proteins` (Biopython).
"""

import gzip
from dataclasses import replace
from urllib.parse import unquote

import gemmi
import h5py
import numpy as np
import pyarrow.parquet
import pybigtools
import pysam
import pysam.bcftools
import pytest
from Bio import SeqIO
from Bio.PDB import MMCIFParser, PDBParser
from Bio.Seq import Seq
from Bio.SeqFeature import FeatureLocation, SeqFeature
from Bio.SeqRecord import SeqRecord

from reformer.data.vocabularies import AMINO_ACIDS
from reformer.genomics.coordinates import Interval
from reformer.genomics.formats.annotation import read_genes
from reformer.genomics.formats.bed import Region, read_bed, write_bed
from reformer.genomics.formats.genbank import read_genbank
from reformer.genomics.formats.gff3 import read_gff3, write_gff3
from reformer.genomics.formats.gtf import read_gtf
from reformer.genomics.formats.structures import read_structure
from reformer.genomics.formats.tables import write_hdf5, write_parquet
from reformer.genomics.formats.tracks import write_bigwig
from reformer.genomics.genome import Genome
from reformer.genomics.variants.vcf import InfoField, Scored, read_variants, write_scored_variants
from tests.genomics.made_structures import made_chain, write_chains

SPECIES = "SkudIFO1802_1"
ONE_LETTER = {gemmi.expand_one_letter(letter, gemmi.ResidueKind.AA): letter for letter in AMINO_ACIDS}


def tabix_lines(path, preset, parser):
    """The lines of a sorted text file as pysam reads them through a tabix index."""
    indexed = pysam.tabix_index(str(path), preset=preset, force=True)
    with pysam.TabixFile(indexed, parser=parser, encoding="utf-8") as file:
        return list(file.fetch())


def place(feature):
    interval = feature.interval
    return interval.sequence, feature.type, interval.start, interval.end, interval.strand


def test_gff3_that_we_write_is_read_by_pysam(yeast_folder, tmp_path):
    """All nine columns; tags and values that the format has to escape are among them."""
    features = sorted(
        read_gff3(yeast_folder / f"{SPECIES}.gff.gz"), key=lambda f: (f.interval.sequence, f.interval.start)
    )
    odd = {"a=b;c": ("1,2", "3&4;5=6"), "Note": ("50% \t of\nit", "é")}
    features = [
        replace(feature, score=number / 8 if number % 3 else None, attributes=feature.attributes | odd)
        for number, feature in enumerate(features)
    ]
    write_gff3(tmp_path / "x.gff3", features)
    found = tabix_lines(tmp_path / "x.gff3", "gff", pysam.asGFF3())
    assert [(r.contig, r.feature, r.start, r.end, r.strand) for r in found] == [place(f) for f in features]
    assert [r.source for r in found] == [feature.source for feature in features]
    phases = [None if r.frame in (".", None) else int(r.frame) for r in found]
    assert phases == [feature.phase for feature in features]
    scores = [None if r.score in (".", None) else float(r.score) for r in found]
    assert scores == [feature.score for feature in features]
    for line, feature in zip(found, features, strict=True):
        pairs = (pair.split("=") for pair in line.attributes.split(";"))
        values = {unquote(tag): tuple(map(unquote, value.split(","))) for tag, value in pairs}
        assert values == feature.attributes
    assert len(found) > 300


def test_gtf_is_read_as_pysam_reads_it(yeast_folder, tmp_path):
    path = tmp_path / "x.gtf"
    lines = gzip.decompress((yeast_folder / f"{SPECIES}.gtf.gz").read_bytes()).decode().splitlines()
    rows = sorted(
        (r for r in lines if r and r[0] != "#"), key=lambda r: (r.split("\t")[0], int(r.split("\t")[3]))
    )
    path.write_text("\n".join(rows) + "\n")
    ours = list(read_gtf(path))
    found = tabix_lines(path, "gff", pysam.asGTF())
    assert [(r.contig, r.feature, r.start, r.end, r.strand) for r in found] == [place(f) for f in ours]
    assert [r.gene_id for r in found] == [feature.first("gene_id") for feature in ours]
    assert len(found) > 300


def test_genbank_that_biopython_writes_has_the_same_genes(yeast_folder, tmp_path):
    """Genes of a GFF3, written as GenBank by Biopython, and read by us."""
    genes = [gene for gene in read_genes(yeast_folder / f"{SPECIES}.gff.gz") if gene.type == "gene"]
    (fasta,) = yeast_folder.glob(f"{SPECIES}_GC*_genomic.fna.gz")
    with gzip.open(fasta, "rt") as file:
        letters = str(next(SeqIO.parse(file, "fasta")).seq)
    record = SeqRecord(
        Seq(letters), id=genes[0].interval.sequence, name="chr", annotations={"molecule_type": "DNA"}
    )
    signs = {"+": 1, "-": -1}
    for gene in genes:
        tags = {"locus_tag": [gene.name]}
        sign = signs[gene.interval.strand]
        where = FeatureLocation(gene.interval.start, gene.interval.end, sign)
        record.features.append(SeqFeature(where, type="gene", qualifiers=tags))
        for transcript in gene.transcripts:
            if transcript.cds:
                pieces = [FeatureLocation(s.start, s.end, sign) for s in transcript.cds]
                coding = {
                    "protein_id": [transcript.protein],
                    "codon_start": [str(transcript.cds[0].phase + 1)],
                }
                record.features.append(
                    SeqFeature(sum(pieces[1:], pieces[0]), type="CDS", qualifiers=tags | coding)
                )
    SeqIO.write([record], tmp_path / "x.gb", "genbank")
    (found,) = read_genbank(tmp_path / "x.gb")
    with Genome(tmp_path / "x.gb") as genome:
        assert genome.lengths == {found.name: len(letters)}
        assert genome.letters(Interval(found.name, 0, len(letters))) == letters.upper()
    coding = {t.protein: (t.strand, t.cds) for g in genes for t in g.transcripts if t.cds}
    assert {t.protein: (t.strand, t.cds) for g in found.genes for t in g.transcripts if t.cds} == coding
    assert len(coding) == 88


@pytest.mark.parametrize("name", ["x.pdb", "x.cif"])
def test_structures_have_the_residues_that_biopython_reads(tmp_path, name):
    chains = {"A": made_chain("MKVLAEFGHWAYTSDNQRIC", 12), "B": made_chain("PGMKVLAEF", 4)}
    path = write_chains(tmp_path / name, chains)
    parser = PDBParser(QUIET=True) if name.endswith("pdb") else MMCIFParser(QUIET=True)
    with open(path) as file:
        theirs = {
            chain.id: [(ONE_LETTER[residue.resname], str(residue.id[1])) for residue in chain]
            for chain in parser.get_structure("x", file)[0]
        }
    ours = {
        chain.name: list(zip(chain.letters, chain.numbers, strict=True)) for chain in read_structure(path)
    }
    assert ours == theirs


def test_bcftools_reads_scored_variants_and_their_index(write, tmp_path):
    header = (
        b"##fileformat=VCFv4.2\n##contig=<ID=c,length=1000>\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    )
    rows = [f"c\t{place}\t.\tA\tC,G\t.\t.\t." for place in range(1, 900, 100)]
    source = write("a.vcf", header + "\n".join(rows).encode() + b"\n")
    path = tmp_path / "scored.vcf.gz"
    field = InfoField("LLR", "A", "Float", "score")
    write_scored_variants(
        path,
        source,
        [field],
        lambda variants: (Scored({"LLR": (v.interval.start / 8, -1.0)}) for v in variants),
    )
    text = pysam.bcftools.query("-r", "c:100-500", "-f", "%POS %REF %ALT %INFO/LLR\n", str(path))
    assert text.splitlines() == [f"{n} A C,G {(n - 1) / 8:g},-1" for n in range(101, 500, 100)]
    assert [v.interval.start + 1 for v in read_variants(path)] == list(range(1, 900, 100))


def test_all_columns_of_bed_are_read_by_pysam(yeast_folder, tmp_path):
    """Genes with introns, as `dna annotate predict` writes them."""
    regions = []
    for gene in read_genes(yeast_folder / f"{SPECIES}.gff.gz"):
        for transcript in (t for t in gene.transcripts if t.cds):
            blocks = tuple(sorted(transcript.exons, key=lambda exon: exon.start))
            thick = min(s.start for s in transcript.cds), max(s.end for s in transcript.cds)
            color = (len(regions), 2, 255)
            regions.append(Region(transcript.interval, gene.name, len(regions) / 2, thick, color, blocks))
    regions.sort(key=lambda region: region.interval.start)
    assert max(len(region.blocks) for region in regions) > 1
    write_bed(tmp_path / "x.bed", regions, 12)
    found = tabix_lines(tmp_path / "x.bed", "bed", pysam.asBed())
    for line, region in zip(found, regions, strict=True):
        interval = region.interval
        assert (line.contig, line.start, line.end, line.strand) == (
            *(interval.sequence, interval.start, interval.end, interval.strand),
        )
        assert (line.name, float(line.score)) == (region.name, region.score)
        assert (int(line.thickStart), int(line.thickEnd)) == region.thick
        assert tuple(map(int, line.itemRGB.split(","))) == region.color
        sizes, starts = (list(map(int, text.split(","))) for text in (line.blockSizes, line.blockStarts))
        assert int(line.blockCount) == len(region.blocks)
        assert sizes == [len(block) for block in region.blocks]
        assert [interval.start + start for start in starts] == [block.start for block in region.blocks]
    assert list(read_bed(tmp_path / "x.bed.gz")) == regions


def test_bigwig_parquet_and_hdf5_hold_the_same_numbers(tmp_path):
    values = np.random.default_rng(0).integers(0, 100, 3000).astype(np.float32) / np.float32(64)
    write_bigwig(tmp_path / "x.bw", {"c": 3000}, [("c", 0, values[:1000]), ("c", 1000, values[1000:])])
    rows = [
        {"name": ["a", "b"], "vector": values[:6].reshape(2, 3)},
        {"name": ["c"], "vector": values[6:9].reshape(1, 3)},
    ]
    write_parquet(tmp_path / "x.parquet", rows)
    write_hdf5(tmp_path / "x.h5", rows)
    with pybigtools.open(str(tmp_path / "x.bw")) as file:
        np.testing.assert_array_equal(file.values("c", 0, 3000, fillna=0), values)
    table = pyarrow.parquet.read_table(tmp_path / "x.parquet").to_pydict()
    assert table["name"] == ["a", "b", "c"]
    np.testing.assert_array_equal(table["vector"], values[:9].reshape(3, 3))
    with h5py.File(tmp_path / "x.h5") as file:
        assert list(file["name"].asstr()) == ["a", "b", "c"]
        np.testing.assert_array_equal(file["vector"][:], values[:9].reshape(3, 3))
