"""UPIDs and task logs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panal.core import redact
from panal.core.errors import BadInput
from panal.tasks import log
from panal.tasks.model import Upid

WORD = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_characters=":/\x7f"), min_size=1, max_size=40
)
PLAIN = WORD.filter(lambda text: not any(c.isspace() for c in text))
U32 = st.integers(0, 0xFFFFFFFF)


@given(
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9-]{0,20}", fullmatch=True),
    U32,
    U32,
    U32,
    PLAIN,
    st.one_of(st.just(""), PLAIN),
    PLAIN,
)
def test_a_upid_survives_the_wire(node, pid, pstart, start, kind, subject, user):
    upid = Upid(node, pid, pstart, start, kind, subject, user)
    assert Upid.parse(str(upid)) == upid


@given(st.text(max_size=200))
def test_any_subject_becomes_a_upid_that_parses(subject):
    upid = Upid("n", 1, 2, 3, "imgdel", Upid.escape(subject), "root@pam")
    assert Upid.parse(str(upid)) == upid
    assert "/" not in str(upid)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "UPID:",
        "UPID:n:1:2:3:t:i:u:",
        "UPID:n:00000001:00000001:00000001:qmstart:100:root@pam",
        "UPID:n:00000001:00000001:00000001:qmstart:100:root@pam:\n",
        "UPID:n:00000001:00000001:00000001:../../x:100:root@pam:",
        "UPID:n:00000001:00000001:00000001::100:root@pam:",
        "UPID:n:0000000g:00000001:00000001:qmstart:100:root@pam:",
    ],
)
def test_what_is_not_a_upid_names_the_field(text):
    """Attack row 20. Planted fault: `match` instead of `fullmatch` lets the trailing line break through."""
    with pytest.raises(BadInput) as caught:
        Upid.parse(text)
    assert caught.value.field == "upid"


def test_a_long_name_still_has_a_file(tmp_path):
    upid = str(Upid("n" * 63, 1, 1, 1, "imgcopy", Upid.escape("x" * 500), "u" * 60 + "@pve!" + "t" * 64))
    path = log.path_of(tmp_path, upid)
    log.LogWriter(path).close()
    assert path.is_file()


def test_lines_are_readable_at_once_and_numbered_from_one(tmp_path):
    path = tmp_path / "a" / "log"
    writer = log.LogWriter(path)
    writer.write("one\ntwo")
    writer.write("three \x1b[31m\x00")
    assert log.read(path, 0, 0) == ([(1, "one"), (2, "two"), (3, "three \\x1b[31m\\x00")], 3)
    assert log.read(path, 1, 1) == ([(2, "two")], 3)
    assert path.stat().st_mode & 0o777 == 0o600
    writer.close()


def test_the_log_is_bounded_and_keeps_its_last_line(tmp_path, monkeypatch):
    monkeypatch.setattr(log, "MAX_BYTES", 1000)
    writer = log.LogWriter(tmp_path / "log")
    for _ in range(100):
        writer.write("x" * 50)
    writer.write("TASK OK", last=True)
    writer.close()
    lines, _ = log.read(tmp_path / "log", 0, 0)
    assert (tmp_path / "log").stat().st_size < 1100
    assert lines[-1][1] == "TASK OK"
    assert sum("log is full" in text for _, text in lines) == 1


def test_secrets_do_not_reach_the_file(tmp_path):
    """Invariant 11. Planted fault: writing `text` instead of `redact(text)`."""
    redact.register("hunter2hunter2")
    try:
        writer = log.LogWriter(tmp_path / "log")
        writer.write("logging in with hunter2hunter2 and password=topsecret")
        writer.close()
    finally:
        redact.unregister("hunter2hunter2")
    text = (tmp_path / "log").read_text()
    assert "hunter2" not in text and "topsecret" not in text
