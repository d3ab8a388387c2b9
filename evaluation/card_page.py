"""A benchmark card as a page that needs no other file: figures, courses over the frames, clips."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

import numpy as np

from tokenreel.evaluation.card import (
    COPY,
    MUST_BEAT,
    REAL,
    REPEAT,
    TOKENIZER,
    Card,
    Figure,
    not_beaten,
    told_interval,
    told_value,
)
from tokenreel.evaluation.curves import Curve, svg_curves
from tokenreel.evaluation.film_strip import film_strip
from tokenreel.evaluation.page import flat_facts, page, picture, section, table

EXPLANATIONS = {
    "fidelity": "What the tokenizer alone makes of clips: no continuation can be better.",
    "prediction": "Continuations against what really happened. Of several possible futures only one happened, so "
    "a sharp continuation that goes another way is punished twice: read it beside the simple forecasts, and beside "
    "the distribution.",
    "distribution": "Are the clips, as a set, like real ones? Each is compared with real clips that are not its own. "
    "A Fréchet distance grows as clips become fewer: its floor is that of real clips of the same number. Kernel "
    "distances are unbiased, around 0 for real clips.",
    "motion": "How the new frames move, however sharp each of them is.",
    "memorization": "How near new frames come to any training clip, beside held-out real clips, which nobody can have "
    "copied; and how far apart several answers to one prompt are, beside answers to other prompts.",
    "drift": "Long continuations, beyond the window, against the true clips that their prompts begin.",
}
COLORS = {"model": "#3b82f6", TOKENIZER: "#2fa84f", COPY: "#7b8594", REPEAT: "#e07b00"}
SPARE_COLORS = ("#b45ad6", "#dc4f4a", "#0f9d9d")
CODE_DIGITS = 8


class Strip(NamedTuple):
    """Clips to show."""

    title: str
    rows: Sequence[tuple[str, np.ndarray]]
    """Name and frames uint8 (T, H, W, 3) of each."""
    prompt_frames: int = 0
    """So many first frames were given, and are bordered green."""


def card_page(
    card: Card,
    title: str,
    strips: Sequence[Strip] = (),
) -> str:
    """The whole page.

    Args:
        card: What to show.
        title: Its headline.
        strips: Clips to show.
    """
    groups = list(dict.fromkeys(figure.group for figure in card.figures))
    return page(
        title,
        [
            f"<h1>{escape(title)}</h1>",
            f'<p class="faint">protocol {card.protocol_id}; {card.protocol.get("clips", "?")} clips; intervals: 95 %, '
            "over clips; a row is marked where a simple forecast does as well</p>",
            *(f"<p>{escape(note)}</p>" for note in card.notes),
            *(_group(group, [figure for figure in card.figures if figure.group == group]) for group in groups),
            section("Clips", *map(_drawn, strips)),
            section("Protocol: must be equal in cards that are compared", _facts(card.protocol)),
            section("What was judged", _facts(card.subject)),
        ],
    )


def figures_table(figures: Sequence[Figure]) -> str:
    """Figures with the yardsticks of all of them as columns; marked where a simple forecast is not beaten."""
    names = list(dict.fromkeys(name for figure in figures for name in figure.floors))
    rows = []
    for figure in figures:
        floors = [told_value(figure.floors[name]) if name in figure.floors else "" for name in names]
        measured = f"{figure.protocol}, code {figure.code[:CODE_DIGITS]}"
        unit = f" ({figure.unit})" if figure.unit else ""
        wanted = {"higher": "↑", "lower": "↓", "as real": "≈ real"}[figure.better]
        value = [f"{figure.name}{unit} {wanted}", told_value(figure.value), told_interval(figure.interval)]
        rows.append([*value, *floors, str(figure.samples), measured])
    marked = [number for number, figure in enumerate(figures) if not_beaten(figure)]
    return table(["", "judged", "interval", *names, "clips", "how it was measured"], rows, marked)


def _group(group: str, figures: Sequence[Figure]) -> str:
    cards = [_curves(figure) for figure in figures if figure.by_frame]
    plots = f'<div class="grid-of">{"".join(cards)}</div>' if cards else ""
    told = f'<div class="strips">{figures_table(figures)}</div>'
    return section(group.capitalize(), told, plots, explanation=EXPLANATIONS.get(group, ""))


def _curves(figure: Figure) -> str:
    curves, keys = [], []
    spare = iter(SPARE_COLORS * len(figure.by_frame))
    for name, values in figure.by_frame.items():
        color = COLORS.get(name) or next(spare)
        points = [(float(frame), value) for frame, value in enumerate(values, start=1)]
        curves.append(Curve(name, points, color, dashed=name in (*MUST_BEAT, REAL)))
        keys.append(f'<span class="key" style="color:{color}"></span>{escape(name)}')
    unit = f" ({figure.unit})" if figure.unit else ""
    head = f"<h3>{escape(figure.name + unit)} by new frame</h3>"
    return f'<div class="card">{head}{svg_curves(curves, "new frame")}<p>{"".join(keys)}</p></div>'


def _drawn(strip: Strip) -> str:
    shown = picture(film_strip(strip.rows, strip.prompt_frames), strip.title)
    return f'<h3>{escape(strip.title)}</h3><div class="strips">{shown}</div>'


def _facts(facts: Mapping[str, object]) -> str:
    return table(["", ""], [[name, text] for name, text in flat_facts(facts).items()])
