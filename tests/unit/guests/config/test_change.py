"""Changes of a configuration: at once or pending, volumes never forgotten, digest, locks."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from panal.core.errors import BadInput, Conflict
from panal.guests.config.change import Change, State, apply_pending, check_digest, digest, plan_change, volumes
from panal.guests.config.show import show_config, show_pending
from panal.guests.config.wish import Wish, read_wish
from tests.soaking import examples

A, B, C = (f"local:100/vm-100-disk-{n}.qcow2" for n in range(3))


def change(
    config: dict[str, str], wish: Wish, *, pending: dict[str, str | None] | None = None, **state: object
) -> Change:
    return plan_change(State(100, config, pending or {}, **state), wish)  # type: ignore[arg-type]


def test_a_stopped_guest_changes_at_once():
    done = change({"cores": "1", "name": "a"}, Wish({"cores": "2"}, delete=("name",)))
    assert (done.config, done.pending, done.free) == ({"cores": "2"}, {}, ())


def test_a_running_guest_gets_pending_and_live_keys_at_once():
    done = change(
        {"cores": "1", "name": "a", "memory": "512"},
        Wish({"cores": "2", "name": "b"}, delete=("memory",)),
        running=True,
    )
    assert done.config == {"cores": "1", "name": "b", "memory": "512"}
    assert done.pending == {"cores": "2", "memory": None}
    assert apply_pending(100, done.config, done.pending) == {"cores": "2", "name": "b"}


def test_setting_back_what_holds_forgets_what_is_pending():
    done = change({"cores": "1"}, Wish({"cores": "1"}), pending={"cores": "2"}, running=True)
    assert done.pending == {}


def test_revert():
    pending: dict[str, str | None] = {"cores": "2", "memory": None, "tags": "x"}
    done = change({"cores": "1", "memory": "1"}, Wish(revert=("cores", "memory")), pending=pending, running=True)
    assert done.pending == {"tags": "x"}


def test_pending_of_a_stopped_guest_is_applied_with_the_next_change():
    done = change({"cores": "1"}, Wish({"name": "b"}), pending={"cores": "2"})
    assert done.config == {"cores": "2", "name": "b"} and done.pending == {}


def test_a_detached_disk_is_kept_as_unused_and_freed_from_there():
    done = change({"scsi0": f"{A},size=1G"}, Wish(delete=("scsi0",)))
    assert (done.config, done.free) == ({"unused0": A}, ())
    done = change(done.config, Wish(delete=("unused0",)))
    assert (done.config, done.free) == ({}, (A,))


def test_force_frees_at_once_when_stopped_and_is_refused_when_running():
    done = change({"scsi0": A}, Wish(delete=("scsi0",), force=True))
    assert (done.config, done.free) == ({}, (A,))
    with pytest.raises(BadInput) as caught:
        change({"scsi0": A}, Wish(delete=("scsi0",), force=True), running=True)
    assert caught.value.field == "force"


def test_a_replaced_disk_is_kept_and_an_attached_one_is_no_longer_unused():
    done = change({"scsi0": A, "unused0": B}, Wish({"scsi0": B}))
    assert done.config == {"scsi0": B, "unused0": A} or done.config == {"scsi0": B, "unused1": A}


def test_a_running_guests_new_disk_that_is_reverted_is_kept():
    done = change({}, Wish({"scsi1": B}), running=True)
    assert done.pending == {"scsi1": B}
    done = change(done.config, Wish(revert=("scsi1",)), pending=done.pending, running=True)
    assert (done.config, done.pending) == ({"unused0": B}, {})


def test_cd_images_and_other_guests_volumes_are_not_kept():
    done = change(
        {"ide2": "local:iso/a.iso,media=cdrom", "scsi1": "local:200/vm-200-disk-0.raw"},
        Wish(delete=("ide2", "scsi1"), force=True),
    )
    assert (done.config, done.free) == ({}, ())


def test_a_volume_of_a_snapshot_is_not_freed():
    with pytest.raises(Conflict, match="snapshot 'before'"):
        change({"unused0": A}, Wish(delete=("unused0",)), held={A: "before"})


def test_a_disk_has_one_drive():
    with pytest.raises(BadInput) as caught:
        change({"scsi0": A}, Wish({"virtio1": A}))
    assert caught.value.field == "virtio1"
    # moving it in one go is fine
    assert change({"scsi0": A}, Wish({"virtio1": A}, delete=("scsi0",))).config == {"virtio1": A}


def test_protection_keeps_disks():
    with pytest.raises(Conflict, match="protection mode enabled"):
        change({"scsi0": A, "protection": "1"}, Wish(delete=("scsi0",)))


def test_boot_devices_must_exist():
    with pytest.raises(BadInput, match="'scsi1' does not exist"):
        change({"scsi0": A}, Wish({"boot": "order=scsi0;scsi1"}))
    assert (
        change({"scsi0": A}, Wish({"boot": "order=scsi1", "scsi1": B}), running=True).pending["boot"] == "order=scsi1"
    )


def test_the_balloon_fits():
    with pytest.raises(BadInput, match="smaller than assigned memory"):
        change({}, Wish({"balloon": "1024"}))
    with pytest.raises(BadInput, match="smaller than assigned memory"):
        change({"balloon": "400"}, Wish({"memory": "256"}))


def test_a_template_stays_one_and_is_made_elsewhere():
    for config, wish in (({}, Wish({"template": "1"})), ({"template": "1"}, Wish({"template": "0"})),
                         ({"template": "1"}, Wish(delete=("template",)))):  # fmt: skip
        with pytest.raises(BadInput):
            change(config, wish)
    assert change({}, Wish({"template": "0"})).config == {"template": "0"}


def test_locked():
    with pytest.raises(Conflict, match=r"VM is locked \(create\)"):
        change({}, Wish({"cores": "2"}), lock="create")
    assert change({}, Wish(delete=("lock",), skiplock=True), lock="create").lock is None
    assert change({}, Wish({"lock": "backup"})).lock == "backup"
    assert "lock" not in change({}, Wish({"lock": "backup"})).config


def test_digest_tells_another_configuration():
    """Seen to fail with `pending` left out of the digest."""
    config: dict[str, str] = {"cores": "1"}
    known = digest(config, {})
    assert change(config, Wish({"cores": "2"}, digest=known)).config == {"cores": "2"}
    for other, pending in (({"cores": "2"}, {}), ({"cores": "1"}, {"name": "x"}), ({"cores": "1"}, {"name": None})):
        with pytest.raises(
            Conflict, match=r"^detected modified configuration - file changed by other user\? Try again\.$"
        ):
            check_digest(known, other, pending)
    assert len(known) == 40 and digest({"a": "1\nb: 2"}, {}) != digest({"a": "1", "b": "2"}, {})


def test_shown_types_and_secrets():
    config = {
        "memory": "1024",
        "cores": "2",
        "onboot": "1",
        "cpulimit": "1.5",
        "name": "a",
        "cipassword": "geheim",
        "net0": "virtio",
    }
    shown = show_config(config, {"cores": "4", "name": None}, extra={"lock": "clone"})
    assert shown == {
        "memory": "1024", "cores": 4, "onboot": 1, "cpulimit": 1.5, "cipassword": "**********", "net0": "virtio",
        "lock": "clone",
        "digest": digest(config, {"cores": "4", "name": None}),
    }  # fmt: skip
    assert show_config(config, {"cores": "4", "name": None}, current=True)["cores"] == 2
    rows = {r["key"]: r for r in show_pending(config, {"cores": "4", "name": None, "tags": "x", "cipassword": "neu"})}
    assert rows["cores"] == {"key": "cores", "value": "2", "pending": "4"}
    assert rows["name"] == {"key": "name", "value": "a", "delete": 1}
    assert rows["tags"] == {"key": "tags", "pending": "x"}
    assert rows["cipassword"] == {"key": "cipassword", "value": "**********", "pending": "**********"}


KEYS_USED = ["scsi0", "scsi1", "virtio0", "sata0", "unused0", "unused1"]
VOLUMES = [f"local:100/vm-100-disk-{n}.raw" for n in range(5)]


@st.composite
def states(draw: st.DrawFn) -> State:
    names = draw(st.lists(st.sampled_from(KEYS_USED), unique=True))
    disks: list[str] = list(draw(st.permutations(VOLUMES)))
    config = dict(zip(names, disks, strict=False))
    rest = disks[len(names) :]
    pending: dict[str, str | None] = {}
    for name in draw(st.lists(st.sampled_from(KEYS_USED[:4]), unique=True)):
        pending[name] = rest.pop() if rest and draw(st.sampled_from([0, 1])) else None
    return State(100, config, pending, running=bool(draw(st.sampled_from([0, 1]))))


@settings(max_examples=examples(300))
@given(states(), st.data())
def test_no_volume_is_ever_forgotten(state: State, data: st.DataObject):
    """Invariant of change.py. Seen to fail with `_keep` skipped in `_put_pending`."""
    delete = tuple(data.draw(st.lists(st.sampled_from(KEYS_USED), unique=True, max_size=2)))
    free_keys = [k for k in KEYS_USED[:4] if k not in delete]
    new = "local:100/vm-100-disk-9.raw"
    wished = {data.draw(st.sampled_from(free_keys)): new} if data.draw(st.booleans()) else {}
    revert = tuple(
        k for k in data.draw(st.lists(st.sampled_from(KEYS_USED), unique=True)) if k not in delete and k not in wished
    )
    before = volumes(state.config, state.pending)
    done = plan_change(state, Wish(wished, delete, revert))
    after = volumes(done.config, done.pending)
    assert after | set(done.free) == before | set(wished.values())
    assert not after & set(done.free)
    final = apply_pending(100, done.config, done.pending)
    assert volumes(final, {}) == after
    # pending never shows what a stopped guest would do
    assert state.running or not done.pending


def test_read_wish_of_a_whole_request():
    wish = read_wish(
        {"node": "a", "vmid": 100, "cores": 2, "delete": "name,tags", "revert": "memory", "force": True, "digest": "x"}
    )
    assert wish == Wish({"cores": "2"}, ("name", "tags"), ("memory",), True, "x")
