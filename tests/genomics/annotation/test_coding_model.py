import numpy as np
import pytest

from reformer.errors import UserError
from reformer.genomics.annotation.coding_model import CODING_FILE, CodingModel, other_strand


def one_gene(generator, length=3000):
    """Bases of which those at place 2 of a codon are mostly G, and what they are."""
    codes = generator.integers(4, size=length)
    classes = np.zeros(length, dtype=np.uint8)
    classes[600:2400] = 1 + np.arange(1800) % 3
    codes[602:2400:3] = 2
    return codes, classes


def test_coding_bases_are_likelier_in_their_own_place_only():
    generator = np.random.default_rng(0)
    model = CodingModel.of([one_gene(generator)], order=2)
    codes, _ = one_gene(generator)
    nats = model.by_place(codes)
    place = np.arange(600, 2400) % 3
    inside = nats[600:2400]
    assert inside[np.arange(1800), place].sum() > 500  # log 4 at each third base
    assert inside[np.arange(1800), (place + 1) % 3].sum() < -500
    assert nats[:600, :3].sum() < 0


def test_log_odds_are_those_of_counts():
    """Order 0, counted by hand: half a base of each kind is seen beforehand."""
    codes, classes = np.array([0, 1, 2, 2]), np.array([1, 2, 3, 0])
    model = CodingModel.of([(codes, classes)], order=0)
    # Elsewhere: G on "+" and its complement C on "-"; place 0: A.
    assert model.log_odds[0, 0] == pytest.approx(np.log([1.5 / 3, 0.5 / 3, 0.5 / 3, 0.5 / 3] / _elsewhere()))
    assert model.log_odds[2, 0] == pytest.approx(np.log([0.5 / 3, 0.5 / 3, 1.5 / 3, 0.5 / 3] / _elsewhere()))


def _elsewhere():
    return np.array([0.5, 1.5, 1.5, 0.5]) / 4


def test_the_other_strand_says_the_same_backwards():
    generator = np.random.default_rng(1)
    model = CodingModel.of([one_gene(generator)], order=3)
    codes = generator.integers(5, size=200)  # N among them
    nats, other = model.by_place(codes), model.by_place(other_strand(codes))
    np.testing.assert_array_equal(other[::-1][:, [3, 4, 5, 0, 1, 2]], nats)
    unknown = codes == 4
    assert not nats[unknown].any()
    np.testing.assert_array_equal(nats[:3, :3], 0)


def test_written_and_read(tmp_path):
    model = CodingModel.of([one_gene(np.random.default_rng(2))])
    model.write(tmp_path)
    np.testing.assert_array_equal(CodingModel.read(tmp_path).log_odds, model.log_odds)
    (tmp_path / CODING_FILE).write_bytes(b"no")
    with pytest.raises(UserError, match=f"{CODING_FILE}: damaged"):
        CodingModel.read(tmp_path)
    CodingModel(model.log_odds[:, :100]).write(tmp_path)
    with pytest.raises(UserError, match=r"expected finite float32 .3, 4\*\*order, 4."):
        CodingModel.read(tmp_path)
    (tmp_path / CODING_FILE).unlink()
    with pytest.raises(UserError, match="missing"):
        CodingModel.read(tmp_path)
