"""Motifs from maps of mutagenesis, of a scorer that knows two motifs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from reformer.errors import UserError
from reformer.genomics.coordinates import Interval, reverse_complement
from reformer.genomics.formats.motifs import read_motifs
from reformer.genomics.genome import Genome
from reformer.genomics.motifs.contributions import read_contributions
from reformer.genomics.motifs.discovery import find_motifs
from reformer.genomics.variants.changes import Change
from reformer.genomics.variants.mutagenesis import mutate
from reformer.genomics.variants.vcf import InfoField
from tests.cli.conftest import RunCommand, run_command

__all__ = ["run_command"]

MOTIFS = ("TGACTCAG", "CCGGAAGTGC")


@pytest.fixture(autouse=True)
def _one_heat_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reformer.genomics.variants.mutagenesis_report._MAX_PLOTS", 1)


class Binding:
    """Scores a change by how it fits the two motifs around it, on either strand, with noise."""

    fields = (InfoField("MADE", "A", "Float", "made"),)

    def __init__(self, sign: float, noise: float) -> None:
        self.sign, self.noise, self.generator = sign, noise, np.random.default_rng(0)

    def scores(self, genome: Genome, name: str, changes: Sequence[Change]) -> np.ndarray:
        letters, found = genome.letters(Interval(name, 0, genome.lengths[name])), []
        for change in changes:
            first, end = max(change.start - 10, 0), change.end + 10
            if not self.sign:
                found.append(0.0)
                continue
            changed = letters[first : change.start] + change.inserted + letters[change.end : end]
            found.append(bound(changed) - bound(letters[first:end]))
        noise = self.noise * self.generator.normal(size=len(found))
        return (self.sign * np.array(found) + noise)[None]


def bound(letters: str) -> float:
    total = 0.0
    for motif in MOTIFS:
        for text in (letters, reverse_complement(letters)):
            for start in range(len(text) - len(motif) + 1):
                wrong = sum(a != b for a, b in zip(text[start:], motif, strict=False))
                total += 5 * 0.2**wrong if wrong < 3 else 0
    return total


def make_map(folder: Path, sign: float, noise: float) -> dict[str, list[Interval]]:
    """Writes `folder`/map and the genome; returns where each motif was planted."""
    generator = np.random.default_rng(3)
    letters = generator.choice(list("ACGT"), 1100)
    planted: dict[str, list[Interval]] = {motif: [] for motif in MOTIFS}
    for number, start in enumerate(range(40, 1030, 70)):
        motif, strand = MOTIFS[number % 2], ("+", "-")[int(generator.integers(2))]
        at = Interval("c", start + int(generator.integers(20)), start + 30, strand)
        at = Interval("c", at.start, at.start + len(motif), strand)
        letters[at.start : at.end] = list(motif if strand == "+" else reverse_complement(motif))
        planted[motif].append(at)
    (folder / "g.fa").write_text(f">c\n{''.join(letters)}\n")
    with Genome(folder / "g.fa") as genome:
        regions = [Interval("c", 10, 520), Interval("c", 535, 1100)]
        mutate(folder / "map", regions, genome, Binding(sign, noise), made={"by": "a test"})
    return planted


@pytest.mark.parametrize(("sign", "noise"), [(1.0, 0.3), (-1.0, 0.0)])
def test_planted_motifs_come_back(
    run_command: RunCommand, tmp_path: Path, sign: float, noise: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = make_map(tmp_path, sign, noise)
    monkeypatch.chdir(tmp_path)
    outcome = run_command("dna", "motifs", "find", "map", "found")
    assert outcome.code == 0, outcome.err
    assert outcome.out == "found: 2 motif(s) with 15 sites, of 15 that stand out\n"
    assert sorted(path.name for path in Path("found").iterdir()) == [
        "motifs.meme",
        "provenance.json",
        "sites.bed",
    ]
    lines = [line.split("\t") for line in Path("found/sites.bed").read_text().splitlines()]
    assert [int(line[1]) for line in lines] == sorted(int(line[1]) for line in lines)
    for motif in read_motifs("found/motifs.meme"):
        text = "".join("ACGT"[base] for base in motif.counts.argmax(axis=1))
        (true,) = [one for one in MOTIFS if one in (text, reverse_complement(text))]
        flips = text != true
        sites = [
            Interval(line[0], int(line[1]), int(line[2]), "-" if (line[5] == "+") == flips else "+")
            for line in lines
            if line[3] == motif.name
        ]
        assert sites == planted[true]
        assert motif.counts.sum(axis=1) == pytest.approx(len(sites), abs=1e-3)
    assert all(sign * float(line[4]) > 1 for line in lines)

    again = run_command("dna", "motifs", "find", "map", "again")
    assert again.code == 0
    for name in ("motifs.meme", "sites.bed"):
        assert Path("again", name).read_bytes() == Path("found", name).read_bytes()
    scan = run_command("dna", "motifs", "scan", "g.fa", "found/motifs.meme", "m.bed")
    assert scan.code == 0
    scanned = {tuple(line.split("\t")[:3]) for line in Path("m.bed").read_text().splitlines()}
    assert {tuple(line[:3]) for line in lines} <= scanned


def test_noise_alone_has_no_motif(run_command: RunCommand, tmp_path: Path) -> None:
    (tmp_path / "g.fa").write_text(
        ">c\n" + "".join(np.random.default_rng(0).choice(list("ACGT"), 2000)) + "\n"
    )
    with Genome(tmp_path / "g.fa") as genome:
        mutate(tmp_path / "map", [Interval("c", 0, 2000)], genome, Binding(0.0, 1.0), made={"by": "a test"})
    assert find_motifs(read_contributions(tmp_path / "map"), 5)[0] == []
    outcome = run_command("dna", "motifs", "find", tmp_path / "map", tmp_path / "found")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "no motif: expected 5 places alike" in outcome.err
    assert not (tmp_path / "found").exists()


def test_what_is_no_map(run_command: RunCommand, tmp_path: Path) -> None:
    (tmp_path / "map").mkdir()
    with pytest.raises(UserError, match="expected a folder that `dna mutagenesis` made"):
        read_contributions(tmp_path / "map")
    header = "##fileformat=VCFv4.2\n"
    names = "##contig=<ID=c,length=99>\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    made = '##MADE_provenance={}\n##INFO=<ID=MADE,Number=A,Type=Float,Description="x">\n'
    for text, message in (
        (header + names, "expected a header that names the scores"),
        (header + made + names, "no substitutions"),
        (header + made + names + "c\t5\t.\tA\tC\t.\t.\tMADE=1\n", "scores of its three substitutions"),
        (header + made + names + "c\t5\t.\tA\tC,G,T\t.\t.\tMADE=1,.,2\n", "scores of its three"),
    ):
        (tmp_path / "map" / "substitutions.vcf.gz").write_text(text)
        outcome = run_command("dna", "motifs", "find", tmp_path / "map", tmp_path / "found")
        assert (outcome.code, outcome.err.count("\n")) == (2, 1)
        assert message in outcome.err
    (tmp_path / "found").mkdir()
    outcome = run_command("dna", "motifs", "find", tmp_path / "map", tmp_path / "found")
    assert (outcome.code, "found: exists" in outcome.err) == (2, True)
