"""`reformer dna score` from the outside."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pysam
import pytest

from reformer.genomics.variants import scoring
from tests.cli.conftest import RunCommand
from tests.genomics.variants.gene_models import coding_text, write_gene_model
from tests.training.conftest import write_fasta

HEADER = "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
FIELDS = ("REFORMER_LLR", "REFORMER_LLR_FWD", "REFORMER_LLR_REV")
OTHER = {"A": "C", "C": "G", "G": "T", "T": "A"}
# Tests may run where Ctrl-C is ignored.
INTERRUPTIBLE = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from reformer.cli import main; sys.exit(main())"
)
COMPLEMENT = str.maketrans("ACGT", "TGCA")


def sequences(path: Path) -> list[str]:
    return path.read_text().split("\n")[1::2]


def write_vcf(path: Path, *lines: tuple[str, int, str, str]) -> Path:
    text = "".join(f"{name}\t{p}\t.\t{ref}\t{alt}\t.\tPASS\t.\n" for name, p, ref, alt in lines)
    path.write_text(HEADER + text)
    return path


@pytest.fixture
def genome(tmp_path: Path) -> Path:
    return write_fasta(tmp_path / "genome.fa", 300, 120, seed=3)


@pytest.fixture
def variants(tmp_path: Path, genome: Path) -> Path:
    """All kinds of variants that there are."""
    first, second = sequences(genome)
    snvs = [("record0", p, first[p - 1], OTHER[first[p - 1]]) for p in (1, 77, 300)]
    several = "".join(OTHER[base] for base in first[9]) + f",{first[9]}TG,<DEL>,*"
    return write_vcf(
        tmp_path / "variants.vcf",
        snvs[0],
        ("record0", 10, first[9], several),
        ("record0", 20, first[19:23], first[19]),
        *snvs[1:],
        ("record1", 5, second[4].lower(), f"{second[4]}ACGT"),
        ("record1", 120, second[119], "."),
    )


def scores(path: Path) -> list[tuple[float | None, ...]]:
    with pysam.VariantFile(str(path)) as file:
        return [tuple(record.info.get(field, ()) for field in FIELDS) for record in file]


def test_every_allele_of_bases_gets_a_score(
    run_command: RunCommand, finished_run: Path, genome: Path, variants: Path, tmp_path: Path
) -> None:
    outcome = run_command(
        "dna", "score", finished_run, variants, genome, "out.vcf.gz", "--window", "64", "--reach", "20"
    )
    assert (outcome.code, outcome.err, outcome.out) == (0, "", "out.vcf.gz: 7 variants\n")
    found = scores(tmp_path / "out.vcf.gz")
    assert [len(record[0]) for record in found] == [1, 4, 1, 1, 1, 1, 0]
    assert found[1][0][2:] == (None, None)
    for mean, forward, reverse in found:
        for m, f, r in zip(mean, forward, reverse, strict=True):
            if m is not None:
                assert m == pytest.approx((f + r) / 2, rel=1e-4, abs=1e-6)
                assert f != r
    with pysam.VariantFile(str(tmp_path / "out.vcf.gz")) as file:
        assert file.header.info["REFORMER_LLR"].number == "A"
        assert [record.pos for record in file.fetch("record1")] == [5, 120]
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        "genome.fa", "out.vcf.gz", "out.vcf.gz.tbi", "variants.vcf"
    ]  # fmt: skip


def test_twice_the_same_file_and_batches_do_not_matter(
    run_command: RunCommand,
    finished_run: Path,
    genome: Path,
    variants: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def score(name: str) -> bytes:
        assert run_command("dna", "score", finished_run, variants, genome, name, "--window", "512").code == 0
        return (tmp_path / name).read_bytes()

    first = score("1.vcf.gz")
    assert score("2.vcf.gz") == first
    with pysam.VariantFile(str(tmp_path / "1.vcf.gz")) as file:
        (made,) = [json.loads(r.value) for r in file.header.records if r.key == "REFORMER_LLR_provenance"]
    assert made["options"]["variants"] == str(variants)
    assert (made["options"]["window"], made["options"]["on_mismatch"]) == (512, "error")
    monkeypatch.setattr(scoring, "_VARIANTS_AT_ONCE", 2)
    score("3.vcf.gz")
    for ours, theirs in zip(scores(tmp_path / "3.vcf.gz"), scores(tmp_path / "1.vcf.gz"), strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(np.array(a, float), np.array(b, float), atol=2e-4)


def test_the_other_strand_has_the_same_scores(
    run_command: RunCommand, finished_run: Path, genome: Path, tmp_path: Path
) -> None:
    (letters, _) = sequences(genome)
    flipped = letters.translate(COMPLEMENT)[::-1]
    (tmp_path / "flipped.fa").write_text(f">record0\n{flipped}\n")
    p = 100
    one = write_vcf(tmp_path / "a.vcf", ("record0", p, letters[p - 1], OTHER[letters[p - 1]]))
    there = 300 - p + 1
    base = OTHER[letters[p - 1]].translate(COMPLEMENT)
    other = write_vcf(tmp_path / "b.vcf", ("record0", there, flipped[there - 1], base))
    for source, fasta in ((one, genome), (other, tmp_path / "flipped.fa")):
        outcome = run_command("dna", "score", finished_run, source, fasta, source.with_suffix(".vcf.gz"))
        assert outcome.code == 0, outcome.err
    found, expected = (np.ravel(scores(tmp_path / name)) for name in ("a.vcf.gz", "b.vcf.gz"))
    np.testing.assert_allclose(found, expected[[0, 2, 1]], atol=1e-5)
    assert abs(found[1] - found[2]) > 1e-3


def test_another_ref_than_the_genome_has(
    run_command: RunCommand, finished_run: Path, genome: Path, tmp_path: Path
) -> None:
    (letters, _) = sequences(genome)
    wrong = OTHER[letters[49]]
    source = write_vcf(
        tmp_path / "v.vcf",
        ("record0", 9, letters[8], OTHER[letters[8]]),
        ("record0", 50, wrong, letters[49]),
        ("record0", 300, letters[299] + "A", "C"),
    )
    arguments = ("dna", "score", finished_run, source, genome, "out.vcf.gz")
    outcome = run_command(*arguments)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert f"v.vcf, line 4: REF is {wrong}, but {genome} has {letters[49]} there" in outcome.err
    assert not list(tmp_path.glob("*out*"))
    outcome = run_command(*arguments, "--on-mismatch", "filter")
    assert outcome.out == "out.vcf.gz: 3 variants, 2 of them with another REF than the genome\n"
    with pysam.VariantFile(str(tmp_path / "out.vcf.gz")) as file:
        records = list(file)
    assert [list(record.filter) for record in records] == [["PASS"], ["REF_MISMATCH"], ["REF_MISMATCH"]]
    assert [record.info["REFORMER_LLR"] == (None,) for record in records] == [False, True, True]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("out.vcf",), "out.vcf: expected a name that ends with .vcf.gz"),
        (("no/out.vcf.gz",), "expected a file to write, in a folder that exists"),
        (("out.vcf.gz", "--window", "1"), "--window is 1: expected 2 to 1,048,576 bases"),
        (("out.vcf.gz", "--window", "2000000"), "--window is 2,000,000"),
        (("out.vcf.gz", "--reach", "0"), "--reach is 0: expected 1 to 1,048,576 bases"),
        (("out.vcf.gz", "--on-mismatch", "skip"), "'error', 'filter'"),
        (("out.vcf.gz", "--background", "-1"), "--background is -1: expected 0 or more random changes"),
        (("out.vcf.gz", "--background", "9", "--seed", "-1"), "--seed is -1: expected 0 or more"),
    ],
)
def test_what_cannot_be(
    run_command: RunCommand,
    finished_run: Path,
    genome: Path,
    variants: Path,
    tmp_path: Path,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    outcome = run_command("dna", "score", finished_run, variants, genome, *arguments)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert message in outcome.err
    assert not list(tmp_path.glob("*out*"))


def test_names_and_models_that_do_not_fit(
    run_command: RunCommand, finished_run: Path, finished_text_run: Path, genome: Path, tmp_path: Path
) -> None:
    source = write_vcf(tmp_path / "v.vcf", ("chrrecord0", 9, "A", "C"))
    outcome = run_command("dna", "score", finished_run, source, genome, "out.vcf.gz")
    assert outcome.code == 2
    assert "sequence 'chrrecord0' is not in" in outcome.err
    source = write_vcf(tmp_path / "v.vcf", ("record0", 9, sequences(genome)[0][8], "N"))
    outcome = run_command("dna", "score", finished_text_run, source, genome, "out.vcf.gz")
    assert outcome.code == 2
    assert "a model of ByteTokenizer: expected one of nucleotides" in outcome.err


def quantiles(path: Path) -> list[tuple[float | None, ...]]:
    with pysam.VariantFile(str(path)) as file:
        return [record.info.get("REFORMER_LLR_QUANTILE", ()) for record in file]


def test_a_background_says_how_unusual_each_score_is(
    run_command: RunCommand, finished_run: Path, genome: Path, variants: Path, tmp_path: Path
) -> None:
    (tmp_path / "v.vcf").write_text(variants.read_text() + f"record1\t120\t.\t{'N' * 2}\tA\t.\t.\t.\n")
    shared = ("--window", "64", "--reach", "20", "--on-mismatch", "filter")

    def score(source: Path, name: str, *options: str) -> bytes:
        outcome = run_command("dna", "score", finished_run, source, genome, name, *shared, *options)
        assert (outcome.code, outcome.err) == (0, "")
        return (tmp_path / name).read_bytes()

    first = score(tmp_path / "v.vcf", "1.vcf.gz", "--background", "19")
    assert score(tmp_path / "v.vcf", "2.vcf.gz", "--background", "19") == first
    found = quantiles(tmp_path / "1.vcf.gz")
    assert [len(record) for record in found] == [1, 4, 1, 1, 1, 1, 0, 1]
    assert all(value is not None for record in found[:1] + found[2:7] for value in record)
    assert [value is None for value in found[1]] == [False, False, True, True]
    assert found[7] == (None,)
    numbers = [value for record in found for value in record if value is not None]
    np.testing.assert_allclose(np.array(numbers) * 20, np.round(np.array(numbers) * 20), atol=1e-4)
    assert min(numbers) >= 0.0499
    with pysam.VariantFile(str(tmp_path / "1.vcf.gz")) as file:
        for field in FIELDS:
            declared = file.header.info[f"{field}_QUANTILE"]
            assert (declared.number, declared.type) == ("A", "Float")
            assert f"whose {field} is no higher" in declared.description
        (made,) = [json.loads(r.value) for r in file.header.records if r.key == "REFORMER_LLR_provenance"]
    assert (made["options"]["background"], made["options"]["seed"]) == (19, 0)
    score(tmp_path / "v.vcf", "3.vcf.gz", "--background", "19", "--seed", "1")
    assert quantiles(tmp_path / "3.vcf.gz") != found
    # The scores are those without a background, and quantiles do not stay beside scores that they are not of.
    score(tmp_path / "v.vcf", "plain.vcf.gz")
    score(tmp_path / "1.vcf.gz", "again.vcf.gz")
    with_them, without, again = (scores(tmp_path / f"{name}.vcf.gz") for name in ("1", "plain", "again"))
    assert with_them == without == again
    with pysam.BGZFile(str(tmp_path / "again.vcf.gz")) as file:
        assert b"_QUANTILE" not in file.read()


def test_ctrl_c_leaves_nothing(finished_run: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_run / "model", tmp_path / "model")
    genome = write_fasta(tmp_path / "genome.fa", 15_000, seed=3)
    (letters,) = sequences(genome)
    write_vcf(
        tmp_path / "v.vcf",
        *(("record0", p, letters[p - 1], OTHER[letters[p - 1]]) for p in range(1, 15_000, 3)),
    )
    (tmp_path / "out").mkdir()
    arguments = ["dna", "score", "model", "v.vcf", "genome.fa", "out/o.vcf.gz"]
    command = [sys.executable, "-c", INTERRUPTIBLE, *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        while not list((tmp_path / "out").iterdir()):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        errors = process.stderr.read()
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert list((tmp_path / "out").iterdir()) == []


def test_a_model_of_genes_scores_by_what_happens_to_them(run_command: RunCommand, tmp_path: Path) -> None:
    generator = np.random.default_rng(2)
    flank = "".join(generator.choice(list("ACGT"), 300))
    letters = flank + coding_text(generator, 300) + flank
    (tmp_path / "genome.fa").write_text(f">c\n{letters}\n")
    codon = next(p for p in range(720, 1200, 3) if letters[p : p + 3] == "GAA")
    source = write_vcf(
        tmp_path / "v.vcf",
        ("c", 100, letters[99], OTHER[letters[99]]),
        ("c", codon + 1, "G", "T,C"),
        ("c", codon + 2, OTHER["A"], "A"),
        ("c", codon + 3, "A", "AC,<DEL>"),
    )
    model = write_gene_model(tmp_path / "genes")
    arguments = ("dna", "score", model, source, "genome.fa")
    for name in ("1.vcf.gz", "2.vcf.gz"):
        outcome = run_command(*arguments, name, "--on-mismatch", "filter")
        assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == "2.vcf.gz: 4 variants, 1 of them with another REF than the genome\n"
    assert (tmp_path / "1.vcf.gz").read_bytes() == (tmp_path / "2.vcf.gz").read_bytes()
    with pysam.VariantFile(str(tmp_path / "1.vcf.gz")) as file:
        assert file.header.info["REFORMER_GENE_LLR"].number == "A"
        assert "REFORMER_LLR" not in file.header.info
        found = [record.info["REFORMER_GENE_LLR"] for record in file]
    (outside,), (stop, missense), wrong, (insertion, symbolic) = found
    assert abs(outside) < 1 < 5 < -stop
    assert stop < missense - 5
    assert insertion < -5
    assert wrong == (None,)
    assert symbolic is None
    outcome = run_command(*arguments, "3.vcf.gz")
    assert outcome.code == 2
    assert "v.vcf, line 5: REF is C, but" in outcome.err
    without = write_gene_model(tmp_path / "exons", ("exon",))
    outcome = run_command("dna", "score", without, source, "genome.fa", "4.vcf.gz", "--on-mismatch", "filter")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "no gene grammar: expected CDS among annotation.kinds" in outcome.err
