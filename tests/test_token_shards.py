import io
import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset

from tokenreel.datasets import token_shards
from tokenreel.datasets.shard_file import read_clips, shard_entry, write_shard
from tokenreel.datasets.shard_job import (
    ShardPlan,
    finish,
    finished_shard,
    put_shard,
    shard_ranges,
    store_plan,
    unfinished,
)
from tokenreel.datasets.shard_manifest import ShardManifest, shard_name
from tokenreel.datasets.token_shards import TokenShards, splits

TOKENIZER = "ab" * 32
CLIPS = 27  # shards of 10: the last one is shorter; blocks of 4: so is the last block of each shard


def make_plan(codebook_size: int = 300) -> ShardPlan:
    manifest = ShardManifest(
        tokenizer=TOKENIZER,
        stride=(4, 8, 8),
        codebook_size=codebook_size,
        grid=(2, 3, 4),
        split="train",
        frame_size=(24, 32),
        fps=10.0,
        clip_frames=8,
        hop=4,
        source={"name": "balls", "clip_store": "cd" * 32},
        block=4,
    )
    return ShardPlan(manifest, num_clips=CLIPS, clips_per_shard=10)


def make_clips(codebook_size: int = 300) -> tuple[np.ndarray, list[dict[str, Any]]]:
    indices = np.random.default_rng(0).integers(0, codebook_size, (CLIPS, 2, 3, 4))
    indices[5, 0, 0, 0], indices[26, 1, 2, 3] = codebook_size - 1, 0
    names = ["ball", "caf\u00e9 \u6f22", "raw \udcff byte", 'quote " slash \\']
    records = [
        {"video": f"{names[i % 4]}.{i // 4}", "start": 4 * i, "label": "x", "actions": [1, 0.5, None]}
        for i in range(CLIPS)
    ]
    return indices, records


def run_job(folder: Path, plan: ShardPlan, codebook_size: int = 300) -> ShardManifest:
    indices, records = make_clips(codebook_size)
    store_plan(folder, plan)
    for number, (start, stop) in enumerate(plan.ranges):
        if finished_shard(folder, plan, number) is None:
            put_shard(folder, plan, number, indices[start:stop], records[start:stop])
    assert unfinished(folder, plan) == []
    return finish(folder, plan)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    run_job(tmp_path / "train", make_plan())
    return tmp_path


# --- what goes in comes out ----------------------------------------------------------------------------


@pytest.mark.parametrize(("codebook_size", "dtype"), [(256, "<u2"), (257, "<u2"), (65_536, "<u2"), (65_537, "<u4")])
def test_round_trip(tmp_path: Path, codebook_size: int, dtype: str) -> None:
    indices, records = make_clips(codebook_size)
    manifest = run_job(tmp_path / "train", make_plan(codebook_size), codebook_size)
    assert [shard.clips for shard in manifest.shards] == [10, 10, 7]
    stored, _ = read_clips(tmp_path / "train" / shard_name(2), manifest, 7)
    assert stored.dtype == dtype and (stored == indices[20:]).all()

    opened = TokenShards.open(tmp_path, "train", TOKENIZER, verify=True)
    assert (len(opened), opened.num_videos, splits(tmp_path)) == (CLIPS, 7 * 4 - 1, ["train"])
    for number in range(CLIPS):
        clip, record = opened.clip(number)
        assert clip.dtype == np.int64 and (clip == indices[number]).all() and record == records[number]
    for number in (-1, CLIPS):
        with pytest.raises(IndexError, match=f"clip {number} of {CLIPS}"):
            opened.clip(number)


