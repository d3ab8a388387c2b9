"""One GPT over latent frames of several sizes."""

from collections.abc import Callable
from typing import Literal

import pytest
import torch
from torch import nn

from tokenreel.transformer import ConditionConfig, Conditions, GPTConfig, GPTSize, SamplingSettings, VideoGPT
from tokenreel.transformer.sampling import sample_indices

K, WIDE, HIGH, SMALL = 24, (2, 4), (4, 2), (2, 2)
GRID = (3, 4, 4)


def random_gpt(decoding: Literal["token", "frame"] = "token", infilling: float = 0.0) -> VideoGPT:
    """One in which everything matters: as made, head and branches are zero."""
    config = GPTConfig(
        codebook_size=K,
        grid=GRID,
        frames=(WIDE, HIGH, SMALL),
        size=GPTSize(dim=64, depth=2),
        conditions=ConditionConfig(labels=("a", "b")),
        decoding=decoding,
        infilling=infilling,
    )
    gpt = VideoGPT(config)
    for parameter in gpt.parameters():
        nn.init.normal_(parameter, std=0.2)
    return gpt.eval()


def alone(gpt: VideoGPT, frame: tuple[int, int]) -> VideoGPT:
    """The same weights in a GPT that knows one size, with rows and columns for no more."""
    one = VideoGPT(GPTConfig(K, (GRID[0], *frame), gpt.config.size, conditions=gpt.config.conditions)).eval()
    state = gpt.state_dict()
    state["row_embedding.weight"] = state["row_embedding.weight"][: frame[0]]
    state["column_embedding.weight"] = state["column_embedding.weight"][: frame[1]]
    one.load_state_dict(state)
    return one


@torch.no_grad()
@pytest.mark.parametrize("frame", [WIDE, HIGH, SMALL])
@pytest.mark.parametrize("length", [1, 2, 3])
def test_each_size_is_as_in_a_gpt_of_that_size_alone(
    frame: tuple[int, int], length: int, cached_states: Callable[..., torch.Tensor]
) -> None:
    gpt, indices, told = random_gpt(), torch.randint(K, (2, length, *frame)), Conditions(torch.tensor([0, 2]))
    one = alone(gpt, frame)
    states = gpt.hidden_states(indices, told, gpt.tables(frame))
    assert torch.equal(states, one.hidden_states(indices, told, one.tables()))
    assert torch.equal(gpt(indices, told.labels).losses, one(indices, told.labels).losses)
    torch.testing.assert_close(cached_states(gpt, indices, told, 2), states, rtol=0, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("frame", [WIDE, HIGH, SMALL])
@pytest.mark.parametrize("speculative", ["auto", "off"])
def test_sampling_continues_any_of_them_beyond_the_window(
    frame: tuple[int, int], speculative: Literal["auto", "off"]
) -> None:
    gpt, prompt = random_gpt(), torch.randint(K, (2, 1, *frame))
    settings = SamplingSettings(top_p=0.9, speculative=speculative)
    made = sample_indices(gpt, prompt, 5, settings, [3, 4])
    assert made.shape == (2, 6, *frame)
    assert torch.equal(made, sample_indices(alone(gpt, frame), prompt, 5, settings, [3, 4]))


@pytest.mark.parametrize("decoding", ["token", "frame"])
def test_sizes_train_together(decoding: Literal["token", "frame"]) -> None:
    gpt = random_gpt(decoding, infilling=0.5).train()
    for frame in (WIDE, HIGH, SMALL):
        gpt(torch.randint(K, (2, 3, *frame)), torch.tensor([0, 1])).loss.backward()
    assert all(parameter.grad is not None for parameter in gpt.parameters())
    made = sample_indices(gpt.eval(), torch.randint(K, (1, 1, *HIGH)), 2, SamplingSettings(passes=2), [0])
    assert made.shape == (1, 3, *HIGH)


def test_other_sizes_are_refused() -> None:
    gpt = random_gpt()
    with pytest.raises(ValueError, match=r"4, 4\), expected .* \(2, 4\) or \(4, 2\) or \(2, 2\)"):
        gpt(torch.zeros(1, 3, 4, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"prompt has shape \(1, 1, 3, 2\), expected"):
        sample_indices(gpt, torch.zeros(1, 1, 3, 2, dtype=torch.int64), 1, SamplingSettings(), [0])
    with pytest.raises(ValueError, match="latent frames of 5x5 indices, expected 2x4 or 4x2 or 2x2"):
        gpt.layout((5, 5))
    for frames in ([(2, 4), (2, 4), (4, 2)], [(2, 4)], [(0, 4), (4, 2)]):
        with pytest.raises(ValueError, match=r"frames .*: expected different sizes"):
            GPTConfig(K, GRID, frames=frames)  # type: ignore[arg-type]  # as config.json has them
