"""Tokenizing by many processes that are killed, several passes, bad shards in training, and looking into shards."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerate.state import AcceleratorState
from PIL import Image

from tokenreel.datasets.clip_passes import Augmentation, ClipPasses
from tokenreel.datasets.clip_store import ClipStore
from tokenreel.datasets.clip_windows import ClipWindows
from tokenreel.datasets.token_shards import TokenShards
from tokenreel.tools import inspect_shards, make_world, tokenize_dataset, train_gpt, train_tokenizer

TOOLS = {
    "make_world": make_world,
    "train_tokenizer": train_tokenizer,
    "tokenize_dataset": tokenize_dataset,
    "train_gpt": train_gpt,
    "inspect_shards": inspect_shards,
}
SHORT = "--batch-size 3 --log-every 1 --wandb disabled --device cpu --precision fp32"
TINY = "--model.width 16 --model.encoder-depth 1 --model.decoder-depth 1 --model.levels 5 5"
TOKENIZE = "tokenize_dataset --tokenizer tok --cache clips --clips-per-shard 4 --device cpu"
GPT = f"train_gpt {SHORT} --model.dim 64 --model.depth 1 --samples 0"


def call(command: str) -> None:
    name, *arguments = command.split()
    AcceleratorState._reset_state(True)
    TOOLS[name].main(arguments)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a world, a tokenizer, and its shards, made by one process."""
    home = tmp_path_factory.mktemp("shards")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        call("make_world balls --out world --count 6 --val-count 2 --size 32 --frames 24")
        call(f"train_tokenizer --data world --cache clips --size 32 {SHORT} {TINY} --run tok --steps 1")
        call(f"{TOKENIZE} --out tokens")
    return home


@pytest.fixture(autouse=True)
def there(chain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(chain)


def contents(folder: Path | str) -> dict[str, bytes]:
    paths = [path for part in ("train", "val", "tokenizer") for path in (Path(folder) / part).rglob("*")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths if path.is_file()}


def windows(split: str = "train") -> ClipWindows:
    return ClipWindows(ClipStore.open(next(Path("clips").glob("world-*"))), split, clip_frames=16, hop=4)


# many processes


def test_ranks_and_array_jobs_write_what_one_process_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("1", "0"):
        assert not (tmp_path / "ranks/train/manifest.json").exists()
        monkeypatch.setenv("RANK", rank)
        call(f"{TOKENIZE} --out {tmp_path}/ranks")
    assert "train: 2 of 5 shards are there; the process that writes the last one" in capsys.readouterr().out
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.delenv("RANK")
    for part in ("5:", ":2", "2:5"):
        call(f"{TOKENIZE} --out {tmp_path}/array --shard-range {part}")
    assert contents("tokens") == contents(tmp_path / "ranks") == contents(tmp_path / "array")
    assert {"train/manifest.json", "val/manifest.json", "train/receipts/000004.json"} <= set(contents("tokens"))


@pytest.mark.slow
def test_processes_started_by_the_tool_by_torchrun_and_by_accelerate(tmp_path: Path) -> None:
    script = str(Path(tokenize_dataset.__file__))
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", script]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", script]
    for name, command in (
        ("own", [sys.executable, script, "--processes", "2"]),
        ("accelerate", launch),
        ("torchrun", torchrun),
    ):
        command += [*TOKENIZE.split()[1:], "--out", str(tmp_path / name)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert contents(tmp_path / name) == contents("tokens")
        assert "next: " in done.stdout


def test_a_mistake_in_sharing_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    for options, said in (
        ("--shard-range 5", "shard_range '5', expected START:STOP"),
        ("--shard-range 5:5", "shard_range '5:5', expected START:STOP"),
        ("--processes 0", "processes 0: expected at least 1"),
        ("--out pipe:cat", "got 'pipe:cat', expected a folder, or a URL"),
        ("--flips", "flips and crops are for later passes, got passes 1, expected at least 2"),
        ("--out tokens --hop 2", "belongs to another job: hop is 4, expected 2"),
    ):
        with pytest.raises(SystemExit, match="2"):
            call(f"{TOKENIZE} --out {tmp_path}/x {options}")
        assert said in capsys.readouterr().err
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit, match="2"):
        call(f"{TOKENIZE} --out {tmp_path}/x --processes 2")
    assert "accelerate started 2 already, expected --processes 1" in capsys.readouterr().err


