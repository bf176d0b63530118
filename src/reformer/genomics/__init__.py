"""Genomes, their files, and what models say of them.

Names are imported when they are first used, so that reading files does not wait for torch.
"""

# ruff: noqa: F401 - the imports are for type checkers; a test compares them with the names below

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reformer.genomics.annotation.annotate import annotate_genome, called_genes
    from reformer.genomics.annotation.annotator import Annotator
    from reformer.genomics.annotation.relatives import Relatives
    from reformer.genomics.classification.classifier import Classifier
    from reformer.genomics.coordinates import Interval, Strand, reverse_complement
    from reformer.genomics.design.evolution import evolve
    from reformer.genomics.design.goals import load_goal
    from reformer.genomics.embedding import Embedder, stretches, write_embeddings
    from reformer.genomics.formats.annotation import read_genes
    from reformer.genomics.formats.bed import Region, read_bed, write_bed
    from reformer.genomics.formats.features import Feature
    from reformer.genomics.formats.genbank import read_genbank
    from reformer.genomics.formats.gff3 import read_gff3, write_gff3
    from reformer.genomics.formats.gtf import read_gtf
    from reformer.genomics.formats.proteins import Protein, read_proteins, write_proteins
    from reformer.genomics.formats.structures import Chain, read_structure
    from reformer.genomics.formats.tables import write_hdf5, write_parquet
    from reformer.genomics.formats.tracks import BigWig, write_bigwig
    from reformer.genomics.genes import Gene, Segment, Transcript, gene_features, spliced
    from reformer.genomics.genome import Genome
    from reformer.genomics.markov import MarkovModel
    from reformer.genomics.structure.predictor import StructurePredictor
    from reformer.genomics.tracks.predictor import TrackPredictor
    from reformer.genomics.translation import translate, translated
    from reformer.genomics.variants.scorers import load_scorer
    from reformer.genomics.variants.scoring import write_scores
    from reformer.genomics.variants.vcf import (
        InfoField,
        Scored,
        Variant,
        read_variants,
        write_scored_variants,
    )
    from reformer.genomics.windows import Windows

_MODULES = {
    "annotation.annotate": ("annotate_genome", "called_genes"),
    "annotation.annotator": ("Annotator",),
    "annotation.relatives": ("Relatives",),
    "classification.classifier": ("Classifier",),
    "coordinates": ("Interval", "Strand", "reverse_complement"),
    "design.evolution": ("evolve",),
    "design.goals": ("load_goal",),
    "embedding": ("Embedder", "stretches", "write_embeddings"),
    "formats.annotation": ("read_genes",),
    "formats.bed": ("Region", "read_bed", "write_bed"),
    "formats.features": ("Feature",),
    "formats.genbank": ("read_genbank",),
    "formats.gff3": ("read_gff3", "write_gff3"),
    "formats.gtf": ("read_gtf",),
    "formats.proteins": ("Protein", "read_proteins", "write_proteins"),
    "formats.structures": ("Chain", "read_structure"),
    "formats.tables": ("write_hdf5", "write_parquet"),
    "formats.tracks": ("BigWig", "write_bigwig"),
    "genes": ("Gene", "Segment", "Transcript", "gene_features", "spliced"),
    "genome": ("Genome",),
    "markov": ("MarkovModel",),
    "structure.predictor": ("StructurePredictor",),
    "tracks.predictor": ("TrackPredictor",),
    "translation": ("translate", "translated"),
    "variants.scorers": ("load_scorer",),
    "variants.scoring": ("write_scores",),
    "variants.vcf": ("InfoField", "Scored", "Variant", "read_variants", "write_scored_variants"),
    "windows": ("Windows",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
