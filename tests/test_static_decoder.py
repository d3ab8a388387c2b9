"""The sampler's decoder over the trained weights equals the model that was trained."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from tokenreel.transformer import ConditionConfig, Conditions, GPTConfig, GPTSize, VideoGPT
from tokenreel.transformer.products import Precision
from tokenreel.transformer.static_decoder import StaticDecoder
from tokenreel.transformer.token_order import token_order

GRID = (3, 2, 3)
FRAME, ROW, ALL = 6, 3, 18
K = 36


def random_gpt(depth: int) -> VideoGPT:
    """A GPT in which everything matters: as made, head and branches are zero and all norms have gain one."""
    config = GPTConfig(
        codebook_size=K,
        levels=(4, 3, 3),
        grid=GRID,
        size=GPTSize(dim=128, depth=depth),
        conditions=ConditionConfig(labels=("a", "b")),
    )
    gpt = VideoGPT(config)
    for parameter in gpt.parameters():
        nn.init.normal_(parameter, std=0.2)
    return gpt.eval()


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("prefill", [0, 1, ROW, ROW + 1, FRAME, FRAME + ROW, 2 * FRAME, ALL - 1])
@pytest.mark.parametrize("ahead", [(0, 0), (1, 3), (2, 3)])
@pytest.mark.parametrize("large", [True, False])
def test_cached_decoding_equals_the_full_forward(
    depth: int,
    prefill: int,
    ahead: tuple[int, int],
    large: bool,
    cached_states: Callable[..., torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if large:  # as if the cache were too large for the processor's own
        monkeypatch.setattr("tokenreel.transformer.attention_step.LARGE", 0)
    gpt, order = random_gpt(depth), token_order(GRID, *ahead)
    indices, labels = torch.randint(K, (2, *GRID)), torch.tensor([0, 2])
    with torch.no_grad():
        full = gpt.hidden_states(indices, Conditions(labels), gpt.tables(indices.shape[2:]), order)
    assert full.std(dim=1).min() > 0.1
    cached = cached_states(gpt, indices, Conditions(labels), prefill, order)
    torch.testing.assert_close(cached, full, rtol=0, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("parts", [(3, 2, 5, 1, 4), (1, 14), (8, 7)])
def test_several_tokens_at_once_and_others_in_their_place_equal_the_full_forward(parts: tuple[int, ...]) -> None:
    gpt = random_gpt(depth=2)
    tokens = torch.randn(2, sum(parts), 128)
    n = tokens.shape[1]
    full = gpt.backbone(tokens, gpt.layout().query_angles[:n], gpt.layout().key_angles[:n])
    decoder, made = StaticDecoder(gpt, 2), []
    for part in tokens.split(parts, dim=1):
        made.append(decoder.forward(part))
        filled = decoder.filled
        decoder.forward(torch.randn(2, min(2, n + 1 - filled), 128))  # what is then forgotten leaves no trace
        decoder.keep(filled)
    torch.testing.assert_close(torch.cat(made, dim=1), full, rtol=0, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("packs", [True, False])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_sequences_of_different_lengths_equal_the_full_forward(
    precision: Precision, packs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not packs:  # as on a GPU, or a processor without such products
        monkeypatch.setattr("tokenreel.transformer.products._packs", lambda dtype: False)
    gpt = random_gpt(depth=2)
    tokens = torch.randn(3, 15, 128)
    full = gpt.backbone(tokens, gpt.layout().query_angles[:15], gpt.layout().key_angles[:15])
    decoder = StaticDecoder(gpt, 3, step=4, precision=precision)
    decoder.forward(tokens[:, :5])
    made = full.clone().index_fill_(1, torch.arange(5, 15), 0)
    starts = torch.tensor([5, 5, 5])
    for steps in ([1, 4, 2], [4, 1, 3], [1, 1, 1], [4, 4, 4]):
        at = starts[:, None] + torch.arange(4)
        hidden = decoder.forward_at(tokens[torch.arange(3)[:, None], at.clamp(max=14)], starts, stop=19)
        for row, (start, n) in enumerate(zip(starts.tolist(), steps, strict=True)):
            made[row, start : start + n] = hidden[row, : min(n, 15 - start)]
        starts = starts + torch.tensor(steps)
    expected, written = full.clone(), torch.arange(15) < starts[:, None]
    tolerance = {"fp32": 1e-4, "bf16": 0.1, "int8": 0.2}[precision]
    torch.testing.assert_close(made[written], expected[written], rtol=0, atol=tolerance)


@torch.no_grad()
def test_every_parameter_of_the_backbone_reaches_the_cached_states(cached_states: Callable[..., torch.Tensor]) -> None:
    gpt = random_gpt(depth=2)
    indices, conditions = torch.randint(K, (1, *GRID)), Conditions(torch.tensor([1]))
    before = cached_states(gpt, indices, conditions, FRAME)
    for name, parameter in gpt.backbone.named_parameters():
        kept = parameter.clone()
        parameter.add_(0.1 * torch.randn_like(parameter))
        changed = (cached_states(gpt, indices, conditions, FRAME) - before).abs().max()
        assert changed > 1e-4, f"{name} is not read"
        parameter.copy_(kept)


@torch.no_grad()
def test_weights_are_those_at_the_decoders_making() -> None:
    gpt = random_gpt(depth=1)
    decoder, same = StaticDecoder(gpt, 1), StaticDecoder(gpt, 1)
    tokens = gpt.conditions(Conditions(), 2, 3).prefix[:1].repeat(1, 2, 1)
    for parameter in gpt.backbone.parameters():
        parameter.zero_()
    assert torch.equal(decoder.forward(tokens), same.forward(tokens))
    assert not torch.allclose(StaticDecoder(gpt, 1).forward(tokens), same.forward(tokens[:, :1]))


def test_misuse_of_the_cache_is_noticed() -> None:
    gpt = random_gpt(depth=1)
    decoder = StaticDecoder(gpt, 1)
    decoder.forward(torch.zeros(1, 3, 128))
    with pytest.raises(AssertionError, match="22 tokens of 21"):
        decoder.keep(22)
    with pytest.raises(AssertionError, match="do not fit the cache of 21"):
        StaticDecoder(gpt, 1).forward(torch.zeros(1, 22, 128))