KILLER = """
import os, random, shutil, signal, sys, time
import webdataset
from tokenreel.tools import tokenize_dataset

kills, out, *arguments = sys.argv[1:]
random.seed(0)

def start(folder, rank=0, processes=1):
    pid = os.fork()
    if pid == 0:
        os.environ.update(RANK=str(rank), WORLD_SIZE=str(processes))
        status = 1
        try:
            tokenize_dataset.main([*arguments, "--out", folder])
            status = 0
        finally:
            os._exit(status)
    return pid

def contents(folder):
    return {os.path.relpath(os.path.join(home, name), folder): open(os.path.join(home, name), "rb").read()
            for part in ("train", "val", "tokenizer") for home, _, names in os.walk(os.path.join(folder, part))
            for name in names}

began = time.monotonic()
assert os.waitpid(start(out + "/whole"), 0)[1] == 0
length, whole = time.monotonic() - began, contents(out + "/whole")
done = finished = 0
while done < int(kills):
    running = {start(out + "/killed", rank, 2): time.monotonic() + random.uniform(0, 1.2 * length) for rank in (0, 1)}
    killed = 0
    while running:
        for pid, end in list(running.items()):
            status = os.waitpid(pid, os.WNOHANG)
            if status[0] and status[1] == 0:
                del running[pid]
            elif status[0]:
                sys.exit(f"a process failed with {status}")
            elif time.monotonic() > end:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                killed += 1
                del running[pid]
        time.sleep(0.002)
    done += killed
    if not killed or done >= int(kills):
        assert os.waitpid(start(out + "/killed"), 0)[1] == 0
        left = contents(out + "/killed")
        assert left == whole, sorted(set(left) ^ set(whole)) or "same names, other bytes"
        shutil.rmtree(out + "/killed")
        finished += 1
print(f"killed {done}, finished {finished}")
"""


