"""`reformer dna annotate` from the outside."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pybigtools
import pytest
import yaml
from Bio import SeqIO
from Bio.SeqFeature import SeqFeature, SimpleLocation

from reformer.cli import main
from reformer.genomics.coordinates import reverse_complement
from reformer.genomics.formats.annotation import read_genes
from tests.cli.conftest import RunCommand
from tests.training.conftest import TINY_MODEL

NUM_RECORDS = 3


def write_genome(folder: Path, seed: int, prefix: str = "") -> tuple[Path, Path]:
    """Records of random letters with single-exon genes in them on both strands, and their GFF3."""
    generator = np.random.default_rng(seed)
    codons = ["GCT", "GAA", "AAG", "CTG", "GGT", "ACC"]
    fasta, gff = [], ["##gff-version 3"]
    for record in range(NUM_RECORDS):
        letters = ""
        for number in range(4):
            letters += "".join(generator.choice(list("ACGT"), 60))
            gene = "ATG" + "".join(generator.choice(codons, 40)) + "TAA"
            strand = "+-"[number % 2]
            first = len(letters) + 1
            letters += gene if strand == "+" else reverse_complement(gene)
            gene_name = f"{prefix}r{record}g{number}"
            gff.append(
                f"{prefix}rec{record}\tx\tCDS\t{first}\t{len(letters)}\t.\t{strand}\t0\tID={gene_name}"
            )
        fasta.append(f">{prefix}rec{record}\n{letters}\n")
    genome, genes = folder / f"genome{seed}.fa", folder / f"genes{seed}.gff3"
    genome.write_text("".join(fasta))
    genes.write_text("\n".join(gff) + "\n")
    return genome, genes


def recipe_values(folder: Path) -> dict[str, Any]:
    train, held_out = write_genome(folder, 0), write_genome(folder, 1)
    return {
        "data": {
            "train": [str(train[0])],
            "eval": {"other": [str(held_out[0])]},
            "reverse_complement": True,
            "cache_dir": str(folder / "cache"),
        },
        "annotation": {"train": [str(train[1])], "eval": {"other": [str(held_out[1])]}, "kinds": ["CDS"]},
        "model": {**TINY_MODEL, "local_num_chunks_after": 1},
        "training": {
            "lengths": [{"length": 128, "steps": 6, "batch_size": 2}, {"length": "full", "steps": 2}],
            "eval_every": 4,
            "save_every": 4,
            "learning_rate": 0.01,
            "device": "cpu",
        },
        "output_dir": str(folder / "run"),
    }


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


@pytest.fixture(scope="session")
def annotation_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; not to be changed."""
    folder = tmp_path_factory.mktemp("annotation")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe_values(folder)))
    assert main(["dna", "annotate", "train", str(folder / "recipe.yaml")]) == 0
    return folder / "run"


