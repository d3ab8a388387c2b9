"""Say what is wrong with a training, from its log: in words, with the number and the setting to change.

    python tools/doctor.py runs/mine/tokenizer
    python tools/doctor.py runs/mine/gpt --evaluation runs/mine/evaluation/evaluation.json

Reads metrics.jsonl of a run that goes on, has ended or has failed. What tools/evaluate.py found of a GPT is looked
for in the run folder and in evaluation/ beside it: it tells whether continuations are better than a still picture,
and how long. The trainings say the same in the console as soon as they see it. Exit status 1 if something is wrong.
"""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from tyro.conf import Positional

from tokenreel.training.command_line import run_tool
from tokenreel.training.diagnosis import History
from tokenreel.training.doctor import diagnose
from tokenreel.training.run_records import RunRecords


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which run to look at."""

    run: Positional[Path] = Path("runs/gpt")
    """Folder of the run, a tokenizer's or a GPT's."""
    evaluation: Path | None = None
    """An evaluation.json of the run's model; default: the one in evaluation/ in or beside the run folder."""


def doctor(config: Config) -> None:
    """Print every diagnosis, the gravest first."""
    run = RunRecords.open(config.run, config.evaluation)
    found = diagnose(History(run.records, run.config, run.evaluation))
    console = Console()
    judged = "with its evaluation" if run.evaluation else "without an evaluation (tools/evaluate.py)"
    length = f"{run.records[-1]['step'] if run.records else 0} of {run.config.get('steps', '?')} steps"
    console.print(f"{config.run}: {length}, {len(run.records)} lines of log, {judged}", markup=False, soft_wrap=True)
    for diagnosis in found:
        console.print(diagnosis.name.upper(), style="bold yellow", markup=False)
        console.print(f"  {diagnosis.sentence} [step {diagnosis.step}]", markup=False, highlight=False, soft_wrap=True)
    if not found:
        console.print("nothing is wrong that the log shows")
    raise SystemExit(1 if found else 0)


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    run_tool(doctor, Config, argv, description=__doc__)


if __name__ == "__main__":
    main()
