"""Matches of motifs, next to brute force, Bio.motifs and all sequences one by one."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from Bio import motifs as bio
from Bio.motifs.matrix import PositionSpecificScoringMatrix

from reformer.errors import UserError
from reformer.genomics.coordinates import Interval, reverse_complement
from reformer.genomics.formats.motifs import Motif
from reformer.genomics.genome import Genome
from reformer.genomics.motifs import scan as module
from reformer.genomics.motifs.scan import composition, scan, write_matches
from reformer.genomics.motifs.significance import STEP, both_strands_composition, weigh
from tests.training.conftest import write_fasta

COMPOSITION = np.array([0.31, 0.19, 0.19, 0.31])


def varied_motif(name: str, width: int, seed: int) -> Motif:
    generator = np.random.default_rng(seed)
    return Motif(name, np.rint(30 * generator.dirichlet(np.full(4, 0.4), width)) + 0.25)


def everywhere(genome: Genome) -> list[Interval]:
    return [Interval(name, 0, length) for name, length in genome.lengths.items()]


def brute_force(letters: str, motif: Motif, probabilities: np.ndarray, threshold: float) -> list[tuple]:
    """Start, strand, score and p-value, place by place and letter by letter."""
    weighted = weigh(motif, probabilities, threshold)
    found = []
    for start in range(len(letters) - len(motif) + 1):
        site = letters[start : start + len(motif)].upper()
        for strand, read in (("+", site), ("-", reverse_complement(site))):
            if set(read) <= set("ACGT"):
                fallen = sum(weighted.shortfalls[i]["ACGT".index(base)] for i, base in enumerate(read))
                if fallen <= weighted.limit:
                    score = (weighted.best - fallen) * STEP
                    found.append((start, strand, round(score, 3), weighted.p_values[fallen]))
    return found


@pytest.mark.parametrize("width", [1, 2, 3, 5])
@pytest.mark.parametrize("threshold", [0.001, 0.02, 0.3, 1.0])
def test_p_values_are_those_of_all_sequences(width: int, threshold: float) -> None:
    motif = varied_motif("m", width, seed=width)
    weighted = weigh(motif, COMPOSITION, threshold)
    shortfalls, weights = [], []
    for bases in product(range(4), repeat=width):
        shortfalls.append(sum(weighted.shortfalls[i, base] for i, base in enumerate(bases)))
        weights.append(np.prod(COMPOSITION[list(bases)]))
    order = np.argsort(shortfalls)
    of_all, up_to = np.array(shortfalls)[order], np.cumsum(np.array(weights)[order])
    steps = np.arange(len(weighted.p_values) + 1)
    expected = up_to[np.searchsorted(of_all, steps, side="right") - 1]
    np.testing.assert_allclose(weighted.p_values, expected[:-1], rtol=1e-9)
    if threshold < 1:
        assert expected[-1] > threshold  # one step more would be too much
    else:
        assert weighted.limit == of_all[-1]


def test_a_threshold_that_is_a_probability_is_met() -> None:
    motif = Motif("m", np.array([[9.0, 0, 0, 0]] * 6))
    even = np.full(4, 0.25)
    assert weigh(motif, even, 0.25**6).p_values[0] == pytest.approx(0.25**6)
    assert weigh(motif, even, 0.99 * 0.25**6).limit == -1


def test_a_long_threshold_needs_more_steps_than_the_first() -> None:
    motif = Motif("m", np.array([[1000.0, 0, 0, 0]] * 40))
    weighted = weigh(motif, COMPOSITION, 1e-4)
    assert weighted.limit > 1 << 15
    assert weighted.p_values[-1] <= 1e-4


@pytest.mark.parametrize("width", [1, 4, 7, 8, 9, 15, 24])
def test_the_same_hits_and_scores_as_brute_force_and_bio(tmp_path: Path, width: int) -> None:
    path = write_fasta(tmp_path / "g.fa", 1500, letters="ACGTacgt", seed=width)
    text = path.read_text()
    path.write_text(text[:500] + "NRn" + text[503:])
    motif, threshold = varied_motif("m", width, seed=width), 0.3 if width == 1 else 0.01
    with Genome(path) as genome:
        letters = genome.letters(Interval("record0", 0, 1500))
        probabilities = composition(genome)
        matches = list(scan(genome, everywhere(genome), [motif], threshold))
    found = [(one.interval.start, one.interval.strand, round(one.score, 3), one.p_value) for one in matches]
    expected = brute_force(letters, motif, probabilities, threshold)
    assert found == expected
    assert len(found) > 10

    background = dict(zip("ACGT", probabilities, strict=True))
    counts = {base: motif.counts[:, i] for i, base in enumerate("ACGT")}
    their = bio.Motif("ACGT", counts=counts)
    pssm = their.counts.normalize({base: 0.1 * p for base, p in background.items()}).log_odds(background)
    error = width * STEP / 2
    weighted = weigh(motif, probabilities, threshold)
    lowest = (weighted.best - weighted.limit) * STEP
    ours = {(start, strand): score for start, strand, score, _ in found}
    # Between them are what rounding of scores decides.
    bios = {
        (int(place) % 1500, "+" if place >= 0 else "-"): score
        for place, score in pssm.search(letters, lowest - error - 1e-3)
    }
    assert ours.keys() <= bios.keys()
    assert {key for key, score in bios.items() if score > lowest + error + 1e-3} <= ours.keys()
    for key, score in ours.items():
        assert score == pytest.approx(bios[key], abs=error + 1e-3)

    rounded = (weighted.best / width - weighted.shortfalls.T) * STEP  # the same sums, column by column
    exact = PositionSpecificScoringMatrix("ACGT", dict(zip("ACGT", rounded, strict=True)))
    same = [
        (int(place) % 1500, "+" if place >= 0 else "-")
        for place, _ in exact.search(letters, lowest - STEP / 2)
    ]
    assert sorted(same) == sorted(ours)


def test_planted_sites_are_found_where_they_are(tmp_path: Path) -> None:
    site = "ACGGTCATTGCA"
    background = "".join(np.random.default_rng(5).choice(list("ACGT"), 2000))
    letters = background[:100] + site + background[112:700] + reverse_complement(site) + background[712:]
    # At both ends as well, and once with an N inside.
    letters = site + letters[12:1000] + site[:6] + "N" + site[7:] + letters[1012:-12] + site
    (tmp_path / "g.fa").write_text(f">a\nACGT\n>b\n{letters}\n")
    counts = np.zeros((12, 4))
    counts[range(12), ["ACGT".index(base) for base in site]] = 50
    with Genome(tmp_path / "g.fa") as genome:
        matches = list(scan(genome, everywhere(genome), [Motif("planted", counts)], 1e-6))
    assert [one.interval for one in matches] == [
        Interval("b", 0, 12, "+"),
        Interval("b", 100, 112, "+"),
        Interval("b", 700, 712, "-"),
        Interval("b", 1988, 2000, "+"),
    ]
    best = max(one.score for one in matches)
    assert all(one.score == best and one.p_value < 1e-6 and one.motif == "planted" for one in matches)


def test_blocks_and_the_whole_give_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_fasta(tmp_path / "g.fa", 250, 40, 5, letters="ACGTACGTN", seed=2)
    motifs = [varied_motif(f"m{width}", width, seed=width) for width in (12, 1, 6, 9)]
    files = []
    for number, block in enumerate((1 << 17, 64, 7, 1)):
        monkeypatch.setattr(module, "_BLOCK", block)
        with Genome(path) as genome:
            count = write_matches(tmp_path / f"{number}.bed", scan(genome, everywhere(genome), motifs, 0.02))
        files.append((tmp_path / f"{number}.bed").read_text())
        assert count == files[-1].count("\n") > 10
    assert len(set(files)) == 1
    names = [line.split("\t") for line in files[0].splitlines()]
    keys = [
        (line[0], int(line[1]), int(line[2]), [m.name for m in motifs].index(line[3]), line[5] == "-")
        for line in names
    ]
    assert keys == sorted(keys)


def test_regions_have_what_lies_inside_them(tmp_path: Path) -> None:
    path, motif = write_fasta(tmp_path / "g.fa", 600, 300, seed=4), varied_motif("m", 9, seed=3)
    regions = [Interval("record0", 50, 200), Interval("record0", 201, 206), Interval("record1", 290, 300)]
    done: list[int] = []
    with Genome(path) as genome:
        whole = list(scan(genome, everywhere(genome), [motif], 0.05))
        inside = list(scan(genome, regions, [motif], 0.05, done.append))
    assert inside == [one for one in whole if any(region.contains(one.interval) for region in regions)]
    assert 5 < len(inside) < len(whole)
    assert sum(done) == 900 + 165


def test_a_motif_too_short_for_the_threshold_is_named(tmp_path: Path) -> None:
    path, told = write_fasta(tmp_path / "g.fa", 300), list[str]()
    with Genome(path) as genome:
        motifs = [varied_motif("short", 3, seed=1), varied_motif("long", 12, seed=2)]
        found = list(scan(genome, everywhere(genome), motifs, 1e-3, warn=told.append))
        assert {one.motif for one in found} <= {"long"}
        assert not list(scan(genome, everywhere(genome), motifs[:1], 1e-3))
    assert told == ["motif 'short' is so short that chance fits it best more often than 0.001"]


def test_the_composition_is_that_of_both_strands(tmp_path: Path) -> None:
    (tmp_path / "g.fa").write_text(">a\nAAAcNu\n>b\nRGY\n")
    with Genome(tmp_path / "g.fa") as genome:
        found = composition(genome)
    np.testing.assert_allclose(found, both_strands_composition([3, 1, 1, 1]))
    np.testing.assert_allclose(found, np.array([6, 4, 4, 6]) / 20)


def test_what_is_no_genome_or_threshold(tmp_path: Path) -> None:
    (tmp_path / "n.fa").write_text(">a\nNNNN\n")
    (tmp_path / "p.fa").write_text(">a\nMKLVE\n")
    motif = varied_motif("m", 4, seed=0)
    with Genome(tmp_path / "n.fa") as genome:
        with pytest.raises(UserError, match="no A, C, G or T"):
            list(scan(genome, everywhere(genome), [motif], 0.1))
        for threshold in (0.0, -1.0, 1.5, float("nan")):
            with pytest.raises(UserError, match="expected a p-value above 0 and up to 1"):
                list(scan(genome, everywhere(genome), [motif], threshold))
    with Genome(tmp_path / "p.fa") as genome, pytest.raises(UserError, match="'L' is not a nucleotide"):
        list(scan(genome, everywhere(genome), [motif], 0.1))
