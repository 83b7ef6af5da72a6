"""Benchmarks: the same requests to several backends in turn, each in a process of its own, and a report."""
