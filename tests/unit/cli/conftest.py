"""A node that answers from a list, and a way to run `panal` against it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import pytest
from click.testing import CliRunner, Result

from panal.cli import session as session_module
from panal.cli.main import root
from panal.client.connection import Answer, ApiError, Params


@dataclass
class FakeNode:
    """Answers by (verb, path); keeps what was asked."""

    answers: dict[tuple[str, str], Any] = field(default_factory=dict)
    asked: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    name: str = "fake"

    def call(self, verb: str, path: str, params: Params | None = None) -> Answer:
        self.asked.append((verb, path, dict(params or {})))
        found = self.answers.get((verb, path))
        if isinstance(found, list) and found and isinstance(found[0], Answer):
            return found.pop(0) if len(found) > 1 else found[0]
        if isinstance(found, Exception):
            raise found
        if found is None and (verb, path) not in self.answers:
            raise ApiError(501, f"Method '{verb} {path}' not implemented", {})
        return Answer(found)

    def upload(
        self, path: str, fields: Mapping[str, str], file: BinaryIO, filename: str, progress: Callable[[int, int], None]
    ) -> Answer:
        self.asked.append(("UPLOAD", path, {**fields, "filename": filename, "bytes": file.read()}))
        return Answer(None)


@pytest.fixture
def fake_node(monkeypatch: pytest.MonkeyPatch) -> FakeNode:
    fake = FakeNode()
    fake.answers["GET", "/nodes"] = [{"node": "a"}]
    fake.answers["GET", "/cluster/resources"] = [
        {"vmid": 100, "node": "a", "type": "qemu", "name": "web", "mem": 2**30}
    ]
    monkeypatch.setattr(session_module.Session, "_connect", lambda self: fake)
    return fake


@pytest.fixture
def panal() -> Callable[..., Result]:
    def run(*args: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(root, args, input=stdin)

    return run
