"""Muon for matrices, AdamW for everything else, as one optimizer with one learning rate.

Muon replaces the momentum of a weight matrix by the nearest orthogonal matrix, so that every direction of
it learns at the same speed. Scaled to AdamW's typical update size, both share one learning rate.

Source: Jordan et al., 2024, "Muon"; update scale: Liu et al., 2025, "Muon is Scalable for LLM Training".
"""

from collections import defaultdict
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from tokenreel.training.sharding import own, with_whole_matrices

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
MOMENTUM = 0.95
BETAS = (0.9, 0.95)
EPS = 1e-8


def orthogonalize(matrices: Tensor, iterations: int = 5) -> Tensor:
    """Nearest orthogonal matrices, roughly: singular values are pressed to about 1.

    Args:
        matrices: float (N, rows, columns).
        iterations: Newton-Schulz steps; 5 bring singular values into about [0.7, 1.2].
    """
    a, b, c = NEWTON_SCHULZ
    x = matrices / (torch.linalg.matrix_norm(matrices, keepdim=True) + 1e-7)
    tall = x.shape[-2] > x.shape[-1]
    for _ in range(iterations):
        gram = x.mT @ x if tall else x @ x.mT  # the smaller of the two
        # Sums within the products: in bf16 on a CPU, passes of their own cost a third as much again.
        mixed = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, x, mixed, beta=a) if tall else torch.baddbmm(x, mixed, x, beta=a)
    return x


class MuonAdamW(torch.optim.Optimizer):
    """Muon on the matrices, AdamW on the other parameters.

    Args:
        matrices: Parameters with two dimensions that multiply activations.
        others: Embeddings, heads, norms, biases, depthwise kernels.
        lr: Peak learning rate of both, in AdamW's scale.
        weight_decay: Decoupled decay of the matrices; the others are not decayed.
        compute_dtype: Type in which matrices are orthogonalized; bf16 where the hardware has it.
    """

    def __init__(
        self,
        matrices: Iterable[Tensor],
        others: Iterable[Tensor],
        lr: float,
        weight_decay: float = 0.0,
        compute_dtype: torch.dtype = torch.float32,
    ) -> None:
        groups = [
            {"params": list(matrices), "muon": True, "weight_decay": weight_decay},
            {"params": list(others), "muon": False, "weight_decay": 0.0},
        ]
        super().__init__([group for group in groups if group["params"]], {"lr": lr})
        self.compute_dtype = compute_dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take one step from the gradients in ``.grad``."""
        assert closure is None, "MuonAdamW takes no closure"
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if group["muon"]:
                self._muon(parameters, group["lr"], group["weight_decay"])
            else:
                self._adamw(parameters, group["lr"])

    def _muon(self, parameters: list[Tensor], lr: float, weight_decay: float) -> None:
        """One shape at a time: matrices of equal shape are orthogonalized as one batch."""
        by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
        for parameter in parameters:
            by_shape[parameter.shape].append(parameter)
        for shape, alike in by_shape.items():
            updates = []
            for parameter in alike:
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                gradient, momentum = _gradient(parameter), own(state["momentum"])
                momentum.lerp_(gradient, 1 - MOMENTUM)
                updates.append(gradient.lerp(momentum, MOMENTUM).to(self.compute_dtype))  # Nesterov
            orthogonal = with_whole_matrices(orthogonalize, updates, like=alike[0])
            scale = 0.2 * max(shape) ** 0.5
            for parameter, update in zip(map(own, alike), orthogonal, strict=True):
                if weight_decay:
                    parameter.mul_(1 - lr * weight_decay)
                parameter.add_(update, alpha=-lr * scale)

    def _adamw(self, parameters: list[Tensor], lr: float) -> None:
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["step"] = torch.zeros(())
                state["mean"] = torch.zeros_like(parameter)
                state["square"] = torch.zeros_like(parameter)
            state["step"] += 1
            count = state["step"].item()
            gradient, mean, square = _gradient(parameter), own(state["mean"]), own(state["square"])
            mean.lerp_(gradient, 1 - BETAS[0])
            square.lerp_(gradient.square(), 1 - BETAS[1])
            root = (square / (1 - BETAS[1] ** count)).sqrt_().add_(EPS)
            own(parameter).addcdiv_(mean, root, value=-lr / (1 - BETAS[0] ** count))


def _gradient(parameter: Tensor) -> Tensor:
    """This process's part of it."""
    assert parameter.grad is not None, "only parameters with a gradient are stepped"
    return own(parameter.grad)


def build_optimizer(
    model: nn.Module, lr: float, weight_decay: float, compute_dtype: torch.dtype = torch.float32
) -> MuonAdamW:
    """Sort a model's parameters: weights of ``nn.Linear`` to Muon, the rest to AdamW."""
    matrices = {
        id(module.weight)
        for module in model.modules()
        if isinstance(module, nn.Linear) and min(module.weight.shape) > 1
    }
    parameters = [p for p in model.parameters() if p.requires_grad]
    return MuonAdamW(
        [p for p in parameters if id(p) in matrices],
        [p for p in parameters if id(p) not in matrices],
        lr,
        weight_decay,
        compute_dtype,
    )
