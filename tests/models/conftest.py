"""What the tests of models share."""

from typing import Any

import pytest
import torch
from torch import Tensor


@pytest.fixture
def rotations_of_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers draws rotations in the dtype of the model: give it the ones of float32 in float64."""
    randn = torch.randn

    def drawn(*args: Any, dtype: torch.dtype | None = None, **kwargs: Any) -> Tensor:
        return randn(*args, **kwargs).to(dtype or torch.float32)

    monkeypatch.setattr(torch, "randn", drawn)
