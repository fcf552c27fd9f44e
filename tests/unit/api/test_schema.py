"""The returns notation: read, checked, shown."""

import pytest

from panal.api import schema
from tests.contract.pve import facts


def test_every_fact_can_be_read():
    for text in facts.returns().values():
        schema.parse(text)


@pytest.mark.parametrize(
    ("notation", "value", "wrong"),
    [
        ("null", None, 0),
        ("null", 1, 1),
        ("string=a|b", "a", 0),
        ("string=a|b", "c", 1),
        ("boolean", 1, 0),
        ("boolean", 2, 1),
        ("integer", True, 1),
        ("number", 1.5, 0),
        ("[{vmid:integer name?:string}]", [{"vmid": 1, "more": 1}, {"name": "x"}, {"vmid": "1"}], 2),
        ("{a:{b:[integer]}}", {"a": {"b": [1, "x"]}}, 1),
        ("{net[n]?:string}", {"net0": "x", "net1": 1}, 1),
        ("[{}]", [{}, 1], 1),
        ("[]", [1, "x"], 0),
    ],
)
def test_problems(notation, value, wrong):
    assert len(list(schema.problems(schema.parse(notation), value))) == wrong


@pytest.mark.parametrize("notation", ["{a}", "[string", "{a:string", "strng", "string x"])
def test_mistakes_in_the_notation(notation):
    with pytest.raises(ValueError):
        schema.parse(notation)
