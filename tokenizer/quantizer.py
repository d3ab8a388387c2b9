"""Finite scalar and vector quantization: the only file that imports vector-quantize-pytorch.

The library's FSQ is used as it is. Of its VectorQuantize we use the codebook and the rotation trick, by names that are
not public: tests/test_quantizers.py compares our steps with its own. The steps are ours since the library's matrices
of tokens x codes (distances, one-hot in int64 and in float) cost ten times as much, and since its restart of dead
codes, a share of the average use, kills rare ones.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from vector_quantize_pytorch import FSQ, VectorQuantize
from vector_quantize_pytorch.vector_quantize_pytorch import rotate_to

from tokenreel.tokenizer.config import TokenizerConfig
from tokenreel.tokenizer.nearest_code import choices, k_means, nearest_code
from tokenreel.tokenizer.process_group import gathered, same_as_first, same_chance, summed
from tokenreel.tokenizer.quantized import Quantized, Quantizer
from tokenreel.tokenizer.quantizer_binary import BinaryQuantizer

PATIENCE_STEPS, PATIENCE_CHOICES = 50, 20
"""A code is dead when nothing chose it for so many steps, in which the average code was chosen so many times.

Counted like this, rare codes live: a share of the average use would kill those of all that is not background."""


class FSQuantizer(Quantizer):
    """Finite scalar quantization: each of a few dimensions is rounded to a few levels; nothing to learn.

    Source: Mentzer et al., 2023, "Finite Scalar Quantization: VQ-VAE Made Simple".
    """

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.dim = len(config.levels)
        self.codebook_size = config.codebook_size
        self.fsq = FSQ(list(config.levels))

    def forward(self, features: Tensor) -> Quantized:
        """Features (B, t, h, w, D) -> :class:`Quantized`; no losses."""
        codes, indices = self.fsq(features.float().flatten(1, 3))  # nothing in it that autocast would lower
        none = codes.new_zeros(())
        return Quantized(codes.view(features.shape), indices.long().view(features.shape[:-1]), none, none)

    @torch.no_grad()
    def indices(self, features: Tensor) -> Tensor:
        """Features (B, t, h, w, D) -> indices int64 (B, t, h, w)."""
        return self.forward(features).indices

    def codes(self, indices: Tensor) -> Tensor:
        """Indices int64 (B, t, h, w) -> codes (B, t, h, w, D)."""
        return self.fsq.indices_to_codes(indices.flatten(1)).view(*indices.shape, self.dim)


class VQuantizer(Quantizer):
    """A learned codebook, moved by exponential averages of the features that chose each code.

    It begins as the k-means of the first features seen in training, and codes that nothing chooses are put where
    features are: without both, 95 of 1,024 codes were used. Several processes learn one codebook, the one that a
    single process would learn from all their features.
    Source: van den Oord et al., 2017; rotation trick: Fifty et al., 2024.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.dim = config.vq_codebook_dim
        self.codebook_size = config.codebook_size
        self.vq = VectorQuantize(
            self.dim,
            config.codebook_size,
            decay=config.vq_decay,
            kmeans_init=True,
            sync_codebook=False,  # the library asks once, at construction; we ask at every step
        )
        self.idle: Tensor  # steps since a code was last chosen, float (K,)
        self.register_buffer("idle", torch.zeros(config.codebook_size))
        # Kept beside the buffer of that meaning: asking a tensor is a wait for the GPU, and a break of the graph.
        self._made = False
        self.register_load_state_dict_post_hook(lambda module, _: module._look_whether_made())
        self._accumulating = False
        self._held: tuple[Tensor, Tensor] | None = None

    def forward(self, features: Tensor) -> Quantized:
        """Features (B, t, h, w, D) -> :class:`Quantized`; in training mode the codebook moves.

        Raises:
            ValueError: In eval mode, if the codebook was never trained.
        """
        with torch.autocast(features.device.type, enabled=False):
            flat = features.float().flatten(0, 3)
            begins = self.training and not self._made
            if begins:
                self._begin(flat.detach())
            indices = self._nearest(flat.detach())
            codes = self._book.embed[0][indices]
            commitment_loss = F.mse_loss(flat, codes)
            if self.training:
                if not begins:  # from features that it was made of there is nothing to learn
                    self._learn(flat.detach(), indices)
                codes = rotate_to(flat, codes)
        none = codes.new_zeros(())
        return Quantized(codes.view(features.shape), indices.view(features.shape[:-1]), commitment_loss, none)

    @torch.no_grad()
    def indices(self, features: Tensor) -> Tensor:
        """Features (B, t, h, w, D) -> indices int64 (B, t, h, w); nothing moves, in training mode either.

        Raises:
            ValueError: If the codebook was never trained.
        """
        with torch.autocast(features.device.type, enabled=False):
            return self._nearest(features.float().flatten(0, 3)).view(features.shape[:-1])

    def codes(self, indices: Tensor) -> Tensor:
        """Indices int64 (B, t, h, w) -> codes (B, t, h, w, D)."""
        return self._book.embed[0][indices]

    @contextmanager
    def accumulating(self) -> Iterator[None]:
        """Around every micro-batch of a step but its last one: the codebook moves with the last one only."""
        self._accumulating = True
        try:
            yield
        finally:
            self._accumulating = False

    @property
    def _book(self) -> Any:
        return self.vq._codebook

    def _look_whether_made(self) -> None:
        self._made = bool(self._book.initted)

    def _nearest(self, flat: Tensor) -> Tensor:
        if not self._made:
            # One made up from these features would depend on the future.
            raise ValueError("the VQ codebook is empty, expected one from at least one training step; train it first")
        return nearest_code(flat, self._book.embed[0])

    @torch.compiler.disable
    @torch.no_grad()
    def _begin(self, flat: Tensor) -> None:
        """Make the codebook by k-means."""
        everyones, book = gathered(flat), self._book
        with same_chance(flat.device):
            # GPUs add up in any order, so each would find another one.
            codebook, counts = (same_as_first(found) for found in k_means(everyones, self.codebook_size))
        book.embed.copy_(codebook)
        book.embed_avg.copy_(codebook * counts[:, None])
        book.cluster_size.copy_(counts)
        book.initted.fill_(True)
        self.idle.masked_fill_(counts == 0, math.inf)
        self._made = True

    @torch.compiler.disable
    @torch.no_grad()
    def _learn(self, flat: Tensor, indices: Tensor) -> None:
        """Move each code towards the mean of the features (N, D) that chose it."""
        book = self._book
        counts, sums = choices(flat, indices, self.codebook_size)
        if self._held is not None:
            counts, sums = counts + self._held[0], sums + self._held[1]
        self._held = (counts, sums) if self._accumulating else None
        if self._accumulating:
            return
        counts, sums = summed(counts), summed(sums)
        book.cluster_size.lerp_(counts[None], 1 - book.decay)
        book.embed_avg.lerp_(sums[None], 1 - book.decay)
        # The others stay as they are: both averages shrink alike.
        chosen = (counts > 0).nonzero().flatten()
        book.embed[0, chosen] = book.embed_avg[0, chosen] / book.cluster_size[0, chosen, None]
        self._restart_dead_codes(flat, counts)

    def _restart_dead_codes(self, flat: Tensor, counts: Tensor) -> None:
        """Put codes that nothing chose for long where features are."""
        average, book = counts.sum() / self.codebook_size, self._book
        self.idle.add_(1).masked_fill_(counts > 0, 0)
        dead = (self.idle > (PATIENCE_CHOICES / average).clamp(min=PATIENCE_STEPS)).nonzero().flatten()
        if not len(dead):
            return
        everyones = gathered(flat)
        with same_chance(flat.device):
            places = everyones[torch.randperm(len(everyones), device=flat.device)[: len(dead)]]
        dead = dead[: len(places)]  # the others wait for further features
        # As if chosen in this step alone: they soon follow the features that choose them.
        weight = (1 - book.decay) * average
        book.embed[0, dead] = places
        book.embed_avg[0, dead] = places * weight
        book.cluster_size[0, dead] = weight
        self.idle[dead] = 0


def build_quantizer(config: TokenizerConfig) -> Quantizer:
    """The quantizer that the configuration names."""
    kinds = {"fsq": FSQuantizer, "vq": VQuantizer, "bsq": BinaryQuantizer, "lfq": BinaryQuantizer}
    return kinds[config.quantizer](config)
