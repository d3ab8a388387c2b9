"""The captions of a data set as vectors of a text encoder, put beside its token shards."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.progress import track

from tokenreel.datasets.caption_table import CAPTIONS, TABLE_FILES, CaptionTable, write_caption_table
from tokenreel.datasets.clip_store import ClipStore
from tokenreel.datasets.place import LocalPlace, Place
from tokenreel.transformer.conditions import SHORTEST_CAPTION
from tokenreel.transformer.text_encoder import TextEncoder

CAPTIONS_AT_ONCE = 1024


def carry_captions(encoder: TextEncoder, most: int, store: ClipStore, place: Place) -> dict[str, Any]:
    """Put the vectors of the captions beside the shards; returns what the manifest says of them."""
    if isinstance(place, LocalPlace):
        return _encode_captions(encoder, store, place.folder / CAPTIONS, most)
    target = place.child(CAPTIONS)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / CAPTIONS
        there = target.exists(TABLE_FILES[-1])
        if there:
            folder.mkdir()
            for name in TABLE_FILES:
                target.receive(name, folder / name)
        facts = _encode_captions(encoder, store, folder, most)
        for name in () if there else TABLE_FILES:
            target.send(folder / name, name)
    return facts


def _encode_captions(encoder: TextEncoder, store: ClipStore, folder: Path, most: int) -> dict[str, Any]:
    """Store the vectors of every distinct caption, of all splits; returns what the manifest says of them."""
    captions = sorted({record.caption for record in store.records if record.caption is not None})
    if all(record.caption is None for record in store.split("train")):
        raise ValueError(
            f"no training video has a caption, expected some for --text-encoder {encoder.name}; add them "
            "(metadata.jsonl), or leave the option out"
        )
    longest = encoder.longest(captions)
    words = max(SHORTEST_CAPTION, min(most or longest, longest))
    begins = track(
        range(0, len(captions), CAPTIONS_AT_ONCE), "captions", transient=True, disable=not sys.stdout.isatty()
    )
    parts = (encoder.encode(captions[begin : begin + CAPTIONS_AT_ONCE], words, cut=bool(most)) for begin in begins)
    write_caption_table(folder, encoder.name, encoder.probe, captions, parts)
    table = CaptionTable.open(folder)  # perhaps of an earlier run
    encoder.check_same(table.encoder, table.dim, table.probe)
    if table.words != words:
        raise ValueError(
            f"{folder} holds vectors of up to {table.words} tokens a caption, expected {words}; choose another --out "
            "or delete the folder"
        )
    print(f"captions: {len(captions)} distinct, up to {words} tokens of {encoder.dim} values by {encoder.name}")
    return {"words": words, "encoder": encoder.name, "dim": encoder.dim, "probe": list(table.probe)}
