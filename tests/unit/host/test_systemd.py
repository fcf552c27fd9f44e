"""Scopes are asked for over a real D-Bus, of a systemd that is not one."""

import asyncio
import os
import shutil
import subprocess
import sys

import pytest

from panal.core.errors import Failed
from panal.host import systemd
from panal.host.cgroups import Limits

_FAKE = """
import asyncio, json, sys
from dbus_fast import BusType, Message, MessageType
from dbus_fast.aio import MessageBus

async def main():
    bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
    def handle(m):
        if m.message_type is not MessageType.METHOD_CALL or m.member != "StartTransientUnit":
            return None
        name, mode, properties, aux = m.body
        if name.startswith("bad"):
            return Message.new_error(m, "org.freedesktop.systemd1.UnitExists", "there is one")
        print(json.dumps([m.signature, name, mode, {k: [v.signature, v.value] for k, v in properties}]), flush=True)
        return Message.new_method_return(m, "o", ["/job/1"])
    bus.add_message_handler(handle)
    await bus.request_name("org.freedesktop.systemd1")
    print("ready", flush=True)
    await asyncio.get_running_loop().create_future()

asyncio.run(main())
"""


@pytest.fixture
def bus(monkeypatch, tmp_path):
    """A private bus and a process on it that answers as systemd's manager does; yields its output."""
    if shutil.which("dbus-daemon") is None:
        pytest.skip("dbus-daemon is not installed (package dbus)")
    daemon = subprocess.Popen(
        ["dbus-daemon", "--session", "--nofork", "--print-address=1", f"--address=unix:path={tmp_path}/bus"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert daemon.stdout is not None
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", daemon.stdout.readline().strip())
    manager = subprocess.Popen([sys.executable, "-c", _FAKE], stdout=subprocess.PIPE, text=True)
    assert manager.stdout is not None
    assert manager.stdout.readline() == "ready\n"
    yield manager.stdout
    for process in (manager, daemon):
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


async def test_a_scope_with_its_limits(bus):
    import json

    await systemd.start_scope("panal-n1-100.scope", [11, 12], "VM 100", Limits(1.5, 200, 1 << 30, 99))
    signature, name, mode, properties = json.loads(await asyncio.to_thread(bus.readline))
    assert (signature, name, mode) == ("ssa(sv)a(sa(sv))", "panal-n1-100.scope", "fail")
    assert properties["PIDs"] == ["au", [11, 12]]
    assert properties["CPUQuotaPerSecUSec"] == ["t", 1_500_000]
    assert properties["CPUWeight"] == ["t", 200]
    assert properties["MemoryMax"] == ["t", 1 << 30]
    assert properties["TasksMax"] == ["t", 99]


async def test_a_refusal_is_an_error(bus):
    with pytest.raises(Failed, match="there is one"):
        await systemd.start_scope("bad.scope", [os.getpid()], "VM", Limits())


async def test_no_bus_is_an_error(monkeypatch):
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nowhere/bus")
    with pytest.raises(Failed, match="systemd does not answer"):
        await systemd.start_scope("x.scope", [os.getpid()], "VM", Limits())
