"""The sampler's decoder over the trained weights equals the model that was trained."""

import pytest
import torch
from torch import nn

from tokenreel.transformer import ConditionConfig, Conditions, GPTConfig, GPTSize, VideoGPT
from tokenreel.transformer.static_decoder import StaticDecoder

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


@torch.no_grad()
def cached_logits(gpt: VideoGPT, indices: torch.Tensor, labels: torch.Tensor, prefill: int) -> torch.Tensor:
    """Logits of all places: the first ``prefill`` indices in one piece, the others one by one."""
    decoder, flat = StaticDecoder(gpt, len(indices)), indices.flatten(1)
    tables = gpt.tables()
    told = gpt.conditions(Conditions(labels), *indices.shape[:2])
    tokens = gpt.embed_prefix(told, tables)
    if prefill:
        tokens = torch.cat([tokens, gpt.embed(flat[:, :prefill], 0, tables, told)], dim=1)
    logits = [decoder.forward(tokens)[:, gpt.config.prefix - 1 :] @ tables.head[0].T]
    for place in range(prefill, flat.shape[1] - 1):
        token = gpt.embed(flat[:, place : place + 1], place, tables, told, before=flat[:, :place])
        logits.append(decoder.forward(token) @ tables.head[0].T)
    return torch.cat(logits, dim=1)


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("prefill", [0, 1, ROW, ROW + 1, FRAME, FRAME + ROW, 2 * FRAME, ALL - 1])
def test_cached_decoding_equals_the_full_forward(depth: int, prefill: int) -> None:
    gpt = random_gpt(depth)
    indices, labels = torch.randint(K, (2, *GRID)), torch.tensor([0, 2])
    with torch.no_grad():
        full = gpt.hidden_states(indices, Conditions(labels), gpt.tables()) @ gpt.head.rows()[:-1].T
    assert full.std() > 1 and full.std(dim=1).min() > 0.1
    cached = cached_logits(gpt, indices, labels, prefill)
    torch.testing.assert_close(cached, full, rtol=0, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("parts", [(3, 2, 5, 1, 4), (1, 14), (8, 7)])
def test_several_tokens_at_once_and_others_in_their_place_equal_the_full_forward(parts: tuple[int, ...]) -> None:
    gpt = random_gpt(depth=2)
    tokens = torch.randn(2, sum(parts), 128)
    n = tokens.shape[1]
    full = gpt.backbone(tokens, gpt.query_angles[:n], gpt.key_angles[:n])
    decoder, made = StaticDecoder(gpt, 2), []
    for part in tokens.split(parts, dim=1):
        made.append(decoder.forward(part))
        filled = decoder.filled
        decoder.forward(torch.randn(2, min(2, n + 1 - filled), 128))  # what is then forgotten leaves no trace
        decoder.rewind(filled)
    torch.testing.assert_close(torch.cat(made, dim=1), full, rtol=0, atol=1e-4)


@torch.no_grad()
def test_every_parameter_of_the_backbone_reaches_the_cached_logits() -> None:
    gpt = random_gpt(depth=2)
    indices, labels = torch.randint(K, (1, *GRID)), torch.tensor([1])
    before = cached_logits(gpt, indices, labels, prefill=FRAME)
    for name, parameter in gpt.backbone.named_parameters():
        kept = parameter.clone()
        parameter.add_(0.1 * torch.randn_like(parameter))
        changed = (cached_logits(gpt, indices, labels, prefill=FRAME) - before).abs().max()
        assert changed > 1e-4, f"{name} is not read"
        parameter.copy_(kept)


@torch.no_grad()
def test_weights_are_those_at_the_decoders_making() -> None:
    gpt = random_gpt(depth=1)
    decoder, same = StaticDecoder(gpt, 1), StaticDecoder(gpt, 1)
    tokens = gpt.embed_prefix(gpt.conditions(Conditions(), 1, 3), gpt.tables())
    for parameter in gpt.backbone.parameters():
        parameter.zero_()
    assert torch.equal(decoder.forward(tokens), same.forward(tokens))
    assert not torch.allclose(StaticDecoder(gpt, 1).forward(tokens), same.forward(tokens[:, :1]))


def test_misuse_of_the_cache_is_noticed() -> None:
    gpt = random_gpt(depth=1)
    decoder = StaticDecoder(gpt, 1)
    decoder.forward(torch.zeros(1, 3, 128))
    with pytest.raises(AssertionError, match="4 of 3 tokens"):
        decoder.rewind(4)
    with pytest.raises(AssertionError, match="do not fit the cache of 20"):
        StaticDecoder(gpt, 1).forward(torch.zeros(1, 21, 128))
