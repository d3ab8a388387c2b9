"""Conditions as vectors: tokens before the grid for a whole clip, one vector per latent frame for its actions."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenreel.transformer.clip_chance import HIDE, drawn_chance, uniform
from tokenreel.transformer.conditions import WORD_BYTES, ConditionConfig, Conditions

STD = 0.02
"""Of the vectors at the start."""


class Told(NamedTuple):
    """What conditions add to the tokens, worked out once per pass (and once per sampling)."""

    prefix: Tensor
    """(B, 1 + W, D): the class, then the words of the caption."""
    frames: Tensor | None
    """(B, T', D): of each latent frame, for every token that predicts an index in it; None without actions."""


class ConditionEmbedding(nn.Module):
    """All conditions of a GPT.

    Args:
        config: What it can be conditioned on.
        dim: D.
    """

    def __init__(self, config: ConditionConfig, dim: int) -> None:
        super().__init__()
        self.config = config
        self.label = nn.Embedding(1 + len(config.labels), dim)
        nn.init.normal_(self.label.weight, std=STD)
        self.caption = _caption_embedding(config, dim) if config.caption_words else None
        self.action = _action_embedding(config, dim) if "actions" in config.kinds else None

    def forward(self, conditions: Conditions, batch: int, t_lat: int, chance: Tensor | None = None) -> Told:
        """Embed the conditions of a batch; in training a share of them is hidden.

        Args:
            conditions: Of ``batch`` clips; None parts say nothing.
            batch: B.
            t_lat: T', latent frames that actions are needed for.
            chance: int64 (B, 2), by which it is chosen what is hidden; drawn if None.
        """
        whole = self._whole(conditions, batch, t_lat)
        if self.training and self.config.kinds and self.config.dropout > 0:
            chance = drawn_chance(batch, self.label.weight.device) if chance is None else chance
            whole = hide(whole, self.config.dropout, chance[:, 1])
        assert whole.labels is not None
        prefix = self.label(whole.labels)[:, None]
        if self.caption is not None:
            prefix = torch.cat([prefix, self.caption(whole.captions)], dim=1)
        return Told(prefix, None if self.action is None else self.action(whole.actions))

    def _whole(self, conditions: Conditions, batch: int, t_lat: int) -> Conditions:
        """With "nothing" for every part that is None, and actions of T' latent frames."""
        config, device = self.config, self.label.weight.device
        labels, captions, actions = conditions
        if labels is None:
            labels = torch.zeros(batch, dtype=torch.int64, device=device)
        if captions is None and config.text_encoder:
            captions = torch.zeros(batch, config.caption_words, config.text_dim, device=device)
        elif captions is None:
            captions = torch.zeros(batch, config.caption_words, WORD_BYTES, dtype=torch.int64, device=device)
        if actions is None and config.action_size:
            shape = (batch, t_lat, config.frames_per_latent, config.action_size)
            actions = torch.full(shape, torch.nan, device=device)
        elif actions is None:
            actions = torch.zeros(batch, t_lat, config.frames_per_latent, dtype=torch.int64, device=device)
        for name, part in (("labels", labels), ("captions", captions), ("actions", actions)):
            if len(part) != batch or (name == "actions" and part.shape[1] < t_lat):
                raise ValueError(
                    f"{name} have shape {tuple(part.shape)}, expected those of {batch} clips and {t_lat} latent frames"
                )
        return Conditions(labels, captions, actions[:, :t_lat])


def hide(conditions: Conditions, share: float, numbers: Tensor) -> Conditions:
    """Hide conditions of some clips of a batch, each clip on its own, by a random number int64 (B,) of each.

    All of them with probability ``share``, and each kind with that probability. Actions also with that
    probability up to a random latent frame: a prompt's are often unknown when those that follow are not.
    """
    labels, captions, actions = conditions
    assert labels is not None and captions is not None and actions is not None
    drawn = uniform(numbers, 6, HIDE).T
    everything = drawn[0] < share
    begun = torch.where(drawn[3] < share, drawn[4], 0.0) * actions.shape[1]
    unknown = torch.arange(actions.shape[1], device=actions.device) < begun[:, None].ceil()
    unknown = unknown | (everything | (drawn[1] < share))[:, None]
    nothing = torch.nan if actions.is_floating_point() else 0
    return Conditions(
        labels.masked_fill(everything | (drawn[2] < share), 0),
        captions.masked_fill((everything | (drawn[5] < share))[:, None, None], 0),
        actions.masked_fill(unknown.view(*unknown.shape, *[1] * (actions.ndim - 2)), nothing),
    )


class WordEmbedding(nn.Module):
    """One vector per word, from its letters and their places in it: int64 (B, W, 16) -> (B, W, D).

    Words are learned from few examples this way, wherever they stand in a sentence, and the prefix stays
    short: a token per word instead of one per byte.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.letters = nn.Embedding(WORD_BYTES * 257, dim)
        self.mix = _perceptron(dim)
        self.register_buffer("places", torch.arange(WORD_BYTES) * 257, persistent=False)

    places: Tensor

    def forward(self, spelled: Tensor) -> Tensor:
        """Embed words."""
        return self.mix(self.letters(spelled + self.places).sum(dim=2))


class DiscreteActions(nn.Module):
    """One vector per latent frame, from the actions that led to its frames: int64 (B, T', s) -> (B, T', D)."""

    def __init__(self, config: ConditionConfig, dim: int) -> None:
        super().__init__()
        self.values = 1 + len(config.action_names)
        self.table = nn.Embedding(config.frames_per_latent * self.values, dim)
        self.mix = _perceptron(dim)

    def forward(self, actions: Tensor) -> Tensor:
        """Embed actions."""
        places = torch.arange(actions.shape[2], device=actions.device) * self.values
        return self.mix(self.table(actions + places).sum(dim=2))


class VectorActions(nn.Module):
    """The same for actions that are vectors: float (B, T', s, size), not-a-number where unknown -> (B, T', D)."""

    def __init__(self, config: ConditionConfig, dim: int) -> None:
        super().__init__()
        self.read = nn.Linear(config.frames_per_latent * (config.action_size + 1), dim)
        self.mix = _perceptron(dim)

    def forward(self, actions: Tensor) -> Tensor:
        """Embed actions."""
        known = ~actions.isnan().any(dim=-1, keepdim=True)
        told = torch.cat([actions.where(known, 0.0), known.to(actions.dtype)], dim=-1)
        return self.mix(self.read(told.flatten(2)))


def _caption_embedding(config: ConditionConfig, dim: int) -> nn.Module:
    return nn.Linear(config.text_dim, dim) if config.text_encoder else WordEmbedding(dim)


def _action_embedding(config: ConditionConfig, dim: int) -> nn.Module:
    return VectorActions(config, dim) if config.action_size else DiscreteActions(config, dim)


class _Norm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:])


def _perceptron(dim: int) -> nn.Sequential:
    """What letters or actions mean together; its output starts as small as the other embeddings."""
    last = nn.Linear(dim, dim)
    nn.init.normal_(last.weight, std=3 * STD / dim**0.5)
    nn.init.zeros_(last.bias)
    return nn.Sequential(_Norm(), nn.Linear(dim, dim), nn.SiLU(), last)
