"""What we claim, runnable: each module is a command, ``python -m benchmarks.NAME``."""
