"""From logits to one index: small pure functions."""

import math
from dataclasses import dataclass
from numbers import Integral
from typing import Literal, get_args

import torch
from torch import Tensor

from tokenreel.transformer.products import Precision

Speculative = Literal["auto", "off"]
Sharpen = Literal["all", "others"]
SPECULATIVE, SHARPEN, PRECISIONS = get_args(Speculative), get_args(Sharpen), get_args(Precision)


@dataclass(frozen=True)
class SamplingSettings:
    """How the next index is drawn.

    With a factored head every setting acts on the first factor, then on the second.
    """

    temperature: float = 1.0
    """Logits are divided by it; 0 always takes the likeliest index (of more than 2^14 codes, in two factors: the
    likeliest first factor, then the likeliest second; what follows acts on each factor likewise)."""
    top_k: int = 0
    """Draw among the k likeliest indices only; 0 is all."""
    top_p: float = 1.0
    """Draw among the likeliest indices that together have this probability; 1 is all."""
    sharpen: Sharpen = "all"
    """What temperature, top-k and top-p choose among: "all" indices, or the "others" but the likeliest, which keeps its
    probability. For clips from nothing: a thing that may begin anywhere is unlikely at each place, where "nothing here"
    is likeliest, and sharpening all makes it begin too late or not at all."""
    guidance: float = 1.0
    """How much more than plainly the conditions count (classifier-free guidance): logits move from those without
    conditions to those with them, and that much further; 1 is plain, 2 or 3 follow captions more strictly."""
    overlap: int = 0
    """Latent frames still seen when a clip has outgrown the window and it moves on: more is steadier and slower, as
    they are read again each time; 0 is half of the window."""
    speculative: Speculative = "auto"
    """"auto" draws several indices at once from drafts of those that come next, where few clips are made together: the
    same result in less time; "off" draws them one by one."""
    passes: int = 8
    """For each latent frame, of a model that was trained to make whole ones: more is better and slower."""
    precision: Precision = "fp32"
    """Of the layers' matrices, which the sampler copies: "bf16" makes that copy half as large, and faster on processors
    that multiply in bf16; "int8" rounds the weights to 8 bits, which is faster still where a step has up to four rows
    (clips, times two with guidance; so with speculative "off"). Rounding (about 0.4 % in bf16, as in training with it;
    1 % in int8) may decide otherwise where probabilities are close."""

    def __post_init__(self) -> None:
        named = {"speculative": SPECULATIVE, "sharpen": SHARPEN, "precision": PRECISIONS}
        for name, known in named.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} {getattr(self, name)!r}: expected one of {', '.join(known)}")
        for name in ("top_k", "overlap", "passes"):
            if not isinstance(getattr(self, name), Integral):
                raise ValueError(f"{name} {getattr(self, name)!r}: expected a whole number")
        if not self.temperature >= 0:
            raise ValueError(f"temperature {self.temperature}: expected 0 (greedy) or more")
        if self.top_k < 0:
            raise ValueError(f"top_k {self.top_k}: expected 0 (all) or more")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p {self.top_p}: expected a probability in (0, 1]")
        if not (math.isfinite(self.guidance) and self.guidance >= 0):
            raise ValueError(f"guidance {self.guidance}: expected 0 (no conditions), 1 (plain), or more, such as 2")
        if self.passes < 1:
            raise ValueError(f"passes {self.passes}: expected at least 1, such as 8")
        if self.overlap < 0:
            raise ValueError(f"overlap {self.overlap}: expected 0 (half of the window) or a number of latent frames")

    @property
    def guided(self) -> bool:
        """Whether each row needs a second one without conditions."""
        return self.guidance != 1

    def guide(self, logits: Tensor) -> Tensor:
        """Those (B, K) to draw from; if guided, of (2·B, K): rows with conditions, then the same without."""
        if not self.guided:
            return logits
        told, untold = logits.chunk(2)
        # Minus infinity, where a value cannot be, stays so instead of becoming no number.
        return torch.where(untold.isneginf(), untold, untold + self.guidance * (told - untold))

    def kept(self, window: int) -> int:
        """Latent frames that a full window of so many keeps when it moves on.

        Raises:
            ValueError: If there is none to keep, or all would be.
        """
        kept = self.overlap or window // 2
        if not 1 <= kept < window:
            raise ValueError(
                f"overlap {kept} of a window of {window} latent frames, expected 1 to {window - 1}"
                if window > 1
                else "this GPT's window is one latent frame: it cannot go on from it; train it on longer clips"
            )
        return kept

    def check_codebook(self, head_sizes: tuple[int, ...]) -> None:
        """Whether the settings fit a model that chooses among so many values (``GPTConfig.head_sizes``).

        Raises:
            ValueError: If ``top_k`` is larger.
        """
        if self.top_k > max(head_sizes):
            what = f"the codebook of {head_sizes[0]} codes"
            if len(head_sizes) > 1:
                what = f"both factors of an index ({' x '.join(map(str, head_sizes))}), on each of which it acts"
            raise ValueError(f"top_k {self.top_k} exceeds {what}; use a smaller one, or 0 for all")


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Set all but the k largest logits (..., K) to minus infinity; ties at the edge stay; 0 keeps all."""
    if k == 0 or k >= logits.shape[-1]:
        return logits
    smallest_kept = logits.topk(k, dim=-1).values[..., -1:]
    return logits.masked_fill(logits < smallest_kept, -torch.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the fewest likeliest logits (..., K) whose probabilities sum to p or more; the likeliest always stays."""
    if p >= 1:
        return logits
    probability, order = _likeliest_first(logits.softmax(-1), p)
    before = probability.cumsum(-1) - probability
    kept = logits.gather(-1, order).masked_fill(before >= p, -torch.inf)
    return torch.full_like(logits, -torch.inf).scatter(-1, order, kept)


