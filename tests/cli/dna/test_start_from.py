"""`--start-from`: models of genomes that begin with the weights of another, of the same task or not."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from reformer.data.tokenizers import tokenizer_for
from reformer.errors import UserError
from reformer.genomics.annotation.annotator import AnnotationSettings
from reformer.genomics.annotation.classes import ClassScheme
from reformer.genomics.annotation.recipe import load_annotation_recipe
from reformer.genomics.annotation.training import AnnotationTask
from reformer.genomics.base_encoding import BaseEncoding
from reformer.genomics.classification.recipe import load_classification_recipe
from reformer.genomics.classification.training import ClassificationTask
from reformer.genomics.pretraining import PretrainingData, pretraining_recipe
from reformer.models.auto import (
    ReformerConfig,
    ReformerForCausalLM,
    ReformerForMaskedLM,
    ReformerForSequenceClassification,
    ReformerForTokenClassification,
)
from reformer.training.fine_tuning import take_weights
from reformer.training.run import LanguageModelling
from tests.cli.conftest import RunCommand
from tests.cli.dna.test_annotate import write_genome
from tests.cli.dna.test_classify import write_sequences
from tests.training.conftest import TINY_MODEL

SHORT = "training.lengths=[{length: 64, steps: 1, batch_size: 2}]"
SCHEME, ENCODING = ClassScheme(("CDS",)), BaseEncoding()


@pytest.fixture
def language_model(tmp_path: Path) -> Path:
    """The folder of a masked language model of nucleotides."""
    tokenizer = tokenizer_for("nucleotide")
    folder = tmp_path / "language_model"
    ReformerForMaskedLM(
        ReformerConfig(**TINY_MODEL, vocab_size=len(tokenizer), local_num_chunks_after=1)
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def gene_model(tmp_path: Path) -> Path:
    """The folder of a model that labels bases."""
    folder = tmp_path / "gene_model"
    names = dict(enumerate(SCHEME.names))
    config = ReformerConfig(
        **TINY_MODEL, vocab_size=ENCODING.vocab_size, local_num_chunks_after=1, id2label=names
    )
    ReformerForTokenClassification(config).save_pretrained(folder)
    tokenizer_for("nucleotide").save_pretrained(folder)
    AnnotationSettings(SCHEME, ENCODING, None).write(folder)
    return folder


def started(task: Any, recipe: Any) -> tuple[Any, str]:
    """The model that a run begins with, and what is said of it."""
    model, tokenizer = task.build_model(recipe, task.open_data(recipe))
    return model, str(take_weights(recipe, task, model, tokenizer))


def annotator(folder: Path, start: Path, *overrides: str) -> tuple[Any, str]:
    """The same of the library's recipe for annotation."""
    genome, genes = write_genome(folder, 0)
    files = {"data.train": [str(genome)], "annotation.train": [str(genes)], "annotation.kinds": ["CDS"]}
    given = [f"{key}={json.dumps(value)}" for key, value in files.items()]
    given += [f"data.cache_dir={folder / 'cache'}", f"training.start_from={start}", SHORT, *overrides]
    recipe = load_annotation_recipe(None, given)
    return started(AnnotationTask(recipe), recipe)


def weights(folder: Path, kind: Any) -> dict[str, torch.Tensor]:
    return dict(kind.from_pretrained(folder).named_parameters())


def test_a_language_model_gives_its_layers_to_a_model_of_genes(language_model: Path, tmp_path: Path) -> None:
    model, said = annotator(tmp_path, language_model)
    trained = weights(language_model, ReformerForMaskedLM)
    ours = dict(model.named_parameters())
    layers = [name for name in trained if name.startswith("reformer.encoder.")]
    assert len(layers) > 10
    assert all(torch.equal(ours[name], trained[name]) for name in layers)
    assert model.config.vocab_size == ENCODING.vocab_size
    assert said == f"2 layer(s) of {language_model}; new: token embeddings and classifier"


def test_what_a_causal_model_looks_up_by_is_of_no_use_both_ways(tmp_path: Path) -> None:
    tokenizer, folder = tokenizer_for("nucleotide"), tmp_path / "language_model"
    config = ReformerConfig(**TINY_MODEL, vocab_size=len(tokenizer), is_decoder=True, lsh_induction_length=4)
    ReformerForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    trained = weights(folder, ReformerForCausalLM)
    taps = [name for name in trained if name.endswith(".taps")]
    assert len(taps) == config.attn_layers.count("lsh") > 0

    model, said = annotator(tmp_path, folder)
    assert model.config.lsh_induction_length == 0
    ours = dict(model.named_parameters())
    layers = [name for name in trained if name.startswith("reformer.encoder.") and name not in taps]
    assert all(torch.equal(ours[name], trained[name]) for name in layers)
    assert said.endswith("they read both ways now and look up the like of tokens, not what followed it")

    genome, _ = write_genome(tmp_path, 0)
    data = PretrainingData([genome])
    cache = f"data.cache_dir={tmp_path / 'cache'}"
    again = pretraining_recipe(data, "causal", tmp_path / "run", None, [SHORT, cache], folder)
    model, said = started(LanguageModelling(), again)
    assert all(torch.equal(weight, trained[name]) for name, weight in model.named_parameters())
    assert said == f"all weights of {folder}"


