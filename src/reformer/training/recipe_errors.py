"""Says in one line what is wrong with a recipe, where, and what was expected there."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from pydantic_core import ErrorDetails

from reformer.errors import UserError
from reformer.training.recipe_file import Key, RecipeFile, dotted


def first_error(
    file: RecipeFile, prefix: Key, values: Any, errors: list[ErrorDetails], known_keys: Iterable[str]
) -> UserError:
    """The first of pydantic's errors, as one line with its place; `values` are those at `prefix`."""
    return file.error(*first_message(prefix, values, errors, known_keys))


def first_message(
    prefix: Key, values: Any, errors: list[ErrorDetails], known_keys: Iterable[str]
) -> tuple[Key, str]:
    """What `first_error` says, and of which key."""
    first = next((error for error in errors if error["type"] == "extra_forbidden"), errors[0])
    key = _key_within(values, first["loc"])
    same_place = [error for error in errors if _key_within(values, error["loc"]) == key]
    full_key = prefix + key
    if first["type"] == "extra_forbidden":
        return full_key, f"unknown key {dotted(full_key)}; {_suggestion(full_key, known_keys)}"
    if first["type"] == "missing":
        return full_key, f"missing key {dotted((*full_key, first['loc'][-1]))}"
    expected = " or ".join(dict.fromkeys(_expectation(error) for error in same_place))
    return full_key, f"{dotted(full_key)}: expected {expected}, got {short(first['input'])}"


def _key_within(values: Any, loc: Key) -> Key:
    """The leading part of pydantic's location that leads to a value; the rest names members of unions."""
    key: list[str | int] = []
    for part in loc:
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            break
        key.append(part)
    return tuple(key)


_EXPECTATIONS = {
    "model_type": "a mapping",
    "dict_type": "a mapping",
    "list_type": "a list",
    "tuple_type": "a list",
    "string_type": "text",
    "bool_type": "true or false",
    "int_type": "an integer",
    "float_type": "a number",
    "finite_number": "a finite number",
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "a number of at least {ge:g}",
    "less_than": "a number below {lt:g}",
    "less_than_equal": "a number of at most {le:g}",
    "too_short": "at least {min_length} item(s)",
    "string_too_short": "text that is not empty",
    "literal_error": "{expected}",
    "none_required": "null",
}
"""What pydantic's types of error say was expected, with the values of their context."""


def _expectation(error: ErrorDetails) -> str:
    template = _EXPECTATIONS.get(error["type"])
    if template is None:
        return error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return template.format(**error.get("ctx", {}))


def _suggestion(key: Key, known_keys: Iterable[str]) -> str:
    """The known key that looks most like a misspelt one."""
    name = dotted(tuple(part for part in key if isinstance(part, str)))
    parent, _, last = name.rpartition(".")
    siblings = [known.rpartition(".")[2] for known in known_keys if known.rpartition(".")[0] == parent]
    if alike := difflib.get_close_matches(last, siblings, n=1, cutoff=0.6):
        return f"did you mean {name.removesuffix(last)}{alike[0]}?"
    if elsewhere := [known for known in known_keys if known.rpartition(".")[2] == last]:
        return f"did you mean {elsewhere[0]}?"
    return f"expected one of {', '.join(siblings)}"


def short(value: Any, limit: int = 60) -> str:
    """A value as Python writes it, cut after `limit` characters."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
