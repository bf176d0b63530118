import numpy as np
import pytest

from reformer.errors import UserError
from reformer.genomics.annotation.coding_model import other_strand
from reformer.genomics.annotation.gene_places import base_codes
from reformer.genomics.annotation.grammar import Grammar
from reformer.genomics.annotation.signals import FIRST, SIGNALS_FILE, SignalModel
from reformer.genomics.annotation.sites import sites
from tests.genomics.annotation.test_classes import gene

EMPTY = np.zeros(0, dtype=np.int64)


def with_boxes(generator, number=200):
    """Bases with an ATG every 50 bases; every other one is a start, 7 bases after AGGAG."""
    codes = generator.integers(4, size=50 * number + 50)
    places = 50 * np.arange(1, number)
    for place in places:
        codes[place : place + 3] = 0, 3, 2
    for place in places[::2]:
        codes[place - 12 : place - 7] = 0, 2, 2, 0, 2
    return codes, places[::2], places


@pytest.fixture(scope="module")
def model():
    codes, starts, places = with_boxes(np.random.default_rng(0))
    sites = {"start": (starts, places), "donor": (EMPTY, EMPTY), "acceptor": (EMPTY, EMPTY)}
    return SignalModel.of([(codes, sites)])


def test_a_box_before_starts_tells_them_from_other_places(model):
    codes, starts, places = with_boxes(np.random.default_rng(1))
    nats = model.scores("start", codes, places)
    is_start = np.isin(places, starts)
    assert nats[is_start].min() > nats[~is_start].max()
    assert nats[is_start].mean() > 0.5  # log 2 at most, as half of the places are starts
    assert nats[~is_start].mean() < -5


def test_sites_that_were_never_seen_say_nothing(model):
    codes = np.random.default_rng(2).integers(4, size=300)
    assert not model.scores("donor", codes, np.arange(300)).any()


def test_log_odds_are_those_of_counts():
    """Order 0, one base by hand: 3 of 4 sites have A, 4 of 8 places; ten counts are drawn from the rest."""
    texts = ["A", "A", "A", "C", "A", "G", "G", "T"]
    codes = base_codes("".join("N" * 40 + text + "N" * 40 for text in texts).encode())
    places = 81 * np.arange(8) + 40 - FIRST["donor"]
    everywhere = {"start": (EMPTY, EMPTY), "donor": (places[:4], places), "acceptor": (EMPTY, EMPTY)}
    table = SignalModel.of([(codes, everywhere)], order=0).log_odds["donor"]
    background = (4 + 10 / 4) / 18
    assert table[0, 0, 0] == pytest.approx(np.log((3 + 10 * background) / 14 / background))
    np.testing.assert_allclose(table[1:], 0, atol=1e-7)


def test_the_other_strand_has_the_mirror_image(model):
    codes, _, places = with_boxes(np.random.default_rng(3), 20)
    codes[places[3] - 9] = 4  # N
    other = model.scores("start", other_strand(codes), len(codes) - places, strand=1)
    np.testing.assert_allclose(other, model.scores("start", codes, places))
    ends = model.scores("start", codes, np.array([0, len(codes)]))
    assert np.isfinite(ends).all()


def test_nothing_beyond_its_reach_counts(model):
    codes, _, places = with_boxes(np.random.default_rng(4), 20)
    place = places[9]
    changed = codes.copy()
    changed[: place - model.reach] = 0
    changed[place + model.reach :] = 0
    at = np.array([place])
    assert model.scores("start", changed, at) == model.scores("start", codes, at)


@pytest.mark.parametrize("strand", "+-")
def test_sites_of_a_gene(strand):
    letters = "CCATGAAAGTCCCCAGAAATAAGTAGATG"
    spans = [(2, 8), (16, 22)]
    n = len(letters)
    if strand == "-":
        spans = [(n - b, n - a) for a, b in spans][::-1]
    (transcript,) = gene("a", strand, spans, spans).transcripts
    text = letters.encode()
    found = sites(base_codes(text), [transcript], strand == "-", Grammar())
    assert {site: [list(map(int, places)) for places in both] for site, both in found.items()} == {
        "start": [[2], [2, 26]],
        "stop": [[22], [6, 22, 26]],
        "donor": [[8], [8, 22]],
        "acceptor": [[16], [9, 16, 23, 26]],
    }
    without = sites(base_codes(text), [transcript], strand == "-", Grammar(donor=None))
    assert not any(len(places) for site in ("donor", "acceptor") for places in without[site])


def test_written_and_read(model, tmp_path):
    model.write(tmp_path)
    found = SignalModel.read(tmp_path)
    for site, table in model.log_odds.items():
        np.testing.assert_array_equal(found.log_odds[site], table)
    SignalModel({site: table[1:] for site, table in model.log_odds.items()}).write(tmp_path)
    with pytest.raises(UserError, match=r'expected finite float32 .26, 4, 4. as "start"'):
        SignalModel.read(tmp_path)
    (tmp_path / SIGNALS_FILE).write_bytes(b"no")
    with pytest.raises(UserError, match=f"{SIGNALS_FILE}: damaged"):
        SignalModel.read(tmp_path)
    (tmp_path / SIGNALS_FILE).unlink()
    with pytest.raises(UserError, match="missing"):
        SignalModel.read(tmp_path)
