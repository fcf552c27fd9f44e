"""Whether the tests of the safety core see a fault: each of `planted.py` goes into a copy of the sources, and one must fail.

What survives is a hole in the tests. Below 95 % this fails; every survivor is named in the note.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.conftest import Soak
from tests.unit.mutants.planted import MUTANTS, TESTS, Mutant

TOP = Path(__file__).parents[3]
WHAT = "faults planted into the safety core (claims, steps, store, access, image headers) that no test sees"
SEEN, LIMIT_S = 1, 240


def seen(mutant: Mutant, directory: Path) -> bool:
    """Whether a test fails on a copy with this fault (or never ends: that is seen, too)."""
    source = directory / "src"
    shutil.copytree(TOP / "src/panal", source / "panal", ignore=shutil.ignore_patterns("__pycache__"))
    file = source / "panal" / mutant.file
    text = file.read_text()
    assert text.count(mutant.old) == 1, f"not there exactly once: {mutant}"
    text = text.replace(mutant.old, mutant.new)
    compile(text, mutant.file, "exec")
    file.write_text(text)
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("PANAL_SOAK", "PANAL_TEST_REPORT", "PYTEST"))
    }
    environment |= {"PYTHONPATH": os.pathsep.join([str(source), str(TOP)]), "PYTHONDONTWRITEBYTECODE": "1"}
    argv = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-o", f"pythonpath={source} {TOP}"]
    argv += ["-o", "addopts=", "--timeout", "60", *(f"tests/{name}" for name in TESTS[mutant.file].split())]
    child = subprocess.Popen(
        argv, cwd=TOP, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        said, _ = child.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
        return True
    finally:
        shutil.rmtree(source)
    assert child.returncode in (0, SEEN), said[-2000:]
    return child.returncode == SEEN


def test_planted_faults_are_seen(tmp_path: Path, soak: Soak) -> None:
    chosen = MUTANTS[: soak(WHAT, small=5, big=len(MUTANTS))]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda n: seen(chosen[n], tmp_path / str(n)), range(len(chosen))))
    missed = [str(mutant) for mutant, saw in zip(chosen, found, strict=True) if not saw]
    soak.found(WHAT, failures=len(missed), note="; ".join(missed).replace("|", "¦").replace("\n", " "))
    assert len(missed) <= len(chosen) * 0.05, "\n".join(missed)
