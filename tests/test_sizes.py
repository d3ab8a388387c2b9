"""Any length, height and width that the stride divides, without the tokenizer having been made for it."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tokenreel.tokenizer import TokenizerConfig, VideoTokenizer
from tokenreel.tokenizer.frames import still_clip, to_video

SIZES = [(8, 24, 40), (4, 64, 8), (4, 8, 8), (20, 8, 104), (12, 16, 16)]
STRIDES = [(4, 8, 8), (2, 8, 4), (1, 4, 8), (4, 4, 4)]


def random_tokenizer(stride: tuple[int, int, int] = (4, 8, 8), depth: int = 2) -> VideoTokenizer:
    """A tokenizer in which everything matters: as made, blocks are the identity and taps do not look back."""
    config = TokenizerConfig(stride=stride, width=24, levels=(32, 32, 32), encoder_depth=depth, decoder_depth=depth)
    tokenizer = VideoTokenizer(config)
    for parameter in tokenizer.parameters():
        nn.init.normal_(parameter, std=0.25)
    return tokenizer.eval()


def random_video(frames: int, height: int, width: int, batch: int = 2) -> Tensor:
    return torch.rand(batch, 3, frames, height, width) * 2 - 1


@pytest.mark.parametrize("stride", STRIDES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_size_that_the_stride_divides(size: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
    tokenizer = random_tokenizer(stride)
    video = random_video(*size)
    indices = tokenizer.encode(video)
    assert indices.shape == (2, *(extent // step for extent, step in zip(size, stride, strict=True)))
    assert len(indices.unique()) > 1
    decoded = tokenizer.decode(indices)
    assert decoded.shape == video.shape and decoded.isfinite().all()
    with torch.no_grad():  # training takes every size too
        assert tokenizer.train()(video).reconstruction.shape == video.shape


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_rows_of_a_batch_do_not_meet(size: tuple[int, int, int]) -> None:
    tokenizer = random_tokenizer()
    video = random_video(*size, batch=3)
    indices = tokenizer.encode(video)
    decoded = tokenizer.decode(indices)
    for row in range(3):
        # Two rows at least: with a single cell the matrix product is another routine, and rounds differently.
        others = torch.cat([video[row : row + 1], random_video(*size, batch=1)])
        assert torch.equal(tokenizer.encode(others)[0], indices[row])
        again = tokenizer.decode(torch.stack([indices[row], indices[row].flip(0)]))[0]
        torch.testing.assert_close(again, decoded[row], rtol=0, atol=1e-5)


def test_one_tokenizer_remembers_no_size() -> None:
    tokenizer = random_tokenizer()
    video = random_video(8, 24, 40)
    before = tokenizer.encode(video)
    for size in SIZES:
        tokenizer.reconstruct(random_video(*size))
    assert torch.equal(tokenizer.encode(video), before)


@pytest.mark.parametrize("depth", [1, 2])
def test_far_from_the_border_a_cut_out_is_what_it_is_in_the_whole(depth: int) -> None:
    # Each block mixes a cell with its neighbours, so this many cells from the border nothing knows of it.
    tokenizer = random_tokenizer(depth=depth)
    kernel = next(layer for layer in tokenizer.modules() if isinstance(layer, nn.Conv2d)).kernel_size[0]
    reach = depth * (kernel // 2)
    cells = 4 * reach + 3
    video = random_video(8, (cells + 2) * 8, (cells + 3) * 8)
    cut = video[..., 8 : 8 + cells * 8, 16 : 16 + cells * 8].contiguous()
    whole, indices = tokenizer.encode(video)[:, :, 1 : 1 + cells, 2 : 2 + cells], tokenizer.encode(cut)
    inner = slice(reach, cells - reach)
    assert torch.equal(indices[:, :, inner, inner], whole[:, :, inner, inner])
    assert not torch.equal(indices, whole)
    decoded, of_cut = (
        tokenizer.reconstruct(video)[..., 8 : 8 + cells * 8, 16 : 16 + cells * 8],
        tokenizer.decode(indices),
    )
    inner = slice(2 * reach * 8, (cells - 2 * reach) * 8)
    torch.testing.assert_close(of_cut[..., inner, inner], decoded[..., inner, inner], rtol=0, atol=1e-5)
    assert (of_cut - decoded).abs().max() > 0.01


def test_an_image_is_the_first_latent_frame_of_itself_standing_still() -> None:
    tokenizer = random_tokenizer()
    image = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    alone = tokenizer.encode(to_video(still_clip(image, 4)))
    assert alone.shape == (1, 1, 3, 5)
    longer = tokenizer.encode(to_video(still_clip(image, 12)))
    assert torch.equal(longer[:, :1], alone)
    assert tokenizer.decode(alone).shape == (1, 3, 4, 24, 40)
