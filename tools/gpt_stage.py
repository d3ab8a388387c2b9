"""The second training: a GPT, its token shards, how it is judged and saved."""

import math
import time
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tokenreel.datasets.bucket_order import order_over
from tokenreel.datasets.clip_groups import ClipGroups
from tokenreel.datasets.exposure import ExposureLedger
from tokenreel.datasets.token_shards import TokenShards
from tokenreel.tokenizer import VideoTokenizer, fingerprint
from tokenreel.tokenizer.pretrained import read_judgement
from tokenreel.tools.gpt_data import of_known_shapes, open_captions, open_shards, usual_tokens, validation_split
from tokenreel.tools.gpt_settings import Config, cure
from tokenreel.tools.parents import start_gpt
from tokenreel.tools.training_samples import JUDGED, TrainingSamples
from tokenreel.training import ranks
from tokenreel.training.best import Aim
from tokenreel.training.exposure_advice import crossed
from tokenreel.training.hardware import peak_memory_mb
from tokenreel.training.initial_weights import started_from
from tokenreel.training.provenance import provenance
from tokenreel.training.stage import Evaluation
from tokenreel.training.watch import BITS
from tokenreel.transformer import (
    ConditionConfig,
    Conditions,
    GPTConfig,
    GPTOutput,
    VideoGPT,
)

VALIDATION_CLIPS = 256


class GPTStage:
    """The GPT, its shards and how it is judged."""

    aim, level = Aim("val/bits_per_token", higher=False), BITS

    def __init__(self, config: Config, shards: ClipGroups[TokenShards], tokenizer: Path) -> None:
        self.config, self.shards, self.tokenizer_folder = config, shards, tokenizer
        self.in_parts = config.shard_model
        self.tokenizer = VideoTokenizer.from_pretrained(tokenizer)
        manifest, grids = shards.first.manifest, [group.manifest.grid for group in shards.groups]
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
        held_out = open_shards(config, validation_split(config.shards), manifest.tokenizer)
        self.held_out = of_known_shapes(held_out, self.model.config)
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
            usual_tokens(shards),
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
        words = crossed(now["through"], before, *cure(self.config))
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