def test_batch_keeps_the_order_asked_for(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    indices, records = make_clips()
    numbers = np.array([26, 0, 13, 0, 9, 10])
    for open_files in (1, 256):
        monkeypatch.setattr(token_shards, "OPEN_FILES", open_files)
        opened = TokenShards.open(shards)
        for _ in range(2):
            batch, batch_records = opened.batch(numbers)
            assert batch.dtype == np.int64 and (batch == indices[numbers]).all()
            assert batch_records == [records[number] for number in numbers]
        assert len(opened._files) == (1 if open_files == 1 else 3)
        copied = pickle.loads(pickle.dumps(opened))
        assert (copied.batch(numbers)[0] == indices[numbers]).all()


def test_plain_webdataset_reads_the_shards(shards: Path) -> None:
    indices, records = make_clips()
    dataset = webdataset.WebDataset(str(shards / "train" / shard_name(1)), shardshuffle=False)
    samples = list(dataset)  # raw bytes: its decoders would execute pickles
    assert [sample["__key__"] for sample in samples] == ["000001-00000", "000001-00001", "000001-00002"]
    blocks = [np.load(io.BytesIO(sample["npy"]), allow_pickle=False) for sample in samples]
    assert [len(block) for block in blocks] == [4, 4, 2]
    assert (np.concatenate(blocks) == indices[10:20]).all()
    assert [record for sample in samples for record in json.loads(sample["json"])] == records[10:20]


@pytest.mark.parametrize("wrong", [300, -1, 2**40])
def test_indices_outside_the_codebook_are_not_written(tmp_path: Path, wrong: int) -> None:
    indices, records = make_clips()
    indices[3, 0, 0, 0] = wrong
    with pytest.raises(ValueError, match=r"got indices .*, expected 0\.\.299"):
        write_shard(tmp_path / shard_name(0), indices, records, make_plan().manifest)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda indices, records: (indices[:, :1], records),
        lambda indices, records: (indices.astype(float), records),
        lambda indices, records: (indices, records[:-1]),
        lambda indices, records: (indices[:0], records[:0]),
        lambda indices, records: (indices, [*records[:-1], {"start": 0}]),
        lambda indices, records: (indices, [*records[:-1], {"video": "a", "fps": np.float32(1)}]),
        lambda indices, records: (indices, [*records[:-1], {"video": "a", "fps": float("nan")}]),
    ],
    ids=["grid", "float", "too few records", "empty", "no video", "numpy", "nan"],
)
def test_clips_that_do_not_fit_are_not_written(tmp_path: Path, spoil: Callable[..., Any]) -> None:
    indices, records = spoil(*make_clips())
    with pytest.raises(ValueError):
        write_shard(tmp_path / shard_name(0), indices, records, make_plan().manifest)
    assert list(tmp_path.iterdir()) == []


# --- the job: idempotent, resumable, exact -------------------------------------------------------------


def test_same_clips_give_the_same_bytes(shards: Path, tmp_path: Path) -> None:
    run_job(tmp_path / "again", make_plan())
    assert contents(tmp_path / "again") == contents(shards / "train")


