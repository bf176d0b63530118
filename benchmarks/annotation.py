"""Annotation of a yeast chromosome by a Reformer, and by simpler models at equal training time.

    python -m benchmarks.annotation [--seconds 180] [--seeds 0] [--out FOLDER] [CONTENDER ...]

Training data: S. cerevisiae chromosome I and S. mikatae chromosome 1; test: S. kudriavzevii chromosome 1, in
one pass over each strand. All contenders but `grammar` and `markov` read the same tokens, are trained by the
same optimizer for the same CPU time on one thread, and all are decoded by the same gene grammar, which is
that of the training annotation. `grammar` decodes constant probabilities (every long open reading frame is a
gene); `markov` is the classical one: order-5 Markov chains, one for each place in the codon and one for the
rest. Macro F1 is the mean over intergenic, CDS+ and CDS-. Rows of other contenders and
seeds that FOLDER/annotation.json has stay in it.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from reformer.bench.machine import describe_machine
from reformer.genomics.classes import Kind

CLASSES = ("intergenic", "CDS+", "CDS-")
KINDS: tuple[Kind, ...] = ("CDS", "RNA", "intron")
WINDOW, BATCH = 1024, 4
LEARNING_RATE, WARMUP_STEPS, WEIGHT_DECAY = 6e-3, 20, 0.01
MARKOV_ORDER = 5
FILES = {
    "cerevisiae": ("ScerR64_I_GCF_000146045.2_R64_genomic.fna.gz", "ScerR64_I.gff.gz"),
    "mikatae": ("SmikIFO1815_1_GCF_947241705.1_Smik-IFO1815_genomic.fna.gz", "SmikIFO1815_1.gff.gz"),
    "kudriavzevii": ("SkudIFO1802_1_GCF_947243775.1_Skud-IFO1802_genomic.fna.gz", "SkudIFO1802_1.gff.gz"),
}

Predict = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.floating]]


@dataclass(frozen=True)
class Data:
    """Training and test sequences, and how they are read."""

    train: Any
    test: Any
    settings: Any


def open_data() -> Data:
    from reformer.genomics.annotation_data import LabelledSequences
    from reformer.genomics.annotator import AnnotationSettings
    from reformer.genomics.base_encoding import BaseEncoding
    from reformer.genomics.classes import ClassScheme
    from reformer.genomics.grammar import Grammar
    from reformer.genomics.quickstart import yeast_file
    from reformer.training.corpus import open_corpus

    scheme = ClassScheme(KINDS)

    def labelled(*species: str) -> Any:
        genomes, annotations = zip(*(map(yeast_file, FILES[one]) for one in species), strict=True)
        return LabelledSequences.of(open_corpus(genomes), annotations, scheme)

    train, test = labelled("cerevisiae", "mikatae"), labelled("kudriavzevii")
    grammar = Grammar.of(train.genes, train.letters, len(train.array))
    return Data(train, test, AnnotationSettings(scheme, BaseEncoding(), grammar))


# Contenders that are trained: int64 [B, T] tokens in, logits [B, T, classes] out.


def reformer(attn_layers: Sequence[str]) -> Callable[[int, int], Any]:
    """The model of the recipe that comes with the library, with other attention layers."""

    def build(vocab_size: int, num_classes: int) -> Any:
        from importlib.resources import files

        import yaml

        from reformer import ReformerConfig, ReformerForTokenClassification

        fields = yaml.safe_load((files("reformer.genomics") / "annotate.yaml").read_text())["model"]
        fields |= {"attn_layers": list(attn_layers), "vocab_size": vocab_size}
        labels = {number: str(number) for number in range(num_classes)}
        return ReformerForTokenClassification(ReformerConfig(**fields, id2label=labels))

    return build


def cnn(vocab_size: int, num_classes: int) -> Any:
    """247K parameters besides the embedding: four dilated convolutions, which see 561 bases."""
    from torch import nn

    width = 64
    layers: list[nn.Module] = []
    for dilation in (1, 3, 9, 27):
        padding = 7 * dilation
        layers += [nn.Conv1d(width, width, 15, padding=padding, dilation=dilation), nn.GELU()]
    return _Tokens(vocab_size, width, nn.Sequential(_Swap(), *layers, _Swap()), width, num_classes)


def lstm(vocab_size: int, num_classes: int) -> Any:
    """One bidirectional layer."""
    from torch import nn

    class Outputs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(64, 64, batch_first=True, bidirectional=True)

        def forward(self, x: Any) -> Any:
            return self.lstm(x)[0]

    return _Tokens(vocab_size, 64, Outputs(), 128, num_classes)


def _Swap() -> Any:  # noqa: N802
    from torch import nn

    class Swap(nn.Module):
        def forward(self, x: Any) -> Any:
            return x.mT

    return Swap()


def _Tokens(vocab_size: int, width: int, body: Any, out: int, num_classes: int) -> Any:  # noqa: N802
    from torch import nn

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.body = nn.Embedding(vocab_size, width), body
            self.classifier = nn.Linear(out, num_classes)

        def forward(self, input_ids: Any) -> Any:
            return SimpleNamespace(logits=self.classifier(self.body(self.embedding(input_ids))))

    return Tokens()


TRAINED: dict[str, Callable[[int, int], Any]] = {
    "reformer": reformer(("local", "lsh")),
    "local": reformer(("local", "local")),
    "cnn": cnn,
    "lstm": lstm,
}


def train(build: Callable[[int, int], Any], data: Data, seconds: float, seed: int) -> tuple[Predict, dict]:
    """Trains for a CPU time, the learning rate falling to 0 by a cosine of the time that has passed."""
    import torch
    from torch.nn import functional as F

    from reformer.genomics.annotation_training import AnnotationBatches
    from reformer.genomics.annotator import Annotator
    from reformer.training.recipe import Stage

    torch.manual_seed(seed)
    settings = data.settings
    model = build(settings.encoding.vocab_size, len(settings.scheme.names)).train()
    stages = [Stage(length=WINDOW, steps=1_000_000, batch_size=BATCH)]
    batches = AnnotationBatches(
        data.train, settings.scheme, settings.encoding, stages, seed, 1, other_strand=True
    )
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    start, step, recent = time.process_time(), 0, 0.0
    while (spent := time.process_time() - start) < seconds:
        for group in optimizer.param_groups:
            falling = 0.5 + 0.5 * math.cos(math.pi * spent / seconds)
            group["lr"] = LEARNING_RATE * min(1.0, (step + 1) / WARMUP_STEPS) * falling
        batch = batches[step]
        logits = model(input_ids=batch["input_ids"]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), ignore_index=-100)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        recent += (loss.item() - recent) * max(0.02, 1 / (step + 1))
        step += 1
        if step % 100 == 0:
            print(f"  step {step}, {spent:.0f} s, loss {recent:.4f}", flush=True)
    facts = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": step,
        "train_cpu_seconds": time.process_time() - start,
        "train_loss_nats": recent,
    }
    return Annotator(model.eval(), settings).probabilities, facts


def grammar_alone(data: Data) -> tuple[Predict, dict]:
    """Every coding class a little likelier than its share, whatever the sequence."""
    scheme = data.settings.scheme
    shares = np.full(len(scheme.names), 1e-3)
    shares[0] = 1.0
    for name in ("CDS+", "CDS-"):
        shares[list(scheme.coarse[name])] = 1.04
    row = shares / shares.sum()
    return lambda tokens: np.tile(row, (len(tokens), 1)), {}


def markov(data: Data) -> tuple[Predict, dict]:
    """Likelihoods of each base given the bases before it, under each class, scaled to add up to 1."""
    from reformer.data.nucleotides import reverse_complement
    from reformer.genomics.base_encoding import _BASE_OF_TOKEN

    scheme, k = data.settings.scheme, MARKOV_ORDER
    coding = {frame: scheme.number("CDS", "+", frame) for frame in range(3)}

    def contexts(tokens: npt.NDArray[np.uint8]) -> tuple[Any, Any]:
        bases = np.pad(np.minimum(_BASE_OF_TOKEN[tokens], 3), (k, 0))
        context = np.zeros(len(tokens), dtype=np.int64)
        for shift in range(k):
            context = 4 * context + bases[shift : shift + len(tokens)]
        return context, bases[k:]

    start = time.process_time()
    counts = np.full((4, 4**k, 4), 0.5)  # places 0 to 2 of a codon, then no gene
    plus, labels_plus = np.asarray(data.train.array.tokens), data.train.labels
    minus = reverse_complement(plus), scheme.reverse_complement(labels_plus)
    for tokens, labels in ((plus, labels_plus), minus):
        context, base = contexts(tokens)
        for row, number in (*coding.items(), (3, 0)):
            chosen = labels == number
            np.add.at(counts[row], (context[chosen], base[chosen]), 1)
    logs = np.log(counts / counts.sum(axis=2, keepdims=True))

    def one_strand(tokens: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        context, base = contexts(tokens)
        scores = np.full((len(tokens), len(scheme.names)), -12.0)
        scores[:, 0] = logs[3, context, base]
        for frame, number in coding.items():
            scores[:, number] = logs[frame, context, base]
        return scores

    def predict(tokens: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        forward = one_strand(tokens)
        backward = one_strand(reverse_complement(np.asarray(tokens)))[::-1][:, scheme.other_strand]
        scores = np.maximum(forward, backward)
        scores[:, 0] = (forward[:, 0] + backward[:, 0]) / 2
        likelihoods = np.exp(scores - scores.max(axis=1, keepdims=True))
        return likelihoods / likelihoods.sum(axis=1, keepdims=True)

    facts = {"parameters": int(counts.size), "train_cpu_seconds": time.process_time() - start}
    return predict, facts


def evaluate(data: Data, predict: Predict, *, is_trained: bool) -> dict[str, Any]:
    """Predicts the test sequence whole, decodes it, and scores both.

    The evidence of neighbouring bases adds up for contenders that are not trained, and does not for the
    others (see `Grammar`).
    """
    from reformer.genomics.annotate_command import final_labels
    from reformer.genomics.annotation_metrics import ClassCounts, gene_scores
    from reformer.genomics.base_encoding import LETTER_OF_TOKEN
    from reformer.genomics.gene_calls import GeneDecoder

    test, settings = data.test, data.settings
    (record,) = test.array.records
    start = time.process_time()
    probabilities = predict(test.array.tokens)
    predicted = time.process_time()
    grammar = settings.grammar if is_trained else replace(settings.grammar, evidence=1.0)
    decoder = GeneDecoder(settings.scheme, grammar)
    decoder.feed(np.asarray(test.array.tokens).tobytes().translate(LETTER_OF_TOKEN), probabilities)
    calls = decoder.finish()
    decoded = time.process_time()
    genes = [call.gene(record.name, f"g{number}") for number, call in enumerate(calls)]
    likeliest = probabilities.argmax(axis=1).astype(np.uint8)
    results: dict[str, Any] = {
        "predict_cpu_seconds": predicted - start,
        "decode_cpu_seconds": decoded - predicted,
        "genes_called": len(genes),
        "genes": {name: score.to_json() for name, score in gene_scores(test.genes, genes).items()},
    }
    final = final_labels(settings.scheme, test.array, genes, likeliest)
    for name, labels in (("likeliest", likeliest), ("decoded", final)):
        counts = ClassCounts.of(settings.scheme, test.labels, labels)
        results[name] = {
            "macro_f1": counts.macro_f1(CLASSES),
            "macro_f1_of_all_classes": counts.macro_f1(),
            "accuracy_with_frames": counts.accuracy(),
            "classes": {one: score.to_json() for one, score in counts.by_class().items()},
        }
    return results


def _line(name: str, row: dict[str, Any]) -> str:
    genes, decoded = row["genes"], row["decoded"]
    return (
        f"{name:12} macro F1 {decoded['macro_f1']:.4f} (as is {row['likeliest']['macro_f1']:.4f})  "
        f"CDS+ {decoded['classes']['CDS+']['f1']:.4f}  CDS- {decoded['classes']['CDS-']['f1']:.4f}  "
        f"gene F1: structure {genes['exact structure']['f1']:.4f}  stop {genes['exact stop']['f1']:.4f}  "
        f"start+stop {genes['exact start and stop']['f1']:.4f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    contenders = ("grammar", "markov", *TRAINED)
    parser.add_argument("contenders", nargs="*", metavar="CONTENDER", help=f"of {', '.join(contenders)}")
    parser.add_argument("--seconds", type=float, default=180.0, help="CPU time of training of each")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    data = open_data()
    file = arguments.out / "annotation.json"
    rows = json.loads(file.read_text())["rows"] if file.exists() else []
    for name in arguments.contenders or contenders:
        for seed in arguments.seeds if name in TRAINED else [0]:
            if name in TRAINED:
                predict, facts = train(TRAINED[name], data, arguments.seconds, seed)
            else:
                predict, facts = {"grammar": grammar_alone, "markov": markov}[name](data)
            row = {
                "contender": name,
                "seed": seed,
                **facts,
                **evaluate(data, predict, is_trained=name in TRAINED),
            }
            rows = [one for one in rows if (one["contender"], one["seed"]) != (name, seed)] + [row]
            print(_line(name, row), flush=True)
            arguments.out.mkdir(parents=True, exist_ok=True)
            results = {"machine": describe_machine(), "rows": rows}
            file.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
