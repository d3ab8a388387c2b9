"""The adversarial term: when it works, how strongly, and when it has done harm.

It waits until a validation in the later part of the run, rises from nothing while the discriminator learns, and is
switched off for good when the validation PSNR falls by more than 1 dB. Whoever trains then brings the weights back.
"""

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenreel.tokenizer.discriminator import PatchDiscriminator
from tokenreel.tokenizer.losses import LossConfig
from tokenreel.tokenizer.process_group import summed

Verdict = Literal["go on", "keep", "go back"]
PHASES = ("waiting", "on", "off")
WORST_FALL = 1.0
"""dB of validation PSNR that the adversarial term may cost."""


class Adversary(nn.Module):
    """A discriminator, and the phase of the run: "waiting", "on" or "off"; both are part of the state dict."""

    def __init__(self, config: LossConfig) -> None:
        super().__init__()
        self.config = config
        self.discriminator = PatchDiscriminator(config.discriminator_width)
        self.phase = "waiting"
        self.steps_on = 0
        self.best_psnr = -math.inf

    @property
    def strength(self) -> float:
        """Length of the adversarial gradient relative to all others, now; it rises during the warm-up."""
        return self.config.adversarial * min(1.0, self.steps_on / max(1, self.config.adversarial_warmup))

    def forward(self, video: Tensor, reconstruction: Tensor) -> tuple[Tensor, Tensor]:
        """Hinge losses (of the tokenizer, of the discriminator), scalars, for float (B, 3, T, H, W) twice.

        The first has no gradient to the discriminator and the second none to the tokenizer, so that one backward
        pass and one optimizer serve both.
        """
        self.steps_on += self.training
        fixed = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        fools = -torch.func.functional_call(self.discriminator, fixed, (reconstruction,)).mean()
        real, made = self.discriminator(torch.cat([video, reconstruction.detach()])).chunk(2)
        return fools, (F.relu(1 - real).mean() + F.relu(1 + made).mean()) / 2

    def judge(self, psnr: float, progress: float) -> tuple[Verdict, str | None]:
        """What follows from a validation.

        Args:
            psnr: Validation PSNR in dB.
            progress: Share of the run that is done.

        Returns:
            "keep" (the weights are the best so far), "go back" (to those last kept) or "go on"; and what to tell.
        """
        if self.phase == "waiting" and self.config.adversarial_start <= progress < 1:
            self.phase, self.best_psnr = "on", psnr
            return "keep", f"the adversarial term starts at a validation PSNR of {psnr:.2f} dB"
        if self.phase != "on":
            return "go on", None
        if psnr > self.best_psnr:
            self.best_psnr = psnr
            return "keep", None
        if psnr >= self.best_psnr - WORST_FALL:
            return "go on", None
        self.phase = "off"
        return "go back", (
            f"validation PSNR fell from {self.best_psnr:.2f} to {psnr:.2f} dB under the adversarial term: the weights "
            "go back to where it was best and the term stays off; another time lower --loss.adversarial "
            f"(now {self.config.adversarial:g}) or raise --loss.adversarial-warmup ({self.config.adversarial_warmup})"
        )

    def get_extra_state(self) -> Tensor:
        """Phase, steps and best PSNR as numbers that a weights file can hold."""
        return torch.tensor([PHASES.index(self.phase), self.steps_on, self.best_psnr], dtype=torch.float64)

    def set_extra_state(self, state: Any) -> None:
        """Take up what :meth:`get_extra_state` told."""
        phase, steps, best = state.tolist()
        self.phase, self.steps_on, self.best_psnr = PHASES[int(phase)], int(steps), best


class Balance(torch.autograd.Function):
    """Hands a reconstruction to two losses; on the way back the second's gradient gets a set length.

    That length, of all processes' clips together, is ``strength`` times the length of the first's: the adaptive
    weight of VQGAN, measured at the decoder's output instead of its last layer, which needs no second pass through
    the discriminator.
    Source: Esser et al., 2021, "Taming Transformers"; Défossez et al., 2022, "EnCodec" (balancer).
    """

    @staticmethod
    def forward(ctx: Any, reconstruction: Tensor, strength: float) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Float (B, C, T, H, W) -> the same, twice."""
        ctx.strength = strength
        return reconstruction.clone(), reconstruction.clone()

    @staticmethod
    def backward(ctx: Any, fidelity: Tensor, adversarial: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        """Both gradients -> their weighted sum."""
        lengths = summed(torch.stack([fidelity.float().square().sum(), adversarial.float().square().sum()])).sqrt()
        weight = ctx.strength * lengths[0] / lengths[1].clamp_min(1e-12)
        return fidelity + weight * adversarial, None
