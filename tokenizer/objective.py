"""What a tokenizer trains on: the tokenizer, the terms of its loss, and a discriminator if there is one.

    objective = TokenizerObjective(tokenizer, LossConfig(l2=1.0, l1=0.2))
    output = objective(video)       # (B, 3, T, H, W) in [-1, 1]
    output.loss.backward()          # output.terms names every part of it

Everything that trains is in it, so one optimizer, one weight average and one checkpoint serve all;
``objective.tokenizer`` alone is released.
"""

from typing import Any, NamedTuple

from torch import Tensor, nn

from tokenreel.tokenizer.adversary import Adversary, Balance, Verdict
from tokenreel.tokenizer.losses import LossConfig, clip_errors, log_l2, mean_psnr
from tokenreel.tokenizer.model import TokenizerOutput, VideoTokenizer
from tokenreel.tokenizer.perceptual import PerceptualDistance, frames_drawn


class ObjectiveOutput(NamedTuple):
    """One training pass over a batch."""

    loss: Tensor
    """Weighted sum of the terms, scalar; the discriminator's own loss is in it, with weight 1."""
    terms: dict[str, Tensor]
    """Each term that is switched on, unweighted and without gradient, scalar."""
    psnr: Tensor
    """Mean over clips in dB, scalar, without gradient."""
    indices: Tensor
    """int64 (B, T', H', W')."""


class TokenizerObjective(nn.Module):
    """A tokenizer and what it is trained on.

    Raises:
        FileNotFoundError: If a file of perceptual weights is missing.
        ValueError: If perceptual weights are wrong or cannot be fetched.
    """

    def __init__(self, tokenizer: VideoTokenizer, config: LossConfig | None = None) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.config = config = config or LossConfig()
        self.perceptual = (
            PerceptualDistance.load(config.perceptual_weights, config.perceptual_heads) if config.perceptual else None
        )
        self.adversary = Adversary(config) if config.adversarial else None

    @property
    def rests_in_part(self) -> bool:
        """Whether some of what trains has no gradient at some steps, which whoever gathers gradients must expect."""
        return self.adversary is not None

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the tokenizer; the losses beside it are small and change with the phase of the run."""
        self.tokenizer.compile(*args, **kwargs)

    def forward(self, video: Tensor, chance: Tensor | None = None) -> ObjectiveOutput:
        """Reconstruct a batch and compute its losses.

        Args:
            video: float (B, 3, T, H, W) in [-1, 1]; T, H, W multiples of the stride.
            chance: float (B, T), random numbers by which the perceptual term chooses its frames; drawn if None.
        """
        output = self.tokenizer(video)
        reconstruction, pulled = output.reconstruction, None
        if self.adversary is not None and self.adversary.phase == "on":
            reconstruction, pulled = Balance.apply(reconstruction, self.adversary.strength)
        errors = clip_errors(reconstruction, video)
        terms = {**self._fidelity(reconstruction, video, errors, chance), **self._quantizer(output)}
        if pulled is not None:
            assert self.adversary is not None
            fools, detects = self.adversary(video, pulled)
            terms |= {"adversarial": (1.0, fools), "discriminator": (1.0, detects)}
        loss = sum((weight * term for weight, term in terms.values()), start=errors.new_zeros(()))
        told = {name: term.detach() for name, (_, term) in terms.items()}
        return ObjectiveOutput(loss, told, mean_psnr(errors.detach()), output.indices)

    def judge(self, psnr: float, progress: float) -> tuple[Verdict, str | None]:
        """What follows from a validation PSNR in dB, after this share of the run, and what to tell of it."""
        return self.adversary.judge(psnr, progress) if self.adversary is not None else ("go on", None)

    def _fidelity(
        self, made: Tensor, video: Tensor, errors: Tensor, chance: Tensor | None
    ) -> dict[str, tuple[float, Tensor]]:
        """Weight and value of the terms that compare two videos."""
        config, terms = self.config, {}
        if config.l2:
            terms["l2"] = config.l2, errors.mean()
        if config.l1:
            terms["l1"] = config.l1, (made - video).abs().mean()
        if config.log_l2:
            terms["log_l2"] = config.log_l2, log_l2(errors)
        if self.perceptual is not None:
            distances = self.perceptual(*frames_drawn(config.perceptual_frames, chance, made, video))
            terms["perceptual"] = config.perceptual, distances.mean()
        return terms

    def _quantizer(self, output: TokenizerOutput) -> dict[str, tuple[float, Tensor]]:
        """Weight and value of the quantizer's terms; one that this quantizer lacks is a constant 0."""
        config = self.tokenizer.config
        terms = {
            "commitment_loss": (config.commitment_weight, output.commitment_loss),
            "entropy_loss": (config.entropy_weight, output.entropy_loss),
        }
        return {name: (weight, term) for name, (weight, term) in terms.items() if weight and term.requires_grad}
