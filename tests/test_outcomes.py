"""The table of outcomes: what ingest makes of every file in the shared real/ and odd/, beside what is known of them.

The facts were found with decoders of several makes (facts.json beside the files). Rates and lengths are compared with
the stamps of the packets as well, which need no decoder.
"""

import json
import math
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tokenreel.datasets.clip_cache import open_or_ingest
from tokenreel.datasets.clip_record import ClipRecord
from tokenreel.datasets.ingest import IngestSettings
from tokenreel.datasets.ingest_report import read_sources

FPS = 10.0
SIZES = ((32, 32), (32, 56), (56, 32))
REASONS = {"no video stream": "no video stream", "InvalidDataError": "Invalid data found when processing input"}
IGNORED = {"real": {".wav": 1, ".mp3": 1}, "odd": {}}
"""Files that do not even call themselves videos."""
CORRUPT = "odd/trunc50_xvid.avi"
"""Its last frame is one that the decoder gives and marks as broken."""
STAMPS_LIE = {CORRUPT, "real/mmaction2__test.avi", "odd/reschange.ts", "odd/midcorrupt_nasa.mp4"}
"""Packets here are stamped otherwise than frames, or go on behind the damage."""


def packet_times(path: Path) -> tuple[np.ndarray, float]:
    """Seconds of the packets that are shown, sorted, and the width of a pixel by its height."""
    with av.open(str(path)) as container:
        stream: Any = container.streams.best("video")
        shown = [packet.pts for packet in container.demux(stream) if packet.pts is not None and not packet.is_discard]
        return np.sort(np.array(shown)) * float(stream.time_base), float(stream.sample_aspect_ratio or 1)


def complaints(name: str, path: Path, known: dict[str, Any], record: ClipRecord, told: dict[str, Any]) -> list[str]:
    """What of one row of the table does not agree."""
    times, pixel = packet_times(path)
    height, width = known["height"], known["width"] * pixel
    if known["rotation"] % 180:
        height, width = width, height
    nearest = min(SIZES, key=lambda size: abs(math.log(width / height * size[0] / size[1])))
    broken = "decode_error" in known or "shapes" in known or name == CORRUPT
    flags = {"damaged"} if broken else set()
    flags |= {"vfr"} if known["vfr"] else set()
    pairs = {
        "sha256": (record.sha256, known["sha256"]),
        "codec": (told["codec"], known["codec"]),
        "coded size": ((told["source_height"], told["source_width"]), (known["height"], known["width"])),
        "rotation": (record.rotation, known["rotation"] % 360),
        "size": (record.size, nearest),
        # Of the file whose size changes, those before it does.
        "frames": (record.source_frames, 60 if "shapes" in known else known["decoded_frames"]),
        "flags": (set(record.flags) & {"damaged", "vfr", "clock_jumps"}, flags),
    }
    if name not in STAMPS_LIE and len(times) > 1:
        seen = times[: record.source_frames]
        rate = (len(seen) - 1) / (seen[-1] - seen[0])
        pairs["rate"] = (abs(record.source_fps / rate - 1) < 2e-3, True)
        # From the first frame to half an interval behind the last one.
        length, slack = (seen[-1] - seen[0] + 0.5 / rate) * FPS + 0.5, 1 + 0.5 * FPS / rate * known["vfr"]
        pairs["length"] = (abs(record.frames - length) <= slack, True)
        pairs["upsampled"] = ("upsampled" in record.flags, rate < FPS * 0.998)
    return [f"{name}: {what} is {got}, expected {right}" for what, (got, right) in pairs.items() if got != right]


@pytest.mark.data
@pytest.mark.parametrize("folder", ["odd", pytest.param("real", marks=pytest.mark.slow)])
def test_every_file_has_the_outcome_that_is_known_of_it(folder: str, shared_data: Path, tmp_path: Path) -> None:
    facts = json.loads((shared_data / "facts.json").read_text())
    settings = IngestSettings(*SIZES[0], fps=FPS, others=SIZES[1:], workers=1)
    store = open_or_ingest(shared_data / folder, settings, tmp_path, progress=False)
    records = {record.file: record for record in store.records}
    told = {source["file"]: source for source in read_sources(store)}
    rejected = {r["file"]: r["reason"] for r in map(json.loads, (store.path / "rejected.jsonl").open())}
    wrong, ignored = [], 0
    for path in sorted((shared_data / folder).iterdir()):
        known = facts[f"{folder}/{path.name}"]
        if path.suffix in IGNORED[folder]:
            ignored += 1
            wrong += [f"{path.name} was read"] * (path.name in records or path.name in rejected)
        elif "error" in known:
            wrong += [f"{path.name}: {rejected.get(path.name)}"] * (rejected.get(path.name) != REASONS[known["error"]])
        elif path.name not in records or path.name in rejected:
            wrong.append(f"{path.name} is not kept: {rejected.get(path.name)}")
        else:
            name = f"{folder}/{path.name}"
            wrong += complaints(name, path, known, records[path.name], told[path.name])
    assert not wrong, "\n".join(wrong)
    if folder == "odd":
        still = {record.file for record in store.records if "static" in record.flags}
        assert still == {"all_black.mp4", "static_image.mp4", "trunc_vp9.webm"}
    assert store.info["ignored"] == IGNORED[folder] and ignored == len(IGNORED[folder])
    assert len(records) + len(rejected) + ignored == sum(name.startswith(f"{folder}/") for name in facts)
