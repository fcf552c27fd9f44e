"""QEMU driven directly over QMP (design D4, D5)."""