DIES_IN_SHARD_1 = """
import json, os, signal, sys
from pathlib import Path
import numpy as np, webdataset
from tokenreel.datasets import token_shards
from tokenreel.datasets.shard_file import write_shard
from tokenreel.datasets.shard_job import ShardPlan
from tokenreel.datasets.shard_manifest import read_json, shard_name

def write_or_die(tar, sample, write=webdataset.TarWriter.write):
    if sample["__key__"] == "000001-00001":
        tar.stream.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    return write(tar, sample)

webdataset.TarWriter.write = write_or_die
folder, clips = map(Path, sys.argv[1:])
plan = read_json(folder, "plan.json", ShardPlan.from_json)
indices, records = np.load(clips / "indices.npy"), json.loads((clips / "records.json").read_bytes())
for number, (start, stop) in enumerate(plan.ranges):
    write_shard(folder / shard_name(number), indices[start:stop], records[start:stop], plan.manifest)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system cannot kill a process outright")
def test_killed_job_goes_on_to_the_same_bytes(shards: Path, tmp_path: Path) -> None:
    folder, plan = tmp_path / "killed" / "train", make_plan()
    store_plan(folder, plan)
    indices, records = make_clips()
    np.save(tmp_path / "indices.npy", indices)
    (tmp_path / "records.json").write_text(json.dumps(records))
    command = [sys.executable, "-c", DIES_IN_SHARD_1, str(folder), str(tmp_path)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL

    left = sorted(name.partition(".tmp-")[0] for name in contents(folder))
    assert left == ["plan.json", shard_name(0), shard_name(1)] and not (folder / shard_name(1)).exists()
    assert unfinished(folder, plan) == [0, 1, 2], "the first has no receipt yet"
    with pytest.raises(FileNotFoundError, match=r"interrupted; run tools/tokenize_dataset\.py again"):
        TokenShards.open(folder.parent)
    with pytest.raises(ValueError, match=r"2 of 3 shards are missing or damaged.*shard-000001\.tar, clips 10\.\.19"):
        finish(folder, plan)
    before = os.stat(folder / shard_name(0)).st_mtime_ns
    run_job(folder, plan)
    assert os.stat(folder / shard_name(0)).st_mtime_ns == before, "a finished shard was written again"
    assert contents(folder) == contents(shards / "train")


def test_damaged_shards_are_written_again(shards: Path) -> None:
    folder, plan = shards / "train", make_plan()
    whole = contents(folder)
    shard = folder / shard_name(1)
    good = whole[shard.name]
    flipped = bytearray(good)
    flipped[2000] ^= 1  # an index that stays in range
    damages = (good[:-512], good[:-10240], good[:3000], b"", good + bytes(512), whole[shard_name(0)], bytes(flipped))
    for damage in damages:
        shard.write_bytes(damage)
        assert finished_shard(folder, plan, 1) is None
        with pytest.raises(ValueError, match=r"1 of 3 shards .*shard-000001"):
            finish(folder, plan)
    run_job(folder, plan)
    assert contents(folder) == whole


def test_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    indices, records = make_clips()
    with pytest.raises(OSError, match="No space"):
        write_shard(tmp_path / shard_name(0), indices, records, make_plan().manifest)
    assert list(tmp_path.iterdir()) == []


def test_another_job_is_refused(shards: Path) -> None:
    plan = make_plan()
    other = replace(plan, manifest=replace(plan.manifest, tokenizer="cd" * 32, hop=8))
    with pytest.raises(ValueError, match=r"tokenizer is 'abab.*expected 'cdcd.*\(and hop\); choose another --out"):
        store_plan(shards / "train", other)
    with pytest.raises(ValueError, match="clips_per_shard is 10, expected 11"):
        store_plan(shards / "train", replace(plan, clips_per_shard=11))


def test_shard_ranges_cover_every_clip_once() -> None:
    assert shard_ranges(27, 10) == [(0, 10), (10, 20), (20, 27)]
    assert shard_ranges(20, 10) == [(0, 10), (10, 20)]
    with pytest.raises(ValueError, match="num_clips is 0"):
        shard_ranges(0, 10)


# --- what must be refused ------------------------------------------------------------------------------


def test_wrong_folder_split_or_tokenizer(shards: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere has no splits.*run tools/tokenize_dataset\.py"):
        TokenShards.open(shards / "nowhere")
    with pytest.raises(FileNotFoundError, match="has train"):
        TokenShards.open(shards, split="val")
    with pytest.raises(ValueError, match=r"made by tokenizer abababababab, expected cdcdcdcdcdcd.*tokenize"):
        TokenShards.open(shards, tokenizer="cd" * 32)


def test_damaged_or_missing_shard_is_named(shards: Path) -> None:
    shard = shards / "train" / shard_name(1)
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-10240])
    with pytest.raises(ValueError, match=r"clips 10\.\.19: .*shard-000001\.tar has \d+ bytes, the manifest says \d+"):
        TokenShards.open(shards)
    shard.unlink()
    with pytest.raises(FileNotFoundError, match=r"clips 10\.\.19: .*shard-000001\.tar is missing"):
        TokenShards.open(shards)

    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        end = tar.getmember("000001-00000.npy").offset_data + tar.getmember("000001-00000.npy").size
    flipped = bytearray(whole)
    flipped[end - 2] ^= 1  # the low byte of an index: it may stay in range, only the checksum sees it
    shard.write_bytes(flipped)
    with pytest.raises(ValueError, match=r"clips 10\.\.19: .*shard-000001\.tar has sha256"):
        TokenShards.open(shards, verify=True)
    opened = TokenShards.open(shards)
    assert len(opened.batch([0, 20])[1]) == 2
    with pytest.raises(ValueError, match=r"clips 10\.\.19: .*shard-000001\.tar has sha256"):
        opened.batch([0, 10])


def test_any_flipped_bit_is_an_error_or_valid_data(shards: Path) -> None:
    shard = shards / "train" / shard_name(0)
    manifest = ShardManifest.load(shards / "train")
    whole = shard.read_bytes()
    random = np.random.default_rng(0)
    outcomes = {"error": 0, "data": 0}
    for place in random.integers(0, len(whole), 300):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << int(random.integers(8))
        shard.write_bytes(flipped)
        try:
            indices, _ = read_clips(shard, manifest, 10)
        except ValueError as error:
            assert "shard-000000.tar" in str(error)
            outcomes["error"] += 1
        else:
            assert indices.shape == (10, 2, 3, 4) and indices.max() < 300
            outcomes["data"] += 1
    assert min(outcomes.values()) > 10


class Payload:
    """Unpickled, this makes a file; nothing that reads shards may do that."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def npy(array: np.ndarray, allow_pickle: bool = False) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=allow_pickle)
    return file.getvalue()


