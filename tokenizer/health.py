"""Whether a codebook has collapsed, in words that name the setting to change."""

import math

from tokenreel.tokenizer.config import TokenizerConfig
from tokenreel.tokenizer.usage import CodebookUsage

GRACE_STEPS = 100
LEAST_SHARE_OF_BITS = 0.2
"""Of the bits that indices could carry. Balls and a paddle before a black ground carry 0.28 to 0.4, films more."""
LEAST_SHARE_OF_CODES, LEAST_SHARE_OF_VQ_CODES = 0.05, 0.2
"""Of the codes that could have been used. Balls use all of 625, though nearly all seldom; the world paddle uses 58."""


def codebook_alarm(config: TokenizerConfig, usage: CodebookUsage, step: int) -> str | None:
    """What to say about a codebook of which hardly anything is used, or None if there is nothing to say.

    A codebook has collapsed when few of its codes are used and those few carry little. Neither alone tells: with
    all codes in use most positions may show the same background, and large FSQ codebooks are never used up. A
    learned codebook (VQ) is judged by its codes alone: unused ones are put where features are, so most must be used.

    Args:
        config: Of the tokenizer that trains.
        usage: Its indices over the last batches.
        step: Steps taken so far; nothing is said in the first 100, nor before the window of ``usage`` is full.
    """
    if step < GRACE_STEPS or not usage.is_full:
        return None
    used, perplexity, reachable = usage.codebook_size - usage.dead_codes, usage.perplexity, usage.reachable
    if config.quantizer == "vq":
        collapsed = used < LEAST_SHARE_OF_VQ_CODES * reachable
    else:
        carries_little = math.log(perplexity) < LEAST_SHARE_OF_BITS * math.log(reachable)
        collapsed = carries_little and used < LEAST_SHARE_OF_CODES * reachable
    if not collapsed:
        return None
    return (
        f"codebook collapsed: {used} of {usage.codebook_size} codes used in the last {usage.window} steps, "
        f"perplexity {perplexity:.1f}; {_remedy(config)}; if that does not help look at the clips: constant ones, and "
        "values outside [-1, 1], leave nothing to tell apart"
    )


def _remedy(config: TokenizerConfig) -> str:
    if config.quantizer == "fsq":
        return f"lower --lr, or use fewer --model.levels (now {' '.join(map(str, config.levels))})"
    if config.quantizer in ("bsq", "lfq"):
        return f"raise --model.entropy-weight (now {config.entropy_weight:g})"
    if config.vq_decay < 0.9:
        return f"raise --model.vq-decay (now {config.vq_decay:g}) to 0.99"
    return (
        f"lower --lr or --model.vq-decay (now {config.vq_decay:g}), so that the codebook can follow the encoder, or "
        f"--model.vq-codebook-size (now {config.vq_codebook_size})"
    )
