"""What the log tells of the clips of a step, so that wrong data shows before the pictures do."""

from collections.abc import Mapping

import torch
from torch import Tensor

STILL = 0.1
"""Largest change of a pixel's value, of the 2 from -1 to 1, in a clip that counts as static: coding noise is less."""


@torch.no_grad()
def batch_facts(batch: Mapping[str, Tensor]) -> dict[str, float]:
    """Facts about a batch of clips; the one wait for the device is at the end.

    Args:
        batch: With ``video`` (B, C, T, H, W), or with ``indices`` (B, T', H', W'); nothing is told of others.

    Returns:
        ``data/static_share``: clips in which nothing changes; of indices from the second latent frame on, since the
        first has no past. ``data/repeated_share``: clips that equal another of the batch before them. Of video also
        ``data/min`` and ``data/max``.
    """
    facts: dict[str, Tensor] = {}
    if "video" in batch:
        clips = batch["video"]
        low, high = clips.amin(2), clips.amax(2)  # over time
        facts["data/min"], facts["data/max"] = low.amin(), high.amax()
        facts["data/static_share"] = ((high - low).flatten(1).amax(1) < STILL).float().mean()
    elif "indices" in batch:
        clips = batch["indices"]
        later = clips[:, 1:] if clips.shape[1] > 2 else clips
        if later.shape[1] > 1:
            facts["data/static_share"] = (later == later[:, :1]).flatten(1).all(1).float().mean()
    else:
        return {}
    facts["data/repeated_share"] = _repeated(clips.flatten(1))
    values = torch.stack([fact.float() for fact in facts.values()]).tolist()
    return dict(zip(facts, values, strict=True))


def _repeated(rows: Tensor) -> Tensor:
    """Share of rows that equal one above them."""
    places = torch.arange(rows.shape[1], device=rows.device)
    # A weighted sum stands for a row: comparing rows whole, each with each, would take longer than the step.
    keys = (rows * torch.cos(0.7 * places)).sum(1)
    same = (keys[:, None] == keys[None]).tril(-1)
    return same.any(1).float().mean()
