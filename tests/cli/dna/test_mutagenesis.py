"""`reformer dna mutagenesis` from the outside."""

import json
from pathlib import Path

import numpy as np
import pybigtools
import pysam
import pytest

from reformer.genomics.genome import Genome
from reformer.genomics.variants.changes import Change
from reformer.genomics.variants.scorers import load_first_order_scorer
from tests.cli.conftest import RunCommand
from tests.genomics.variants.gene_models import coding_text, write_gene_model
from tests.training.conftest import write_fasta

HEADER = "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
FILES = ["report.html", "substitutions.vcf.gz", "substitutions.vcf.gz.tbi", "tracks"]


@pytest.fixture
def genome(tmp_path: Path) -> Path:
    """Two records, N in the first."""
    path = write_fasta(tmp_path / "genome.fa", 300, 120, seed=3)
    lines = path.read_text().split("\n")
    lines[1] = lines[1][:54] + "Nn" + lines[1][56:]
    path.write_text("\n".join(lines))
    return path


def test_it_scores_what_score_does_and_writes_it_three_times(
    run_command: RunCommand, finished_run: Path, genome: Path, tmp_path: Path
) -> None:
    # Out of order, two that touch and two that overlap.
    (tmp_path / "r.bed").write_text(
        "record1\t100\t120\nrecord0\t52\t60\nrecord0\t60\t64\trest\t0\t-\nrecord1\t90\t105\n"
    )
    where = ("--window", "64", "--reach", "16")
    outcome = run_command("dna", "mutagenesis", finished_run, "r.bed", genome, "--out", "map", *where)
    assert outcome.code == 0, outcome.err
    assert "map: 42 bases in 2 region(s)\n" in outcome.out
    assert sorted(path.name for path in Path("map").iterdir()) == FILES

    letters = dict(zip(("record0", "record1"), genome.read_text().split("\n")[1::2], strict=True))
    places = [("record0", p) for p in range(52, 64)] + [("record1", p) for p in range(90, 120)]
    known = [(name, p) for name, p in places if letters[name][p] in "ACGT"]
    assert len(known) == 40
    (tmp_path / "v.vcf").write_text(
        HEADER
        + "".join(
            f"{name}\t{p + 1}\t.\t{letters[name][p]}\t{alt}\t.\t.\t.\n"
            for name, p in known
            for alt in "ACGT"
            if alt != letters[name][p]
        )
    )
    assert run_command("dna", "score", finished_run, "v.vcf", genome, "v.vcf.gz", *where).code == 0
    with pysam.VariantFile("v.vcf.gz") as file:
        expected = {
            (one.chrom, one.start, one.alts[0]): one.info["REFORMER_LLR"][0] for one in file if one.alts
        }
    with pysam.VariantFile("map/substitutions.vcf.gz") as file:
        found = {
            (one.chrom, one.start, alt): score
            for one in file
            for alt, score in zip(one.alts or (), one.info["REFORMER_LLR"], strict=True)
        }
        assert [one.start for one in file.fetch("record1", 100, 102)] == [100, 101]
        (made,) = [json.loads(r.value) for r in file.header.records if r.key == "REFORMER_LLR_provenance"]
    assert made["command"] == "reformer dna mutagenesis"
    assert made["options"]["method"] == "exact"
    assert made["options"]["window"] == 64
    assert found.keys() == expected.keys()
    assert len(found) == 120
    for key, score in expected.items():
        assert found[key] == pytest.approx(score, abs=1e-4)

    tracks = {path.stem: pybigtools.open(str(path)) for path in Path("map/tracks").iterdir()}
    assert sorted(tracks) == ["A", "C", "G", "T", "mean"]
    values = {name: {r: t.values(r, fillna=np.nan) for r in letters} for name, t in tracks.items()}
    for (name, p, alt), score in found.items():
        assert values[alt][name][p] == pytest.approx(score, rel=1e-5)
    for name, p in known:
        three = [score for (r, q, _), score in found.items() if (r, q) == (name, p)]
        assert values["mean"][name][p] == pytest.approx(np.mean(three), abs=1e-5)
        assert np.isnan(values[letters[name][p]][name][p])
    assert np.isnan(values["mean"]["record0"][[51, 54, 55, 64]]).all()

    report = Path("map/report.html").read_text()
    assert report.count('class="plot"') == 2
    assert "record0, bases 53 to 64" in report
    assert "record1, bases 91 to 120" in report
    lowest = min(found, key=lambda key: found[key])
    assert f"{letters[lowest[0]][lowest[1]]}&gt;{lowest[2]}" in report


