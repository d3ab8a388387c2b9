"""Matrix products of few rows, however the weights are laid out."""

import pytest
import torch
from torch.nn import functional as F

from tokenreel.transformer.products import FEW_ROWS, InEightBits, Precision, laid_out

TOLERANCE = {"fp32": 1e-5, "bf16": 0.02, "int8": 0.03}


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("rows", [1, FEW_ROWS, 12])
@pytest.mark.parametrize("biased", [True, False])
def test_every_layout_is_the_same_product(precision: Precision, rows: int, biased: bool) -> None:
    torch.manual_seed(0)
    weight, x, other = torch.randn(192, 128) / 128**0.5, torch.randn(rows, 128), torch.randn(rows, 192)
    bias = torch.randn(192) if biased else None
    product, expected = laid_out(weight, bias, rows, precision), F.linear(x, weight, bias)
    gate = product.gate(x)
    made = product(x), product.added(x, to=other), gate.float(), product.times(x, gate).float()
    wanted = expected, expected + other, F.silu(expected), expected * F.silu(expected)
    for ours, plain in zip(made, wanted, strict=True):
        torch.testing.assert_close(ours, plain, rtol=0, atol=TOLERANCE[precision] * float(plain.abs().max()))


def test_eight_bits_round_each_output_by_its_own_scale() -> None:
    weight = torch.randn(64, 128) * torch.logspace(-6, 3, 64)[:, None]
    weight[0] = 0
    rounded = InEightBits(weight, None)
    back = rounded.weight.float() * rounded.scales.float()[:, None]
    assert rounded.weight.dtype == torch.int8
    assert ((back - weight).abs() <= weight.abs().amax(dim=1, keepdim=True) / 127).all()
    assert not back[0].any()
