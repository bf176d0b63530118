"""`reformer dna tracks` from the outside."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pybigtools
import pytest
import yaml

from reformer.cli import main
from reformer.genomics.formats.tracks import write_bigwig
from tests.cli.conftest import RunCommand
from tests.training.conftest import TINY_MODEL

LENGTHS = {"a": 3000, "b": 1100}


def write_genome(folder: Path, name: str, seed: int) -> tuple[Path, list[Path]]:
    """A genome and two tracks of it, one a strand: 20 where C is, or where G is; elsewhere no value."""
    generator = np.random.default_rng(seed)
    texts = {record: "".join(generator.choice(list("ACGT"), size)) for record, size in LENGTHS.items()}
    fasta = folder / f"{name}.fa"
    fasta.write_text("".join(f">{record}\n{text}\n" for record, text in texts.items()))
    tracks = []
    for track, letter in (("plus", "C"), ("minus", "G")):
        (folder / name).mkdir(exist_ok=True)
        tracks.append(folder / name / f"{track}.bw")
        blocks = [
            (record, 0, np.where(np.array(list(text)) == letter, 20.0, np.nan))
            for record, text in texts.items()
        ]
        write_bigwig(tracks[-1], LENGTHS, blocks)
    return fasta, tracks


def recipe_values(folder: Path) -> dict[str, Any]:
    (train, tracks), (other, measured) = (write_genome(folder, name, n) for n, name in enumerate("xy"))
    return {
        "data": {
            "train": [str(train)],
            "eval": {"other": [str(other)]},
            "reverse_complement": True,
            "held_out_records": ["b"],
            "cache_dir": str(folder / "cache"),
        },
        "tracks": {
            "train": list(map(str, tracks)),
            "eval": {"other": list(map(str, measured))},
            "levels": 4,
            "strands": [["plus", "minus"]],
        },
        "model": {**TINY_MODEL, "local_num_chunks_after": 1},
        "training": {
            "lengths": [{"length": 256, "steps": 60, "batch_size": 2}],
            "eval_every": 30,
            "save_every": 30,
            "learning_rate": 0.02,
            "device": "cpu",
        },
        "output_dir": str(folder / "run"),
    }


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def write_recipe(folder: Path, values: dict[str, Any]) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture(scope="session")
def tracks_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run; not to be changed."""
    folder = tmp_path_factory.mktemp("tracks")
    assert main(["dna", "tracks", "train", str(write_recipe(folder, recipe_values(folder)))]) == 0
    return folder


def test_a_model_learns_tracks(tracks_run: Path) -> None:
    lines = [json.loads(line) for line in (tracks_run / "run" / "metrics.jsonl").read_text().splitlines()]
    evaluations = [line for line in lines if "eval" in line]
    assert {line["eval"] for line in evaluations} == {"other", "held_out"}
    for line in evaluations[-2:]:
        assert line["pearson_r"].keys() == {"plus", "minus"}
        assert all(r > 0.95 for r in line["pearson_r"].values())
        assert line["bits_per_token"] < 0.2
    sources = json.loads((tracks_run / "run" / "data.json").read_text())
    assert [Path(one["path"]).name for one in sources["train"]["files"]] == ["x.fa", "plus.bw", "minus.bw"]
    assert (tracks_run / "run" / "report.html").exists()


def test_predicted_tracks_are_those_of_the_genome(
    run_command: RunCommand, tracks_run: Path, tmp_path: Path
) -> None:
    measured = [str(tracks_run / "y" / f"{name}.bw") for name in ("plus", "minus")]
    options = [word for file in measured for word in ("--measured", file)]
    command = ("dna", "tracks", "predict", str(tracks_run / "run"), str(tracks_run / "y.fa"))
    outcome = run_command(*command, "--out", str(tmp_path / "out"), *options)
    assert outcome.code == 0
    assert outcome.err == ""
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert all(r > 0.95 for of in scores.values() for r in of.values())
    for name, file in zip(("plus", "minus"), measured, strict=True):
        found, true = (
            pybigtools.open(path).values("a", fillna=0)
            for path in (str(tmp_path / "out" / "tracks" / f"{name}.bw"), file)
        )
        assert found.shape == true.shape == (3000,)
        assert np.corrcoef(found, true)[0, 1] == pytest.approx(scores[name]["pearson_r"], abs=0.02)
        assert np.abs(found - true).mean() < 2
    report = (tmp_path / "out" / "report.html").read_text()
    assert report.count('class="plot"') == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "provenance.json",
        "report.html",
        "scores.json",
        "tracks",
    ]
    again = run_command(*command, "--out", str(tmp_path / "again"), *options)
    assert again.code == 0
    for name in ("plus", "minus"):
        first, second = (tmp_path / folder / "tracks" / f"{name}.bw" for folder in ("out", "again"))
        assert first.read_bytes() == second.read_bytes()


