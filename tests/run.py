"""Runs every check, cheap ones first, and leaves nothing behind. Called by `./test`, inside the environment that it made.

As root the checks run in namespaces of their own (processes, mounts, network: only `lo`), so bridges, taps, mounts and
processes end with them, however they end. Elsewhere this process adopts all orphans and kills them. Either way a stage that
leaves a process, link, mount or cgroup behind has failed.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

TOP = Path(__file__).resolve().parents[1]
CACHE = Path(os.environ.get("PANAL_CACHE") or TOP / ".cache")
PYTHON = ("src", "tests", *(["bench"] if (TOP / "bench").is_dir() else []))
STAGE_LIMIT_S = 900
SOAK_LIMIT_S = 2100
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_CLONE_NEWNS, _CLONE_NEWPID, _CLONE_NEWNET = 0x00020000, 0x20000000, 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Stage:
    """One line of the result. `tests` names a pytest path; else `argv` is a program that says nothing when all is well."""

    name: str
    argv: tuple[str, ...] = ()
    tests: str = ""
    workers: int = 0


STAGES = (
    Stage("format", ("ruff", "format", "--check", *PYTHON)),
    Stage("lint", ("ruff", "check", *PYTHON)),
    Stage("types", ("mypy",)),
    Stage("layers", ("lint-imports", "--no-cache")),
    Stage("packages", ("deptry", "src")),
    Stage("tidy", tests="tests/tidy"),
    Stage("unit", tests="tests/unit", workers=2),
    Stage("contract", tests="tests/contract", workers=2),
    Stage("api", tests="tests/api", workers=2),
    Stage("guests", tests="tests/guests", workers=2),
    Stage("interop", tests="tests/interop"),
)


@dataclass
class Outcome:
    """What a stage came to. `skipped` maps a reason to the tests that gave it."""

    stage: Stage
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0
    closing: str = ""
    skipped: dict[str, list[str]] = field(default_factory=dict)


def main() -> int:
    """The exit status: 0 when all asked for passed."""
    parser = argparse.ArgumentParser(prog="./test")
    parser.add_argument("stages", nargs="*", metavar="STAGE")
    parser.add_argument("--keep-going", action="store_true")
    parser.add_argument("--soak", action="store_true")
    parser.add_argument("--list", action="store_true")
    argv, _, rest = _split(sys.argv[1:])
    options = parser.parse_args(argv)
    if options.list:
        print("\n".join(stage.name for stage in STAGES))
        return 0
    unknown = set(options.stages) - {stage.name for stage in STAGES}
    if unknown:
        parser.error(f"no stage {', '.join(sorted(unknown))}; there are: {', '.join(s.name for s in STAGES)}")
    chosen = [s for s in STAGES if s.name in options.stages] if options.stages else list(STAGES)
    if options.soak:
        chosen = [Stage("soak", tests="tests", workers=2)]
    prepare(chosen)
    return guarded(lambda: run_all(chosen, options.keep_going, rest))


def _split(argv: list[str]) -> tuple[list[str], bool, list[str]]:
    if "--" not in argv:
        return argv, False, []
    at = argv.index("--")
    return argv[:at], True, argv[at + 1 :]


def prepare(stages: list[Stage]) -> None:
    """What needs the network, before the checks lose it. A failure here is no verdict: the tests say what they lack."""
    if any(stage.tests in ("tests", "tests/guests", "tests/interop") for stage in stages):
        from panal_demo.guest_image import ImageError, build, kernel

        sys.path.insert(0, str(TOP))
        from tests.guests.firewall_modules import MODULES

        try:
            build(CACHE, lambda line: print(f"   {line}", flush=True))
            kernel(CACHE, "firewall", MODULES)
        except ImageError as error:
            print(f"   no guest disk: {error}", flush=True)
    npm = TOP / "tests/interop/npm.py"
    if npm.exists() and any(stage.tests in ("tests", "tests/interop") for stage in stages):
        subprocess.run([sys.executable, str(npm)], check=False)


# ---- stages


def run_all(stages: list[Stage], keep_going: bool, rest: list[str]) -> int:
    """Run them in order and print what came out."""
    began = time.monotonic()
    outcomes: list[Outcome] = []
    for stage in stages:
        outcome = run_stage(stage, rest)
        outcomes.append(outcome)
        mark = "FAIL" if outcome.problems else "ok"
        print(f"{mark:4} {stage.name:9} {outcome.seconds:6.1f} s  {outcome.closing}", flush=True)
        for problem in outcome.problems:
            print(f"     {problem}", flush=True)
        if outcome.problems and not keep_going:
            break
    return _summary(outcomes, len(stages), time.monotonic() - began)


def _summary(outcomes: list[Outcome], wanted: int, seconds: float) -> int:
    skipped = [(reason, where) for outcome in outcomes for reason, where in outcome.skipped.items()]
    if skipped:
        print(f"\nskipped, and why ({sum(len(where) for _, where in skipped)} tests):")
        for reason, where in skipped:
            print(f"  {reason}\n      {', '.join(where[:4])}{' …' if len(where) > 4 else ''}")
    print()
    for outcome in outcomes:
        print(
            f"{'FAIL' if outcome.problems else 'ok':4} {outcome.stage.name:9} {outcome.seconds:6.1f} s  {outcome.closing}"
        )
    failed = [outcome.stage.name for outcome in outcomes if outcome.problems]
    if failed:
        left = wanted - len(outcomes)
        print(f"\n{', '.join(failed)} failed in {seconds:.0f} s{f'; {left} stages not run' if left else ''}")
        return 1
    print(f"\nall {len(outcomes)} stages passed in {seconds:.0f} s")
    return 0


def run_stage(stage: Stage, rest: list[str]) -> Outcome:
    """One stage: its program, then what it left behind."""
    outcome = Outcome(stage)
    if stage.tests and not (TOP / stage.tests).exists():
        outcome.problems.append(f"{stage.tests} is not there")
        return outcome
    before = traces()
    began = time.monotonic()
    if stage.tests:
        _pytest(stage, rest, outcome)
    else:
        _program(stage, outcome)
    outcome.seconds = time.monotonic() - began
    outcome.problems += [f"left a process behind: {line}" for line in kill_strays()]
    if _ISOLATED in os.environ:
        outcome.problems += [f"left behind: {line}" for line in sorted(left_since(before))]
    return outcome


def _program(stage: Stage, outcome: Outcome) -> None:
    try:
        done = subprocess.run(
            stage.argv,
            cwd=TOP,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=STAGE_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        outcome.problems.append(f"took longer than {STAGE_LIMIT_S} s")
        return
    lines = done.stdout.strip().splitlines()
    outcome.closing = lines[-1][:100] if lines else ""
    if done.returncode:
        print(done.stdout)
        outcome.problems.append(f"{stage.argv[0]} found something (above)")


def _pytest(stage: Stage, rest: list[str], outcome: Outcome) -> None:
    soak = stage.name == "soak"
    with tempfile.TemporaryDirectory(prefix="pnltest-") as directory:
        report, results = Path(directory) / "report.json", Path(directory) / "soak.jsonl"
        argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", stage.tests]
        if stage.workers:
            argv += ["-n", str(stage.workers), "--dist", "worksteal" if soak else "loadfile"]
        if soak:
            argv += ["-m", "soak", "--timeout", "1500"]
        extra = {"PANAL_TEST_REPORT": str(report)}
        if soak:
            extra |= {"PANAL_SOAK": "1", "PANAL_SOAK_RESULTS": str(results)}
        print(f"---- {stage.name}", flush=True)
        limit_s = SOAK_LIMIT_S if soak else STAGE_LIMIT_S
        process = subprocess.Popen([*argv, *rest], cwd=TOP, env={**os.environ, **extra})
        try:
            status = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            outcome.problems.append(f"took longer than {limit_s} s")
            status = -signal.SIGKILL
        if soak and results.exists():
            note_reliability(results.read_text().splitlines(), whole=not rest and status == 0)
        if status not in (0, 5):  # 5: nothing collected
            outcome.problems.append(f"pytest ended with {status} (above)")
        if report.exists():
            seen = json.loads(report.read_text())
            outcome.closing, outcome.skipped = seen["closing"], seen["skipped"]
    if os.environ.get("CI") == "true" and os.geteuid() == 0:
        outcome.problems += [
            f"skipped although this machine should do it: {reason}"
            for reason in outcome.skipped
            if not reason.startswith("impossible here:")
        ]


def note_reliability(lines: list[str], *, whole: bool) -> None:
    """One row per name in docs/reliability.md: those counted now replace their older selves, others stay after a part."""
    page = TOP / "docs/reliability.md"

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=TOP, capture_output=True, text=True, check=False).stdout.strip()

    changed = git("status", "--porcelain", "--", ".", ":!docs/reliability.md")  # the page itself is no change
    commit = (git("rev-parse", "--short=10", "HEAD") or "unknown") + (" and changes" if changed else "")
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
    counted: dict[str, dict[str, Any]] = {}
    for row in map(json.loads, lines):
        same = counted.setdefault(row["what"], {"count": 0, "failures": 0, "note": ""})
        same["count"] += row["count"]
        same["failures"] += row["failures"]
        same["note"] = row["note"] or same["note"]
    text, rule, table = page.read_text().partition("|---|---|---|---|---|---|\n")
    rows = {line.split("|")[1].strip(): line for line in table.splitlines() if line.startswith("|") and not whole}
    for what, row in counted.items():
        cells = (what, f"{row['count']:,}", row["failures"], row["note"], when, commit)
        rows[what] = f"| {' | '.join(map(str, cells))} |"
    page.write_text(text + rule + "".join(f"{rows[what]}\n" for what in sorted(rows)))


# ---- nothing stays behind

_ISOLATED = "PANAL_TEST_ISOLATED"


def traces() -> set[str]:
    """What a stage could leave on the machine, as lines to compare."""
    found = {f"network link {link.name}" for link in Path("/sys/class/net").iterdir()}
    found |= {f"mount {line.split()[4]}" for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    if os.environ.get("CI") == "true":  # elsewhere other nodes may run, and control groups are the one thing we share
        found |= {
            f"cgroup {root}/{name}"
            for root, names, _ in os.walk("/sys/fs/cgroup")
            if "/panal" in root
            for name in names
        }
    return found


def left_since(before: set[str]) -> set[str]:
    """What is there now and was not; a killed process counts in its control group until it is reaped."""
    deadline = time.monotonic() + 3
    while (left := traces() - before) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left


def kill_strays() -> list[str]:
    """Kill every descendant of the guard that is not this process; returns what they were, those that ended soon aside."""
    deadline = time.monotonic() + 3
    while (strays := _strays()) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid in strays:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return [f"{pid} {command}" for pid, command in strays.items()]


def _strays() -> dict[int, str]:
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                if state != "Z":
                    parents[int(entry.name)] = int(parent)
    guard, me = os.getppid(), os.getpid()
    family = {guard}
    while grown := {pid for pid, parent in parents.items() if parent in family and pid not in family}:
        family |= grown
    found = {}
    for pid in family - {guard, me}:
        with contextlib.suppress(OSError):
            found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:120]
    return found


def guarded(work: Callable[[], int]) -> int:
    """Run `work` so that nothing it starts outlives it: in namespaces where allowed, else under an adopting parent."""
    if os.geteuid() == 0 and _unshare():
        return _outside_namespaces(work)
    if os.geteuid() == 0:
        print("   no right to make namespaces here: the checks share this machine's network and mounts", flush=True)
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    return _adopt(work)


def _unshare() -> bool:
    return bool(_LIBC.unshare(_CLONE_NEWPID | _CLONE_NEWNS | _CLONE_NEWNET) == 0)


def _outside_namespaces(work: Callable[[], int]) -> int:
    """The first child is process 1 of the namespace: with it everything in it ends."""
    first = os.fork()
    if first == 0:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        _exit_with(lambda: _inside_namespaces(work))

    def end(number: int, _frame: object) -> NoReturn:
        os.kill(first, signal.SIGKILL)
        os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    return os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])


def _inside_namespaces(work: Callable[[], int]) -> int:
    _furnish()
    return _adopt(work)


def _furnish() -> None:
    """Own /proc, /sys and loopback; no systemd to talk to, since it would take our process ids for the machine's."""
    os.environ[_ISOLATED] = "1"
    kept = tempfile.mkdtemp(prefix="pnltest-", dir="/tmp")
    for argv in (
        "mount --make-rprivate /",
        "mount -t proc proc /proc",
        f"mount --rbind /sys/fs/cgroup {kept}",
        "mount -t sysfs sysfs /sys",
        f"mount --rbind {kept} /sys/fs/cgroup",
        f"umount -R -l {kept}",
        "ip link set lo up",
    ):
        subprocess.run(argv.split(), check=False, stderr=subprocess.DEVNULL)
    with contextlib.suppress(OSError):
        Path(kept).rmdir()
    for path in ("/run/systemd", "/run/dbus"):
        if Path(path).is_dir():
            subprocess.run(["mount", "-t", "tmpfs", "none", path], check=False)


def _adopt(work: Callable[[], int]) -> int:
    """Fork the worker, reap whatever comes home, and kill what is left when the worker has ended."""
    worker = os.fork()
    if worker == 0:
        _exit_with(work)

    def end(number: int, _frame: object) -> NoReturn:
        _kill_family()
        os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    while True:
        pid, status = os.wait()
        if pid == worker:
            break
    _kill_family()
    return os.waitstatus_to_exitcode(status)


def _exit_with(work: Callable[[], int]) -> NoReturn:
    """End a forked child with the result; never return into the parent's code."""
    status = 1
    try:
        status = work()
    except BaseException as error:
        print(f"./test: {type(error).__name__}: {error}", file=sys.stderr)
    sys.stdout.flush()
    os._exit(status & 0xFF)


def _kill_family() -> None:
    """Kill all descendants of this process; several rounds, since they come home when their parents die."""
    for _ in range(20):
        children = Path(f"/proc/self/task/{os.getpid()}/children")
        found = [int(word) for word in re.findall(r"\d+", children.read_text())] if children.exists() else []
        if not found:
            return
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in found:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


if __name__ == "__main__":
    sys.exit(main())
