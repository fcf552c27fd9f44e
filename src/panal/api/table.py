"""The method table: one declaration a method, from which routing, validation, permission checks, OpenAPI, the command line's
help and the generated tests all come.

    routes = Routes("guests")

    @routes.post(
        "/nodes/{node}/qemu/{vmid}/status/start", "Start a virtual machine.",
        permission=perm("/vms/{vmid}", "VM.PowerMgmt"), forward="node",
        params=[NODE, VMID, Param("timeout", "integer", "Seconds to wait until it runs.", minimum=0)],
        returns="string",
    )
    async def start(call: Call) -> str: ...

`returns` is written in the notation of `api/schema.py` (`[{vmid:integer name?:string}]`). `forward` names the path parameter
that says which node answers. A declaration without a permission, description or parameter of its path does not build.

Routes files (`api/access.py`, `api/qemu_status.py`, …) hold declarations and translate between the wire and the verbs below;
nothing else. `api/all_routes.py` lists them.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from panal.api.permission import Permission
from panal.core import formats
from panal.core.props import Schema

if TYPE_CHECKING:
    from panal.api.call import Call

Verb = Literal["GET", "POST", "PUT", "DELETE"]
ParamType = Literal["string", "integer", "number", "boolean"]
Handler = Callable[["Call"], Awaitable[Any]]
H = TypeVar("H", bound=Handler)
# Path parameters that take the rest of the path: volume names hold slashes, and clients send them raw or percent-encoded.
TAILS = ("{volume}",)


@dataclass(frozen=True, slots=True)
class Param:
    """One parameter. `count` makes it indexed: name `net` with count 32 takes net0 … net31 (shown as `net[n]`).

    `format` is a name of core/formats.py or a property-string schema. `default` is documentation: a handler gets only what
    was sent. A name beginning with `panal-` is ours (marked `x-panal`).
    """

    name: str
    type: ParamType
    description: str
    required: bool = False
    default: str | int | float | bool | None = None
    minimum: float | None = None
    maximum: float | None = None
    min_length: int | None = None
    max_length: int | None = None
    format: str | Schema | None = None
    pattern: str | None = None
    enum: tuple[str, ...] = ()
    requires: str | None = None
    count: int | None = None
    secret: bool = False

    @property
    def shown(self) -> str:
        """Its name in the table: `net[n]` when indexed. `numa` and `numa[n]` are two parameters."""
        return self.name if self.count is None else f"{self.name}[n]"

    def __post_init__(self) -> None:
        """A typing mistake must not wait for a request."""
        if not self.description:
            raise ValueError(f"parameter {self.name}: no description")
        if isinstance(self.format, str) and not formats.known(self.format):
            raise ValueError(f"parameter {self.name}: unknown format {self.format}")


@dataclass(frozen=True, slots=True)
class Method:
    """One row of the table. `anonymous`: no login needed. `audit`: whether a call is written to the audit log."""

    verb: Verb
    path: str
    description: str
    permission: Permission
    params: tuple[Param, ...]
    returns: str
    handler: Handler
    forward: str | None = None
    allow_token: bool = True
    upload: bool = False
    """the body is multipart with one file, streamed into a descriptor the handler opened"""
    websocket: bool = False
    """answers a WebSocket upgrade with a connected descriptor"""
    csrf: bool = True
    secret_answer: bool = False
    """the answer holds a secret that is shown once: never kept for an Idempotency-Key"""
    noun: str = ""
    by_name: dict[str, Param] = field(default_factory=dict, compare=False, repr=False)

    @property
    def path_params(self) -> tuple[str, ...]:
        """Names in the path, in order."""
        return tuple(re.findall(r"\{([^}]+)\}", self.path))

    @property
    def changes(self) -> bool:
        """Whether it may change state (then CSRF protection and audit apply)."""
        return self.verb != "GET"

    @property
    def ours(self) -> bool:
        """Ours beside PVE's (design section 7)."""
        return "/panal" in self.path


