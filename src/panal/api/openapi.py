"""OpenAPI 3.1 of the method table (`/api2/openapi.json`). Methods, parameters and fields of our own carry `x-panal`."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from panal.api import schema
from panal.api.permission import World
from panal.api.table import Method, Param, Table

_ERROR = {
    "type": "object",
    "properties": {
        "data": {"type": "null"},
        "message": {"type": "string"},
        "errors": {"type": "object", "additionalProperties": {"type": "string"}},
        "panal-code": {"type": "string", "x-panal": True},
        "panal-params": {"type": "object", "x-panal": True},
    },
}


def document(table: Table) -> bytes:
    """The document as JSON. Deterministic: the same table gives the same bytes."""
    paths: dict[str, dict[str, Any]] = {}
    for method in sorted(table.methods, key=lambda m: (m.path, m.verb)):
        paths.setdefault(f"/api2/json{method.path}".rstrip("/"), {})[method.verb.lower()] = _operation(method)
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "Panal",
                "version": "1",
                "description": "The Proxmox VE API as Panal keeps it, and what Panal adds (x-panal).",
            },
            "paths": paths,
            "components": {
                "schemas": {"Error": _ERROR},
                "responses": {
                    "Error": {
                        "description": "The message stands in the status line, too.",
                        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
                    }
                },
                "securitySchemes": {
                    "ticket": {"type": "apiKey", "in": "cookie", "name": "PVEAuthCookie"},
                    "csrf": {"type": "apiKey", "in": "header", "name": "CSRFPreventionToken"},
                    "token": {"type": "apiKey", "in": "header", "name": "Authorization"},
                },
            },
        }
    )


def _operation(method: Method) -> dict[str, Any]:
    in_path = set(method.path_params)
    others = [p for p in method.params if p.name not in in_path]
    parameters = [_parameter(p, "path") for p in method.params if p.name in in_path]
    out: dict[str, Any] = {
        "operationId": _operation_id(method),
        "summary": method.description,
        "description": f"Permission: {method.permission.describe()}",
        "tags": [method.noun],
        "parameters": parameters,
        "responses": {
            "200": {
                "description": "Done.",
                "content": {
                    "application/json": {
                        "schema": {
                            "type": "object",
                            "properties": {"data": schema.json_schema(schema.parse(method.returns))},
                            "required": ["data"],
                        }
                    }
                },
            },
            "default": {"$ref": "#/components/responses/Error"},
        },
        "security": [] if isinstance(method.permission, World) else _security(method),
    }
    if method.verb in ("GET", "DELETE"):
        parameters += [_parameter(p, "query") for p in others]
    elif others:
        media = "multipart/form-data" if method.upload else "application/x-www-form-urlencoded"
        out["requestBody"] = {"content": {media: {"schema": _body(others)}}}
        if not method.upload:
            out["requestBody"]["content"]["application/json"] = {"schema": _body(others)}
    if method.ours:
        out["x-panal"] = True
    return out


def _security(method: Method) -> list[dict[str, list[str]]]:
    ticket: dict[str, list[str]] = {"ticket": []}
    if method.changes and method.csrf and not method.upload:
        ticket["csrf"] = []
    return [ticket, {"token": []}] if method.allow_token else [ticket]


def _operation_id(method: Method) -> str:
    words = re.sub(r"[^A-Za-z0-9]+", "_", method.path).strip("_")
    return f"{method.verb.lower()}_{words}".rstrip("_")


def _body(params: list[Param]) -> dict[str, Any]:
    out: dict[str, Any] = {"type": "object", "properties": {}}
    for p in params:
        if p.count is None:
            out["properties"][p.name] = _value(p)
        else:
            out.setdefault("patternProperties", {})[f"^{re.escape(p.name)}\\d+$"] = _value(p)
    required = [p.name for p in params if p.required]
    return out | ({"required": required} if required else {})


def _parameter(param: Param, place: str) -> dict[str, Any]:
    name = param.shown
    out = {"name": name, "in": place, "required": param.required, "schema": _value(param)}
    return out


def _value(param: Param) -> dict[str, Any]:
    if param.type == "boolean":
        out: dict[str, Any] = {"type": "integer", "enum": [0, 1]}
    else:
        out = {"type": param.type}
    out["description"] = param.description
    for key, value in (
        ("minimum", param.minimum),
        ("maximum", param.maximum),
        ("minLength", param.min_length),
        ("maxLength", param.max_length),
        ("pattern", param.pattern),
        ("default", param.default),
    ):
        if value is not None:
            out[key] = value
    if param.enum:
        out["enum"] = list(param.enum)
    if isinstance(param.format, str):
        out["format"] = param.format
    if param.secret:
        out["writeOnly"] = True
    if param.name.startswith("panal-"):
        out["x-panal"] = True
    return out
