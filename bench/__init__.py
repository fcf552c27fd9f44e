"""Measurements; each writes its own table into docs/performance.md."""
