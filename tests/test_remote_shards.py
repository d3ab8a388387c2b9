"""Token shards in a store: a real S3 server, a real web server, memory; their copies on this disk; bad URLs."""

import functools
import http.server
import json
import multiprocessing
import os
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tokenreel.datasets import place_remote
from tokenreel.datasets.atomic_file import host_name, temporary_name
from tokenreel.datasets.place import LocalPlace, open_place
from tokenreel.datasets.place_remote import RemotePlace
from tokenreel.datasets.shard_cache import ShardCache
from tokenreel.datasets.shard_job import ShardPlan, finish, finished_shard, put_shard, store_plan, unfinished
from tokenreel.datasets.shard_manifest import ShardManifest, shard_name
from tokenreel.datasets.token_shards import TokenShards, splits

CLIPS, PER_SHARD = 27, 10


def make_plan() -> ShardPlan:
    manifest = ShardManifest(
        tokenizer="ab" * 32,
        stride=(4, 8, 8),
        codebook_size=300,
        grid=(2, 3, 4),
        split="train",
        frame_size=(24, 32),
        fps=10.0,
        clip_frames=8,
        hop=4,
        block=4,
    )
    return ShardPlan(manifest, CLIPS, PER_SHARD)


INDICES = np.random.default_rng(0).integers(0, 300, (CLIPS, 2, 3, 4))
RECORDS: list[dict[str, Any]] = [{"video": f"v{i // 5}", "start": i, "caption": "ein Bär"} for i in range(CLIPS)]


def write_job(where: Any, plan: ShardPlan) -> ShardManifest:
    place = open_place(where)
    store_plan(place, plan)
    for number, (start, stop) in enumerate(plan.ranges):
        if finished_shard(place, plan, number) is None:
            put_shard(place, plan, number, INDICES[start:stop], RECORDS[start:stop])
    assert unfinished(place, plan) == []
    return finish(place, plan)


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """URL of a bucket on a real S3 server of this machine."""
    pytest.importorskip("s3fs", reason="s3fs is not installed: pip install tokenreel[s3-server]")
    server = pytest.importorskip("moto.server", reason="moto is not installed: pip install tokenreel[s3-server]")
    running = server.ThreadedMotoServer(port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "no_proxy": "*",
        }.items():
            patch.setenv(name, value)
        import fsspec

        fsspec.filesystem("s3").mkdir("bucket")
        yield "s3://bucket"
        fsspec.filesystem("s3").clear_instance_cache()
    running.stop()


