"""The GPT over latent grids: which index comes next, given all before it.

Tokens: condition prefix, then the sequence: BOS and the grid's indices in raster order t, h, w, or with some latent
frames ahead (:mod:`tokenreel.transformer.token_order`). Each token is told, beside its own index, where the index it
must predict will stand, which index stood there one latent frame earlier (most of a video is what was there before,
and attention need not learn to look it up), and which actions led to the latent frame it belongs to.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenreel.transformer.backbone import Backbone
from tokenreel.transformer.clip_chance import drawn_chance
from tokenreel.transformer.condition_embedding import STD, ConditionEmbedding, Told
from tokenreel.transformer.conditions import Conditions
from tokenreel.transformer.config import GPTConfig
from tokenreel.transformer.context_noise import NOISE_LEVELS, noisy
from tokenreel.transformer.factors import factorize
from tokenreel.transformer.frame_parallel import frame_states, hide_indices
from tokenreel.transformer.head import FactoredHead, Head, PlainHead
from tokenreel.transformer.index_table import FactoredTable, IndexTable
from tokenreel.transformer.layout import Layout, layout_name
from tokenreel.transformer.pretrained import load_folder, save_folder
from tokenreel.transformer.token_order import TokenOrder, drawn_order


class GPTOutput(NamedTuple):
    """One training pass."""

    loss: Tensor
    """What training makes smaller: mean cross-entropy in nats per index; in training mode, with the z-loss."""
    losses: Tensor
    """float32 (B, T'·H'·W'): cross-entropy of each index, in nats; with ``decoding`` "frame" their mean alone means
    something: those that were not hidden are 0, the others weigh more."""


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
        layouts = {layout_name(frame): Layout((config.grid[0], *frame), config.prefix) for frame in config.frames}
        self.layouts = nn.ModuleDict(layouts)
        for embedding in (self.row_embedding, self.column_embedding, self.noise_embedding):
            if embedding is not None:
                nn.init.normal_(embedding.weight, std=STD)

    def forward(
        self,
        indices: Tensor,
        labels: Tensor | None = None,
        captions: Tensor | None = None,
        actions: Tensor | None = None,
        chance: Tensor | None = None,
    ) -> GPTOutput:
        """Score every index of a batch of clips.

        Args:
            indices: int64 (B, T', H', W') in [0, K); T' up to the window's, H' and W' of a size in ``config.frames``.
            labels: Of :class:`~tokenreel.transformer.conditions.Conditions`, as the two that follow; from
                ``config.conditions.tensors``. In training mode a share of them is hidden.
            captions: See there.
            actions: See there.
            chance: int64 (B, 2), 0 or more, from which all is worked out that training leaves to chance, but for
                dropout: a number of the step, in every row, and one of each clip. Drawn if None.
        """
        flat, layout, order = self._flatten(indices), self.layout(indices.shape[2:]), None
        tables = self.tables(layout.grid[1:])
        if self.training and chance is None:
            chance = drawn_chance(len(indices), self.device)
        if chance is not None and self.training and self.config.infilling and indices.shape[1] == self.config.grid[0]:
            order = drawn_order(layout.grid, self.config.infilling, chance[:1, 0])
        conditions = Conditions(labels, captions, actions)
        in_frames = self.config.decoding == "frame"
        if in_frames:
            part = hide_indices(indices, chance[:, 1] if chance is not None and self.training else None)
            hidden = frame_states(self, indices, conditions, tables, order or layout.order, part, chance)
        else:
            hidden = self.hidden_states(indices, conditions, tables, order, chance)
        losses, drift = self.head.losses(hidden, flat if order is None else flat[:, order.places[:-1]], tables.head)
        if in_frames:
            losses, drift = losses * part.weight, drift * part.weight
        loss = losses.mean()
        if self.training and self.config.z_loss:
            loss = loss + self.config.z_loss * drift.mean()
        return GPTOutput(loss, losses if order is None else losses[:, order.places[:-1].argsort()])

    def hidden_states(
        self,
        indices: Tensor,
        conditions: Conditions,
        tables: Tables,
        order: TokenOrder | None = None,
        chance: Tensor | None = None,
    ) -> Tensor:
        """What the head predicts each index from: (B, T'·H'·W', D), in the order of the sequence.

        Row n depends on the n indices before it alone.
        """
        flat, told = self._flatten(indices), self.conditions(conditions, *indices.shape[:2], chance)
        n = flat.shape[1]
        if order is not None:
            flat = flat[:, order.places[:n]]
        before, noise = flat[:, :-1], None
        if self.training and self.config.context_noise:
            chance = drawn_chance(len(indices), self.device) if chance is None else chance
            before, noise = noisy(before, self.config.context_noise, chance[:, 1])
        order = order or self.layout(indices.shape[2:]).order
        at = torch.arange(n, device=flat.device)
        sequence = self.sequence(before)
        tokens = torch.cat([told.prefix, self.embed(sequence, at, order, tables, told, noise=noise)], dim=1)
        query_angles, key_angles = self.angles(order, n)
        return self.backbone(tokens, query_angles, key_angles)[:, self.config.prefix - 1 :]

    def layout(self, frame: Sequence[int] | None = None) -> Layout:
        """Where tokens stand, for latent frames of a size (H', W'); None is the first it was trained on.

        Raises:
            ValueError: If it was not trained on that size.
        """
        name = layout_name(self.config.frames[0] if frame is None else (frame[0], frame[1]))
        if name not in self.layouts:
            raise ValueError(
                f"latent frames of {name} indices, expected {' or '.join(self.layouts)}, the sizes this GPT was "
                "trained on"
            )
        layout = self.layouts[name]
        assert isinstance(layout, Layout)
        return layout

    def angles(self, order: TokenOrder, n: int) -> tuple[Tensor, Tensor]:
        """Rotary angles of queries and keys, (prefix - 1 + n, 32) each, of the first n tokens of the sequence."""
        return self.layout(order.frame).angles(order, n, own=self.config.decoding == "frame")

    @property
    def blocks(self) -> list[nn.Module]:
        """Most of its weights: what runs one after the other, so that each can be fetched when its turn comes."""
        return self.backbone.blocks

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.row_embedding.weight.device

    def tables(self, frame: Sequence[int] | None = None) -> Tables:
        """The vectors of all indices under the present weights, and of places in frames as in :meth:`layout`."""
        _, row, column = self.layout(frame).places.unbind(-1)
        places = self.row_embedding(row) + self.column_embedding(column)
        return Tables(self.index_embedding.rows(), self.earlier_embedding.rows(), places, self.head.read())

    def sequence(self, indices: Tensor) -> Tensor:
        """BOS, which has the index K, and indices int64 (B, n) in order: int64 (B, 1 + n)."""
        return F.pad(indices, (1, 0), value=self.config.codebook_size)

    def embed(
        self,
        sequence: Tensor,
        at: Tensor,
        order: TokenOrder,
        tables: Tables,
        told: Told,
        current: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Embeddings of some tokens of a sequence.

        Args:
            sequence: int64 (B, 1 + n), from :meth:`sequence`, of which what is before those tokens must be there.
            at: int64 (m,) or (B, m): their positions in it.
            order: Of the sequence.
            tables: From :meth:`tables`.
            told: From :attr:`conditions`.
            current: int64 (B, m): what they carry, instead of what stands at those positions.
            noise: int64 (B,), levels of context noise, if BOS is the first of the tokens; None is 0.

        Returns:
            (B, m, D).
        """
        where, earlier = order.places[at], order.earlier[at]
        current = _taken(sequence, at) if current is None else current
        earlier = _taken(sequence, earlier)
        tokens = self.index_embedding.look_up(current, tables.current)
        tokens = tokens + self.earlier_embedding.look_up(earlier, tables.earlier) + tables.places[where]
        if told.frames is not None:
            # The last token of a window predicts nothing: what was done behind it is not asked for.
            frames = self.layout(order.frame).places[where, 0].clamp(max=told.frames.shape[1] - 1)
            tokens = tokens + _taken(told.frames, frames)
        if self.noise_embedding is not None:
            level = torch.zeros_like(sequence[:, 0]) if noise is None else noise
            of_bos = self.noise_embedding(level)[:, None]
            tokens = torch.where((at == 0)[..., None], tokens + of_bos, tokens)
        return tokens

    def _flatten(self, indices: Tensor) -> Tensor:
        """Raster order, after a look at the shape."""
        grid = self.config.grid
        fits = indices.ndim == 4 and 1 <= indices.shape[1] <= grid[0] and tuple(indices.shape[2:]) in self.config.frames
        if not fits:
            raise ValueError(
                f"indices have shape {tuple(indices.shape)}, expected (B, T', H', W') with T' up to {grid[0]} "
                f"and H', W' = {' or '.join(map(str, self.config.frames))}; this GPT was trained on that grid"
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


def _taken(rows: Tensor, at: Tensor) -> Tensor:
    """Rows (B, n, ...) at positions that are those of every clip, (m,), or of each its own, (B, m): (B, m, ...)."""
    return rows[:, at] if at.ndim == 1 else rows[torch.arange(len(rows), device=rows.device)[:, None], at]
