"""Benchmarks: each module answers one question, and prints a ratio within one run."""
