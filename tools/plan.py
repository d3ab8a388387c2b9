"""Plan trainings for your videos, your hours and your machine: what to train, how long, and what comes of it.

    python tools/plan.py --data my/videos --hours 6
    python tools/plan.py --data my/videos --hours 6 --device cuda --memory 24GB
    python tools/plan.py --data my/videos --hours 1 --seconds 60      # measure for less long, so less surely

Looks at the videos (every one is decoded once, as for training), takes a few steps of the models that come into
question, chooses grid, models and steps by the rules in training/planning.py, then rehearses both trainings as the
plan has them. Prints the commands to run, how often each video will be seen, seconds, memory, and what to change for
more. plan.json says the same to programs. Measuring takes about --seconds, decoding the videos not counted; while it
measures, nothing else should run.
"""

import json
import math
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tokenreel.datasets.atomic_file import atomic_file
from tokenreel.datasets.clip_store import ClipStore
from tokenreel.datasets.data_source import DataSettings, open_data
from tokenreel.datasets.store_sample import write_store_sample
from tokenreel.tokenizer import PRESETS
from tokenreel.tools.plan_rehearsal import (
    GPTCost,
    TokenizerCost,
    rehearse_gpt,
    rehearse_tokenizer,
    shortened,
)
from tokenreel.tools.plan_survey import CLIPS, GPTS, TOKENIZERS, TOKENS, Found, Survey, survey
from tokenreel.tools.plan_words import gpt_config, report, tokenizer_config, what_for_more
from tokenreel.training.command_line import run_tool
from tokenreel.training.hardware import DeviceName, compiles, describe_hardware, pick_device
from tokenreel.training.machine import busy_words, free_memory, read_memory
from tokenreel.training.own_process import in_own_process
from tokenreel.training.plan_choice import choose
from tokenreel.training.plan_costs import StageCost, VideoFacts
from tokenreel.training.planning import (
    MEMORY_SHARE,
    PAUSES,
    TOKENIZER_SHARE,
    WORTH_STEPS,
    Choice,
    Plan,
    plan_lengths,
    window,
)
from tokenreel.training.run_folder import check_writable
from tokenreel.transformer import VideoGPT

USUAL_WINDOW = 16
SAMPLE_FRAMES = 1100
"""Of each split, in the small clip store that is measured on: as many clips as a validation of a GPT takes."""
SAMPLE_AT_ONCE = 64
FEWEST_STEPS, MOST_STEPS = 6, 40
"""Of a rehearsal."""
SURVEY_SHARE, REHEARSAL_SHARE = 0.25, 0.15
"""Of --seconds: until when a survey begins with another model; for the steps of each rehearsal."""
LOG = "output.txt"


@dataclass(frozen=True, kw_only=True)
class Config(DataSettings):
    """What to plan for."""

    hours: float = 6.0
    """For everything from the first command to the end of the last training."""
    device: DeviceName = "auto"
    """Where to train; it is measured here."""
    memory: str = ""
    """That may be used, such as 24GB; default: what the GPU has, or what is free on this machine."""
    clip_frames: int = 0
    """Frames per clip; 0: 16, or fewer for short videos."""
    stride: tuple[int, int, int] | None = None
    """Of the tokenizer (time, height, width); default: chosen between two."""
    out: Path = Path("runs/plan")
    """Folder for plan.json, and for the runs of the commands that are printed."""
    seconds: float = 150.0
    """To measure for, about; with less, fewer models are tried, and for fewer steps."""

    def __post_init__(self) -> None:
        for name in ("hours", "seconds"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} {getattr(self, name)}: expected more than 0, such as 6 hours or 150 seconds")
        if self.clip_frames < 0:
            raise ValueError(f"clip_frames {self.clip_frames}: expected 0 (chosen) or a number of frames")
        if self.more_sizes:
            raise ValueError(
                f"more_sizes {' '.join(self.more_sizes)}: a plan is for frames of one size, expected none; plan with "
                "the size that most videos have (--size, --width)"
            )
        if self.memory:
            read_memory(self.memory)


