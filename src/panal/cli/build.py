"""Makes a click command from a row of the method table.

Every parameter becomes an option with the table's help; indexed ones (`net[n]`) take any of their numbers (`--net0 …`);
secret ones are never taken from the command line but asked for, or read from standard input.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any, Final

import click

from panal.cli import output, progress
from panal.cli.commands import Command
from panal.cli.session import Session
from panal.client.connection import api_path
from panal.client.methods import Row

_FILLED_IN: Final = frozenset({"node", "vmid"})


class MethodCommand(click.Command):
    """A command whose options may carry numbers (`--scsi0`, `--net3`)."""

    def __init__(self, indexed: dict[str, Row], **rest: Any) -> None:
        super().__init__(**rest)
        self.indexed = indexed

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the numbered options out first; click knows only fixed names."""
        rest: list[str] = []
        numbered: dict[str, str] = {}
        words = iter(args)
        for word in words:
            name, sep, value = word.partition("=")
            m = re.fullmatch(r"--([a-z]+)(\d{1,3})", name)
            row = self.indexed.get(m[1]) if m else None
            if m is None or row is None:
                rest.append(word)
                continue
            if int(m[2]) >= row["count"]:
                raise click.UsageError(f"{name}: numbers go from 0 to {row['count'] - 1}", ctx)
            if not sep:
                value = next(words, "")
                if not value:
                    raise click.UsageError(f"Option '{name}' requires an argument.", ctx)
            numbered[name[2:]] = value
        ctx.meta["numbered"] = numbered
        return super().parse_args(ctx, rest)


def build(command: Command, row: Row) -> click.Command:
    """The click command for one line of `commands.py`."""
    params: list[click.Parameter] = []
    indexed: dict[str, Row] = {}
    secrets: list[Row] = []
    by_name = {p["name"]: p for p in row["params"]}
    for name in command.args:
        params.append(click.Argument([_python(name)], metavar=name.upper(), shell_complete=_completer(name)))
    for param in row["params"]:
        name = param["name"]
        if name in command.args or name in command.fixed or name == "node":
            continue
        if "count" in param:
            stem = name.removesuffix("[n]")
            indexed[stem] = param
            params.append(_IndexedHelp(param, stem))
        elif param.get("secret"):
            secrets.append(param)
            if not param.get("required", False):
                text = f"Ask for it, or read a line of standard input. {param['description']}"
                params.append(click.Option([f"--ask-{name}", _ask_flag(name)], is_flag=True, help=text))
        else:
            params.append(_option(param))
    if command.confirm:
        params.append(click.Option(["--yes", "-y"], is_flag=True, help="Do not ask."))

    def callback(**given: Any) -> None:
        session = click.get_current_context().ensure_object(Session)
        numbered: dict[str, str] = click.get_current_context().meta["numbered"]
        wire = {p.name: name for p in params if (name := _wire_name(p, by_name)) is not None}
        values = {wire[k]: v for k, v in given.items() if k in wire and v is not None} | numbered | dict(command.fixed)
        if command.confirm and not (given.get("yes") or session.yes):
            click.confirm(command.confirm.format(**values), abort=True, err=True)
        for param in secrets:
            if param.get("required", False) or given.get(_ask_flag(param["name"])):
                values[param["name"]] = _ask(param["name"])
        _call(session, command, values)

    return MethodCommand(
        indexed, name=command.verb, params=params, callback=callback,
        help=row["description"], short_help=row["description"],
        epilog=f"{command.method} {command.path}",
    )  # fmt: skip


class _IndexedHelp(click.Option):
    """Stands for `--net0 …` in the help only."""

    def __init__(self, param: Row, stem: str) -> None:
        super().__init__([f"--{stem}N", f"{stem}_n"], help=param["description"], metavar="TEXT", expose_value=False)


def _python(name: str) -> str:
    return name.replace("-", "_")


def _wire_name(parameter: click.Parameter, by_name: dict[str, Row]) -> str | None:
    name = parameter.name or ""
    return next((n for n in by_name if _python(n).lower() == name), None)


def _option(param: Row) -> click.Option:
    kinds: dict[str, click.ParamType[Any, Any]] = {"integer": click.INT, "number": click.FLOAT}
    enum = param.get("enum")
    kind = click.Choice(enum) if enum else kinds.get(param["type"], click.STRING)
    names = [f"--{param['name']}", _python(param["name"]).lower()]
    text = param["description"]
    if param.get("default") is not None:
        text += f" [default: {param['default']}]"
    if param["type"] == "boolean":
        # `--onboot` alone means 1, `--onboot 0` switches off
        return click.Option(
            names,
            type=click.Choice(["0", "1"]),
            is_flag=False,
            flag_value="1",
            help=text,
            required=param.get("required", False),
        )
    return click.Option(names, type=kind, help=text, required=param.get("required", False))


def _ask_flag(name: str) -> str:
    return f"ask_{_python(name)}"


def _ask(name: str) -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    return str(click.prompt(name.capitalize(), hide_input=True, confirmation_prompt=True, err=True))


def _completer(name: str) -> Callable[..., Any] | None:
    if name not in ("vmid", "storage", "userid", "poolid", "roleid", "groupid", "realm"):
        return None
    from panal.cli.completion import complete

    return complete(name)


def _call(session: Session, command: Command, values: dict[str, Any]) -> None:
    placeholders = re.findall(r"\{([^}]+)\}", command.path)
    if "node" in placeholders:
        vmid = values.get("vmid") if "vmid" in placeholders else None
        values["node"] = session.node_name() if vmid is None or session.node else session.node_of(str(vmid))
    parts = [str(values.pop(p[1:-1])) if p.startswith("{") else p for p in command.path.strip("/").split("/")]
    answer = session.connection.call(command.method, api_path(*parts), values)
    finish(session, answer.data, command.columns)


def finish(session: Session, data: Any, columns: tuple[str, ...] = ()) -> None:
    """Show an answer; follow it first when it is the name of a task."""
    if isinstance(data, str) and data.startswith("UPID:") and session.wait:
        status, code = progress.follow(session, data)
        if session.as_json:
            output.show(status, as_json=True)
        sys.exit(code)
    output.show(data, columns, as_json=session.as_json)
