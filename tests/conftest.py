"""What the whole suite shares."""

import os
from collections.abc import Iterator

import pytest
import torch


def pytest_configure() -> None:
    """Triton runs in its interpreter, which it must know when it is first imported, by whomever."""
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture
def poisoned_memory() -> Iterator[None]:
    """Uninitialised memory reads as NaN, or as the largest integer.

    PyTorch fills it only while deterministic algorithms are asked for.
    """
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
    yield
    torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
