"""Every way of sampling draws what the model itself would: its full forward pass, without a cache, for every index."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from tokenreel.transformer import (
    ConditionConfig,
    Conditions,
    GPTConfig,
    GPTSize,
    SamplingSettings,
    VideoGPT,
    sample_indices,
    sample_latent_frames,
)
from tokenreel.transformer.token_order import token_order

GRID, FRAME = (3, 2, 3), 6
K = 31
NEW = 6
"""Latent frames: the window, of three, slides three times."""
SETTINGS = SamplingSettings(temperature=1.2, top_k=20, top_p=0.95)


def random_gpt(factors: int = 1, infilling: float = 0.0) -> VideoGPT:
    """A GPT in which everything matters."""
    known = ConditionConfig(labels=("a", "b"), action_names=("left", "right"), frames_per_latent=2)
    size = GPTSize(dim=64, depth=2)
    gpt = VideoGPT(GPTConfig(K, GRID, size, factors=factors, conditions=known, infilling=infilling))
    for parameter in gpt.parameters():
        nn.init.normal_(parameter, std=0.2)
    return gpt.eval()


def said(clips: int, latent_frames: int) -> Conditions:
    """A label and actions for each clip, other ones for each."""
    actions = torch.randint(1, 3, (clips, latent_frames, 2))
    actions[:, 0, 0] = 0  # nothing leads to a clip's first frame
    return Conditions(labels=torch.arange(clips) % 3, actions=actions)


@torch.no_grad()
def drawn_by_full_forward(
    gpt: VideoGPT, clip: torch.Tensor, settings: SamplingSettings, uniform: torch.Tensor, told: Conditions, t: int
) -> torch.Tensor:
    """Latent frame t of clips int64 (B, T', H', W') that are known elsewhere: (B, H', W').

    Those in ``clip`` from t + 1 on are the given last ones, if the GPT fills in; else nothing comes there.
    """
    clip, last = clip.clone(), clip.shape[1] - t - 1
    order = token_order(GRID, t + 1, t + 1 + last) if last else gpt.layout().order
    places = order.places[: clip[0].numel()].tolist()
    for n in range(FRAME):
        at = places.index(t * FRAME + n)
        every = [told, Conditions()] if settings.guided else [told]
        hidden = torch.cat([gpt.hidden_states(clip, each, gpt.tables(), order)[:, at] for each in every])
        index = gpt.head.pick(hidden, gpt.head.read(), settings, uniform[:, n])
        clip[:, t].flatten(1)[:, n] = index
    return clip[:, t]


def numbers(gpt: VideoGPT, clips: int, latent_frames: int) -> torch.Tensor:
    """The random numbers of seeds 0, 1, 2, ...: (latent frames, B, indices, draws)."""
    generators = [torch.Generator().manual_seed(seed) for seed in range(clips)]
    shape = FRAME, gpt.head.draws
    drawn = [
        [torch.rand(*shape, generator=each, dtype=torch.float64) for each in generators] for _ in range(latent_frames)
    ]
    return torch.stack([torch.stack(row) for row in drawn])


def grown_by_full_forward(
    gpt: VideoGPT, prompt: torch.Tensor, settings: SamplingSettings, told: Conditions
) -> torch.Tensor:
    """Prompt and NEW latent frames; the window moves on when it is full."""
    made, first, kept = prompt, 0, settings.kept(GRID[0])
    assert told.actions is not None
    for uniform in numbers(gpt, len(prompt), NEW):
        if made.shape[1] - first == GRID[0]:
            first = made.shape[1] - kept
        seen = made[:, first:]
        actions = told.actions[:, first : first + seen.shape[1] + 1].clone()
        actions[:, 0, 0] = 0
        window = torch.cat([seen, prompt.new_zeros(len(prompt), 1, *GRID[1:])], dim=1)
        new = drawn_by_full_forward(gpt, window, settings, uniform, told._replace(actions=actions), seen.shape[1])
        made = torch.cat([made, new[:, None]], dim=1)
    return made


@pytest.fixture(params=["small", "large"], autouse=True)
def cache(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention of single indices goes another way where the cache is too large for the processor's own."""
    if request.param == "large":
        monkeypatch.setattr("tokenreel.transformer.attention_step.LARGE", 0)


@pytest.mark.parametrize("speculative", ["auto", "off"])
@pytest.mark.parametrize("clips", [1, 3, 9])  # twelve indices of each clip at once, eight, and one
@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize(("factors", "overlap", "t"), [(1, 0, 1), (1, 2, 0), (2, 1, 3)])
def test_clips_are_those_that_the_full_forward_draws(
    speculative: str, clips: int, guidance: float, factors: int, overlap: int, t: int
) -> None:
    gpt, prompt, told = random_gpt(factors), torch.randint(K, (clips, t, 2, 3)), said(clips, t + NEW)
    top_k = 4 if factors == 2 else SETTINGS.top_k
    settings = replace(SETTINGS, top_k=top_k, guidance=guidance, overlap=overlap, speculative=speculative)
    settings = replace(settings, sharpen="others") if clips == 3 else settings
    expected = grown_by_full_forward(gpt, prompt, settings, told)
    assert len(expected[:, t:].unique()) > 5
    assert torch.equal(sample_indices(gpt, prompt, NEW, settings, range(clips), told), expected)


@pytest.mark.parametrize("speculative", ["auto", "off"])
@pytest.mark.parametrize("clips", [1, 3, 9])
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_what_lies_between_is_what_the_full_forward_draws(speculative: str, clips: int, guidance: float) -> None:
    gpt, told = random_gpt(infilling=0.5), said(clips, GRID[0])
    first, last = torch.randint(K, (2, clips, 1, *GRID[1:]))
    settings = replace(SETTINGS, guidance=guidance, speculative=speculative)
    whole = torch.cat([first, torch.zeros_like(first), last], dim=1)
    expected = drawn_by_full_forward(gpt, whole, settings, numbers(gpt, clips, 1)[0], told, t=1)
    (made,) = sample_latent_frames(gpt, first, 1, settings, range(clips), told, last=last)
    assert torch.equal(made, expected)
