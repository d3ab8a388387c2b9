"""From what was measured to a plan: how many steps, how long, how much memory. Arithmetic alone.

It rests on the seconds of a step, and on the rules of thumb below, all in this file; what to train is chosen by them in
:mod:`.plan_choice`. tools/plan.py measures, and says the plan in words.
"""

import math
from dataclasses import dataclass, replace

from tokenreel.training.exposure_advice import LEVELS
from tokenreel.training.plan_costs import GPTOption, StageCost, TokenizerOption, VideoFacts

SAFE_EXPOSURES, MOST_EXPOSURES, _ = LEVELS
"""Times that a video may be seen through: with nothing to fear; with dropout, and an eye on validation."""
TOKENIZER_SHARE = 0.3
"""Of all hours for the tokenizer; what it does not need goes to the GPT."""
LEAST_STEPS = 100
"""Of either training; with fewer nothing is learned."""
WORTH_STEPS, MOST_STEPS = 5_000, 20_000
"""Steps that a larger tokenizer must be given to be worth it; steps after which a tokenizer is as good as done."""
TOKENS_PER_PARAMETER = 10
"""Tokens, each counted at most SAFE_EXPOSURES times, that a GPT must see per parameter to be worth its size. Text
models are at their best at about 20 different ones (Hoffmann et al., 2022); tokens of video say less, but repeat."""
PAUSES = 0.1
"""Share of a training that may go into validation and saving, and is kept free in a survey."""
VALIDATIONS = 20
DROPOUT = 0.1
USUAL_HOP, MOST_TOKENIZING = 4, 0.1
"""Frames between the clips of a GPT, at the least; share of all hours that tokenizing may take before there are fewer
clips."""
MEMORY_SHARE = 0.9
"""Of the memory that may be planned with."""


@dataclass(frozen=True)
class Choice:
    """What is to be trained, before anything is said of how long."""

    tokenizer: TokenizerOption
    gpt: GPTOption
    clip_frames: int
    hop: int
    """Frames between the starts of the GPT's clips."""
    dropout: float
    """Of the GPT."""
    tokenizer_parts: int = 1
    """In which the clips of a step go through the model, so that they fit."""
    gpt_parts: int = 1
    gpt_compiled: bool = False


@dataclass(frozen=True)
class StagePlan:
    """One training of a plan."""

    steps: int
    every: int
    """Steps between validations, and between checkpoints."""
    seconds: float
    peak_bytes: float
    through: float
    """Times that each video will have been seen through."""
    per_video: float
    """Clips drawn from each video."""
    per_clip: float
    """Times that each clip is drawn."""


@dataclass(frozen=True)
class Plan:
    """Both trainings and what lies between."""

    choice: Choice
    tokenizer: StagePlan
    gpt: StagePlan
    clips: int
    """To be tokenized, of training and validation videos."""
    tokenizing_seconds: float

    @property
    def seconds(self) -> float:
        """From the first command to the end of the last training."""
        return self.tokenizer.seconds + self.tokenizing_seconds + self.gpt.seconds

    @property
    def peak_bytes(self) -> float:
        """Of the stage that needs most."""
        return max(self.tokenizer.peak_bytes, self.gpt.peak_bytes)


