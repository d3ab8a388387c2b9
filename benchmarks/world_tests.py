"""Does a model obey the world that it was trained on? All tests of that world, in long clips with many bounces.

    python benchmarks/world_tests.py --model runs/demo/gpt --frames 64 --out runs/benchmarks/world_tests.json

New clips of the world are continued and judged by the known state. Another model of the same world, whoever made it, is
judged by the same tests from Python: see evaluation/world_tests.py.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report import report, row

from tokenreel.evaluation.world_tests import STILL, TOKENIZER, WORLD, WorldFindings, run_world_test
from tokenreel.generation import VideoModel
from tokenreel.tools.model_clips import through_tokenizer
from tokenreel.tools.world_cases import as_continuation, world_of, world_tests
from tokenreel.training.hardware import keep_freed_memory
from tokenreel.transformer import SamplingSettings
from tokenreel.transformer.pretrained import data_of

MODEL = "model"
NOTE = (
    "{clips} new clips of the world {world} for each test, {frames} frames, {prompt} of them given, window of "
    "{window}; top-p {top_p}. Alternative: a still picture. Limit: the true clips through the tokenizer."
)


def rows(test: str, found: dict[str, WorldFindings]) -> list[dict[str, Any]]:
    """Every figure between its floors, with the interval of ours; and the odds, where there are any."""
    table = []
    for metric, tally in found[MODEL].figures.items():
        floors = [found[name].figures.get(metric) if name in found else None for name in (STILL, TOKENIZER, WORLD)]
        still, tokenizer, world = (None if floor is None else _known(floor.value) for floor in floors)
        table.append(row(test, metric, tally.unit, tally.value, still, tokenizer))
        table[-1] |= {"interval": list(tally.interval()), "cases": int(tally.cases.sum()), "world": world}
    chance = found[MODEL].chance
    if chance is not None:
        for side, interval in chance.intervals.items():
            share = chance.counts[side] / max(1, sum(chance.counts.values()))
            table.append(row(test, f"{side}, expected {chance.expected[side]:g}", "share", share))
            table[-1]["interval"] = list(interval)
    return table


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="GPT of an embedded world")
    parser.add_argument("--world", type=Path, help="folder of that world; default: what it was trained on")
    parser.add_argument("--frames", type=int, default=64, help="length of the clips, a multiple of the stride")
    parser.add_argument("--prompt-frames", type=int, default=8, help="frames given")
    parser.add_argument("--clips", type=int, default=64, help="clips per test")
    parser.add_argument("--top-p", type=float, default=0.9, help="as tools/sample.py")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/world_tests.json"), help="JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    folder = arguments.world or Path(data_of(arguments.model)["folder"])
    world = world_of(folder)
    if world is None:
        parser.error(f"{folder} holds no world.json; name the world with --world")
    model, settings = VideoModel.from_pretrained(arguments.model), SamplingSettings(top_p=arguments.top_p)
    captions = "captions" in model.gpt.config.conditions.kinds
    tests = world_tests(
        world, arguments.frames, arguments.prompt_frames, arguments.clips, model.frame_size[0], captions
    )
    table = []
    for test in tests:
        ours = {MODEL: as_continuation(model, settings)}
        table += rows(test.name, run_world_test(test, ours, lambda clips: through_tokenizer(model, clips)))
    note = NOTE.format(
        clips=arguments.clips,
        world=world["world"],
        frames=arguments.frames,
        prompt=arguments.prompt_frames,
        window=model.window,
        top_p=arguments.top_p,
    )
    report(table, arguments.out, note)


if __name__ == "__main__":
    main()
