"""Large files in flat memory: the same work on a small and a large file, in processes of their own."""

import subprocess
import sys
from pathlib import Path

import pytest

_CHILD = r"""
import sys
import numpy as np
import reformer.genomics.formats.tables as tables
from reformer.genomics.formats.bed import Region, read_bed, write_bed
from reformer.data.build import build_token_array
from reformer.genomics.coordinates import Interval
from reformer.genomics.formats.genbank import read_genbank
from reformer.genomics.formats.features import Feature
from reformer.genomics.genome import Genome
from reformer.genomics.formats.gff3 import read_gff3, write_gff3
from reformer.genomics.formats.tracks import write_bigwig
from reformer.genomics.variants.vcf import InfoField, Scored, write_scored_variants

kind, size, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3] + "/"
rng = np.random.default_rng(0)
if kind == "gff3":
    attributes = {"Note": ("x" * 200,)}
    places = (Interval("c", i, i + 9) for i in range(size))
    write_gff3(folder + "a", (Feature(place, "gene", attributes=attributes) for place in places))
    assert sum(1 for _ in read_gff3(folder + "a")) == size
elif kind == "bed":
    write_bed(folder + "a", (Region(Interval("c", i, i + 9), "x" * 200) for i in range(size)), 12)
    assert sum(1 for _ in read_bed(folder + "a")) == size
elif kind == "vcf":
    with open(folder + "a.vcf", "w") as file:
        file.write("##fileformat=VCFv4.2\n##contig=<ID=c>\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n")
        file.writelines(f"c\t{i + 1}\t{'n' * 200}\tA\tC\t.\t.\t.\n" for i in range(size))
    field = InfoField("LLR", "A", "Float", "score")
    scored = Scored({"LLR": (0.5,)})
    write_scored_variants(
        folder + "b.vcf.gz", folder + "a.vcf", [field], lambda variants: (scored for _ in variants)
    )
elif kind == "bigwig":
    blocks = (("c", i * 1000, rng.normal(size=1000)) for i in range(size // 40))
    write_bigwig(folder + "a.bw", {"c": size * 25}, blocks)
elif kind == "genbank":
    with open(folder + "a.gb", "w") as file:
        file.write("LOCUS       c  9 bp DNA linear BCT 01-JAN-2020\nACCESSION   c\nVERSION     c\nORIGIN\n")
        bases = " ".join(["acgttgcaac"] * 6)
        file.writelines(f"{i * 60 + 1:>9} {bases}\n" for i in range(size * 4))
        file.write("//\n")
    with Genome(folder + "a.gb") as genome:
        assert sum(len(genome.letters(Interval("c", i, i + 50))) for i in range(0, size, 100)) == size // 2
    assert [record.name for record in read_genbank(folder + "a.gb")] == ["c"]
    assert len(build_token_array(folder + "a.gb", folder + "cache")) == size * 240
elif kind == "fasta":
    with open(folder + "a.fa", "w") as file:
        file.write(">c\n")
        file.writelines("ACGTTGCAAC" * 10 + "\n" for _ in range(size * 4))
    with Genome(folder + "a.fa") as genome:
        assert sum(len(genome.letters(Interval("c", i, i + 50))) for i in range(0, size, 100)) == size // 2
else:
    write = tables.write_parquet if kind == "parquet" else tables.write_hdf5
    write(folder + "a", ({"x": rng.random((1000, 64), "f4"), "n": ["c"] * 1000} for _ in range(size // 1000)))
# Not ru_maxrss: a child inherits its parent's.
(peak,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(int(peak.split()[1]) // 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gff3", "bed", "vcf", "bigwig", "genbank", "fasta", "parquet", "hdf5"])
def test_peak_memory_does_not_grow_with_the_file(tmp_path: Path, kind: str) -> None:
    peaks_mib = []
    for size in (20_000, 400_000):
        folder = tmp_path / str(size)
        folder.mkdir()
        command = [sys.executable, "-c", _CHILD, kind, str(size), str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks_mib.append(int(done.stdout))
        written_mib = sum(file.stat().st_size for file in folder.iterdir()) >> 20
    print(kind, peaks_mib, written_mib)
    assert peaks_mib[1] < peaks_mib[0] + 30, (peaks_mib, written_mib)
