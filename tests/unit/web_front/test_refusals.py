"""401s through the whole application, with a paneld, a clock and a sleep of the test's own."""

from __future__ import annotations

import asyncio

from panal.api import errors
from panal.api.wire import encode
from panal.web_front.app import Api
from panal.web_front.backend import Backend
from panal.web_front.limits import MAX_HELD, MAX_HELD_PER_ADDRESS, Refusals


class Paneld(Backend):
    """Refuses everybody after `takes_s` of the test's clock."""

    def __init__(self, clock, takes_s: float = 0) -> None:
        super().__init__("")
        self.clock, self.takes_s = clock, takes_s

    async def call(self, request, body=b""):
        self.clock.now_s += self.takes_s
        failure = errors.Failure(401, f"no: {request.path}", code="not-authenticated")
        answer, data = encode.failed(request.format, failure)
        return answer, data, []


class Clock:
    """Sleepers wait for `go`."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.slept: list[float] = []
        self.go = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await self.go.wait()


async def ask(api: Api, address: str, path: bytes = b"/json/version") -> tuple[int, dict[bytes, bytes]]:
    out = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message) -> None:
        out.append(message)

    scope = {
        "type": "http", "method": "GET", "path": path.decode(), "raw_path": b"/api2" + path, "query_string": b"", "headers": [],
        "client": (address, 1),
    }  # fmt: skip
    await api(scope, receive, send)
    return out[0]["status"], dict(out[0]["headers"])


def api_with(takes_s: float = 0) -> tuple[Api, Clock, Refusals]:
    clock = Clock()
    refusals = Refusals(lambda: clock.now_s, clock.sleep)
    return Api(Paneld(clock, takes_s), refusals, lambda: clock.now_s), clock, refusals


async def test_what_was_waited_already_counts():
    """3 s in total: PAM's own 2 s are part of them. Planted fault: sleeping `hold_s` whatever has passed."""
    for takes_s, rest_s in ((0, [3.0]), (2.25, [0.75]), (3, []), (31, [])):
        api, clock, refusals = api_with(takes_s)
        clock.go.set()
        assert (await ask(api, "192.0.2.1"))[0] == 401
        assert clock.slept == rest_s and refusals.count == 0


async def test_no_401_is_sooner_and_a_bounded_number_waits():
    """Planted fault: answering 401 at once when there is no place."""
    api, clock, refusals = api_with()
    waiting = [asyncio.create_task(ask(api, "192.0.2.1")) for _ in range(MAX_HELD_PER_ADDRESS)]
    while len(clock.slept) < MAX_HELD_PER_ADDRESS:
        await asyncio.sleep(0)
    status, headers = await ask(api, "192.0.2.1")
    assert status == 429 and b"retry-after" in headers
    others = [asyncio.create_task(ask(api, f"198.51.100.{n % 200}")) for n in range(MAX_HELD)]
    while not any(task.done() for task in others):
        await asyncio.sleep(0)
    assert refusals.count == MAX_HELD
    assert not any(task.done() for task in waiting)
    clock.go.set()
    assert {(await task)[0] for task in waiting} == {401}
    statuses = [(await task)[0] for task in others]
    assert (statuses.count(401), statuses.count(429)) == (MAX_HELD - MAX_HELD_PER_ADDRESS, MAX_HELD_PER_ADDRESS)
    assert refusals.count == 0


async def test_who_leaves_gives_the_place_back():
    api, clock, refusals = api_with()
    gone = asyncio.create_task(ask(api, "192.0.2.1"))
    while not clock.slept:
        await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    assert refusals.count == 0


async def test_all_401s_have_the_same_head():
    """A path that is and one that is not, in every format: only the sentence differs."""
    api, clock, _ = api_with()
    clock.go.set()
    heads = [await ask(api, "192.0.2.1", path) for path in (b"/json/version", b"/json/nonsense", b"/png/version")]
    names = [{name for name, _ in head.items()} for _, head in heads]
    assert [status for status, _ in heads] == [401] * 3 and names[0] == names[1] == names[2]