def hostile_members(case: str, canary: Path) -> list[tuple[tarfile.TarInfo, bytes]]:
    """The members of a shard of one block of three clips, with something in it that must be refused."""
    key = "000000-00000"
    good = npy(np.zeros((3, 2, 3, 4), "<u2"))
    members = {f"{key}.json": json.dumps([{"video": "a"}] * 3).encode(), f"{key}.npy": good}
    payload = pickle.dumps(Payload(canary))
    link = tarfile.TarInfo(f"{key}.npy")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
    huge = io.BytesIO()
    np.lib.format.write_array_header_1_0(huge, {"descr": "<u2", "fortran_order": False, "shape": (3, 2, 3, 2**60)})
    extra = {
        "parent": {f"../{key}.npy": good},
        "absolute": {f"/{key}.npy": good},
        "pickle": {f"{key}.pkl": payload},
        "pth": {f"{key}.pth": payload},
        "pyd": {f"{key}.pyd": payload},
        "other shard": {"000001-00000.npy": good},
        "dot": {f"{key}.x.npy": good},
        "object array": {f"{key}.npy": npy(np.array([Payload(canary)] * 3, object), allow_pickle=True)},
        "raw pickle as npy": {f"{key}.npy": payload},
        "huge shape": {f"{key}.npy": huge.getvalue()},
        "int64": {f"{key}.npy": npy(np.zeros((3, 2, 3, 4), "<i8"))},
        "grid": {f"{key}.npy": npy(np.zeros((3, 2, 3, 5), "<u2"))},
        "clips": {f"{key}.npy": npy(np.zeros((4, 2, 3, 4), "<u2"))},
        "codebook": {f"{key}.npy": npy(np.full((3, 2, 3, 4), 300, "<u2"))},
        "records": {f"{key}.json": b'[{"video": "a"}]'},
        "no json": {f"{key}.json": b"\xff"},
        "deep json": {f"{key}.json": b"[" * 100_000},
    }
    members |= extra.get(case, {})
    made = []
    for name, data in members.items():
        info = tarfile.TarInfo(name)
        info.size = len(data)
        made.append((info, data))
    if case == "link":
        made[1] = (link, b"")
    if case == "twice":
        made.append(made[1])
    return made


HOSTILE = {
    "member '": "parent, absolute, pickle, pth, pyd, link, twice, other shard, dot",
    "block 0: ": "object array, raw pickle as npy, huge shape, int64, grid, clips, codebook, records, no json"
    ", deep json",
}


