"""Real guests: QEMU runs them."""
