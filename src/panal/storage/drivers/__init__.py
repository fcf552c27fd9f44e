"""Storage back ends: one file or folder each, named as in the configuration. `TYPES` is the list of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from panal.storage.drivers import dir as dir_type
from panal.storage.drivers.base import DriverType

TYPES: Final[Mapping[str, DriverType]] = {t.type: t for t in (dir_type.TYPE,)}
