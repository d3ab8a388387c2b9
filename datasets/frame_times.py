"""When frames are shown: stamps made whole, the rate measured, frames put on a regular time grid."""

import heapq
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Generic, TypeVar

T = TypeVar("T")

# How many frames are held back while their stamps are sorted. Decoders give frames in the right order, but
# AVI files with packed B-frames stamp them 1, 2, 4, 3, 5, 7, 6: the k-th frame belongs to the k-th smallest
# stamp.
REORDER_DEPTH = 3
# A stamp that goes back by more than this, or ahead by more than LONGEST_PAUSE, is a new clock and not a new
# time.
LONGEST_STEP_BACK = 1.0
LONGEST_PAUSE = 10.0
# A target rate this close to the source's (29.97 for 30000/1001) means the source's.
SAME_RATE = Fraction(1, 10_000)


@dataclass(frozen=True)
class Stamped(Generic[T]):
    """A frame and when it is shown.

    Attributes:
        ticks: Time since the first frame, in units of the stream's time base.
        item: The frame, or what stands for it.
    """

    ticks: int
    item: T


class FrameClock:
    """Gives each decoded frame its time, and measures the source's rate while doing so.

    Stamps are sorted over a few frames, missing ones are filled in, and jumps of the clock (a transport
    stream that starts again, a broken stamp an hour ahead) are closed up to one frame interval.

    Args:
        time_base: Seconds per tick.
        declared_rate: Frames per second according to the header; used only where stamps are missing, and to
            give the measured rate its exact value when both agree.
    """

    def __init__(self, time_base: Fraction, declared_rate: Fraction | None) -> None:
        self.time_base = time_base
        self.declared_rate = declared_rate if declared_rate and declared_rate > 0 else None
        self.frames = 0
        self.jumps = 0
        self._nominal = max(1, round(1 / ((self.declared_rate or 25) * time_base)))
        self._back = max(LONGEST_STEP_BACK / time_base, 4 * self._nominal)
        self._ahead = max(LONGEST_PAUSE / time_base, 4 * self._nominal)
        self._shift = 0
        self._latest: int | None = None
        self._first = 0
        self._last = 0
        self._shortest: int | None = None
        self._longest = 0

    @property
    def interval(self) -> int:
        """Expected ticks between two frames, from the header."""
        return self._nominal

    @property
    def rate(self) -> Fraction | None:
        """Measured frames per second; None while unknown (one frame and a header without rate)."""
        if self.frames < 2 or self._last == 0:
            return self.declared_rate
        measured = (self.frames - 1) / (self._last * self.time_base)
        declared = self.declared_rate
        # Stamps are rounded to ticks (1/1000 s in Matroska), so the measurement alone would say 29.999.
        if declared and abs(measured - declared) <= max(declared / 1000, declared * 2 / self._last):
            return declared
        return measured

    @property
    def variable(self) -> bool:
        """Whether intervals differ by more than half; half a tick of rounding is forgiven on each side."""
        if self._shortest is None:
            return False
        return 2 * self._longest - 1 > 1.5 * (2 * self._shortest + 1)

    def stamp(self, frames: Iterable[tuple[int | None, T]]) -> Iterator[Stamped[T]]:
        """Yields the frames in their order with times that never decrease.

        Args:
            frames: (presentation stamp in ticks or None, frame) in the order of decoding.
        """
        stamps: list[int] = []
        held: deque[T] = deque()
        for pts, item in frames:
            heapq.heappush(stamps, self._on_one_clock(pts))
            held.append(item)
            if len(held) > REORDER_DEPTH:
                yield Stamped(self._measured(heapq.heappop(stamps)), held.popleft())
        while held:
            yield Stamped(self._measured(heapq.heappop(stamps)), held.popleft())

    def _on_one_clock(self, pts: int | None) -> int:
        latest = self._latest
        if latest is None:
            ticks = pts or 0
        elif pts is None:
            ticks = latest + self._nominal
        else:
            ticks = pts + self._shift
            if not -self._back <= ticks - latest <= self._ahead:
                self._shift += latest + self._nominal - ticks
                ticks = latest + self._nominal
                self.jumps += 1
        self._latest = ticks if latest is None else max(latest, ticks)
        return ticks

    def _measured(self, ticks: int) -> int:
        if self.frames == 0:
            self._first = ticks
        # A stamp can still come too late for the sorting above; time stands still then, it never goes back.
        since_first = max(ticks - self._first, self._last)
        if self.frames > 0:
            interval = since_first - self._last
            self._shortest = interval if self._shortest is None else min(self._shortest, interval)
            self._longest = max(self._longest, interval)
        self.frames += 1
        self._last = since_first
        return since_first


def exact_rate(fps: float, source: Fraction | None) -> Fraction:
    """The rate meant by a rounded number: the source's own when within 1/10,000, so 29.97 is 30000/1001."""
    wanted = Fraction(fps).limit_denominator(100_000)
    if source and abs(wanted - source) <= source * SAME_RATE:
        return source
    return wanted


def on_grid(frames: Iterable[Stamped[T]], clock: FrameClock, fps: Fraction) -> Iterator[T]:
    """Puts frames on the times 0, 1 / fps, 2 / fps, … after the first frame: drops some, repeats others.

    At each time stands the frame that is on the screen then (the latest one shown), where a frame already
    counts half an interval before its stamp. So frames of a constant rate are taken by the nearest time (ties
    to the earlier), a source that already has the rate passes through untouched in spite of rounded stamps,
    and a frame that a variable-rate source holds for seconds is held for those seconds. The interval meant is
    the shorter one of the two around the earlier frame. After the last frame the grid ends with half an
    interval.

    Args:
        frames: Frames with increasing times.
        clock: Its time base and expected interval are used.
        fps: Target rate in frames per second.
    """
    # Everything in units of 1 / (ticks per second * fps) seconds, so that comparisons are exact integers.
    per_tick = clock.time_base.numerator * fps.numerator
    per_step = clock.time_base.denominator * fps.denominator
    step = 0
    before: int | None = None
    held: Stamped[T] | None = None
    for frame in frames:
        if held is not None:
            interval = (frame.ticks - held.ticks) * per_tick
            takes_over = 2 * frame.ticks * per_tick - min(interval, interval if before is None else before)
            while 2 * step * per_step <= takes_over:
                yield held.item
                step += 1
            before = interval
        held = frame
    if held is None:
        return
    half = clock.interval * per_tick if before is None else before
    while 2 * step * per_step <= 2 * held.ticks * per_tick + half:
        yield held.item
        step += 1


def at_rate(frames: Iterable[Stamped[T]], clock: FrameClock, fps: float | None) -> Iterator[tuple[float, T]]:
    """Yields (seconds since the first frame, frame) at ``fps`` by ``on_grid``; all frames for None."""
    if fps is None:
        numerator, denominator = clock.time_base.as_integer_ratio()
        for frame in frames:
            yield frame.ticks * numerator / denominator, frame.item
        return
    rate = exact_rate(fps, clock.declared_rate)
    for step, item in enumerate(on_grid(frames, clock, rate)):
        yield float(step / rate), item
