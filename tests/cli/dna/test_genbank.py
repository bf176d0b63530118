"""Commands that read a genome give of GenBank what they give of the same FASTA."""

from pathlib import Path

import pytest

from tests.cli.conftest import RunCommand
from tests.cli.dna.test_pretrain import SETTINGS, evaluations
from tests.genomics.test_genes import GENBANK

VARIANTS = "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\nc.1\t6\t.\tC\tG\t.\t.\t.\n"


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "g.gbk").write_bytes(GENBANK)
    (tmp_path / "g.fa").write_text(">c.1\n" + "ACGT" * 7 + "AC\n")
    (tmp_path / "v.vcf").write_text(VARIANTS)
    return tmp_path


@pytest.mark.parametrize(
    ("command", "out"),
    [
        (("embed", "MODEL", "GENOME", "OUT", "--pooling", "per-base", "--both-strands"), "out.parquet"),
        (("score", "MODEL", "v.vcf", "GENOME", "OUT"), "out.vcf.gz"),
        (("translate", "GENOME", "g.gbk", "OUT"), "out.faa"),
        (("generate", "MODEL", "OUT", "--prompt-file", "GENOME", "--length", "5"), "out.fa"),
    ],
)
def test_the_same_bytes(
    run_command: RunCommand, finished_run: Path, work: Path, command: tuple[str, ...], out: str
) -> None:
    found = []
    (work / "genome").mkdir()
    for genome in ("g.fa", "g.gbk"):
        # The genome's name is in what is written, so it is the same.
        (work / "genome" / "x").write_bytes((work / genome).read_bytes())
        words = {"MODEL": finished_run, "GENOME": "genome/x", "OUT": out}
        outcome = run_command("dna", *(words.get(word, word) for word in command))
        assert outcome.code == 0, outcome.err
        found.append((work / out).read_bytes())
    assert found[0] == found[1]


def test_pretraining_and_evaluation(run_command: RunCommand, work: Path) -> None:
    bits = []
    for genome in ("g.fa", "g.gbk"):
        command = ("dna", "pretrain", genome, "--out", f"run-{genome}", "--species", f"other={genome}")
        outcome = run_command(*command, *SETTINGS, "--set", "training.lengths=[{length: 16, steps: 4}]")
        assert outcome.code == 0, outcome.err
        bits.append(evaluations(work / f"run-{genome}")["other"]["bits_per_token"])
        assert run_command("evaluate", f"run-{genome}", genome).code == 0
    assert bits[0] == bits[1]
    assert "GenBank file" in run_command("info", "g.gbk").out


def test_a_fasta_genome_needs_its_genes(run_command: RunCommand, work: Path) -> None:
    command = ("dna", "annotate", "train", "--genome", "g.gbk", "--genome", "g.fa", "--out", "run")
    outcome = run_command(*command)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "expected a recipe, or --genome, --genes and --out" in outcome.err