class WebServer(http.server.SimpleHTTPRequestHandler):
    """A plain web server, which counts what is asked for."""

    asked: list[str] = []  # noqa: RUF012

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def list_directory(self, path: object) -> None:
        self.send_error(403, "no listings here")


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """URL of a web server that lists nothing, and the folder that it shows."""
    pytest.importorskip("aiohttp", reason="aiohttp is not installed: pip install tokenreel[remote]")
    folder = tmp_path / "www"
    folder.mkdir()
    WebServer.asked.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(WebServer, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", folder
    server.shutdown()


@pytest.fixture(params=["memory", "file", pytest.param("s3", marks=pytest.mark.slow)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty folder in each kind of store."""
    name = uuid.uuid4().hex
    if request.param == "s3":
        return f"{request.getfixturevalue('s3')}/{name}"
    return f"memory://{name}" if request.param == "memory" else f"file://{tmp_path}/{name}"


def test_shards_go_to_a_store_and_come_back(store: str, tmp_path: Path) -> None:
    plan = make_plan()
    manifest = write_job(f"{store}/train", plan)
    assert manifest == write_job(tmp_path / "local" / "train", plan), "a store holds other shards than a folder"
    assert splits(store) == ["train"]
    opened = TokenShards.open(store, cache=ShardCache(tmp_path / "cache"), tokenizer="ab" * 32)
    numbers = np.array([26, 0, 13, 0, 9, 10])
    indices, records = opened.batch(numbers)
    assert (indices == INDICES[numbers]).all() and records == [RECORDS[number] for number in numbers]
    place = open_place(f"{store}/train")
    for name in ("plan.json", "manifest.json", "receipts/000002.json", shard_name(1)):
        assert place.read(name) == (tmp_path / "local" / "train" / name).read_bytes()
    with pytest.raises(ValueError, match=r"belongs to another job: clips_per_shard is 10, expected 9"):
        store_plan(place, replace(plan, clips_per_shard=9))


def test_a_job_in_a_store_goes_on_with_what_is_missing(store: str) -> None:
    plan, place = make_plan(), open_place(f"{store}/train")
    store_plan(place, plan)
    put_shard(place, plan, 1, INDICES[10:20], RECORDS[10:20])
    assert unfinished(place, plan) == [0, 2]
    with pytest.raises(ValueError, match=r"2 of 3 shards are missing or damaged, the first: .*shard-000000\.tar"):
        finish(place, plan)
    with pytest.raises(FileNotFoundError, match="interrupted"):
        TokenShards.open(store)
    place.write(shard_name(1), b"short")  # as if another program had written there
    assert finished_shard(place, plan, 1) is None
    assert write_job(place, plan).num_clips == CLIPS


def test_a_web_server_without_listings_is_enough(web: tuple[str, Path], tmp_path: Path) -> None:
    url, folder = web
    write_job(folder / "train", make_plan())
    cache = ShardCache(tmp_path / "cache")
    assert splits(url) == ["train"]
    opened = TokenShards.open(url, cache=cache)
    assert not [path for path in WebServer.asked if path.endswith(".tar")], "shards were loaded before they were needed"
    assert (opened.batch([15, 16])[0] == INDICES[15:17]).all()
    assert [path for path in WebServer.asked if path.endswith(".tar")] == ["/train/shard-000001.tar"]
    again = TokenShards.open(url, cache=cache)
    assert (again.batch(range(CLIPS))[0] == INDICES).all()
    assert sorted(path for path in WebServer.asked if path.endswith(".tar")) == [
        f"/train/{shard_name(number)}" for number in range(3)
    ], "a copy was loaded again"
    with pytest.raises(ValueError, match="a web server can only be read, expected a folder"):
        store_plan(open_place(f"{url}/new"), make_plan())


def test_copies_are_bounded_checked_and_loaded_again(web: tuple[str, Path], tmp_path: Path) -> None:
    url, folder = web
    manifest = write_job(folder / "train", make_plan())
    most = manifest.shards[0].bytes + manifest.shards[1].bytes + 1
    cache = ShardCache(tmp_path / "cache", most_bytes=most)
    opened = TokenShards.open(url, cache=cache)
    for number in (0, 10, 0, 20, 10, 0):
        assert (opened.clip(number)[0] == INDICES[number]).all()
        copies = list((cache.folder / "shards").iterdir())
        assert sum(path.stat().st_size for path in copies) <= most
    for path in (cache.folder / "shards").iterdir():  # the disk loses a bit
        data = bytearray(path.read_bytes())
        data[1500] ^= 1
        path.write_bytes(data)
    assert (TokenShards.open(url, cache=cache).batch(range(CLIPS))[0] == INDICES).all()


def test_copies_on_their_way_and_copies_just_removed_do_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fsspec", reason="fsspec is not installed: pip install tokenreel[remote]")
    url = f"memory://{uuid.uuid4().hex}"
    write_job(f"{url}/train", make_plan())
    tight = ShardCache(tmp_path / "tight", most_bytes=1)
    (tight.folder / "shards").mkdir(parents=True)
    coming = temporary_name(tight.folder / "shards" / "other.tar")  # of a thread that loads another shard
    coming.write_bytes(b"half")
    opened = TokenShards.open(url, cache=tight)
    assert (opened.batch(range(CLIPS))[0] == INDICES).all()
    assert coming.exists()
    given = ShardCache.shard
    times = iter(range(9))

    def removed_at_first(cache: ShardCache, *arguments: Any) -> Path:
        path = given(cache, *arguments)
        if next(times) == 0:
            path.unlink()  # another process makes room at this very moment
        return path

    monkeypatch.setattr(ShardCache, "shard", removed_at_first)
    assert (TokenShards.open(url, cache=ShardCache(tmp_path / "other")).clip(12)[0] == INDICES[12]).all()


def test_a_shard_that_the_store_garbles_is_named(
    web: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, folder = web
    write_job(folder / "train", make_plan())
    shard = folder / "train" / shard_name(1)
    data = bytearray(shard.read_bytes())
    data[1500] ^= 1
    shard.write_bytes(data)
    opened = TokenShards.open(url, cache=ShardCache(tmp_path / "cache"))
    assert (opened.batch([0, 25])[0] == INDICES[[0, 25]]).all()
    with pytest.raises(ValueError, match=r"clips 10\.\.19: http://.*/train/shard-000001\.tar has .*sha256"):
        opened.batch([0, 12])
    assert not [path for path in (tmp_path / "cache").rglob("*") if ".tmp-" in path.name]
    left = TokenShards.open(url, cache=ShardCache(tmp_path / "cache"), skip_bad=True)
    assert list(left.skipped) == [shard_name(1)] and len(left) == 17
    shard.unlink()
    with pytest.raises(FileNotFoundError, match=r"clips 10\.\.19: http.*shard-000001"):
        opened.batch([12])


def read_some(url: str, cache: Path, seed: int, results: Any) -> None:
    shards = TokenShards.open(url, cache=ShardCache(cache))
    numbers = np.random.default_rng(seed).permutation(CLIPS)
    results.put(bool((shards.batch(numbers)[0] == INDICES[numbers]).all()))


def test_copies_of_several_processes_together_stay_within_the_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fsspec", reason="fsspec is not installed: pip install tokenreel[remote]")
    url = f"memory://{uuid.uuid4().hex}"
    manifest = write_job(f"{url}/train", make_plan())
    cache = ShardCache(tmp_path / "cache", most_bytes=manifest.shards[0].bytes + 1)
    (cache.folder / "shards").mkdir(parents=True)
    dead = cache.folder / "shards" / f"x.tar.tmp-999999999-{host_name()}"
    dead.write_bytes(b"half")
    abandoned = cache.folder / "shards" / "y.tar.tmp-7-another-machine"
    abandoned.write_bytes(b"half")
    os.utime(abandoned, (time.time() - 2 * 24 * 3600,) * 2)
    other = cache.folder / "shards" / f"{'f' * 64}.tar"  # which another process loads while this one loads its own
    receive = RemotePlace.receive

    def together(place: RemotePlace, name: str, path: Path) -> None:
        receive(place, name, path)
        if path.parent == other.parent:
            other.write_bytes(b"0" * manifest.shards[1].bytes)

    monkeypatch.setattr(RemotePlace, "receive", together)
    assert (TokenShards.open(url, cache=cache).clip(0)[0] == INDICES[0]).all()
    assert [path.name for path in (cache.folder / "shards").iterdir()] == [f"{manifest.shards[0].sha256}.tar"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_processes_share_copies(web: tuple[str, Path], tmp_path: Path) -> None:
    url, folder = web
    write_job(folder / "train", make_plan())
    TokenShards.open(url, cache=ShardCache(tmp_path / "other")).clip(0)  # fsspec is at work before the fork
    WebServer.asked.clear()
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [context.Process(target=read_some, args=(url, tmp_path / "cache", seed, results)) for seed in range(3)]
    for process in processes:
        process.start()
    assert [results.get(timeout=60) for _ in processes] == [True] * 3
    for process in processes:
        process.join()
    assert len([path for path in WebServer.asked if path.endswith(".tar")]) == 3, "a shard was loaded twice"


def test_a_store_that_fails_for_a_moment_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place_remote, "FIRST_PAUSE", 0.001)
    place, failures = open_place(f"memory://{uuid.uuid4().hex}"), [3]

    class Shaky:
        def __init__(self, store: Any) -> None:
            self.store = store

        def __getattr__(self, name: str) -> Any:
            if name == "cat_file" and failures[0]:
                failures[0] -= 1
                raise OSError("connection reset")
            return getattr(self.store, name)

    place.write("a", b"1")
    whole = place_remote.RemotePlace._store
    monkeypatch.setattr(place_remote.RemotePlace, "_store", lambda self: Shaky(whole(self)))
    assert place.read("a") == b"1" and failures == [0]
    failures[0] = 100
    with pytest.raises(OSError, match="connection reset; tried 4 times"):
        place.read("a")


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("pipe:touch executed", "got 'pipe:touch executed', expected a folder, or a URL"),
        ("pipe://touch executed", "expected a folder or one of file://"),
        ("shell://touch executed", "expected a folder or one of file://"),
        ("simplecache::s3://bucket/x", "expected a folder, or a URL"),
        ("filecache::pipe:touch executed", "expected a folder, or a URL"),
        ("s3://key:secret@bucket/x", "a name or a password in it"),
        ("abfs://container:secret@account.dfs.core.windows.net/x", "a name or a password in it"),
        ("http://server/x?token=1", r"without \? and #"),
        (Path("s3://bucket/tokens"), "such as s3://bucket/tokens"),
        ("reference://x", "expected a folder or one of file://"),
    ],
)
def test_urls_that_run_something_or_say_too_much_are_refused(
    where: Any, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=said) as error:
        TokenShards.open(where)
    assert "secret" not in str(error.value) and list(tmp_path.iterdir()) == []


def test_a_file_url_and_odd_folder_names_are_folders(tmp_path: Path) -> None:
    assert isinstance(open_place(f"file://{tmp_path}"), LocalPlace)
    for name in ("a:b", "C:\\tokens", "with space"):
        assert isinstance(open_place(name), LocalPlace)


def test_a_url_of_azure_may_name_its_account(monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed: pip install tokenreel[remote]")
    memory = fsspec.get_filesystem_class("memory")

    class Azure(memory):  # type: ignore[misc, valid-type]
        """A store that finds its account in the URL, as adlfs does."""

        protocol, accounts = "abfs", []

        def __init__(self, *, account_name: str = "", **options: Any) -> None:
            super().__init__(**options)
            Azure.accounts.append(account_name)

        @staticmethod
        def _get_kwargs_from_urls(url: str) -> dict[str, str]:
            return {"account_name": url.split("@")[1].split(".")[0]} if "@" in url else {}

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            host, _, rest = path.removeprefix("abfs://").strip("/").partition("/")
            return f"/{host.split('@')[0]}/{rest}".rstrip("/")

    monkeypatch.setattr(fsspec, "get_filesystem_class", lambda scheme: Azure)
    monkeypatch.setattr(fsspec, "filesystem", lambda scheme, **options: Azure(**options))
    name = uuid.uuid4().hex
    open_place(f"abfs://{name}@account.dfs.core.windows.net/tokens").write("a", b"data")
    assert open_place(f"abfs://{name}/tokens").read("a") == b"data"
    assert set(Azure.accounts) == {"account", ""}


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    def missing(*arguments: Any, **options: Any) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "filesystem", missing)
    with pytest.raises(ValueError, match=r's3:// needs the package s3fs.*pip install "tokenreel\[remote\]"'):
        TokenShards.open("s3://bucket/tokens")


def create_plan(folder: Path, number: int, start: Any, results: Any) -> None:
    start.wait()
    results.put(open_place(folder).create("plan.json", json.dumps(number).encode()))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_of_several_jobs_that_begin_together_one_gets_the_folder(tmp_path: Path) -> None:
    context, folder = multiprocessing.get_context("fork"), tmp_path / "train"
    results, start = context.Queue(), context.Barrier(6)
    processes = [context.Process(target=create_plan, args=(folder, n, start, results)) for n in range(6)]
    for process in processes:
        process.start()
    made = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert sum(made) == 1 and [path.name for path in folder.iterdir()] == ["plan.json"]
    with pytest.raises(ValueError, match=r"plan\.json: "):
        store_plan(folder, make_plan())
