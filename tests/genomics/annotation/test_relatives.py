import numpy as np
import pytest

from reformer.data.build import build_token_array
from reformer.data.nucleotides import reverse_complement
from reformer.data.vocabularies import vocabulary
from reformer.errors import UserError
from reformer.genomics.annotation import relatives as module
from reformer.genomics.annotation.classes import ClassScheme
from reformer.genomics.annotation.data import LabelledSequences
from reformer.genomics.annotation.relatives import READINGS, RELATIVES_FILE, BroughtOver, Relatives
from reformer.genomics.annotation.training import AnnotationBatches
from reformer.genomics.base_encoding import BaseEncoding
from reformer.genomics.coordinates import Interval
from reformer.genomics.genes import Gene
from reformer.training.recipe import Stage

SCHEME = ClassScheme(kinds=("CDS", "intron"))
IDS = vocabulary("nucleotide", "fold")
BASES = np.array([IDS[letter] for letter in "ACGT"], dtype=np.uint8)
BY_BASES = [number for number, reading in enumerate(READINGS) if reading.what == "bases"]


def sequence(generator, length):
    return BASES[generator.integers(4, size=length)]


def mutated(generator, tokens, share):
    changed = generator.random(len(tokens)) < share
    return np.where(changed, sequence(generator, len(tokens)), tokens)


