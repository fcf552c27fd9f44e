"""QEMU over QMP: see `driver.py` for the verbs, `machine.py` for what the configuration keys become."""

from panal.guests.drivers.qemu.driver import QemuDriver

__all__ = ["QemuDriver"]
