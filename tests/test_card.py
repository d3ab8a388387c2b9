"""The benchmark card: what it says, what is compared, how it looks."""

import json
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tokenreel.evaluation.card import COPY, Card, Figure, compared, not_beaten
from tokenreel.evaluation.card_page import Strip, card_page
from tokenreel.evaluation.code_hash import code_hash
from tokenreel.evaluation.figures_of_prediction import (
    bits_figures,
    fidelity_figures,
    prediction_figures,
    standard_measures,
)

FIGURE = Figure(
    *("prediction", "PSNR", "dB", "higher", 25.0, (24.0, 26.0), 8, {COPY: 20.0, "tokenizer alone": 31.0}),
    *("psnr-1", "abc123", {"model": [26.0, 24.0], COPY: [22.0, 18.0]}),
)
CARD = Card({"model": "runs/gpt"}, {"clips": 8, "prompt_frames": 4}, [FIGURE])


def test_a_card_is_read_as_it_was_written(tmp_path: Path) -> None:
    unknown = replace(FIGURE, name="other", value=float("nan"), interval=(float("nan"),) * 2)
    card = replace(CARD, figures=[FIGURE, unknown], notes=["in words"])
    (tmp_path / "card.json").write_text(card.to_json())
    read = Card.read(tmp_path)
    assert read.notes == ["in words"] and read.figures[0] == FIGURE and read.protocol_id == card.protocol_id
    assert np.isnan(read.figures[1].value) and "NaN" not in card.to_json()
    for text, said in (("{}", "is no card"), ("[", "is no card"), ('{"format_version": 9, "figures": []}', "no card")):
        (tmp_path / "broken.json").write_text(text)
        with pytest.raises(ValueError, match=said):
            Card.read(tmp_path / "broken.json")
    (tmp_path / "newer.json").write_text(json.dumps({**json.loads(card.to_json()), "format_version": 9}))
    with pytest.raises(ValueError, match="format version 9, expected 1"):
        Card.read(tmp_path / "newer.json")
    with pytest.raises(FileNotFoundError, match=r"no file .*expected a card\.json"):
        Card.read(tmp_path / "nowhere.json")


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (replace(CARD, protocol={"clips": 8, "prompt_frames": 8}), "prompt_frames is 4 and 8"),
        (replace(CARD, protocol={"clips": 8, "prompt_frames": 4, "fps": 10}), "fps is None and 10"),
        (replace(CARD, figures=[replace(FIGURE, code="def456")]), "PSNR is of unlike code: abc123 and def456"),
        (replace(CARD, figures=[replace(FIGURE, protocol="psnr-2")]), "PSNR is of unlike protocol: psnr-1 and psnr-2"),
        (replace(CARD, figures=[]), "no figure in common"),
    ],
)
def test_what_is_not_alike_is_not_compared(other: Card, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        compared(CARD, other)
    with pytest.raises(ValueError, match="evaluate both in the same way"):
        compared(other, CARD)


def test_models_settings_and_intervals_may_differ() -> None:
    better = replace(FIGURE, value=27.0, interval=(26.0, 28.0), samples=7)
    other = replace(CARD, subject={"model": "runs/other"}, figures=[replace(FIGURE, name="SSIM"), better])
    assert compared(CARD, other) == [(FIGURE, better)]


def test_simple_forecasts_that_are_not_beaten_are_named() -> None:
    assert not_beaten(FIGURE) == []
    assert not_beaten(replace(FIGURE, value=20.0)) == [COPY]
    assert not_beaten(replace(FIGURE, value=float("nan"))) == [COPY]
    assert not_beaten(replace(FIGURE, better="lower")) == [COPY]
    assert not_beaten(replace(FIGURE, floors={COPY: float("nan")})) == []
    assert not_beaten(replace(FIGURE, group="motion", value=10.0)) == []


def test_the_code_hash_is_of_what_code_does(tmp_path: Path) -> None:
    sources = {
        "plain": "def f(x):\n    return x + 1\n",
        "told": '"""Module."""\n\n\ndef f(x):  # why\n    """Adds."""\n    return x + 1  # one\n',
        "other": "def f(x):\n    return x + 2\n",
        "text": "def f(x):\n    y = '# no comment'\n    return x + 1\n",
    }
    hashes = {}
    for name, source in sources.items():
        path = tmp_path / f"{name}.py"
        path.write_text(source)
        module = types.ModuleType("same")
        module.__file__ = str(path)
        hashes[name] = code_hash(module)
    assert hashes["plain"] == hashes["told"]
    assert len({hashes["plain"], hashes["other"], hashes["text"]}) == 3


def test_the_page_needs_no_other_file_and_marks_what_is_not_beaten() -> None:
    clip = np.zeros((6, 16, 16, 3), np.uint8)
    bad = replace(FIGURE, name="SSIM", value=10.0)
    page = card_page(replace(CARD, figures=[FIGURE, bad]), "mine & yours", [Strip("clip", [("truth", clip)], 2)])
    assert "mine &amp; yours" in page and CARD.protocol_id in page
    assert page.count('<tr class="differs">') == 1
    assert page.count("<svg") == 2 and "data:image/png;base64" in page
    assert "http" not in page.replace("http://www.w3.org", ""), "nothing is fetched"


def test_figures_against_the_truth() -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 256, (5, 6, 16, 16, 3), dtype=np.uint8)
    near, far = (np.clip(truth + random.normal(0, s, truth.shape), 0, 255).astype(np.uint8) for s in (3, 40))
    measures = standard_measures(16)
    figures = {f.name: f for f in prediction_figures([far, near], truth, {COPY: far}, measures)}
    assert figures["PSNR"].value == pytest.approx(figures["PSNR"].floors[COPY])
    assert figures["PSNR, best of 2"].value > figures["PSNR"].value + 10
    assert figures["SSIM, best of 2"].value > figures["SSIM"].value
    assert figures["PSNR"].interval[0] < figures["PSNR"].value < figures["PSNR"].interval[1]
    assert len(figures["PSNR"].by_frame["model"]) == len(figures["PSNR"].by_frame[COPY]) == 6
    shown = {f.name: f for f in fidelity_figures(near, truth, measures)}
    assert shown["PSNR"].value > shown["PSNR"].floors["best still picture"]
    assert 0.9 < shown["movement kept"].value < 1
    assert [measure.name for measure in standard_measures(10)] == ["PSNR"], "SSIM's window does not fit"
    token, pixel = bits_figures(np.array([1.0, 3.0]), 1024, 1 / 256)
    assert (token.value, pixel.value, token.floors) == (2.0, 2 / 256, {"every index equally likely": 10.0})
