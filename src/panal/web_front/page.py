"""What a browser sees at `/` until the console is there. No script, no style, nothing from elsewhere."""

from __future__ import annotations

from typing import Final

HTML: Final = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Panal</title></head>
<body>
<h1>Panal</h1>
<p>A Panal node runs here. It has no web console yet.</p>
<ul>
<li>The API, compatible with Proxmox VE: <code>/api2/json/</code></li>
<li>Its description: <a href="/api2/openapi.json">OpenAPI 3.1</a></li>
<li>On the machine itself: <code>panal --help</code></li>
</ul>
</body>
</html>
"""
HEADERS: Final = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "cache-control": "no-cache",
}
