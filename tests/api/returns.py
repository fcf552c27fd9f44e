"""Whether a real answer is what its method declares: for every API test that looks at answers.

check(node_answer["data"], "GET", "/nodes/{node}/qemu")
"""

from __future__ import annotations

from typing import Any

from panal.api import schema
from panal.api.all_routes import table

_DECLARED: dict[tuple[str, str], str] = {(m.verb, m.path): m.returns for m in table().methods}


def problems(data: Any, verb: str, path: str) -> list[str]:
    """What does not fit."""
    return list(schema.problems(schema.parse(_DECLARED[verb, path]), data))


def check(data: Any, verb: str, path: str) -> None:
    """Assert that it fits."""
    wrong = problems(data, verb, path)
    assert not wrong, f"{verb} {path}:\n" + "\n".join(wrong[:20])
