"""A video encoded and decoded chunk by chunk is what it is whole, wherever it is cut and however long it is."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tokenreel.datasets.video_writer import write_video
from tokenreel.tokenizer import TokenizerConfig, VideoTokenizer
from tokenreel.tokenizer.blocks import TEMPORAL_TAPS, CausalMixer
from tokenreel.tokenizer.config import QuantizerName
from tokenreel.tokenizer.frames import to_frames
from tokenreel.tokenizer.streaming import DecoderStream, EncoderStream, video_chunks

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()

CUTS = [(7,), (1, 1, 1, 1, 1, 1, 1), (1, 5, 1), (2, 1, 4), (3, 4), (6, 1)]
"""Seven latent frames in chunks of so many."""


def random_tokenizer(quantizer: QuantizerName = "fsq", **values: Any) -> VideoTokenizer:
    """A tokenizer in which everything matters: as made, blocks are the identity and taps do not look back."""
    config = TokenizerConfig(**{"width": 24, "levels": (32, 32, 32), "quantizer": quantizer, **values})
    tokenizer = VideoTokenizer(config)
    for parameter in tokenizer.parameters():
        nn.init.normal_(parameter, std=0.25)
    if quantizer == "vq":
        tokenizer.train()(random_video(8, batch=4))  # its codebook starts from data
    return tokenizer.eval()


def random_video(frames: int, batch: int = 2, height: int = 16, width: int = 24) -> Tensor:
    return torch.rand(batch, 3, frames, height, width) * 2 - 1


def streamed(stream: EncoderStream | DecoderStream, chunks: list[Tensor], dim: int) -> Tensor:
    return torch.cat(list(map(stream.push, chunks)), dim=dim)


# chunked = whole


@pytest.mark.parametrize("cuts", CUTS, ids=str)
@pytest.mark.parametrize("quantizer", ["fsq", "vq", "bsq", "lfq"])
def test_chunks_give_what_the_whole_gives(quantizer: QuantizerName, cuts: tuple[int, ...]) -> None:
    tokenizer = random_tokenizer(quantizer, encoder_depth=2, decoder_depth=3, bits=12)
    video = random_video(28)
    indices = tokenizer.encode(video)
    frames = tokenizer.decode(indices)
    assert len(indices.unique()) > 10
    chunks = list(video.split([4 * cut for cut in cuts], dim=2))
    assert torch.equal(streamed(tokenizer.encoder_stream(), chunks, dim=1), indices)
    chunks = list(indices.split(list(cuts), dim=1))
    torch.testing.assert_close(streamed(tokenizer.decoder_stream(), chunks, dim=2), frames, rtol=0, atol=1e-5)


@pytest.mark.parametrize("stride", [(1, 8, 8), (2, 4, 8), (8, 4, 4)], ids=str)
def test_chunks_of_every_stride_and_in_bf16(stride: tuple[int, int, int]) -> None:
    tokenizer = random_tokenizer(stride=stride)
    video = random_video(5 * stride[0])
    with torch.autocast("cpu", torch.bfloat16):
        indices = tokenizer.encode(video)
        frames = tokenizer.decode(indices)
        encoded = streamed(tokenizer.encoder_stream(), list(video.split(stride[0], dim=2)), dim=1)
        decoded = streamed(tokenizer.decoder_stream(), list(indices.split(2, dim=1)), dim=2)
    assert torch.equal(encoded, indices)
    torch.testing.assert_close(decoded, frames, rtol=0, atol=1e-5)


def test_the_past_matters_and_rows_of_a_batch_are_streams_of_their_own() -> None:
    tokenizer = random_tokenizer()
    video = random_video(16)
    encoder, decoder = tokenizer.encoder_stream(), tokenizer.decoder_stream()
    indices = torch.cat([encoder.push(video[:, :, :8]), encoder.push(video[:, :, 8:])], dim=1)
    assert not torch.equal(indices[:, 2:], tokenizer.encode(video[:, :, 8:]))
    frames = torch.cat([decoder.push(indices[:, :2]), decoder.push(indices[:, 2:])], dim=2)
    assert (frames[:, :, 8:] - tokenizer.decode(indices[:, 2:])).abs().max() > 0.01
    for row in range(2):
        alone = tokenizer.encoder_stream()
        chunks = [alone.push(video[row : row + 1, :, :8]), alone.push(video[row : row + 1, :, 8:])]
        assert torch.equal(torch.cat(chunks, dim=1)[0], indices[row])


def test_two_streams_of_one_tokenizer_do_not_meet() -> None:
    tokenizer = random_tokenizer()
    videos = [random_video(12), random_video(12)]
    streams = [tokenizer.encoder_stream(), tokenizer.encoder_stream()]
    parts = [[stream.push(video[:, :, t : t + 4]) for stream, video in zip(streams, videos, strict=True)]
             for t in range(0, 12, 4)]  # fmt: skip
    for video, encoded in zip(videos, zip(*parts, strict=True), strict=True):
        assert torch.equal(torch.cat(encoded, dim=1), tokenizer.encode(video))


# what is carried


def test_tap_k_is_the_latent_frame_k_ago() -> None:
    mixer = CausalMixer(4)
    x = torch.rand(1, 6, 2, 2, 4)
    with torch.no_grad():
        mixed = mixer(x)
        for back in range(TEMPORAL_TAPS):
            mixer.taps.copy_(torch.eye(TEMPORAL_TAPS)[back, :, None].expand(-1, 4))
            delayed = mixer(x)
            assert torch.equal(delayed[:, back:], mixed[:, : 6 - back]) and (delayed[:, :back] == 0).all()


def test_a_stream_keeps_the_latent_frames_that_taps_need_and_nothing_else() -> None:
    tokenizer = random_tokenizer(encoder_depth=2, decoder_depth=3)
    encoder, decoder = tokenizer.encoder_stream(), tokenizer.decoder_stream()
    for stream, depth in ((encoder, 2), (decoder, 3)):
        for frames in (4, 40, 8):
            if isinstance(stream, EncoderStream):
                stream.push(random_video(frames).requires_grad_())
            else:
                stream.push(torch.zeros(2, frames // 4, 2, 3, dtype=torch.int64))
            kept = [tensor for own in stream._carried for tensor in own.values()]
            assert not any(tensor.requires_grad for tensor in kept)
            held = sum(tensor.untyped_storage().nbytes() for tensor in kept)
            assert held == depth * 2 * (TEMPORAL_TAPS - 1) * 2 * 3 * 24 * 4


GROWTH = """
import collections, json, re, sys, torch
from pathlib import Path
from tokenreel.tokenizer import TokenizerConfig, VideoTokenizer