def plan(config: Config) -> Plan:
    """Measure, plan, and say it.

    Raises:
        ValueError: If nothing fits the videos, the hours or the memory; it says what would.
    """
    device = pick_device(config.device)
    config = replace(config, device=device.type)  # type: ignore[arg-type]
    memory = read_memory(config.memory) if config.memory else free_memory(device)
    check_writable(config.out)
    store = open_data(config)
    facts = video_facts(store)
    strides = (config.stride,) if config.stride else usual_strides(facts.height, facts.width)
    clip_frames = config.clip_frames or window(facts, strides[0][0], USUAL_WINDOW)
    for stride in strides:
        replace(PRESETS["tiny"], stride=stride).grid(clip_frames, facts.height, facts.width)
    begin = time.monotonic()
    print(f"measuring on {describe_hardware(device)}, for about {config.seconds:.0f} seconds", flush=True)
    if words := busy_words():
        print(words)
    with TemporaryDirectory(dir=config.out, prefix=".measured-") as folder:
        sample = write_store_sample(store, Path(folder) / "clips", SAMPLE_FRAMES, SAMPLE_AT_ONCE, clip_frames)
        found = _surveyed(config, sample.path, strides, clip_frames)
        choice = choose(facts, found.tokenizers, found.gpts, clip_frames, config.hours, memory)
        choice, first, second = _rehearsed(config, facts, choice, memory, Path(folder))
    maps = facts.bytes if device.type == "cpu" else 0
    made = plan_lengths(facts, choice, first.stage, second.stage, first.seconds_per_clip, config.hours, maps)
    more = what_for_more(facts, found, made, config.hours, memory)
    told = report(config, store, facts, made, second.seconds_per_sample, more)
    content = {
        **asdict(made),
        "hours_asked": config.hours,
        "hours": made.seconds / 3600,
        "peak_memory_mb": made.peak_bytes / 2**20,
        "seconds_per_sample": second.seconds_per_sample,
        "hardware": describe_hardware(device),
        "videos": asdict(replace(facts, lengths=(), held_out=())) | {"fingerprint": store.fingerprint},
        "measured": {"tokenizer": asdict(first.stage), "gpt": asdict(second.stage), "survey": asdict(found)},
        **told,
        "measuring_seconds": time.monotonic() - begin,
    }
    with atomic_file(config.out / "plan.json") as file:
        file.write((json.dumps(_finite(content), indent=1, allow_nan=False) + "\n").encode())
    print(f"plan in {config.out / 'plan.json'}")
    return made


def video_facts(store: ClipStore) -> VideoFacts:
    """What a plan needs to know of videos."""
    train = store.split("train")
    if not train:
        raise ValueError(f"{store.path} has no training videos, expected some in a folder train, or in no split")
    first = train[0]
    return VideoFacts(
        tuple(record.frames for record in train),
        tuple(record.frames for record in store.split("val")),
        first.height,
        first.width,
        first.fps,
        sum(record.bytes for record in train),
    )


def usual_strides(height: int, width: int) -> tuple[tuple[int, int, int], ...]:
    """The two grids worth a look, the coarser first: about 8 and about 16 places along the shorter side."""
    steps = []
    for places in (8, 16):
        step = 2 ** max(1, min(5, round(math.log2(min(height, width) / places))))
        while height % step or width % step:
            step //= 2
        steps.append(step)
    return tuple((4, step, step) for step in dict.fromkeys(steps))


def _surveyed(config: Config, sample: Path, strides: tuple[tuple[int, int, int], ...], clip_frames: int) -> Found:
    """Seconds and memory of the models in question."""
    hours = config.hours * 3600 * (1 - PAUSES)
    job = Survey(
        sample, clip_frames, strides, config.device, hours * TOKENIZER_SHARE, hours * (1 - TOKENIZER_SHARE),
        WORTH_STEPS, config.seconds * SURVEY_SHARE, TOKENIZERS, GPTS, CLIPS[config.device], TOKENS[config.device],
    )  # fmt: skip
    try:
        found = in_own_process(sample.parent / LOG, survey, job)
    except MemoryError as error:
        raise ValueError(
            f"measuring ended for want of memory ({error}), expected enough for the models in question; use a smaller "
            "--size, fewer --clip-frames, a larger --stride, or fewer --hours, which have smaller models"
        ) from None
    for option in found.options:
        fits = math.isfinite(option.peak_bytes)
        print(f"  {option.name}: " + (f"{option.seconds_per_step:.3g} s a step" if fits else "not one clip fits"))
    return found


