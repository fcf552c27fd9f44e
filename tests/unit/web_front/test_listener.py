"""panal-web's way of accepting, in this process: both families, places, slow clients, a renewed certificate."""

from __future__ import annotations

import asyncio
import datetime
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from panal.cluster.certificates import write_private
from panal.web_front import listener, protocol
from panal.web_front.backend import Backend
from panal.web_front.limits import Held
from panal.web_front.listener import WebServer
from panal.web_front.main import bind, configuration

GET = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def certificate(directory: Path, name: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder().subject_name(who).issuer_name(who).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    write_private(directory / "node.key", key.private_bytes(*form), None)
    write_private(directory / "node.pem", made.public_bytes(serialization.Encoding.PEM), None)


class Web:
    """The server, and clients of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        certificate(directory, "first")
        self.sockets = bind(":0")
        self.port = self.sockets[0].getsockname()[1]
        self.server = WebServer(configuration(Backend("/nowhere"), hsts=False), directory)
        self.context = ssl.create_default_context()
        self.context.check_hostname, self.context.verify_mode = False, ssl.CERT_NONE

    async def plain(self, source: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port, local_addr=(source, 0))

    async def tls(self, to: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(to, self.port, ssl=self.context)

    async def get(self, to: str = "127.0.0.1") -> tuple[bytes, str]:
        """Status line, and the name in the certificate."""
        reader, writer = await self.tls(to)
        writer.write(GET)
        answer = await reader.read()
        raw = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        return answer.partition(b"\r\n")[0], x509.load_der_x509_certificate(raw).subject.rfc4514_string()

    async def until(self, held: int) -> None:
        async with asyncio.timeout(30):
            while self.server._held.count != held:
                await asyncio.sleep(0.01)


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[Web]:
    made = Web(tmp_path)
    serving = asyncio.create_task(made.server.serve(sockets=made.sockets))
    while not made.server.started:
        await asyncio.sleep(0.01)
    yield made
    made.server.should_exit = made.server.force_exit = True
    await serving


async def test_both_families_on_one_port(web: Web) -> None:
    """Planted fault: `:PORT` listening on one family only."""
    if not Path("/proc/net/if_inet6").exists():
        pytest.skip("impossible here: no IPv6")
    assert {sock.family for sock in web.sockets} == {socket.AF_INET, socket.AF_INET6}
    assert len({sock.getsockname()[1] for sock in web.sockets}) == 1
    for address in ("127.0.0.1", "::1"):
        assert (await web.get(address))[0] == b"HTTP/1.1 200 OK"


async def test_a_renewed_certificate_is_served_without_restart(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when it is read between its two files. Planted fault: `_reload` that ends with the first failure."""
    web.server._reloading.cancel()
    monkeypatch.setattr(listener, "RELOAD_CHECK_S", 0.02)
    web.server._reloading = asyncio.create_task(web.server._reload())
    assert (await web.get())[1] == "CN=first"
    other = web.directory / "other"
    other.mkdir()
    certificate(other, "second")
    open_before = await web.tls()
    (other / "node.key").replace(web.directory / "node.key")  # does not belong to the certificate
    await asyncio.sleep(0.1)
    assert (await web.get())[1] == "CN=first"
    (other / "node.pem").replace(web.directory / "node.pem")
    async with asyncio.timeout(30):
        while (await web.get())[1] != "CN=second":
            await asyncio.sleep(0.02)
    open_before[1].write(GET)
    assert (await open_before[0].read()).startswith(b"HTTP/1.1 200")


async def test_places_are_bounded_and_given_back(web: Web) -> None:
    """Planted fault: `_accept` that does not ask for a place."""
    web.server._held = Held(8, 5)
    first = [await web.plain() for _ in range(5)]
    await web.until(5)
    sixth = await web.plain()
    assert await sixth[0].read() == b""
    others = [await web.plain("127.0.0.2") for _ in range(3)]
    await web.until(8)
    ninth = await web.plain("127.0.0.3")
    assert await ninth[0].read() == b""
    for _, writer in (*first, sixth, *others, ninth):
        writer.close()
    await web.until(0)
    assert (await web.get())[0] == b"HTTP/1.1 200 OK"
    await web.until(0)


@pytest.mark.parametrize("said", [b"", b"\x16", b"\x16\x03\x01\x02\x00"], ids=["nothing", "a byte", "half a hello"])
async def test_who_does_not_go_on_is_sent_away(web: Web, monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    """Before TLS stands. Planted fault: no time limit for the first byte, or for the handshake."""
    monkeypatch.setattr(listener, "FIRST_BYTE_S", 0.2)
    reader, writer = await web.plain()
    writer.write(said)
    async with asyncio.timeout(30):
        assert await reader.read() == b""
    writer.close()
    await web.until(0)


async def test_a_head_that_trickles_is_cut_off(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slowloris: the time is for the whole head. Planted fault: a time limit that each header starts again."""
    monkeypatch.setattr(protocol, "HEAD_TIMEOUT_S", 0.3)
    reader, writer = await web.tls()
    writer.write(b"GET / HTTP/1.1\r\n")
    ended = asyncio.create_task(reader.read())
    async with asyncio.timeout(30):
        while not ended.done():
            writer.write(b"X-a: b\r\n")
            await asyncio.sleep(0.05)
    assert await ended == b""  # not the 400 for too many headers
    writer.close()
    await web.until(0)


async def test_a_slow_client_gets_the_whole_answer(web: Web) -> None:
    """The end of a connection waits until what was sent has been read. Planted fault, as found: 1 s for the end of TLS, which
    counts from the last write, so a slow reader lost the rest."""
    size = 32 << 20

    async def app(scope: Any, receive: Any, send: Any) -> None:
        head = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(size).encode())]}
        await send(head)
        await send({"type": "http.response.body", "body": bytes(size)})

    web.server.config.loaded_app = app
    reader, writer = await web.tls()
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(GET)
    await asyncio.sleep(2)
    writer.transport.resume_reading()  # type: ignore[attr-defined]
    answer = await reader.read()
    writer.close()
    assert len(answer) > size
