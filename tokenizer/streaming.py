"""Encode and decode video of any length chunk by chunk, in constant memory.

    encoder, decoder = tokenizer.encoder_stream(), tokenizer.decoder_stream()
    for video in video_chunks(frames, chunk_frames=64, stride_t=4):  # frames: uint8 (H, W, 3), one after the other
        indices = encoder.push(video)               # int64 (1, 16, H', W')
        shown = to_frames(decoder.push(indices))    # uint8 (1, 64, H, W, 3)

What comes out is what the whole video would give, wherever it is cut: the same lines compute both, and a stream
carries the few latent frames that blocks look back to. ``map(encoder.push, chunks)`` is the stream as an iterator.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from tokenreel.tokenizer.blocks import Carried, Stack
from tokenreel.tokenizer.frames import to_video

if TYPE_CHECKING:
    from tokenreel.tokenizer.model import VideoTokenizer


class _Stream:
    """What both directions share: the past, and that all chunks are of one kind."""

    def __init__(self, tokenizer: "VideoTokenizer", stack: Stack, time_axis: int) -> None:
        self._tokenizer = tokenizer
        self._time_axis = time_axis
        self._carried = stack.nothing_carried()
        self._kind: str | None = None

    def _push(self, chunk: Tensor, work: Callable[[Tensor, list[Carried]], Tensor]) -> Tensor:
        if self._tokenizer.training:
            raise ValueError("the tokenizer is in training mode, expected eval mode; call tokenizer.eval() first")
        kind = self._kind_of(chunk)
        if self._kind not in (None, kind):
            raise ValueError(f"the chunk is {kind}, expected {self._kind} as before it; open a new stream for it")
        # A copy, so that a chunk that is refused leaves the stream as it was.
        carried = [dict(own) for own in self._carried]
        result = work(chunk, carried)
        self._kind, self._carried = kind, carried
        return result

    def _kind_of(self, chunk: Tensor) -> str:
        """Everything about a chunk but its length."""
        sizes = ["any" if axis == self._time_axis else str(size) for axis, size in enumerate(chunk.shape)]
        return f"{chunk.dtype} ({', '.join(sizes)}) on {chunk.device}"


class EncoderStream(_Stream):
    """Chunks of video -> their indices; :meth:`VideoTokenizer.encoder_stream` opens one where a video begins.

    Several videos go side by side as a batch. No gradient flows; the tokenizer must be in eval mode and keep its
    weights while the stream is open.
    """

    def __init__(self, tokenizer: "VideoTokenizer") -> None:
        super().__init__(tokenizer, tokenizer.encoder.blocks, time_axis=2)

    def push(self, video: Tensor) -> Tensor:
        """Encode the next chunk.

        Args:
            video: float (B, 3, T, H, W) in [-1, 1]; T any multiple of the temporal stride, all else as in the first
                chunk.

        Returns:
            int64 (B, T', H', W') in [0, K): the next latent frames of what ``encode`` makes of the whole video.

        Raises:
            ValueError: If the chunk is no such video, or the tokenizer is in training mode. The stream stays where
                it was.
        """
        return self._push(video, self._tokenizer.encode)


class DecoderStream(_Stream):
    """Chunks of indices -> their video; :meth:`VideoTokenizer.decoder_stream` opens one where a video begins.

    Several videos go side by side as a batch. No gradient flows; the tokenizer must be in eval mode and keep its
    weights while the stream is open.
    """

    def __init__(self, tokenizer: "VideoTokenizer") -> None:
        super().__init__(tokenizer, tokenizer.decoder.blocks, time_axis=1)

    def push(self, indices: Tensor) -> Tensor:
        """Decode the next chunk.

        Args:
            indices: int64 (B, T', H', W') in [0, K); T' any, all else as in the first chunk.

        Returns:
            float (B, 3, T, H, W) in [-1, 1]: the next frames of what ``decode`` makes of all the indices.

        Raises:
            ValueError: If the chunk is no such grid, or the tokenizer is in training mode. The stream stays where
                it was.
        """
        return self._push(indices, self._tokenizer.decode)


def video_chunks(frames: Iterable[np.ndarray], chunk_frames: int, stride_t: int) -> Iterator[Tensor]:
    """Frames as they come, e.g. from a decoder or a camera, to chunks of video.

    Args:
        frames: uint8 (H, W, 3) each, all of one size.
        chunk_frames: Frames per chunk, a multiple of ``stride_t``; the last chunk may have fewer.
        stride_t: The tokenizer's temporal stride.

    Yields:
        float32 (1, 3, T, H, W) in [-1, 1]. So that no frame is lost, the last one is repeated up to a multiple of
        ``stride_t``: at most stride_t - 1 frames too many come back from decoding.

    Raises:
        ValueError: If ``chunk_frames`` does not fit, or frames are of another type.
    """
    if chunk_frames < 1 or chunk_frames % stride_t:
        below = max(chunk_frames // stride_t, 1) * stride_t
        raise ValueError(
            f"chunk_frames {chunk_frames} is not a multiple of the temporal stride {stride_t}; "
            f"use {below} or {below + stride_t}"
        )
    source = iter(frames)
    while chunk := list(islice(source, chunk_frames)):
        chunk += chunk[-1:] * (-len(chunk) % stride_t)
        yield to_video(np.stack(chunk)[None])