def _rehearsed(
    config: Config, facts: VideoFacts, choice: Choice, memory: float, folder: Path
) -> tuple[Choice, TokenizerCost, GPTCost]:
    """Both trainings of a choice, some steps long; in more parts where they need more memory than there is."""
    source = DataSettings(
        data=folder / "clips",
        size=config.size,
        width=config.width,
        fps=config.fps,
        cache=folder,
        decoder=config.decoder,
    )
    lengths = partial(plan_lengths, facts, seconds_per_clip=0.0, hours=config.hours)
    guess = lengths(choice, StageCost(choice.tokenizer.seconds_per_step), StageCost(choice.gpt.seconds_per_step))
    # What is rehearsed is what the commands say, however many steps it is in the end; near the edge it gains little.
    choice = replace(choice, gpt_compiled=compiles("auto", guess.gpt.steps // 2, VideoGPT))  # type: ignore[arg-type]
    guess, tokens = replace(guess, choice=choice), folder / "tokens"
    while True:
        wanted = replace(tokenizer_config(guess, config), **vars(source))
        run = folder / f"tokenizer_{choice.tokenizer_parts}"
        job = shortened(wanted, run, _steps(config, choice.tokenizer.seconds_per_step))
        first = _cost(folder, rehearse_tokenizer, job, tokens / run.name, choice.hop)
        if first is not None and first.stage.peak_bytes <= MEMORY_SHARE * memory:
            break
        choice = replace(
            choice, tokenizer_parts=_more_parts(choice.tokenizer.batch_size, choice.tokenizer_parts, memory)
        )
        guess = replace(guess, choice=choice)
    shards = tokens / run.name
    while True:
        wanted_gpt = replace(gpt_config(guess, config), shards=str(shards))
        job_gpt = shortened(wanted_gpt, folder / f"gpt_{choice.gpt_parts}", _steps(config, choice.gpt.seconds_per_step))
        second = _cost(folder, rehearse_gpt, job_gpt)
        if second is not None and second.stage.peak_bytes <= MEMORY_SHARE * memory:
            return choice, first, second
        choice = replace(choice, gpt_parts=_more_parts(choice.gpt.batch_size, choice.gpt_parts, memory))
        guess = replace(guess, choice=choice)


def _cost(folder: Path, rehearsal: Any, *arguments: Any) -> Any:
    """What a rehearsal found, or None if it died of too little memory."""
    try:
        return in_own_process(folder / LOG, rehearsal, *arguments, time.time())
    except MemoryError as error:
        print(f"  a rehearsal ended for want of memory ({error}): again, with the clips of a step in more parts")
        return None


def _more_parts(batch_size: int, parts: int, memory: float) -> int:
    """The next number of equal parts of a batch."""
    for more in range(parts + 1, batch_size + 1):
        if batch_size % more == 0:
            return more
    raise ValueError(
        f"memory {memory / 2**30:.3g}GB: a rehearsal needs more even clip by clip; use a machine with more memory, a "
        "smaller --size or fewer --clip-frames"
    )


def _steps(config: Config, seconds_per_step: float) -> int:
    """Of a rehearsal."""
    return max(FEWEST_STEPS, min(MOST_STEPS, int(config.seconds * REHEARSAL_SHARE / seconds_per_step)))


def _finite(content: Any) -> Any:
    """The same for JSON, which has no infinity: null in its place."""
    if isinstance(content, dict):
        return {name: _finite(part) for name, part in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(part) for part in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    run_tool(plan, Config, argv, description=__doc__)


if __name__ == "__main__":
    main()
