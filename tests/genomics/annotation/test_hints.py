import numpy as np
import pytest

from reformer.errors import UserError
from reformer.genomics.annotation.classes import ClassScheme
from reformer.genomics.annotation.gene_calls import GeneDecoder
from reformer.genomics.annotation.grammar import Grammar
from reformer.genomics.annotation.hints import HINTS_FILE, HintModel
from reformer.genomics.annotation.relatives import READINGS, BroughtOver

SCHEME = ClassScheme(kinds=("CDS", "intron"))
EMPTY = np.zeros(0, dtype=np.int64)
NONE, CODING, INTRON = 0, 1, SCHEME.names.index("intron+")


def said(length, *stretches):
    """What one reading says: (start, end, class or "CDS", weight); the others say nothing."""
    classes = np.zeros((length, len(READINGS)), dtype=np.uint8)
    weights = np.zeros_like(classes)
    for start, end, kind, weight in stretches:
        bases = np.arange(start, end)
        classes[bases, 2] = CODING + (bases - start) % 3 if kind == "CDS" else kind
        weights[bases, 2] = weight
    return BroughtOver(classes, weights)


def gene_at(place, before=200, behind=200):
    return (place - 30, place, NONE, before), (place, place + 60, "CDS", behind)


@pytest.fixture(scope="module")
def model():
    """Of a hundred starts relatives tell of sixty, and of none of a thousand other places."""
    starts, others = 100 * np.arange(1, 101), 100 * np.arange(1, 101)[:, None] + 5 + np.arange(10) * 7
    length = 10_300
    told = said(length, *(stretch for place in starts[:60] for stretch in gene_at(place)))
    everywhere = np.unique(np.concatenate([starts, others.ravel()]))
    nothing = (EMPTY, EMPTY)
    places = {"start": (starts, everywhere), "donor": nothing, "acceptor": nothing}
    return HintModel.of([(told, places)], SCHEME)


def test_a_start_that_relatives_tell_of_is_likelier_and_one_that_they_pass_over_less_likely(model):
    told = said(300, *gene_at(100))
    at_it, inside, elsewhere = model.scores("start", told, np.array([100, 130, 250]))
    assert at_it > 4
    assert inside < -1
    assert inside < elsewhere < 0  # forty of a hundred starts are like that, and most other places


def test_frames_must_agree():
    """The like of the bases behind a place codes, in codons that begin there or one base later."""
    starts = 100 * np.arange(1, 51)
    told = said(5_200, *(stretch for place in starts for stretch in gene_at(place)))
    nothing = (EMPTY, EMPTY)
    places = {"start": (starts, np.unique([starts, starts - 1])), "donor": nothing, "acceptor": nothing}
    model = HintModel.of([(told, places)], SCHEME)
    in_frame, shifted = model.scores("start", said(300, *gene_at(100)), np.array([100, 99]))
    assert in_frame > shifted + 4


@pytest.mark.parametrize(
    ("site", "before", "behind"),
    [("start", NONE, "CDS"), ("stop", "CDS", NONE), ("donor", "CDS", INTRON), ("acceptor", INTRON, "CDS")],
)
def test_sites_have_their_kinds_on_their_sides(site, before, behind):
    places = 100 * np.arange(1, 51)
    stretches = [
        stretch
        for place in places[:40]
        for stretch in ((place - 30, place, before, 250), (place, place + 30, behind, 250))
    ]
    sites = dict.fromkeys(("start", "donor", "acceptor"), (EMPTY, EMPTY))
    sites[site] = places, np.unique([places, places + 10, places + 40])
    model = HintModel.of([(said(5_200, *stretches), sites)], SCHEME)
    told = said(200, (70, 100, before, 250), (100, 130, behind, 250))
    swapped = said(200, (70, 100, behind, 250), (100, 130, before, 250))
    at = np.array([100])
    assert model.scores(site, told, at) > 3
    assert model.scores(site, swapped, at) < 0


def test_kinds_of_sites_that_were_never_seen_say_nothing(model):
    assert not model.scores("donor", said(300, *gene_at(100)), np.arange(300)).any()


def test_log_odds_of_many_are_those_of_counts():
    """Relatives tell of three of four sites, and of one of four other places."""
    places = 900 * np.arange(1000)[:, None] + 100 * np.arange(1, 9)
    told, mine = places[:, [0, 1, 2, 4]].ravel(), places[:, :4].ravel()
    brought_over = said(900_900, *(part for place in told for part in gene_at(place, behind=60)))
    sites = {"start": (mine, places.ravel()), "donor": (EMPTY, EMPTY), "acceptor": (EMPTY, EMPTY)}
    table = HintModel.of([(brought_over, sites)], SCHEME).log_odds["start"]
    assert table[2, 0, 0, 1] == pytest.approx(np.log(3), abs=0.03)
    assert table[0, 0, 0, 0] == pytest.approx(-np.log(3), abs=0.03)


def test_the_other_strand_has_the_mirror_image(model):
    generator = np.random.default_rng(0)
    classes = generator.integers(len(SCHEME.names), size=(300, len(READINGS)), dtype=np.uint8)
    weights = generator.choice([0, 60, 200], p=[0.9, 0.05, 0.05], size=classes.shape).astype(np.uint8)
    forward = BroughtOver(classes, weights)
    at = np.arange(301)
    nats = model.scores("start", forward, at)
    assert len(np.unique(nats)) > 5
    np.testing.assert_array_equal(
        nats, model.scores("start", forward.reverse_complement(SCHEME), 300 - at, strand=1)
    )


def test_nothing_beyond_its_reach_counts(model):
    told = said(300, *gene_at(100))
    cut = said(300, *gene_at(100))
    cut.weights[: 100 - model.reach] = 0
    cut.weights[100 + model.reach :] = 0
    at = np.array([100])
    assert model.scores("start", told, at) == model.scores("start", cut, at) > 0


def test_a_hint_moves_the_start_of_a_called_gene(model):
    """Of two start codons in one reading frame the first is called, unless relatives begin at the second."""
    letters = "C" * 60 + "ATG" + "GCT" * 6 + "ATG" + "GCT" * 30 + "TAA" + "C" * 60
    first, second, end = 60, 81, 60 + 3 * 39
    probabilities = np.full((len(letters), len(SCHEME.names)), 0.02)
    bases = np.arange(first, end)
    probabilities[bases, CODING + (bases - first) % 3] = 0.7

    def exons(told):
        decoder = GeneDecoder(SCHEME, Grammar(evidence=0.2, donor=None), hints=model)
        decoder.feed(letters.encode(), probabilities, told)
        return [gene.exons for gene in decoder.finish()]

    assert exons(said(len(letters))) == [((first, end),)]
    assert exons(said(len(letters), *gene_at(second))) == [((second, end),)]


def test_written_and_read(model, tmp_path):
    model.write(tmp_path)
    found = HintModel.read(tmp_path, SCHEME)
    for site, table in model.log_odds.items():
        np.testing.assert_array_equal(found.log_odds[site], table)
    HintModel({site: table[1:] for site, table in model.log_odds.items()}, SCHEME).write(tmp_path)
    with pytest.raises(UserError, match=r'expected finite float32 .3, 3, 3, 3. as "start"'):
        HintModel.read(tmp_path, SCHEME)
    (tmp_path / HINTS_FILE).write_bytes(b"no")
    with pytest.raises(UserError, match=f"{HINTS_FILE}: damaged"):
        HintModel.read(tmp_path, SCHEME)
    (tmp_path / HINTS_FILE).unlink()
    with pytest.raises(UserError, match="missing"):
        HintModel.read(tmp_path, SCHEME)
