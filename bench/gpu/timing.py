"""Timing of work on a device: medians over many rounds, by events on a GPU, on buffers outside its cache."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

Work = Callable[[], object]

# Keeps the GPU busy for about a millisecond per call, so that the host gets ahead with its launches.
HEAD_START_CYCLES = 2_000_000


@dataclass(frozen=True)
class Spread:
    """Milliseconds of one call: the median, and the middle three fifths of all rounds."""

    median_ms: float
    low_ms: float
    high_ms: float
    rounds: int

    @staticmethod
    def of(times: Sequence[float]) -> Spread:
        ordered = sorted(times)
        fifth = len(ordered) // 5
        return Spread(statistics.median(ordered), ordered[fifth], ordered[-1 - fifth], len(ordered))


class Clock:
    """Milliseconds between two points of a device's work: events on a GPU, the host's clock elsewhere."""

    def __init__(self, device: torch.device) -> None:
        self._events = device.type == "cuda"

    def now(self) -> torch.cuda.Event | float:
        if not self._events:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    @staticmethod
    def between(start: torch.cuda.Event | float, end: torch.cuda.Event | float) -> float:
        """Milliseconds between two marks; synchronise first, so that both have passed."""
        return 1e3 * (end - start) if isinstance(start, float) else start.elapsed_time(end)


def time_kernel(works: Sequence[Work], device: torch.device, rounds: int) -> Spread:
    """The time of one call alone, without the host's part of it.

    `works` do the same on different buffers and take turns, so that none finds its buffers in the cache.
    """
    for work in works:
        work()
        work()
    synchronize(device)
    if device.type == "cuda":
        torch.cuda._sleep(HEAD_START_CYCLES * rounds)
    clock = Clock(device)
    marks = []
    for turn in range(rounds):
        start = clock.now()
        works[turn % len(works)]()
        marks.append((start, clock.now()))
    synchronize(device)
    return Spread.of([clock.between(*mark) for mark in marks])


def time_in_turn(works: dict[str, Work], device: torch.device, rounds: int) -> dict[str, Spread]:
    """The time that a loop of each work takes from round to round, the host's launches included.

    All must be warm. They take turns in bursts, so that a slow moment of the machine hits all of them.
    """
    burst = 5
    clock = Clock(device)
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(max(1, rounds // burst)):
        for name, work in works.items():
            synchronize(device)
            work()  # the first call of a burst finds an idle device
            marks = [clock.now()]
            for _ in range(burst):
                work()
                marks.append(clock.now())
            synchronize(device)
            times[name] += [clock.between(*pair) for pair in pairwise(marks)]
    return {name: Spread.of(found) for name, found in times.items()}


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
