"""A node of its own for a measurement: both daemons as real processes on loopback, in a temporary directory.

Everything it makes is gone after the `with` block, also when the measurement fails.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from panal.client.connection import AdminSocket
from panal.core.errors import PanalError

START_TIMEOUT_S = 60.0
WEB_USER = "nobody"


@dataclass
class BenchNode:
    """A running node. `token` is root's API token; `get`/`post` use one kept connection, as real clients do."""

    name: str
    directory: Path
    port: int
    processes: list[subprocess.Popen[bytes]]
    token: str = ""
    _connection: http.client.HTTPSConnection | None = None
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def admin(self) -> AdminSocket:
        """The local door."""
        return AdminSocket(self.directory / "run" / "admin.sock")

    def connect(self) -> http.client.HTTPSConnection:
        """A new connection; the certificate is our own and not looked at."""
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return http.client.HTTPSConnection("127.0.0.1", self.port, context=context, timeout=120)

    def request(
        self, verb: str, path: str, params: dict[str, Any] | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """One request over the kept connection: status, headers, body."""
        if self._connection is None:
            self._connection = self.connect()
        body = None if verb in ("GET", "DELETE") else urlencode(params or {})
        target = f"/api2/json{path}" + (f"?{urlencode(params)}" if params and body is None else "")
        send = {"Authorization": f"PVEAPIToken={self.token}", **(headers or {})}
        if body is not None:
            send["Content-Type"] = "application/x-www-form-urlencoded"
        self._connection.request(verb, target, body, send)
        response = self._connection.getresponse()
        return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()

    def call(self, verb: str, path: str, params: dict[str, Any] | None = None) -> Any:
        """One request that must succeed: its `data`."""
        status, _, body = self.request(verb, path, params)
        if status != 200:
            raise RuntimeError(f"{verb} {path}: {status} {body[:300]!r}")
        return json.loads(body)["data"]

    def wait_task(self, upid: str, pause_s: float = 0.002) -> None:
        """Until a task has ended well."""
        while True:
            status = self.call("GET", f"/nodes/{self.name}/tasks/{upid}/status")
            if status["status"] == "stopped":
                if status["exitstatus"] != "OK":
                    raise RuntimeError(f"{upid}: {status['exitstatus']}")
                return
            time.sleep(pause_s)


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def node(driver: str = "qemu", populate: int = 0) -> Iterator[BenchNode]:
    """A node called `bench`; `populate` fake guests (driver fake) exist before it serves."""
    directory = Path(tempfile.mkdtemp(prefix="pnlb", dir="/tmp"))
    directory.chmod(0o755)  # panal-web goes in as its own user
    port = free_port()
    base = ["--run", str(directory / "run")]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    python = [sys.executable, "-m"]
    started = BenchNode("bench", directory, port, [])
    log = (directory / "log").open("ab")
    try:
        paneld = [*python, "panal.daemon.main", "--state", str(directory / "state"), *base, "--node", "bench"]
        paneld += ["--driver", driver, "--web-user", WEB_USER, *(["--populate", str(populate)] if populate else [])]
        started.processes.append(subprocess.Popen(paneld, env=env, stdout=log, stderr=log))
        _wait(started, lambda: started.admin.call("GET", "/version"))
        web = [*python, "panal.web_front.main", *base, "--listen", f"127.0.0.1:{port}", "--user", WEB_USER]
        started.processes.append(subprocess.Popen(web, env=env, stdout=log, stderr=log))
        token = started.admin.call("POST", "/access/users/root@pam/token/bench", {"privsep": 0}).data
        started.token = f"{token['full-tokenid']}={token['value']}"
        _wait(started, lambda: started.call("GET", "/version"))
        yield started
    finally:
        for process in reversed(started.processes):
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()
            process.wait()
        log.close()
        shutil.rmtree(directory, ignore_errors=True)


def _wait(started: BenchNode, probe: Any) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            probe()
            return
        except (OSError, PanalError, RuntimeError, http.client.HTTPException) as exc:
            started._connection = None
            dead = any(p.poll() is not None for p in started.processes)
            if dead or time.monotonic() > deadline:
                text = (started.directory / "log").read_text(errors="replace")[-3000:]
                raise RuntimeError(f"the node did not start: {exc}\n{text}") from exc
            time.sleep(0.05)
