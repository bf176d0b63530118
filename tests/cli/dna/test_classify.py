"""`reformer dna classify` from the outside."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from reformer.cli import main
from tests.cli.conftest import RunCommand
from tests.training.conftest import TINY_MODEL


def write_sequences(folder: Path, seed: int, number: int = 24) -> tuple[Path, Path]:
    """Sequences of several lengths, rich in G and C or poor in it, and their labels."""
    generator = np.random.default_rng(seed)
    fasta, labels = [], []
    for row in range(number):
        is_rich = row % 2 == 0
        shares = [0.1, 0.4, 0.4, 0.1] if is_rich else [0.4, 0.1, 0.1, 0.4]
        letters = "".join(generator.choice(list("ACGT"), generator.integers(20, 90), p=shares))
        fasta.append(f">s{row}\n{letters}\n")
        labels.append(f"s{row}\t{'rich' if is_rich else 'poor'}\n")
    sequences, names = folder / f"s{seed}.fa", folder / f"l{seed}.tsv"
    sequences.write_text("".join(fasta))
    names.write_text("".join(labels))
    return sequences, names


def recipe_values(folder: Path) -> dict[str, Any]:
    train, other = write_sequences(folder, 0), write_sequences(folder, 1)
    return {
        "data": {
            "train": [str(train[0])],
            "eval": {"other": [str(other[0])]},
            "reverse_complement": True,
            "cache_dir": str(folder / "cache"),
        },
        "classification": {
            "train": [str(train[1])],
            "eval": {"other": [str(other[1])]},
            "folds": 4,
            "class_weights": "balanced",
            "kmer": 1,
        },
        "model": {**TINY_MODEL, "local_num_chunks_after": 1, "classifier_pooling": "mean"},
        "training": {
            "lengths": [{"length": 64, "steps": 24, "batch_size": 4}],
            "eval_every": 8,
            "save_every": 8,
            "learning_rate": 0.01,
            "device": "cpu",
        },
        "output_dir": str(folder / "run"),
    }


def lines_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in lines_of(run) if "loss" in line]


@pytest.fixture(scope="session")
def classification_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; not to be changed."""
    folder = tmp_path_factory.mktemp("classification")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe_values(folder)))
    assert main(["dna", "classify", "train", str(folder / "recipe.yaml")]) == 0
    return folder / "run"


def test_a_run_leaves_a_model_metrics_and_a_report(classification_run: Path) -> None:
    assert len(losses(classification_run)) == 24
    found = [(line["step"], line["eval"]) for line in lines_of(classification_run) if "accuracy" in line]
    assert found == [(step, name) for step in (8, 16, 24) for name in ("other", "validation")]
    settings = json.loads((classification_run / "model" / "classification.json").read_text())
    assert settings["classes"] == ["poor", "rich"]
    assert settings["temperature"] != 1
    data = json.loads((classification_run / "data.json").read_text())
    assert [data[key]["records"] for key in ("train", "eval.test", "eval.validation")] == [12, 6, 6]
    assert [Path(file["path"]).name for file in data["eval.other"]["files"]] == ["s1.fa", "l1.tsv"]
    report = (classification_run / "report.html").read_text()
    assert "bits per sequence" in report
    assert "per token" not in report
    assert report.index("Labels: other") < report.index("Labels: test")
    assert "no choice was made by these sequences" in report