def test_one_base_has_no_track_of_its_own(
    run_command: RunCommand, finished_run: Path, genome: Path, tmp_path: Path
) -> None:
    (tmp_path / "r.bed").write_text("record1\t9\t10\n")
    outcome = run_command(
        "dna", "mutagenesis", finished_run, "r.bed", genome, "--out", "map", "--window", "32"
    )
    assert outcome.code == 0, outcome.err
    letter = genome.read_text().split("\n")[3][9]
    assert {path.stem for path in Path("map/tracks").iterdir()} == set("ACGT") - {letter} | {"mean"}


def test_gradients_estimate_the_same_into_the_same_files(
    run_command: RunCommand, finished_run: Path, genome: Path, tmp_path: Path
) -> None:
    (tmp_path / "r.bed").write_text("record0\t52\t60\n")
    options = ("--out", "map", "--window", "64", "--reach", "16", "--method", "gradient")
    outcome = run_command("dna", "mutagenesis", finished_run, "r.bed", genome, *options)
    assert outcome.code == 0, outcome.err
    assert sorted(path.name for path in Path("map").iterdir()) == FILES
    with pysam.VariantFile("map/substitutions.vcf.gz") as file, Genome(genome) as opened:
        lines = list(file)
        changes = [Change(one.start, one.start + 1, alt) for one in lines for alt in one.alts or ()]
        scorer = load_first_order_scorer(finished_run, "auto", 64, 16)
        mean, forward, reverse = scorer.scores(opened, "record0", changes)
    found = [score for one in lines for score in one.info["REFORMER_GRADIENT"]]
    np.testing.assert_allclose(found, mean, atol=1e-4)
    np.testing.assert_allclose(mean, (forward + reverse) / 2, atol=1e-12)
    assert len(found) == 18
    track = pybigtools.open("map/tracks/mean.bw").values("record0", 52, 53, fillna=np.nan)
    assert track[0] == pytest.approx(np.mean(found[:3]), abs=1e-4)


def test_gradients_are_of_causal_language_models(run_command: RunCommand, genome: Path) -> None:
    Path("r.bed").write_text("record0\t52\t60\n")
    model = write_gene_model(Path("model"))
    outcome = run_command(
        "dna", "mutagenesis", model, "r.bed", genome, "--out", "map", "--method", "gradient"
    )
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "expected ReformerForCausalLM, got ReformerForTokenClassification" in outcome.err
    assert not Path("map").exists()


def test_a_model_of_genes_sees_what_breaks_one(run_command: RunCommand, tmp_path: Path) -> None:
    generator = np.random.default_rng(8)
    gene = coding_text(generator, 100)
    before = "".join(generator.choice(list("ACGT"), 400))
    (tmp_path / "g.fa").write_text(f">chr\n{before}{gene}{before}\n")
    (tmp_path / "r.bed").write_text(f"chr\t{400 + 150}\t{400 + 165}\n")
    model = write_gene_model(tmp_path / "model")
    outcome = run_command("dna", "mutagenesis", model, "r.bed", "g.fa", "--out", "map", "--window", "1200")
    assert outcome.code == 0, outcome.err
    stops, others = [], []
    with pysam.VariantFile("map/substitutions.vcf.gz") as file:
        for one in file:
            place = one.start - 400
            for alt, score in zip(one.alts or (), one.info["REFORMER_GENE_LLR"], strict=True):
                changed = gene[:place] + alt + gene[place + 1 :]
                codon = changed[place // 3 * 3 : place // 3 * 3 + 3]
                (stops if codon in ("TAA", "TAG", "TGA") else others).append(score)
    assert len(stops) + len(others) == 45
    assert max(stops) < min(others)


@pytest.mark.parametrize(
    ("bed", "message"),
    [
        ("", "r.bed: the file is empty"),
        ("record0\t10\t10\n", "r.bed: no regions"),
        ("record0\t290\t301\n", "'record0' has 300 bases"),
        ("chr9\t1\t5\n", "'chr9'"),
        ("record0\t5\n", "r.bed, line 1"),
        ("record0\t54\t56\n", "no A, C, G or T"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    run_command: RunCommand, finished_run: Path, genome: Path, tmp_path: Path, bed: str, message: str
) -> None:
    (tmp_path / "r.bed").write_text(bed)
    outcome = run_command("dna", "mutagenesis", finished_run, "r.bed", genome, "--out", "map")
    assert outcome.code == 2
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["genome.fa", "r.bed"]


def test_a_folder_that_is_there_stays(run_command: RunCommand, finished_run: Path, genome: Path) -> None:
    Path("r.bed").write_text("record0\t1\t3\n")
    Path("map").mkdir()
    outcome = run_command("dna", "mutagenesis", finished_run, "r.bed", genome, "--out", "map")
    assert outcome.code == 2
    assert "map: exists" in outcome.err
