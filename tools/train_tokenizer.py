"""Train a video tokenizer: the first stage.

    python tools/train_tokenizer.py                                  # on the embedded world of balls
    python tools/train_tokenizer.py --data my/videos --run runs/mine/tokenizer --steps 5000

Videos are decoded once into a clip store; clips of --clip-frames frames are drawn from every place of every
video, in an order that depends on (--seed, step) alone. The run folder holds the model (model/), metrics,
reconstructed validation clips (samples/) and checkpoints; --resume goes on from the last one.
"""

from dataclasses import asdict, replace
from itertools import product

import torch

from tokenreel.datasets.clip_shapes import shapes_in_words
from tokenreel.datasets.data_source import open_data
from tokenreel.tools.tokenizer_settings import FIXED, TOOL_PRESETS, Config, check_losses, check_parts, cure
from tokenreel.tools.tokenizer_stage import TokenizerStage
from tokenreel.training import ranks
from tokenreel.training.command_line import command, quoted, run_tool
from tokenreel.training.exposure_advice import forecast
from tokenreel.training.loop import train
from tokenreel.training.run_lock import claimed

__all__ = ["TOOL_PRESETS", "Config", "TokenizerStage"]


def train_tokenizer(config: Config) -> None:
    """Prepare the data, train, and say where the model is."""
    ranks.join(config)
    with ranks.held_by_first(claimed(config.run, config.resume)):
        _train(config)
    following = f"{command('tokenize_dataset')} --tokenizer {quoted(config.run)}"
    ranks.say(f"tokenizer in {config.run / 'model'}; next: {following}")


def _train(config: Config) -> None:
    for length, size in product(config.clip_lengths, config.frame_sizes):
        config.model.grid(length, *size)
    check_losses(config)
    check_parts(config)
    if config.train == "decoder" and config.init_from is None:
        raise ValueError("train 'decoder' without --init-from: expected a tokenizer whose encoder is kept; name one")
    torch.manual_seed(config.seed)
    with ranks.first_of_machine_first():
        store = open_data(config)
    stage = TokenizerStage(config, store)
    shortest = config.clip_lengths[-1]
    if short := sum(record.frames < shortest for record in store.split("train")):
        ranks.say(f"{short} videos are shorter than {shortest} frames and are left out")
    if len(stage.windows.groups) > 1:
        ranks.say(f"clips of {shapes_in_words(stage.windows.groups)}; figures of validation are of the first")
    if words := forecast(stage.exposures(config.steps)["through"], *cure(config)):
        ranks.say(words)
    resolved = {**asdict(replace(config, resume=False)), "videos": stage.store.fingerprint}
    resolved |= {"parent": stage.parent, "clips_per_step": [bucket.per_step for bucket in stage.order.buckets]}
    train(stage, config, resolved, FIXED)


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    run_tool(train_tokenizer, Config, argv, description=__doc__, presets=TOOL_PRESETS)


if __name__ == "__main__":
    main()
