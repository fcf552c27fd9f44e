"""A real node for tests: paneld and panal-web as processes of their own, on a free port, with their state in a short temp dir.

    with NodeUnderTest() as node:
        node.admin("GET", "/version")                      # through admin.sock, as root@pam: (status, reason, body as object)
        node.http("GET", "/version", headers=…)            # over HTTPS with the node's own CA: requests.Response

`restart_daemon()` and `kill_daemon()` are for crash tests: panal-web stays. Everything is ended and removed on `close`, also
when the test is interrupted; a killed pytest takes the processes along (PDEATHSIG).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import requests

from panal.core.frames import exchange
from panal.host.cgroups import Cgroups

ROOT = Path(__file__).resolve().parent.parent
START_TIMEOUT_S = 60.0
WEB_USER = "nobody"


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)


class NodeUnderTest:
    """Both daemons. `driver="fake"` has guests without processes."""

    def __init__(self, driver: str = "fake", node: str = "n1", env: dict[str, str] | None = None) -> None:
        self.dir = Path(tempfile.mkdtemp(prefix="pnl", dir="/tmp"))
        self.dir.chmod(0o711)
        self.state, self.run = self.dir / "state", self.dir / "run"
        self.node, self.driver = node, driver
        self.log_file = self.dir / "daemons.log"
        self._env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), **(env or {})}
        self.port = _free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.daemon: subprocess.Popen[bytes] | None = None
        self.web: subprocess.Popen[bytes] | None = None
        try:
            self.start_daemon()
            self.start_web()
        except BaseException:
            self.close()
            raise
        self.session = requests.Session()
        self.session.verify = str(self.run / "tls" / "ca.pem")
        self.session.trust_env = False

    def _spawn(self, *argv: str) -> subprocess.Popen[bytes]:
        with self.log_file.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", *argv],
                env=self._env,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self.dir,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 (nothing of ours holds a lock at that moment)
            )

    def start_daemon(self) -> None:
        """Start paneld; returns when it serves."""
        (self.run / "admin.sock").unlink(missing_ok=True)
        self.daemon = self._spawn(
            "panal.daemon.main", "--state", str(self.state), "--run", str(self.run), "--node", self.node,
            "--driver", self.driver, "--web-user", WEB_USER,
        )  # fmt: skip
        self._wait(self.daemon, self._daemon_answers, "paneld")

    def start_web(self) -> None:
        """Start panal-web; returns when it listens."""
        self.web = self._spawn(
            "panal.web_front.main", "--run", str(self.run), "--listen", f"127.0.0.1:{self.port}", "--user", WEB_USER
        )
        self._wait(self.web, self._web_listens, "panal-web")

    def _wait(self, process: subprocess.Popen[bytes], ready: Any, name: str) -> None:
        until = time.monotonic() + START_TIMEOUT_S
        while not ready():
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{name} did not start:\n{self.log()[-4000:]}")
            time.sleep(0.05)

    def _daemon_answers(self) -> bool:
        try:
            return self.admin("GET", "/version")[0] == 200
        except OSError:
            return False

    def _web_listens(self) -> bool:
        # the sockets are bound before the rights are given up: only an answer says that it is ready
        try:
            return requests.get(self.url, timeout=5, verify=str(self.run / "tls" / "ca.pem")).ok
        except (OSError, requests.RequestException):
            return False

    def admin(self, verb: str, path: str, /, **params: Any) -> tuple[int, str, dict[str, Any]]:
        """As root@pam through the local door: status, reason, body. `_` in names stands for `-`."""
        header = {"verb": verb, "path": path}
        body = json.dumps({k.replace("_", "-"): v for k, v in params.items()}).encode()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(120)
            sock.connect(str(self.run / "admin.sock"))
            answer, data = exchange(sock, header, body)
        return answer["status"], answer.get("reason", "OK"), json.loads(data) if data else {}

    def must(self, verb: str, path: str, /, **params: Any) -> Any:
        """`admin` that must succeed: the value of `data`."""
        status, reason, body = self.admin(verb, path, **params)
        assert status == 200, (verb, path, status, reason, body)
        return body["data"]

    def http(self, verb: str, path: str, fmt: str = "json", **kwargs: Any) -> requests.Response:
        """Over HTTPS; `kwargs` as for requests."""
        return self.session.request(verb, f"{self.url}/api2/{fmt}{path}", timeout=120, **kwargs)

    def log(self) -> str:
        """What both daemons wrote."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def revision(self) -> int:
        """The store's revision, read from its file."""
        import sqlite3

        with sqlite3.connect(self.state / "store.db") as db:
            return int(db.execute("select revision from head").fetchone()[0])

    def stored(self) -> dict[str, int]:
        """Every key of the store with its revision, read from its file."""
        import sqlite3

        with sqlite3.connect(self.state / "store.db") as db:
            return dict(db.execute("select key, revision from item").fetchall())

    def kill_daemon(self) -> None:
        """SIGKILL."""
        assert self.daemon is not None
        self.daemon.kill()
        self.daemon.wait(30)

    def stop_daemon(self) -> int:
        """SIGTERM; its exit status."""
        assert self.daemon is not None
        self.daemon.terminate()
        return self.daemon.wait(60)

    def restart_daemon(self) -> None:
        """Politely."""
        self.stop_daemon()
        self.start_daemon()

    def guest_processes(self) -> list[tuple[int, str]]:
        """Processes of guests, whoever knows of them: pid, and the file of ours that their messages go to."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                said = os.readlink(entry / "fd/2")
                if said.startswith(f"{self.run}/guests/"):
                    found.append((int(entry.name), said))
        return found

    def close(self) -> None:
        """End everything, remove everything."""
        for process in (self.web, self.daemon):
            if process is not None and process.poll() is None:
                process.terminate()
        for process in (self.web, self.daemon):
            if process is not None:
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait(20)
        self._end_guests()
        shutil.rmtree(self.dir, ignore_errors=True)

    def _end_guests(self) -> None:
        """Guests outlive their daemon, and a daemon that was killed leaves its control groups."""
        for pid, _ in self.guest_processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        groups = Cgroups(1 if os.path.isdir("/sys/fs/cgroup/cpu") else 2, f"panal/{self.node}")
        until = time.monotonic() + 10
        while self.driver == "qemu" and time.monotonic() < until:
            for name in groups.names():
                groups.remove(name)
            groups.leave()
            if not any(path.parent.exists() for path in groups.paths("x")):
                return
            time.sleep(0.05)

    def __enter__(self) -> NodeUnderTest:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
