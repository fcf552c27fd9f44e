"""Waits for a task: its log lines go to standard error as they come, its end becomes the exit code."""

from __future__ import annotations

import sys
import time
from typing import Any, Final

from panal.cli import exit_codes
from panal.cli.output import human
from panal.cli.session import Session
from panal.client.connection import api_path

FIRST_PAUSE_S: Final = 0.05
LAST_PAUSE_S: Final = 1.0
PAGE: Final = 500


def follow(session: Session, upid: str) -> tuple[dict[str, Any], int]:
    """Until the task has ended; returns its status object and the exit code."""
    base = api_path("nodes", upid.split(":")[1], "tasks", upid)
    seen, pause_s = 0, FIRST_PAUSE_S
    while True:
        status: dict[str, Any] = session.connection.call("GET", f"{base}/status").data
        lines = session.connection.call("GET", f"{base}/log", {"start": seen, "limit": PAGE}).data
        # a log without lines is shown as one line by the API's contract; real lines count from `seen`
        fresh = [line for line in lines if line["n"] > seen]
        for line in fresh:
            print(human("t", line["t"]), file=sys.stderr)
        seen += len(fresh)
        if status["status"] == "stopped" and len(fresh) < PAGE:
            break
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, LAST_PAUSE_S)
    end = str(status.get("exitstatus", ""))
    if end == "OK":
        return status, exit_codes.OK
    return status, exit_codes.WARNINGS if end.startswith("WARNINGS: ") else exit_codes.FAILED
