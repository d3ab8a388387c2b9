"""Train a GPT on token shards: the third stage.

    python tools/train_gpt.py                                         # on runs/tokens
    python tools/train_gpt.py --shards runs/mine/tokens --run runs/mine/gpt --preset small

The order of clips depends on (--seed, step) alone. At every evaluation the same validation prompts are
continued into a video (samples/). The run folder's model/ carries a copy of the tokenizer, so it can sample.
"""

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from tokenreel.datasets.bucket_order import order_over
from tokenreel.datasets.clip_groups import ClipGroups
from tokenreel.datasets.exposure import ExposureLedger
from tokenreel.datasets.token_shards import TokenShards
from tokenreel.tokenizer import VideoTokenizer, fingerprint
from tokenreel.tokenizer.pretrained import read_judgement
from tokenreel.tools.gpt_data import matching_tokenizer, open_captions, open_shards, told, validation_split
from tokenreel.tools.parents import start_gpt
from tokenreel.tools.training_samples import JUDGED, TrainingSamples
from tokenreel.training import ranks
from tokenreel.training.best import Aim
from tokenreel.training.command_line import command, run_tool
from tokenreel.training.exposure_advice import crossed, forecast
from tokenreel.training.hardware import peak_memory_mb
from tokenreel.training.initial_weights import started_from
from tokenreel.training.loop import train
from tokenreel.training.provenance import provenance
from tokenreel.training.run_lock import claimed
from tokenreel.training.settings import TrainingSettings
from tokenreel.training.stage import Evaluation
from tokenreel.training.watch import BITS
from tokenreel.transformer import (
    PRESETS,
    ConditionConfig,
    Conditions,
    GPTConfig,
    GPTOutput,
    GPTSize,
    VideoGPT,
)
from tokenreel.transformer.conditions import KINDS
from tokenreel.transformer.pretrained import FORMAT_VERSION

VALIDATION_CLIPS = 256


@dataclass(frozen=True, kw_only=True)
class Config(TrainingSettings):
    """Settings of one GPT training."""

    shards: str = "runs/tokens"
    """Token shards made by tools/tokenize_dataset.py: folder, or URL (s3://…, gs://…, https://…)."""
    tokenizer: Path | None = None
    """Folder of the tokenizer that made the shards; default: the copy that lies beside them."""
    run: Path = Path("runs/gpt")
    """Folder of this run."""
    conditions: tuple[Literal["labels", "captions", "actions"], ...] = KINDS
    """What the model can be told about a clip, as far as the data has it."""
    condition_dropout: float = 0.1
    """Share of training clips from which all of it is hidden, and again each kind, so that sampling without it and
    guidance work."""
    context_noise: float = 0.0
    """Largest share of past indices that training replaces by others, against drift in long continuations; 0 is
    off, 0.2 is a start."""
    decoding: Literal["token", "frame"] = "token"
    """"token" makes a clip index by index; "frame" a latent frame at a time in a few passes: quicker where there is
    arithmetic to spare, less exact, and slower to train."""
    infilling: float = 0.0
    """Share of the steps that learn to make what lies before given frames, for tools/sample.py --last-frames; 0 is
    off, 0.5 is a start."""
    z_loss: float = 1e-4
    """Weight of the z-loss, which keeps the scores of long trainings in bounds; no figure of bits counts it."""
    checkpoint_activations: bool = False
    """Keep less for the backward pass and compute it again: the same training in less memory, a third slower."""
    factors: Literal["auto", "1", "2"] = "auto"
    """2: an index is predicted as two factors, one after the other, which large codebooks need; 1: each has a row and
    a score of its own; auto: 1 up to 2^14 codes."""
    verify: bool = False
    """Check every shard before training, and not each before its first clip is used."""
    skip_bad: bool = False
    """Check every shard before training, and go on without those that are missing or damaged."""
    cache: Path = Path("runs/remote")
    """Folder in which copies of remote shards are kept."""
    cache_gib: float = 20.0
    """Most that the copies may take, in GiB; what was used longest ago goes first."""
    model: GPTSize = field(default_factory=GPTSize)
    """Width, depth, dropout."""


TOOL_PRESETS = {
    "tiny": Config(model=PRESETS["tiny"], steps=1200, batch_size=8, evaluate_every=400, checkpoint_every=200),
    "small": Config(
        model=PRESETS["small"], steps=20_000, batch_size=64, lr=2e-3, warmup=200,
        evaluate_every=1000, checkpoint_every=1000,
    ),
    "base": Config(
        model=PRESETS["base"], steps=100_000, batch_size=32, lr=1e-3, warmup=1000, weight_decay=0.1,
        evaluate_every=2000, checkpoint_every=2000, ema_decay=0.999,
    ),
}  # fmt: skip

