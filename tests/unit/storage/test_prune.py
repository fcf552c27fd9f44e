"""Which backups stay."""

from panal.storage.drivers.base import Volume
from panal.storage.prune import prune


def backup(time, vmid=100, protected=False, kind="qemu"):
    name = f"backup/vzdump-{kind}-{vmid}-{time}.vma.zst"
    return Volume(name, "backup", "vma.zst", 1, vmid=vmid, protected=protected)


def kept(volumes, **keep):
    marked = prune(volumes, {f"keep-{key}": value for key, value in keep.items()})
    return [m.volume.name.split("-", 3)[3][:19] for m in marked if m.mark == "keep"]


DAYS = [backup(f"2026_01_{day:02}-{hour:02}_00_00") for day in range(1, 11) for hour in (6, 18)]


def test_last():
    assert kept(DAYS, last=2) == ["2026_01_10-06_00_00", "2026_01_10-18_00_00"]


def test_daily_keeps_the_newest_of_a_day():
    assert kept(DAYS, daily=3) == ["2026_01_08-18_00_00", "2026_01_09-18_00_00", "2026_01_10-18_00_00"]


def test_a_period_kept_by_an_earlier_rule_does_not_count_again():
    assert kept(DAYS, last=1, daily=2) == ["2026_01_08-18_00_00", "2026_01_09-18_00_00", "2026_01_10-18_00_00"]


def test_weeks_months_years():
    volumes = [backup(f"{year}_{month:02}_15-00_00_00") for year in (2024, 2025) for month in (1, 6, 12)]
    assert kept(volumes, yearly=2) == ["2024_12_15-00_00_00", "2025_12_15-00_00_00"]
    assert kept(volumes, monthly=4) == [
        "2024_12_15-00_00_00", "2025_01_15-00_00_00", "2025_06_15-00_00_00", "2025_12_15-00_00_00",
    ]  # fmt: skip


def test_no_rule_and_keep_all_keep_everything():
    assert len(kept(DAYS)) == len(kept(DAYS, all=1)) == len(kept(DAYS, last=0)) == 20


def test_guests_do_not_share_and_protected_do_not_count():
    volumes = [
        backup("2026_01_01-00_00_00"),
        backup("2026_01_02-00_00_00", protected=True),
        backup("2026_01_01-00_00_00", vmid=101),
        backup("2026_13_45-99_99_99"),
        backup("2026_01_01-00_00_00", kind="lxc"),
    ]
    marks = {m.volume.name: m.mark for m in prune(volumes, {"keep-last": 1})}
    assert sorted(marks.values()) == ["keep", "keep", "keep", "protected", "renamed"]
