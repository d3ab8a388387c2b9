"""The layers as trained: what x-transformers itself computes, in rows or at once, with or without checkpoints."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenreel.transformer.attention_rows import ROWS, attend_by_rows
from tokenreel.transformer.backbone import Backbone
from tokenreel.transformer.config import GPTSize
from tokenreel.transformer.positions import rotary_angles, token_positions

ANGLES = rotary_angles(token_positions((3, 4, 3), 2))[:-1]
N = len(ANGLES)


def backbone(dropout: float = 0.0) -> Backbone:
    """Two layers in which everything matters: as made, every branch ends in zeros."""
    layers = Backbone(GPTSize(dim=128, depth=2, dropout=dropout))
    for parameter in layers.parameters():
        nn.init.normal_(parameter, std=0.2)
    return layers


def gradients(layers: Backbone, x: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """Of every parameter, under the same random numbers."""
    torch.manual_seed(seed)
    layers.zero_grad()
    layers(x, ANGLES, ANGLES).square().mean().backward()
    return {name: p.grad.clone() for name, p in layers.named_parameters() if p.grad is not None}


def test_our_layers_are_the_librarys() -> None:
    layers, x = backbone(), torch.randn(2, N, 128)
    paired = ANGLES.repeat_interleave(2, dim=-1)[None]  # the library turns neighbours (2j, 2j + 1) as a pair
    theirs = layers.decoder(x, rotary_pos_emb=(paired, 1.0))
    torch.testing.assert_close(layers(x, ANGLES, ANGLES), theirs, rtol=1e-4, atol=1e-4)
    theirs.square().mean().backward()
    expected = {name: p.grad.clone() for name, p in layers.named_parameters()}
    for name, gradient in gradients(layers, x).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-5)
    assert len(expected) == len(gradients(layers, x))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_checkpoints_change_memory_and_not_gradients(dropout: float) -> None:
    layers, x = backbone(dropout).train(), torch.randn(2, N, 128)
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept[-1] += tensor.nbytes
        return tensor

    found = []
    for layers.checkpoint_activations in (False, True):
        kept.append(0)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            found.append(gradients(layers, x))
    assert all(torch.equal(gradient, found[1][name]) for name, gradient in found[0].items())
    assert kept[1] < kept[0] / 5
    if dropout:
        assert not torch.equal(*(next(iter(gradients(layers, x, seed).values())) for seed in (0, 1)))


@pytest.mark.parametrize("n", [1, ROWS, ROWS + 1, 2 * ROWS + 5])
def test_attention_by_rows_is_attention(n: int) -> None:
    inputs = [torch.randn(3, n, 64, requires_grad=True) for _ in range(3)]
    given = torch.randn(3, n, 64)
    for ours, theirs in zip(
        (attend_by_rows(*inputs), *torch.autograd.grad(attend_by_rows(*inputs), inputs, given)),
        (
            expected := F.scaled_dot_product_attention(*inputs, is_causal=True),
            *torch.autograd.grad(expected, inputs, given),
        ),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    torch.library.opcheck(attend_by_rows, tuple(inputs))


@pytest.mark.parametrize(("sharpness", "largest"), [(1, 0.01), (4, 0.02)])
def test_in_bf16_attention_by_rows_errs_little(sharpness: int, largest: float) -> None:
    exact = [torch.randn(4, 300, 64).bfloat16() for _ in range(3)]
    exact[0] *= sharpness
    given = torch.randn(4, 300, 64).bfloat16()
    found, right = (
        torch.autograd.grad(attend(*inputs), inputs, given.to(inputs[0].dtype))
        for attend, inputs in (
            (attend_by_rows, [x.detach().requires_grad_() for x in exact]),
            (partial(F.scaled_dot_product_attention, is_causal=True), [x.float().requires_grad_() for x in exact]),
        )
    )
    for gradient, expected in zip(found, right, strict=True):
        assert 0 < (gradient.float() - expected).norm() / expected.norm() < largest


def test_training_is_one_graph() -> None:
    layers, x = backbone(), torch.randn(2, N, 128)
    compiled = torch.compile(layers, backend="eager", fullgraph=True, dynamic=False)
    torch.testing.assert_close(compiled(x, ANGLES, ANGLES), layers(x, ANGLES, ANGLES))
