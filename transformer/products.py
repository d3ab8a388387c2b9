"""Matrix products of few rows: what a decode step spends its time on, and what reads the weights.

Few rows use the processor's arithmetic badly; reading the weights is what takes time. So the weights are laid out
once, for the number of rows that a step has: on CPUs one row is fastest times the transposed matrix, several rows
times one that oneDNN has packed, with additions and activations done on the way out. In 8 bits a weight is a quarter
as large, and a few rows are read that much faster; for more rows the same rounded weights are packed in bfloat16.

In a sketch on one core (AVX-512), all matrices of a GPT of dim 256 and depth 4, read from memory: one row 1.3 ms
transposed, 1.8 ms as ``F.linear``; 12 rows 1.8 ms packed, 3.4 ms as ``F.linear``, 1.2 ms packed in bfloat16.
"""

from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

Precision = Literal["fp32", "bf16", "int8"]
FEW_ROWS = 4
"""Up to so many torch's products with weights of 8 bits are faster than oneDNN's in bfloat16."""


class Product(Protocol):
    """A weight (out, in), and a bias or none: x (rows, in) -> (rows, out), float32."""

    def __call__(self, x: Tensor) -> Tensor:
        """The product."""

    def added(self, x: Tensor, to: Tensor) -> Tensor:
        """The product plus ``to`` (rows, out)."""

    def gate(self, x: Tensor) -> Tensor:
        """SiLU of the product."""

    def times(self, x: Tensor, gate: Tensor) -> Tensor:
        """The product times what :meth:`gate` of another of the same size gave."""


def laid_out(weight: Tensor, bias: Tensor | None, rows: int, precision: Precision = "fp32") -> Product:
    """Lay out a weight.

    Args:
        weight: float32 (out, in).
        bias: float32 (out,) or none.
        rows: What most products have; others are possible, but may be slower.
        precision: Of the weights; the rows that are multiplied by them are float32 or bfloat16.
    """
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    if precision == "int8":
        rounded = InEightBits(weight, bias)
        if weight.device.type == "cpu" and rows <= FEW_ROWS and hasattr(torch, "_weight_int8pack_mm"):
            return rounded
        weight = rounded.weight.float() * rounded.scales.float()[:, None]
    if weight.device.type == "cpu" and (rows > 1 or dtype != torch.float32) and _packs(dtype):
        return Packed(weight.to(dtype), bias, rows)
    return Transposed(weight.to(dtype), bias)


class Transposed:
    """Kept as (in, out): for one row on a CPU, and wherever torch's own products are good."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight = weight.T.contiguous()
        self.bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        """See :class:`Product`."""
        if self.weight.dtype != torch.float32:
            product = (x.to(self.weight.dtype) @ self.weight).float()
            return product if self.bias is None else product + self.bias
        return x @ self.weight if self.bias is None else torch.addmm(self.bias, x, self.weight)

    def added(self, x: Tensor, to: Tensor) -> Tensor:
        """See :class:`Product`."""
        plain = self.bias is None and self.weight.dtype == torch.float32
        return torch.addmm(to, x, self.weight) if plain else to + self(x)

    def gate(self, x: Tensor) -> Tensor:
        """See :class:`Product`."""
        return F.silu(self(x))

    def times(self, x: Tensor, gate: Tensor) -> Tensor:
        """See :class:`Product`."""
        return self(x).mul_(gate)


class InEightBits:
    """Integers of -127 to 127 and a scale for each output, by the products that torch has for models so quantized."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.scales = (weight.abs().amax(dim=1).clamp_min(1e-12) / 127).to(torch.bfloat16)
        self.weight = (weight / self.scales.float()[:, None]).round().clamp(-127, 127).to(torch.int8)
        self.bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        """See :class:`Product`."""
        product = torch._weight_int8pack_mm(x.to(torch.bfloat16), self.weight, self.scales).float()
        return product if self.bias is None else product.add_(self.bias)

    def added(self, x: Tensor, to: Tensor) -> Tensor:
        """See :class:`Product`."""
        return self(x).add_(to)

    def gate(self, x: Tensor) -> Tensor:
        """See :class:`Product`."""
        return F.silu(self(x))

    def times(self, x: Tensor, gate: Tensor) -> Tensor:
        """See :class:`Product`."""
        return self(x).mul_(gate)


class Packed:
    """As oneDNN wants it, by torch's operations for compiled models, which do the elementwise part as well."""

    def __init__(self, weight: Tensor, bias: Tensor | None, rows: int) -> None:
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), rows)
        self.dtype = weight.dtype
        self.bias = None if bias is None else bias.to(weight.dtype)

    def __call__(self, x: Tensor) -> Tensor:
        """See :class:`Product`."""
        return self._product(x, "none").float()

    def added(self, x: Tensor, to: Tensor) -> Tensor:
        """See :class:`Product`."""
        if self.dtype != torch.float32:  # what is added up over the layers keeps its digits
            return to + self._product(x, "none")
        return self._product_with(x, to, "add")

    def gate(self, x: Tensor) -> Tensor:
        """See :class:`Product`."""
        return self._product(x, "swish")

    def times(self, x: Tensor, gate: Tensor) -> Tensor:
        """See :class:`Product`."""
        return self._product_with(x, gate, "mul")

    def _product(self, x: Tensor, then: str) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x.to(self.dtype), self.weight, self.bias, then, [], "")
        return out

    def _product_with(self, x: Tensor, other: Tensor, then: str) -> Tensor:
        x = x.to(self.dtype)
        out: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, other, self.weight, self.bias, then)
        return out


def _packs(dtype: torch.dtype) -> bool:
    """Whether torch on this processor has oneDNN's packed products; they are not part of its public interface."""
    names = ("_linear_pointwise", "_reorder_linear_weight", "_is_mkldnn_bf16_supported")
    if not torch.backends.mkldnn.is_available() or not all(hasattr(torch.ops.mkldnn, name) for name in names):
        return False
    return dtype == torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
