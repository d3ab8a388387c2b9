"""What tools/plan.py foretells beside what then happens: seconds and memory of every stage.

    python benchmarks/planning.py --out benchmarks/results/planning.json           # two plans, about 25 minutes
    python benchmarks/planning.py --data my/videos --hours 0.5 --device cuda       # a plan of one's own

Each case is planned in a process of its own, and then trained by the very commands that the plan prints. Both need a
machine that is equally busy in both halves, at best with nothing else; the load is noted.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from report import report, row

from tokenreel.datasets.world_states import WORLD_FILE
from tokenreel.training.hardware import pick_device

TOOLS = Path(__file__).resolve().parents[1] / "tools"
CASES = {
    "paddle": ("paddle, 32 px, clips of 8", ("--size", "32", "--clip-frames", "8")),
    "balls": ("balls, 64 px, clips of 16", ("--size", "64")),
}
"""By world: what a case is called, and options of its plan."""
STAGES = ("tokenizer", "tokens", "gpt")


def call(*words: str) -> float:
    """Run a command quietly; returns its seconds."""
    begin = time.monotonic()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - begin


def world(name: str, folder: Path) -> Path:
    """The videos of an embedded world, made where they are missing."""
    if not (folder / WORLD_FILE).exists():
        call(sys.executable, str(TOOLS / "make_world.py"), name, "--out", str(folder), "--count", "200")
    return folder


def measure(case: str, data: Path, options: tuple[str, ...], home: Path, chosen: Any) -> list[dict[str, Any]]:
    """Plan a case, train it, and put both side by side."""
    shared: tuple[str, ...] = (
        "--data",
        str(data),
        "--hours",
        str(chosen.hours),
        "--device",
        chosen.device,
        "--out",
        str(home),
    )
    shared += ("--cache", str(chosen.folder / "clips"), "--seconds", str(chosen.seconds))
    planning = call(sys.executable, str(TOOLS / "plan.py"), *shared, *options)
    plan = json.loads((home / "plan.json").read_text())
    print(f"{case}: planned in {planning:.0f} s", flush=True)
    took = {}
    for stage, line in zip(STAGES, plan["commands"], strict=False):
        words = [sys.executable if word == "python" else word for word in shlex.split(line)]
        took[stage] = call(*words, *(() if stage == "tokens" else ("--wandb", "disabled")))
        print(f"{case}: {stage} took {took[stage]:.0f} s", flush=True)
    foretold = {"tokenizer": plan["tokenizer"]["seconds"], "tokens": plan["tokenizing_seconds"]}
    foretold["gpt"] = plan["gpt"]["seconds"]
    rows = [row(case, f"{stage}: seconds", "s", took[stage], foretold[stage]) for stage in STAGES]
    rows.append(row(case, "all stages: seconds", "s", sum(took.values()), sum(foretold.values()), chosen.hours * 3600))
    for stage in ("tokenizer", "gpt"):
        found = json.loads((home / stage / "model" / "provenance.json").read_text())["peak_memory_mb"]
        rows.append(row(case, f"{stage}: peak memory", "MiB", found, plan[stage]["peak_bytes"] / 2**20))
    for figure in rows:
        figure["foretold_over_found"] = figure["alternative"] / figure["ours"]
    return [*rows, row(case, "planning itself", "s", planning, None, chosen.seconds)]


def main() -> None:
    """Measure the cases and report them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/planning.json"), help="JSON file")
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmarks/planning"), help="for all that is made")
    parser.add_argument("--data", type=Path, help="videos of one's own in place of the two cases")
    parser.add_argument("--worlds", nargs="+", choices=tuple(CASES), default=tuple(CASES), help="cases to measure")
    parser.add_argument("--hours", type=float, default=0.13, help="of each plan")
    parser.add_argument("--seconds", type=float, default=150.0, help="for measuring, of each plan")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="cpu")
    chosen = parser.parse_args()
    chosen.device = pick_device(chosen.device).type
    load, rows = os.getloadavg(), []
    if chosen.data:
        rows = measure(chosen.data.name, chosen.data, (), chosen.folder / time.strftime("%H%M%S"), chosen)
    else:
        for name in chosen.worlds:
            case, options = CASES[name]
            home = chosen.folder / f"{name}_{time.strftime('%H%M%S')}"
            rows += measure(case, world(name, chosen.folder / name), options, home, chosen)
    note = (
        f"Ours: what happened; alternative: what tools/plan.py had foretold; limit: the hours asked for. Load average "
        f"at the start {load[0]:.1f}, at the end {os.getloadavg()[0]:.1f}, of {os.cpu_count()} cores."
    )
    report(rows, chosen.out, note)


if __name__ == "__main__":
    main()