@pytest.mark.parametrize(
    ("case", "what"), [(case, what) for what, cases in HOSTILE.items() for case in cases.split(", ")]
)
def test_hostile_shards_are_refused_and_nothing_is_executed(tmp_path: Path, case: str, what: str) -> None:
    canary = tmp_path / "executed"
    pickle.loads(pickle.dumps(Payload(canary)))
    assert canary.exists(), "the payload is not alive, the test would prove nothing"
    canary.unlink()

    shard = tmp_path / "train" / shard_name(0)
    shard.parent.mkdir()
    with tarfile.open(shard, "w") as tar:
        for info, data in hostile_members(case, canary):
            tar.addfile(info, io.BytesIO(data))
    # The manifest agrees with the file: its author is hostile too.
    manifest = replace(make_plan().manifest, videos=1, shards=(shard_entry(shard, clips=3),))
    manifest.save(shard.parent)
    with pytest.raises(ValueError, match=rf"shard-000000\.tar: {what}.*delete the shard"):
        read_clips(shard, manifest, 3)
    with pytest.raises(ValueError, match=r"clips 0\.\.2: "):
        TokenShards.open(tmp_path, verify=True).batch([0])
    assert not canary.exists()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["manifest.json", shard.name, "train"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 2, "new": 1}, "format_version: got 2, expected 1; tokenize again"),
        ({"surprise": 1}, r"unknown keys: got \['surprise'\]"),
        ({"grid": None}, "grid: got None, expected a list"),
        ({"grid": [2, 3]}, "grid: got .* expected 3 integers"),
        ({"stride": [4, 8, True]}, "stride: got .* expected 3 integers"),
        ({"frame_size": [24, 33]}, r"expected grid x stride = \(8, 24, 32\)"),
        ({"tokenizer": "abc"}, "expected 64 hexadecimal digits"),
        ({"codebook_size": "300"}, "codebook_size: got '300'"),
        ({"split": "../train"}, "split: got '../train'"),
        ({"fps": -1.0}, "fps: got -1.0"),
        ({"shards": [{"name": "x"}]}, "missing keys: got .*'sha256'"),
        (
            {"shards": [{"name": "../x.tar", "bytes": 1, "sha256": TOKENIZER, "clips": 1}]},
            "expected shard-000000",
        ),
    ],
)
def test_manifest_is_read_strictly(shards: Path, change: dict[str, Any], message: str) -> None:
    path = shards / "train" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=r"manifest\.json: .*" + message):
        TokenShards.open(shards)


def test_manifest_with_a_missing_key_or_half_a_file_is_refused(shards: Path) -> None:
    path = shards / "train" / "manifest.json"
    data = json.loads(path.read_text())
    assert ShardManifest.from_json(data).to_json() == data
    del data["hop"]
    for text in (json.dumps(data), path.read_text()[:-20], "[]", ""):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"manifest\.json: "):
            TokenShards.open(shards)


# --- two writers, a full disk ---------------------------------------------------------------------------


def write_under_a_limit(folder: Path, results: Any) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, resource.RLIM_INFINITY))
    indices, records = make_clips()
    try:
        put_shard(folder, make_plan(), 1, indices[10:20], records[10:20])
    except OSError as error:
        results.send(str(error))
    else:
        results.send("nothing happened")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_disk_that_fills_in_the_middle_of_a_shard_leaves_the_others_whole(shards: Path) -> None:
    folder, plan = shards / "train", make_plan()
    whole = contents(folder)
    for name in (shard_name(1), "receipts/000001.json", "manifest.json"):
        (folder / name).unlink()
    before = contents(folder)
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=write_under_a_limit, args=(folder, theirs))
    child.start()
    said = ours.recv()
    child.join()
    assert "shard-000001.tar: " in said and "shards before it are whole: make room, and run the same" in said
    assert contents(folder) == before and unfinished(folder, plan) == [1]
    run_job(folder, plan)
    assert contents(folder) == whole


def write_all(folder: Path, results: Any) -> None:
    try:
        run_job(folder, make_plan())
        results.put("done")
    except Exception as error:
        results.put(repr(error))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_writers_of_one_folder_at_the_same_time_do_no_harm(shards: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [context.Process(target=write_all, args=(tmp_path / "both", results)) for _ in range(4)]
    for process in processes:
        process.start()
    assert [results.get(timeout=60) for _ in processes] == ["done"] * 4
    for process in processes:
        process.join()
    assert contents(tmp_path / "both") == contents(shards / "train")


def test_open_shards_are_read_from_a_fork_and_from_threads(shards: Path) -> None:
    indices, _ = make_clips()
    opened = TokenShards.open(shards)
    opened.batch(range(CLIPS))
    with ThreadPoolExecutor(8) as pool:
        orders = [np.random.default_rng(seed).permutation(CLIPS) for seed in range(40)]
        for order, (batch, _) in zip(orders, pool.map(opened.batch, orders), strict=True):
            assert (batch == indices[order]).all()


def test_a_shard_that_was_replaced_while_it_was_in_use_is_checked_anew(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_shards, "OPEN_FILES", 1)
    opened = TokenShards.open(shards)
    opened.batch([0, 10])
    other = shards / "other.tar"
    other.write_bytes((shards / "train" / shard_name(1)).read_bytes())
    other.replace(shards / "train" / shard_name(0))
    with pytest.raises(ValueError, match=r"clips 0\.\.9: .*shard-000000\.tar has sha256"):
        opened.batch([0])
