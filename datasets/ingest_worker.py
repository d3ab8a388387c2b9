"""The child process that decodes: a hang, a crash or a leak in a decoder stays in here.

It reads one job per line of standard input and answers each with one line of standard output, all in JSON; it
ends with its input. ``python -P -m tokenreel.datasets.ingest_worker`` starts it.
"""

import hashlib
import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tokenreel.datasets.decoded_frame import UnreadableVideo
from tokenreel.datasets.decoding import FrameStream

# A video is static when no frame has more than this share of pixels that differ from the first frame by more
# than the noise of a codec. A ball of two pixels in 64x64 that moves already exceeds it.
CODEC_NOISE = 24
CHANGED_PIXELS = 0.0003
# Black in limited range may come out a few levels above 0.
BLACK_LEVEL = 24


@dataclass
class Appearance:
    """Whether anything is to be seen: ``static`` and ``black`` hold until a frame says otherwise."""

    static: bool = True
    black: bool = True
    frames: int = 0
    first: np.ndarray | None = None

    def add(self, image: np.ndarray) -> None:
        """Looks at the next frame, uint8 (H, W, 3)."""
        self.frames += 1
        if self.black and image.max() > BLACK_LEVEL:
            self.black = False
        if self.first is None:
            self.first = image.astype(np.int16)
        elif self.static:
            changed = (np.abs(image - self.first) > CODEC_NOISE).any(axis=-1)
            self.static = bool(changed.mean() <= CHANGED_PIXELS)


def decode(job: dict[str, Any]) -> dict[str, Any]:
    """Decodes one file into a flat file of uint8 frames, in constant memory.

    Args:
        job: ``path``, ``part`` (file to write), ``height``, ``width``, ``fps``, ``decoder``, and
            ``want_indices``: whether to return the source index of each frame.

    Returns:
        ``rejected`` with the reason; or ``frames``, ``sha256`` of the source, ``facts``, ``static``,
        ``black``, ``indices``.

    Raises:
        OSError: If the part cannot be written.
    """
    path = Path(job["path"])
    stream = FrameStream(path, job["height"], job["width"], job["fps"], job["decoder"])
    look, indices = Appearance(), []
    with open(job["part"], "wb") as part:
        try:
            for frame in stream:
                part.write(frame.image.data)
                look.add(frame.image)
                if job["want_indices"]:
                    indices.append(frame.source_index)
        except UnreadableVideo as error:
            return {"rejected": str(error)}
    try:
        with path.open("rb") as source:
            digest = hashlib.file_digest(source, "sha256").hexdigest()
    except OSError as error:
        return {"rejected": f"cannot be read: {error.strerror}"}
    return {
        "frames": look.frames,
        "sha256": digest,
        "facts": asdict(stream.facts) | {"time_base": str(stream.facts.time_base)},
        "static": look.static and look.frames > 1,
        "black": look.black,
        "indices": indices,
    }


def main() -> None:
    """Serves jobs until the input ends."""
    # Libraries that print must not disturb the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="ascii")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for line in sys.stdin:
        try:
            answer = decode(json.loads(line))
        except OSError as error:
            answer = {"failed": str(error)}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
