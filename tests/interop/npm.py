"""Installs the npm clients of tests/interop/npm once, by its lock file, into the cache. Run by tests/run.py while there is a
network; the test skips, loudly, when it could not.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
SOURCE = Path(__file__).parent / "npm"
CACHE = Path(os.environ.get("PANAL_CACHE") or TOP / ".cache")


def place() -> Path:
    """Where this lock file's packages are, or would be."""
    digest = hashlib.sha256((SOURCE / "package-lock.json").read_bytes()).hexdigest()[:12]
    return CACHE / f"npm-{digest}"


def install() -> Path:
    """The directory with node_modules; appears by rename. Raises CalledProcessError, FileNotFoundError (no npm)."""
    target = place()
    if target.exists():
        return target
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".npm-", dir=CACHE) as name:
        work = Path(name) / "packages"
        work.mkdir()
        for file in ("package.json", "package-lock.json"):
            shutil.copyfile(SOURCE / file, work / file)
        shutil.copyfile(TOP / ".npmrc", work / ".npmrc")
        subprocess.run(["npm", "ci", "--ignore-scripts", "--no-fund", "--no-audit", "--silent"], cwd=work, check=True)
        work.rename(target)
    return target


if __name__ == "__main__":
    try:
        install()
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        print(f"   no npm clients: {error}", file=sys.stderr)
        sys.exit(1)
