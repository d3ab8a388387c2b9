"""The first training: a tokenizer, its clips, how it is judged and saved."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tokenreel.datasets.bucket_order import order_over
from tokenreel.datasets.clip_groups import ClipGroups
from tokenreel.datasets.clip_shapes import windows_by_shape
from tokenreel.datasets.clip_store import ClipStore
from tokenreel.datasets.data_source import held_out_groups
from tokenreel.datasets.exposure import ExposureLedger
from tokenreel.datasets.video_writer import write_video
from tokenreel.evaluation.fidelity import MOST_DECIBELS, movement_errors, psnr, share_kept
from tokenreel.evaluation.film_strip import side_by_side, write_film_strip
from tokenreel.tokenizer import CodebookUsage, VideoTokenizer
from tokenreel.tokenizer.frames import to_frames, to_video
from tokenreel.tokenizer.health import codebook_alarm
from tokenreel.tokenizer.objective import ObjectiveOutput, TokenizerObjective
from tokenreel.tokenizer.process_group import gathered, summed
from tokenreel.tools.parents import start_tokenizer
from tokenreel.tools.tokenizer_settings import Config, cure
from tokenreel.training import ranks
from tokenreel.training.best import Aim
from tokenreel.training.exposure_advice import crossed
from tokenreel.training.hardware import peak_memory_mb
from tokenreel.training.initial_weights import started_from
from tokenreel.training.provenance import provenance
from tokenreel.training.stage import Evaluation
from tokenreel.training.watch import SQUARED_ERROR

VALIDATION_CLIPS = 32


class TokenizerStage:
    """The tokenizer and what it trains on, its clips and how it is judged."""

    aim, level = Aim("val/psnr", higher=True), SQUARED_ERROR
    in_parts = False  # tokenizers are small

    def __init__(self, config: Config, store: ClipStore) -> None:
        self.config, self.store = config, store
        self.windows = ClipGroups(windows_by_shape(store, "train", config.clip_lengths))
        pixels = [windows.clip_frames * math.prod(windows.size) for windows in self.windows.groups]
        self.order = order_over(
            [len(windows) for windows in self.windows.groups],
            pixels,
            config.batch_size,
            config.seed,
            ranks.rank(),
            ranks.world_size(),
            config.accumulate,
            config.clip_frames * math.prod(store.first_size),
        )
        self.model = TokenizerObjective(VideoTokenizer(config.model), config.loss)
        self.parent = started_from(config, partial(start_tokenizer, self.model.tokenizer))
        if config.train == "decoder":
            self.model.tokenizer.freeze_encoding()
        self.usage = CodebookUsage(config.model.codebook_size)
        held_out = held_out_groups(store, config.clip_lengths)
        spread = np.linspace(0, len(held_out) - 1, min(VALIDATION_CLIPS, len(held_out))).round().astype(int)
        self.truth: list[np.ndarray] = [held_out.batch(part) for part in held_out.batches(spread, VALIDATION_CLIPS)]
        """Clips of the validation, uint8 (B, T, H, W, 3) of each shape."""
        self.judged: dict[str, float] = {}
        """What the last validation found."""

    def batch(self, step: int) -> dict[str, Tensor]:
        """Clips of a step as video; made of uint8, it is finite and in [-1, 1]."""
        video = to_video(self.windows.batch(self.order.batch(step)))
        chance = self.order.chance(step)[:, 1]
        batch = {"video": _flipped(video, chance % 2 == 0) if self.config.augment == "flip" else video}
        if self.config.loss.perceptual:
            drawn = [np.random.default_rng(own).random(video.shape[2], np.float32) for own in chance]
            batch["chance"] = torch.from_numpy(np.stack(drawn))
        return batch

    def accumulating(self) -> AbstractContextManager[None]:
        """A learned codebook moves once a step; it begins with the features of the first part it sees."""
        return self.model.tokenizer.quantizer.accumulating()

    def observe(self, output: ObjectiveOutput) -> None:
        """Count which codes a step used, on all ranks."""
        self.usage.update(gathered(output.indices.flatten(1)))

    def error(self, output: ObjectiveOutput) -> float:
        """Squared error, of full scale."""
        return 10 ** (-output.psnr.item() / 10)

    def metrics(self, output: ObjectiveOutput, steps: int, seconds: float) -> dict[str, float]:
        """Losses, each by its name and unweighted; codebook; speed."""
        return {
            "train/loss": output.loss.item(),
            **{f"train/{name}": term.item() for name, term in output.terms.items()},
            "train/psnr": output.psnr.item(),
            "codebook/perplexity": self.usage.perplexity,
            "codebook/dead_codes": self.usage.dead_codes,
            "speed/clips_per_s": steps * self.order.clips_per_step / seconds,
        }

    @torch.no_grad()
    def evaluate(self, step: int, folder: Path) -> Evaluation:
        """PSNR on held-out clips and what follows from it; the same few clips reconstructed, as picture and video."""
        usage = CodebookUsage(self.config.model.codebook_size)
        frames = [self._reconstructed(truth, usage) for truth in self.truth]
        usage.counts = summed(usage.counts.to(next(self.model.parameters()).device))
        self.judged = _judged(frames, self.truth)
        found = self.judged["psnr"]
        metrics: dict[str, float | str] = {f"val/{name}": value for name, value in self.judged.items()}
        metrics |= {"val/perplexity": usage.perplexity, **self._data_facts(step)}
        before = self.exposures((step - 1) // self.config.evaluate_every * self.config.evaluate_every)
        if words := crossed(self.exposures(step)["through"], before["through"], *cure(self.config)):
            metrics["exposures"] = words
        if alarm := codebook_alarm(self.config.model, self.usage, step):
            metrics["alarm"] = alarm
        verdict, told = self.model.judge(found, step / self.config.steps)
        if told is not None:
            metrics["warning" if verdict == "go back" else "note"] = told
        return Evaluation(metrics, partial(self._show, frames[0], step, folder), verdict)

    def _reconstructed(self, truth: np.ndarray, usage: CodebookUsage) -> np.ndarray:
        """What the tokenizer makes of clips uint8 (B, T, H, W, 3); all ranks share the work and get all of it."""
        tokenizer, mine = self.model.tokenizer, ranks.own_cut(truth)
        device, at_once = next(tokenizer.parameters()).device, ranks.share(self.config.batch_size, 1)
        pieces = [np.empty((0, *truth.shape[1:]), np.uint8)]
        for begin in range(0, len(mine), at_once):
            indices = tokenizer.encode(to_video(mine[begin : begin + at_once]).to(device))
            usage.update(indices)
            pieces.append(to_frames(tokenizer.decode(indices)))
        rows = torch.from_numpy(np.concatenate(pieces)).flatten(1).to(device)
        return gathered(rows).cpu().numpy().reshape(truth.shape)

    def exposures(self, step: int) -> dict[str, float]:
        """How often clips and videos have been seen after so many steps."""
        return self.ledger.told(step)

    @cached_property
    def ledger(self) -> ExposureLedger:
        """Of the training clips."""
        groups, videos = self.windows.groups, self.windows.num_videos
        frames = np.repeat([group.clip_frames for group in groups], [len(group) for group in groups])
        return ExposureLedger(self.order, videos, frames, 1, self.windows.places_of_clips())

    def export(self, folder: Path, step: int) -> None:
        """Save the model folder with where it comes from."""
        self.model.tokenizer.save_pretrained(
            folder,
            provenance(
                step=step,
                seed=self.config.seed,
                clip_frames=self.config.clip_frames,
                shorter_clips=list(self.config.shorter_clips),
                **{name.removeprefix("data/"): value for name, value in self._data_facts(step).items()},
                **{f"val_{name}": value for name, value in self.judged.items()},
                peak_memory_mb=peak_memory_mb(next(self.model.parameters()).device),
                data=self.config.describe(self.store),
                init_from=self.parent,
                same_indices_as=self.parent["fingerprint"] if self.parent and self.config.train == "decoder" else None,
            ),
        )

    def state_dict(self) -> dict[str, Any]:
        """Codes that the last steps used, and the last validation."""
        return {"usage": self.usage.state_dict(), "judged": self.judged}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`state_dict` told."""
        self.usage.load_state_dict(state["usage"])
        self.judged = state["judged"]

    def _data_facts(self, step: int) -> dict[str, float]:
        """How often clips and videos were drawn, and how many of the videos are copies."""
        videos = self.windows.num_videos
        copies = sum("duplicate_of" in record.flags for group in self.windows.groups for record in group.records)
        return {
            **{f"data/exposures_{name}": value for name, value in self.exposures(step).items()},
            "data/duplicate_videos_share": copies / videos,
        }

    def _show(self, frames: np.ndarray, step: int, folder: Path) -> list[Path]:
        """Write some of the clips of the first shape."""
        picture, video = folder / f"reconstruction_{step:06d}.png", folder / f"reconstruction_{step:06d}.mp4"
        if not self.config.samples:
            return []
        truth = self.truth[0]
        shown = np.linspace(0, len(frames) - 1, min(self.config.samples, len(frames))).round().astype(int)
        strips = [row for i in shown for row in ((f"video {i}", truth[i]), ("reconstructed", frames[i]))]
        write_film_strip(picture, strips)
        rows = [("video", truth[shown]), ("reconstructed", frames[shown])]
        write_video(video, side_by_side(rows, scale=2), self.config.fps or 10.0)
        return [picture, video]


def _judged(frames: Sequence[np.ndarray], truth: Sequence[np.ndarray]) -> dict[str, float]:
    """Figures of all clips, uint8 (B, T, H, W, 3) of each shape; those that are no numbers are left out."""
    quality = np.concatenate([psnr(*pair).clip(max=MOST_DECIBELS) for pair in zip(frames, truth, strict=True)])
    moved = np.concatenate([movement_errors(*pair) for pair in zip(frames, truth, strict=True)])
    judged = {"psnr": float(quality.mean()), "motion_kept": share_kept(moved)}
    return {name: value for name, value in judged.items() if math.isfinite(value)}


def _flipped(video: Tensor, mirror: np.ndarray) -> Tensor:
    """Mirror some of the clips."""
    try:
        from torchvision.transforms.v2.functional import horizontal_flip
    except (ImportError, RuntimeError) as error:  # a CUDA torchvision beside a CPU-only torch
        raise ValueError(f"--augment flip needs a torchvision that fits this torch ({error}); reinstall both") from None
    return torch.stack([horizontal_flip(clip) if flip else clip for clip, flip in zip(video, mirror, strict=True)])
