"""Paired timing: things side by side, in turn, many times; the median of each."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence


def interleaved(
    runs: Sequence[Callable[[], object]], repeats: int, least_s: float = 0.0
) -> list[float]:
    """Median seconds of each, after one run of each that does not count.

    In turn, because the machine's speed drifts: what drifts hits all alike. Repeats go on until
    both their number and ``least_s`` seconds are reached.
    """
    for run in runs:
        run()
    seconds: list[list[float]] = [[] for _ in runs]
    begin = time.perf_counter()
    while len(seconds[0]) < repeats or time.perf_counter() - begin < least_s:
        for run, times in zip(runs, seconds, strict=True):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
    return [statistics.median(times) for times in seconds]
