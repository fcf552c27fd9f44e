"""`panal storage upload`: send a file to a storage, with its checksum worked out here and checked there."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import click

from panal.cli import build
from panal.cli.session import Session
from panal.client.connection import api_path


@click.command(help="Upload a file: an ISO image, a template, a snippet.")
@click.argument("storage")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--content", type=click.Choice(["iso", "vztmpl", "snippets", "import"]), default="iso", show_default=True)
@click.option("--filename", help="Name in the storage [default: the file's].")
@click.pass_obj
def upload(session: Session, storage: str, file: Path, content: str, filename: str | None) -> None:
    """Hash, send, follow the task."""
    with file.open("rb") as source:
        checksum = hashlib.file_digest(source, "sha256").hexdigest()
    fields = {"content": content, "checksum": checksum, "checksum-algorithm": "sha256"}
    path = api_path("nodes", session.node_name(), "storage", storage, "upload")

    def progress(sent: int, total: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{sent * 100 // max(total, 1)} %", end="" if sent < total else "\n", file=sys.stderr)

    with file.open("rb") as source:
        answer = session.connection.upload(path, fields, source, filename or file.name, progress)
    build.finish(session, answer.data)
