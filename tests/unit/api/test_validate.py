"""Validation: PVE's sentences, every wrong parameter at once."""

import pytest

from panal.api.permission import World
from panal.api.table import Method, Param, Routes, Table
from panal.api.validate import DUPLICATE, MISSING, UNKNOWN, check, find_param, validate
from panal.core.errors import BadParameters


def method(*params: Param, path: str = "/x") -> Method:
    routes = Routes("t")

    async def handler(call):
        return None

    routes.post(path, "Test.", permission=World(), returns="null", params=params)(handler)
    return routes.methods[0]


P = Param


@pytest.mark.parametrize(
    ("param", "raw", "value"),
    [
        (P("a", "integer", "d"), "5", 5),
        (P("a", "integer", "d"), "-5", -5),
        (P("a", "integer", "d"), 5, 5),
        (P("a", "integer", "d"), 5.0, 5),
        (P("a", "number", "d"), "1.5", 1.5),
        (P("a", "number", "d"), ".5", 0.5),
        (P("a", "boolean", "d"), "1", True),
        (P("a", "boolean", "d"), 0, False),
        (P("a", "boolean", "d"), True, True),
        (P("a", "string", "d"), 7, "7"),
        (P("a", "string", "d"), True, "1"),
        (P("a", "string", "d"), "two\nlines", "two\nlines"),
        (P("a", "string", "d", format="pve-vmid-list"), ["100", 101], "100,101"),
        (P("a", "string", "d", secret=True), "a\x01b", "a\x01b"),
    ],
)
def test_good(param, raw, value):
    assert check(param, raw) == value and type(check(param, raw)) is type(value)


@pytest.mark.parametrize(
    ("param", "raw", "message"),
    [
        (P("a", "integer", "d"), "x", "type check ('integer') failed - got 'x'"),
        (P("a", "integer", "d"), "1.5", "type check ('integer') failed - got '1.5'"),
        (P("a", "integer", "d"), True, "type check ('integer') failed - got '1'"),
        (P("a", "integer", "d"), "9" * 19, "type check ('integer') failed - got '9999999999999999999'"),
        (P("a", "integer", "d"), "9" * 9000, "type check"),
        (P("a", "integer", "d"), "٣", "type check ('integer') failed"),
        (P("a", "number", "d"), "nan", "type check ('number') failed - got 'nan'"),
        (P("a", "number", "d"), "1e999", "type check ('number') failed"),
        (P("a", "boolean", "d"), "yes", "type check ('boolean') failed - got 'yes'"),
        (P("a", "boolean", "d"), "true", "type check ('boolean') failed - got 'true'"),
        (P("a", "integer", "d", minimum=3), "2", "value must have a minimum value of 3"),
        (P("a", "integer", "d", maximum=999999999), "1000000000", "value must have a maximum value of 999999999"),
        (P("a", "string", "d", max_length=2), "abc", "value may only be 2 characters long"),
        (P("a", "string", "d", min_length=2), "a", "value must be at least 2 characters long"),
        (P("a", "string", "d", enum=("a", "b")), "c", "value 'c' does not have a value in the enumeration 'a, b'"),
        (P("a", "string", "d", pattern="[a-z]+"), "A", "value does not match the regex pattern"),
        (P("a", "string", "d", pattern="[a-z]+"), "a\n", "value does not match the regex pattern"),
        (P("a", "string", "d", format="pve-vmid"), "1", "invalid format - value does not look like a valid VM ID"),
        (P("a", "string", "d"), "a\x00", "value must not contain control characters"),
        (P("a", "string", "d"), ["a"], "type check ('string') failed - got ARRAY"),
    ],
)
def test_bad(param, raw, message):
    with pytest.raises(ValueError) as caught:
        check(param, raw)
    assert str(caught.value).startswith(message)


def test_everything_wrong_is_said_at_once():
    m = method(P("need", "string", "d", required=True), P("n", "integer", "d"), P("net", "string", "d", count=2),
               P("sum", "string", "d", requires="alg"), P("alg", "string", "d"))  # fmt: skip
    with pytest.raises(BadParameters) as caught:
        validate(m, {}, {"n": "x", "net2": "y", "net": "y", "bogus": "1", "sum": "1", "gone": None})
    assert caught.value.fields == {
        "n": "type check ('integer') failed - got 'x'", "net2": UNKNOWN, "net": UNKNOWN, "bogus": UNKNOWN,
        "need": MISSING, "alg": "missing property required by 'sum'",
    }  # fmt: skip


def test_indexed_names():
    m = method(P("net", "string", "d", count=32), P("numa", "boolean", "d"))
    assert find_param(m, "net0") and find_param(m, "net31")
    assert not any(find_param(m, name) for name in ("net", "net32", "net01", "net-1", "net1x", "numa0", "net٣"))


def test_path_values_win_and_must_agree():
    m = method(P("vmid", "integer", "d", required=True), path="/x/{vmid}")
    assert validate(m, {"vmid": "100"}, {"vmid": 100}) == {"vmid": 100}
    with pytest.raises(BadParameters) as caught:
        validate(m, {"vmid": "100"}, {"vmid": "101"})
    assert caught.value.fields == {"vmid": DUPLICATE}


def test_partial_misses_nothing_but_checks_what_is_there():
    m = method(P("a", "string", "d", required=True), P("n", "integer", "d"))
    assert validate(m, {}, {"n": "1"}, partial=True) == {"n": 1}
    with pytest.raises(BadParameters):
        validate(m, {}, {"n": "x"}, partial=True)


def test_tail_parameter_takes_the_rest():
    table = Table([r := Routes("t")])
    m = method(P("volume", "string", "d", required=True), path="/c/{volume}")
    r.methods.append(m)
    table = Table([r])
    for path in ("/c/local:iso/x.iso", "/c/local:iso%2Fx.iso"):
        from urllib.parse import unquote

        found = table.find("POST", [unquote(p) for p in path.split("/") if p])
        assert found is not None and found[1] == {"volume": "local:iso/x.iso"}
    assert table.find("POST", ["c", "{*}"]) is not None
    assert table.find("POST", ["", "c"]) is None
