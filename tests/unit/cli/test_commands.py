"""The command table and the packaged method table agree."""

from __future__ import annotations

import pytest

from panal.cli.commands import API_ONLY, COMMANDS, NOUNS
from panal.client.methods import load


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: f"{c.noun} {c.verb}")
def test_every_command_names_a_method_and_its_parameters(command):
    row = load()[command.method, command.path]
    names = {p["name"] for p in row["params"]}
    assert set(command.args) <= names
    assert set(command.fixed) <= names
    assert command.noun in NOUNS


def test_every_method_has_a_command_or_is_left_to_panal_api_on_purpose():
    named = {(c.method, c.path) for c in COMMANDS}
    indexes = {
        key
        for key in load()
        if key[0] == "GET" and any(path.startswith(key[1].rstrip("/") + "/") for _, path in load())
    }
    unnamed = set(load()) - named - indexes - set(API_ONLY)
    assert not unnamed, "give these a row in commands.py or put them into API_ONLY"


def test_nothing_is_named_twice_or_left_to_panal_api_needlessly():
    assert len({(c.noun, c.verb) for c in COMMANDS}) == len(COMMANDS)
    assert not {(c.method, c.path) for c in COMMANDS} & set(API_ONLY)
    assert set(API_ONLY) <= set(load())


def test_whatever_destroys_asks_first():
    silent = {("task", "stop")}  # stopping undoes, it destroys nothing
    for command in COMMANDS:
        if command.method == "DELETE" and (command.noun, command.verb) not in silent:
            assert command.confirm, f"{command.noun} {command.verb}"
