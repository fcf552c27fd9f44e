"""One real node (fake hypervisor) per test module: `node`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.daemon_under_test import NodeUnderTest


@pytest.fixture(scope="module")
def node() -> Iterator[NodeUnderTest]:
    with NodeUnderTest() as running:
        yield running
