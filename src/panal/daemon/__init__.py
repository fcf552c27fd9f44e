"""paneld: composition root of the privileged daemon. No logic."""
