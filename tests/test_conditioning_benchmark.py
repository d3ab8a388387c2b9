"""benchmarks/conditioning.py: its judges give full marks to what is right and none to what is wrong."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tokenreel.datasets.world_balls import COLORS
from tokenreel.datasets.world_combinations import caption
from tokenreel.datasets.world_paddle import ACTION_NAMES, play_on
from tokenreel.datasets.worlds import simulate, write_world
from tokenreel.transformer import ClipConditions, SamplingSettings

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
SETTINGS = SamplingSettings(guidance=2)
MODEL: Any = SimpleNamespace(frame_size=(64, 64), window=8)


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def figures(table: list[dict[str, Any]]) -> dict[tuple[str, str], tuple[float, float, float]]:
    return {(row["case"], row["metric"]): (row["ours"], row["alternative"], row["limit"]) for row in table}


def test_captions_are_judged_by_what_is_to_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import conditioning_captions

    def obedient(model: Any, prompts: np.ndarray, told: list[ClipConditions], settings: Any) -> np.ndarray:
        """Shows what the caption says; without one, one red ball."""
        said = {caption(balls): balls for balls in everything}
        assert prompts.shape == (len(told), 0, 64, 64, 3) and (settings.guidance == 2) == (told[0].caption is not None)
        chosen = [said[clip.caption] if clip.caption else ("red",) for clip in told]
        return np.stack([simulate("balls", i, 64, 2, combinations=[balls]).frames for i, balls in enumerate(chosen)])

    write_world("balls", tmp_path, 1, 0, 32, 1, 10, 0, options={"twins": True, "hold_out": 0.2})
    groups = conditioning_captions._combinations(tmp_path)
    everything = [balls for group in groups.values() for balls in group]
    assert len(everything) == len(set(everything)) == 83 and len(groups["held-out captions"]) == 15
    monkeypatch.setattr(conditioning_captions, "continued", obedient)
    monkeypatch.setattr(conditioning_captions, "through_tokenizer", lambda model, clips: np.zeros_like(clips))
    table, shown = conditioning_captions.caption_rows(MODEL, tmp_path, 20, SETTINGS)
    found = figures(table)
    assert found["held-out captions", "colours and counts right"] == (1, 0, 0)
    ours, untold, limit = found["training captions", "number of balls right"]
    assert ours == 1 and 0 <= untold < 0.5 and limit == 0
    assert found["held-out captions", "colours and counts right, of clips with a colour twice or more"][0] == 1
    assert {text for text, _ in shown} == {caption(balls) for balls in groups["held-out captions"]}


def test_labels_are_judged_by_the_number_of_balls(monkeypatch: pytest.MonkeyPatch) -> None:
    import conditioning_captions

    numbers = {"one ball": 1, "two balls": 2, "three balls": 3, None: 1}

    def obedient(model: Any, prompts: np.ndarray, told: list[ClipConditions], settings: Any) -> np.ndarray:
        shown = [("red", "green", "blue")[: numbers[clip.label]] for clip in told]
        return np.stack([simulate("balls", i, 64, 2, combinations=[balls]).frames for i, balls in enumerate(shown)])

    monkeypatch.setattr(conditioning_captions, "continued", obedient)
    monkeypatch.setattr(conditioning_captions, "through_tokenizer", lambda model, clips: np.zeros_like(clips))
    (row,) = conditioning_captions.label_rows(MODEL, COLORS, 12, SETTINGS)
    assert (row["case"], row["ours"], row["alternative"], row["limit"]) == ("labels", 1, 1 / 3, 0)


def test_a_world_without_held_out_combinations_is_refused(tmp_path: Path) -> None:
    import conditioning_captions

    write_world("balls", tmp_path, 1, 0, 32, 1, 10, 0)
    with pytest.raises(ValueError, match=r"no combinations held out.*--hold-out 0.2"):
        conditioning_captions.caption_rows(MODEL, tmp_path, 4, SETTINGS)


def test_the_paddle_is_judged_by_where_the_game_puts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import conditioning_paddle as paddle

    episodes = [simulate("paddle", seed, 64, 12) for seed in range(4)]
    prompts = [paddle.Prompt(e.frames[3:11], e.actions[3:11], e.states, 3) for e in episodes if e.actions]

    def obedient(model: Any, given: np.ndarray, told: list[ClipConditions], settings: Any) -> np.ndarray:
        """The game itself, under the actions told for the new frames; a paddle that stays where nothing is told."""
        clips = []
        for prompt, first, clip in zip(prompts, given, told, strict=True):
            actions: list[Any] = [None, *prompt.actions[:3], 0, 0, 0, 0] if clip.actions is None else [*clip.actions]
            assert len(actions) == 8 and actions[:4] == [None, *prompt.actions[:3]]
            clips.append(np.concatenate([first, play_on(prompt.states, 6, actions[4:], 64)[0]]))
        return np.stack(clips)

    monkeypatch.setattr(paddle, "_prompts", lambda *_: prompts)
    monkeypatch.setattr(paddle, "continued", obedient)
    monkeypatch.setattr(paddle, "through_tokenizer", lambda model, clips: clips)
    table, strip = paddle.paddle_rows(MODEL, {}, 4, SETTINGS, Path())
    found = figures(table)
    for order, sign in (("left", -1), ("right", 1), ("stay", 0), ("as played", None)):
        error, stays, limit = found[order, "position error"]
        assert error < 0.2 and limit < 0.2
        assert found[order, "moved as told"][::2] == (1, 1)
        if sign is not None:
            # At most 2.88 pixels, the paddle's speed; some are stopped by the wall.
            moved, _, due = found[order, "displacement per frame"]
            assert moved == due and (2.4 < sign * moved < 2.9 if sign else abs(moved) < 0.1)
            assert found[order, "moved as told"][1] == (sign == 0) and (stays > 5) == (sign != 0)
    titles = [title for title, _ in strip]
    assert titles == ["model: left", "game: left", "model: right", "game: right"]
    assert prompts[0].orders("as played") == episodes[0].actions[6:10]  # type: ignore[index]
    assert prompts[0].orders("left") == [ACTION_NAMES.index("left")] * 4


def test_the_script_says_what_it_needs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import conditioning

    monkeypatch.setattr(sys, "argv", ["conditioning.py"])
    with pytest.raises(SystemExit):
        conditioning.main()
    assert "--captions-model, --paddle-model or --breakout-model" in capsys.readouterr().err
