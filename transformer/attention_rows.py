"""Causal attention as ordinary products, a few rows of the score matrix at a time: for CPUs that multiply in bf16.

There torch's flash kernel for CPUs reaches a quarter of the speed of a product; this takes two thirds of its time.
No more than the rows at hand is ever in memory: the backward pass works them out again. Scores are rounded to bf16,
which changes gradients by less than 1 %, by 2 % where attention is very sharp: twice what rounding queries and keys
does. One opaque operation for torch.compile, which would otherwise unroll every product.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

ROWS = 128
"""Enough for a product to be fast; each row also scores the rows of its own block that come after it."""


@torch.library.custom_op("tokenreel::attend_by_rows", mutates_args=())
def attend_by_rows(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Softmax attention of each row to itself and the rows before it, differentiable.

    Args:
        queries: float (B·heads, N, d).
        keys: The same shape.
        values: The same shape.

    Returns:
        The same shape.
    """
    out = queries.new_empty(queries.shape)
    for begin, end in _blocks(queries):
        out[:, begin:end] = _probabilities(queries, keys, begin, end) @ values[:, :end]
    return out


@torch.library.custom_op("tokenreel::attend_by_rows_backward", mutates_args=())
def attend_by_rows_backward(
    grad: Tensor, queries: Tensor, keys: Tensor, values: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values, given that of the output; all (B·heads, N, d)."""
    of_queries = queries.new_empty(queries.shape)
    # Sums over blocks of rows, which bf16 would round each time.
    of_keys, of_values = (torch.zeros(keys.shape, dtype=torch.promote_types(keys.dtype, torch.float32)) for _ in "kv")
    for begin, end in _blocks(queries):
        probabilities, given = _probabilities(queries, keys, begin, end), grad[:, begin:end]
        of_values[:, :end] += probabilities.mT @ given
        of_probabilities = given @ values[:, :end].mT
        of_scores = torch._softmax_backward_data(of_probabilities, probabilities, -1, probabilities.dtype)
        of_scores *= _scale(queries)
        of_queries[:, begin:end] = of_scores @ keys[:, :end]
        of_keys[:, :end] += of_scores.mT @ queries[:, begin:end]
    return of_queries, of_keys.to(keys.dtype), of_values.to(values.dtype)


def _blocks(queries: Tensor) -> Iterator[tuple[int, int]]:
    for begin in range(0, queries.shape[1], ROWS):
        yield begin, min(begin + ROWS, queries.shape[1])


def _probabilities(queries: Tensor, keys: Tensor, begin: int, end: int) -> Tensor:
    """Rows begin .. end - 1 of the matrix of probabilities: (B·heads, rows, end)."""
    scores = (queries[:, begin:end] * _scale(queries)) @ keys[:, :end].mT
    future = torch.ones(end - begin, end - begin, dtype=torch.bool).triu(1)
    scores[:, :, begin:].masked_fill_(future, -torch.inf)
    return scores.softmax(-1)


def _scale(queries: Tensor) -> float:
    return float(queries.shape[-1] ** -0.5)  # of 64 dimensions a power of two: nothing is rounded


@attend_by_rows.register_fake
def _(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return queries.new_empty(queries.shape)


@attend_by_rows_backward.register_fake
def _(grad: Tensor, queries: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return queries.new_empty(queries.shape), keys.new_empty(keys.shape), values.new_empty(values.shape)


def _remember(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return attend_by_rows_backward(grad, *ctx.saved_tensors)


attend_by_rows.register_autograd(_backward, setup_context=_remember)
