"""Several processes train the model that one alone would have trained, and one that dies takes no work with it."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tokenreel.datasets.order import Order
from tokenreel.training import ranks
from tokenreel.training.settings import TrainingSettings
from tokenreel.transformer.clip_chance import drawn_chance, uniform

ROOT = Path(__file__).resolve().parents[1]
STEPS = 20
TINY = (
    f"--steps {STEPS} --batch-size 8 --log-every 5 --evaluate-every 10 --warmup 0 --wandb disabled --device cpu "
    "--precision fp32 --ema-decay 0.9 --lr 1e-3 --samples 1"
)
TOKENIZER = (
    f"train_tokenizer --data world --cache clips --size 32 --clip-frames 8 {TINY} "
    "--model.width 16 --model.encoder-depth 1 --model.decoder-depth 1"
)
LEARNED = f"{TOKENIZER} --model.quantizer vq --model.vq-codebook-size 32 --model.vq-decay 0.9"
# All that is left to chance is on, but for dropout, which is drawn by each rank for itself.
GPT = (
    f"train_gpt --shards tokens {TINY} --model.dim 64 --model.depth 1 "
    "--condition-dropout 0.5 --context-noise 0.3 --infilling 0.5"
)
IN_PARTS = f"{GPT} --shard-model"
BY_FRAME = GPT.replace("--context-noise 0.3", "--decoding frame")
SETTINGS = pytest.mark.parametrize("command", [LEARNED, GPT, IN_PARTS], ids=["tokenizer", "gpt", "parts"])
# How many clips of a batch stand in it twice, a rank can say of its own cut alone.
NOT_REPEATED = ("speed/", "memory/", "data/repeated_share")

DIES = """
import json, os, signal, sys
from tokenreel.datasets.order import Order
from tokenreel.tools import {tool} as tool
batch = Order.batch
def and_tell(self, step):
    found = batch(self, step)
    with open(f"{{sys.argv[-1]}}/seen_{{self.world_size}}_{{self.rank}}", "a") as file:
        print(json.dumps([step, found.tolist()]), file=file)
    return found
Order.batch = and_tell
observe, steps = tool.{stage}.observe, []
def and_die(self, output):
    observe(self, output)
    steps.append(1)
    if len(steps) == {after} and os.environ.get("RANK", "0") == "{rank}":
        os.kill(os.getpid(), signal.SIGKILL)
tool.{stage}.observe = and_die
tool.main(sys.argv[1:-1])
"""
STAGES = {"train_tokenizer": "TokenizerStage", "train_gpt": "GPTStage"}


def alone(command: str, home: Path) -> None:
    """Run a tool in one process."""
    name, *arguments = command.split()
    subprocess.run([sys.executable, str(ROOT / "tools" / f"{name}.py"), *arguments], cwd=home, check=True)


def started(world: int, script: Path, arguments: list[str], home: Path) -> list[subprocess.Popen[str]]:
    """The ranks of a training, started as a launcher does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    whole = {"WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = []
    for rank in range(world):
        own = {**os.environ, **whole, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(script), *arguments]
        pipe = subprocess.PIPE
        processes.append(subprocess.Popen(command, cwd=home, env=own, stdout=pipe, stderr=pipe, text=True))
    return processes


def run(world: int, command: str, home: Path, script: Path | None = None) -> list[tuple[int, str, str]]:
    """Status, output and errors of each rank."""
    name, *arguments = command.split()
    processes = started(world, script or ROOT / "tools" / f"{name}.py", arguments, home)
    try:
        said = [process.communicate(timeout=1200) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *texts) for process, texts in zip(processes, said, strict=True)]