def kill_and_go_on(kills: int, tmp_path: Path) -> None:
    arguments = [*TOKENIZE.replace("--clips-per-shard 4", "--clips-per-shard 2").split()[1:]]
    command = [sys.executable, "-c", KILLER, str(kills), str(tmp_path), *arguments]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert int(done.stdout.split("killed ")[-1].split(",")[0]) >= kills


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_killed_three_times_and_started_again_the_bytes_are_the_same(tmp_path: Path) -> None:
    kill_and_go_on(3, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_killed_fifty_times_and_started_again_the_bytes_are_the_same(tmp_path: Path) -> None:
    kill_and_go_on(50, tmp_path)


# several passes


def test_passes_change_training_clips_and_say_how(tmp_path: Path) -> None:
    call(f"{TOKENIZE} --out {tmp_path}/tokens --passes 3 --flips --crops 0.7 --augmentation-seed 5")
    train, val = (TokenShards.open(tmp_path / "tokens", split) for split in ("train", "val"))
    plain = TokenShards.open("tokens", "train")
    assert (len(plain), len(train), len(val)) == (18, 54, len(TokenShards.open("tokens", "val")))
    assert contents(tmp_path / "tokens")["val/shard-000000.tar"] == contents("tokens")["val/shard-000000.tar"]
    assert (train.batch(range(18))[0] == plain.batch(range(18))[0]).all(), "the first pass is as it is"
    later = [train.clip(number)[1] for number in range(18, 54)]
    assert {record["pass"] for record in later} == {1, 2}
    assert 6 < sum("flipped" in record for record in later) < 30 and all(len(record["crop"]) == 4 for record in later)
    original = [plain.clip(number)[1] for number in range(18)] * 2
    assert [(r["label"], r["caption"], r["video"]) for r in later] == [
        (r["label"], r["caption"], r["video"]) for r in original
    ]
    assert {r["start"] - o["start"] for r, o in zip(later, original, strict=True)} == {0, 1, 2, 3}
    assert train.manifest.source["augmentation"]["passes"] == 3 and "augmentation" not in val.manifest.source
    call(f"{TOKENIZE} --out {tmp_path}/tokens --passes 3 --flips --crops 0.7 --augmentation-seed 5")
    with pytest.raises(SystemExit, match="2"):
        call(f"{TOKENIZE} --out {tmp_path}/tokens --passes 3 --flips --crops 0.7")


def test_what_a_record_says_was_done_is_what_was_done() -> None:
    clips = ClipPasses(windows(), Augmentation(passes=4, flips=True, crops=0.6))
    kinds = set()
    for number in range(18, len(clips)):
        record, frames = clips.record(number), clips[number]
        video = next(video for video in clips.windows.records if video.key == record["video"])
        truth = clips.windows.store.frames(video, record["start"], record["start"] + 16)
        top, left, height, width = record["crop"]
        assert 0.6 * 32 - 1 <= height <= 32 and 0 <= top <= 32 - height and 0 <= left <= 32 - width
        rows = [np.asarray(Image.fromarray(f[top : top + height, left : left + width]).resize((32, 32))) for f in truth]
        expected = np.stack(rows)[:, :, ::-1] if "flipped" in record else np.stack(rows)
        assert np.abs(frames.astype(int) - expected).mean() < 2, "but for what the resampling sees beyond the border"
        kinds.add("flipped" in record)
    assert kinds == {True, False}
    flips = ClipPasses(windows(), Augmentation(passes=2, flips=True))
    assert any("flipped" in flips.record(number) for number in range(18, 36))
    again = ClipPasses(windows(), Augmentation(passes=2, flips=True))
    assert [flips.record(n) for n in range(36)] == [again.record(n) for n in range(36)]


def test_actions_are_mirrored_only_when_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(f"make_world paddle --out {tmp_path}/w --count 2 --val-count 1 --size 32 --frames 16")
    command = f"{TOKENIZE} --data {tmp_path}/w --out {tmp_path}/t --cache {tmp_path}/clips --passes 3 --flips"
    for options, said in (
        ("", "the clips have actions (stay, left, right), which may be others in a mirror; say which"),
        ("--mirrored-actions left:up", "mirrored_actions: 'up' is no action, expected some of stay, left, right"),
        ("--mirrored-actions left", "mirrored_actions left: expected pairs such as LEFT:RIGHT"),
    ):
        with pytest.raises(SystemExit, match="2"):
            call(f"{command} {options}")
        assert said in capsys.readouterr().err
    call(f"{command} --mirrored-actions left:right")
    shards = TokenShards.open(tmp_path / "t")
    once, later = shards.clip(0)[1], [shards.clip(number)[1] for number in range(len(shards) // 3, len(shards))]
    swapped = [[0, 2, 1][action] for action in once["actions"]]
    assert {tuple(r["actions"]) for r in later if r["video"] == once["video"] and "flipped" in r} <= {tuple(swapped)}
    assert any("flipped" in record for record in later)


# bad shards in training


def damaged(tmp_path: Path, number: int = 1) -> Path:
    """The shards with one bit of one index flipped, to one that is in range."""
    import shutil

    tokens = tmp_path / "tokens"
    shutil.copytree("tokens", tokens)
    shard = tokens / "train" / f"shard-{number:06d}.tar"
    data = bytearray(shard.read_bytes())
    data[512 + 128] ^= 1
    shard.write_bytes(data)
    return tokens


def test_training_never_sees_a_flipped_bit_and_goes_on_without_it_when_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens = damaged(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        call(f"{GPT} --shards {tokens} --run {tmp_path}/gpt --steps 6")
    error = capsys.readouterr().err
    assert "clips 4..7: " in error and "shard-000001.tar has sha256" in error and "--skip-bad" in error
    call(f"{GPT} --shards {tokens} --run {tmp_path}/run --steps 2 --skip-bad")
    said = capsys.readouterr().out
    assert "train: going on without shard-000001.tar: clips 4..7" in said
    made = json.loads((tmp_path / "run/config.json").read_text())["made_of"]
    assert made["clips"] == 14 and made["without"] == ["shard-000001.tar"]
    call(f"{GPT} --shards {tokens} --run {tmp_path}/run --steps 3 --skip-bad --resume")
    with pytest.raises(SystemExit, match="2"):
        call(f"{GPT} --shards tokens --run {tmp_path}/run --steps 4 --skip-bad --resume")
    assert "made_of" in capsys.readouterr().err
    left = TokenShards.open(tokens, skip_bad=True)
    whole = TokenShards.open("tokens")
    kept = [*range(4), *range(8, 18)]
    assert (left.batch(range(14))[0] == whole.batch(kept)[0]).all()
    assert left.batch(range(14))[1] == whole.batch(kept)[1]
    assert left.num_videos == len({whole.clip(number)[1]["video"] for number in kept})


@pytest.mark.slow
def test_a_gpt_is_trained_from_a_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("s3fs", reason="s3fs is not installed: pip install tokenreel[s3-server]")
    server = pytest.importorskip("moto.server", reason="moto is not installed: pip install tokenreel[s3-server]")
    running = server.ThreadedMotoServer(port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        import fsspec

        fsspec.filesystem("s3", use_listings_cache=False).mkdir("trained")
        call(f"{TOKENIZE} --out s3://trained/tokens")
        call(f"{TOKENIZE} --out s3://trained/tokens")  # finished, and its tokenizer is known
        call(f"{GPT} --shards s3://trained/tokens --cache {tmp_path}/copies --run {tmp_path}/remote --steps 2")
        call(
            f"inspect_shards s3://trained/tokens --cache {tmp_path}/copies --out {tmp_path}/seen --device cpu --verify"
        )
    running.stop()
    call(f"{GPT} --shards tokens --run {tmp_path}/local --steps 2")
    weights = [(tmp_path / name / "model/model.safetensors").read_bytes() for name in ("remote", "local")]
    assert weights[0] == weights[1]
    assert "all checksums are right" in capsys.readouterr().out


# looking into shards


def test_inspection_counts_and_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(f"inspect_shards tokens --out {tmp_path}/seen --device cpu --verify --clips 2")
    said = capsys.readouterr().out
    assert "train: 18 clips of 6 videos, 1152 tokens in 5 shards" in said and "all checksums are right" in said
    assert "labels: " in said and "captions: 18 clips" in said
    told = json.loads((tmp_path / "seen/codes.json").read_text())
    indices = TokenShards.open("tokens").batch(range(18))[0]
    assert told["train"]["histogram"] == np.bincount(indices.reshape(-1), minlength=25).tolist()
    share = np.bincount(indices.reshape(-1)) / indices.size
    entropy = -(share[share > 0] * np.log(share[share > 0])).sum()
    assert told["train"]["perplexity"] == pytest.approx(np.exp(entropy))
    assert told["train"]["dead_codes"] == 25 - len(set(indices.reshape(-1).tolist()))
    assert sum(told["train"]["labels"].values()) == 18
    with Image.open(tmp_path / "seen/clips.png") as picture:
        assert picture.height > 4 * 32 and picture.width > 16 * 32
    assert (tmp_path / "seen/codes.png").stat().st_size > 1000


def test_inspection_names_every_bad_shard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokens = damaged(tmp_path)
    (tokens / "train/shard-000003.tar").unlink()
    with pytest.raises(SystemExit, match="2"):
        call(f"inspect_shards {tokens} --out {tmp_path}/seen --verify --clips 0 --device cpu")
    said = capsys.readouterr()
    assert "train: bad shard: clips 4..7: " in said.out and "train: bad shard: clips 12..15: " in said.out
    assert "2 bad shards, named above" in said.err
    call(f"inspect_shards {tokens} --out {tmp_path}/seen --skip-bad --clips 0 --device cpu")
    assert "train: 10 clips of" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        call(f"inspect_shards {tmp_path} --out {tmp_path}/seen")
    assert "no finished token shards in" in capsys.readouterr().err
