"""Network strings: typed, round, closed to injection; generated addresses."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panal.core.errors import BadInput
from panal.guests.config.generate import fresh_macs, new_mac, with_macs
from panal.guests.config.nics import MODELS, Nic, format_nic, parse_nic, read_nics


def test_model_and_address_in_short_and_long_form():
    short = parse_nic("net0", "virtio=bc:24:11:00:00:01,bridge=vmbr0,firewall=1,tag=10")
    long = parse_nic("net0", "model=virtio,macaddr=BC:24:11:00:00:01,bridge=vmbr0,firewall=on,tag=10")
    assert short == long == Nic("net0", 0, "virtio", "BC:24:11:00:00:01", "vmbr0", 10, True)
    assert format_nic(short) == "virtio=BC:24:11:00:00:01,bridge=vmbr0,firewall=1,tag=10"
    assert parse_nic("net0", "e1000").mac is None


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("bridge=vmbr0", "model"),
        ("virtio,bridge=../x", "bridge"),
        ("virtio,bridge=-x", "bridge"),
        ("virtio,tag=0", "tag"),
        ("virtio,tag=4095", "tag"),
        ("virtio,trunks=1;5000", "trunks"),
        ("virtio,trunks=9-2", "trunks"),
        ("virtio=01:00:00:00:00:00", "macaddr"),
        ("virtio=BC:24:11:00:00", "macaddr"),
        ("nosuch=BC:24:11:00:00:01", "nosuch"),
        ("virtio,rate=nan", "rate"),
    ],
)
def test_refused_with_the_key_and_the_reason(text: str, word: str):
    with pytest.raises(BadInput) as caught:
        parse_nic("net0", text)
    assert caught.value.field == "net0" and word in str(caught.value)


@st.composite
def nics(draw: st.DrawFn) -> Nic:
    index = draw(st.integers(0, 31))
    vlan = st.integers(1, 4094)
    return Nic(
        f"net{index}", index, draw(st.sampled_from(MODELS)),
        draw(st.none() | st.binary(min_size=5, max_size=5).map(lambda b: "02:" + ":".join(f"{x:02X}" for x in b))),
        draw(st.none() | st.from_regex(r"[a-zA-Z][a-zA-Z0-9_.]{0,14}", fullmatch=True)),
        draw(st.none() | vlan), draw(st.booleans()), draw(st.booleans()),
        draw(st.none() | st.floats(0, 1e12, allow_nan=False)), draw(st.none() | st.integers(0, 64)),
        draw(st.none() | st.integers(1, 65520)),
        tuple(draw(st.lists(st.tuples(vlan, vlan).map(lambda t: (min(t), max(t))), max_size=3))),
    )  # fmt: skip


@given(nics())
def test_every_card_reads_back_as_itself(nic: Nic):
    assert parse_nic(nic.key, format_nic(nic)) == nic


def test_made_addresses_have_the_prefix_and_are_made_once():
    config = with_macs({"net0": "virtio,bridge=vmbr0", "net1": "e1000=02:00:00:00:00:01"}, os.urandom)
    first, second = read_nics(config)
    assert first.mac is not None and first.mac.startswith("BC:24:11:") and second.mac == "02:00:00:00:00:01"
    assert with_macs(config, os.urandom) == config
    assert all(
        a.mac != b.mac for a, b in zip(read_nics(config), read_nics(fresh_macs(config, os.urandom)), strict=True)
    )
    assert new_mac(lambda n: b"\1" * n, "02:AB") == "02:AB:01:01:01:01"


def test_a_taken_address_is_not_given_again():
    draws = iter([b"\0\0\1", b"\0\0\2"])
    assert new_mac(lambda n: next(draws), taken={"BC:24:11:00:00:01"}) == "BC:24:11:00:00:02"
