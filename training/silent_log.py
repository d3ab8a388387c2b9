"""The run log of processes that do not write: the first one speaks for all."""

from collections.abc import Mapping
from pathlib import Path

from tokenreel.training.run_log import RunLog


class SilentLog(RunLog):
    """Takes what a run log takes, and tells nobody."""

    def __init__(self, run: Path) -> None:
        self.run = run

    def log(self, step: int, metrics: Mapping[str, float | str], important: bool = False) -> None:
        """Nothing."""

    def media(self, step: int, name: str, path: Path) -> None:
        """Nothing."""

    def say(self, words: str, style: str | None = None) -> None:
        """Nothing."""

    def sync(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""
