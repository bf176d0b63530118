"""Chains built with gemmi, written as PDB and mmCIF, and read again."""

import gemmi
import mdtraj
import pytest
from Bio.PDB.MMCIF2Dict import MMCIF2Dict

from reformer.errors import UserError
from reformer.genomics.formats.structures import read_structure
from tests.genomics.made_structures import made_chain, write_chains

LETTERS = "MKVLEFGHWAYT"


def address(chain, number):
    return gemmi.AtomAddress(chain, gemmi.SeqId(str(number)), gemmi.expand_one_letter(
        LETTERS[number - 10], gemmi.ResidueKind.AA), "CA")  # fmt: skip


def structure():
    made = gemmi.Structure()
    made.name = "TEST"
    made.cell = gemmi.UnitCell(50, 50, 50, 90, 90, 90)
    model = gemmi.Model(1)
    for chain_name, shift in (("A", 0.0), ("B", 30.0)):
        chain = gemmi.Chain(chain_name)
        for i, letter in enumerate(LETTERS):
            residue = gemmi.Residue()
            residue.name = gemmi.expand_one_letter(letter, gemmi.ResidueKind.AA)
            residue.seqid = gemmi.SeqId(str(10 + i))
            residue.het_flag = "A"
            for atom_name, offset in (("N", 0.0), ("CA", 1.4), ("C", 2.6)):
                atom = gemmi.Atom()
                atom.name, atom.element = atom_name, gemmi.Element(atom_name[0])
                atom.pos = gemmi.Position(3.8 * i + offset, shift, 0)
                residue.add_atom(atom)
            chain.add_residue(residue)
        model.add_chain(chain)
    made.add_model(model)
    made.setup_entities()
    made.assign_label_seq_id()
    for first, last, kind in ((10, 12, "RAlpha"), (14, 15, "R310")):
        helix = gemmi.Helix()
        helix.start, helix.end = address("A", first), address("A", last)
        helix.pdb_helix_class = getattr(gemmi.Helix.HelixClass, kind)
        made.helices.append(helix)
    strand = gemmi.Sheet.Strand()
    strand.start, strand.end, strand.name = address("A", 18), address("A", 20), "1"
    sheet = gemmi.Sheet("S")
    sheet.strands.append(strand)
    made.sheets.append(sheet)
    return made


@pytest.fixture
def files(tmp_path):
    made = structure()
    made.write_pdb(str(tmp_path / "x.pdb"))
    made.make_mmcif_document().write_file(str(tmp_path / "x.cif"))
    return tmp_path


@pytest.mark.parametrize("name", ["x.pdb", "x.cif"])
def test_letters_and_labels(files, name):
    one, two = read_structure(files / name)
    assert (one.name, two.name) == ("A", "B")
    assert one.letters == two.letters == LETTERS
    assert one.labels == "HHHCGGCCEEEC"
    assert one.three_classes == "HHHCHHCCEEEC"
    assert two.labels == "C" * 12
    assert one.numbers == tuple(map(str, range(10, 22)))


def test_labels_are_the_ranges_that_biopython_reads(files):
    """Of mmCIF, whose categories Biopython gives as they are."""
    found = MMCIF2Dict(str(files / "x.cif"))
    (one, _) = read_structure(files / "x.cif")
    helices = ["G" if number == "5" else "H" for number in found["_struct_conf.pdbx_PDB_helix_class"]]
    labels = ["C"] * len(one.letters)
    for category, kinds in (("struct_conf", helices), ("struct_sheet_range", ["E"])):
        columns = (found[f"_{category}.{name}"] for name in ("beg_auth_seq_id", "end_auth_seq_id"))
        for kind, *ends in zip(kinds, *columns, strict=True):
            first, last = map(one.numbers.index, ends)
            labels[first : last + 1] = kind * (last + 1 - first)
    assert one.labels == "".join(labels)


def test_mdtraj_reads_the_same_residues(tmp_path):
    chains = {"A": made_chain("MKVLAEFGHWAYTSDNQRIC", 12), "B": made_chain("PGMKVLAEF", 4)}
    path = write_chains(tmp_path / "x.pdb", chains)
    theirs = [
        [(residue.code, str(residue.resSeq)) for residue in chain.residues]
        for chain in mdtraj.load_pdb(str(path)).topology.chains
    ]
    ours = [list(zip(chain.letters, chain.numbers, strict=True)) for chain in read_structure(path)]
    assert ours == theirs


def test_a_helix_at_residues_that_are_not_there_is_refused(files):
    text = (files / "x.pdb").read_text()
    assert "HELIX" in text
    lines = [
        line
        for line in text.splitlines()
        if not (line[:4] == "ATOM" and line[22:26].strip() == "12" and line[21] == "A")
    ]
    (files / "y.pdb").write_text("\n".join(lines) + "\n")
    with pytest.raises(
        UserError, match=r"y.pdb, helix 1: from A 10 to A 12: expected two residues of one chain"
    ):
        read_structure(files / "y.pdb")


def test_labels_are_the_text_of_the_records(files):
    """The columns of HELIX and SHEET, read here a second time as the format's guide has them."""
    text = (files / "x.pdb").read_text().splitlines()
    (one, _) = read_structure(files / "x.pdb")
    for line in text:
        if line.startswith("HELIX"):
            first, last = int(line[21:25]), int(line[33:37])
            assert set(one.labels[first - 10 : last - 9]) <= {"H", "G"}
        if line.startswith("SHEET"):
            first, last = int(line[22:26]), int(line[33:37])
            assert set(one.labels[first - 10 : last - 9]) == {"E"}