FIXED = {
    *("model", "factors", "made_of", "seed", "batch_size", "precision", "conditions"),
    *("condition_dropout", "context_noise", "decoding", "infilling", "z_loss", "init_from"),
}
"""What a resumed run may not change: its batches, its model, and what the loss means."""


class GPTStage:
    """The GPT, its shards and how it is judged."""

    aim, level = Aim("val/bits_per_token", higher=False), BITS

    def __init__(self, config: Config, shards: ClipGroups[TokenShards], tokenizer: Path) -> None:
        self.config, self.shards, self.tokenizer_folder = config, shards, tokenizer
        self.tokenizer = VideoTokenizer.from_pretrained(tokenizer)
        manifest, grids = shards.first.manifest, [group.manifest.grid for group in shards.groups]
        self.held_out = open_shards(config, validation_split(config.shards), manifest.tokenizer)
        self.model = VideoGPT(
            GPTConfig(
                codebook_size=manifest.codebook_size,
                grid=(max(t for t, _, _ in grids), max(h for _, h, _ in grids), max(w for _, _, w in grids)),
                frames=tuple(dict.fromkeys((h, w) for _, h, w in grids)),
                size=config.model,
                levels=tuple(manifest.source.get("levels", ())),
                factors=0 if config.factors == "auto" else int(config.factors),
                conditions=ConditionConfig.of_data(
                    manifest.source, config.conditions, manifest.stride[0], config.condition_dropout
                ),
                context_noise=config.context_noise,
                decoding=config.decoding,
                infilling=config.infilling,
                z_loss=config.z_loss,
                fps=manifest.fps or shards.first.clip(0)[1]["fps"],
                tokenizer=fingerprint(tokenizer),
            )
        )
        self.model.backbone.checkpoint_activations = config.checkpoint_activations
        encoded = self.model.config.conditions.text_encoder
        self.caption_table = open_captions(config) if encoded else None
        self.order = order_over(
            [len(group) for group in shards.groups],
            [math.prod(grid) for grid in grids],
            config.batch_size,
            config.seed,
            ranks.rank(),
            ranks.world_size(),
            config.accumulate,
        )
        self._trained = 0.0  # seconds since the last validation
        self.parent = started_from(config, partial(start_gpt, self.model, tokenizer))

    def batch(self, step: int) -> dict[str, Tensor]:
        """Clips of a step as indices and conditions, and what is left to chance in them."""
        inputs = self._inputs(self.shards, self.order.batch(step))
        return {**inputs, "chance": torch.from_numpy(self.order.chance(step))}

    def accumulating(self) -> AbstractContextManager[None]:
        """Parts of a step leave nothing in the model but their gradients."""
        return nullcontext()

    def observe(self, output: GPTOutput) -> None:
        """Nothing is counted over windows here."""

    def error(self, output: GPTOutput) -> float:
        """Bits per token."""
        return output.losses.mean().item() / math.log(2)

    def metrics(self, output: GPTOutput, steps: int, seconds: float) -> dict[str, float]:
        """Bits, speed, exposures."""
        self._trained += seconds
        tokens = steps * self.order.clips_per_step * self._indices_per_clip(self.shards)
        return {"train/bits_per_token": self.error(output), "speed/tokens_per_s": tokens / seconds}

    @torch.no_grad()
    def evaluate(self, step: int, folder: Path) -> Evaluation:
        """Bits on held-out clips; the same few prompts continued, judged and shown."""
        device = self.model.device
        count, nats, indices = min(VALIDATION_CLIPS, len(self.held_out)), 0.0, 0
        chosen = np.linspace(0, len(self.held_out) - 1, count).round().astype(int)
        mine, at_once = ranks.own_cut(chosen), ranks.share(self.config.batch_size, 1)
        for part in self.held_out.batches(mine, at_once):
            inputs = {name: tensor.to(device) for name, tensor in self._inputs(self.held_out, part).items()}
            nats += self.model(**inputs).loss.item() * inputs["indices"].numel()
            indices += inputs["indices"].numel()
        bits = float(np.divide(*ranks.gathered([nats, indices]).sum(0))) / math.log(2)
        metrics: dict[str, float | str] = {
            "val/bits_per_token": bits,
            "val/bits_per_pixel": bits / math.prod(self.shards.first.manifest.stride),
            **self._exposed(step),
            **{f"tokenizer/{name}": value for name, value in read_judgement(self.tokenizer_folder).items()},
        }
        chosen = chosen[chosen < len(self.held_out.first)]  # clips of one shape
        # The first rank alone samples; the others wait for it, as they do for its pictures.
        if not self.config.samples or self.held_out.first.manifest.grid[0] < 2 or not ranks.is_first():
            return Evaluation(metrics, list)
        made = self._sampled(chosen)
        return Evaluation({**metrics, **made.metrics}, partial(made.write, self.config.samples, step, folder))

    @staticmethod
    def _indices_per_clip(shards: ClipGroups[TokenShards]) -> float:
        """On average."""
        return sum(len(group) * math.prod(group.manifest.grid) for group in shards.groups) / len(shards)

    def exposures(self, step: int) -> dict[str, float]:
        """How often clips and videos have been seen after so many steps."""
        return self.ledger.told(step)

    @cached_property
    def ledger(self) -> ExposureLedger:
        """Of the training clips; opened when it is needed, since it reads the records of all shards."""
        manifest, groups = self.shards.first.manifest, self.shards.groups
        places, videos = self.shards.places_of_clips(), self.shards.num_videos
        frames = np.repeat([group.manifest.clip_frames for group in groups], [len(group) for group in groups])
        return ExposureLedger(self.order, videos, frames, manifest.hop, places)

    def export(self, folder: Path, step: int) -> None:
        """Save the model folder with its tokenizer and where it comes from."""
        self.model.save_pretrained(
            folder,
            provenance(
                step=step,
                seed=self.config.seed,
                **{f"exposures_{name}": value for name, value in self.exposures(step).items()},
                peak_memory_mb=peak_memory_mb(self.model.device),
                shards={"folder": self.config.shards, "clips": len(self.shards)},
                data=self.shards.first.manifest.source.get("data"),
                init_from=self.parent,
            ),
            tokenizer=self.tokenizer_folder,
        )

    def state_dict(self) -> dict[str, Any]:
        """It remembers nothing beside its model."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """There is nothing to take up."""

    def _exposed(self, step: int) -> dict[str, float | str]:
        """What to log of exposures: numbers, and words where a level was passed; of the first rank alone."""
        if not ranks.is_first():
            return {}
        now, every = self.exposures(step), self.config.evaluate_every
        before = self.exposures((step - 1) // every * every)["through"]
        words = crossed(now["through"], before, *_cure(self.config))
        told: dict[str, float | str] = {f"data/exposures_{name}": value for name, value in now.items()}
        return told | ({"exposures": words} if words else {})

    def _sampled(self, chosen: np.ndarray) -> TrainingSamples:
        """Continue some of these held-out clips, always the same, and tell what share of the time that takes."""
        wanted, started = max(JUDGED, self.config.samples), time.perf_counter()
        told = self._inputs(self.held_out, chosen[:: max(1, len(chosen) // wanted)][:wanted])
        made = TrainingSamples.of(self.model, self.tokenizer, told.pop("indices"), Conditions(**told))
        spent, trained, self._trained = time.perf_counter() - started, self._trained, 0.0
        share = {"speed/sampling_share": spent / (spent + trained)} if trained else {}
        return made._replace(metrics=made.metrics | share)

    def _inputs(self, shards: ClipGroups[TokenShards], clips: np.ndarray) -> dict[str, Tensor]:
        indices, records = shards.batch(clips)
        known = self.model.config.conditions
        told = [known.of_record(record) for record in records]
        vectors = None if self.caption_table is None else self.caption_table.look_up([clip.caption for clip in told])
        conditions = known.tensors(told, indices.shape[1], vectors)
        present = {name: part for name, part in conditions._asdict().items() if part is not None}
        return {"indices": torch.from_numpy(indices), **present}


def _folders(shards: ClipGroups[TokenShards]) -> Iterator[tuple[str, TokenShards]]:
    """The clips of each shape and what names of their shards begin with, wherever they lie."""
    for number, group in enumerate(shards.groups):
        yield (f"{shards.first.manifest.source['shapes'][number]}/" if number else ""), group


def _cure(config: Config) -> tuple[str, str]:
    """The figure that shows when clips are learned by heart, and what helps against it."""
    return "val/bits_per_token", "a smaller --preset" if config.model.dropout else "--model.dropout 0.1"


def train_gpt(config: Config) -> None:
    """Open the shards, train, and say where the model is."""
    ranks.join(config)
    with ranks.held_by_first(claimed(config.run, config.resume)):
        _train(config)
    ranks.say(f"GPT in {config.run / 'model'}; next: {command('sample')} --prompt-frames 4 --model {config.run}")


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
    resolved["parent"] = stage.parent
    ranks.say(told(stage.model.config.conditions, config.conditions))
    if ranks.is_first() and (words := forecast(stage.exposures(config.steps)["through"], *_cure(config))):
        print(words)
    train(stage, config, resolved, FIXED)


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    run_tool(train_gpt, Config, argv, description=__doc__, presets=TOOL_PRESETS)


if __name__ == "__main__":
    main()