def test_the_test_part_is_scored_by_the_kept_model_and_chooses_nothing(
    classification_run: Path, tmp_path: Path, run_command: RunCommand
) -> None:
    scores = json.loads((classification_run / "scores.json").read_text())
    assert list(scores) == ["other", "test", "validation"]
    sequences, labels = (classification_run.parent / name for name in ("s1.fa", "l1.tsv"))
    command = ["dna", "classify", "predict", classification_run, sequences, "--labels", labels]
    assert run_command(*command, "--out", tmp_path / "out").code == 0
    assert json.loads((tmp_path / "out" / "scores.json").read_text()) == scores["other"]
    settings = json.loads((classification_run / "model" / "classification.json").read_text())
    # With labels of the test part turned round, the kept weights and the temperature are the same.
    values = recipe_values(tmp_path)
    from reformer.genomics.classification.data import ClassificationData
    from reformer.genomics.classification.recipe import load_classification_recipe

    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    data = ClassificationData.of(load_classification_recipe(tmp_path / "recipe.yaml"))
    tested = {record.name for record in data.held_out["test"].records}
    opposite = {"rich": "poor", "poor": "rich"}
    text = (tmp_path / "l0.tsv").read_text()
    pairs = [line.split("\t") for line in text.splitlines()]
    fasta = (tmp_path / "s0.fa").read_text().split(">")[1:]
    parts = {True: ("test.fa", "test.tsv"), False: ("rest.fa", "rest.tsv")}
    for is_tested, (file, table) in parts.items():
        (tmp_path / file).write_text("".join(f">{r}" for r in fasta if (r.split()[0] in tested) == is_tested))
        (tmp_path / table).write_text(
            "".join(
                f"{name}\t{opposite[label] if is_tested else label}\n"
                for name, label in pairs
                if (name in tested) == is_tested
            )
        )
    validation = [record.name for record in data.held_out["validation"].records]
    values["data"] |= {"train": [str(tmp_path / "rest.fa")], "held_out_records": validation}
    values["data"]["eval"]["test"] = [str(tmp_path / "test.fa")]
    values["classification"] |= {"train": [str(tmp_path / "rest.tsv")], "folds": 0}
    values["classification"]["eval"]["test"] = [str(tmp_path / "test.tsv")]
    values["output_dir"] = str(tmp_path / "turned")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    assert run_command("dna", "classify", "train", tmp_path / "recipe.yaml").code == 0
    turned = json.loads((tmp_path / "turned" / "model" / "classification.json").read_text())
    assert turned == settings
    others = json.loads((tmp_path / "turned" / "scores.json").read_text())
    assert others["other"] == scores["other"]
    assert others["test"]["accuracy"] == pytest.approx(1 - scores["test"]["accuracy"])


def several_labels(folder: Path, **changes: Any) -> Path:
    """A recipe whose sequences have a label by their composition, and one by their length."""
    values = recipe_values(folder)
    for number in (0, 1):
        records = (folder / f"s{number}.fa").read_text().split(">")[1:]
        longer = [name for name, letters in map(str.split, records) if len(letters) > 50]
        with (folder / f"l{number}.tsv").open("a") as file:
            file.writelines(f"{name}\tlong\n" for name in longer)
    values["classification"] |= {"class_weights": "none", "problem_type": "multi_label_classification"}
    values["model"] |= changes
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
    return folder / "recipe.yaml"