def test_a_run_leaves_a_model_metrics_and_a_report(annotation_run: Path) -> None:
    assert len(losses(annotation_run)) == 8
    settings = json.loads((annotation_run / "model" / "annotation.json").read_text())
    assert settings["classes"] == ["intergenic", "CDS+0", "CDS+1", "CDS+2", "CDS-0", "CDS-1", "CDS-2"]
    assert settings["grammar"]["starts"] == ["ATG"]
    assert settings["grammar"]["stops"] == ["TAA"]
    assert settings["grammar"]["donor"] is None
    assert sum(settings["grammar"]["class_shares"]) == pytest.approx(1)
    for name in ("coding", "signals"):
        assert (annotation_run / "model" / f"{name}.safetensors").exists()
    lines = [json.loads(line) for line in (annotation_run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "macro_f1" in line] == [4, 8]
    assert (annotation_run / "report.html").exists()
    files = json.loads((annotation_run / "data.json").read_text())["train"]["files"]
    assert [Path(file["path"]).name for file in files] == ["genome0.fa", "genes0.gff3"]


def test_a_run_resumes_with_the_same_losses(annotation_run: Path, tmp_path: Path) -> None:
    from reformer.genomics.annotation.recipe import load_annotation_recipe
    from reformer.genomics.annotation.training import AnnotationTask, AnnotationTrainer
    from reformer.training.run import train

    recipe = load_annotation_recipe(
        annotation_run.parent / "recipe.yaml", [f"output_dir={tmp_path}/again", "training.save_every=2"]
    )

    class StoppedError(Exception):
        pass

    class StoppedTask(AnnotationTask):
        def trainer(self, *arguments: Any, **options: Any) -> AnnotationTrainer:
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
    train(recipe, resume=True, task=AnnotationTask(recipe))
    assert losses(tmp_path / "again") == losses(annotation_run)


def as_genbank(genome: Path, genes: Path) -> Path:
    """A genome and its genes as one GenBank file, written by Biopython."""
    with genome.open() as file:
        records = SeqIO.to_dict(SeqIO.parse(file, "fasta"))
    for gene in read_genes(genes):
        where = SimpleLocation(
            gene.interval.start, gene.interval.end, {"+": 1, "-": -1}[gene.interval.strand]
        )
        record = records[gene.interval.sequence]
        record.annotations["molecule_type"] = "DNA"
        record.features.append(SeqFeature(where, type="CDS", qualifiers={"locus_tag": [gene.name]}))
    path = genome.with_suffix(".gbff")
    SeqIO.write(records.values(), path, "genbank")
    return path


def test_a_genbank_file_is_a_genome_and_its_genes(
    annotation_run: Path, tmp_path: Path, run_command: RunCommand
) -> None:
    """The same losses as of FASTA and GFF3, and the same genes called."""
    fasta, genes = (annotation_run.parent / name for name in ("genome0.fa", "genes0.gff3"))
    shutil.copy(fasta, tmp_path)
    genome = as_genbank(tmp_path / fasta.name, genes)
    command = ["dna", "annotate", "train", annotation_run.parent / "recipe.yaml", "--genome", genome]
    outcome = run_command(*command, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    assert losses(tmp_path / "run") == losses(annotation_run)
    files = json.loads((tmp_path / "run" / "data.json").read_text())["train"]["files"]
    assert [Path(file["path"]).name for file in files] == ["genome0.gbff"] * 2
    found = []
    for name, source, truth in (("a", fasta, genes), ("b", genome, genome)):
        command = ["dna", "annotate", "predict", annotation_run, source, "--out", tmp_path / name]
        assert run_command(*command, "--genes", truth).code == 0
        found.append([(tmp_path / name / file).read_bytes() for file in ("genes.gff3", "scores.json")])
    assert found[0] == found[1]


@pytest.fixture
def prediction(annotation_run: Path, tmp_path: Path, run_command: RunCommand) -> Path:
    genome, genes = (annotation_run.parent / name for name in ("genome1.fa", "genes1.gff3"))
    out = tmp_path / "out"
    command = ["dna", "annotate", "predict", annotation_run, genome, "--out", out, "--genes", genes]
    outcome = run_command(*command, "--region", "rec1:101-400")
    assert outcome.code == 0, outcome.err
    assert str(out / "genes.gff3") in outcome.out
    return out


def test_a_prediction_leaves_standard_files(prediction: Path) -> None:
    assert sorted(path.name for path in prediction.iterdir()) == [
        *("genes.bed", "genes.gff3", "genes.tsv", "provenance.json", "report.html", "scores.json", "tracks")
    ]
    made = json.loads((prediction / "provenance.json").read_text())
    assert made["options"]["windows"] == {"length": 3 << 19, "overlap": 1 << 14}
    assert made["options"]["region"] == "rec1:101-400"
    genes = read_genes(prediction / "genes.gff3")
    assert {gene.interval.sequence for gene in genes} == {f"rec{number}" for number in range(NUM_RECORDS)}
    tracks = sorted((prediction / "tracks").iterdir())
    assert [path.stem for path in tracks] == sorted(
        ["intergenic", "CDS+0", "CDS+1", "CDS+2", "CDS-0", "CDS-1", "CDS-2"]
    )
    values = [pybigtools.open(str(path)).values("rec1", fillna=0) for path in tracks]
    assert np.abs(np.sum(values, axis=0) - 1).max() <= 0.05
    scores = json.loads((prediction / "scores.json").read_text())
    assert scores["decoded"]["classes"]["CDS+"]["true"] == NUM_RECORDS * 2 * 126
    assert scores["genes"]["exact stop"]["true"] == NUM_RECORDS * 4
    assert scores["genes"]["exact stop"]["predicted"] == len(genes)
    assert scores["genes"]["exact stop"]["recall"] > 0.7
    page = (prediction / "report.html").read_text()
    assert "rec1, bases 101 to 400" in page
    assert "<svg" in page


def test_a_model_without_signals_predicts_as_it_did(
    annotation_run: Path, tmp_path: Path, run_command: RunCommand
) -> None:
    """Folders written before signals, lengths and shares of classes were counted lack them."""
    model, genome = tmp_path / "model", annotation_run.parent / "genome1.fa"
    shutil.copytree(annotation_run / "model", model)
    (model / "signals.safetensors").unlink()
    outcome = run_command("dna", "annotate", "predict", model, genome, "--out", tmp_path / "out")
    assert outcome.code == 2
    assert "signals.safetensors: missing" in outcome.err
    settings = json.loads((model / "annotation.json").read_text())
    del settings["signals"], settings["shortest_runs"]
    for rule in (
        "min_gene",
        "coding_base_cost",
        "intron_base_cost",
        "intron_lengths",
        "class_shares",
        "other_splices",
    ):
        del settings["grammar"][rule]
    (model / "annotation.json").write_text(json.dumps(settings))
    outcome = run_command("dna", "annotate", "predict", model, genome, "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    assert read_genes(tmp_path / "out" / "genes.gff3")


def test_windows_of_a_long_record_give_what_one_pass_gives(
    annotation_run: Path, tmp_path: Path, run_command: RunCommand
) -> None:
    """The genes are the same, and the tracks those of the windows, each base at its place."""
    from reformer.data.build import build_token_array
    from reformer.genomics.annotation.annotator import Annotator

    genome = annotation_run.parent / "genome1.fa"
    found = {}
    for name, options in (("one", []), ("cut", ["--window", "400", "--overlap", "100"])):
        command = ["dna", "annotate", "predict", annotation_run, genome, "--out", tmp_path / name]
        assert run_command(*command, *options).code == 0
        found[name] = [
            (gene.interval, gene.transcripts) for gene in read_genes(tmp_path / name / "genes.gff3")
        ]
    assert len(found["one"]) > NUM_RECORDS * 2
    assert found["cut"] == found["one"]
    annotator = Annotator.load(annotation_run, "cpu")
    array = build_token_array(genome, tmp_path / "cache")
    number = annotator.settings.scheme.names.index("CDS+1")
    for record in array.records:
        track = pybigtools.open(str(tmp_path / "cut" / "tracks" / "CDS+1.bw")).values(record.name, fillna=0)
        whole = annotator.probabilities(array.window(record.start, record.length))[:, number]
        inner = annotator.probabilities(array.window(record.start + 200, 400))[100:300, number]
        assert np.abs(track[300:500] - inner).max() < 0.0051  # steps of 1 / 100
        assert np.ptp(inner) > 0.02  # else any place would do
        assert np.abs(inner - whole[300:500]).max() > 0  # windows are seen, not the whole record
    assert record.length > 700


def test_genes_that_an_end_cuts_off_are_called(
    annotation_run: Path, tmp_path: Path, run_command: RunCommand
) -> None:
    """Each gene of the genome alone, cut on either side so that 85 of its 126 bases are left."""
    texts = (annotation_run.parent / "genome1.fa").read_text().split()[1::2]
    genes = read_genes(annotation_run.parent / "genes1.gff3")
    fasta, gff = [], []
    for gene in genes:
        text = texts[int(gene.interval.sequence.removeprefix("rec"))]
        start, end, strand = gene.interval.start, gene.interval.end, gene.interval.strand
        left, right = text[start - 60 : start + 85], text[start + 41 : end + 60]
        for side, letters, first, last in (("left", left, 61, 145), ("right", right, 1, 85)):
            name = f"{gene.name}{side}"
            begins = (side == "left") == (strand == "+")
            phase = 0 if begins else {"+": (-41) % 3, "-": (-(126 - 85)) % 3}[strand]
            fasta.append(f">{name}\n{letters}\n")
            gff.append(f"{name}\tx\tCDS\t{first}\t{last}\t.\t{strand}\t{phase}\tID={name}\n")
    (tmp_path / "cut.fa").write_text("".join(fasta))
    (tmp_path / "cut.gff3").write_text("".join(gff))
    command = ["dna", "annotate", "predict", annotation_run, tmp_path / "cut.fa"]
    outcome = run_command(*command, "--out", tmp_path / "out", "--genes", tmp_path / "cut.gff3")
    assert outcome.code == 0, outcome.err
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())["genes"]["exact start and stop"]
    assert scores["true"] == 2 * len(genes)
    assert scores["recall"] > 0.6
    called = read_genes(tmp_path / "out" / "genes.gff3")
    assert {gene.partial for gene in called} >= {(True, False), (False, True)}
    rows = [line.split("\t") for line in (tmp_path / "out" / "genes.tsv").read_text().splitlines()]
    assert [row[-1] for row in rows] == [
        "partial",
        *("".join(str(int(p)) for p in g.partial) for g in called),
    ]
    assert run_command(*command, "--out", tmp_path / "closed", "--closed-ends").code == 0
    assert not any(any(gene.partial) for gene in read_genes(tmp_path / "closed" / "genes.gff3"))


def test_classes_of_features(tmp_path: Path, run_command: RunCommand) -> None:
    values = recipe_values(tmp_path)
    for number in (0, 1):
        with (tmp_path / f"genes{number}.gff3").open("a") as file:
            for record in range(NUM_RECORDS):
                file.write(f"rec{record}\tx\trepeat_region\t1\t40\t.\t-\t.\tID=rep{record}\n")
    values["annotation"] |= {"features": {"repeat": ["repeat_region"]}, "kinds": ["repeat", "CDS"]}
    values["training"] |= {"lengths": [{"length": 128, "steps": 2}], "eval_every": 2, "save_every": 2}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    command = ["dna", "annotate", "train", tmp_path / "recipe.yaml"]
    for key, value, message in (
        ("features", "{repeat: [repeat_regions]}", "did you mean repeat_region?"),
        ("features", "{repeat: [centromere]}", "it has CDS, repeat_region"),
        ("features", "{CDS: [repeat_region]}", "annotation.features"),
        ("by_strand", "[origin]", "annotation.by_strand"),
    ):
        outcome = run_command(*command, f"annotation.{key}={value}")
        assert outcome.code == 2
        assert message in outcome.err
        assert len(outcome.err.splitlines()) == 1
        assert not (tmp_path / "run").exists()
    outcome = run_command(*command)
    assert outcome.code == 0, outcome.err
    settings = json.loads((tmp_path / "run" / "model" / "annotation.json").read_text())
    assert settings["classes"][:2] == ["intergenic", "repeat"]
    assert settings["shortest_runs"] == {"repeat": 20}
    outcome = run_command(
        *("dna", "annotate", "predict", tmp_path / "run", tmp_path / "genome1.fa", "--out", tmp_path / "out"),
        *("--genes", tmp_path / "genes1.gff3"),
    )
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "out" / "tracks" / "repeat.bw").exists()
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert scores["likeliest"]["classes"]["repeat"]["true"] == NUM_RECORDS * 40


def test_a_report_without_matplotlib_says_what_it_lacks(
    annotation_run: Path, tmp_path: Path, run_command: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    genome = annotation_run.parent / "genome1.fa"
    outcome = run_command("dna", "annotate", "predict", annotation_run, genome, "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<svg" not in page
    for text in (outcome.out, page):
        assert "matplotlib" in text
        assert "reformer-torch[report]" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--region", "rec9:1-5"], "no sequence 'rec9'"),
        (["--region", "rec1:5-999999"], "expected bases of 1 to"),
        (["--region", "rec1"], "expected NAME:FIRST-LAST"),
        (["--window", "100", "--overlap", "50"], "expected more than twice the overlap"),
        (["--genes", "missing.gff"], "missing.gff"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    annotation_run: Path, tmp_path: Path, run_command: RunCommand, arguments: list[str], message: str
) -> None:
    genome = annotation_run.parent / "genome1.fa"
    command = ["dna", "annotate", "predict", annotation_run, genome, "--out", tmp_path / "out"]
    outcome = run_command(*command, *arguments)
    assert outcome.code == 2
    assert message in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_an_equivariant_run_predicts_the_same_from_either_strand(
    tmp_path: Path, run_command: RunCommand
) -> None:
    from reformer.data.build import build_token_array
    from reformer.data.nucleotides import reverse_complement as other_strand
    from reformer.genomics.annotation.annotator import Annotator

    values = recipe_values(tmp_path)
    values["model"]["rc_equivariant"] = True
    values["training"] |= {"lengths": [{"length": 128, "steps": 2}], "eval_every": 2, "save_every": 2}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    outcome = run_command("dna", "annotate", "train", tmp_path / "recipe.yaml")
    assert outcome.code == 0, outcome.err
    annotator = Annotator.load(tmp_path / "run", "cpu")
    array = build_token_array(tmp_path / "genome1.fa", tmp_path / "cache")
    for length in (700, 701, 702):
        tokens = array.window(10, length)
        here = annotator.probabilities(tokens, both_strands=False)
        there = annotator.probabilities(other_strand(tokens), both_strands=False)
        mirrored = there[::-1][:, annotator.settings.scheme.other_strand]
        assert np.abs(here - mirrored).max() < 1e-5
        assert np.array_equal(annotator.probabilities(tokens), here)  # both strands already
        assert np.ptp(here[:, 0]) > 1e-3
    outcome = run_command(
        *("dna", "annotate", "train", tmp_path / "recipe.yaml"),
        *("annotation.kmer=2", f"output_dir={tmp_path}/even"),
    )
    assert outcome.code == 2
    assert "annotation.kmer: k is 2: expected an odd number" in outcome.err
    assert not (tmp_path / "even").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("training.objective", "masked"),
        ("data.mutated_copies", 0.5),
        ("data.held_out_records", ["chr1"]),
        ("data.held_out_regions", "regions.bed"),
    ],
)
def test_what_means_nothing_to_annotation_is_refused(
    tmp_path: Path, run_command: RunCommand, key: str, value: object
) -> None:
    section, name = key.split(".")
    values = recipe_values(tmp_path)
    values[section][name] = value
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    outcome = run_command("dna", "annotate", "train", tmp_path / "recipe.yaml")
    assert outcome.code == 2
    assert key in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_a_causal_model_is_refused(finished_run: Path, tmp_path: Path, run_command: RunCommand) -> None:
    (tmp_path / "g.fa").write_text(">a\nACGT\n")
    outcome = run_command(
        "dna", "annotate", "predict", finished_run, tmp_path / "g.fa", "--out", tmp_path / "o"
    )
    assert outcome.code == 2
    assert "annotation.json is missing" in outcome.err


def test_names_that_differ_are_told(tmp_path: Path, run_command: RunCommand) -> None:
    genome, genes = write_genome(tmp_path, 0)
    genes.write_text(genes.read_text().replace("rec0", "chrRec0"))
    command = ["dna", "annotate", "train", "--genome", genome, "--genes", genes, "--out", tmp_path / "run"]
    outcome = run_command(*command, "training.lengths=[{length: 64, steps: 1}]")
    assert outcome.code == 2
    assert "'chrRec0'" in outcome.err
    assert "'rec0'" in outcome.err
    assert not (tmp_path / "run").exists()


def test_recipes_are_checked(tmp_path: Path, run_command: RunCommand) -> None:
    values = recipe_values(tmp_path)
    for key, value, message in (
        ("kinds", ["CDS", "CDS"], "each once"),
        ("kinds", ["gene"], "annotation.kinds"),
        ("kinds", ["gene"], "expected some of CDS, RNA, exon, UTR, intron, each once"),
        ("kmers", 3, "did you mean annotation.kmer"),
        ("eval", {}, "'other' is not in annotation.eval"),
    ):
        changed = {**values, "annotation": {**values["annotation"], key: value}}
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(changed))
        outcome = run_command("dna", "annotate", "train", tmp_path / "recipe.yaml")
        assert outcome.code == 2
        assert message in outcome.err
    outcome = run_command("dna", "annotate", "train")
    assert outcome.code == 2
    assert "--genome, --genes and --out" in outcome.err


