"""Benchmarks: ours against the alternative in one run; a table, and one JSON line last."""
