"""Labels from coordinates: ideal helices and strands, whose classes follow from the definition of DSSP."""

import pytest

from reformer.genomics.formats.structures import has_labels, read_structure, to_three_classes
from tests.genomics.made_structures import made_chain, write_chains

LETTERS = "MKVLAEFGHWAYTSDNQRIC"


@pytest.mark.parametrize("name", ["x.pdb", "x.cif"])
def test_a_helix_and_what_follows_it(tmp_path, name):
    path = write_chains(tmp_path / name, {"A": made_chain(LETTERS, 12), "B": made_chain(LETTERS, 0)})
    one, two = read_structure(path, "coordinates")
    assert one.letters == two.letters == LETTERS
    # A helix begins behind the first residue whose C=O is bonded, and ends before the last whose N-H is.
    assert one.labels.strip("CTS").startswith("HHHHHH")
    assert one.labels[0] in "CTS"
    assert set(one.labels[14:]) <= set("CS")
    assert set(two.labels) <= set("CS")  # a strand alone has no partner
    assert has_labels([one])
    assert set(one.three_classes) == {"H", "C"}


def test_residues_without_their_backbone_have_no_label(tmp_path):
    path = write_chains(tmp_path / "x.pdb", {"A": made_chain(LETTERS, 20)}, without="O")
    (chain,) = read_structure(path, "coordinates")
    assert chain.labels[-1] == "?"
    assert "?" not in chain.labels[:-1]
    path = write_chains(tmp_path / "y.pdb", {"A": made_chain(LETTERS[:1], 1)}, without="O C N")
    (chain,) = read_structure(path, "coordinates")
    assert chain.labels == "?"
    assert not has_labels([chain])


def test_three_classes():
    assert to_three_classes("HGIEBTSC?") == "HHHEECCC?"
