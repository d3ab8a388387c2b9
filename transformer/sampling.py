"""Continue a grid of indices, latent frame by latent frame, for as long as one likes."""

from collections.abc import Iterator, Sequence
from itertools import count
from numbers import Integral

import torch
from torch import Tensor

from tokenreel.transformer.conditions import Conditions
from tokenreel.transformer.filters import SamplingSettings
from tokenreel.transformer.frame_window import FrameWindow
from tokenreel.transformer.model import VideoGPT
from tokenreel.transformer.sliding_window import SlidingWindow


def sample_latent_frames(
    gpt: VideoGPT,
    prompt: Tensor,
    num_latent_frames: int | None,
    settings: SamplingSettings,
    seeds: Sequence[int],
    conditions: Conditions | None = None,
    actions: Iterator[Tensor] | None = None,
    last: Tensor | None = None,
) -> Iterator[Tensor]:
    """Continue a prompt; give each new latent frame as it is finished. Memory does not grow.

    Args:
        gpt: Trained model, in eval mode.
        prompt: int64 (B, t, H', W'): indices of the prompt frames, at most the window's T'; t = 0 is unconditional.
        num_latent_frames: New latent frames, any number; None is without end. Beyond the window see
            :class:`~tokenreel.transformer.sliding_window.SlidingWindow`.
        settings: Temperature, filters, guidance, overlap.
        seeds: One per row; a row depends on its own seed alone, whatever the batch.
        conditions: Of all B clips, prompt and new frames, from ``gpt.config.conditions.tensors``; None is none.
        actions: What leads to each new latent frame, (B, frames per latent frame, ...) each, if it becomes known only
            on the way: asked for when its frame begins. ``conditions`` then holds those of the prompt.
        last: int64 (B, k, H', W'): latent frames that follow the new ones, all within the window; for a GPT that was
            trained with ``infilling``. ``conditions`` are of them as well.

    Returns:
        Iterator over int64 (B, H', W').

    Raises:
        ValueError: At once if the shapes do not fit; on the way if the probabilities are not finite, or the actions
            end before the clip.
    """
    _check(gpt, prompt, num_latent_frames, settings, seeds, conditions, actions is not None, last)
    end = None if last is None or num_latent_frames is None else (last, prompt.shape[1] + num_latent_frames)
    with torch.no_grad():
        kind = FrameWindow if gpt.config.decoding == "frame" else SlidingWindow
        window = kind(gpt, prompt, settings, conditions or Conditions(), actions, end)
    return _frames(window, gpt.device, num_latent_frames, seeds)


@torch.no_grad()
def _frames(
    window: SlidingWindow, device: torch.device, num_latent_frames: int | None, seeds: Sequence[int]
) -> Iterator[Tensor]:
    generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
    for _ in count() if num_latent_frames is None else range(num_latent_frames):
        drawn = [torch.rand(*window.draws, generator=each, dtype=torch.float64) for each in generators]
        yield window.next_frame(torch.stack(drawn).to(device))


def sample_indices(
    gpt: VideoGPT,
    prompt: Tensor,
    num_latent_frames: int,
    settings: SamplingSettings,
    seeds: Sequence[int],
    conditions: Conditions | None = None,
) -> Tensor:
    """Prompt and continuation together: int64 (B, t + new, H', W'); see :func:`sample_latent_frames`."""
    new = list(sample_latent_frames(gpt, prompt, num_latent_frames, settings, seeds, conditions))
    return torch.cat([prompt, torch.stack(new, dim=1)], dim=1)


def _check(
    gpt: VideoGPT,
    prompt: Tensor,
    num_latent_frames: int | None,
    settings: SamplingSettings,
    seeds: Sequence[int],
    conditions: Conditions | None,
    live: bool,
    last: Tensor | None,
) -> None:
    grid, frames = gpt.config.grid, gpt.config.frames
    if prompt.ndim != 4 or tuple(prompt.shape[2:]) not in frames or prompt.shape[1] > grid[0]:
        raise ValueError(
            f"prompt has shape {tuple(prompt.shape)}, expected (B, t, H', W') with t up to {grid[0]} and H', W' = "
            f"{' or '.join(map(str, frames))}, the window this GPT was trained on"
        )
    if not len(prompt):
        raise ValueError("got no prompts, expected at least one")
    if len(seeds) != prompt.shape[0]:
        raise ValueError(f"got {len(seeds)} seeds for {prompt.shape[0]} prompts, expected one each")
    for seed in seeds:
        if not isinstance(seed, Integral) or not 0 <= seed < 2**63:
            raise ValueError(f"seed {seed!r}: expected a whole number, 0 or more and below 2**63")
    if num_latent_frames is not None and num_latent_frames < 1:
        raise ValueError(f"{num_latent_frames} new latent frames asked for, expected at least 1")
    wanted = None if num_latent_frames is None else prompt.shape[1] + num_latent_frames
    if last is not None:
        wanted = _check_last(gpt, last, prompt, wanted, live)
    if wanted is None or wanted > grid[0]:
        settings.kept(grid[0])
    _check_conditions(conditions or Conditions(), prompt.shape[0], prompt.shape[1] if live else wanted)
    settings.check_codebook(gpt.config.head_sizes)
    check_guidance(gpt, settings, conditions, live)


def _check_last(gpt: VideoGPT, last: Tensor, prompt: Tensor, before: int | None, live: bool) -> int:
    """Latent frames in all."""
    grid, (clips, _, h_lat, w_lat) = gpt.config.grid, prompt.shape
    if last.ndim != 4 or last.shape[2:] != prompt.shape[2:] or len(last) != clips or not last.shape[1]:
        raise ValueError(
            f"last has shape {tuple(last.shape)}, expected ({clips}, k, {h_lat}, {w_lat}) with k of at least 1"
        )
    if not gpt.config.infilling:
        raise ValueError("this GPT was trained without infilling: it cannot make what lies before given frames")
    if before is None or live:
        raise ValueError("last needs a number of new latent frames, and actions that are known at once")
    if before + last.shape[1] > grid[0]:
        raise ValueError(
            f"prompt and new latent frames are {before}, the last {last.shape[1]}; expected at most {grid[0]} in all, "
            "the window this GPT was trained on"
        )
    return before + last.shape[1]


def _check_conditions(conditions: Conditions, clips: int, t_lat: int | None) -> None:
    for name, part in conditions._asdict().items():
        if part is not None and len(part) != clips:
            raise ValueError(f"{name} are of {len(part)} clips, expected those of {clips} prompts")
    told = conditions.actions
    if told is not None and t_lat is not None and told.shape[1] < t_lat:
        raise ValueError(
            f"actions are of {told.shape[1]} latent frames, expected {t_lat}, those of prompt and new ones"
        )


def check_guidance(
    gpt: VideoGPT, settings: SamplingSettings, conditions: Conditions | None, live: bool = False
) -> None:
    """Whether there is something to guide by, if that is asked for.

    Raises:
        ValueError: If no clip is told anything.
    """
    if settings.guided and not live and (conditions is None or conditions.empty):
        known = (
            " or ".join(gpt.config.conditions.kinds) or "nothing: it was trained without labels, captions and actions"
        )
        raise ValueError(
            f"guidance {settings.guidance} needs a condition to strengthen, got none; this model takes {known}"
        )
