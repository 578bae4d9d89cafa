"""Sweeps: search a policy's parameters, prove the winner on other seeds and workloads, say what mattered."""
