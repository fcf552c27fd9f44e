"""Fetches a URL into a descriptor. Runs in the jail (host/jail.py, with network): no import of Panal.

`main({"url", "fd", "limit", "verify", "head"})`: progress as JSON lines `{"done", "total"}` on stdout, then the answer:
`{"size", "mimetype", "filename"}` or `{"error": why}`. Only http and https, at every redirect anew; no proxy and no credentials
from the environment.
"""

import json
import os
import re
import ssl
import time
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

_REDIRECTS = 10
_EVERY_S = 1.0
_CA_FILES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")


class Refused(Exception):
    """Why it was not fetched, for people."""


def prepare() -> None:
    """Load everything while files can still be read: our uid may not reach the interpreter's own modules afterwards."""
    import encodings.idna  # noqa: F401  the resolver asks for it by name

    import httpx2

    httpx2.Client(verify=_context(True), trust_env=False).close()


def _context(verify: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    for path in _CA_FILES:
        if os.path.exists(path):  # noqa: PTH110
            context.load_verify_locations(path)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _checked(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Refused(f"only http and https addresses are fetched, not '{url[:200]}'")
    if parts.username or parts.password:
        raise Refused("the address must not hold a user name or password")
    return url


def _name(response: Any, url: str) -> str:
    m = re.search(r'filename="?([^";]+)', response.headers.get("content-disposition", ""))
    found = m[1] if m else unquote(urlsplit(url).path.rpartition("/")[2])
    return re.split(r"[/\\]", found)[-1][:255]


def _copy(response: Any, fd: int, limit: int, total: int | None) -> int:
    done, told = 0, 0.0
    for data in response.iter_raw():
        done += len(data)
        if done > limit:
            raise Refused(f"it is bigger than the {limit} bytes there is room for")
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        if time.monotonic() - told >= _EVERY_S:
            told = time.monotonic()
            os.write(1, json.dumps({"done": done, "total": total}).encode() + b"\n")
    if total is not None and done != total:
        raise Refused(f"the connection ended after {done} of {total} bytes")
    return done


def _fetch(args: dict[str, Any]) -> dict[str, Any]:
    import httpx2

    url = _checked(args["url"])
    with httpx2.Client(
        verify=_context(args["verify"]), trust_env=False, follow_redirects=False,
        timeout=httpx2.Timeout(60, connect=20), headers={"User-Agent": "panal", "Accept-Encoding": "identity"},
    ) as client:  # fmt: skip
        for _ in range(_REDIRECTS + 1):
            with client.stream("HEAD" if args["head"] else "GET", url) as response:
                if response.is_redirect:
                    url = _checked(urljoin(url, response.headers.get("location", "")))
                    continue
                if response.status_code != 200:
                    raise Refused(f"the server answered {response.status_code} {response.reason_phrase[:100]}")
                if response.headers.get("content-encoding", "identity").lower() != "identity":
                    raise Refused("the server insists on compressing it")
                length = response.headers.get("content-length", "")
                total = int(length) if re.fullmatch(r"\d{1,18}", length) else None
                if not args["head"]:
                    if total is not None and total > args["limit"]:
                        raise Refused(f"it has {total} bytes, and there is room for {args['limit']}")
                    total = _copy(response, args["fd"], args["limit"], total)
                mime = response.headers.get("content-type", "application/octet-stream").partition(";")[0].strip()
                return {"size": total, "mimetype": mime[:255], "filename": _name(response, url)}
    raise Refused(f"more than {_REDIRECTS} redirects")


def main(args: dict[str, Any]) -> dict[str, Any]:
    """Entry for the jail."""
    try:
        return _fetch(args)
    except Refused as exc:
        return {"error": str(exc)}
    except OSError as exc:
        return {"error": f"{type(exc).__name__}: {exc.strerror or exc}"[:300]}
    except Exception as exc:
        return {"error": f"{type(exc).__name__}: {exc}"[:300]}
