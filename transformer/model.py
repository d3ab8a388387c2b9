"""The GPT over latent grids: which index comes next, given all before it.

Tokens: condition prefix, BOS, then the grid's indices in raster order t, h, w. The token at place n is
told, beside its own index, where the index it must predict will stand, which index stood there one latent
frame earlier (most of a video is what was there before, and attention need not learn to look it up), and
which actions led to the latent frame it belongs to.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from tokenreel.transformer.backbone import Backbone
from tokenreel.transformer.condition_embedding import STD, ConditionEmbedding, Told
from tokenreel.transformer.conditions import Conditions
from tokenreel.transformer.config import GPTConfig
from tokenreel.transformer.context_noise import NOISE_LEVELS, noisy
from tokenreel.transformer.factors import factorize
from tokenreel.transformer.head import FactoredHead, Head, PlainHead
from tokenreel.transformer.index_table import FactoredTable, IndexTable
from tokenreel.transformer.positions import rotary_angles, token_positions
from tokenreel.transformer.pretrained import load_folder, save_folder


class GPTOutput(NamedTuple):
    """One training pass."""

    loss: Tensor
    """What training makes smaller: mean cross-entropy in nats per index; in training mode, with the z-loss."""
    losses: Tensor
    """float32 (B, T'·H'·W'): cross-entropy of each index, in nats."""


class Tables(NamedTuple):
    """The vectors of all indices, worked out once per pass (and once per sampling)."""

    current: Tensor
    """(rows, D): what an index is to the token that carries it."""
    earlier: Tensor
    """(rows, D): what it is as "stood there one latent frame earlier"."""
    places: Tensor
    """(T'·H'·W' + 1, D): where an index stands; the last row is for what would follow the window."""
    head: tuple[Tensor, ...]
    """What it is as the next index."""


class VideoGPT(nn.Module):
    """Autoregressive transformer over the indices of a video tokenizer."""

    gains_from_compile = True  # many small elementwise steps, which fuse
    query_angles: Tensor
    key_angles: Tensor
    places: Tensor

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.size.dim
        _, h_lat, w_lat = config.grid
        self.conditions = ConditionEmbedding(config.conditions, dim)
        # Index K stands for "nothing": BOS has no index of its own, and before the second latent frame
        # there is no earlier one.
        self.index_embedding = _table(config)
        self.earlier_embedding = _table(config)
        self.row_embedding = nn.Embedding(h_lat, dim)
        self.column_embedding = nn.Embedding(w_lat, dim)
        self.noise_embedding = nn.Embedding(1 + NOISE_LEVELS, dim) if config.context_noise else None
        self.backbone = Backbone(config.size)
        self.head = _head(config)
        positions = token_positions(config.grid, config.prefix)
        angles = rotary_angles(positions)
        self.register_buffer("query_angles", angles[1:].clone(), persistent=False)
        self.register_buffer("key_angles", angles[:-1].clone(), persistent=False)
        self.register_buffer("places", positions[config.prefix :], persistent=False)
        for embedding in (self.row_embedding, self.column_embedding, self.noise_embedding):
            if embedding is not None:
                nn.init.normal_(embedding.weight, std=STD)

    def forward(
        self,
        indices: Tensor,
        labels: Tensor | None = None,
        captions: Tensor | None = None,
        actions: Tensor | None = None,
    ) -> GPTOutput:
        """Score every index of a batch of clips.

        Args:
            indices: int64 (B, T', H', W') in [0, K); T' up to the window's, H' and W' the window's.
            labels: Of :class:`~tokenreel.transformer.conditions.Conditions`, as the two that follow; from
                ``config.conditions.tensors``. In training mode a share of them is hidden.
            captions: See there.
            actions: See there.
        """
        tables = self.tables()
        hidden = self.hidden_states(indices, Conditions(labels, captions, actions), tables)
        losses, drift = self.head.losses(hidden, indices.flatten(1), tables.head)
        loss = losses.mean()
        if self.training and self.config.z_loss:
            loss = loss + self.config.z_loss * drift.mean()
        return GPTOutput(loss, losses)

    def hidden_states(self, indices: Tensor, conditions: Conditions, tables: Tables) -> Tensor:
        """What the head predicts each index from: (B, T'·H'·W', D); row n depends on indices before n alone."""
        before = self._flatten(indices)[:, :-1]
        told = self.conditions(conditions, *indices.shape[:2])
        noise = None
        if self.training and self.config.context_noise:
            before, noise = noisy(before, self.config.context_noise)
        tokens = torch.cat([self.embed_prefix(told, tables, noise), self.embed(before, 0, tables, told)], dim=1)
        N = tokens.shape[1]
        return self.backbone(tokens, self.query_angles[:N], self.key_angles[:N])[:, self.config.prefix - 1 :]

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.places.device

    def tables(self) -> Tables:
        """The vectors of all indices under the present weights."""
        _, row, column = self.places.unbind(-1)
        places = self.row_embedding(row) + self.column_embedding(column)
        return Tables(self.index_embedding.rows(), self.earlier_embedding.rows(), places, self.head.read())

    def embed_prefix(self, told: Told, tables: Tables, noise: Tensor | None = None) -> Tensor:
        """Embeddings of conditions and BOS: (B, prefix, D).

        Args:
            told: From :attr:`conditions`.
            tables: From :meth:`tables`.
            noise: int64 (B,), levels of context noise; None is 0.
        """
        first = torch.zeros(len(told.prefix), 1, dtype=torch.int64, device=told.prefix.device)
        nothing = torch.full_like(first, self.config.codebook_size)
        bos = self._embed_pair(nothing, nothing, tables) + self._embed_places(0, 1, tables, told)
        if self.noise_embedding is not None:
            bos = bos + self.noise_embedding(first if noise is None else noise[:, None])
        return torch.cat([told.prefix, bos], dim=1)

    def embed(self, indices: Tensor, start: int, tables: Tables, told: Told, before: Tensor | None = None) -> Tensor:
        """Embeddings of indices in raster order.

        Args:
            indices: int64 (B, n): the indices at places start .. start + n - 1 of the grid.
            start: Place of the first of them.
            tables: From :meth:`tables`.
            told: From :attr:`conditions`.
            before: int64 (B, start): all indices before them; may be None if ``start`` is 0.

        Returns:
            (B, n, D).
        """
        n, frame = indices.shape[1], self.config.indices_per_frame
        history = indices if before is None else torch.cat([before, indices], dim=1)
        nothing = indices.new_full((indices.shape[0], frame), self.config.codebook_size)
        # The token at place p predicts place p + 1; one latent frame before that is p + 1 - frame.
        earlier = torch.cat([nothing, history], dim=1)[:, start + 1 : start + 1 + n]
        return self._embed_pair(indices, earlier, tables) + self._embed_places(start + 1, n, tables, told)

    def _embed_pair(self, current: Tensor, earlier: Tensor, tables: Tables) -> Tensor:
        """An index and the one that stood, a latent frame earlier, where the next one will stand."""
        now = self.index_embedding.look_up(current, tables.current)
        return now + self.earlier_embedding.look_up(earlier, tables.earlier)

    def _embed_places(self, start: int, n: int, tables: Tables, told: Told) -> Tensor:
        """Where the n indices from a place on will stand, and what was done in their latent frames: (B or 1, n, D)."""
        where = tables.places[None, start : start + n]
        if told.frames is None:
            return where
        # The last token of a window predicts nothing: what was done behind it is not asked for.
        frames = self.places[start : start + n, 0].clamp(max=told.frames.shape[1] - 1)
        return where + told.frames[:, frames]

    def _flatten(self, indices: Tensor) -> Tensor:
        """Raster order, after a look at the shape."""
        grid = self.config.grid
        if indices.ndim != 4 or indices.shape[2:] != grid[1:] or not 1 <= indices.shape[1] <= grid[0]:
            raise ValueError(
                f"indices have shape {tuple(indices.shape)}, expected (B, T', H', W') with T' up to {grid[0]} "
                f"and H', W' = {grid[1:]}; this GPT was trained on that grid"
            )
        return indices.flatten(1)

    def save_pretrained(
        self,
        folder: Path | str,
        provenance: Mapping[str, Any] | None = None,
        tokenizer: Path | str | None = None,
    ) -> None:
        """Write config.json, model.safetensors, provenance.json and a copy of the tokenizer's folder.

        With the copy, one folder can sample.
        """
        save_folder(Path(folder), self, self.config, provenance or {}, Path(tokenizer) if tokenizer else None)

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> Self:
        """Load a GPT saved by :meth:`save_pretrained`, or the newest one of a run folder, in eval mode.

        Raises:
            FileNotFoundError: If the folder or its weights are missing.
            ValueError: If its configuration is not one of this version.
        """
        config, state = load_folder(Path(folder))
        model = cls(config)
        model.load_state_dict(state)
        return model.eval()


def _table(config: GPTConfig) -> IndexTable | FactoredTable:
    if config.factors == 1:
        return IndexTable(config.codebook_size, config.size.dim, config.levels, STD)
    return FactoredTable(factorize(config.codebook_size, config.levels), config.size.dim, STD)


def _head(config: GPTConfig) -> Head:
    if config.factors == 1:
        return PlainHead(config.codebook_size, config.size.dim, config.levels)
    return FactoredHead(factorize(config.codebook_size, config.levels), config.size.dim)