def test_a_model_of_genes_goes_on_whole(gene_model: Path, tmp_path: Path) -> None:
    model, said = annotator(tmp_path, gene_model)
    trained = weights(gene_model, ReformerForTokenClassification)
    assert all(torch.equal(weight, trained[name]) for name, weight in model.named_parameters())
    assert said == f"all weights of {gene_model}"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ('annotation.kinds=["CDS", "intron"]', r"its classes are \['intergenic', .* those of this run"),
        ("annotation.kmer=1", "its vocabulary, of 3,705 tokens, is not that of this recipe, of 285"),
        ('annotation.starts=["ATG", "TTG"]', "its vocabulary, of 3,705 tokens, is not that of this recipe"),
        ("model.num_hashes=3", "model.num_hashes: 3, but training.start_from has weights of a model with 1"),
    ],
)
def test_other_classes_and_tokens_are_refused(
    gene_model: Path, tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        annotator(tmp_path, gene_model, override)


def test_a_model_of_genes_gives_its_layers_to_a_language_model(gene_model: Path, tmp_path: Path) -> None:
    genome, _ = write_genome(tmp_path, 0)
    recipe = pretraining_recipe(
        PretrainingData([genome]), "causal", tmp_path / "run", None, (SHORT,), start_from=gene_model
    )
    model, said = started(LanguageModelling(), recipe)
    assert (model.config.is_decoder, model.config.lsh_num_chunks_after) == (True, 0)
    assert "new: token embeddings and lm_head; they read one way now" in said


def test_classify_train_starts_from_a_language_model(
    run_command: RunCommand, language_model: Path, tmp_path: Path
) -> None:
    sequences, labels = write_sequences(tmp_path, 0, 8)
    outcome = run_command(
        *("dna", "classify", "train", "--sequences", sequences, "--labels", labels, "--out", "run"),
        *("--start-from", language_model, "classification.folds=0", "training.device=cpu"),
        SHORT,
    )
    assert outcome.code == 0, outcome.err
    said = f"2 layer(s) of {language_model}; new: token embeddings and classifier"
    assert f"starts  {said}\n" in outcome.err
    config = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert (config["hidden_size"], config["classifier_pooling"]) == (16, "mean")
    assert json.loads((tmp_path / "run" / "start.json").read_text())["new"] == [
        "token embeddings",
        "classifier",
    ]


def test_classify_train_adapts_a_language_model(
    run_command: RunCommand, language_model: Path, tmp_path: Path
) -> None:
    sequences, labels = write_sequences(tmp_path, 0, 8)
    files = ("--sequences", sequences, "--labels", labels, "--out", "run")
    settings = ("classification.folds=0", "training.device=cpu", "training.warmup_steps=0", SHORT)
    outcome = run_command(
        *("dna", "classify", "train", *files, "--start-from", language_model, "--lora", "2", *settings)
    )
    assert outcome.code == 0, outcome.err
    assert "new: token embeddings and classifier\n" in outcome.err
    assert "\ntrains  " in outcome.err
    before = weights(language_model, ReformerForMaskedLM)
    after = weights(tmp_path / "run" / "model", ReformerForSequenceClassification)
    layers = [name for name in before if name.startswith("reformer.encoder.")]
    unchanged = [name for name in layers if torch.equal(before[name], after[name])]
    assert unchanged == [name for name in layers if "layer_norm" in name or name.endswith("bias")]
    outcome = run_command("dna", "classify", "predict", "run", sequences, "--out", "predicted")
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize("command", ["annotate", "classify", "pretrain", "structure", "tracks"])
def test_lora_is_of_a_trained_model_and_of_a_rank(
    run_command: RunCommand, tmp_path: Path, command: str
) -> None:
    options = {
        "annotate": ("train", "--genome", "g.fa", "--genes", "g.gff3"),
        "classify": ("train", "--sequences", "s.fa", "--labels", "l.tsv"),
        "pretrain": ("g.fa",),
        "structure": ("train", "--structures", "s.pdb"),
        "tracks": ("train", "--genome", "g.fa", "--track", "t.bw"),
    }
    given = ("dna", command, *options[command], "--out", "run")
    outcome = run_command(*given, "--lora", "4")
    assert outcome.code == 2
    assert "training.lora_rank: 4: adapters are of trained weights, expected a model in" in outcome.err
    assert outcome.err.count("\n") == 1
    outcome = run_command(*given, "--lora", "0")
    assert outcome.code == 2
    assert "Invalid value for '--lora': " in outcome.err
    assert not (tmp_path / "run").exists()


def test_a_classifier_does_not_begin_with_other_classes(gene_model: Path, tmp_path: Path) -> None:
    sequences, labels = write_sequences(tmp_path, 0, 8)
    files = {"data.train": [str(sequences)], "classification.train": [str(labels)]}
    given = [f"{key}={json.dumps(value)}" for key, value in files.items()]
    given += [f"data.cache_dir={tmp_path / 'cache'}", "classification.folds=0"]

    def classifier(start: Path) -> tuple[Any, str]:
        recipe = load_classification_recipe(None, [*given, f"training.start_from={start}"])
        task = ClassificationTask(recipe)
        model, said = started(task, recipe)
        model.save_pretrained(tmp_path / "classifier")
        tokenizer_for("nucleotide").save_pretrained(tmp_path / "classifier")
        task.data.settings.write(tmp_path / "classifier")
        return model, said

    _, said = classifier(gene_model)
    assert "new: token embeddings and classifier" in said  # its tokens say where frames are
    _, said = classifier(tmp_path / "classifier")
    assert said == f"all weights of {tmp_path / 'classifier'}"
    labels.write_text(labels.read_text().replace("rich", "wealthy"))
    with pytest.raises(UserError, match=r"its classes are \['poor', 'rich'\], those of this run \['poor"):
        classifier(tmp_path / "classifier")