torch.set_num_threads(1)
torch.manual_seed(0)
tokenizer = VideoTokenizer(TokenizerConfig(width=32))
for parameter in tokenizer.parameters():
    torch.nn.init.normal_(parameter, std=0.25)
tokenizer.eval()
h, w = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")

def chunk(begin, frames):
    t = torch.arange(begin, begin + frames)[:, None, None]
    return torch.stack([torch.sin(0.01 * t * (c + 1) + 0.2 * h + 0.1 * c * w) for c in range(3)])[None]

def peak_kib():
    return int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])

encoder, decoder = tokenizer.encoder_stream(), tokenizer.decoder_stream()
peaks, first, recent = {}, [], collections.deque(maxlen=6)
for begin in range(0, 10_000, 40):
    recent.append(encoder.push(chunk(begin, 40)))
    frames = decoder.push(recent[-1])
    if begin < 800:
        first.append(recent[-1])
    peaks[begin + 40] = peak_kib()
# At the start the whole clip; at the end one that begins well before all blocks together can look back to.
whole, tail = torch.cat(first, dim=1), torch.cat(list(recent), dim=1)
json.dump({
    "growth_kib": peaks[10_000] - peaks[1_000],
    "codes": len(whole.unique()),
    "first_equal": torch.equal(tokenizer.encode(chunk(0, 800)), whole),
    "tail_equal": torch.equal(tokenizer.encode(chunk(9760, 240))[:, -10:], tail[:, -10:]),
    "tail_off": (tokenizer.decode(tail)[:, :, -40:] - frames).abs().max().item(),
}, sys.stdout)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak memory of a child is read from /proc")
def test_ten_thousand_frames_take_no_more_memory_than_a_thousand() -> None:
    # A child process, and VmHWM: ru_maxrss begins at the peak of whoever started the child.
    result = subprocess.run([sys.executable, "-c", GROWTH], capture_output=True, text=True, check=True)
    found = json.loads(result.stdout)
    assert found["first_equal"] and found["tail_equal"] and found["codes"] > 10
    assert found["tail_off"] <= 1e-5
    assert (
        found["growth_kib"] < 8 * 1024
    )  # the allocator alone moves by 2 to 4 MiB; one block that keeps all it saw, by 18


