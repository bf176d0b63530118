import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import function
from reformer.genomics.coordinates import reverse_complement


def made_genes(num: int = 60) -> list[function.Gene]:
    """Genes of two classes that differ in their composition, on contigs of up to five."""
    generator, genes = np.random.default_rng(0), []
    for number in range(num):
        shares = [0.1, 0.4, 0.4, 0.1] if number % 2 else [0.4, 0.1, 0.1, 0.4]
        letters = "".join(generator.choice(list("ACGT"), 60 + 3 * (number % 20), p=shares))
        genes.append(function.Gene(f"g{number}", f"c{number // 5}", letters, "ab"[number % 2]))
    return genes


def test_genes_of_one_class_are_read_as_their_strand_has_them(tmp_path: Path) -> None:
    (tmp_path / "g.gbk").write_text(
        """LOCUS       c  21 bp    DNA     linear   UNK
ACCESSION   c
VERSION     c
FEATURES             Location/Qualifiers
     CDS             join(1..3,7..9)
                     /product="ABC transporter permease"
     CDS             complement(13..21)
                     /product="IS3 family
                     transposase"
     CDS             1..6
                     /product="ABC transporter hydrolase"
     CDS             1..6
                     /product="hypothetical protein"
     CDS             1..6
                     /product="glucokinase transferase"
                     /pseudo
ORIGIN
        1 atgaaatagc ccctatttca t
//
"""
    )
    found = [
        (gene.letters.upper(), gene.contig, gene.label) for gene in function.read_genes(tmp_path / "g.gbk")
    ]
    assert found == [("ATGTAG", "c", "transporter"), (reverse_complement("CTATTTCAT"), "c", "transposase")]


def test_no_contig_is_in_two_parts() -> None:
    genes = made_genes()
    for seed in range(3):
        parts = function.deal(genes, seed)
        assert {part: len(found) for part, found in parts.items()} == {
            "train": 45,
            "test": 10,
            "validation": 5,
        }
        contigs = [{gene.contig for gene in found} for found in parts.values()]
        assert len(set.union(*contigs)) == sum(map(len, contigs)) == 12


def test_every_contender_is_scored_on_the_test_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = "training.lengths=[{length: 64, steps: 4, batch_size: 4}]"
    kept = [one for one in function.SETTINGS if "lengths" not in one]
    monkeypatch.setattr(function, "SETTINGS", (*kept, stage))
    parts = function.deal(made_genes(), 0)
    function.write(parts, tmp_path)
    rows: list[dict[str, object]] = []
    for name in function.CONTENDERS:
        scores, took = function.measure(name, parts, tmp_path, 0, rows)
        rows.append({"contender": name, "seed": 0, **took, **scores})
        assert scores["sequences"] == len(parts["test"])
        assert set(json.loads(json.dumps(scores))["classes"]) == {"a", "b"}
    by_name = {row["contender"]: row for row in rows}
    assert by_name["k-mers"]["accuracy"] == 1
    assert 250_000 < by_name["cnn"]["parameters"] < 270_000
    seconds = [by_name[name]["train_cpu_seconds"] for name in ("reformer", "cnn")]
    assert seconds[0] <= seconds[1] < seconds[0] + 5
    assert function.summary(rows)["reformer"]["seeds"] == 1
