"""Benchmarks: the fixed parts of the protocol, what is counted, and that scripts run and write their rows."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from accelerate.state import AcceleratorState
from torch.utils.flop_counter import FlopCounterMode

from tokenreel.datasets.video_writer import write_video
from tokenreel.tokenizer import VideoTokenizer
from tokenreel.tools import make_world, tokenize_dataset, train_gpt, train_tokenizer
from tokenreel.training import optimizer as muon
from tokenreel.transformer import attention

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


def run(script: str, *arguments: str | int | Path) -> None:
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


# ingest


def test_the_search_for_copies_is_measured_against_none(tmp_path: Path) -> None:
    out = tmp_path / "copies.json"
    run("ingest.py", "--alike", 12, "--sizes", 32, "--out", out)
    written, copies = json.loads(out.read_text())["rows"]
    assert written["ours"] > 0 and written["alternative"] > 0
    assert (copies["ours"], copies["alternative"]) == (0, 0)


def test_ingest_is_measured_against_bare_decoding(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (20, 32, 48, 3), np.uint8)
    write_video(tmp_path / "videos/a.mp4", frames, 30)
    out = tmp_path / "ingest.json"
    run("ingest.py", "--data", tmp_path / "videos", "--sizes", 32, "--rounds", 1, "--out", out)
    rows = json.loads(out.read_text())["rows"]
    assert [row["case"] for row in rows[::2]] == ["a.mp4 to 32x32, 10 fps", "a.mp4 to 32x32, every frame"]
    for speed, share in zip(rows[::2], rows[1::2], strict=True):
        assert share["ours"] == pytest.approx(speed["ours"] / speed["alternative"]) and share["ours"] > 0


def test_listing_is_measured_against_the_disk(tmp_path: Path) -> None:
    out = tmp_path / "listing.json"
    run("listing.py", "--files", 40, "--rounds", 1, "--out", out)
    rows = json.loads(out.read_text())["rows"]
    assert [row["case"] for row in rows] == ["40 files in 1 folders", "40 files in 100 folders"]
    assert all(row["ours"] > row["alternative"] > 0 for row in rows)


# tokens, clips, start-up


def test_the_data_engine_is_measured_beside_the_plain_ways(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (20, 32, 48, 3), np.uint8)
    write_video(tmp_path / "videos/a.mp4", frames, 30)
    out, videos = tmp_path / "data.json", tmp_path / "videos"
    run(
        "data.py",
        "--videos",
        videos,
        "--shards",
        2,
        "--clips",
        130,
        "--many",
        3,
        "--batches",
        3,
        "--rounds",
        1,
        "--out",
        out,
    )
    found = {(row["metric"], row["unit"]): row for row in json.loads(out.read_text())["rows"]}
    assert set(found) >= {
        ("shuffled batches", "tokens/s"),
        ("checking every shard, once", "tokens/s"),
        ("opening them", "s"),
        ("ingest", "frames/s"),
        ("random clips", "clips/s"),
    }
    batches = found["shuffled batches", "tokens/s"]
    assert min(batches["ours"], batches["alternative"], batches["limit"]) > 0


# the GPT


def test_the_counted_operations_are_those_of_the_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpt_training

    case = gpt_training.Case("small", 1, "cpu", fast=False)
    gpt, _, indices = gpt_training.build(case)
    with FlopCounterMode(display=False) as counter:
        gpt(indices).loss.backward()
    counted = sum(flops for op, flops in counter.get_flop_counts()["Global"].items() if "attention" not in str(op))
    attention = 3 * case.size.depth * 2 * gpt_training.TOKENS * case.size.dim
    expected = gpt_training.TOKENS * (gpt_training.operations_per_token(case.size) - attention)
    assert counted == pytest.approx(expected, rel=0.005), "but for the prefix of two tokens"
    assert 0.1 < attention / gpt_training.operations_per_token(case.size) < 0.3


@pytest.fixture
def shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    AcceleratorState._reset_state(True)
    make_world.main(["balls", "--out", "world", "--count", "4", "--val-count", "2", "--size", "32", "--frames", "16"])
    tokenizer = "--data world --size 32 --steps 1 --batch-size 2 --wandb disabled --device cpu --run tokenizer"
    train_tokenizer.main(tokenizer.split())
    tokenize_dataset.main(["--tokenizer", "tokenizer", "--out", "tokens", "--clip-frames", "12"])
    return tmp_path / "tokens"


@pytest.mark.slow
def test_ablations_write_rows_and_go_on_where_they_stopped(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "ablations.json"
    short = ("--shards", shards, "--steps", 2, "--batch", 2, "--out", out)
    run("gpt_ablations.py", *short, "--only", "normalised")
    before = json.loads(out.read_text())["rows"]
    run("gpt_ablations.py", *short, "--only", "AdamW alone, 1e-3")
    rows = json.loads(out.read_text())["rows"]
    assert rows[: len(before)] == before
    found = {row["case"]: row for row in rows if row["metric"] == "val_bits_per_token"}
    assert set(found) == {"as it is", "queries and keys not normalised", "optimizer: AdamW alone, 1e-3"}
    right = found.pop("as it is")["ours"]
    assert 0 < right < 10 and all(row["alternative"] == right != row["ours"] for row in found.values())


@pytest.mark.parametrize("name", ["optimizer: 4 iterations in Muon", "attention: torch's kernel"])
def test_an_ablation_changes_what_it_names_and_nothing_after(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpt_ablations

    before = (muon.orthogonalize, attention.attend_by_rows)
    with gpt_ablations.variants()[name].during():
        assert (
            sum(one is other for one, other in zip(before, (muon.orthogonalize, attention.attend_by_rows), strict=True))
            == 1
        )
    assert before == (muon.orthogonalize, attention.attend_by_rows)


def test_drafts_are_measured_on_trained_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["--size", "32", "--frames", "16", "--count", "2", "--val-count", "2"]
    make_world.main(["balls", "--out", "w", *small])
    AcceleratorState._reset_state()  # or the precision of an earlier test is asked for again
    train = ["--steps", "1", "--device", "cpu", "--compile", "off", "--wandb", "disabled"]
    train_tokenizer.main(["--data", "w", "--run", "tok", *train])
    tokenize_dataset.main(["--data", "w", "--tokenizer", "tok", "--out", "tokens", "--device", "cpu"])
    AcceleratorState._reset_state()
    train_gpt.main(["--shards", "tokens", "--run", "gpt", *train])
    out = tmp_path / "drafts.json"
    monkeypatch.chdir(BENCHMARKS.parent)
    common = ["--runs", tmp_path / "gpt", "--shards", tmp_path / "tokens", "--out", out]
    run("drafts.py", *common, "--batches", 1, "--repeats", 1)
    rows = json.loads(out.read_text())["rows"]
    assert [row["metric"] for row in rows] == [
        "indices as one latent frame earlier",
        "sampling",
        "indices of a clip per pass",
        "clips that came out the same",
    ]
    assert rows[2]["ours"] >= rows[2]["alternative"] == 1


def test_whole_frames_and_infilling_are_judged(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = "--shards tokens --steps 1 --batch-size 2 --model.dim 64 --model.depth 1 --device cpu --wandb disabled"
    for name, option in (("frame", "--decoding frame"), ("token", "--infilling 0.5")):
        AcceleratorState._reset_state(True)
        train_gpt.main(f"{train} --run {name} {option}".split())
    few, out = ("--clips", 2, "--out", tmp_path / "out.json"), tmp_path / "out.json"
    models = ("--frame-model", tmp_path / "frame", "--token-model", tmp_path / "token")
    run("frame_parallel.py", *models, "--passes", 1, 2, "--batches", 2, *few)
    rows = json.loads(out.read_text())["rows"]
    assert [row["metric"] for row in rows[:2]] == ["bits per token", "time per latent frame"] and len(rows) == 7
    assert out.with_suffix(".png").stat().st_size > 1000
    run("infilling.py", "--model", tmp_path / "token", "--plain-model", tmp_path / "token", *few)
    rows = json.loads(out.read_text())["rows"]
    assert [row["case"] for row in rows[:4]] == [f"frame {t}" for t in (5, 6, 7, 8)]
    assert rows[-1]["ours"] == rows[-1]["alternative"]
