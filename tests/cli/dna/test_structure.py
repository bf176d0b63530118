"""`reformer dna structure` and `translate` from the outside."""

import json

import pytest

from reformer.cli import main
from reformer.genomics.formats.proteins import read_proteins
from reformer.genomics.structure.recipe import load_structure_recipe
from reformer.genomics.structure.training import StructureTask
from reformer.training.run import train
from tests.genomics.made_structures import made_chain, write_chains
from tests.genomics.structure.test_protein_clusters import random_protein
from tests.training.conftest import TINY_MODEL

TINY = [
    f"model.{key}={json.dumps(value)}" for key, value in {**TINY_MODEL, "local_num_chunks_after": 1}.items()
]
TRAINING = [
    "training.device=cpu",
    "training.eval_every=4",
    "training.save_every=4",
    "training.warmup_steps=1",
]
STAGES = ["training.lengths=[{length: 48, steps: 6, batch_size: 2}, {length: full, steps: 2}]"]


def write_structures(folder):
    folder.mkdir()
    for number in range(6):
        write_chains(
            folder / f"c{number}.pdb", {"A": made_chain(random_protein(number, 40 + 5 * number), 20)}
        )
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("structure")
    structures = write_structures(folder / "structures")
    cache = f"data.cache_dir={folder / 'cache'}"
    words = ["--structures", structures, "--out", folder / "run", *TINY, *TRAINING, *STAGES, cache]
    assert main(["dna", "structure", "train", *map(str, words)]) == 0
    return folder / "run"


def test_the_run_folder_says_how_well_chains_are_predicted(run):
    every = json.loads((run / "scores.json").read_text())
    assert {name: scores["chains"] for name, scores in every.items()} == {"test": 2, "validation": 1}
    for scores in every.values():
        assert sum(map(sum, scores["confusion"])) == scores["residues"]
    scores = every["validation"]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    evaluations = [line for line in lines if "eval" in line]
    assert [(line["step"], line["eval"]) for line in evaluations] == [(4, "validation"), (8, "validation")]
    best = min(evaluations, key=lambda line: line["bits_per_token"])
    assert best["q3_by_chain"] == pytest.approx(scores["q3_by_chain"])
    report = (run / "report.html").read_text()
    shown = [f"Secondary structure: {name}" for name in every]
    for text in (*shown, "H, helix", "By chain", f"{every['test']['q3_by_chain']:.4f}"):
        assert text in report
    assert json.loads((run / "model" / "config.json").read_text())["id2label"] == {
        "0": "H",
        "1": "E",
        "2": "C",
    }


