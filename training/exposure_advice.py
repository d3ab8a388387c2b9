"""What to say of how often videos are seen: the one rule of thumb about learning by heart.

On the world `paddle` validation was best when each frame had been seen 7 times, and bad at 20. Fewer than 10 times are
safe, more than 100 are risky; data that differ much, dropout and small models bear more.
"""

from bisect import bisect_right

LEVELS = 10, 50, 100
"""Times that a video has been seen through, above which there is something to say."""


def level(times: float) -> int:
    """How much there is to say: 0 (nothing) to 3."""
    return bisect_right(LEVELS, times)


def advice(times: float, judge: str, remedy: str) -> str | None:
    """What follows from how often each video is seen through, or None if it is few times.

    Args:
        times: Of an average frame of an average video.
        judge: The validation metric to watch, and which way is bad.
        remedy: What helps beside more videos and fewer steps.
    """
    if not level(times):
        return None
    if level(times) == 1:
        return f"watch {judge}; against learning by heart help more videos, fewer --steps, or {remedy}"
    if level(times) == 2:
        return (
            f"more than {LEVELS[1]} times is often enough to learn videos by heart: trust {judge} alone, keep the best "
            f"model (best/), and take more videos, fewer --steps, or {remedy}"
        )
    return (
        f"more than {LEVELS[2]} times is risky: samples may be copies of training videos; take more videos, end with "
        f"--patience, or {remedy}"
    )


def forecast(times: float, judge: str, remedy: str) -> str | None:
    """The same before a run, of its whole length."""
    told = advice(times, judge, remedy)
    return told and f"each video will be seen through {times:.0f} times: {told}"


def crossed(times: float, before: float, judge: str, remedy: str) -> str | None:
    """The same on the way, where a level was passed since it was looked at before."""
    if level(times) == level(before):
        return None
    return f"each video has been seen through {times:.0f} times: {advice(times, judge, remedy)}"
