"""The run folder and what is written about a run: console, metrics.jsonl, wandb.

``runs/<name>/``: ``config.json`` (resolved), ``metrics.jsonl``, ``samples/``, ``checkpoints/``, ``model/``.
"""

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tokenreel.training.doctor import Doctor
from tokenreel.training.run_records import Record, read_records
from tokenreel.training.wandb_log import WandbLog, WandbMode

SECONDS_BETWEEN_LINES = 15


class RunLog:
    """Writes a run's metrics to the console, to ``metrics.jsonl`` and to wandb; what is wrong is said in the console.

    Args:
        run: The run's folder; must exist.
        config: The resolved configuration, for wandb and for what is said.
        first_step: Steps taken before (0, or where a resumed run goes on); later lines of an earlier
            attempt are removed from ``metrics.jsonl``, so that each step stands there once.
        steps: Steps the run will have at its end.
        wandb: "auto" is online when the user is logged in, else offline; "disabled" leaves no trace.
    """

    def __init__(self, run: Path, config: Mapping[str, Any], first_step: int, steps: int, wandb: WandbMode) -> None:
        self.run = run
        (run / "samples").mkdir(exist_ok=True)
        self._metrics = run / "metrics.jsonl"
        self._doctor = Doctor(_keep_until(self._metrics, first_step), {**config, "steps": steps})
        self.console = Console()
        self._wandb = None if wandb == "disabled" else WandbLog(run, config, wandb, self.say)
        self._unwritten: list[str] = []
        self._last_line = 0.0
        self._progress = Progress(
            TextColumn(f"{run.name}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[metrics]}"),
            TextColumn("{task.fields[cost]}"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._task = self._progress.add_task("train", total=steps, completed=first_step, metrics="", cost="")
        self._progress.start()

    def log(self, step: int, metrics: Mapping[str, float | str], important: bool = False) -> None:
        """Record metrics after ``step`` steps; ``important`` ones (validation) always get a console line.

        A metric in words (an alarm, a warning) gets a line of its own, always.
        """
        words = {name: value for name, value in metrics.items() if isinstance(value, str)}
        numbers = {name: float(value) for name, value in metrics.items() if name not in words}
        self._write({"step": step, **numbers, **words})
        if self._wandb is not None:
            self._wandb.log(step, {**numbers, **words})
        for name, sentence in words.items():
            self.say(f"step {step}  {name}: {sentence}", "bold red" if name == "unsaved" else "yellow")
        for diagnosis in self._doctor.see({"step": step, **numbers, **words}):
            told = f"step {step}  doctor: {diagnosis.name}: {diagnosis.sentence}"
            self.say(told, "bold yellow")
        text = "  ".join(f"{name.split('/')[-1]} {value:.4g}" for name, value in numbers.items() if _worth_a_look(name))
        self._progress.update(self._task, completed=step, metrics=_within(numbers, 60))
        if cost := _cost(numbers):
            self._progress.update(self._task, cost=cost)
        silent = not self.console.is_terminal and time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES
        if text and (important or silent):
            self._last_line = time.monotonic()
            self.console.print(f"step {step}  {text}", highlight=False, soft_wrap=True)

    def media(self, step: int, name: str, path: Path) -> None:
        """Show wandb a picture (.png) or video that was written to ``samples/``."""
        if self._wandb is not None:
            self._wandb.media(step, name, path)

    def say(self, words: str, style: str | None = None) -> None:
        """Tell something in the console alone."""
        self.console.print(words, style=style, markup=False, highlight=False, soft_wrap=True)

    def _write(self, record: Record) -> None:
        """Add a line to ``metrics.jsonl``; while the disk is full lines wait in memory, and the run goes on."""
        self._unwritten.append(json.dumps(record) + "\n")
        size = self._metrics.stat().st_size if self._metrics.exists() else 0
        try:
            with self._metrics.open("a") as file:
                file.write("".join(self._unwritten))
        except OSError as error:
            with suppress(OSError):
                os.truncate(self._metrics, size)  # half a line would spoil the next
            if len(self._unwritten) == 1:
                words = (
                    f"step {record['step']}  cannot write {self._metrics} ({error}), the training goes on; free space"
                )
                self.say(words, "bold red")
            return
        self._unwritten.clear()

    def sync(self) -> None:
        """Bring the log to the disk: after a power cut a checkpoint finds the lines of all steps before it."""
        with suppress(OSError), self._metrics.open("rb+") as file:
            os.fsync(file.fileno())

    def close(self) -> None:
        """End the progress bar and the wandb run."""
        self._progress.stop()
        if self._wandb is not None:
            self._wandb.close()


def _keep_until(metrics: Path, step: int) -> list[Record]:
    """Drop the lines after ``step``: steps a killed attempt logged but never saved; return those that stay."""
    if not metrics.exists():
        return []
    kept = [record for record in read_records(metrics) if record["step"] <= step and step > 0]
    temporary = metrics.with_suffix(f".tmp-{os.getpid()}")
    temporary.write_text("".join(json.dumps(record) + "\n" for record in kept))
    os.replace(temporary, metrics)
    return kept


def _worth_a_look(name: str) -> bool:
    """Whether a metric is for a person's eyes; the doctor alone looks at the others."""
    told = ("data/exposures_per_clip", "data/exposures_per_video")
    return name in told or not name.startswith(("data/", "tokenizer/", "sampled/parts/"))


def _within(numbers: Mapping[str, float], width: int) -> str:
    """Losses and judgements for the progress bar, as many as fit: whole ones, in the order in which they came."""
    text = ""
    for name, value in numbers.items():
        part = f"{name.split('/')[-1]} {value:.4g}"
        if name.startswith(("train/", "val/")) and len(text) + 2 + len(part) <= width:
            text += ("  " if text else "") + part
    return text


def _cost(numbers: Mapping[str, float]) -> str:
    """Throughput and memory for the progress bar, as far as a record has them."""
    parts = [f"{value:.4g} {name.split('/')[1][:-6]}/s" for name, value in numbers.items() if name.endswith("_per_s")]
    if "memory/peak_mb" in numbers:
        parts.append(f"{numbers['memory/peak_mb'] / 1024:.1f} GiB")
    return "  ".join(parts)
