"""What a person types, what goes over the wire, what comes back, and the exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import panal
from panal.cli import exit_codes
from panal.cli.main import main, sentence
from panal.client.connection import Answer, ApiError
from panal.core.errors import NotFound, Unavailable

UPID = "UPID:a:00000001:00000001:65000000:qmstart:100:root@pam:"
TASK = f"/nodes/a/tasks/{UPID}"


def test_a_table_for_people(fake_node, panal):
    result = panal("vm", "list")
    assert result.exit_code == 0
    assert "web" in result.output
    assert "1.0 GiB" in result.output


def test_json_for_programs(fake_node, panal):
    for words in (("--json", "vm", "list"), ("vm", "list", "--json"), ("vm", "--json", "list")):
        assert json.loads(panal(*words).output)[0]["mem"] == 2**30


def test_a_guest_is_found_by_its_number_alone(fake_node, panal):
    fake_node.answers["GET", "/nodes/a/qemu/100/config"] = {"name": "web"}
    assert panal("vm", "config", "100").exit_code == 0
    assert ("GET", "/nodes/a/qemu/100/config", {}) in fake_node.asked


def test_an_unknown_guest_is_a_clear_error(fake_node, panal):
    result = panal("vm", "config", "999")
    assert isinstance(result.exception, NotFound)
    assert "999" in str(result.exception)


def test_numbered_options_reach_the_wire(fake_node, panal):
    fake_node.answers["POST", "/nodes/a/qemu"] = None
    result = panal("vm", "create", "--vmid", "101", "--net0", "virtio,bridge=vmbr0", "--scsi3=local:8", "--onboot")
    assert result.exit_code == 0, result.output
    sent = fake_node.asked[-1][2]
    assert sent["net0"] == "virtio,bridge=vmbr0"
    assert sent["scsi3"] == "local:8"
    assert sent["onboot"] == "1"
    assert sent["vmid"] == 101


def test_a_number_out_of_range_is_refused_here(fake_node, panal):
    result = panal("vm", "create", "--net99", "virtio")
    assert result.exit_code == exit_codes.USAGE
    assert "net99" in result.output


def test_destroying_asks_first(fake_node, panal):
    fake_node.answers["DELETE", "/nodes/a/qemu/100"] = None
    assert panal("vm", "delete", "100", stdin="n\n").exit_code != 0
    assert not any(verb == "DELETE" for verb, _, _ in fake_node.asked)
    assert panal("vm", "delete", "100", "--yes").exit_code == 0
    assert any(verb == "DELETE" for verb, _, _ in fake_node.asked)


@pytest.mark.parametrize(
    ("end", "code"),
    [("OK", exit_codes.OK), ("WARNINGS: 2", exit_codes.WARNINGS), ("disk is full", exit_codes.FAILED)],
)
def test_a_task_is_followed_to_its_end(fake_node, panal, end, code):
    fake_node.answers["POST", "/nodes/a/qemu/100/status/start"] = UPID
    fake_node.answers["GET", f"{TASK}/status"] = [
        Answer({"status": "running"}),
        Answer({"status": "stopped", "exitstatus": end}),
    ]
    fake_node.answers["GET", f"{TASK}/log"] = [
        Answer([{"n": 1, "t": "first"}]),
        Answer([{"n": 2, "t": "last\x1b[31m"}]),
    ]
    result = panal("vm", "start", "100")
    assert result.exit_code == code
    assert "first" in result.stderr
    assert "\x1b" not in result.stderr


def test_no_wait_prints_the_name_of_the_task(fake_node, panal):
    fake_node.answers["POST", "/nodes/a/qemu/100/status/start"] = UPID
    result = panal("--no-wait", "vm", "start", "100")
    assert result.output.strip() == UPID


def test_a_password_comes_from_standard_input_and_never_from_an_option(fake_node, panal):
    fake_node.answers["PUT", "/access/password"] = None
    assert panal("user", "password", "joan@pve", stdin="correct horse\n").exit_code == 0
    assert fake_node.asked[-1][2]["password"] == "correct horse"
    assert panal("user", "password", "joan@pve", "--password", "x").exit_code == exit_codes.USAGE


def test_an_optional_secret_is_asked_for_only_on_request(fake_node, panal):
    fake_node.answers["POST", "/access/users"] = None
    assert panal("user", "create", "joan@pve", stdin="not read\n").exit_code == 0
    assert "password" not in fake_node.asked[-1][2]
    assert panal("user", "create", "joan@pve", "--ask-password", stdin="correct horse\n").exit_code == 0
    assert fake_node.asked[-1][2]["password"] == "correct horse"


def test_api_calls_anything(fake_node, panal):
    fake_node.answers["POST", "/nodes/a/x"] = "done"
    result = panal("api", "post", "nodes/a/x", "size=1", "secret=-", stdin="hidden\n")
    assert result.output == "done\n"
    assert fake_node.asked[-1] == ("POST", "/nodes/a/x", {"size": "1", "secret": "hidden"})


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ApiError(400, "Parameter verification failed.", {"net0": "bad"}), exit_codes.USAGE),
        (ApiError(401, "authentication failure", {}), exit_codes.DENIED),
        (ApiError(403, "Permission check failed (/vms/100, VM.PowerMgmt)", {}), exit_codes.DENIED),
        (ApiError(500, "got timeout", {}), exit_codes.FAILED),
        (ApiError(500, "Configuration file 'x' does not exist", {}), exit_codes.NOT_FOUND),
        (Unavailable("no answer"), exit_codes.UNREACHABLE),
    ],
)
def test_errors_become_one_line_and_a_code(fake_node, monkeypatch, capsys, error, code):
    fake_node.answers["GET", "/storage"] = error
    monkeypatch.setattr(sys, "argv", ["panal", "storage", "list"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == code
    shown = capsys.readouterr().err
    assert shown.startswith("panal: ")
    for field, message in getattr(error, "errors", {}).items():
        assert f"{field}: {message}" in shown


def test_completion_scripts_and_names(fake_node, panal):
    for shell in ("bash", "zsh", "fish"):
        assert "panal" in panal("completion", shell).output
    import click

    from panal.cli.completion import complete

    items = complete("vmid")(click.Context(click.Command("x"), obj=_session()), click.Option(["--x"]), "1")
    assert [i.value for i in items] == ["100"]


def _session():
    from panal.cli.session import Session

    return Session()


def test_help_imports_neither_the_server_nor_the_table_drawer():
    code = (
        "import sys; from panal.cli.main import root\n"
        "try: root.main(['--help'], standalone_mode=False)\n"
        "except SystemExit: pass\n"
        "bad = {'panal.api', 'rich', 'msgspec', 'panal.guests', 'structlog', 'ssl'} & set(sys.modules)\n"
        "sys.exit(str(bad) if bad - {'ssl'} else 0)"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(panal.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr


def test_a_login_that_has_ended_says_so(monkeypatch):
    """As after changing one's own password. Planted fault: the wire's `invalid PVE ticket` is shown."""
    monkeypatch.delenv("PANAL_TOKEN", raising=False)
    ended = ApiError(401, "permission denied - invalid PVE ticket", {})
    assert "log in again" in sentence(ended) and "PVE" not in sentence(ended)
    assert sentence(ApiError(401, "authentication failure", {})) == "authentication failure"
    monkeypatch.setenv("PANAL_TOKEN", "a@pve!t=1")
    assert sentence(ended) == ended.message
