"""Large genomes and many variants in flat memory: little work and much, in processes of their own."""

import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.genome_memory import measure

_CHILD = r"""
import sys
from pathlib import Path
import numpy as np
from reformer.data.tokenizers import NucleotideTokenizer
from reformer.genomics.embedding import Embedder, stretches, write_embeddings
from reformer.genomics.genome import Genome
from reformer.genomics.variants.likelihood import likelihood_of
from reformer.genomics.variants.scorers import LanguageScorer
from reformer.genomics.variants.scoring import write_scores
from reformer import ReformerConfig, ReformerForCausalLM

kind, size, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
config = ReformerConfig(
    vocab_size=9, is_decoder=True, hidden_size=8, attention_head_size=8, num_attention_heads=1,
    feed_forward_size=8, attn_layers=["local"], position_embedding_type="rotary",
)
model, rng = ReformerForCausalLM(config).eval(), np.random.default_rng(0)
with open(folder / "g.fa", "wb") as file:
    file.write(b">c\n")
    for _ in range(size // 100_000):
        file.write(np.frombuffer(b"ACGT", "u1")[rng.integers(4, size=100_000)].tobytes() + b"\n")
with Genome(folder / "g.fa") as genome:
    if kind == "embed":
        embedder = Embedder(model, genome, "fold", "mean", False)
        write_embeddings(folder / "e.parquet", embedder.rows(stretches(genome, window=1000)))
    else:
        with open(folder / "a.vcf", "w") as file:
            file.write("##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n")
            # REF is not the genome's but by chance, or scoring would take an hour.
            file.writelines(f"c\t{i}\t{'n' * 1000}\tACGTA\tA\t.\t.\t.\n" for i in range(1, size - 5, 50))
        likelihood = likelihood_of(model, NucleotideTokenizer(), 256, 16)
        write_scores(folder / "b.vcf.gz", folder / "a.vcf", genome, LanguageScorer(likelihood, "fold"))
# Not ru_maxrss: a child inherits its parent's.
(peak,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(int(peak.split()[1]) // 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["embed", "score"])
def test_peak_memory_does_not_grow_with_the_genome(tmp_path: Path, kind: str) -> None:
    peaks_mib = []
    for size in (1_000_000, 20_000_000):
        folder = tmp_path / str(size)
        folder.mkdir()
        command = [sys.executable, "-c", _CHILD, kind, str(size), str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks_mib.append(int(done.stdout))
    print(kind, peaks_mib)
    assert peaks_mib[1] < peaks_mib[0] + 60, peaks_mib


@pytest.mark.slow
def test_annotation_in_whole_windows_takes_no_more_for_twice_the_genome() -> None:
    """From ten windows on, by when the allocator has settled."""
    peaks_mib = [measure("annotate", megabases)["peak_memory_bytes"] >> 20 for megabases in (10, 20)]
    print(peaks_mib)
    assert peaks_mib[1] < peaks_mib[0] + 30, peaks_mib
