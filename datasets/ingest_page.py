"""The report of an ingest as one page of HTML, pictures inside, to be looked at in a minute."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import numpy as np

from tokenreel.datasets.clip_record import ClipRecord
from tokenreel.datasets.clip_store import ClipStore
from tokenreel.datasets.ingest_report import ingest_report, read_sources
from tokenreel.datasets.ingest_shots import jpeg_of

SHOWN_SHOTS = 36
SHOWN_EXTREMES = 8
SHOWN_PER_REASON = 16
SHOWN_ROWS = 200
REASONS = {
    "static": "nothing moves in the whole shot",
    "frozen": "nothing moves for seconds",
    "black": "nothing but black",
    "blurred": "less sharp than asked for",
    "short": "too few frames",
    "duplicate": "a copy of another video",
}
COLOURS = {
    "kept": "#3a7d44",
    "static": "#8d6a9f",
    "frozen": "#4f6d9a",
    "black": "#222",
    "blurred": "#c9a227",
    "short": "#b5651d",
    "duplicate": "#a23b4a",
}
TITLES = {
    "seconds": "length of the shots, in seconds",
    "motion": "motion: share of the pixels that change per frame",
    "resolution": "resolution of the sources",
    "source_fps": "frames per second of the sources",
    "sharpness": "sharpness (--curation.blur)",
    "brightness": "brightness, 0 to 255",
}
STYLE = """
body{font:14px/1.45 system-ui,sans-serif;margin:24px auto;max-width:1180px;padding:0 16px;color:#222;background:#fff}
h1{font-size:22px;margin:0 0 2px}h2{font-size:16px;margin:28px 0 8px;border-bottom:1px solid #ddd;padding-bottom:3px}
.quiet{color:#666}.tiles{display:flex;flex-wrap:wrap;gap:10px;margin:14px 0}
.tile{border:1px solid #ddd;border-radius:6px;padding:8px 14px;min-width:100px}.tile b{display:block;font-size:21px}
.bar{display:flex;height:26px;border-radius:5px;overflow:hidden;background:#eee}.bar i{display:block}
.key{display:inline-block;width:11px;height:11px;border-radius:2px;margin:0 5px 0 14px}
.warn{background:#fff5e0;border-left:4px solid #e0a100;padding:6px 12px;margin:6px 0}
.pictures{display:flex;flex-wrap:wrap;gap:8px}
figure{margin:0;width:max-content}figure img{display:inline-block;height:72px}
figcaption{font-size:11px;color:#555;max-width:216px;overflow-wrap:anywhere;width:0;min-width:max(100%,112px)}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(340px,1fr));gap:14px 28px}
.row{display:grid;grid-template-columns:110px 1fr 54px;gap:6px;align-items:center;font-size:12px}
.row span:first-child{text-align:right;color:#555}.row i{display:block;height:12px;background:#4f6d9a;border-radius:2px}
table{border-collapse:collapse;font-size:12.5px}td,th{text-align:left;padding:2px 14px 2px 0;vertical-align:top}
"""


def ingest_page(store: ClipStore) -> str:
    """The page, without a link to anything outside of it.

    Raises:
        ValueError: If the store is from before its sources were kept.
    """
    report = ingest_report(store)
    parts = [_head(report), _warnings(report), _shots(store, report), _left_out(store, report), _copies(store, report)]
    parts += [_charts(report), _tables(report)]
    body = "\n".join(part for part in parts if part)
    title = escape(store.info["source"])
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}: ingest</title>'
        f"<style>{STYLE}</style><body>{body}</body></html>\n"
    )


def _head(report: dict[str, Any]) -> str:
    totals, settings = report["totals"], report["settings"]
    rate = f"{settings['fps']:g} frames per second" if settings["fps"] else "every frame"
    tiles = {
        "videos found": totals["videos"],
        "videos kept": totals["videos_kept"],
        "shots": totals["shots"],
        "kept": _duration(totals["seconds_kept"]),
        "frames kept": f"{totals['frames_kept']:,}",
        "of the frames": f"{totals['frames_kept'] / max(1, totals['frames']):.1%}",
    }
    for split, counts in report["splits"].items():
        tiles[split] = f"{counts['videos']} videos"
    size = f"{settings['width']}x{settings['height']}"
    told = f"{escape(report['kind'])}; frames of {size}, {rate}, decoded by {settings['decoder']}"
    shares = {"kept": totals["frames_kept"]} | {name: c["frames"] for name, c in report["left_out"].items()}
    whole = max(1, sum(shares.values()))
    bar = "".join(f'<i style="width:{100 * n / whole:.2f}%;background:{COLOURS[k]}"></i>' for k, n in shares.items())
    keys = "".join(
        f'<span class="key" style="background:{COLOURS[name]}"></span>{name} {count:,} frames ({count / whole:.1%})'
        for name, count in shares.items()
    )
    boxes = "".join(f'<div class="tile"><b>{escape(str(value))}</b>{name}</div>' for name, value in tiles.items())
    return (
        f'<h1>{escape(report["source"])}</h1><div class="quiet">{told}; clip store '
        f'{escape(report["clip_store"])}</div><div class="tiles">{boxes}</div>'
        f'<div class="bar">{bar}</div><div style="margin:5px 0 0 -14px">{keys}</div>'
    )


def _warnings(report: dict[str, Any]) -> str:
    return "".join(f'<div class="warn">{escape(text)}</div>' for text in report["warnings"])


def _shots(store: ClipStore, report: dict[str, Any]) -> str:
    """First, middle and last frame of shots from all over the store, and of those that are nearly left out."""
    by_key = {record.key: record for record in store.records}
    shots = [part for source in report["videos"] for part in source["stretches"] if part["key"] in by_key]
    spread = np.unique(np.linspace(0, len(shots) - 1, min(SHOWN_SHOTS, len(shots))).round().astype(int))
    text = f"<h2>What is kept: {len(spread)} of {len(shots)} shots, each with first, middle and last frame</h2>"
    text += _gallery(_strip(store, by_key[shots[n]["key"]], shots[n]) for n in spread)
    if len(shots) > len(spread):
        for name, words in (("motion", "least motion"), ("sharpness", "least sharp"), ("brightness", "darkest")):
            known = sorted((s for s in shots if s[name] is not None), key=lambda shot: shot[name])[:SHOWN_EXTREMES]
            text += f"<h2>Kept, {words}</h2>" + _gallery(_strip(store, by_key[s["key"]], s) for s in known)
    return text


def _left_out(store: ClipStore, report: dict[str, Any]) -> str:
    parts = [(source, stretch) for source in read_sources(store) for stretch in source["stretches"]]
    text = ""
    for reason, counts in report["left_out"].items():
        shown = [(source, part) for source, part in parts if part["dropped"] == reason and part["picture"]]
        text += (
            f"<h2>Left out, {reason}: {REASONS[reason]} ({counts['stretches']} stretches, {counts['frames']:,} frames)"
            "</h2>"
        )
        text += _gallery(
            _figure([part["picture"]], f"{source['file']}, {_when(source, part)}")
            for source, part in shown[:SHOWN_PER_REASON]
        )
    return text


def _copies(store: ClipStore, report: dict[str, Any]) -> str:
    if not report["copies"]:
        return ""
    by_key = {record.key: record for record in store.records}
    pairs = [(by_key[copy["key"]], by_key.get(copy["of"])) for copy in report["copies"]]
    figures = [
        _figure(
            [jpeg_of(store.frames(r, r.frames // 2, r.frames // 2 + 1)[0]) for r in (copy, of)],
            f"{copy.file} = {of.file}",
        )
        for copy, of in pairs
        if of is not None
    ]
    return f"<h2>Copies: {len(pairs)}</h2>" + _gallery(figures[:SHOWN_PER_REASON])


def _charts(report: dict[str, Any]) -> str:
    charts = "".join(f"<div><b>{TITLES[name]}</b>{_bars(report['histograms'][name])}</div>" for name in TITLES)
    if report["labels"]:
        labels = dict(list(report["labels"].items())[:20])
        more = f" (20 of {len(report['labels'])})" if len(report["labels"]) > 20 else ""
        charts += f"<div><b>labels{more}</b>{_bars(labels)}</div>"
    return f'<h2>Figures</h2><div class="charts">{charts}</div>'


def _tables(report: dict[str, Any]) -> str:
    text = ""
    if report["rejected"]:
        rows = [(entry["file"], entry["reason"]) for entry in report["rejected"]]
        text += f"<h2>Rejected: {len(rows)}</h2>" + _table(("file", "reason"), rows)
    damaged = [(source["file"], source["damaged"]) for source in report["videos"] if source["damaged"]]
    if damaged:
        text += f"<h2>Damaged: {len(damaged)}</h2>" + _table(("file", "what"), damaged)
    if any(entry["source"] or entry["licence"] for entry in report["origins"]):
        origins = [(o["source"] or "not said", o["licence"] or "not said", o["videos"]) for o in report["origins"]]
        text += "<h2>Sources and licences</h2>" + _table(("source", "licence", "videos"), origins)
    if report["ignored"]:
        rows = [(suffix or "(none)", count) for suffix, count in report["ignored"].items()]
        text += "<h2>Files that are no videos</h2>" + _table(("extension", "files"), rows)
    rules = [(f"--curation.{name.replace('_', '-')}", value) for name, value in report["curation"].items()]
    return text + "<h2>Rules</h2>" + _table(("option", "value"), rules)


def _strip(store: ClipStore, record: ClipRecord, stretch: dict[str, Any]) -> str:
    places = sorted({0, record.frames // 2, record.frames - 1})
    pictures = [jpeg_of(store.frames(record, t, t + 1)[0]) for t in places]
    seconds = _duration((stretch["stop"] - stretch["start"]) / (record.fps or 10))
    return _figure(pictures, f"{record.file}, {seconds}, motion {stretch['motion']:.3g}, {record.split}")


def _when(source: dict[str, Any], stretch: dict[str, Any]) -> str:
    rate = source["fps"] or 10
    return f"{stretch['start'] / rate:.1f} to {stretch['stop'] / rate:.1f} s"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _figure(pictures: Sequence[str], caption: str) -> str:
    images = "".join(f'<img alt="" src="data:image/jpeg;base64,{picture}">' for picture in pictures)
    return f"<figure>{images}<figcaption>{escape(caption)}</figcaption></figure>"


def _gallery(figures: Iterable[str]) -> str:
    return f'<div class="pictures">{"".join(figures)}</div>'


def _bars(counts: dict[str, int]) -> str:
    most = max(counts.values(), default=1)
    return "".join(
        f'<div class="row"><span>{escape(name)}</span><i style="width:{100 * count / most:.1f}%"></i>{count:,}</div>'
        for name, count in counts.items()
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    cells = "".join(f"<tr>{''.join(f'<td>{escape(str(v))}</td>' for v in row)}</tr>" for row in rows[:SHOWN_ROWS])
    more = (
        f"<div class='quiet'>and {len(rows) - SHOWN_ROWS} more, in ingest.json</div>" if len(rows) > SHOWN_ROWS else ""
    )
    return f"<table><tr>{''.join(f'<th>{name}</th>' for name in head)}</tr>{cells}</table>{more}"