@pytest.fixture(scope="module")
def relatives_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose model reads what the annotation of other genomes says; not to be changed."""
    folder = tmp_path_factory.mktemp("relatives")
    values = recipe_values(folder)
    genome, genes = write_genome(folder, 2, prefix="two")
    values["data"]["train"].append(str(genome))
    values["annotation"]["train"].append(str(genes))
    values["annotation"]["relatives"] = True
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
    assert main(["dna", "annotate", "train", str(folder / "recipe.yaml")]) == 0
    return folder / "run"


def test_a_model_that_reads_relatives_is_trained_and_predicts(
    relatives_run: Path, tmp_path: Path, run_command: RunCommand
) -> None:
    model = relatives_run / "model"
    assert (model / "relatives.safetensors").exists()
    assert json.loads((model / "annotation.json").read_text())["hints"]
    config = json.loads((model / "config.json").read_text())
    assert config["num_input_features"] == 6 * 7
    genome, _ = write_genome(tmp_path, 1)
    result = run_command("dna", "annotate", "predict", relatives_run, genome, "--out", tmp_path / "whole")
    assert result.code == 0, result.err
    windows = ("--window", "300", "--overlap", "100")
    result = run_command(
        "dna", "annotate", "predict", relatives_run, genome, "--out", tmp_path / "cut", *windows
    )
    assert result.code == 0, result.err
    for file, content in (
        ("relatives.safetensors", "the annotated relatives"),
        ("hints.safetensors", "what relatives say of start and stop codons"),
    ):
        (model / file).rename(tmp_path / "kept")
        result = run_command("dna", "annotate", "predict", relatives_run, genome, "--out", tmp_path / "not")
        (tmp_path / "kept").rename(model / file)
        assert result.code == 2
        assert f"{file}: missing: expected {content}" in result.err
        assert not (tmp_path / "not").exists()


@pytest.mark.parametrize(("words", "kmer"), [((), 0), (("annotation.kmer=3",), 3)])
def test_a_model_that_reads_relatives_reads_bases_only_if_asked(
    relatives_run: Path, tmp_path: Path, run_command: RunCommand, words: tuple[str, ...], kmer: int
) -> None:
    recipe, short = relatives_run.parent / "recipe.yaml", "training.lengths=[{length: 128, steps: 1}]"
    out = ("--out", tmp_path / "run", "--relatives")
    assert run_command("dna", "annotate", "train", recipe, short, *words, *out).code == 0
    resolved = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    assert (resolved["annotation"]["kmer"], resolved["annotation"]["relatives"]) == (kmer, True)


def test_relatives_need_two_genomes(tmp_path: Path, run_command: RunCommand) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe_values(tmp_path)))
    result = run_command("dna", "annotate", "train", tmp_path / "recipe.yaml", "--relatives")
    assert result.code == 2
    assert "annotation.relatives: data.train has one genome: expected two or more files" in result.err
