"""Reads a recipe's YAML and its `key=value` overrides, remembering where every value was written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from reformer.errors import UserError

Key: TypeAlias = tuple[str | int, ...]
_MAX_DEPTH = 10  # an anchor that contains itself is an endless recipe


class _RecipeLoader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, except that `3e-4` is a number, as in YAML 1.2."""


_RecipeLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+|\d+\.\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


@dataclass
class RecipeFile:
    """The values of a recipe, before they are checked, and the place of each.

    Attributes:
        name: what error messages call the recipe: its path as the user wrote it.
        values: the mapping that the YAML and the overrides give together.
        places: for a key, as a tuple of mapping keys and list indices, where it was written.
    """

    name: str
    values: dict[str, Any]
    places: dict[Key, str] = field(default_factory=dict)

    def error(self, key: Key, message: str) -> UserError:
        """An error whose message begins with the place of `key`, or of the nearest key around it."""
        while key and key not in self.places:
            key = key[:-1]
        return UserError(f"{self.places.get(key, self.name)}: {message}")


def dotted(key: Key) -> str:
    """The way a key is written in an override: `training.lengths.0.steps`."""
    return ".".join(str(part) for part in key)


def read_recipe_file(path: Path, overrides: Sequence[str] = ()) -> RecipeFile:
    """Parses a YAML file and lays `key=value` overrides over it.

    Args:
        path: the YAML file.
        overrides: `dotted.key=value`, the value in YAML; a list item goes by its number.

    Raises:
        UserError: for text that is not YAML, a key given twice, a recipe that is not a mapping, and an
            override that cannot be read or applied.
        OSError: when the file cannot be read.
    """
    root = _compose(path.read_bytes(), str(path))
    recipe = RecipeFile(str(path), {}, {})
    if not isinstance(root, yaml.MappingNode):
        raise UserError(f"{path}: expected a mapping with data, model, training and output_dir")
    recipe.values = _construct(root, (), recipe)
    for override in overrides:
        _apply_override(recipe, override)
    return recipe


def _compose(text: bytes | str, name: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=_RecipeLoader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{name}{line}: not YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:  # bytes that are no text: the message has a second line
        raise UserError(f"{name}: not YAML: {str(error).splitlines()[0]}") from error


def _construct(node: yaml.Node, key: Key, recipe: RecipeFile) -> Any:
    """The value of a YAML node; the place of every key under it goes into `recipe.places`."""
    place = f"{recipe.name}, line {node.start_mark.line + 1}"
    if len(key) > _MAX_DEPTH:
        raise UserError(f"{place}: nested more than {_MAX_DEPTH} deep")
    recipe.places.setdefault(key, place)
    if isinstance(node, yaml.MappingNode):
        return _construct_mapping(node, key, recipe)
    if isinstance(node, yaml.SequenceNode):
        return [_construct(item, (*key, index), recipe) for index, item in enumerate(node.value)]
    return _construct_scalar(node, recipe.name)


def _construct_mapping(node: yaml.MappingNode, key: Key, recipe: RecipeFile) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for name_node, value_node in node.value:
        name, line = name_node.value, name_node.start_mark.line + 1
        if not isinstance(name, str):
            raise UserError(f"{recipe.name}, line {line}: a key must be one word")
        if name in mapping:
            raise UserError(f"{recipe.name}, line {line}: {dotted((*key, name))} is given twice")
        recipe.places[*key, name] = f"{recipe.name}, line {line}"
        mapping[name] = _construct(value_node, (*key, name), recipe)
    return mapping


def _construct_scalar(node: yaml.Node, name: str) -> Any:
    constructor = yaml.constructor.SafeConstructor()
    try:
        return constructor.construct_object(node, deep=True)  # type: ignore[no-untyped-call]
    except (yaml.YAMLError, ValueError) as error:
        problem = getattr(error, "problem", None) or str(error)
        raise UserError(f"{name}, line {node.start_mark.line + 1}: {problem}") from error


def _apply_override(recipe: RecipeFile, override: str) -> None:
    name = f"override {override!r}"
    dotted_key, equals, text = override.partition("=")
    if not equals or not dotted_key:
        raise UserError(f"{name}: expected key=value, such as training.learning_rate=3e-4")
    key: Key = tuple(int(part) if part.isdecimal() else part for part in dotted_key.strip().split("."))
    container: Any = recipe.values
    for depth, part in enumerate(key[:-1]):
        if isinstance(container, dict) and isinstance(part, str) and container.get(part) is None:
            container[part] = {}
            recipe.places[key[: depth + 1]] = name
        container = _item(container, part, name, dotted(key[:depth]))
    _item(container, key[-1], name, dotted(key[:-1]), setting=True)
    node = _compose(text, name)
    value_file = RecipeFile(name, {}, {})
    container[key[-1]] = None if node is None else _construct(node, (), value_file)
    for known in [known for known in recipe.places if known[: len(key)] == key]:
        del recipe.places[known]
    recipe.places[key] = name


def _item(container: Any, part: str | int, name: str, where: str, setting: bool = False) -> Any:
    """`container[part]`, or a UserError that says why there is no such place."""
    if isinstance(container, list):
        if isinstance(part, int) and part < len(container):
            return container[part]
        raise UserError(f"{name}: {where} is a list of {len(container)}, which has no item {part}")
    if not isinstance(container, dict):
        raise UserError(f"{name}: {where} is not a mapping")
    if not isinstance(part, str):
        raise UserError(f"{name}: {where or 'the recipe'} is a mapping, not a list")
    return None if setting else container[part]
