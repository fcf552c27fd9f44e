"""Worlds for the tests of guests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.guests.world import World


@pytest.fixture
def world() -> Iterator[World]:
    """A fresh machine; removed afterwards."""
    made = World()
    yield made
    made.close()
