"""Perplexity and dead codes over a window, and the alarm: real collapses are told, healthy trainings are not."""

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tokenreel.tokenizer import CodebookUsage, TokenizerConfig, VideoTokenizer
from tokenreel.tokenizer import quantizer as quantizers
from tokenreel.tokenizer.health import codebook_alarm

STEPS = 110
SETTINGS: dict[str, dict[str, Any]] = {
    "fsq": {"levels": (8, 5, 5, 5)},
    "vq": {"vq_codebook_size": 256, "vq_codebook_dim": 8},
    "bsq": {"bits": 10},
    "lfq": {"bits": 10},
}
REMEDIES = {
    "fsq": r"lower --lr, or use fewer --model.levels \(now 8 5 5 5\)",
    "vq": r"lower --lr or --model.vq-decay \(now 0.99\), .* or --model.vq-codebook-size \(now 256\)",
    "bsq": r"raise --model.entropy-weight \(now 0.1\)",
    "lfq": r"raise --model.entropy-weight \(now 0.1\)",
}
every = pytest.mark.parametrize("name", SETTINGS)


def busy(step: int) -> Tensor:
    """Clips in which every patch shows something else."""
    chance = torch.Generator().manual_seed(step)
    coarse = torch.rand(4, 3, 4, 8, 8, generator=chance) * 2 - 1
    return F.interpolate(coarse, scale_factor=(1, 4, 4), mode="nearest")


def black(_: int) -> Tensor:
    return torch.full((4, 3, 4, 32, 32), -1.0)


def trained(
    name: str, clips: Callable[[int], Tensor], commitment: float = 0.25
) -> tuple[TokenizerConfig, CodebookUsage]:
    """Train a small tokenizer; nothing may be said before the steps of grace are over."""
    config = TokenizerConfig(
        stride=(4, 8, 8),
        width=24,
        encoder_depth=1,
        decoder_depth=1,
        quantizer=name,  # type: ignore[arg-type]
        **SETTINGS[name],
    )
    tokenizer, usage = VideoTokenizer(config).train(), CodebookUsage(config.codebook_size)
    optimizer = torch.optim.Adam(tokenizer.parameters(), lr=3e-3)
    for step in range(STEPS):
        video = clips(step)
        found = tokenizer(video)
        loss = F.mse_loss(found.reconstruction, video) + commitment * found.commitment_loss + 0.1 * found.entropy_loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        usage.update(found.indices)
        assert step + 1 >= 100 or codebook_alarm(config, usage, step + 1) is None
    return config, usage


@every
def test_a_healthy_training_raises_no_alarm(name: str) -> None:
    config, usage = trained(name, busy)
    assert codebook_alarm(config, usage, STEPS) is None
    assert usage.perplexity > 30


@pytest.mark.parametrize("name", ["fsq", "bsq", "lfq"])
def test_black_clips_collapse_the_codebook_and_are_told(name: str) -> None:
    said = codebook_alarm(*trained(name, black), STEPS)
    found = r"codebook collapsed: \d+ of (1000|1024) codes used in the last 50 steps, perplexity \d+\.\d; "
    assert said is not None and re.match(found + REMEDIES[name] + ".*constant ones, and", said)


def test_without_restart_the_vq_codebook_collapses_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert codebook_alarm(*trained("vq", busy, commitment=10.0), STEPS) is None
    monkeypatch.setattr(quantizers, "PATIENCE_STEPS", math.inf)
    said = codebook_alarm(*trained("vq", busy, commitment=10.0), STEPS)
    assert said is not None and re.search(REMEDIES["vq"], said)


def counted(size: int, indices: Tensor) -> CodebookUsage:
    usage = CodebookUsage(size, window=4)
    for _ in range(4):
        usage.update(indices)
    return usage


def test_where_the_alarm_begins() -> None:
    fsq, vq = TokenizerConfig(levels=(8, 5, 5, 5)), TokenizerConfig(quantizer="vq", vq_decay=0.8)
    ground = torch.zeros(100_000, dtype=torch.int64)
    # As the world of balls: nearly everything is background, yet all codes are used.
    assert codebook_alarm(fsq, counted(1000, torch.cat([ground, torch.arange(1000)])), 500) is None
    # As the world paddle, of which 58 codes tell all there is.
    paddle = torch.cat([torch.zeros(56_000, dtype=torch.int64), torch.arange(58).repeat(500)])
    assert codebook_alarm(TokenizerConfig(levels=(5, 5, 5, 5)), counted(625, paddle), 500) is None
    # As 15,360 levels of FSQ in practice: few codes, and these carry much.
    assert codebook_alarm(fsq, counted(15_360, torch.arange(400).repeat(50)), 500) is None
    # As the VQ of the library's defaults: the 95 codes carry much, but 929 do not follow.
    few = counted(1024, torch.arange(95).repeat(50))
    assert "raise --model.vq-decay (now 0.8) to 0.99" in str(codebook_alarm(vq, few, 500))
    assert codebook_alarm(fsq, few, 500) is None
    # No more codes can be used than indices were seen.
    assert codebook_alarm(TokenizerConfig(quantizer="vq"), counted(2**18, torch.arange(2000)), 500) is None
    nothing = counted(1000, ground)
    assert codebook_alarm(fsq, nothing, 99) is None
    assert "1 of 1000 codes used in the last 4 steps, perplexity 1.0;" in str(codebook_alarm(fsq, nothing, 100))
    fresh = CodebookUsage(1000, window=4)  # as after a resumption
    fresh.update(ground)
    assert codebook_alarm(fsq, fresh, 100) is None


def test_a_window_of_the_largest_codebook_keeps_what_was_counted_and_no_more() -> None:
    usage, size = CodebookUsage(2**18, window=3), 2**18
    batches = [torch.randint(size, (2, 4, 8, 8)) for _ in range(7)]
    for batch in batches:
        usage.update(batch)
    expected = torch.bincount(torch.cat(batches[-3:]).flatten(), minlength=size)
    assert torch.equal(usage.counts, expected) and usage.is_full and usage.reachable == 3 * 512
    assert usage.dead_codes == int((expected == 0).sum())
    share = expected[expected > 0].double() / (3 * 512)
    assert usage.perplexity == pytest.approx(math.exp(-float((share * share.log()).sum())))
    assert sum(batch.numel() for batch in usage._batches) == 3 * 512
