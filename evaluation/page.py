"""Parts of a page that needs no other file: tables, pictures and videos lie in the HTML itself."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1e; --faint: #6b7280; --ground: #fff; --line: #e3e5e9; --card: #f7f8fa;
  --warn: #fff4d6; --warn-edge: #d99a00; --differs: #fff4d6 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e8; --faint: #9aa1ac; --ground: #16181c; --line: #2c3037;
  --card: #1d2026; --warn: #3a2f12; --differs: #3a2f12 } }
body { margin: 0 auto; padding: 24px; max-width: 1240px; font: 15px/1.5 system-ui, sans-serif; color: var(--ink);
  background: var(--ground) }
h1 { font-size: 24px; margin: 0 0 4px } h2 { font-size: 18px; margin: 36px 0 10px } h3 { font-size: 14px; margin: 0 }
p { margin: 6px 0; max-width: 80ch } .faint { color: var(--faint) }
.grid-of { display: grid; grid-template-columns: repeat(auto-fill, minmax(340px, 1fr)); gap: 14px }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 10px 12px }
svg { width: 100%; height: auto; display: block } svg text { font-size: 11px; fill: var(--faint) }
.grid { stroke: var(--line) } .curve { fill: none; stroke-width: 1.8; stroke-linejoin: round }
.key { display: inline-block; width: 22px; height: 0; border-top: 3px solid;
  vertical-align: middle; margin: 0 6px 0 14px }
.key.dashed { border-top-style: dashed }
table { border-collapse: collapse; font-size: 13px } td, th { padding: 3px 14px 3px 0; text-align: left;
  vertical-align: top; border-bottom: 1px solid var(--line); overflow-wrap: anywhere } th { color: var(--faint) }
td.number { text-align: right; font-variant-numeric: tabular-nums } tr.differs td { background: var(--differs) }
.told { background: var(--warn); border-left: 4px solid var(--warn-edge); border-radius: 4px; padding: 8px 12px;
  margin: 8px 0 } .told b::first-letter { text-transform: uppercase }
.told b { display: inline-block }
.strips { overflow-x: auto } .strips th { overflow-wrap: normal }
.strips td { border: 0; padding: 1px 10px 1px 0; white-space: nowrap; font-size: 12px }
img, video { display: block; max-width: none } details { margin: 8px 0 } summary { cursor: pointer }
"""


def page(title: str, sections: Sequence[str]) -> str:
    """A whole HTML page in light or dark, as the reader has it."""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    body = "\n".join(section for section in sections if section)
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n'
    )


def section(title: str, *content: str, explanation: str = "") -> str:
    """A heading and what stands under it; nothing if there is nothing."""
    if not any(content):
        return ""
    told = f'<p class="faint">{escape(explanation)}</p>' if explanation else ""
    return f"<h2>{escape(title)}</h2>{told}\n" + "\n".join(content)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], marked: Sequence[int] = ()) -> str:
    """A table of texts.

    Args:
        heads: Of the columns.
        rows: As many texts each.
        marked: Numbers of the rows to be seen first.
    """
    top = "".join(f"<th>{escape(head)}</th>" for head in heads)
    lines = []
    for number, row in enumerate(rows):
        mark = ' class="differs"' if number in marked else ""
        lines.append(f"<tr{mark}>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>")
    return f"<table><tr>{top}</tr>{''.join(lines)}</table>"


def compared_table(head: str, columns: Sequence[str], facts: Sequence[Mapping[str, str]]) -> str:
    """Facts by name in columns beside one another, those that differ marked; nothing if there are none.

    Args:
        head: What the facts are.
        columns: Whose they are.
        facts: Of each column, texts by name.
    """
    names = list(dict.fromkeys(name for known in facts for name in known))
    rows = [[name, *(known.get(name, "") for known in facts)] for name in names]
    marked = [number for number, row in enumerate(rows) if len(set(row[1:])) > 1]
    return table([head, *columns], rows, marked) if rows else ""


def flat_facts(facts: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested facts as texts by dotted names: ``{"model": {"depth": 4}}`` is ``{"model.depth": "4"}``."""
    flat: dict[str, str] = {}
    for name, value in facts.items():
        if isinstance(value, Mapping):
            flat |= flat_facts(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            flat[prefix + name] = " ".join(map(_text, value))
        else:
            flat[prefix + name] = _text(value)
    return flat


def _text(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) and math.isfinite(value) else str(value)


def picture(pixels: np.ndarray, alt: str) -> str:
    """A picture uint8 (height, width, 3) as an element of the page."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="png", optimize=True)
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">'


def video(path: Path) -> str:
    """An mp4 file as an element of the page, playing again and again."""
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<video controls loop muted autoplay playsinline src="data:video/mp4;base64,{data}"></video>'