def window(facts: VideoFacts, stride: int, most: int) -> int:
    """Frames per clip: ``most``, or fewer, where videos are too short for it.

    Args:
        facts: Of the videos.
        stride: Frames of a latent frame; the window is a multiple of it.
        most: To begin with.

    Raises:
        ValueError: If no training video is as long as two latent frames.
    """
    for frames in range(most // stride * stride, stride, -stride):
        if facts.frames(frames) >= 0.9 * facts.frames(2 * stride) > 0:
            return frames
    raise ValueError(
        f"the longest training video has {max(facts.lengths)} frames, expected at least {2 * stride}; use a higher "
        "--fps, or longer videos"
    )


def plan_lengths(
    facts: VideoFacts,
    choice: Choice,
    tokenizer: StageCost,
    gpt: StageCost,
    seconds_per_clip: float,
    hours: float,
    maps: float = 0.0,
) -> Plan:
    """How long each stage of a choice takes.

    Args:
        facts: Of the videos.
        choice: What is trained.
        tokenizer: Cost of its training.
        gpt: Cost of its training.
        seconds_per_clip: To tokenize.
        hours: For everything.
        maps: Bytes of videos that the tokenizer's training maps into its memory, on a machine that counts them; the
            system takes them back when it needs them.

    Raises:
        ValueError: If there is no time for either training.
    """
    first = _stage(
        facts, choice, tokenizer, choice.tokenizer.batch_size, hours * 3600 * TOKENIZER_SHARE, hours, 1, MOST_STEPS
    )
    first = replace(first, peak_bytes=first.peak_bytes + maps * min(1.0, first.through))
    clips = facts.clips(choice.clip_frames, choice.hop) + facts.held_out_clips(choice.clip_frames, choice.hop)
    tokenizing = tokenizer.start_seconds + clips * seconds_per_clip
    left = hours * 3600 - first.seconds - tokenizing
    second = _stage(facts, choice, gpt, choice.gpt.batch_size, left, hours, choice.hop, 10**9)
    return Plan(choice, first, second, clips, tokenizing)


def _stage(
    facts: VideoFacts,
    choice: Choice,
    cost: StageCost,
    batch_size: int,
    seconds: float,
    hours: float,
    hop: int,
    most: int,
) -> StagePlan:
    """A training that ends when its ``seconds`` of all hours are over, or when videos were seen often enough."""
    frames, clips = facts.frames(choice.clip_frames), facts.clips(choice.clip_frames, hop)
    often = SAFE_EXPOSURES if hop > 1 and not choice.dropout else MOST_EXPOSURES
    enough = max(LEAST_STEPS, math.ceil(often * frames / (batch_size * choice.clip_frames)))
    validations = _validations(seconds, cost.pause_seconds)
    steps = min(most, enough, rounded(cost.steps_in(seconds, validations)))
    if steps < LEAST_STEPS:
        raise _too_short(cost.seconds(LEAST_STEPS, 2), seconds, hours)
    validations = min(validations, _validations(steps * cost.seconds_per_step, cost.pause_seconds))
    every = math.ceil(steps / validations)
    drawn = steps * batch_size
    return StagePlan(
        steps,
        every,
        cost.seconds(steps, math.ceil(steps / every)),
        cost.peak_bytes,
        drawn * choice.clip_frames / frames,
        drawn / facts.videos(choice.clip_frames),
        drawn / clips,
    )


def _too_short(needed: float, seconds: float, hours: float) -> ValueError:
    """Less time than the fewest steps take: hours that would do grow as the share of a training must."""
    enough = hours * 1.05 * needed / seconds if seconds > 0 else 2 * hours
    return ValueError(
        f"hours {hours:g}: {LEAST_STEPS} steps of one of the trainings take {needed / 60:.3g} minutes, and "
        f"{max(0.0, seconds) / 60:.3g} are left for them, expected more; use --hours {rounded_up(enough)}, a smaller "
        "--size or a faster machine"
    )


def _validations(seconds: float, pause: float) -> int:
    """As many as fit into the share of the time that is theirs."""
    return max(2, min(VALIDATIONS, int(PAUSES * seconds / max(pause, 1e-9))))


def rounded(number: int) -> int:
    """A whole number with at most three digits that are not 0, not larger."""
    unit = 10 ** max(0, len(str(max(1, number))) - 3)
    return number // unit * unit


def rounded_up(hours: float) -> str:
    """Hours with two digits, not fewer."""
    unit = 10.0 ** (math.floor(math.log10(hours)) - 1)
    return f"{math.ceil(hours / unit) * unit:.2g}"
