"""The child process that decodes: a hang, a crash or a leak in a decoder stays in here.

It reads one job per line of standard input and answers each with one line of standard output, all in JSON; it
ends with its input. ``python -P -m tokenreel.datasets.ingest_worker`` starts it.
"""

import hashlib
import json
import os
import sys
from dataclasses import asdict, fields
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from tokenreel.datasets.array_stream import ArrayStream
from tokenreel.datasets.curation import CurationRules, stretches_of
from tokenreel.datasets.decoded_frame import UnreadableVideo
from tokenreel.datasets.decoding import FrameStream
from tokenreel.datasets.found_video import VideoPlace
from tokenreel.datasets.frame_measures import FrameMeasures
from tokenreel.datasets.scene_detector import SceneDetector

# Several at once are measured and written faster.
FRAMES_AT_ONCE = 8
USUAL_RATE = 30.0
"""Frames per second where every frame is kept, for what PySceneDetect counts in seconds."""


def decode(job: dict[str, Any]) -> dict[str, Any]:
    """Decodes one file into a flat file of uint8 frames, of which none but the last few are in memory, and judges it.

    Args:
        job: What a ``found_video.VideoPlace`` holds, ``part`` (file to write), ``height``, ``width``, ``fps``,
            ``others`` (see ``decoding.FrameStream``), ``decoder``, ``rules`` (see ``curation.CurationRules``), and
            ``want_indices``: whether to return the source index of each frame.

    Returns:
        ``rejected`` with the reason; or ``frames``, ``height``, ``width``, ``sha256`` (see
        ``clip_record.ClipRecord``), ``facts``, ``stretches`` (see ``curation.Stretch``), ``samples`` (frame and
        difference hash of some frames), ``indices``.

    Raises:
        OSError: If the part cannot be written.
    """
    place = VideoPlace(**{f.name: job[f.name] for f in fields(VideoPlace)})
    rules = CurationRules(**job["rules"])
    stream = _stream(place, job, rules.letterbox)
    measures, indices = FrameMeasures(job["fps"] or 0, rules.still_share), []
    stored = hashlib.sha256()
    detector = SceneDetector(rules.cuts, job["fps"] or USUAL_RATE) if rules.detects_scenes else None
    with open(job["part"], "wb") as part:
        try:
            frames = iter(stream)
            while batch := list(islice(frames, FRAMES_AT_ONCE)):
                images = np.stack([frame.image for frame in batch])
                size = images.shape[1:3]
                part.write(images.data)
                if not place.is_whole_file:
                    stored.update(images.data)
                measures.add(images)
                if detector:
                    detector.add(images)
                if job["want_indices"]:
                    indices += [frame.source_index for frame in batch]
        except UnreadableVideo as error:
            return {"rejected": str(error)}
    try:
        digest = stored.hexdigest() if not place.is_whole_file else _sha256(place.path)
    except OSError as error:
        return {"rejected": f"cannot be read: {error.strerror}"}
    cuts = None if detector is None else detector.cuts
    stretches = stretches_of(measures, rules, job["fps"] or stream.facts.source_fps, cuts)
    return {
        "frames": measures.frames,
        "height": size[0],
        "width": size[1],
        "sha256": digest,
        "facts": asdict(stream.facts) | {"time_base": str(stream.facts.time_base)},
        "stretches": [asdict(stretch) for stretch in stretches],
        "samples": list(zip(measures.sampled, measures.hashes, strict=True)),
        "indices": indices,
    }


def _stream(place: VideoPlace, job: dict[str, Any], letterbox: bool) -> FrameStream | ArrayStream:
    height, width, fps, others = job["height"], job["width"], job["fps"], [tuple(size) for size in job["others"]]
    if place.reader == "array":
        return ArrayStream(place, height, width, fps, others)
    span = (place.begin, place.end)
    return FrameStream(Path(place.path), height, width, fps, job["decoder"], letterbox, span, others)


def _sha256(path: str) -> str:
    with open(path, "rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


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
