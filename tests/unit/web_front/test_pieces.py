"""panal-web's pure parts: heads, forms, limits, multipart cut anywhere, terminal frames cut anywhere."""

import contextlib
import random

import pytest

from panal.web_front.console import Frames, same_origin
from panal.web_front.limits import Buckets, Held, Rate, group
from panal.web_front.request import Refused, check_body, credentials, parameters, read_head
from panal.web_front.upload import Multipart


def head(verb="GET", path="/json/x", query=b"", **headers):
    rows = [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()]
    return read_head(verb, path, query, rows)


def test_query_beats_body_and_lists():
    h = head("POST", query=b"a=1&_dc=9&l=x&l=y&l=z", content_length="7")
    assert parameters(h, b"a=2&b=%C3%A9+x") == {"a": "1", "b": "é x", "l": ["x", "y", "z"]}


def test_json_numbers_and_lists():
    h = head("POST", content_type="application/json; charset=utf-8")
    assert parameters(h, b'{"a":1,"b":[1,"x"],"c":null,"d":true}') == {"a": 1, "b": [1, "x"], "c": None, "d": True}
    for bad in (b"[1]", b"{", b'{"a":{"b":1}}', b'{"a":[[1]]}', b"[" * 100_000, b"\xff"):
        with pytest.raises(Refused):
            parameters(h, bad)


@pytest.mark.parametrize("query", [b"a=%ff", b"&".join(b"a%d=1" % n for n in range(3000)), "é=1".encode()])
def test_bad_queries(query):
    with pytest.raises(Refused):
        head(query=query)


@pytest.mark.parametrize("length", ["-1", "1e3", "٣", "9" * 30, ""])
def test_bad_content_length(length):
    with pytest.raises(Refused):
        check_body(head("POST", content_length=length))


def test_credentials_are_taken_from_three_places():
    ticket = "PVE:a@pve:6B0048D4::ab+/="
    assert credentials({"cookie": "y=1; PVEAuthCookie=PVE%3Aa%40pve%3A6B0048D4%3A%3Aab%2B%2F%3D"}).ticket == ticket
    assert credentials({"authorization": f"PVEAuthCookie={ticket}"}).ticket == ticket
    assert credentials({"authorization": "PVEAPIToken a@pve!t=s"}).token == "a@pve!t=s"
    assert credentials({"authorization": "Bearer x"}).token is None


def test_buckets_refill_and_are_bounded(monkeypatch):
    now = [0.0]
    buckets = Buckets(Rate(2, 1), lambda: now[0])
    assert [buckets.take("192.0.2.1") for _ in range(3)] == [True, True, False]
    assert buckets.take("192.0.2.2")
    now[0] = 1.0
    assert buckets.take("192.0.2.1") and not buckets.take("192.0.2.1")
    monkeypatch.setattr("panal.web_front.limits.MAX_ADDRESSES", 10)
    for n in range(100):
        buckets.take(f"198.51.100.{n}")
    assert len(buckets._known) <= 11


def test_one_customer_is_one_group():
    assert group("2001:db8::1") == group("2001:db8::ffff") != group("2001:db8:0:1::1")
    assert group("::ffff:192.0.2.1") == group("192.0.2.1")
    assert group("nonsense") == "unknown"


def test_held_places():
    held = Held(3, 2)
    assert [held.enter("192.0.2.1") for _ in range(3)] == [True, True, False]
    assert held.enter("192.0.2.2") and not held.enter("192.0.2.3")
    held.leave("192.0.2.1")
    assert held.enter("192.0.2.3")


BODY = (
    b'--b\r\nContent-Disposition: form-data; name="content"\r\n\r\niso\r\n'
    b'--b\r\nContent-Disposition: form-data; name="filename"; filename="x.iso"\r\n'
    b"Content-Type: application/octet-stream\r\n\r\nDATA\r\n--not\r\nMORE\r\n"
    b'--b\r\nContent-Disposition: form-data; name="checksum"\r\n\r\nabc\r\n--b--\r\n'
)


def test_multipart_cut_anywhere_is_the_same():
    rng = random.Random(1)
    for _ in range(300):
        form, data, at = Multipart("multipart/form-data; boundary=b"), b"", 0
        while at < len(BODY):
            step = rng.randint(1, 40)
            data += b"".join(form.feed(BODY[at : at + step]))
            at += step
        assert form.ended and data == b"DATA\r\n--not\r\nMORE"
        assert form.fields == {"content": "iso", "checksum": "abc"} and form.filename == "x.iso"


def test_hostile_multipart_only_ever_refuses():
    """Row 11. Whatever comes, it is Refused or waits for more."""
    rng = random.Random(2)
    for _ in range(2000):
        form = Multipart("multipart/form-data; boundary=b")
        data = bytearray(BODY)
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        with contextlib.suppress(Refused):
            form.feed(bytes(data[: rng.randint(0, len(data))]))


@pytest.mark.parametrize("options", ["", "; boundary=", "; boundary=" + "x" * 300])
def test_no_boundary(options):
    with pytest.raises(Refused):
        Multipart("multipart/form-data" + options)


def test_terminal_frames_cut_anywhere():
    stream = b"1:80:24:0:5:a:2\r\n20:1:x2" + b"0:3:\xc3\xa9!"
    for cut in range(len(stream)):
        frames = Frames()
        assert b"".join(frames.feed(stream[:cut]) + frames.feed(stream[cut:])) == b"a:2\r\nx\xc3\xa9!"


@pytest.mark.parametrize("data", [b"3", b"0:x:", b"0:99999999:", b"1:80:24 ", b"hello", b"0" * 40])
def test_wrong_terminal_frames(data):
    with pytest.raises(Refused):
        Frames().feed(data + b" " * 20)


def test_origin():
    assert same_origin(None, "h:1") and same_origin("https://H:1", "h:1")
    for origin in ("https://evil", "null", "https://h:1.evil", "https://h:2", "https://[", ""):
        assert not same_origin(origin, "h:1")