def test_windows_that_overlap_give_nearly_what_one_pass_does(
    run_command: RunCommand, tracks_run: Path, tmp_path: Path
) -> None:
    for name, window in (("whole", ()), ("cut", ("--window", "700", "--overlap", "200"))):
        command = ("dna", "tracks", "predict", str(tracks_run / "run"), str(tracks_run / "y.fa"))
        assert run_command(*command, "--out", str(tmp_path / name), *window).code == 0
    whole, cut = (
        pybigtools.open(str(tmp_path / name / "tracks" / "plus.bw")).values("a", fillna=0)
        for name in ("whole", "cut")
    )
    assert np.corrcoef(whole, cut)[0, 1] > 0.99


def test_both_strands_agree(tracks_run: Path) -> None:
    from reformer.data.nucleotides import reverse_complement
    from reformer.genomics.tracks.predictor import TrackPredictor
    from reformer.training.corpus import open_corpus

    predictor = TrackPredictor.load(tracks_run / "run")
    array = open_corpus([tracks_run / "y.fa"])
    tokens = np.array(array.window(0, 500))
    forward, backward = predictor.predict(tokens), predictor.predict(reverse_complement(tokens))
    np.testing.assert_allclose(forward, backward[::-1, ::-1], rtol=1e-4, atol=1e-4)


def test_a_track_model_begins_with_a_language_model(
    run_command: RunCommand, tracks_run: Path, tmp_path: Path
) -> None:
    values = recipe_values(tmp_path)
    pretrain = {
        "data": {key: values["data"][key] for key in ("train", "reverse_complement", "cache_dir")},
        "model": values["model"],
        "training": {**values["training"], "objective": "masked", "lengths": [{"length": 256, "steps": 2}]},
        "output_dir": str(tmp_path / "pretrained"),
    }
    (tmp_path / "pretrain.yaml").write_text(yaml.safe_dump(pretrain))
    assert run_command("train", str(tmp_path / "pretrain.yaml")).code == 0
    del values["model"]
    values["training"]["start_from"] = str(tmp_path / "pretrained")
    values["training"]["lengths"] = [{"length": 256, "steps": 2}]
    outcome = run_command("dna", "tracks", "train", str(write_recipe(tmp_path, values)))
    assert outcome.code == 0
    assert "new: classifier" in outcome.err


def test_bases_of_a_track_model_are_embedded(
    run_command: RunCommand, tracks_run: Path, tmp_path: Path
) -> None:
    import pyarrow.parquet as parquet

    out = tmp_path / "vectors.parquet"
    command = ("dna", "embed", str(tracks_run / "run"), str(tracks_run / "y.fa"), str(out))
    assert run_command(*command).code == 0
    assert parquet.read_table(out).num_rows == len(LENGTHS)


def test_variants_are_scored_by_tracks(run_command: RunCommand, tracks_run: Path, tmp_path: Path) -> None:
    import pysam

    letters = (tracks_run / "y.fa").read_text().split("\n")[1]
    sites = [(1000 + letters[1000:].index(base), base, other) for base, other in ("CT", "TC", "AT", "GA")]
    lines = [f"a\t{at + 1}\t.\t{ref}\t{alt}\t.\t.\t." for at, ref, alt in sorted(sites)]
    header = "##fileformat=VCFv4.2\n##contig=<ID=a>\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    (tmp_path / "v.vcf").write_text(header + "\n".join(lines) + "\n")
    command = ("dna", "score", str(tracks_run / "run"), str(tmp_path / "v.vcf"), str(tracks_run / "y.fa"))
    outcome = run_command(*command, str(tmp_path / "out.vcf.gz"))
    assert outcome.code == 0, outcome.err
    with pysam.VariantFile(str(tmp_path / "out.vcf.gz")) as file:
        scored = {
            record.ref + record.alts[0]: [
                record.info[f"REFORMER_TRACK_{name}"][0] for name in ("plus", "minus")
            ]
            for record in file
        }
    assert scored["CT"][0] < -0.001 < scored["TC"][0]
    assert scored["GA"][1] < -0.001
    assert abs(scored["AT"][0]) < scored["TC"][0] / 2


def test_a_run_resumes_with_the_same_losses(tracks_run: Path, tmp_path: Path) -> None:
    from reformer.genomics.tracks.recipe import load_tracks_recipe
    from reformer.genomics.tracks.training import TracksTask, TrackTrainer
    from reformer.training.run import train

    recipe = load_tracks_recipe(
        tracks_run / "recipe.yaml", [f"output_dir={tmp_path}/again", "training.save_every=20"]
    )

    class StoppedError(Exception):
        pass

    class StoppedTask(TracksTask):
        def trainer(self, *arguments: Any, **options: Any) -> TrackTrainer:
            trainer = super().trainer(*arguments, **options)
            step = trainer.training_step

            def training_step(*args: Any, **kwargs: Any) -> Any:
                if trainer.state.global_step == 25:
                    raise StoppedError
                return step(*args, **kwargs)

            trainer.training_step = training_step  # type: ignore[method-assign]
            return trainer

    with pytest.raises(StoppedError):
        train(recipe, task=StoppedTask(recipe))
    train(recipe, resume=True, task=TracksTask(recipe))
    assert losses(tmp_path / "again") == losses(tracks_run / "run")


