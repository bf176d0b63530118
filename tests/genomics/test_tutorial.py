"""The commands of `docs/tutorial-genomics.md`, run as the page has them."""

import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pybigtools
import pysam
import pytest

from reformer.genomics.formats.annotation import read_genes
from reformer.genomics.formats.proteins import read_proteins

PAGE = Path(__file__).parents[2] / "docs" / "tutorial-genomics.md"


def blocks(language: str) -> list[str]:
    text = PAGE.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands() -> str:
    return "set -euo pipefail\n" + "".join(blocks("sh"))


def test_every_command_and_option_of_the_page_is_one_that_there_is() -> None:
    """What runs in the default suite: the help of each command knows the options that the page gives it."""
    lines = commands().replace("\\\n", " ").splitlines()
    asked = [line.split() for line in lines if line.startswith("reformer ")]
    assert len(asked) == 5
    for words in asked:
        names = [word for word in words[1:4] if word.isalpha()]
        names = names[: 3 if "annotate" in names else 2 if "dna" in names else 1]
        shown = subprocess.run(
            [sys.executable, "-m", "reformer", *names, "--help"],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"COLUMNS": "200"},
        ).stdout
        for word in words:
            assert not word.startswith("--") or word in shown, (names, word)


def test_the_python_of_the_page_runs(tmp_path: Path, yeast_folder: Path) -> None:
    (copies,) = [block for block in blocks("sh") if "cp " in block]
    copying = "\n".join(line for line in copies.splitlines() if line.startswith(("DATA=", "cp ")))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(["bash", "-ec", copying], cwd=tmp_path, env=os.environ | {"PATH": path}, check=True)
    (code,) = blocks("python")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "Interval(sequence='NC_079272.1', start=63298, end=64801, strand='+') ATGTCTAGATTA MSRL",
        "4 introns",
    ]
    with open(tmp_path / "introns.bed") as file:
        assert [len(line.split("\t")) for line in file] == [6] * 4


@pytest.mark.slow
def test_the_page_runs_as_written(tmp_path: Path, yeast_folder: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "REFORMER_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        ["bash", "-c", commands()], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]

    assert "REFORMER_GENE_LLR" in done.stdout
    check_results(tmp_path)


def check_results(folder: Path) -> None:
    """The files that the page speaks of are there, and hold what it says."""
    scores = json.loads((folder / "annotation" / "scores.json").read_text())
    assert scores["genes"]["exact stop"]["f1"] > 0.7
    genes = read_genes(folder / "annotation" / "genes.gff3")
    proteins = list(read_proteins(folder / "proteins.faa"))
    assert len(genes) == len(proteins) > 50
    assert all(protein.letters.startswith("M") and "X" not in protein.letters for protein in proteins)
    for track in ("CDS+0", "CDS-2", "intergenic"):
        (file,) = (folder / "annotation" / "tracks").glob(f"{track}.bw")
        with pybigtools.open(str(file)) as opened:
            assert sum(opened.chroms().values()) == 216_969
    assert "<svg" in (folder / "annotation" / "report.html").read_text()

    with pysam.VariantFile(str(folder / "scored.vcf.gz")) as scored:
        found = {
            record.id: record.info["REFORMER_GENE_LLR"][0]
            for record in scored.fetch("NC_079272.1", 62_000, 64_000)
        }
    assert found.keys() == {"before", "silent", "stop", "insertion"}
    assert max(found["stop"], found["insertion"]) < -5 < min(found["before"], found["silent"])
    with gzip.open(folder / "scored.vcf.gz", "rt") as file:
        assert sum(not line.startswith("##") for line in file) == 5
