"""`python -m panal_demo.main [up|status|down]`, run by `./demo` when packages and environment are there.

Composition root of the demo: `up` goes through its steps in order, each of which looks before it acts. State: one directory
(place.py). Exit status 0 done, 1 with a sentence on standard error, 3 nothing runs (`status`).
"""

from __future__ import annotations

import argparse
import contextlib
import grp
import json
import os
import pwd
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from panal.client.connection import AdminSocket
from panal.core.errors import PanalError
from panal_demo import bridge, daemons, guest
from panal_demo.guest_image import ImageError, build
from panal_demo.place import DemoError, Facts, Place, here

WEB_USER = os.environ.get("PANAL_DEMO_WEB_USER") or "panal"


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="./demo")
    parser.add_argument("verb", nargs="?", choices=("up", "status", "down"), default="up")
    parser.add_argument("--json", action="store_true", help="status for programs")
    parser.add_argument("--purge", action="store_true", help="with down: forget everything")
    options = parser.parse_args()
    os.umask(0o022)
    try:
        place = here()
        if options.verb == "status":
            return status(place, options.json)
        return down(place, options.purge) if options.verb == "down" else up(place)
    except (DemoError, ImageError, PanalError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1


def say(line: str) -> None:
    """One step, for people."""
    print(f"\033[1m==\033[0m {line}" if sys.stdout.isatty() else f"== {line}", flush=True)


# ---- up


def up(place: Place) -> int:
    """All steps; quick when all is there."""
    began = time.monotonic()
    facts = place.facts or _decide(place)
    place.prepare()
    if facts.bridge and facts.subnet:
        bridge.make(place, facts.subnet)
    started = daemons.start(place, facts)
    say(f"started {' and '.join(started)}" if started else "the node is already running")
    if guest.ensure_user(place, facts):
        say(f"made the administrator {facts.userid}")
    api = guest.login(place, facts)
    guest.ensure_storage(api, place)
    if not guest.exists(api, facts):
        disk = build(place.cache, say)
        say(f"creating VM {facts.vmid} through the API")
        guest.create(api, facts, disk, say)
    if guest.ensure_running(api, facts):
        say(f"VM {facts.vmid} is running; waiting for its Linux to answer")
    kernel = guest.answers_on_serial(api, facts)
    say(f"the guest answers on its serial console: Linux {kernel}")
    address = guest.answers_on_bridge(api, place, facts) if facts.bridge else None
    if address:
        say(f"the guest answers a ping at {address}")
    elif facts.bridge:
        say(f"the guest answers no ping on {facts.bridge}: is a firewall in the way?")
    _write_command(place)
    _goodbye(place, facts, time.monotonic() - began)
    return 0


def _decide(place: Place) -> Facts:
    """What the first run settles for all later ones."""
    hindrance = "PANAL_DEMO_PLAIN is set" if os.environ.get("PANAL_DEMO_PLAIN") == "1" else bridge.possible()
    if hindrance:
        say(f"no bridge ({hindrance}): guests get user-mode networking")
    made = os.geteuid() == 0 and _make_web_user()
    name = re.sub(r"[^a-z0-9-]", "", socket.gethostname().split(".")[0].lower()).strip("-")[:40]
    facts = Facts(
        node=name or "node",
        port=int(os.environ.get("PANAL_DEMO_PORT") or 8006),
        userid="demo@pve",
        password=secrets.token_urlsafe(12),
        bridge=None if hindrance else bridge.NAME,
        subnet=None if hindrance else bridge.free_subnet(),
        made_user=made,
        web_user=WEB_USER,
    )
    place.keep(facts)
    return facts


def _make_web_user() -> bool:
    """The unprivileged user of panal-web, as packaging/systemd/panal.sysusers makes it."""
    try:
        pwd.getpwnam(WEB_USER)
    except KeyError:
        argv = ["useradd", "--system", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin"]
        argv += ["--user-group", WEB_USER]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            raise DemoError(f"useradd {WEB_USER}: {done.stderr.strip()}") from None
        return True
    return False


def _write_command(place: Place) -> None:
    """`panal` for this node: the environment, the code and the socket it belongs to."""
    command = place.state / "panal"
    text = (
        f"#!/bin/sh\nPYTHONPATH={os.environ['PYTHONPATH']} PANAL_RUN=${{PANAL_RUN:-{place.run}}} "
        f'exec {sys.executable} -m panal.cli.main "$@"\n'
    )
    if not command.exists() or command.read_text() != text:
        command.write_text(text)
        command.chmod(0o755)


def _goodbye(place: Place, facts: Facts, seconds: float) -> None:
    command = place.state / "panal"
    print(f"""
Panal runs: node {facts.node}, VM {facts.vmid} answers ({seconds:.0f} s).

  address   https://127.0.0.1:{facts.port}   (certificate authority: {place.ca})
  login     {facts.userid}   password  {facts.password}
  state     {place.state}

Try next:
  {command} vm list
  {command} vm console {facts.vmid}          the guest's serial console; Ctrl-] leaves
  {command} vm --help
  ./demo status --json             for programs;  ./demo down  ends it
""")


# ---- status


def status(place: Place, as_json: bool) -> int:
    """What runs, for people or programs."""
    facts = place.facts
    if facts is None:
        raise DemoError(f"no demo in {place.state}; ./demo makes one")
    alive = {name: daemons.running(place, name) for name in daemons.NAMES}
    found = {
        "url": f"https://127.0.0.1:{facts.port}", "username": facts.userid, "password": facts.password,
        "running": all(alive.values()), "state": str(place.state), "ca": str(place.ca), "bridge": facts.bridge,
        **guest.summary(place, facts),
    }  # fmt: skip
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        for name, pid in alive.items():
            print(f"{name:10} {f'runs, process {pid}' if pid else 'does not run'}")
        print(
            f"address    {found['url']}\nlogin      {facts.userid}   password  {facts.password}\nstate      {place.state}"
        )
        for row in found["guests"]:
            print(f"VM {row['vmid']:<7} {row['name']:20} {row['status']}")
    return 0 if found["running"] else 3


# ---- down


def down(place: Place, purge: bool) -> int:
    """Guests, daemons, bridge; with `purge` also the state."""
    facts = place.facts
    if facts is None:
        say(f"no demo in {place.state}")
        return 0
    daemons.start(place, facts, ("paneld",))  # guests outlive a dead daemon: it takes one to stop them
    guest.stop_all(AdminSocket(place.run / "admin.sock"), facts.node, say)
    for name in daemons.stop(place):
        say(f"stopped {name}")
    if facts.bridge:
        bridge.remove(place)
    groups = Path("/sys/fs/cgroup")
    for path in [*groups.glob(f"panal/{facts.node}"), *groups.glob(f"*/panal/{facts.node}")]:
        with contextlib.suppress(OSError):  # not empty: another node of this name lives there
            path.rmdir()
    if purge:
        _purge(place, facts)
    else:
        say(f"the guests' disks and the login stay in {place.state}; ./demo starts them again, --purge forgets them")
    return 0


def _purge(place: Place, facts: Facts) -> None:
    if facts.made_user:
        subprocess.run(["userdel", WEB_USER], capture_output=True, check=False)
        try:
            grp.getgrnam(WEB_USER)
            subprocess.run(["groupdel", WEB_USER], capture_output=True, check=False)
        except KeyError:
            pass
    for path in sorted(place.state.iterdir()):
        if path.name == "cache":
            continue  # this program runs from it: last
        _remove(path)
    _remove(place.cache)
    place.state.rmdir()
    say(f"removed {place.state}")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
