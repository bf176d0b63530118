"""Genomics files that are not what they should be: each is one line: what, where, what was expected."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from reformer.errors import UserError
from reformer.genomics.coordinates import Interval
from reformer.genomics.formats.annotation import read_genes
from reformer.genomics.formats.bed import read_bed
from reformer.genomics.formats.genbank import read_genbank
from reformer.genomics.formats.proteins import read_proteins
from reformer.genomics.formats.structures import read_structure
from reformer.genomics.genome import Genome
from reformer.genomics.variants.vcf import read_variants
from tests.genomics.test_genes import GENBANK

GFF3 = b"##gff-version 3\n"
VCF = b"##fileformat=VCFv4.2\n##contig=<ID=c>\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"


def gff(line: str) -> bytes:
    return GFF3 + line.encode().replace(b" ", b"\t") + b"\n"


def gtf(columns: str, attributes: str) -> bytes:
    return columns.encode().replace(b" ", b"\t") + b"\t" + attributes.encode() + b"\n"


def bed(line: str) -> bytes:
    return b"#c\n" + line.encode().replace(b" ", b"\t") + b"\n"


def vcf(line: str) -> bytes:
    return VCF + line.encode().replace(b" ", b"\t") + b"\n"


HELIX = b"HELIX    1   1 MET A    1  GLY A    9  1                                   9\n"
ATOM = b"ATOM      1  CA  MET A   1       0.000   0.000   0.000  1.00  0.00           C\n"
TWO_LINES = "c . mRNA 1 9 . + . ID=t\nc . CDS "
IDS = 'gene_id "g"; transcript_id "t";'

# ruff: noqa: E501 - a table, a case in each line
BROKEN = [
    # any text file
    ("empty.gff", b"", "empty.gff: the file is empty"),
    ("x.gff.gz", gzip.compress(gff("c . gene 1 9 . + . ID=g") * 50)[:-12], "x.gff.gz: truncated gzip file"),
    ("x.gff.gz", gzip.compress(GFF3)[:-8] + bytes(8), "x.gff.gz: damaged gzip file"),
    ("x.gff", GFF3 + b"c\xe9\t.\n", "x.gff, line 2: not UTF-8 at byte 2 of the line"),
    ("x.txt", b"x", "x.txt: not known as an annotation: expected a name that ends with .gff, .gff3, .gtf"),
    # GFF3
    ("x.gff", b"##gff-version 2\n", "x.gff, line 1: '##gff-version 2': expected \"##gff-version 3\""),
    ("x.gff", gff("c . gene 1 9 . +"), "x.gff, line 2: 7 columns: expected 9, separated by tabs"),
    ("x.gff", gff("c . gene one 9 . + . ID=g"), "x.gff, line 2: start is 'one': expected a whole number"),
    ("x.gff", gff("c . gene 1 -9 . + . ID=g"), "x.gff, line 2: end is '-9': expected a whole number"),
    ("x.gff", gff("c . gene 0 9 . + . ID=g"), "x.gff, line 2: bases 0 to 9: expected 1 <= first <= last"),
    ("x.gff", gff("c . gene 9 1 . + . ID=g"), "x.gff, line 2: bases 9 to 1: expected 1 <= first <= last"),
    ("x.gff", gff("c . gene 1 9 . x . ID=g"), "x.gff, line 2: strand is 'x': expected \"+\", \"-\" or \".\""),
    ("x.gff", gff("c . gene 1 9 high + . ID=g"), "x.gff, line 2: score is 'high': expected a number"),
    ("x.gff", gff("c . CDS 1 9 . + . ID=g"), "x.gff, line 2: phase of a CDS is '.': expected 0, 1 or 2"),
    ("x.gff", gff("c . CDS 1 9 . + 3 ID=g"), "x.gff, line 2: phase of a CDS is '3': expected 0, 1 or 2"),
    ("x.gff", gff(" . gene 1 9 . + . ID=g"), "x.gff, line 2: the sequence name is empty"),
    ("x.gff", gff("c .  1 9 . + . ID=g"), "x.gff, line 2: the type is empty"),
    ("x.gff", gff("c . gene 1 9 . + . g"), "x.gff, line 2: attribute 'g': expected tag=value"),
    ("x.gff", gff("c . gene 1 9 . + . ID=g;ID=h"), "x.gff, line 2: attribute 'ID' occurs twice"),
    ("x.gff", gff("c . gene 1 9 . + . ID=5%"), "x.gff, line 2: a \"%\" that two hexadecimal digits do not"),
    ("x.gff", gff("c . CDS 1 9 . + 0 Parent=t"), "x.gff, line 2: parent 't' of this CDS is no ID in the file"),
    ("x.gff", gff(TWO_LINES + "1 9 . - 0 Parent=t"), "x.gff, line 3: CDS of 't' is on c -: expected c +"),
    ("x.gff", gff("c . mRNA 1 9 . + . ID=t\nd . exon 1 9 . + . Parent=t"), "line 3: exon of 't' is on d +"),
    ("x.gff", gff(TWO_LINES + "1 6 . + 0 Parent=t\nc . CDS 4 9 . + 0 Parent=t"), "line 4: two coding segments of"),
    ("x.gff", gff("c . mRNA 1 9 . + . ID=t\nc . gene 1 9 . + . ID=t"), "line 3: ID 't' of a gene is that of a mRNA"),
    ("x.gff", gff("c . a 1 9 . + . ID=a;Parent=b\nc . b 1 9 . + . ID=b;Parent=a"), "is its own ancestor"),
    ("x.gff", gff("c . CDS 1 9 . + 0 ID=t;transl_table=x"), "x.gff, line 2: transl_table is 'x'"),
    # GTF
    ("x.gtf", gtf("c . exon 1 9 . + .", 'transcript_id "t";'), "x.gtf, line 1: no gene_id: expected gene_id"),
    ("x.gtf", gtf("c . exon 1 9 . + .", 'gene_id "g";'), "x.gtf, line 1: exon without transcript_id"),
    ("x.gtf", gtf("c . exon 1 9 . + .", 'gene_id "g'), "x.gtf, line 1: attribute 'gene_id \"g': expected tag"),
    ("x.gtf", gtf("c . exon 1 9 . + .", "gene_id=g"), "x.gtf, line 1: attribute 'gene_id=g': expected tag"),
    ("x.gtf", gtf("c . CDS 1 9 . + .", IDS), "x.gtf, line 1: phase of a CDS is '.'"),
    ("x.gtf", gtf("c . gene 1 9 . + .", IDS) * 2, "x.gtf, line 2: gene_id 'g' has a gene line already, line 1"),
    ("x.gtf", gtf("c . exon 1 9 . + .", IDS) + gtf("c . exon 11 19 . - .", IDS), "line 2: exon of 't' is on c -"),
    # GenBank
    ("x.gb", b"\n", "x.gb: no GenBank record: expected a line that starts with \"LOCUS\""),
    ("x.gb", b"no GenBank\n", "x.gb, line 1: not GenBank: expected a line that starts with \"LOCUS\""),
    ("x.gb", GENBANK[:300], "x.gb, line 9, record 'c.1': the file ends inside the record: expected a line \"//\""),
    ("x.gb", GENBANK + b"\nLOCUS", "x.gb, line 23: the file ends inside the record: expected a line \"//\""),
    ("x.gb", GENBANK + b"more\n", "x.gb, line 22: not GenBank: expected a line that starts with \"LOCUS\""),
    ("x.gb", GENBANK[:GENBANK.index(b"        1 acgt")] + b"//\n", "x.gb, line 20, record 'c.1': no sequence after ORIGIN"),
    ("x.gb", GENBANK.replace(b" 1 acgt", b" 3 acgt"), "x.gb, line 20, record 'c.1': begins with '3': expected 1, the"),
    ("x.gb", GENBANK.replace(b"..", b"-.", 1), "x.gb, line 1, record 'c.1', feature 1: the place of this gene cannot be read"),
    ("x.gb", GENBANK.replace(b"abc", b"\xe9"), "x.gb, line 7, record 'c.1': not UTF-8 at byte 29 of the line"),
    ("x.gb", GENBANK * 2, "x.gb: duplicate record name 'c.1'; expected every name once"),
    ("x.gb.gz", gzip.compress(GENBANK)[:-30], "x.gb.gz: truncated gzip file"),
    # BED
    ("x.bed", bed("c 1"), "x.bed, line 2: 2 columns: expected 3 to 12"),
    ("x.bed", bed("c a 5"), "x.bed, line 2: start is 'a': expected a whole number"),
    ("x.bed", bed("c 9 5"), "x.bed, line 2: interval [9, 5): expected 0 <= start <= end"),
    ("x.bed", bed("c 1 5 n x"), "x.bed, line 2: score is 'x': expected a number"),
    ("x.bed", bed("c 1 5 n 0 *"), "x.bed, line 2: strand is '*': expected \"+\", \"-\" or \".\""),
    ("x.bed", bed("c 1 5 n 0 + 0 9"), "x.bed, line 2: thick part [0, 9): expected it inside [1, 5)"),
    ("x.bed", bed("c 1 5 n 0 + 1 5 1,2"), "x.bed, line 2: itemRgb is '1,2': expected red,green,blue"),
    ("x.bed", bed("c 1 5 n 0 + 1 5 0 2 4 0"), "x.bed, line 2: blockCount is 2, sizes are 1, starts 1"),
    ("x.bed", bed("c 1 5 n 0 + 1 5 0 2 3,2 0,2"), "x.bed, line 2: blocks overlap or are not in order"),
    ("x.bed", bed("c 1 5 n 0 + 1 5 0 1 3 0"), "x.bed, line 2: the blocks do not begin and end with the region"),
    # VCF
    ("x.vcf", b"c\t1\t.\tA\tC\t.\t.\t.\n", "x.vcf: not VCF: expected \"##fileformat=VCF\" in line 1"),
    ("x.vcf", b"##fileformat=VCFv4.2\nc\t1\t.\tA\tC\t.\t.\t.\n", "x.vcf: not VCF: expected the line of columns"),
    ("x.vcf", vcf("c 1 . A C ."), "x.vcf, line 4: 6 columns: expected 8, as in the header"),
    ("x.vcf", vcf("c one . A C . . ."), "x.vcf, line 4: POS is 'one': expected a whole number"),
    ("x.vcf", vcf("c 0 . A C . . ."), "x.vcf, line 4: POS is 0: expected 1 or more"),
    ("x.vcf", vcf("c 1 . A- C . . ."), "x.vcf, line 4: REF is 'A-': expected nucleotide letters"),
    ("x.vcf", vcf("c 1 . A C;G . . ."), "x.vcf, line 4: ALT is 'C;G': expected nucleotide letters"),
    ("x.vcf", vcf("c 1 . A C,, . . ."), "x.vcf, line 4: ALT is 'C,,'"),
    ("x.vcf", vcf("c 1 . A C good . ."), "x.vcf, line 4: QUAL is 'good': expected a number"),
    ("x.vcf.gz", gzip.compress(vcf("c 1 . A C . . ."))[:-12], "x.vcf.gz: truncated gzip file"),
    # FASTA by region
    ("x.fa", b">x\nACGT\n>y\nAC\n>x\nACGT\n", "x.fa: duplicate record name 'x'; expected every name once"),
    ("x.fa", b"ACGT\n", "x.fa, line 1: not FASTA: expected a line that starts with \">\""),
    ("x.fa", b">x\nACGT\nAC\nACGT\n", "x.fa: cannot be indexed: "),
    ("x.fa.gz", gzip.compress(b">x\n" + b"ACGT" * 99)[:-12], "x.fa.gz: truncated gzip file"),
    ("x.fa", b">x\nACJT\n", "x.fa: in 'x': 'J' is not a nucleotide letter"),
    # protein FASTA
    ("x.faa", b"MKV\n", "x.faa, line 1: text before the first record: expected a line that starts with \">\""),
    ("x.faa", b"\n\n", "x.faa: no record: expected a line that starts with \">\""),
    ("x.faa", b">a\nMKV\n>\nMKV\n", "x.faa, line 3: a record without a name: expected \">name\""),
    ("x.faa", b">a\nMKV\n>a\nMKV\n", "x.faa, line 3: duplicate record name 'a'"),
    ("x.faa", b">a\nMKV\n>b x\n", "x.faa, line 3: record 'b' has no sequence"),
    ("x.faa", b">a\nMKV\nMK-V\n", "x.faa, line 3: column 3, record 'a': '-' is not the letter of an amino acid"),
    ("x.faa", b">a\nMK*V\n", "x.faa, line 2: column 3, record 'a': '*' is not the letter of an amino acid"),
    ("x.faa", b">a\nMK*\nMKV\n", "x.faa, line 3: record 'a': a \"*\" that is not its last letter"),
    ("x.faa.gz", gzip.compress(b">a\n" + b"MKV" * 99)[:-12], "x.faa.gz: truncated gzip file"),
    # structures
    ("e.pdb", b"", "e.pdb: the file is empty"),
    ("h.pdb", HELIX + ATOM, "h.pdb, helix 1: from A 1 to A 9: expected two residues of one chain in the file"),
    ("h.pdb", HELIX.replace(b"A    9", b"B    1") + ATOM, "h.pdb, helix 1: from A 1 to B 1: expected two residues"),
    ("t.cif.gz", gzip.compress(b"data_x\n" * 999)[:-30], "t.cif.gz: neither PDB nor mmCIF: "),
    ("q.cif", b"data_x\n_a.b 'open\n", "q.cif: neither PDB nor mmCIF: "),
    ("x.pdb", b"nothing\n", "x.pdb: no protein chain"),
    ("x.cif", b"data_x\nloop_\n_a.b\n_a.c\n1\n", "x.cif: neither PDB nor mmCIF: "),
    ("z.cif", b"data_x\n_a.b 1\n", "z.cif: no atoms: expected a PDB or mmCIF file with ATOM records"),
    ("y.pdb", b"ATOM      1  P    DA A   1       0.000   0.000   0.000  1.00  0.00           P\n", "y.pdb: no protein"),
]  # fmt: skip


def read_fasta(path: Path) -> None:
    with Genome(path) as genome:
        genome.letters(Interval("x", 0, 4, "-"))


READERS: dict[str, Callable[[Path], object]] = {
    ".bed": lambda path: list(read_bed(path)),
    ".vcf": lambda path: list(read_variants(path)),
    ".gb": lambda path: (list(read_genbank(path)), Genome(path).close()),
    ".fa": read_fasta,
    ".faa": lambda path: list(read_proteins(path)),
    ".pdb": read_structure,
    ".cif": read_structure,
}


@pytest.mark.parametrize(("name", "content", "message"), BROKEN)
def test_one_line_says_what_is_wrong_and_where(write, tmp_path, capfd, name, content, message):
    path = write(name, content)
    read = READERS.get(Path(name.removesuffix(".gz")).suffix, read_genes)
    with pytest.raises(UserError) as caught:
        read(path)
    text = str(caught.value)
    assert text.startswith(str(path))
    assert message in text
    assert "\n" not in text
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert capfd.readouterr() == ("", "")


def test_there_are_enough_of_them():
    assert len(BROKEN) >= 60
