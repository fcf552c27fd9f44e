"""`python -m bench [NAME…]`: all measurements, or some."""

from __future__ import annotations

import sys

from bench import cli, clones, memory, noop, resources, start

BENCHES = {
    "cli": cli.main, "noop": noop.main, "resources": resources.main, "clones": clones.main, "memory": memory.main,
    "start": start.main,
}  # fmt: skip


def main() -> None:
    """Run them in order."""
    unknown = set(sys.argv[1:]) - set(BENCHES)
    if unknown:
        raise SystemExit(f"no such measurement: {', '.join(sorted(unknown))}; there are: {', '.join(BENCHES)}")
    for name in sys.argv[1:] or BENCHES:
        print(f"--- {name}", flush=True)
        BENCHES[name]()


if __name__ == "__main__":
    main()
