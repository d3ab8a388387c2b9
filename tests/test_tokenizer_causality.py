"""Latent frame i depends on frames before (i + 1) * stride_t and on nothing later; and back the same way."""

from itertools import product

import pytest
import torch
from torch import nn

from tokenreel.tokenizer import TokenizerConfig, VideoTokenizer
from tokenreel.tokenizer.config import QuantizerName

STRIDES = [(4, 8, 8), (4, 4, 4), (2, 8, 8), (1, 8, 8), (8, 16, 16)]
CASES = list(product(STRIDES, ["fsq", "vq", "bsq", "lfq"]))
LATENT_FRAMES = 5

cases = pytest.mark.parametrize(("stride", "quantizer"), CASES, ids=[f"{q}-{s}" for s, q in CASES])


def random_tokenizer(stride: tuple[int, int, int], quantizer: QuantizerName) -> VideoTokenizer:
    """A tokenizer in which everything matters: as made, blocks are the identity and taps do not look back."""
    config = TokenizerConfig(
        stride=stride, width=16, quantizer=quantizer, levels=(32, 32, 32), bits=18, vq_codebook_size=64
    )
    tokenizer = VideoTokenizer(config)
    for parameter in tokenizer.parameters():
        nn.init.normal_(parameter, std=0.25)
    if quantizer == "vq":
        tokenizer.train()(random_video(stride, LATENT_FRAMES, batch=4))  # its codebook starts from data
    return tokenizer.eval()


def random_video(stride: tuple[int, int, int], latent_frames: int, batch: int = 2) -> torch.Tensor:
    """Video whose latent grid is 2 x 2 wide."""
    frames, height, width = latent_frames * stride[0], 2 * stride[1], 2 * stride[2]
    return torch.rand(batch, 3, frames, height, width) * 2 - 1


@cases
def test_indices_of_the_past_are_the_same_whatever_follows(
    stride: tuple[int, int, int], quantizer: QuantizerName
) -> None:
    tokenizer, step = random_tokenizer(stride, quantizer), stride[0]
    video, other = random_video(stride, LATENT_FRAMES), random_video(stride, LATENT_FRAMES)
    whole = tokenizer.encode(video)
    assert len(whole.unique()) > 10
    for k in range(1, LATENT_FRAMES + 1):
        for longer in range(k, LATENT_FRAMES + 1):
            indices = tokenizer.encode(video[:, :, : longer * step])
            assert torch.equal(indices[:, :k], whole[:, :k])
        spliced = torch.cat([video[:, :, : k * step], other[:, :, k * step :]], dim=2)
        indices = tokenizer.encode(spliced)
        assert torch.equal(indices[:, :k], whole[:, :k])
        assert k == LATENT_FRAMES or not torch.equal(indices, whole)


@cases
def test_gradients_reach_own_and_earlier_frames_and_no_later_one(
    stride: tuple[int, int, int], quantizer: QuantizerName
) -> None:
    tokenizer, step = random_tokenizer(stride, quantizer), stride[0]
    video = random_video(stride, LATENT_FRAMES).requires_grad_()
    features = tokenizer.encoder(video)
    codes = tokenizer.quantizer(features).codes
    for what in (features,) if quantizer == "vq" else (features, codes):
        for i in range(LATENT_FRAMES):
            (gradient,) = torch.autograd.grad(what[:, i].square().sum(), video, retain_graph=True)
            by_frame = gradient.abs().amax(dim=(0, 1, 3, 4))
            assert (by_frame[(i + 1) * step :] == 0).all()
            assert (by_frame[i * step : (i + 1) * step] > 0).all()
            assert i == 0 or (by_frame[(i - 1) * step : i * step] > 0).all()


@cases
def test_decoded_frames_do_not_change_when_later_latents_do(
    stride: tuple[int, int, int], quantizer: QuantizerName
) -> None:
    tokenizer, step = random_tokenizer(stride, quantizer), stride[0]
    size, shape = tokenizer.config.codebook_size, (2, LATENT_FRAMES, 2, 2)
    indices, other = torch.randint(size, shape), torch.randint(size, shape)
    whole = tokenizer.decode(indices)
    for k in range(1, LATENT_FRAMES):
        spliced = tokenizer.decode(torch.cat([indices[:, :k], other[:, k:]], dim=1))
        assert torch.equal(spliced[:, :, : k * step], whole[:, :, : k * step])
        assert not torch.equal(spliced[:, :, k * step :], whole[:, :, k * step :])
        alone = tokenizer.decode(indices[:, :k])
        torch.testing.assert_close(alone, whole[:, :, : k * step], rtol=0, atol=1e-4)
        with_other_past = tokenizer.decode(torch.cat([other[:, :k], indices[:, k:]], dim=1))
        assert not torch.equal(with_other_past[:, :, k * step :], whole[:, :, k * step :])
