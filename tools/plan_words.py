"""A plan in words: the commands to type, what to expect, what to change for more (no command of its own)."""

import math
import shlex
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tokenreel.datasets.clip_store import ClipStore
from tokenreel.datasets.data_source import DataSettings
from tokenreel.tokenizer import PRESETS
from tokenreel.tools import train_gpt, train_tokenizer
from tokenreel.tools.plan_survey import Found
from tokenreel.training.command_line import command
from tokenreel.training.plan_choice import choose
from tokenreel.training.plan_costs import VideoFacts
from tokenreel.training.planning import MOST_EXPOSURES, SAFE_EXPOSURES, Plan
from tokenreel.transformer import GPTSize

MEASURED_BITS = 0.2, 1.6
"""Bits per token of GPTs on tokens of FSQ with 625 codes: Atari games and the worlds balls and paddle, trained for 1 to
15 minutes (benchmarks/results: compare_tokenizers_atari, demo, gpt_ablations_positions_paddle)."""
RATES = {256: 3e-3, 512: 2e-3}
"""Learning rates of GPTs up to so wide, as in the presets; wider ones take the last preset's."""
MANY_TIMES = 4
"""Times the hours, to see what they would bring."""


def tokenizer_config(plan: Plan, asked: Any) -> train_tokenizer.Config:
    """The first training of a plan, on the videos that were asked for."""
    choice, length = plan.choice, plan.tokenizer
    recipe = train_tokenizer.TOOL_PRESETS[choice.tokenizer.preset]
    return replace(
        recipe,
        **{name: getattr(asked, name) for name in DataSettings.__dataclass_fields__},
        run=asked.out / "tokenizer",
        device=asked.device,
        clip_frames=choice.clip_frames,
        model=replace(PRESETS[choice.tokenizer.preset], stride=choice.tokenizer.stride),
        batch_size=choice.tokenizer.batch_size,
        accumulate=choice.tokenizer_parts,
        warmup=min(recipe.warmup, length.steps // 10),
        steps=length.steps,
        evaluate_every=length.every,
        checkpoint_every=length.every,
    )


def gpt_config(plan: Plan, asked: Any) -> train_gpt.Config:
    """The second training of a plan."""
    choice, length = plan.choice, plan.gpt
    recipe = train_gpt.TOOL_PRESETS["tiny"]
    return replace(
        recipe,
        shards=str(asked.out / "tokens"),
        run=asked.out / "gpt",
        device=asked.device,
        model=GPTSize(choice.gpt.dim, choice.gpt.depth, choice.dropout),
        lr=next((rate for widest, rate in RATES.items() if choice.gpt.dim <= widest), 1e-3),
        compile="on" if choice.gpt_compiled else "off",
        batch_size=choice.gpt.batch_size,
        accumulate=choice.gpt_parts,
        warmup=min(recipe.warmup, length.steps // 10),
        steps=length.steps,
        evaluate_every=length.every,
        checkpoint_every=length.every,
    )


def commands(plan: Plan, asked: Any, store: ClipStore) -> list[str]:
    """What to type, one stage after the other."""
    first, second = tokenizer_config(plan, asked), gpt_config(plan, asked)
    shared = ("run", "device", "steps", "evaluate_every", "checkpoint_every", "batch_size", "accumulate", "warmup")
    usual = DataSettings()
    data = {"data": store.path} | {
        name: getattr(asked, name) for name in ("size", "width", "fps") if getattr(asked, name) != getattr(usual, name)
    }
    said = {"preset": plan.choice.tokenizer.preset, **data, **{name: getattr(first, name) for name in shared}}
    said |= {"clip_frames": first.clip_frames, "model.stride": first.model.stride, "lr": first.lr}
    said |= {"ema_decay": first.ema_decay}
    gpt = {"shards": second.shards, **{name: getattr(second, name) for name in shared}, "lr": second.lr}
    gpt |= {"model.dim": second.model.dim, "model.depth": second.model.depth, "compile": second.compile}
    gpt |= {"model.dropout": second.model.dropout} if second.model.dropout else {}
    tokenized = {"tokenizer": first.run, "out": second.shards, "hop": plan.choice.hop, "device": first.device}
    sampled = {"prompt_frames": plan.choice.tokenizer.stride[0], "model": second.run}
    return [
        _line("train_tokenizer", said, train_tokenizer.TOOL_PRESETS[plan.choice.tokenizer.preset]),
        _line("tokenize_dataset", tokenized, None),
        _line("train_gpt", gpt, train_gpt.TOOL_PRESETS["tiny"]),
        _line("sample", sampled, None),
    ]


def _line(tool: str, options: Mapping[str, Any], usual: Any) -> str:
    """A command with what is not its default anyway."""
    words = command(tool)
    for name, value in options.items():
        if name not in ("preset", "run") and usual is not None and getattr(usual, name, None) == value:
            continue
        values = value if isinstance(value, tuple) else (value,)
        words += f" --{name.replace('_', '-')} " + " ".join(
            shlex.quote(f"{part:g}" if isinstance(part, float) else str(part)) for part in values
        )
    return words


def report(
    asked: Any, store: ClipStore, facts: VideoFacts, plan: Plan, seconds_per_sample: float, more: list[str]
) -> dict[str, Any]:
    """Print a plan; returns what was said in words, for plan.json."""
    choice, typed = plan.choice, commands(plan, asked, store)
    frames = facts.frames(choice.clip_frames)
    print(
        f"videos: {facts.videos(choice.clip_frames)} of {len(facts.lengths)} are as long as a clip, "
        f"{frames / facts.fps / 3600:.3g} hours, {facts.height} x {facts.width}"
    )
    side = "x".join(str(n) for n in _grid(plan, facts))
    print(
        f"grid: clips of {choice.clip_frames} frames, stride {' '.join(map(str, choice.tokenizer.stride))}: {side}, "
        f"{choice.gpt.tokens_per_clip} tokens"
    )
    print(
        f"tokenizer: {choice.tokenizer.preset}, {choice.tokenizer.parameters / 1e6:.2g} M parameters, "
        f"{PRESETS[choice.tokenizer.preset].codebook_size} codes (fsq); {_told(plan.tokenizer)}"
    )
    print(f"tokens: {plan.clips} clips, {_time(plan.tokenizing_seconds)}")
    dropout = f", dropout {choice.dropout:g}" if choice.dropout else ""
    print(
        f"GPT: dim {choice.gpt.dim}, depth {choice.gpt.depth}{dropout}, {choice.gpt.parameters / 1e6:.2g} M "
        f"parameters; {_told(plan.gpt)}"
    )
    print(f"in all: {_time(plan.seconds)} of {_time(asked.hours * 3600)}, peak memory {plan.peak_bytes / 2**30:.2g} GB")
    print(f"a sampled clip: about {_time(seconds_per_sample)}, alone, from {choice.tokenizer.stride[0]} prompt frames")
    expected = expected_bits(plan, facts)
    print(expected)
    for sentence in more:
        print(f"for more: {sentence}")
    print("\n".join(["", *typed, ""]))
    return {"commands": typed, "expected_bits": expected, "for_more": more}


def expected_bits(plan: Plan, facts: VideoFacts) -> str:
    """What can be said of bits before anything is trained, and why it is little."""
    codes, tokens = PRESETS[plan.choice.tokenizer.preset].codebook_size, plan.choice.gpt.tokens_per_clip
    pixels = plan.choice.clip_frames * facts.height * facts.width
    low, high = MEASURED_BITS
    return (
        f"bits: below log2 K = {math.log2(codes):.2g} per token ({math.log2(codes) * tokens / pixels:.2g} per pixel); "
        f"by how much depends on the videos more than on the model, and cannot be told before training: short ones on "
        f"games and on the embedded worlds came to {low:g} to {high:g} per token ({low * tokens / pixels:.2g} to "
        f"{high * tokens / pixels:.2g} per pixel), filmed scenes need more"
    )


def what_for_more(facts: VideoFacts, found: Found, plan: Plan, hours: float, memory: float) -> list[str]:
    """What limits a plan, and what another setting would change; from the figures of the survey."""
    sentences, choice = [], plan.choice
    if plan.seconds < 0.8 * hours * 3600:
        sentences.append(
            f"videos are what is missing, not hours: {_time(hours * 3600 - plan.seconds)} are left over, since after "
            f"{MOST_EXPOSURES if choice.dropout else SAFE_EXPOSURES} times they would be learned by heart; add videos"
        )
    elif plan.gpt.through < SAFE_EXPOSURES:
        sentences.append(
            f"hours are what is missing, not videos: the GPT sees each {plan.gpt.through:.2g} times, and up to "
            f"{SAFE_EXPOSURES} do no harm"
        )
    try:
        longer = choose(facts, found.tokenizers, found.gpts, choice.clip_frames, MANY_TIMES * hours, memory)
    except ValueError:
        longer = choice
    if (changed := _differences(plan, longer)) and plan.seconds >= 0.8 * hours * 3600:
        sentences.append(f"--hours {MANY_TIMES * hours:g} would be worth {', '.join(changed)}")
    if choice.tokenizer_parts > 1 or choice.gpt_parts > 1:
        sentences.append(
            "memory is short: batches go through in parts (--accumulate), which costs time; with more memory they need "
            "not"
        )
    sentences.append(
        f"larger frames: --size {2 * facts.height} takes about four times as long per tokenizer step; with a stride "
        "twice as wide in height and width the GPT's stays what it is"
    )
    if too_large := [option.name for option in found.options if math.isinf(option.peak_bytes)]:
        sentences.append(f"too large for the memory of this device, even clip by clip: {', '.join(too_large)}")
    if found.left_out:
        sentences.append(f"not measured for want of time (--seconds): {', '.join(found.left_out)}")
    return sentences


def _differences(plan: Plan, other: Any) -> list[str]:
    ours, changed = plan.choice, []
    if other.tokenizer.stride != ours.tokenizer.stride:
        changed.append(f"stride {' '.join(map(str, other.tokenizer.stride))}")
    if other.tokenizer.preset != ours.tokenizer.preset:
        changed.append(f"the tokenizer {other.tokenizer.preset}")
    if (other.gpt.dim, other.gpt.depth) != (ours.gpt.dim, ours.gpt.depth):
        changed.append(f"a GPT of dim {other.gpt.dim} and depth {other.gpt.depth}")
    return changed


def _grid(plan: Plan, facts: VideoFacts) -> tuple[int, int, int]:
    model = replace(PRESETS["tiny"], stride=plan.choice.tokenizer.stride)
    return model.grid(plan.choice.clip_frames, facts.height, facts.width)


def _told(stage: Any) -> str:
    return (
        f"{stage.steps} steps, {_time(stage.seconds)}, {stage.peak_bytes / 2**30:.2g} GB; each video seen through "
        f"{stage.through:.2g} times ({stage.per_video:.3g} clips of it, each clip drawn {stage.per_clip:.2g} times)"
    )


def _time(seconds: float) -> str:
    if seconds >= 5400:
        return f"{seconds / 3600:.2g} h"
    return f"{seconds / 60:.2g} min" if seconds >= 100 else f"{seconds:.2g} s"