class Routes:
    """Collects the declarations of one file."""

    def __init__(self, noun: str) -> None:
        self.noun = noun
        self.methods: list[Method] = []

    def _add(self, verb: Verb, path: str, description: str, params: Iterable[Param], **rest: Any) -> Callable[[H], H]:
        def bind(handler: H) -> H:
            rows = tuple(params)
            method = Method(
                verb, path, description, params=rows, handler=handler, noun=self.noun,
                by_name={p.shown: p for p in rows}, **rest,
            )  # fmt: skip
            _check(method)
            self.methods.append(method)
            return handler

        return bind

    def get(
        self, path: str, description: str, *, permission: Permission, returns: str,
        params: Sequence[Param] = (), **rest: Any,
    ) -> Callable[[H], H]:  # fmt: skip
        """Declare a GET: changes nothing, takes no host path (attack row 16)."""
        return self._add("GET", path, description, params, permission=permission, returns=returns, **rest)

    def post(
        self, path: str, description: str, *, permission: Permission, returns: str,
        params: Sequence[Param] = (), **rest: Any,
    ) -> Callable[[H], H]:  # fmt: skip
        """Declare a POST."""
        return self._add("POST", path, description, params, permission=permission, returns=returns, **rest)

    def put(
        self, path: str, description: str, *, permission: Permission, returns: str,
        params: Sequence[Param] = (), **rest: Any,
    ) -> Callable[[H], H]:  # fmt: skip
        """Declare a PUT."""
        return self._add("PUT", path, description, params, permission=permission, returns=returns, **rest)

    def delete(
        self, path: str, description: str, *, permission: Permission, returns: str,
        params: Sequence[Param] = (), **rest: Any,
    ) -> Callable[[H], H]:  # fmt: skip
        """Declare a DELETE."""
        return self._add("DELETE", path, description, params, permission=permission, returns=returns, **rest)


def _check(method: Method) -> None:
    where = f"{method.verb} {method.path}"
    if not method.description.endswith("."):
        raise ValueError(f"{where}: the description is a sentence")
    if not hasattr(method.permission, "check"):
        raise ValueError(f"{where}: no permission")
    names = [p.shown for p in method.params]
    if len(set(names)) != len(names):
        raise ValueError(f"{where}: a parameter stands twice")
    for name in method.path_params:
        if name not in method.by_name or not method.by_name[name].required:
            raise ValueError(f"{where}: path parameter {name} must be declared and required")
    if method.forward and method.forward not in method.path_params:
        raise ValueError(f"{where}: forward names no path parameter")


class Table:
    """All methods, found by verb and path."""

    def __init__(self, routes: Iterable[Routes]) -> None:
        self.methods: tuple[Method, ...] = tuple(m for r in routes for m in r.methods)
        self._tree: dict[str, Any] = {}
        for method in self.methods:
            node = self._tree
            for part in filter(None, method.path.split("/")):
                key = "{*}" if part in TAILS else "{}" if part.startswith("{") else part
                node = node.setdefault(key, {})
            verbs = node.setdefault("", {})
            if method.verb in verbs:
                raise ValueError(f"{method.verb} {method.path}: declared twice")
            verbs[method.verb] = method

    def find(self, verb: str, segments: Sequence[str]) -> tuple[Method, dict[str, str]] | None:
        """Method and raw path parameters; None when there is no such method. A literal beats a parameter."""
        found = self._walk(self._tree, segments, 0, [])
        if found is None:
            return None
        verbs, values = found
        method = verbs.get(verb)
        if method is None:
            return None
        return method, dict(zip(method.path_params, values, strict=True))

    def _walk(
        self, node: dict[str, Any], segments: Sequence[str], at: int, values: list[str]
    ) -> tuple[dict[str, Method], list[str]] | None:
        if at == len(segments):
            return (node[""], values) if "" in node else None
        part = segments[at]
        # "", "{}" and "{*}" are our own keys in the tree, never a caller's
        if part not in ("", "{}", "{*}") and part in node:
            found = self._walk(node[part], segments, at + 1, values)
            if found is not None:
                return found
        if "{}" in node and part:
            return self._walk(node["{}"], segments, at + 1, [*values, part])
        if "{*}" in node and part:
            return self._walk(node["{*}"], segments, len(segments), [*values, "/".join(segments[at:])])
        return None

    def children(self, path: str) -> list[str]:
        """Names one level below a path template: for index methods (`[{subdir:string}]`)."""
        prefix = path.rstrip("/") + "/"
        names = {m.path[len(prefix) :].split("/")[0] for m in self.methods if m.path.startswith(prefix)}
        return sorted(n for n in names if not n.startswith("{"))
