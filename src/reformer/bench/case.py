"""What a benchmark is made of: cases, and contenders that do the same work."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

Run = Callable[[], dict[str, float]]
"""Does the work once and says what it found: quantities by name, whose last word is the unit."""


@dataclass(frozen=True)
class Contender:
    """One way to do the work of a case.

    Args:
        prepare: makes models and inputs for a number of tokens, and returns what is measured.
        gate: compares with a result known to be right; returns the largest error, relative to the largest
            value. Nothing is measured where it is above `tolerance`.
        tolerance: what rounding explains.
        package: what must be installed, where that is not part of this package's requirements.
        note: what a reader of its figures must know.
    """

    prepare: Callable[[int], Run]
    gate: Callable[[], float]
    tolerance: float
    package: str | None = None
    note: str | None = None


@dataclass(frozen=True)
class Case:
    """One question: how do the contenders compare, by number of tokens?

    Args:
        title: the question's subject, in a line.
        contenders: by name.
        baselines: names of those that the others are compared with.
        lengths: tokens, where the case is asked for by name.
        quick_lengths: tokens, where all cases are run.
        warm_up_length: tokens of a run before all others, which loads code.
        batch: rows of so many tokens each.
        settings: what all contenders share, for the reader.
    """

    title: str
    contenders: Mapping[str, Contender]
    baselines: tuple[str, ...]
    lengths: tuple[int, ...]
    quick_lengths: tuple[int, ...]
    warm_up_length: int
    settings: Mapping[str, object]
    batch: int = 1


class Unavailable(Exception):  # noqa: N818  (a result, not a failure)
    """A contender that cannot run here; the message says why."""


def largest_error(actual: object, expected: object) -> float:
    """Largest difference of two tensors relative to the largest value expected; infinite for no number."""
    import torch

    if not isinstance(actual, torch.Tensor) or not isinstance(expected, torch.Tensor):
        raise TypeError(f"expected tensors, got {type(actual).__name__} and {type(expected).__name__}")
    difference = (actual.detach().double() - expected.detach().double()).abs().max()
    error = float(difference / expected.detach().abs().max().double())
    return error if error == error else float("inf")
