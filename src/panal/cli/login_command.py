"""`panal login` and `panal logout`: keep a ticket for a node elsewhere."""

from __future__ import annotations

import sys

import click

from panal.cli.session import Saved, Session, login_file, save, saved
from panal.client.connection import Https, Login
from panal.core.errors import PanalError


@click.command(help="Log in to a node and keep the ticket (two hours).")
@click.option("--url", required=True, help="Address of any node: https://node.example:8006.")
@click.option("--user", "userid", default="root@pam", show_default=True, help="Who: name@realm.")
@click.pass_obj
def login(session: Session, url: str, userid: str) -> None:
    """Ask for the password, get a ticket, keep it."""
    if sys.stdin.isatty():
        password = click.prompt(f"Password of {userid}", hide_input=True, err=True)
    else:
        password = sys.stdin.readline().rstrip("\n")
    connection = Https(url, Login(), session.ca_file, session.insecure)
    data = connection.call("POST", "/access/ticket", {"username": userid, "password": password}).data
    save(Saved(url, userid, data["ticket"], data["CSRFPreventionToken"], session.ca_file, session.insecure))
    click.echo(f"logged in to {connection.name} as {data['username']}", err=True)


@click.command(help="Forget the ticket, here and on the node.")
@click.pass_obj
def logout(session: Session) -> None:
    """End the session on the node, then remove the file."""
    kept = saved()
    if kept is not None:
        try:
            connection = Https(kept.url, Login(ticket=kept.ticket, csrf=kept.csrf), kept.ca_file, kept.insecure)
            connection.call("DELETE", "/panal/session")
        except PanalError as exc:
            click.echo(f"the node did not end the session: {exc}", err=True)
    login_file().unlink(missing_ok=True)
