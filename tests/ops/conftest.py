"""Uninitialised memory is poison in every test of the ops."""

import pytest


@pytest.fixture(autouse=True)
def _poisoned_memory(poisoned_memory: None) -> None:
    pass
