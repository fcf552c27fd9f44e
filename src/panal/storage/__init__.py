"""Storages: drivers, content, images. The context is `Storages`; verbs take it as their first argument."""

from __future__ import annotations

from panal.storage.config import create, parse_prune, remove, update
from panal.storage.drivers import TYPES
from panal.storage.drivers.base import StorageDriver, Usage, Volume, VolumeSource
from panal.storage.model import Status, StorageConfig, Volid, split_volid
from panal.storage.storages import Storages

__all__ = [
    "TYPES",
    "Status",
    "StorageConfig",
    "StorageDriver",
    "Storages",
    "Usage",
    "Volid",
    "Volume",
    "VolumeSource",
    "create",
    "parse_prune",
    "remove",
    "split_volid",
    "update",
]
