"""`panal`: nouns and verbs, built on demand so that `panal --help` stays quick.

Composition root: options become a Session; a noun's commands are made only when it is named. Errors end here, as one line on
standard error and an exit code (`exit_codes.py`).
"""

from __future__ import annotations

import os
import sys
from typing import Any, Final

import click

from panal.cli import exit_codes
from panal.cli.commands import COMMANDS, NOUNS
from panal.cli.session import Session
from panal.client.connection import ApiError
from panal.core.errors import PanalError

_FLAGS: Final = ("--json", "--no-wait", "--yes", "-y", "--insecure")


class _Noun(click.Group):
    """The verbs of one noun."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of commands.py, then the hand-made ones."""
        return [c.verb for c in COMMANDS if c.noun == self.name] + sorted(_extra(self.name))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Build one."""
        from panal.cli.build import build
        from panal.client.methods import load

        extra = _extra(self.name).get(cmd_name)
        if extra is not None:
            return extra
        for command in COMMANDS:
            if (command.noun, command.verb) == (self.name, cmd_name):
                return build(command, load()[command.method, command.path])
        return None


def _extra(noun: str | None) -> dict[str, click.Command]:
    """Verbs that are more than one call."""
    if noun == "vm":
        from panal.cli.console_command import console, screenshot

        return {"console": console, "screenshot": screenshot}
    if noun == "storage":
        from panal.cli.upload_command import upload

        return {"upload": upload}
    return {}


class _Panal(click.Group):
    """The nouns, and what stands for itself."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Flags of the whole program may stand anywhere: fingers type `panal vm list --json`."""
        end = args.index("--") if "--" in args else len(args)
        flags = [word for word in args[:end] if word in _FLAGS]
        return super().parse_args(ctx, [*flags, *(w for w in args[:end] if w not in _FLAGS), *args[end:]])

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Nouns first."""
        return [*NOUNS, "api", "login", "logout", "completion"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Build one."""
        if cmd_name in NOUNS:
            return _Noun(name=cmd_name, help=NOUNS[cmd_name])
        if cmd_name == "api":
            from panal.cli.api_command import api

            return api
        if cmd_name in ("login", "logout"):
            from panal.cli import login_command

            return login_command.login if cmd_name == "login" else login_command.logout
        return _completion if cmd_name == "completion" else None


@click.command(help='Print the completion script: eval "$(panal completion bash)".')
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def _completion(shell: str) -> None:
    from click.shell_completion import BashComplete, get_completion_class

    kind = get_completion_class(shell) or BashComplete
    click.echo(kind(root, {}, "panal", "_PANAL_COMPLETE").source())


@click.command(cls=_Panal, help="Panal: virtual machines on your own servers.")
@click.option("--url", help="Node to talk to, https://node.example:8006 [env: PANAL_URL].")
@click.option("--run", help="Directory of the local daemon's sockets [env: PANAL_RUN, default: /run/panal].")
@click.option("--ca", "ca_file", help="Certificate to trust [env: PANAL_CA].")
@click.option("--insecure", is_flag=True, help="Do not check the node's certificate.")
@click.option("--node", help="Node the command is for; found by itself where possible.")
@click.option("--json", "as_json", is_flag=True, help="Answer as JSON.")
@click.option("--no-wait", is_flag=True, help="Print the name of a task instead of waiting for its end.")
@click.option("--yes", "-y", is_flag=True, help="Ask no questions.")
@click.version_option(package_name="panal", message="%(version)s")
@click.pass_context
def root(ctx: click.Context, /, no_wait: bool, **options: Any) -> None:
    """Keep the options for the command."""
    ctx.obj = Session(wait=not no_wait, **options)


def sentence(error: PanalError) -> str:
    """For people. A ticket that counts no more (two hours old, or one has changed one's own password) is no fault of theirs."""
    ended = isinstance(error, ApiError) and error.status == 401 and "invalid PVE ticket" in error.message
    if ended and "PANAL_TOKEN" not in os.environ:
        return "the login has ended: log in again (panal login)"
    return str(error)


def main() -> None:
    """Entry point."""
    try:
        root.main(standalone_mode=False)
    except click.exceptions.Exit as exc:
        sys.exit(exc.exit_code)
    except click.Abort:
        sys.exit(exit_codes.INTERRUPTED)
    except click.ClickException as exc:
        exc.show()
        sys.exit(exit_codes.USAGE)
    except PanalError as exc:
        print(f"panal: {sentence(exc)}", file=sys.stderr)
        if isinstance(exc, ApiError):
            for field, message in exc.errors.items():
                print(f"  {field}: {message}", file=sys.stderr)
        sys.exit(exit_codes.of(exc))
    except KeyboardInterrupt:
        sys.exit(exit_codes.INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(exit_codes.OK)


if __name__ == "__main__":
    main()