@pytest.fixture(scope="module")
def genome():
    """Two sequences, and labels in runs of some hundred bases."""
    generator = np.random.default_rng(0)
    pairs = []
    for length in (30_000, 20_000):
        labels = np.repeat(generator.integers(len(SCHEME.names), size=length // 250), 250).astype(np.uint8)
        pairs.append((sequence(generator, length), labels))
    return pairs


@pytest.fixture(scope="module")
def relatives(genome):
    return Relatives.of(genome, SCHEME)


def test_a_copy_with_changes_gets_the_labels_of_its_like(genome, relatives):
    (tokens, labels), _ = genome
    part = slice(7_000, 9_000)
    (exact,) = relatives.bring_over([tokens[part]])
    inner = slice(40, -40)  # every reading has all its letters
    np.testing.assert_array_equal(
        exact.classes[inner], np.repeat(labels[part][inner, None], len(READINGS), axis=1)
    )
    assert np.quantile(exact.weights[inner], 0.01) > 200
    changed = mutated(np.random.default_rng(1), tokens[part], 0.05)
    (found,) = relatives.bring_over([changed])
    is_right = found.classes == labels[part][:, None]
    assert is_right[found.weights > 25].mean() > 0.98
    assert 0.3 < (found.weights > 25).mean() < 0.9


def test_the_like_on_the_other_strand_is_found_too(genome, relatives):
    tokens, labels = (part[12_000:13_000] for part in genome[1])
    (found,) = relatives.bring_over([reverse_complement(tokens)])
    expected = SCHEME.reverse_complement(labels)[40:-40, None]
    assert (found.classes[40:-40] == expected).all()


def test_what_is_not_alike_weighs_nothing(relatives):
    (found,) = relatives.bring_over([sequence(np.random.default_rng(2), 5_000)])
    assert np.quantile(found.weights, 0.99) <= 25
    (unknown,) = relatives.bring_over([np.full(500, IDS["N"], dtype=np.uint8)])
    assert not unknown.weights.any()


def test_codons_are_alike_when_their_amino_acids_are(genome, relatives):
    """Every third base of a reading frame changes, as far as the genetic code allows: A to G and C to T."""
    tokens = genome[0][0][3_000:6_000].copy()
    swapped = {BASES[0]: BASES[2], BASES[2]: BASES[0], BASES[1]: BASES[3], BASES[3]: BASES[1]}
    silent = tokens.copy()
    silent[2::3] = [swapped[base] for base in tokens[2::3]]
    (found,) = relatives.bring_over([silent])
    labels = genome[0][1][3_000:6_000]
    at = np.arange(300, 2_700, 3)  # codons begin here
    plus_from = next(n for n, r in enumerate(READINGS) if (r.what, r.side) == ("+", "from"))
    alike = found.weights[at, plus_from] > 60
    assert alike.mean() > 0.3
    assert (found.classes[at, plus_from][alike] == labels[at][alike]).mean() > 0.98
    assert (found.weights[at][:, BY_BASES] > 60).mean() < 0.05


def test_strands_are_treated_alike(genome, relatives):
    tokens = mutated(np.random.default_rng(3), genome[0][0][2_000:6_000], 0.04)
    (found,), (other,) = relatives.bring_over([tokens]), relatives.bring_over([reverse_complement(tokens)])
    turned = other.reverse_complement(SCHEME)
    assert np.abs(found.weights.astype(int) - turned.weights).max() <= 1  # sums in another order
    alike = found.weights > 1
    np.testing.assert_array_equal(found.classes[alike], turned.classes[alike])


def test_what_is_found_does_not_depend_on_what_else_is_asked_for(genome, relatives, monkeypatch):
    generator = np.random.default_rng(4)
    asked = [mutated(generator, genome[0][0][start : start + 1_500], 0.03) for start in (0, 9_000, 20_000)]
    alone = [next(relatives.bring_over([tokens])) for tokens in asked]
    together = list(relatives.bring_over([asked[0], asked[1][:0], *asked[1:]]))
    monkeypatch.setattr(module, "_MOST_QUERIES", 700)
    in_stretches = list(relatives.bring_over(asked))
    for one, *others in zip(alone, [together[0], *together[2:]], in_stretches, strict=True):
        for other in others:
            np.testing.assert_array_equal(one.classes, other.classes)
            assert np.abs(one.weights.astype(int) - other.weights).max() <= 1
    assert together[1].classes.shape == (0, len(READINGS))


def test_more_queries_than_keys(genome):
    small = Relatives.of([(genome[0][0][:600], genome[0][1][:600])], SCHEME)
    (found,) = small.bring_over([genome[0][0][:5_000]])
    assert (found.classes[50:550] == genome[0][1][50:550, None]).all()
    assert found.classes.shape == (5_000, len(READINGS))


def test_features_have_the_weight_at_the_class():
    weights = np.array([[255, 0, 51, 102, 153, 204]], dtype=np.uint8)
    found = BroughtOver(np.array([[0, 1, 2, 3, 4, 5]], dtype=np.uint8), weights)
    rows = found.features(len(SCHEME.names)).reshape(len(READINGS), -1)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows.sum(axis=1), [1, 0, 0.2, 0.4, 0.6, 0.8], rtol=1e-6)
    assert rows[0, 0] == 1
    assert rows[5, 5] == pytest.approx(0.8)


def test_written_and_read(relatives, tmp_path):
    relatives.write(tmp_path)
    read = Relatives.read(tmp_path, SCHEME)
    for name in ("codes", "labels", "ends"):
        np.testing.assert_array_equal(getattr(read, name), getattr(relatives, name))
    with pytest.raises(UserError, match=f"{RELATIVES_FILE}: damaged: expected bases 0 to 4 and labels"):
        Relatives.read(tmp_path, ClassScheme(kinds=("CDS",), by_frame=False))
    Relatives(relatives.codes[:-1], relatives.labels, relatives.ends, SCHEME).write(tmp_path)
    with pytest.raises(UserError, match=f"{RELATIVES_FILE}: damaged: expected as many labels"):
        Relatives.read(tmp_path, SCHEME)
    (tmp_path / RELATIVES_FILE).write_bytes(b"no")
    with pytest.raises(UserError, match=f"{RELATIVES_FILE}: damaged"):
        Relatives.read(tmp_path, SCHEME)


@pytest.fixture
def sequences(genome, tmp_path):
    """Two genomes: one of two records, and one that is a changed copy of both."""
    generator = np.random.default_rng(5)
    letters = {token: letter for letter, token in IDS.items()}
    records = [tokens for tokens, _ in genome]
    records += [mutated(generator, tokens, 0.02) for tokens in records]
    text = (f">s{n}\n{''.join(letters[t] for t in tokens)}\n" for n, tokens in enumerate(records))
    (tmp_path / "g.fa").write_text("".join(text))
    array = build_token_array(tmp_path / "g.fa", tmp_path / "cache")
    labels = np.concatenate([labels for _, labels in genome] * 2)
    labels[len(labels) // 2 :] = 1  # of the second genome
    return LabelledSequences(array, labels, [], ())


def test_a_genome_is_told_what_the_others_say_and_never_its_own_labels(sequences):
    asked = sequences.as_relatives_of_each_other([2, 2], SCHEME).brought_over
    half = len(sequences.labels) // 2
    alike = asked.weights > 100
    assert alike.mean() > 0.3
    assert (asked.classes[:half][alike[:half]] == 1).all()
    expected = np.repeat(sequences.labels[:half, None], len(READINGS), axis=1)
    assert (asked.classes[half:] == expected)[alike[half:]].mean() > 0.99


def test_pseudogenes_say_nothing(sequences):
    first = sequences.array.records[0]
    hidden = Gene("p", "pseudogene", Interval(first.name, 4_000, 6_000, "+"), ())
    relatives = LabelledSequences(sequences.array, sequences.labels, [hidden], ()).relatives(SCHEME)
    np.testing.assert_array_equal(relatives.codes[4_000:6_000], 4)
    assert (np.delete(relatives.codes, np.s_[4_000:6_000]) < 4).all()


def test_a_batch_has_what_was_brought_over_for_its_windows(sequences):
    asked = sequences.as_relatives_of_each_other([2, 2], SCHEME)
    stages = [Stage(length=90, steps=12, batch_size=2)]
    batches = AnnotationBatches(asked, SCHEME, BaseEncoding(orf_lengths=()), stages, 3, 1, other_strand=True)
    strands = set()
    for index in range(12):
        features = batches[index]["input_features"].numpy()
        for row, span in enumerate(batches.spans(index)):
            here = asked.brought_over[span.start : span.start + span.length]
            expected = here.reverse_complement(SCHEME) if span.is_other_strand else here
            np.testing.assert_array_equal(features[row], expected.features(len(SCHEME.names)))
            strands.add(span.is_other_strand)
    assert strands == {True, False}
