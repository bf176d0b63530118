"""The recipe of `reformer dna structure train`: that of any run, and a section about the structures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from reformer.genomics.formats.structures import EIGHT_CLASSES, THREE_CLASSES, Assignment
from reformer.genomics.recipes import LabelRecipe, load_over_packaged
from reformer.training.recipe import Section
from reformer.training.run_data import TEST, VALIDATION

Share = Annotated[float, Field(ge=0, lt=1)]


class StructureSection(Section):
    """What the residues are labelled with, and which chains are held out.

    Attributes:
        classes: 3 (helix, strand, coil) or the 8 of DSSP.
        assignment: labels by DSSP from the "coordinates", or from the "records" of the files, which know only
            five of the 8 classes.
        identity: chains at least so identical, or linked by others that are, are never split between training
            and evaluation.
        validation: the share of the training chains that is held out to choose the best checkpoint by, in
            whole clusters.
        test: the share that is held out to be evaluated on once, after training, likewise.
        min_length: residues of the shortest chain that is read.
        substitution: the share of residues that training reads as others, new ones each time, drawn from all
            training chains: no chain is then learnt by heart.
    """

    classes: Literal[3, 8] = 3
    assignment: Assignment = "coordinates"
    identity: Annotated[float, Field(gt=0, le=1)] = 0.25
    validation: Share = 0.1
    test: Share = 0.2
    min_length: Annotated[int, Field(ge=1)] = 30
    substitution: Share = 0.0

    @property
    def letters(self) -> str:
        """The letters of the classes."""
        return THREE_CLASSES if self.classes == 3 else EIGHT_CLASSES[self.assignment]


class StructureRecipe(LabelRecipe):
    """A checked recipe; its model is a `ReformerForTokenClassification`, which sees both sides.

    In `data`, "train" and "eval" are PDB and mmCIF files, and folders of them; the set of "eval" that is
    called "test" is evaluated on once, after training, and the others choose the best checkpoint. A
    stage's `length` is that of the longest piece of a chain, and "full" means whole chains.
    """

    architecture: ClassVar[str] = "ReformerForTokenClassification"
    structure: StructureSection = StructureSection()


def load_structure_recipe(path: Path | None, overrides: Sequence[str] = ()) -> StructureRecipe:
    """Reads and checks a recipe; see `load_over_packaged`."""
    recipe = load_over_packaged(StructureRecipe, path, "structure/structure.yaml", overrides)
    for key in ("held_out_regions", "held_out_records"):
        if getattr(recipe.data, key):
            raise recipe.error(f"data.{key}", "not for structures; expected structure.test or data.eval")
    section = recipe.structure
    if section.validation + section.test >= 1:
        message = (
            f"{section.test:g}, and validation is {section.validation:g}: nothing would be left to train on"
        )
        raise recipe.error("structure.test", message)
    if "train" in recipe.data.eval:
        raise recipe.error("data.eval.train", "this name is that of the training data; another one")
    for name in (VALIDATION, TEST):
        if name in recipe.data.eval and getattr(section, name):
            raise recipe.error(
                f"structure.{name}", f"data.eval has such a set: expected 0, got {getattr(section, name):g}"
            )
    return recipe
