"""What to train: the finest grid, the largest tokenizer and the largest GPT that hours, videos and memory are worth."""

import math
from collections.abc import Sequence

from tokenreel.training.plan_costs import GPTOption, Option, TokenizerOption, VideoFacts, parts_needed
from tokenreel.training.planning import (
    DROPOUT,
    LEAST_STEPS,
    MEMORY_SHARE,
    MOST_TOKENIZING,
    PAUSES,
    SAFE_EXPOSURES,
    TOKENIZER_SHARE,
    TOKENS_PER_PARAMETER,
    USUAL_HOP,
    WORTH_STEPS,
    Choice,
    rounded_up,
)


def choose(
    facts: VideoFacts,
    all_tokenizers: Sequence[TokenizerOption],
    all_gpts: Sequence[GPTOption],
    clip_frames: int,
    hours: float,
    memory: float,
) -> Choice:
    """The finest grid, the largest tokenizer and the largest GPT that the hours, the data and the memory are worth.

    Args:
        facts: Of the videos.
        all_tokenizers: Measured ones.
        all_gpts: Measured ones, each for the grid of a stride.
        clip_frames: Frames per clip.
        hours: For everything.
        memory: Bytes that may be used.

    Raises:
        ValueError: If not even the smallest fits; it names what would.
    """
    tokenizers = [option for option in all_tokenizers if parts_needed(option, MEMORY_SHARE * memory)]
    gpts = [option for option in all_gpts if parts_needed(option, MEMORY_SHARE * memory)]
    strides = {option.stride for option in tokenizers} & {option.stride for option in gpts}
    if not strides:
        raise _too_little(memory, _least_bytes(all_tokenizers, all_gpts))
    seconds = hours * 3600 * (1 - PAUSES)
    for stride in sorted(strides, key=math.prod):  # the finest first
        tokenizer = _tokenizer([option for option in tokenizers if option.stride == stride], seconds)
        gpt = _gpt(facts, [option for option in gpts if option.stride == stride], clip_frames, seconds)
        if _worth_it(facts, tokenizer, gpt, clip_frames, seconds):
            break
    needed = LEAST_STEPS * max(tokenizer.seconds_per_step / TOKENIZER_SHARE, gpt.seconds_per_step / _gpt_share())
    if needed > seconds:
        raise ValueError(
            f"hours {hours:g}: {LEAST_STEPS} steps of the smallest models take {needed / 3600:.2g} here, expected at "
            f"least that; use --hours {rounded_up(needed / 3600 / (1 - PAUSES))}, a smaller --size or a faster machine"
        )
    drawn = seconds * _gpt_share() / gpt.seconds_per_step * gpt.batch_size
    through = drawn * clip_frames / facts.frames(clip_frames)
    return Choice(
        tokenizer,
        gpt,
        clip_frames,
        hop_for(facts, clip_frames, drawn),
        DROPOUT if through > SAFE_EXPOSURES else 0.0,
        tokenizer_parts=parts_needed(tokenizer, MEMORY_SHARE * memory) or tokenizer.batch_size,
        gpt_parts=parts_needed(gpt, MEMORY_SHARE * memory) or gpt.batch_size,
    )


def hop_for(facts: VideoFacts, clip_frames: int, drawn: float) -> int:
    """Frames between clips: the usual, or more where there would be more clips than are ever drawn."""
    hop, longest = USUAL_HOP, max(facts.lengths)
    while hop < longest and facts.clips(clip_frames, hop) > drawn:
        hop *= 2
    return hop


def _tokenizer(options: list[TokenizerOption], seconds: float) -> TokenizerOption:
    """The largest one that gets steps enough; the smallest if none does."""
    by_size = sorted(options, key=lambda option: option.parameters)
    worth = [o for o in by_size if seconds * TOKENIZER_SHARE / o.seconds_per_step >= WORTH_STEPS]
    return [by_size[0], *worth][-1]


def _gpt(facts: VideoFacts, options: list[GPTOption], clip_frames: int, seconds: float) -> GPTOption:
    """The largest one that sees tokens enough; the smallest if none does."""
    by_size = sorted(options, key=lambda option: option.parameters)
    worth = []
    for option in by_size:
        different = option.tokens_per_clip * facts.frames(clip_frames) / clip_frames
        seen = min(_tokens(option, seconds), SAFE_EXPOSURES * different)
        if seen >= TOKENS_PER_PARAMETER * option.parameters:
            worth.append(option)
    return [by_size[0], *worth][-1]


def _tokens(option: GPTOption, seconds: float) -> float:
    """That a GPT sees in its share of the time."""
    return seconds * _gpt_share() / option.seconds_per_step * option.batch_size * option.tokens_per_clip


def _worth_it(facts: VideoFacts, tokenizer: TokenizerOption, gpt: GPTOption, clip_frames: int, seconds: float) -> bool:
    """Whether a grid leaves time for both trainings: tokens enough for the GPT, or all that the data has."""
    different = gpt.tokens_per_clip * facts.frames(clip_frames) / clip_frames
    wanted = min(SAFE_EXPOSURES * different, TOKENS_PER_PARAMETER * gpt.parameters)
    steps = seconds * TOKENIZER_SHARE / tokenizer.seconds_per_step
    return _tokens(gpt, seconds) >= wanted and steps >= WORTH_STEPS / 2


def _gpt_share() -> float:
    return 1 - TOKENIZER_SHARE - MOST_TOKENIZING


def _least_bytes(tokenizers: Sequence[TokenizerOption], gpts: Sequence[GPTOption]) -> float:
    """That a training of the smallest models needs, one clip at a time."""
    options: tuple[Sequence[Option], Sequence[Option]] = (tokenizers, gpts)
    return max(min(o.fixed_bytes + (o.peak_bytes - o.fixed_bytes) / o.batch_size for o in kind) for kind in options)


def _too_little(memory: float, needed: float) -> ValueError:
    """Nothing fits."""
    if math.isinf(needed):
        return ValueError(
            f"memory {memory / 2**30:.4g}GB: the smallest models need more than this device has, even clip by clip; "
            "use a machine with more memory, a smaller --size or fewer --clip-frames"
        )
    return ValueError(
        f"memory {memory / 2**30:.4g}GB: the smallest models need {needed / 2**30:.2g} GB even clip by clip, expected "
        f"{needed / MEMORY_SHARE / 2**30:.2g} GB or more; use a machine with more memory, or a smaller --size"
    )
