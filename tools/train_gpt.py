"""Train a GPT on token shards: the third stage.

    python tools/train_gpt.py                                         # on runs/tokens
    python tools/train_gpt.py --shards runs/mine/tokens --run runs/mine/gpt --preset small

The order of clips depends on (--seed, step) alone. At every evaluation the same validation prompts are
continued into a video (samples/). The run folder's model/ carries a copy of the tokenizer, so it can sample.
"""

from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import torch

from tokenreel.datasets.clip_groups import ClipGroups
from tokenreel.datasets.token_shards import TokenShards
from tokenreel.tools.gpt_data import matching_tokenizer, open_shards, told
from tokenreel.tools.gpt_settings import FIXED, TOOL_PRESETS, Config, cure
from tokenreel.tools.gpt_stage import GPTStage
from tokenreel.training import ranks
from tokenreel.training.command_line import command, quoted, run_tool
from tokenreel.training.exposure_advice import forecast
from tokenreel.training.loop import train
from tokenreel.training.run_lock import claimed
from tokenreel.transformer.pretrained import FORMAT_VERSION

__all__ = ["TOOL_PRESETS", "Config", "GPTStage"]


def train_gpt(config: Config) -> None:
    """Open the shards, train, and say where the model is."""
    ranks.join(config)
    with ranks.held_by_first(claimed(config.run, config.resume)):
        _train(config)
    following = f"{command('sample')} --prompt-frames 4 --model {quoted(config.run)}"
    ranks.say(f"GPT in {config.run / 'model'}; next: {following}")


def _train(config: Config) -> None:
    shards = open_shards(config, "train")
    manifest = shards.first.manifest
    tokenizer = matching_tokenizer(config, manifest.tokenizer, config.tokenizer)
    torch.manual_seed(config.seed)
    stage = GPTStage(config, shards, tokenizer)
    made_of = {"tokenizer": manifest.tokenizer, "grid": manifest.grid, "hop": manifest.hop, "clips": len(shards)}
    made_of["gpt_format_version"] = FORMAT_VERSION
    if skipped := [f"{where}{name}" for where, group in _folders(shards) for name in group.skipped]:
        made_of["without"] = sorted(skipped)  # the order counts clips without them
    resolved: dict[str, Any] = {**asdict(replace(config, resume=False)), "made_of": {**made_of, **manifest.source}}
    resolved |= {"parent": stage.parent, "clips_per_step": [bucket.per_step for bucket in stage.order.buckets]}
    ranks.say(told(stage.model.config.conditions, config.conditions))
    if ranks.is_first() and (words := forecast(stage.exposures(config.steps)["through"], *cure(config))):
        print(words)
    train(stage, config, resolved, FIXED)


def _folders(shards: ClipGroups[TokenShards]) -> Iterator[tuple[str, TokenShards]]:
    """The clips of each shape and what names of their shards begin with, wherever they lie."""
    for number, group in enumerate(shards.groups):
        yield (f"{shards.first.manifest.source['shapes'][number]}/" if number else ""), group


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    run_tool(train_gpt, Config, argv, description=__doc__, presets=TOOL_PRESETS)


if __name__ == "__main__":
    main()
