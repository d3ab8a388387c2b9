"""The planner as a user runs it: it measures, and what it foretells of memory is what then happens.

Times are compared by benchmarks/planning.py: here other programs may be at work.
"""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from tokenreel.tools import make_world, plan
from tokenreel.transformer import GPTSize

OPTIONS = "--data world --size 16 --clip-frames 8 --stride 4 8 8 --cache clips --device cpu --seconds 3 --out mine"


@pytest.mark.slow
def test_a_plan_comes_true(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fresh_process: Callable[[str], tuple[int, str]],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plan, "TOKENIZERS", ("tiny",))
    monkeypatch.setattr(plan, "GPTS", (GPTSize(64, 1),))
    monkeypatch.setattr(plan, "CLIPS", {"cpu": 4})
    monkeypatch.setattr(plan, "TOKENS", {"cpu": 64})
    make_world.main(["balls", "--out", "world", "--count", "8", "--val-count", "2", "--size", "32", "--frames", "16"])
    plan.main([*OPTIONS.split(), "--hours", "0.5"])
    told = json.loads(Path("mine/plan.json").read_text())
    assert all(line in capsys.readouterr().out for line in told["commands"][:1])
    assert not list(Path("mine").glob(".measured*")), "what was measured on is gone"
    # 128 frames of 8 in each clip: 16 clips see all once, and 50 times are the most.
    assert (told["gpt"]["steps"], told["gpt"]["through"]) == (100, 50)
    assert told["hours"] < told["hours_asked"] and "videos are what is missing" in told["for_more"][0]

    for tool, line in zip(("train_tokenizer", "tokenize_dataset", "train_gpt"), told["commands"], strict=False):
        arguments = shlex.split(line[line.index("--") :])
        if tool != "tokenize_dataset":
            arguments += ["--wandb", "disabled"]
        status, printed = fresh_process(f"from tokenreel.tools import {tool} as t; t.main({arguments!r})")
        assert status == 0, printed
    for stage in ("tokenizer", "gpt"):
        made = json.loads(Path(f"mine/{stage}/model/provenance.json").read_text())
        assert told[stage]["peak_bytes"] / 2**20 == pytest.approx(made["peak_memory_mb"], rel=0.25)
        assert made["step"] == told[stage]["steps"]
    assert made["exposures_through"] == pytest.approx(told["gpt"]["through"], rel=0.1)


@pytest.mark.slow
def test_what_cannot_be_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plan, "TOKENIZERS", ("tiny",))
    monkeypatch.setattr(plan, "GPTS", (GPTSize(64, 1),))
    monkeypatch.setattr(plan, "CLIPS", {"cpu": 2})
    monkeypatch.setattr(plan, "TOKENS", {"cpu": 16})
    make_world.main(["balls", "--out", "world", "--count", "4", "--val-count", "1", "--size", "32", "--frames", "16"])
    for options, words in (("--hours 0.00001", "use --hours"), ("--memory 100MB", "expected .* GB or more")):
        with pytest.raises(SystemExit):
            plan.main([*OPTIONS.split(), *options.split()])
        assert re.search(words, capsys.readouterr().err) and not Path("mine/plan.json").exists()
