"""The page of a run: what stands on it, that it needs no other file, and how curves are drawn."""

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from tokenreel.datasets.video_writer import write_video
from tokenreel.evaluation.curves import MOST_POINTS, Curve, svg_curves
from tokenreel.evaluation.film_strip import write_film_strip
from tokenreel.evaluation.page import page, section, table
from tokenreel.tools import report
from tokenreel.training.run_records import RunRecords, read_records


def run_folder(folder: Path, lr: float = 0.003, steps: int = 40) -> Path:
    """A tokenizer's run as a training leaves it, with samples of two validations."""
    (folder / "samples").mkdir(parents=True)
    (folder / "model").mkdir()
    lines = [
        {"step": step, "train/psnr": 10 + step / 4, "optim/lr": lr * step, "speed/clips_per_s": 50.0}
        for step in range(1, steps + 1)
    ]
    lines += [{"step": step, "val/psnr": 20.0 + step / 10, "val/motion_kept": 0.5} for step in (20, 40)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = {"steps": steps, "lr": lr, "note": "<script>alert(1)</script>", "model": {"levels": [5, 5], "depth": None}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model" / "provenance.json").write_text(json.dumps({"commit": "c0ffee", "versions": {"torch": "2.15"}}))
    for step in (20, 40):
        clips = [np.full((3, 8, 8, 3), value, dtype=np.uint8) for value in (10, step)]
        rows = [("video 0", clips[0]), ("reconstructed", clips[1]), ("video 1", clips[0]), ("reconstructed", clips[1])]
        write_film_strip(folder / "samples" / f"reconstruction_{step:06d}.png", rows)
    write_video(folder / "samples" / "reconstruction_000040.mp4", np.zeros((4, 32, 32, 3), dtype=np.uint8), 10.0)
    return folder


class Links(HTMLParser):
    """Everything on a page that a browser would fetch, and whether its elements close."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "data", "poster")]


def seen(text: str) -> Links:
    links = Links()
    links.feed(text)
    return links


def test_a_page_needs_no_other_file_and_tells_what_was_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_folder(tmp_path / "run")
    report.main([str(run)])
    assert f"report in {run / 'report.html'}" in capsys.readouterr().out
    text = (run / "report.html").read_text()
    found = seen(text)
    assert found.links and all(
        link.startswith(("data:image/png;base64,", "data:video/mp4;base64,")) for link in found.links
    )
    assert "script" not in found.tags and "link" not in found.tags and "url(" not in text
    assert "&lt;script&gt;alert(1)" in text, "settings are text, not HTML"
    for told in ("40 of 40", "24, best 24", "PSNR (dB)", "learning rate", "model.levels", "5 5", "c0ffee", "2.15"):
        assert told in text, told
    assert "nothing is wrong that the log shows" in text
    assert text.count("<svg") == len({"psnr", "lr"})
    assert "always the same: share of the movement that reconstructions keep 0.5; clips per second 50" in text
    assert [text.count(f"<td>{step}</td><td><img") for step in ("step 20", "step 40")] == [2, 2]
    assert not list(run.glob("*.tmp*"))


def test_runs_stand_side_by_side_and_what_differs_is_marked(tmp_path: Path) -> None:
    runs = [run_folder(tmp_path / "a" / name, lr) for name, lr in (("one", 0.003), ("two", 0.0))]
    report.main([*map(str, runs)])
    text = (tmp_path / "a" / "report.html").read_text()
    marked = re.findall(r'<tr class="differs"><td>([^<]*)</td><td>([^<]*)</td><td>([^<]*)</td>', text)
    assert marked == [("lr", "0.003", "0")]
    psnr = next(card for card in text.split('class="card"')[1:] if "PSNR (dB)" in card)
    names = re.findall(r"<title>([^:]*):", psnr)
    assert names == [f"{run}, {name}" for name in ("train/psnr", "val/psnr") for run in runs]
    assert len(set(re.findall(r'stroke="(#\w+)"', psnr))) == 2
    told = re.search(r"What the doctor says.*?<h2>", text, flags=re.DOTALL)
    assert told and "nothing is wrong" in told[0]
    report.main([*map(str, runs), "--out", str(tmp_path / "b" / "both.html")])
    assert (tmp_path / "b" / "both.html").is_file()


def test_what_is_hardly_there_is_not_drawn_as_if_it_were_much(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run")
    exposures = {f"data/exposures_per_clip{kind}": 1.0 for kind in ("", "_min", "_median", "_max")}
    lines = [
        {"step": step, "val/motion_kept": -117.0 * step, "speed/data_wait_share": step / 1e4}
        | {name: value * step for name, value in exposures.items()}
        for step in (20, 40)
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    report.main([str(run)])
    text = (run / "report.html").read_text()
    words = "share of the movement that reconstructions keep"
    assert f"<td>{words}</td><td>-1 or less: it moves otherwise</td>" in text
    assert f"always the same: {words} -1 or less: it moves otherwise" in text
    cards = {card.split("<h3>")[1].split("</h3>")[0]: card for card in text.split('class="card"')[1:]}
    waiting = re.findall(r">([\d.e-]+)</text>", cards["share of the time spent waiting for data"])
    assert {"0", "0.1"} <= set(waiting) and "0.002" not in waiting
    assert "times each clip was drawn: mean, median, fewest, most" in cards


def test_a_run_that_failed_or_has_just_begun_has_a_page_too(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "samples").mkdir(parents=True)
    (run / "metrics.jsonl").write_text("")
    report.main([str(run)])
    assert "0 of ?" in (run / "report.html").read_text()
    (run / "metrics.jsonl").write_text('{"step": 3, "train/loss": NaN}\n{"step": 4, "error": "not finite"}\n{"st')
    Image.new("RGB", (30, 20)).save(run / "samples" / "reconstruction_000003.png")  # of an older version
    report.main([str(run)])
    text = (run / "report.html").read_text()
    assert "no finite numbers" in text and "no longer finite at step 3" in text
    assert "<svg" not in text and text.count("<img") == 1


@pytest.mark.parametrize("arguments", [["nowhere"], ["{}", "--evaluation", "nowhere.json"]])
def test_what_is_not_there_is_told(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_folder(tmp_path / "run")
    with pytest.raises(SystemExit) as end:
        report.main([argument.format(run) for argument in arguments])
    assert end.value.code == 2
    assert "expected the folder of a run" in (said := capsys.readouterr().err) or "expected what tools/evaluate" in said


def test_records_of_a_run(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('[1]\n{"no": "step"}\n\n{"step": 41, "train/l')
    assert len(read_records(run / "metrics.jsonl")) == 42
    assert RunRecords.open(run).evaluation == {}
    beside = tmp_path / "evaluation" / "evaluation.json"
    beside.parent.mkdir()
    beside.write_text(json.dumps({"model": "somewhere/run", "bits_per_token": 1.0}))
    assert RunRecords.open(run).evaluation["bits_per_token"] == 1.0
    beside.write_text(json.dumps({"model": "somewhere/run/model", "bits_per_token": 2.0}))
    assert RunRecords.open(run).evaluation["bits_per_token"] == 2.0
    beside.write_text(json.dumps({"model": "somewhere/other/model"}))
    assert RunRecords.open(run).evaluation == {}
    beside.write_text("{")
    with pytest.raises(ValueError, match=r"evaluation\.json is not JSON"):
        RunRecords.open(run)


# curves


def drawn(text: str) -> tuple[list[list[tuple[float, float]]], list[str]]:
    """Places of every curve's points, and all texts."""
    root = ElementTree.fromstring(text)
    curves = [
        [(float(x), float(y)) for x, y in (place.split(",") for place in line.attrib["points"].split())]
        for line in root.iter("polyline")
    ]
    return curves, [text.text or "" for text in root.iter("text")]


def test_curves_go_through_their_points() -> None:
    curves, texts = drawn(svg_curves([Curve("a<b", [(0, 0.0), (50, 1.0), (100, 0.5)], "#000")]))
    ((left, low), (middle, high), (right, half)) = curves[0]
    assert left < middle < right and middle - left == pytest.approx(right - middle)
    assert high < half < low and half == pytest.approx((high + low) / 2, abs=0.1), "up is less in SVG"
    assert {"0", "20", "100", "0.2", "0.6", "step"} <= set(texts)
    _, texts = drawn(svg_curves([Curve("rate", [(1, 1e-5), (40_000, 0.1)], "#000")]))
    assert {"1e-05", "1e-04", "0.001", "0.01", "0.1", "10k"} <= set(texts), "far apart: logarithmic"


def test_long_curves_are_thinned_and_holes_left_out() -> None:
    points = [(float(step), math.nan if step == 5 else float(step % 2)) for step in range(10 * MOST_POINTS)]
    (curve,), _ = drawn(svg_curves([Curve("a", points, "#000")]))
    assert MOST_POINTS / 2 < len(curve) <= MOST_POINTS
    same = svg_curves(
        [Curve("one", [(7, 3.0)], "#000"), Curve("none", [], "#000"), Curve("flat", [(7, 3.0)] * 2, "#0")]
    )
    assert "<circle" in same and "nan" not in same
    with pytest.raises(ValueError, match="no finite point in 1 curves"):
        svg_curves([Curve("a", [(1, math.nan)], "#000")])


def test_parts_of_a_page_are_text_until_they_are_markup() -> None:
    assert section("title", "") == ""
    assert "&lt;i&gt;" in table(["<i>"], [["x"]]) and "&lt;i&gt;" in page("<i>", [])
    assert table(["a"], [["x"], ["y"]], marked=[1]).count("differs") == 1