def test_an_equivariant_model_is_so_with_tracks_that_change_places(
    run_command: RunCommand, tmp_path: Path
) -> None:
    from reformer.data.nucleotides import reverse_complement
    from reformer.genomics.tracks.predictor import TrackPredictor
    from reformer.training.corpus import open_corpus

    values = recipe_values(tmp_path)
    values["model"]["rc_equivariant"] = True
    values["training"]["lengths"] = [{"length": 256, "steps": 3}]
    for section in ("data", "tracks"):
        values[section]["eval"] = {"train": values[section]["eval"]["other"]}  # a name like any other
    assert run_command("dna", "tracks", "train", str(write_recipe(tmp_path, values))).code == 0
    predictor = TrackPredictor.load(tmp_path / "run")
    tokens = np.array(open_corpus([tmp_path / "y.fa"]).window(0, 500))
    forward, backward = (
        predictor.predict(strand, both_strands=False) for strand in (tokens, reverse_complement(tokens))
    )
    np.testing.assert_allclose(forward, backward[::-1, ::-1], rtol=1e-6)
    files = json.loads((tmp_path / "run" / "data.json").read_text())["eval.train"]["files"]
    assert [Path(one["path"]).parent.name for one in files[1:]] == ["y", "y"]
    assert np.abs(forward - backward[::-1]).max() > 1e-3


def broken(folder: Path, kind: str) -> dict[str, Any]:
    """A recipe with one thing wrong."""
    values = recipe_values(folder)
    track = folder / "x" / "plus.bw"
    content = track.read_bytes()
    if kind == "missing":
        track.unlink()
    elif kind == "empty":
        track.write_bytes(b"")
    elif kind == "text":
        track.write_text("fixedStep chrom=a start=1 step=1\n1\n" * 9)
    elif kind == "cut":
        track.write_bytes(content[: len(content) // 3])
    elif kind == "other names":
        write_bigwig(track, {"chra": 3000}, [("chra", 0, np.ones(9))])
    elif kind == "other length":
        write_bigwig(track, {"a": 2999}, [("a", 0, np.ones(9))])
    elif kind == "all alike":
        write_bigwig(track, LENGTHS, [(name, 0, np.ones(size)) for name, size in LENGTHS.items()])
        values["tracks"]["strands"] = []
    elif kind == "one name twice":
        values["tracks"]["train"] = [str(track)] * 2
    elif kind == "no such strand":
        values["tracks"]["strands"] = [["plus", "mynus"]]
    elif kind == "too few held out":
        values["tracks"]["eval"]["other"].pop()
    elif kind == "too many levels":
        values["tracks"]["levels"] = 65
    return values


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "plus.bw: No such file or directory"),
        ("empty", "plus.bw: empty: expected bigWig"),
        ("text", "plus.bw: expected bigWig, found something else"),
        ("cut", "plus.bw: truncated: expected more than its"),
        ("other names", "sequence 'chra' is not in"),
        ("other length", "plus.bw: 'a' has 2,999 bases, in"),
        ("all alike", "plus.bw: all its values are alike: nothing to learn"),
        ("one name twice", "tracks.train: two files are called 'plus'"),
        ("no such strand", "tracks.strands: no track 'mynus'"),
        ("too few held out", "tracks.eval.other: 1 files: expected 2"),
        ("too many levels", "tracks.levels"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    run_command: RunCommand, tmp_path: Path, kind: str, message: str
) -> None:
    outcome = run_command("dna", "tracks", "train", str(write_recipe(tmp_path, broken(tmp_path, kind))))
    assert outcome.code == 2
    (line,) = outcome.err.splitlines()
    assert message in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--measured", "x/plus.bw"), "--measured: 1 files: expected one for each of plus, minus"),
        (("--region", "a:1-9999"), "expected bases of 1 to 3,000"),
        (("--window", "10", "--overlap", "5"), "expected more than twice the overlap"),
    ],
)
def test_predict_says_what_is_wrong(
    run_command: RunCommand,
    tracks_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tracks_run)
    outcome = run_command("dna", "tracks", "predict", "run", "y.fa", "--out", str(tmp_path / "out"), *words)
    assert outcome.code == 2
    (line,) = outcome.err.splitlines()
    assert message in line
    assert not (tmp_path / "out").exists()


def test_a_folder_of_another_model_is_refused(
    run_command: RunCommand, tracks_run: Path, tmp_path: Path
) -> None:
    settings = tracks_run / "run" / "model" / "tracks.json"
    copy = tmp_path / "model"
    copy.mkdir()
    for file in settings.parent.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    command = ("dna", "tracks", "predict", str(copy), str(tracks_run / "y.fa"), "--out", str(tmp_path / "o"))
    content = json.loads(settings.read_text())
    content["levels"][0]["values"].pop()
    (copy / "tracks.json").write_text(json.dumps(content))
    assert "as many levels of each track" in run_command(*command).err
    (copy / "tracks.json").write_text(settings.read_text()[:40])
    assert "tracks.json" in run_command(*command).err
    (copy / "tracks.json").unlink()
    assert "expected a model of `reformer dna tracks train`" in run_command(*command).err
    assert not (tmp_path / "o").exists()
