"""Benchmark cards as tables in the console."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from tokenreel.evaluation.card import Card, compared, not_beaten, told_interval, told_value


def figure_tables(card: Card) -> list[Table]:
    """A table for each group of figures; in bold what a simple forecast does as well."""
    tables = []
    for group in dict.fromkeys(figure.group for figure in card.figures):
        table = Table(title=group, title_justify="left")
        for name in ("figure", "judged", "95 % interval", "yardsticks"):
            table.add_column(name, justify="right" if name == "judged" else "left")
        for figure in (figure for figure in card.figures if figure.group == group):
            unit = f" ({figure.unit})" if figure.unit else ""
            floors = "; ".join(f"{name} {told_value(value)}" for name, value in figure.floors.items())
            cells = (told_value(figure.value), told_interval(figure.interval), floors)
            table.add_row(figure.name + unit, *cells, style="bold" if not_beaten(figure) else None)
        tables.append(table)
    return tables


def model_tables(result: Mapping[str, Any]) -> list[Table]:
    """What evaluation.json has beyond the card: speed and memory, and positions where they are known."""
    table = Table(title="what it took", title_justify="left")
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_row(f"sampling tokens/s, batch of {result['clips']}", f"{result['sampling_tokens_per_s']:.0f}")
    for stage, megabytes in result["peak_memory_mb"].items():
        table.add_row(f"peak memory of {stage} (MB)", f"{megabytes:.0f}")
    return [table, *([_position_table(result["position_error_px"])] if "position_error_px" in result else [])]


def _position_table(errors: Mapping[str, Sequence[float]]) -> Table:
    table = Table(title="mean position error of the balls (pixels per coordinate)", title_justify="left")
    table.add_column("new frames")
    for name in errors:
        table.add_column(name.replace("_", " "), justify="right")
    length = len(next(iter(errors.values())))
    for t in range(length):
        table.add_row(str(t + 1), *(f"{values[t]:.2f}" for values in errors.values()))
    for title, stop in (("mean of first 4", 4), (f"mean of all {length}", length)):
        table.add_row(title, *(f"{np.mean(values[:stop]):.2f}" for values in errors.values()), style="bold")
    return table


def comparison_table(one: Path, other: Path) -> Table:
    """Two cards side by side.

    Raises:
        FileNotFoundError: If one is missing.
        ValueError: If they are of unlike protocols.
    """
    pairs = compared(Card.read(one), Card.read(other))
    title = f"first: {one}\nsecond: {other}\nAn interval that holds the other's figure settles nothing."
    table = Table(title=title, title_justify="left")
    for name in ("figure", "first", "interval", "second", "interval"):
        table.add_column(name, justify="right" if name in ("first", "second") else "left")
    group = ""
    for first, second in pairs:
        if first.group != group:
            group = first.group
            table.add_row(group, style="bold")
        wanted = {"higher": "↑", "lower": "↓", "as real": "≈ real"}[first.better]
        unit = f" ({first.unit})" if first.unit else ""
        cells = [text for each in (first, second) for text in (told_value(each.value), told_interval(each.interval))]
        table.add_row(f"{first.name}{unit} {wanted}", *cells)
    return table
