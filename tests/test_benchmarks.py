"""The tokenizer protocol: its fixed parts, and that the script runs and writes its rows."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tokenreel.tokenizer import VideoTokenizer

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def protocol(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import tokenizer_protocol

    return tokenizer_protocol


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    path = tmp_path / "clips.npz"
    train, val = (random.integers(0, 256, (n, 16, 16, 16, 3), dtype=np.uint8) for n in (80, 3))
    np.savez(path, train=train, val=val)
    return path


def test_the_yardstick_allows_a_tokenizer_of_this_size(protocol) -> None:  # type: ignore[no-untyped-def]
    config = protocol.protocol_config()
    assert config.stride == (4, 4, 4) and config.codebook_size <= 1024
    assert sum(p.numel() for p in VideoTokenizer(config).parameters()) <= 1_100_000


def test_the_order_is_the_published_one(protocol) -> None:  # type: ignore[no-untyped-def]
    order = protocol.order(512, 500)
    random = np.random.RandomState(1234)
    assert order.shape == (500, 8)
    assert order[:64].flatten().tolist() == random.permutation(512).tolist()
    assert order[64:128].flatten().tolist() == random.permutation(512).tolist()


def run(script: str, *arguments: str | Path) -> None:
    command = [sys.executable, str(BENCHMARKS / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=BENCHMARKS.parent)
    assert done.returncode == 0, done.stdout + done.stderr


def test_protocol_writes_rows_and_curves(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "protocol.json"
    run("tokenizer_protocol.py", "--data", clips, "--seeds", "0,1", "--steps", "2", "--out", out)
    rows = json.loads(out.read_text())["rows"]
    found = {(row["case"], row["metric"]): row for row in rows}
    assert {("step 2", "val_psnr"), ("training", "cpu_seconds_per_step"), ("model", "parameters")} <= set(found)
    seeds = [found[f"step 2, seed {n}", "val_psnr"]["ours"] for n in (0, 1)]
    assert found["step 2", "val_psnr"]["ours"] == pytest.approx(np.mean(seeds)) and seeds[0] != seeds[1]
    assert found["step 2", "val_psnr"]["alternative"] is None  # VideoGPT was not measured on these clips
    assert out.with_suffix(".png").stat().st_size > 1000
