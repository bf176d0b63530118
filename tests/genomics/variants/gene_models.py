"""A hand-made model of genes: codon statistics of a few codons, and a network that says nothing."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from reformer import ReformerConfig, ReformerForTokenClassification
from reformer.genomics.annotation.annotator import AnnotationSettings
from reformer.genomics.annotation.classes import ClassScheme
from reformer.genomics.annotation.coding_model import CodingModel
from reformer.genomics.annotation.gene_places import base_codes
from reformer.genomics.annotation.grammar import Grammar
from reformer.genomics.base_encoding import BaseEncoding

CODONS = ("GCT", "GAA", "AAG", "CTG", "GGT", "ACC", "TCG", "CAA")


def coding_text(generator: np.random.Generator, num_codons: int) -> str:
    """A gene: ATG, codons, TAA."""
    return "ATG" + "".join(generator.choice(CODONS, num_codons)) + "TAA"


def gene_settings(kinds: tuple = ("CDS",)) -> AnnotationSettings:
    generator = np.random.default_rng(5)
    sequences = []
    for _ in range(40):
        gene = coding_text(generator, 100)
        letters = "".join(generator.choice(list("ACGT"), 300)) + gene
        classes = np.concatenate([np.zeros(300, int), 1 + np.arange(len(gene)) % 3])
        sequences.append((base_codes(letters.encode()), classes))
    coding = CodingModel.of(sequences, order=3)
    if "CDS" not in kinds:
        return AnnotationSettings(ClassScheme(kinds), BaseEncoding(), None)
    return AnnotationSettings(ClassScheme(kinds), BaseEncoding(), Grammar(donor=None), coding)


def silent_network(settings: AnnotationSettings):
    """Gives every class the same probability."""

    def logits(input_ids: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=torch.zeros(*input_ids.shape, len(settings.scheme.names)))

    return logits


def write_gene_model(folder: Path, kinds: tuple = ("CDS",)) -> Path:
    """The folder of a model with a small untrained network."""
    settings = gene_settings(kinds)
    torch.manual_seed(0)
    network = ReformerForTokenClassification(
        ReformerConfig(
            hidden_size=8,
            attention_head_size=8,
            num_attention_heads=1,
            feed_forward_size=8,
            attn_layers=["local"],
            position_embedding_type="rotary",
            is_decoder=False,
            vocab_size=settings.encoding.vocab_size,
            id2label=dict(enumerate(settings.scheme.names)),
        )
    )
    network.save_pretrained(folder)
    settings.write(folder)
    return folder