def test_several_labels_are_learnt_predicted_and_scored(tmp_path: Path, run_command: RunCommand) -> None:
    recipe = several_labels(tmp_path)
    outcome = run_command("dna", "classify", "train", recipe)
    assert outcome.code == 0, outcome.err
    run, out = tmp_path / "run", tmp_path / "out"
    config = json.loads((run / "model" / "config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"
    assert {line["per"] for line in lines_of(run)} == {"label"}
    command = ["dna", "classify", "predict", run, tmp_path / "s1.fa", "--labels", tmp_path / "l1.tsv"]
    assert run_command(*command, "--out", out).code == 0
    scores = json.loads((out / "scores.json").read_text())
    assert scores == json.loads((run / "scores.json").read_text())["other"]
    assert scores["macro_average_precision"] > 0.6
    probabilities = np.loadtxt(out / "probabilities.tsv", delimiter="\t", usecols=(1, 2, 3))
    _, *rows = (line.split("\t") for line in (out / "predictions.tsv").read_text().splitlines())
    true = np.array([[label in row[2].split(";") for label in ("long", "poor", "rich")] for row in rows])
    assert true.sum() == len((tmp_path / "l1.tsv").read_text().splitlines()) > 24
    right = true & (probabilities >= 0.5)
    assert scores["micro_f1"] == pytest.approx(2 * right.sum() / (true.sum() + (probabilities >= 0.5).sum()))
    counts = np.loadtxt(out / "confusion.tsv", delimiter="\t", usecols=(1, 2, 3, 4))
    assert counts.sum(axis=1).tolist() == [24] * 3
    assert counts[:, 0].tolist() == right.sum(axis=0).tolist()
    assert "average precision" in (out / "report.html").read_text()
    refused = run_command("dna", "classify", "train", recipe, "classification.class_weights=balanced")
    assert "expected none where problem_type is multi_label_classification" in refused.err


def test_a_model_of_both_strands_reads_either_alike(tmp_path: Path, run_command: RunCommand) -> None:
    from reformer.genomics.coordinates import reverse_complement

    values = recipe_values(tmp_path)
    values["model"]["rc_equivariant"] = True
    values["classification"]["kmer"] = 3
    values["training"]["lengths"][0]["steps"] = 4
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    assert run_command("dna", "classify", "train", tmp_path / "recipe.yaml").code == 0
    records = [record.split() for record in (tmp_path / "s1.fa").read_text().split(">")[1:]]
    assert {len(letters) % 3 for _, letters in records} == {0, 1, 2}
    (tmp_path / "other.fa").write_text("".join(f">{n}\n{reverse_complement(x)}\n" for n, x in records))
    found = []
    for file in ("s1.fa", "other.fa"):
        command = [
            "dna",
            "classify",
            "predict",
            tmp_path / "run",
            tmp_path / file,
            "--out",
            tmp_path / f"{file}.out",
        ]
        assert run_command(*command).code == 0
        found.append((tmp_path / f"{file}.out" / "probabilities.tsv").read_text())
    assert found[0] == found[1]
    changes = ("classification.kmer=2", f"output_dir={tmp_path / 'no'}")
    refused = run_command("dna", "classify", "train", tmp_path / "recipe.yaml", *changes)
    assert refused.code == 2
    assert "classification.kmer: k is 2: expected an odd number" in refused.err


def test_a_run_resumes_with_the_same_losses(classification_run: Path, tmp_path: Path) -> None:
    from reformer.genomics.classification.recipe import load_classification_recipe
    from reformer.genomics.classification.training import ClassificationTask, ClassificationTrainer
    from reformer.training.run import train

    recipe = load_classification_recipe(
        classification_run.parent / "recipe.yaml", [f"output_dir={tmp_path}/again", "training.save_every=2"]
    )

    class StoppedError(Exception):
        pass

    class StoppedTask(ClassificationTask):
        def trainer(self, *arguments: Any, **options: Any) -> ClassificationTrainer:
            trainer = super().trainer(*arguments, **options)
            step = trainer.training_step

            def training_step(*args: Any, **kwargs: Any) -> Any:
                if trainer.state.global_step == 5:
                    raise StoppedError
                return step(*args, **kwargs)

            trainer.training_step = training_step  # type: ignore[method-assign]
            return trainer

    with pytest.raises(StoppedError):
        train(recipe, task=StoppedTask(recipe))
    assert len(losses(tmp_path / "again")) == 5
    train(recipe, resume=True, task=ClassificationTask(recipe))
    assert losses(tmp_path / "again") == losses(classification_run)


def test_a_prediction_leaves_tables_scores_and_a_report(
    classification_run: Path, tmp_path: Path, run_command: RunCommand
) -> None:
    sequences, labels = (classification_run.parent / name for name in ("s1.fa", "l1.tsv"))
    out = tmp_path / "out"
    command = ["dna", "classify", "predict", classification_run, sequences, "--out", out, "--labels", labels]
    outcome = run_command(*command, "--both-strands", "--top", "5")
    assert outcome.code == 0, outcome.err
    assert str(out / "predictions.tsv") in outcome.out
    assert sorted(path.name for path in out.iterdir()) == [
        *("confusion.tsv", "predictions.tsv", "probabilities.tsv"),
        *("provenance.json", "report.html", "scores.json"),
    ]
    header, *rows = (line.split("\t") for line in (out / "predictions.tsv").read_text().splitlines())
    assert header == ["#sequence", "bases", "true", "label_1", "probability_1", "label_2", "probability_2"]
    probabilities = np.loadtxt(out / "probabilities.tsv", delimiter="\t", usecols=(1, 2))
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert [float(row[4]) for row in rows] == pytest.approx(probabilities.max(axis=1).tolist())
    scores = json.loads((out / "scores.json").read_text())
    assert scores["accuracy"] == np.mean([row[2] == row[3] for row in rows])
    assert scores["accuracy"] > 0.8
    assert {"macro_f1", "expected_calibration_error", "expected_calibration_error_before"} <= scores.keys()
    counts = np.loadtxt(out / "confusion.tsv", delimiter="\t", usecols=(1, 2))
    assert counts.sum(axis=1).tolist() == [12, 12]
    page = (out / "report.html").read_text()
    assert page.count("<svg") >= 2
    assert "Confusion" in page


def test_without_labels_there_are_no_scores(
    classification_run: Path, tmp_path: Path, run_command: RunCommand
) -> None:
    sequences = classification_run.parent / "s1.fa"
    out = tmp_path / "out"
    assert run_command("dna", "classify", "predict", classification_run, sequences, "--out", out).code == 0
    assert sorted(path.name for path in out.iterdir()) == [
        *("predictions.tsv", "probabilities.tsv", "provenance.json", "report.html")
    ]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("s0\trich\n", "sequence 's1' has no label"),
        ("s0\tblue\ns1\tpoor\n", "line 1: label 'blue' is unknown: expected one of 'poor', 'rich'"),
        ("s0\trich\ns1\tpoor\ns2\tpoor\n", "'s2' not in"),
    ],
)
def test_mistakes_of_a_prediction_are_one_line_and_leave_nothing(
    classification_run: Path, tmp_path: Path, run_command: RunCommand, labels: str, message: str
) -> None:
    (tmp_path / "s.fa").write_text(">s0\nACGT\n>s1\nACCA\n")
    (tmp_path / "l.tsv").write_text(labels)
    command = ["dna", "classify", "predict", classification_run, tmp_path / "s.fa", "--out", tmp_path / "out"]
    outcome = run_command(*command, "--labels", tmp_path / "l.tsv")
    assert outcome.code == 2
    assert message in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda labels, fasta: (labels.replace("s3\tpoor\n", ""), fasta), "sequence 's3' has no label"),
        (lambda labels, fasta: (labels + "x\trich\n", fasta), "'x' not in"),
        (lambda labels, fasta: (labels.replace("s3\tpoor", "s3\tblue"), fasta), "class 'blue' has a single"),
        (lambda labels, fasta: (labels.replace("rich", "poor"), fasta), "one class, 'poor'"),
        (lambda labels, fasta: (labels, fasta + ">empty\n"), "record 'empty' has no sequence"),
        (lambda labels, fasta: (labels, fasta.replace("A", "E")), "looks like protein"),
    ],
)
def test_mistakes_in_the_data_are_one_line_and_leave_nothing(
    tmp_path: Path, run_command: RunCommand, change: Any, message: str
) -> None:
    sequences, labels = write_sequences(tmp_path, 0)
    changed = change(labels.read_text(), sequences.read_text())
    for path, text in zip((labels, sequences), changed, strict=True):
        path.write_text(text)
    command = ["dna", "classify", "train", "--sequences", sequences, "--labels", labels]
    outcome = run_command(*command, "--out", tmp_path / "run")
    assert outcome.code == 2
    assert message in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_recipes_are_checked(tmp_path: Path, run_command: RunCommand) -> None:
    values = recipe_values(tmp_path)
    for key, value, message in (
        ("folds", 1, "nothing would be left"),
        ("folds", 2, "nothing would be left"),
        ("fold", 4, "expected less than folds, 4"),
        ("kmer", 9, "classification.kmer"),
        ("kmers", 3, "did you mean classification.kmer"),
        ("eval", {}, "'other' is not in classification.eval"),
    ):
        changed = {**values, "classification": {**values["classification"], key: value}}
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(changed))
        outcome = run_command("dna", "classify", "train", tmp_path / "recipe.yaml")
        assert outcome.code == 2
        assert message in outcome.err
    outcome = run_command("dna", "classify", "train", tmp_path / "recipe.yaml", "training.objective=causal")
    assert outcome.code == 2
    assert "unknown key training.objective" in outcome.err
    assert "did you mean" not in outcome.err
    few = ("model.classifier_pooling=flatten", "model.max_position_embeddings=60")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    for length in (60, 64):  # of training sequences, a window is read
        longer = f"training.lengths=[{{length: {length}, steps: 1, batch_size: 1}}]"
        outcome = run_command("dna", "classify", "train", tmp_path / "recipe.yaml", *few, longer)
        assert outcome.code == 2
        assert "bases: expected 60 at most" in outcome.err
        assert ("s0.fa" in outcome.err) == (length == 64)
        assert len(outcome.err.splitlines()) == 1
    assert not (tmp_path / "run").exists()
    outcome = run_command("dna", "classify", "train")
    assert outcome.code == 2
    assert "--sequences, --labels and --out" in outcome.err


def test_another_model_is_refused(finished_run: Path, tmp_path: Path, run_command: RunCommand) -> None:
    (tmp_path / "s.fa").write_text(">a\nACGT\n")
    outcome = run_command(
        "dna", "classify", "predict", finished_run, tmp_path / "s.fa", "--out", tmp_path / "o"
    )
    assert outcome.code == 2
    assert "classification.json is missing" in outcome.err
