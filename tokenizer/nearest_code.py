"""Which code of a codebook is nearest, and a first codebook: never a whole matrix of tokens x codes."""

import torch
from torch import Tensor

TILE, TILE_ON_GPU = (256, 4096), (4096, 16384)
"""Features x codes compared at once. On a CPU what fits its cache is ten times faster than what does not."""
ROUNDS = 10


def nearest_code(features: Tensor, codebook: Tensor) -> Tensor:
    """Index of the nearest code: features float (N, D), codebook float (K, D) -> int64 (N,) in [0, K)."""
    rows, columns = TILE if features.device.type == "cpu" else TILE_ON_GPU
    return torch.cat([_nearest(some, codebook, columns) for some in features.split(rows)])


def _nearest(features: Tensor, codebook: Tensor, columns: int) -> Tensor:
    # |x - c|² = |x|² - 2 x·c + |c|², and |x|² is the same for all codes: halved, this is what remains.
    half_norms = codebook.square().sum(1) / 2
    scores, indices = torch.addmm(half_norms[:columns], features, codebook[:columns].T, alpha=-1).min(1)
    for begin in range(columns, len(codebook), columns):
        some = slice(begin, begin + columns)
        others, places = torch.addmm(half_norms[some], features, codebook[some].T, alpha=-1).min(1)
        indices = torch.where(others < scores, places + begin, indices)
        scores = torch.minimum(scores, others)
    return indices


def choices(features: Tensor, indices: Tensor, codebook_size: int) -> tuple[Tensor, Tensor]:
    """How many features (N, D) chose each code, float (K,), and their sums, float (K, D)."""
    counts = torch.bincount(indices, minlength=codebook_size).to(features.dtype)
    sums = features.new_zeros(codebook_size, features.shape[1])
    return counts, sums.index_add_(0, indices, features)


def k_means(features: Tensor, codebook_size: int) -> tuple[Tensor, Tensor]:
    """Codebook (K, D) of features (N, D), and how many of them chose each code (K,).

    With fewer features than codes, the features are the first codes and the others stay unused.
    """
    order = torch.randperm(len(features), device=features.device)[:codebook_size]
    codebook = features.new_zeros(codebook_size, features.shape[1])
    codebook[: len(order)] = features[order]
    counts = (torch.arange(codebook_size, device=features.device) < len(order)).to(features.dtype)
    for _ in range(ROUNDS if len(features) > codebook_size else 0):
        counts, sums = choices(features, nearest_code(features, codebook), codebook_size)
        codebook = torch.where(counts[:, None] > 0, sums / counts[:, None].clamp(min=1), codebook)
    return codebook, counts
