"""Show trainings on one page that needs no other file: what is wrong, curves, samples over time, settings, origin.

    python tools/report.py runs/mine/tokenizer                        # writes runs/mine/tokenizer/report.html
    python tools/report.py runs/first/gpt runs/second/gpt --out both.html      # side by side

Works on runs that go on, too. Settings in which runs differ are marked.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tyro.conf import Positional

from tokenreel.datasets.atomic_file import atomic_file
from tokenreel.evaluation.curves import Curve, svg_curves
from tokenreel.evaluation.film_strip import read_film_strip
from tokenreel.evaluation.page import compared_table, flat_facts, page, picture, section, table, video
from tokenreel.training.command_line import run_tool
from tokenreel.training.diagnosis import Diagnosis, History
from tokenreel.training.doctor import diagnose
from tokenreel.training.run_folder import check_writable
from tokenreel.training.run_records import RunRecords

COLORS = ("#3b82f6", "#e07b00", "#2fa84f", "#b45ad6", "#dc4f4a", "#7b8594")
SHOWN_CLIPS, SHOWN_TIMES = 2, 6
UNSEEN = ("tokenizer/", "sampled/parts/")
"""Metrics without a plot: the doctor reads them."""
TITLES = {
    "psnr": "PSNR (dB)",
    "motion_kept": "share of the movement that reconstructions keep",
    "perplexity": "perplexity of the codes of validation clips",
    "bits_per_token": "bits per token",
    "bits_per_pixel": "bits per pixel",
    "codebook/perplexity": "perplexity of the codes in use",
    "codebook/dead_codes": "codes not in use",
    "optim/lr": "learning rate",
    "optim/grad_norm": "norm of the gradient",
    "speed/data_wait_share": "share of the time spent waiting for data",
    "speed/sampling_share": "share of the time spent on samples for the log",
    "sampled/ahead_of_copy_db": "continuations: dB closer to what the tokens show than a still picture",
    "sampled/motion": "continuations: movement, of what real clips have",
    "sampled/sharpness": "continuations: sharpness, of what real clips have",
    "memory/peak_mb": "peak memory (MiB)",
    "data/exposures_per_clip": "times each clip was drawn",
    "data/exposures_per_video": "clips drawn from each video",
    "data/exposures_through": "times each video was seen through",
    "data/min": "smallest value of a pixel in a batch",
    "data/max": "largest value of a pixel in a batch",
    "data/duplicate_videos_share": "share of videos that are copies of others",
    "data/static_share": "share of clips in which nothing moves",
    "data/repeated_share": "share of clips twice in a batch",
}
FLOORS = {"val/motion_kept": -1.0}
"""Untrained tokenizers move wildly; drawn as they are, such values would flatten the rest of the curve."""
SHOWN_TOO = {"_share": (0.0, 0.1), "sampled/motion": (0.0, 1.0), "sampled/sharpness": (0.0, 1.0)}
"""Part of the axis of metrics that end so: single hundredths are not to look like much."""
FIGURES = ("val/psnr", "val/motion_kept", "val/bits_per_token", "val/bits_per_pixel", "data/exposures_per_video")
LESS_IS_BETTER = ("val/bits_per_token", "val/bits_per_pixel")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which runs to show, and where."""

    runs: Positional[tuple[Path, ...]] = (Path("runs/gpt"),)
    """Folders of the runs, tokenizers or GPTs."""
    out: Path | None = None
    """Page to write; default: report.html in the run's folder, or in the folder above the first of several."""
    evaluation: Path | None = None
    """An evaluation.json of the first run's model; default: the one in evaluation/ in or beside each run folder."""


class Shown(NamedTuple):
    """A run as the page shows it."""

    name: str
    color: str
    run: RunRecords
    history: History
    diagnoses: list[Diagnosis]


def report(config: Config) -> None:
    """Read the runs, write the page, say where it is."""
    if not config.runs:
        raise ValueError("no run named, expected one or more; use tools/report.py runs/gpt")
    shown = []
    for number, folder in enumerate(config.runs):
        run = RunRecords.open(folder, config.evaluation if number == 0 else None)
        history = History(run.records, run.config, run.evaluation)
        shown.append(Shown(str(folder), COLORS[number % len(COLORS)], run, history, diagnose(history)))
    out = config.out or (config.runs[0] if len(shown) == 1 else config.runs[0].parent) / "report.html"
    check_writable(out.parent)
    with atomic_file(out) as file:
        file.write(render(shown).encode())
    print(f"report in {out}")


def render(shown: Sequence[Shown]) -> str:
    """The page."""
    names = " and ".join(run.name for run in shown)
    keys = "".join(f'<span class="key" style="color:{run.color}"></span>{escape(run.name)}' for run in shown)
    keys += '<span class="key dashed"></span>dashed: validation'
    facts = [flat_facts(run.run.config) for run in shown]
    origins = [flat_facts(run.run.provenance) for run in shown]
    judged = [flat_facts(run.run.evaluation) for run in shown]
    columns = [run.name for run in shown]
    return page(
        f"tokenreel: {names}",
        [
            f"<h1>{escape(names)}</h1>",
            f'<p class="faint">written {datetime.now().isoformat(" ", "minutes")}</p>',
            section("Where it stands", _standing(shown)),
            section("What the doctor says", *map(_told, shown)),
            section("Curves", f"<p>{keys}</p>", *_curves(shown)),
            *(section(f"Samples of {run.name} over time", *_samples(run.run.folder)) for run in shown),
            section("What tools/evaluate.py found", compared_table("figure", columns, judged)),
            section("Settings", compared_table("setting", columns, facts)),
            section("Origin of the model", compared_table("fact", columns, origins)),
        ],
    )