def dying(command: str, rank: int, after: int, home: Path) -> Path:
    """A script that trains until a rank is killed after so many steps, and tells in a folder what each rank sees."""
    tool = command.split()[0]
    path = home / f"dies_{tool}_{rank}_{after}.py"
    path.write_text(DIES.format(tool=tool, stage=STAGES[tool], rank=rank, after=after))
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a little world, its token shards, and what one process makes of them."""
    home = tmp_path_factory.mktemp("ranks")
    alone("make_world balls --out world --count 6 --val-count 3 --size 32 --frames 16", home)
    alone(f"{LEARNED} --run alone_train_tokenizer", home)
    alone("tokenize_dataset --tokenizer alone_train_tokenizer --out tokens --cache clips --clip-frames 12", home)
    alone(f"{GPT} --run alone_train_gpt", home)
    return home


def assert_same(one: Path, other: Path) -> None:
    """Weights and their average to 1e-6, codebook included, and all that was logged."""
    for name in ("checkpoints/step_000020/weights.safetensors", "model/model.safetensors"):
        weights, others = load_file(one / name), load_file(other / name)
        assert weights.keys() == others.keys()
        for key, tensor in weights.items():
            torch.testing.assert_close(others[key], tensor, rtol=1e-5, atol=1e-6, msg=f"{name}: {key}")
    for line, its in zip(metrics(one), metrics(other), strict=True):
        words = {name: value for name, value in line.items() if isinstance(value, str)}
        assert words == {name: value for name, value in its.items() if isinstance(value, str)}
        numbers = {name: value for name, value in its.items() if name not in words}
        assert {name: line[name] for name in numbers} == pytest.approx(numbers, rel=1e-4, abs=1e-5)


def metrics(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if not name.startswith(NOT_REPEATED)} for line in lines]


# real processes


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 4])
@SETTINGS
def test_ranks_learn_what_one_process_learns(command: str, world: int, home: Path, tmp_path: Path) -> None:
    ended = run(world, f"{command} --run {tmp_path / 'several'}", home)
    assert [status for status, _, _ in ended] == [0] * world, ended
    assert_same(home / f"alone_{command.split()[0]}", tmp_path / "several")
    assert [(out, err) for _, out, err in ended[1:]] == [("", "")] * (world - 1), "the first one speaks for all"
    assert not list((tmp_path / "several").rglob("*tmp*"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        f"{GPT} --accumulate 2 --model.dropout 0",
        f"{BY_FRAME} --accumulate 2",
        f"{BY_FRAME} --accumulate 2 --checkpoint-activations --shard-model",
        f"{TOKENIZER} --model.quantizer bsq --model.bits 8",
        f"{TOKENIZER} --loss.adversarial 0.3 --loss.adversarial-warmup 2 --evaluate-every 5",
    ],
    ids=["accumulated", "frames", "frames in parts", "binary", "adversarial"],
)
def test_ranks_learn_the_same_of_every_kind(command: str, home: Path, tmp_path: Path) -> None:
    alone(f"{command} --run {tmp_path / 'alone'}", home)
    ended = run(2, f"{command} --run {tmp_path / 'two'}", home)
    assert [status for status, _, _ in ended] == [0, 0], ended
    one, other = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("alone", "two"))
    for key, tensor in one.items():
        torch.testing.assert_close(other[key], tensor, rtol=1e-4, atol=5e-6, msg=key)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
@SETTINGS
def test_a_run_goes_from_two_ranks_to_one_to_four(command: str, home: Path, tmp_path: Path) -> None:
    name = command.split()[0]
    command = f"{command} --checkpoint-every 4 --run {tmp_path / 'elastic'} --resume"
    two = run(2, f"{command} {tmp_path}", home, dying(command, rank=1, after=7, home=tmp_path))
    assert two[1][0] == -signal.SIGKILL and two[0][0] == 1
    assert "got no answer from another process, which has ended or hangs" in two[0][2], two[0][2]
    assert two[0][2].rstrip().endswith("as there are") and "--resume" in two[0][2]
    assert "another process" in json.loads((tmp_path / "elastic/metrics.jsonl").read_text().splitlines()[-1])["error"]
    ((status, said, _),) = run(1, f"{command} {tmp_path}", home, dying(command, rank=0, after=9, home=tmp_path))
    assert status == -signal.SIGKILL and "resumed at step 4 of 20" in said
    four = run(4, f"{command} {tmp_path}", home, dying(command, rank=0, after=99, home=tmp_path))
    assert [status for status, _, _ in four] == [0] * 4, four
    assert "resumed at step 12 of 20" in four[0][1]
    assert_same(home / f"alone_{name}", tmp_path / "elastic")
    seen: Counter[int] = Counter()
    for world, steps in ((2, range(4)), (1, range(4, 12)), (4, range(12, 20))):
        for rank in range(world):
            lines = map(json.loads, (tmp_path / f"seen_{world}_{rank}").read_text().splitlines())
            by_step = {step: clips for step, clips in lines if step in steps}
            assert by_step.keys() == set(steps) and all(len(clips) == 8 // world for clips in by_step.values())
            seen.update(clip for clips in by_step.values() for clip in clips)
    assert max(seen.values()) - min(seen.values()) == 1 and sum(seen.values()) == STEPS * 8
    made = json.loads((tmp_path / "elastic/checkpoints/step_000020/meta.json").read_text())["exposures"]
    assert (made["per_clip_min"], made["per_clip_max"]) == (min(seen.values()), max(seen.values()))
    assert Order(len(seen), 8, seed=0).times_seen(STEPS).tolist() == [seen[clip] for clip in range(len(seen))]


@pytest.mark.slow
def test_the_launchers_end_all_ranks_when_one_is_refused(home: Path, tmp_path: Path) -> None:
    launchers = (
        ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29611", "--"],
        ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "29612"],
    )
    for launcher in launchers:
        tool = [str(ROOT / "tools" / "train_gpt.py"), *GPT.split()[1:], "--run", "alone_train_gpt"]
        ended = subprocess.run(
            [sys.executable, *launcher, *tool], cwd=home, capture_output=True, text=True, timeout=1200, check=False
        )
        assert ended.returncode == 1
        assert ended.stderr.count("error: alone_train_gpt already holds a run; add --resume") == 1, ended.stderr


def test_a_model_in_parts_is_the_whole_one(tmp_path: Path) -> None:
    ended = run(2, f"one_rank {tmp_path}", tmp_path, ROOT / "tests" / "one_rank.py")
    assert [status for status, _, _ in ended] == [0, 0], "\n".join(err for _, _, err in ended)


# one process, as if it were several


@pytest.mark.parametrize("world", [2, 4])
def test_chance_is_the_same_however_a_batch_is_cut(world: int) -> None:
    whole = Order(50, 8, seed=3).chance(7)
    parts = [Order(50, 8, 3, rank, world).chance(7) for rank in range(world)]
    assert np.array_equal(np.concatenate(parts), whole)
    assert whole.shape == (8, 2) and (whole >= 0).all() and len(set(whole[:, 0])) == 1 and len(set(whole[:, 1])) == 8
    assert not (Order(50, 8, seed=3).chance(8) == whole).any() and not (Order(50, 8, seed=4).chance(7) == whole).any()


def test_random_numbers_of_clips_are_even_and_tell_nothing_of_each_other() -> None:
    numbers = drawn_chance(3000, torch.device("cpu"))[:, 1]
    values = uniform(numbers, 100, 0)
    assert torch.equal(uniform(numbers[7:9], 100, 0), values[7:9]) and torch.equal(
        uniform(numbers, 10, 0), values[:, :10]
    )
    assert values.min() >= 0 and values.max() < 1
    counts = torch.histc(values, 100, 0, 1)
    assert float(((counts - 3000) ** 2 / 3000).sum()) < 160  # 99 degrees of freedom
    for rows in (values, values.T[:, :1000], uniform(torch.arange(3000), 100, 0)):
        related = torch.corrcoef(rows.T).fill_diagonal_(0) * len(rows) ** 0.5
        assert related.std() < 1.1 and related.abs().max() < 6
    other = uniform(numbers, 100, 1)
    assert abs(torch.corrcoef(torch.stack([values.flatten(), other.flatten()]))[0, 1]) < 4 / 300_000**0.5


def test_batches_that_cannot_be_cut_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ranks.share(8, 2) == 4
    monkeypatch.setattr(ranks, "world_size", lambda: 3)
    assert ranks.share(12, 2) == 2
    message = r"batch_size 10 .* 3 processes.* 2 parts: expected a multiple of 6; use --batch-size 12"
    with pytest.raises(ValueError, match=message):
        ranks.share(10, 2)


@pytest.mark.parametrize(("name", "value"), [("USE_FSDP", "true"), ("GRADIENT_ACCUMULATION_STEPS", "4")])
def test_what_accelerate_would_do_unseen_is_refused(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = TrainingSettings(run=Path("run"), device="cpu")
    for harmless in ("USE_FSDP", "GRADIENT_ACCUMULATION_STEPS", "DYNAMO_BACKEND"):
        monkeypatch.setenv(f"ACCELERATE_{harmless}", {"GRADIENT_ACCUMULATION_STEPS": "1"}.get(harmless, "no"))
    ranks.join(settings)
    monkeypatch.setenv(f"ACCELERATE_{name}", value)
    with pytest.raises(ValueError, match=f"launched with --{name.lower()} .*expected none of it"):
        ranks.join(settings)


def test_a_launcher_that_starts_one_process_of_several_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = TrainingSettings(run=Path("run"), device="cpu")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.delenv("MASTER_PORT", raising=False)
    ranks.join(settings)
    assert not capsys.readouterr().out, "one was asked for"
    monkeypatch.setenv("MASTER_PORT", "29500")
    ranks.join(settings)
    assert "asked for several processes and started this one alone" in capsys.readouterr().out


def test_what_ranks_log_is_the_mean_or_the_extreme(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = {"train/loss": 1.0, "data/min": -1.0, "data/max": 0.5, "note": "said"}
    assert ranks.together(metrics) == metrics
    others = np.array([[1.0, -1.0, 0.5], [3.0, -0.5, 0.75]])
    monkeypatch.setattr(ranks, "_several", lambda: True)
    monkeypatch.setattr(ranks, "gathered", lambda numbers: others)
    assert ranks.together(metrics) == {"train/loss": 2.0, "data/min": -1.0, "data/max": 0.75, "note": "said"}


def test_draws_depend_on_seed_step_and_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn(seed: int, step: int, rank: int) -> float:
        monkeypatch.setattr(ranks, "rank", lambda: rank)
        ranks.seed_draws(seed, step)
        return torch.rand(()).item()

    assert drawn(0, 5, 0) == drawn(0, 5, 0)
    assert len({drawn(0, 5, 0), drawn(1, 5, 0), drawn(0, 6, 0), drawn(0, 5, 1)}) == 4


def test_an_error_of_this_process_is_not_blamed_on_another(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = RuntimeError("[../gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:5")
    assert ranks.lost_rank(lost) is None, "alone"
    monkeypatch.setattr(ranks, "_several", lambda: True)
    monkeypatch.setattr(ranks, "rank", lambda: 1)
    monkeypatch.setattr(ranks, "world_size", lambda: 4)
    assert "rank 1 of 4 got no answer" in str(ranks.lost_rank(lost))
    assert ranks.lost_rank(RuntimeError("CUDA out of memory")) is None and ranks.lost_rank(ValueError("bad")) is None
