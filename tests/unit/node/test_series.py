"""Rings: right steps, averages and maxima, gaps, bounded size; and the sampler which fills them."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from panal.core.errors import Failed
from panal.node import Sampler, Series
from panal.node.series import FRAMES, RINGS
from tests.unit.node.world import OwnClock

DAY = 86_400
T0 = 1_700_006_400 // 604_800 * 604_800  # the begin of a week


@pytest.fixture
def series(tmp_path):
    made = Series(tmp_path / "series.db")
    yield made
    made.close()


async def fill(series: Series, begin: int, minutes: int, value=float, subject: str = "100") -> int:
    for n in range(minutes):
        await series.write(begin + 60 * n, {"guest": {subject: {"cpu": value(n), "mem": 7}}})
    return begin + 60 * minutes


async def test_rows_stand_on_their_steps_and_gaps_have_no_values(series):
    await series.write(T0, {"guest": {"100": {"cpu": 1.0, "mem": float("nan")}}})
    await series.write(T0 + 120, {"guest": {"100": {"cpu": 3.0}}})
    rows = await series.read("guest", "100", "hour", "AVERAGE", T0 + 180 + 5)
    assert len(rows) == 60
    assert rows[-3:] == [{"time": T0, "cpu": 1.0}, {"time": T0 + 60}, {"time": T0 + 120, "cpu": 3.0}]
    assert {b["time"] - a["time"] for a, b in itertools.pairwise(rows)} == {60}
    assert all(set(row) == {"time"} for row in await series.read("guest", "101", "hour", "AVERAGE", T0 + 180))


@pytest.mark.parametrize("frame", FRAMES)
async def test_steps_of_every_timeframe(series, frame):
    ring, count = FRAMES[frame]
    rows = await series.read("node", "n", frame, "MAX", T0 + 12345)
    assert len(rows) == count
    assert all(row["time"] % RINGS[ring].step_s == 0 for row in rows)
    assert rows[-1]["time"] + RINGS[ring].step_s <= T0 + 12345 < rows[-1]["time"] + 2 * RINGS[ring].step_s


async def test_coarser_rings_fold_averages_and_maxima(series):
    now = await fill(series, T0, 12 * 60 + 1, lambda n: 100.0 if n == 5 else 1.0)
    average = {r["time"]: r.get("cpu") for r in await series.read("guest", "100", "week", "AVERAGE", now)}
    peak = {r["time"]: r.get("cpu") for r in await series.read("guest", "100", "week", "MAX", now)}
    assert average[T0] == pytest.approx((100 + 29) / 30) and average[T0 + 1800] == 1.0
    assert peak[T0] == 100.0 and peak[T0 + 1800] == 1.0
    year = await series.read("guest", "100", "year", "AVERAGE", now)
    assert year[-2:] == [
        {"time": T0, "cpu": pytest.approx((100 + 359) / 360), "mem": 7},
        {"time": T0 + 21600, "cpu": 1.0, "mem": 7},
    ]
    assert (await series.read("guest", "100", "year", "MAX", now))[-2]["cpu"] == 100.0


async def test_a_step_is_folded_also_when_the_node_was_off_at_its_end(series):
    """Planted fault: folding only when a minute ends the step exactly."""
    await fill(series, T0, 10)
    await series.write(T0 + 3 * DAY, {"guest": {"100": {"cpu": 5.0}}})
    rows = {r["time"]: r.get("cpu") for r in await series.read("guest", "100", "week", "AVERAGE", T0 + 3 * DAY + 60)}
    assert rows[T0] == pytest.approx(4.5)
    rows = {r["time"]: r.get("cpu") for r in await series.read("guest", "100", "year", "AVERAGE", T0 + 3 * DAY + 60)}
    assert rows[T0] == pytest.approx(4.5)


async def test_the_file_holds_a_ring_and_no_more_and_forgets_the_deleted(series):
    """Planted fault: replacing rows by their key alone keeps those of deleted guests for ever."""

    def count() -> object:
        return series._db.run_now(
            lambda db: db.execute("select count(*), sum(subject = 'old') from guest where ring = 0").fetchone()
        )

    await fill(series, T0, 30, subject="old")
    assert count() == (30, 30)
    await fill(series, T0 + 1800, 1440 + 30)
    assert count() == (1440, 0)
    rows = await series.read("guest", "100", "day", "AVERAGE", T0 + 1800 + 60 * 1470)
    assert all("cpu" in row for row in rows)


async def test_a_forgotten_subject_is_gone_from_all_rings(series):
    now = await fill(series, T0, 70)
    await series.forget("guest", "100")
    for frame in ("hour", "week"):
        assert all(set(row) == {"time"} for row in await series.read("guest", "100", frame, "AVERAGE", now))


async def test_a_clock_that_goes_back_is_survived(series):
    await fill(series, T0 + 7200, 5)
    await series.write(T0, {"guest": {"100": {"cpu": 9.0}}})
    await fill(series, T0 + 7200, 5)
    assert (await series.read("guest", "100", "hour", "AVERAGE", T0 + 60))[-1]["cpu"] == 9.0


class Bench:
    def __init__(self, series: Series) -> None:
        self.clock = OwnClock(float(T0))
        self.errors: list[str] = []
        self.values: dict[str, dict[str, float]] = {}
        self.fail: Exception | None = None
        self.sampler = Sampler(series, self.clock, lambda what, error: self.errors.append(f"{what}: {error}"))
        self.sampler.add("guest", self.source)

    async def source(self) -> dict[str, dict[str, float]]:
        if self.fail is not None:
            raise self.fail
        return {k: dict(v) for k, v in self.values.items()}

    async def ticks(self, count: int, change=lambda: None) -> None:
        for _ in range(count):
            change()
            await self.sampler.tick()
            self.clock.now += 10


async def test_samples_are_averaged_and_counters_become_rates(series):
    bench = Bench(series)
    bench.values["100"] = {"cpu": 0.0, "netin": 0}

    def change() -> None:
        bench.values["100"]["cpu"] += 1
        bench.values["100"]["netin"] += 1000

    await bench.ticks(7, change)
    (row,) = [r for r in await series.read("guest", "100", "hour", "AVERAGE", T0 + 65) if r["time"] == T0]
    assert row == {"time": T0, "cpu": pytest.approx(3.5), "netin": pytest.approx(100)}


async def test_a_counter_that_starts_anew_makes_no_peak(series):
    """Planted fault: differences below zero taken as they are, or as a jump."""
    bench = Bench(series)
    values = iter([5000, 6000, 0, 1000, 2000, 3000, 4000])
    bench.values["100"] = {"cpu": 1.0}
    await bench.ticks(7, lambda: bench.values["100"].update(netin=next(values)))
    (row,) = [r for r in await series.read("guest", "100", "hour", "MAX", T0 + 65) if r["time"] == T0]
    assert row["netin"] == pytest.approx(100)


async def test_a_source_that_fails_does_not_stop_the_others(series):
    bench = Bench(series)

    async def node() -> dict[str, dict[str, float]]:
        return {"n1": {"cpu": 0.5}}

    bench.sampler.add("node", node)
    bench.fail = Failed("the hypervisor does not answer")
    await bench.ticks(7)
    assert bench.errors[0] == "sampling guest: the hypervisor does not answer"
    assert (await series.read("node", "n1", "hour", "AVERAGE", T0 + 65))[-1]["cpu"] == 0.5


async def test_the_version_moves_when_something_moved(series):
    bench = Bench(series)
    bench.values["100"] = {"cpu": 1.0}
    await bench.ticks(1)
    before = bench.sampler.version
    await bench.ticks(2)
    assert bench.sampler.version == before
    bench.values["100"]["cpu"] = 2.0
    await bench.ticks(1)
    assert bench.sampler.version == before + 1 and bench.sampler.latest["guest"]["100"]["cpu"] == 2.0


async def test_the_loop_ends_and_keeps_what_it_had(series):
    bench = Bench(series)
    bench.values["100"] = {"cpu": 4.0}
    bench.sampler.start()
    while bench.clock.now < T0 + 30:
        await asyncio.sleep(0)
    await bench.sampler.close()
    rows = await series.read("guest", "100", "hour", "AVERAGE", T0 + 60)
    assert rows[-1] == {"time": T0, "cpu": 4.0}