def _likeliest_first(probability: Tensor, p: float) -> tuple[Tensor, Tensor]:
    """The largest of each row in order, and where they stand: enough of them to sum to p.

    Sorting all of several rows takes a CPU as long as the layers do (one row is quick); a GPU would have to wait for
    the answer whether a few are enough.
    """
    few = probability.shape[-1] // 8
    if probability.device.type == "cpu" and few and probability[..., 0].numel() > 1:
        largest, order = probability.topk(few, dim=-1)
        if bool((largest.sum(-1) > p).all()):
            return largest, order
    return probability.sort(dim=-1, descending=True)


def odds(logits: Tensor, settings: SamplingSettings) -> Tensor:
    """What is drawn from: logits (B, K) -> float64 probabilities (B, K)."""
    if settings.sharpen == "all":
        return _sharpened(logits, settings)
    likeliest = logits.argmax(-1, keepdim=True)
    others = logits.scatter(-1, likeliest, -torch.inf)
    kept = logits.double().softmax(-1).gather(-1, likeliest)
    # Where nothing else is possible, there is nothing to sharpen.
    shares = torch.where(others.amax(-1, keepdim=True).isneginf(), 0.0, _sharpened(others, settings))
    return (shares * (1 - kept)).scatter(-1, likeliest, kept)


def _sharpened(logits: Tensor, settings: SamplingSettings) -> Tensor:
    logits = logits - logits.amax(-1, keepdim=True)  # a tiny temperature must not overflow
    logits = keep_top_p(keep_top_k(logits / settings.temperature, settings.top_k), settings.top_p)
    return logits.double().softmax(-1)


def pick(logits: Tensor, settings: SamplingSettings, uniform: Tensor) -> Tensor:
    """Draw one index per row by inverting the distribution at a given uniform number.

    Args:
        logits: float (B, K).
        settings: Temperature and filters, applied in that order.
        uniform: float64 (B,) in [0, 1): each row's own number, so that rows are independent.

    Returns:
        int64 (B,).
    """
    if settings.temperature == 0:
        return logits.argmax(-1)
    cumulative = odds(logits, settings).cumsum(-1)
    # Scaled by the last sum, which rounding may leave beside 1.
    return torch.searchsorted(cumulative, (uniform * cumulative[:, -1])[:, None], right=True)[:, 0].clamp(
        max=logits.shape[-1] - 1
    )
