"""The recipe of `reformer dna annotate train`: that of any run, and a section about the annotation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from reformer.genomics.annotation.classes import RNA_TYPES, ClassScheme
from reformer.genomics.base_encoding import ORF_LENGTHS, BaseEncoding
from reformer.genomics.recipes import LabelFiles, LabelRecipe, check_label_files, load_over_packaged

Codon = Annotated[str, Field(pattern="^[ACGT]{3}$")]


class AnnotationSection(LabelFiles):
    """What the bases of the sequences are.

    Attributes:
        train: annotations (GFF3, GTF, GenBank) of the sequences to train on; those without genes are
            intergenic.
        eval: annotations of the held-out sequences, by the names that `data.eval` has.
        kinds: what is told apart, the kind that wins on an overlap first, see `ClassScheme`.
        by_frame: whether coding bases have a class for each frame.
        rna_types: types of transcripts that are RNA genes.
        features: classes of the user's: types of features by the name of the class.
        by_strand: which of these have one class on each strand.
        kmer: bases that a token of the model stands for; 0 for none, so that the model reads open reading
            frames and relatives alone and the sequence speaks through the statistics of its codons.
        orf_lengths: lengths of open reading frames that tokens tell apart, see `BaseEncoding`.
        starts: start codons of these.
        stops: stop codons of these.
        relatives: whether the model also reads what the annotation of other genomes says of each base, see
            `.relatives`: in training that of the other genomes, later that of all it was trained on.
    """

    kinds: Annotated[list[str], Field(min_length=1)] = ["CDS", "RNA", "UTR", "intron"]
    by_frame: bool = True
    rna_types: list[str] = list(RNA_TYPES)
    features: dict[str, list[str]] = {}
    by_strand: list[str] = []
    kmer: Annotated[int, Field(ge=0, le=8)] = 3
    orf_lengths: list[Annotated[int, Field(ge=6)]] = list(ORF_LENGTHS)
    starts: list[Codon] = ["ATG"]
    stops: list[Codon] = ["TAA", "TAG", "TGA"]
    relatives: bool = False


class AnnotationRecipe(LabelRecipe):
    """A checked recipe; its model is a `ReformerForTokenClassification`, which sees both sides."""

    architecture: ClassVar[str] = "ReformerForTokenClassification"
    annotation: AnnotationSection

    @property
    def scheme(self) -> ClassScheme:
        """The classes."""
        section = self.annotation
        return ClassScheme(
            tuple(section.kinds),
            section.by_frame,
            tuple(section.rna_types),
            {name: tuple(types) for name, types in section.features.items()},
            tuple(section.by_strand),
        )

    @property
    def encoding(self) -> BaseEncoding:
        """What the tokens are."""
        section = self.annotation
        return BaseEncoding(
            section.kmer, tuple(section.orf_lengths), tuple(section.starts), tuple(section.stops)
        )


def load_annotation_recipe(path: Path | None, overrides: Sequence[str] = ()) -> AnnotationRecipe:
    """Reads and checks a recipe; see `load_over_packaged`."""
    recipe = load_over_packaged(AnnotationRecipe, path, "annotation/annotate.yaml", overrides)
    try:
        recipe.scheme  # noqa: B018
    except ValueError as error:
        key, _, _ = str(error).partition(" ")
        raise recipe.error(f"annotation.{key.rstrip(':')}", str(error)) from error
    try:
        recipe.encoding  # noqa: B018
    except ValueError as error:
        raise recipe.error("annotation.orf_lengths", str(error)) from error
    if recipe.annotation.relatives and len(recipe.data.train) < 2:
        raise recipe.error("annotation.relatives", "data.train has one genome: expected two or more files")
    if recipe.annotation.relatives and recipe.model.get("rc_equivariant"):
        raise recipe.error("annotation.relatives", "not with model.rc_equivariant")
    for key in ("held_out_regions", "held_out_records"):
        if getattr(recipe.data, key):
            raise recipe.error(f"data.{key}", "not for annotation: expected files of their own in data.eval")
    check_label_files(recipe, "annotation")
    return recipe
