"""Continue a grid of indices, latent frame by latent frame."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from tokenreel.transformer.condition_embedding import Told
from tokenreel.transformer.conditions import Conditions
from tokenreel.transformer.filters import SamplingSettings
from tokenreel.transformer.model import VideoGPT
from tokenreel.transformer.static_decoder import StaticDecoder


@torch.no_grad()
def sample_latent_frames(
    gpt: VideoGPT,
    prompt: Tensor,
    num_latent_frames: int,
    settings: SamplingSettings,
    seeds: Sequence[int],
    conditions: Conditions | None = None,
) -> Iterator[Tensor]:
    """Continue a prompt; yield each new latent frame as it is finished.

    Args:
        gpt: Trained model, in eval mode.
        prompt: int64 (B, t, H', W'), t >= 0: indices of the prompt frames; t = 0 is unconditional.
        num_latent_frames: New latent frames; t + new frames may not exceed the window T'.
        settings: Temperature, filters, guidance.
        seeds: One per row; a row depends on its own seed alone, whatever the batch.
        conditions: Of all B clips, prompt and new frames, from ``gpt.config.conditions.tensors``; None is none.

    Yields:
        int64 (B, H', W').

    Raises:
        ValueError: If the shapes do not fit, or the probabilities are not finite.
    """
    _check(gpt, prompt, num_latent_frames, settings, seeds, conditions)
    config, device = gpt.config, gpt.device
    B, start = prompt.shape[0], prompt[0].numel()
    total = start + num_latent_frames * config.indices_per_frame
    copies = 2 if settings.guided else 1
    sequence = torch.zeros(copies * B, total, dtype=torch.int64, device=device)
    sequence[:, :start] = prompt.flatten(1).repeat(copies, 1)
    uniform = _uniforms(seeds, total - start, gpt.head.draws).to(device)
    decoder = StaticDecoder(gpt, copies * B)

    tables = gpt.tables()
    told = _told(gpt, conditions, B, prompt.shape[1] + num_latent_frames, settings)
    tokens = gpt.embed_prefix(told, tables)
    if start:
        tokens = torch.cat([tokens, gpt.embed(sequence[:, :start], 0, tables, told)], dim=1)
    for place in range(start, total):
        hidden = decoder.forward(tokens)[:, -1]
        index = gpt.head.pick(hidden, tables.head, settings, uniform[:, place - start]).repeat(copies)
        sequence[:, place] = index
        if (place + 1) % config.indices_per_frame == 0:
            # One look per latent frame: a look per step would make the GPU wait for the host.
            if not bool(torch.isfinite(gpt.head.losses(hidden, index, tables.head).cross_entropy).all()):
                raise ValueError(
                    f"logits are not finite at index {place}; the model's weights are damaged, train it again"
                )
            yield sequence[:B, place + 1 - config.indices_per_frame : place + 1].view(B, *config.grid[1:])
        if place + 1 < total:
            tokens = gpt.embed(index[:, None], place, tables, told, before=sequence[:, :place])


def _told(gpt: VideoGPT, conditions: Conditions | None, B: int, t_lat: int, settings: SamplingSettings) -> Told:
    """Conditions of the rows; if guided, then the same number of rows without any."""
    told = gpt.conditions((conditions or Conditions()).to(gpt.device), B, t_lat)
    if not settings.guided:
        return told
    untold = gpt.conditions(Conditions(), B, t_lat)
    return Told(*(None if a is None or b is None else torch.cat([a, b]) for a, b in zip(told, untold, strict=True)))  # type: ignore[arg-type]


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


def _uniforms(seeds: Sequence[int], count: int, draws: int) -> Tensor:
    """float64 (B, count, draws) in [0, 1): each row from its own seed."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return torch.stack([torch.rand(count, draws, generator=each, dtype=torch.float64) for each in generators])


def _check(
    gpt: VideoGPT,
    prompt: Tensor,
    num_latent_frames: int,
    settings: SamplingSettings,
    seeds: Sequence[int],
    conditions: Conditions | None,
) -> None:
    grid = gpt.config.grid
    if prompt.ndim != 4 or prompt.shape[2:] != grid[1:]:
        raise ValueError(f"prompt has shape {tuple(prompt.shape)}, expected (B, t, {grid[1]}, {grid[2]})")
    if len(seeds) != prompt.shape[0]:
        raise ValueError(f"got {len(seeds)} seeds for {prompt.shape[0]} prompts, expected one each")
    if num_latent_frames < 1 or prompt.shape[1] + num_latent_frames > grid[0]:
        raise ValueError(
            f"{prompt.shape[1]} prompt and {num_latent_frames} new latent frames asked for, expected at least 1 "
            f"new one and at most {grid[0]} together, the window this GPT was trained on"
        )
    settings.check_codebook(gpt.config.head_sizes)
    check_guidance(gpt, settings, conditions)


def check_guidance(gpt: VideoGPT, settings: SamplingSettings, conditions: Conditions | None) -> None:
    """Whether there is something to guide by, if that is asked for.

    Raises:
        ValueError: If no clip is told anything.
    """
    if settings.guided and (conditions is None or conditions.empty):
        known = (
            " or ".join(gpt.config.conditions.kinds) or "nothing: it was trained without labels, captions and actions"
        )
        raise ValueError(
            f"guidance {settings.guidance} needs a condition to strengthen, got none; this model takes {known}"
        )
