"""`panal api get|post|put|delete PATH [KEY=VALUE…]`: every method, as the wire has it (pvesh's job)."""

from __future__ import annotations

import sys

import click

from panal.cli import build
from panal.cli.session import Session


@click.command(
    help=(
        "Call any method of the API: panal api get /nodes, panal api post /nodes/a/qemu/100/status/stop. "
        "KEY=- reads the value from standard input (for secrets)."
    )
)
@click.argument("verb", type=click.Choice(["get", "post", "put", "delete", "create", "set"]))
@click.argument("path")
@click.argument("values", nargs=-1, metavar="[KEY=VALUE]...")
@click.pass_obj
def api(session: Session, verb: str, path: str, values: tuple[str, ...]) -> None:
    """Call one method."""
    params: dict[str, str] = {}
    for word in values:
        key, sep, value = word.partition("=")
        if not sep or not key:
            raise click.UsageError(f"'{word}' is not KEY=VALUE")
        params[key] = sys.stdin.read().rstrip("\n") if value == "-" else value
    method = {"create": "POST", "set": "PUT"}.get(verb, verb.upper())
    answer = session.connection.call(method, "/" + path.strip("/"), params)
    build.finish(session, answer.data)