def losses(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


class StoppedTask(StructureTask):
    """Fails in the step after the sixth, as a run that is killed does."""

    def trainer(self, *arguments, **options):
        trainer = super().trainer(*arguments, **options)
        step = trainer.training_step

        def training_step(*args, **kwargs):
            if trainer.state.global_step == 6:
                raise InterruptedError
            return step(*args, **kwargs)

        trainer.training_step = training_step
        return trainer


def test_an_interrupted_run_goes_on_as_if_it_had_not_been(run, run_command, tmp_path):
    again = tmp_path / "again"
    recipe = load_structure_recipe(run / "recipe.yaml", [f"output_dir={again}", "training.save_every=3"])
    with pytest.raises(InterruptedError):
        train(recipe, task=StoppedTask(recipe))
    assert losses(again) == losses(run)[:6]
    assert not (again / "model").exists()
    assert run_command("dna", "structure", "train", again / "recipe.yaml", "--resume").code == 0
    assert losses(again) == losses(run)
    assert (again / "scores.json").read_text() == (run / "scores.json").read_text()
    outcome = run_command("dna", "structure", "train", again / "recipe.yaml", "--resume")  # nothing is left
    assert (outcome.code, outcome.out) == (0, "")


def test_a_run_is_not_resumed_on_other_structures(run, run_command, tmp_path):
    structures = write_structures(tmp_path / "more")
    words = ["structure", "train", run / "recipe.yaml", f"data.train=[{structures}]", "output_dir=other"]
    assert run_command("dna", *words).code == 0
    write_chains(structures / "z.pdb", {"A": made_chain(random_protein(77, 50), 20)})
    outcome = run_command("dna", *words, "--resume")
    assert (outcome.code, outcome.err.splitlines()[-1]) == (
        2,
        f"reformer: error: {tmp_path / 'other'}: began with 6 training files, now there are 7",
    )


def test_predictions_in_both_formats(run, run_command, tmp_path):
    proteins = {"p1": random_protein(50, 70), "p2": random_protein(51, 130)}
    (tmp_path / "p.faa").write_text("".join(f">{name} d\n{text}\n" for name, text in proteins.items()))
    outcome = run_command("dna", "structure", "predict", run, "p.faa", "out.tsv")
    assert (outcome.code, outcome.out, outcome.err) == (0, "out.tsv: 2 proteins\n", "")
    header, *lines = [line.split("\t") for line in (tmp_path / "out.tsv").read_text().splitlines()]
    assert header == ["protein", "position", "residue", "class", "p_H", "p_E", "p_C"]
    for name, text in proteins.items():
        rows = [line for line in lines if line[0] == name]
        assert "".join(row[2] for row in rows) == text
        assert [int(row[1]) for row in rows] == list(range(1, len(text) + 1))
        for row in rows:
            probabilities = dict(zip("HEC", map(float, row[4:]), strict=True))
            assert probabilities[row[3]] == max(probabilities.values())
            assert sum(probabilities.values()) == pytest.approx(1, abs=2e-4)
    made = json.loads((tmp_path / "out.tsv.json").read_text())
    assert made["options"]["proteins"] == str(tmp_path / "p.faa")
    assert run_command("dna", "structure", "predict", run, "p.faa", "out.fa").code == 0
    assert json.loads((tmp_path / "out.fa.json").read_text()) == made
    text = (tmp_path / "out.fa").read_text()
    records = {r.split()[0]: "".join(r.splitlines()[1:]) for r in text.split(">")[1:]}
    assert records == {name: "".join(line[3] for line in lines if line[0] == name) for name in proteins}


def test_errors_are_one_line(run, run_command, tmp_path):
    (tmp_path / "p.faa").write_text(">a\nMKV\n>b\nMK1\n")
    (tmp_path / "g.fa").write_text(">c\nACGT\n")
    cases = [
        (
            ("structure", "predict", run, "p.faa", "x.tsv"),
            "p.faa, line 4: column 3, record 'b': '1' is not the letter",
        ),
        (
            ("structure", "predict", run, "p.faa", "x.txt"),
            "x.txt: expected a name that ends with .tsv, .fa, .fasta",
        ),
        (
            ("structure", "predict", run / "recipe.yaml", "p.faa", "x.tsv"),
            "recipe.yaml: a file; expected the folder",
        ),
        (("structure", "train"), "expected a recipe, or --structures and --out"),
        (
            ("structure", "train", run / "recipe.yaml", "structure.classes=4"),
            "structure.classes: expected 3 or 8",
        ),
        (
            ("structure", "train", run / "recipe.yaml", "data.held_out_records=[a]"),
            "data.held_out_records: not for",
        ),
        (
            ("structure", "train", run / "recipe.yaml", "structure.validation=0.9"),
            "structure.test: 0.2, and validation is 0.9: nothing would be left to train on",
        ),
        (
            ("structure", "train", run / "recipe.yaml", "data.eval={test: [g.fa]}"),
            "structure.test: data.eval has such a set: expected 0, got 0.2",
        ),
        (
            ("structure", "train", run / "recipe.yaml", "training.objective=masked"),
            "unknown key training.objective",
        ),
        (("translate", "g.fa", "g.txt", "x.faa"), "g.txt"),
    ]
    for words, message in cases:
        outcome = run_command("dna", *words)
        assert outcome.code == 2, words
        assert message in outcome.err
        assert outcome.err.count("\n") == 1
    assert not list(tmp_path.glob("*x.*"))


def test_translate_writes_proteins_and_warns(run_command, tmp_path):
    (tmp_path / "g.fa").write_text(">c\nATGTAAGCTTGA\n")  # in code 6, TAA is Q and TGA the stop
    (tmp_path / "g.gff3").write_text("##gff-version 3\nc\t.\tCDS\t1\t12\t.\t+\t0\tID=one\n")
    outcome = run_command("dna", "translate", "g.fa", "g.gff3", "p.faa")
    assert (outcome.code, outcome.out) == (0, "p.faa: 1 proteins\n")
    assert outcome.err.startswith("reformer: warning: gene ")
    assert outcome.err.endswith("stop codon before the end, residue 2 of 3: now X\n")
    assert [p.letters for p in read_proteins(tmp_path / "p.faa")] == ["MXA"]
    assert run_command("dna", "translate", "g.fa", "g.gff3", "q.faa", "--code", "6").err == ""
    assert [p.letters for p in read_proteins(tmp_path / "q.faa")] == ["MQA"]
    assert "genetic code 7" in run_command("dna", "translate", "g.fa", "g.gff3", "r.faa", "--code", "7").err
