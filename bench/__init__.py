"""Measurements, written into docs/performance.md by their own runs; never timed tests."""