# refused chunks


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v[:, :, :3], "frames 3 is not a multiple of the tokenizer's stride 4; use 4 or 8"),
        (lambda v: v[..., :16], r"float32 \(2, 3, any, 16, 16\) on cpu, expected .*\(2, 3, any, 16, 24\).* new stream"),
        (lambda v: v[:1], r"\(1, 3, any, 16, 24\) on cpu, expected .*\(2, 3, any, 16, 24\)"),
        (lambda v: v.double(), r"torch.float64 .* expected torch.float32"),
        (lambda v: v[0], r"\(3, 8, any, 24\) on cpu, expected"),
        (lambda v: v * 200, "expected values in"),
    ],
)
def test_a_refused_chunk_of_video_leaves_the_stream_where_it_was(change: Any, message: str) -> None:
    tokenizer, video = random_tokenizer(), random_video(16)
    encoder = tokenizer.encoder_stream()
    first = encoder.push(video[:, :, :8])
    with pytest.raises(ValueError, match=message):
        encoder.push(change(video[:, :, 8:]))
    second = encoder.push(video[:, :, 8:])
    assert torch.equal(torch.cat([first, second], dim=1), tokenizer.encode(video))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i: i + 40_000, r"indices reach .* expected \[0, 32768\); they come from another tokenizer"),
        (lambda i: i[:, :, :1], r"\(2, any, 1, 3\) on cpu, expected torch.int64 \(2, any, 2, 3\)"),
        (lambda i: i.to(torch.int32), "torch.int32 .* expected torch.int64"),
        (lambda i: i[:, 0], r"expected torch.int64 \(2, any, 2, 3\)"),
    ],
)
def test_a_refused_chunk_of_indices_leaves_the_stream_where_it_was(change: Any, message: str) -> None:
    tokenizer = random_tokenizer()
    indices = torch.randint(32**3, (2, 4, 2, 3))
    decoder = tokenizer.decoder_stream()
    first = decoder.push(indices[:, :2])
    with pytest.raises(ValueError, match=message):
        decoder.push(change(indices[:, 2:]))
    frames = torch.cat([first, decoder.push(indices[:, 2:])], dim=2)
    torch.testing.assert_close(frames, tokenizer.decode(indices), rtol=0, atol=1e-5)


def test_a_failure_half_way_leaves_the_stream_where_it_was() -> None:
    tokenizer, video = random_tokenizer(), random_video(16)
    encoder = tokenizer.encoder_stream()
    first = encoder.push(video[:, :, :8])

    def full(*_: object) -> None:
        raise MemoryError

    with tokenizer.encoder.norm.register_forward_pre_hook(full), pytest.raises(MemoryError):  # after all blocks
        encoder.push(video[:, :, 8:])
    assert torch.equal(torch.cat([first, encoder.push(video[:, :, 8:])], dim=1), tokenizer.encode(video))


def test_training_mode_is_refused() -> None:
    tokenizer = random_tokenizer().train()
    with pytest.raises(ValueError, match=r"training mode, expected eval mode; call tokenizer.eval\(\)"):
        tokenizer.encoder_stream().push(random_video(4))
    with pytest.raises(ValueError, match="expected eval mode"):
        tokenizer.decoder_stream().push(torch.zeros(1, 1, 2, 3, dtype=torch.int64))


# from frames to chunks


def test_frames_become_chunks_and_none_is_lost() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (22, 8, 8, 3), dtype=np.uint8)
    chunks = [to_frames(video)[0] for video in video_chunks(iter(frames), chunk_frames=8, stride_t=4)]
    assert [len(chunk) for chunk in chunks] == [8, 8, 8]
    joined = np.concatenate(chunks)
    assert np.array_equal(joined[:22], frames) and (joined[22:] == frames[-1]).all()
    assert [len(chunk[0, 0]) for chunk in video_chunks(frames[:17], 16, 4)] == [16, 4]
    assert [len(chunk[0, 0]) for chunk in video_chunks(frames[:16], 8, 8)] == [8, 8]
    assert list(video_chunks([], 8, 4)) == []
    for wrong, remedy in ((6, "use 4 or 8"), (0, "use 4 or 8"), (2, "use 4 or 8")):
        with pytest.raises(ValueError, match=f"chunk_frames {wrong} is not a multiple .* 4; {remedy}"):
            next(video_chunks(frames, wrong, 4))


def test_chunks_are_made_as_frames_come() -> None:
    taken = []

    def camera() -> Any:
        for number in range(1000):
            taken.append(number)
            yield np.zeros((8, 8, 3), dtype=np.uint8)

    chunks = video_chunks(camera(), 8, 4)
    next(chunks), next(chunks)
    assert len(taken) == 16


def test_the_readmes_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = (e for e in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL) if "_stream()" in e)
    monkeypatch.chdir(tmp_path)
    random_tokenizer().save_pretrained("runs/mine/tokenizer")
    frames = np.random.default_rng(0).integers(0, 256, (150, 64, 64, 3), dtype=np.uint8)
    write_video(Path("long.mp4"), frames, 10.0)
    names: dict[str, Any] = {}
    exec(example, names)
    assert names["indices"].shape == (1, 6, 8, 8)
    assert names["frames"].shape == (24, 64, 64, 3) and names["frames"].dtype == np.uint8
