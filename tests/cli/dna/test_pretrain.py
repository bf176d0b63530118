"""`reformer dna pretrain` from the outside."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from reformer import ReformerForMaskedLM
from tests.cli.conftest import RunCommand
from tests.training.conftest import TINY_MODEL, write_fasta

SMALL = [f"model.{key}={json.dumps(value)}" for key, value in TINY_MODEL.items()]
SHORT = ["training.lengths=[{length: 32, steps: 4}]", "training.device=cpu", "training.eval_every=4"]
SETTINGS = [word for setting in [*SMALL, *SHORT] for word in ("--set", setting)]


def evaluations(run: Path) -> dict[str, dict]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return {line["eval"]: line for line in lines if "eval" in line}


@pytest.mark.parametrize("objective", ["causal", "masked"])
def test_a_run_with_held_out_regions_and_species(
    run_command: RunCommand, tmp_path: Path, objective: str
) -> None:
    genome = write_fasta(tmp_path / "g.fa", 300, 200)
    other = write_fasta(tmp_path / "other.fa", 150, seed=1)
    (tmp_path / "r.bed").write_text("record0\t100\t200\n")
    outcome = run_command(
        *("dna", "pretrain", genome, "--out", "run", "--objective", objective, "--held-out-regions", "r.bed"),
        *("--held-out", "record1", "--species", f"other={other}", *SETTINGS),
    )
    assert outcome.code == 0, outcome.err
    assert "data    200 nucleotide tokens in 2 record(s)" in outcome.err
    assert evaluations(tmp_path / "run").keys() == {"other", "held_out"}
    data = json.loads((tmp_path / "run" / "data.json").read_text())
    assert (data["train"]["tokens"], data["eval.held_out"]["tokens"]) == (200, 300)
    resolved = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    assert resolved["data"]["reverse_complement"]
    assert resolved["data"]["held_out_regions"] == str(tmp_path / "r.bed")
    config = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    if objective == "masked":
        assert config["local_num_chunks_after"] == config["lsh_num_chunks_after"] == 1
        assert ReformerForMaskedLM.from_pretrained(tmp_path / "run" / "model").config.vocab_size == 9
    # What was trained is what the other commands read.
    assert run_command("evaluate", "run", other, "--json").code == 0
    assert run_command("dna", "embed", "run", other, "e.parquet").code == 0
    (tmp_path / "v.vcf").write_text(
        "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
        f"record0\t30\t.\t{genome.read_text().split()[1][29]}\tACG\t.\t.\t.\n"
    )
    assert run_command("dna", "score", "run", "v.vcf", genome, "s.vcf.gz").out == "s.vcf.gz: 1 variants\n"
    resumed = run_command("train", "run/recipe.yaml", "--resume")
    assert resumed.code == 0, resumed.err


def test_an_equivariant_run_fills_in_the_same_from_either_strand(
    run_command: RunCommand, tmp_path: Path
) -> None:
    from reformer.data import reverse_complement
    from reformer.training.model_folder import load_language_model

    genome = write_fasta(tmp_path / "g.fa", 300)
    setting = ("--set", "model.rc_equivariant=true")
    outcome = run_command(
        "dna", "pretrain", genome, "--out", "run", "--objective", "masked", *SETTINGS, *setting
    )
    assert outcome.code == 0, outcome.err
    model, _ = load_language_model(tmp_path / "run", "cpu")
    ids = torch.randint(4, 9, (1, 101), generator=torch.Generator().manual_seed(0))
    ids[0, ::7] = 3  # [MASK]
    with torch.no_grad():
        here, there = (model(input_ids=one).logits for one in (ids, reverse_complement(ids)))
    order = [0, 1, 2, 3, 7, 6, 5, 4, 8]
    torch.testing.assert_close(there.flip(1)[..., order], here, rtol=0, atol=1e-5)
    assert run_command("evaluate", "run", genome, "--json").code == 0
    refused = run_command("dna", "pretrain", genome, "--out", "no", *SETTINGS, *setting)
    assert refused.code == 2
    assert "rc_equivariant cannot be for a decoder" in refused.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--held-out", "chr1"), "held_out_records: 'chr1' not in "),
        (("--held-out", "record0"), "all of it is held out"),
        (("--held-out-regions", "none.bed"), "none.bed: cannot be read"),
        (("--species", "other"), "--species is 'other': expected NAME=GENOME"),
        (("--species", "held_out=g.fa", "--held-out-regions", "r.bed"), "data.eval.held_out: "),
        (
            ("--objective", "masked", "--set", "data.mutated_copies=0.5"),
            "data.mutated_copies: 0.5: expected 0",
        ),
        (("--set", "training.lenths=3"), "unknown key training.lenths; did you mean training.lengths?"),
    ],
)
def test_what_cannot_be(
    run_command: RunCommand, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    genome = write_fasta(tmp_path / "g.fa", 300)
    (tmp_path / "r.bed").write_text("record0\t100\t200\n")
    outcome = run_command("dna", "pretrain", genome, "--out", "run", *SETTINGS, *arguments)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert message in outcome.err
    assert not (tmp_path / "run").exists()
