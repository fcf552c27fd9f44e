"""All multi-step operations of guests, made known to the task runner before it recovers what a crash left open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from panal.guests import (
    clone,
    configure,
    create,
    delete,
    delsnapshot,
    move_disk,
    resize,
    rollback,
    snapshot,
    template,
)
from panal.guests.context import Guests
from panal.tasks.steps import Args, Step

Builder = Callable[[Guests, Args], Sequence[Step]]

BUILDERS: Final[dict[str, Builder]] = {
    create.KIND: create.build_create,
    clone.KIND: clone.build_clone,
    configure.KIND: configure.build_configure,
    delete.KIND: delete.build_delete,
    move_disk.KIND: move_disk.build_move,
    resize.KIND: resize.build_resize,
    template.KIND: template.build_template,
    snapshot.KIND: snapshot.build_snapshot,
    delsnapshot.KIND: delsnapshot.build_delsnapshot,
    rollback.KIND: rollback.build_rollback,
}


def register(guests: Guests) -> None:
    """Make them known; call it before `tasks.start()`."""
    for kind, build in BUILDERS.items():
        guests.tasks.register(kind, partial(build, guests))