def _standing(shown: Sequence[Shown]) -> str:
    rows = []
    for run in shown:
        rows.append(("steps", run.name, f"{run.history.step} of {run.run.config.get('steps', '?')}"))
        for name in FIGURES:
            values = [value for _, value in run.history.finite(name)]
            if values and name in LESS_IS_BETTER + FIGURES[:1]:
                best = min(values) if name in LESS_IS_BETTER else max(values)
                rows.append((_title(name), run.name, f"{values[-1]:.4g}, best {best:.4g}"))
            elif values:
                rows.append((_title(name), run.name, _number(name, values[-1])))
        for name in run.history.names():
            if name.endswith("_per_s"):
                typical = float(np.median([value for _, value in run.history.finite(name)]))
                rows.append((f"{name[6:-6]} per second, median", run.name, f"{typical:.4g}"))
    figures = list(dict.fromkeys(figure for figure, _, _ in rows))
    found = {(figure, name): text for figure, name, text in rows}
    lines = [[figure, *(found.get((figure, run.name), "") for run in shown)] for figure in figures]
    return table(["", *(run.name for run in shown)], lines)


def _told(run: Shown) -> str:
    told = [
        f'<div class="told"><b>{escape(found.name)}</b> (step {found.step}): {escape(found.sentence)}</div>'
        for found in run.diagnoses
    ]
    return f"<h3>{escape(run.name)}</h3>" + ("".join(told) or "<p>nothing is wrong that the log shows</p>")


def _curves(shown: Sequence[Shown]) -> Iterator[str]:
    """A plot of each metric that changes; training and validation of one quantity share theirs."""
    names = dict.fromkeys(name for run in shown for name in run.history.names() if not name.startswith(UNSEEN))
    plots: dict[str, list[str]] = {}
    for name in sorted(names, key=lambda name: not name.startswith(("train/", "val/"))):  # results first
        plots.setdefault(_quantity(name), []).append(name)
    cards, constant = [], []
    for title, group in plots.items():
        curves = [
            Curve(
                f"{run.name}, {name}", [(x, max(y, FLOORS.get(name, y))) for x, y in points], run.color, _judges(name)
            )
            for name in group
            for run in shown
            if (points := run.history.finite(name))
        ]
        values = {y for curve in curves for _, y in curve.points}
        if len(values) > 1:
            several = ": mean, median, fewest, most" if any(name.endswith("_median") for name in group) else ""
            also = next((values for end, values in SHOWN_TOO.items() if group[0].endswith(end)), ())
            plot = svg_curves(curves, also=also)
            cards.append(f'<div class="card"><h3>{escape(title + several)}</h3>{plot}</div>')
        elif values:
            constant.append(f"{title} {_number(group[0], values.pop())}")
    yield f'<div class="grid-of">{"".join(cards)}</div>'
    if constant:
        yield f'<p class="faint">always the same: {escape("; ".join(constant))}</p>'


def _number(name: str, value: float) -> str:
    """A value of a metric; below its floor it says no more than that."""
    return f"{value:.4g}" if value > FLOORS.get(name, -math.inf) else f"{FLOORS[name]:g} or less: it moves otherwise"


def _judges(name: str) -> bool:
    return name.startswith(("val/", "sampled/"))


def _quantity(name: str) -> str:
    stage, _, rest = name.partition("/")
    if rest.startswith("exposures_"):  # the mean, the fewest, the median and the most
        name = name.removesuffix("_min").removesuffix("_median").removesuffix("_max")
    return _title(name) if stage not in ("train", "val") else TITLES.get(rest, rest.replace("_", " "))


def _title(name: str) -> str:
    known = TITLES.get(name) or TITLES.get(name.partition("/")[2])
    if known is None and name.endswith("_per_s"):
        return f"{name.partition('/')[2][:-6]} per second"
    return known or name.replace("_", " ")


def _samples(folder: Path) -> Iterator[str]:
    """The same clips at several validations, one below the other, and the newest as a video."""
    strips: dict[str, list[Path]] = {}
    for path in sorted((folder / "samples").glob("*_[0-9]*.png")):
        strips.setdefault(path.stem.rsplit("_", 1)[0], []).append(path)
    for paths in strips.values():
        chosen = [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, SHOWN_TIMES).round().astype(int))]
        read = [(f"step {int(path.stem.rsplit('_', 1)[1])}", read_film_strip(path)) for path in chosen]
        yield f'<div class="strips"><table>{"".join(_rows(read))}</table></div>'
    for newest in sorted((folder / "samples").glob("*.mp4"))[-1:]:
        yield f"<details><summary>newest samples as a video ({escape(newest.name)})</summary>{video(newest)}</details>"


def _rows(read: list[tuple[str, list[tuple[str, np.ndarray]]]]) -> Iterator[str]:
    """Film strips hold truth and model of each clip in turn; a picture that knows no titles is shown whole."""
    titled = [(step, strip) for step, strip in read if strip[0][0]]
    for step, strip in read:
        if not strip[0][0]:
            yield f"<tr><td>{step}</td><td>{picture(strip[0][1], step)}</td></tr>"
    clips = min((len(strip) // 2 for _, strip in titled), default=0)
    for clip in np.unique(np.linspace(0, clips - 1, SHOWN_CLIPS).round().astype(int)) if clips else ():
        title, truth = titled[-1][1][2 * clip]
        yield f"<tr><td>{escape(title)}</td><td>{picture(truth, title)}</td></tr>"
        for step, strip in titled:
            yield f"<tr><td>{step}</td><td>{picture(strip[2 * clip + 1][1], step)}</td></tr>"
        yield "<tr><td>&nbsp;</td></tr>"


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    run_tool(report, Config, argv, description=__doc__)


if __name__ == "__main__":
    main()
