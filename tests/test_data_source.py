"""The videos a command works on, and the known states of a world's videos."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tokenreel.datasets import data_source
from tokenreel.datasets.data_source import DataSettings, open_data
from tokenreel.datasets.world_states import disc_states
from tokenreel.datasets.worlds import write_world


def test_without_a_folder_the_embedded_world_is_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def small_world(world: str, out: Path, **settings: object) -> bool:
        usual = {"count": 600, "val_count": 64, "size": 64, "frames": 48, "fps": 10.0, "seed": 0}
        assert settings == usual | {"lossless": False}
        return write_world(world, out, 2, 1, 32, 8, 10.0, 0)

    monkeypatch.setattr(data_source, "write_world", small_world)
    stores = [open_data(DataSettings(size=32)) for _ in range(2)]
    assert stores[0].path == stores[1].path == next(Path("runs/clips").iterdir())
    assert [record.split for record in stores[0].records] == ["train", "train", "val"]
    assert capsys.readouterr().out.count("making the embedded world in data/balls") == 1


def test_settings_of_a_model_come_back_from_its_provenance(world: Path, tmp_path: Path) -> None:
    settings = DataSettings(world, size=32, width=48, fps=0, cache=tmp_path / "clips")
    store = open_data(settings)
    origin = json.loads(json.dumps(settings.describe(store)))
    again = DataSettings.of_model(origin, None, Path("cache"))
    assert again == replace(settings, data=store.path, cache=Path("cache"))
    assert DataSettings.of_model(origin, Path("other"), Path("cache")).data == Path("other")
    gone = DataSettings.of_model({**origin, "clip_store": "gone"}, None, Path("cache"))
    assert gone.data == world, "without the clip store, the folder it was made from"
    ingest = settings.ingest_settings()
    assert (ingest.height, ingest.width, ingest.fps, ingest.decoder) == (32, 48, None, "pyav")
    assert DataSettings(size=40).frame_size == (40, 40)


@pytest.fixture
def world(tmp_path: Path) -> Path:
    write_world("balls", tmp_path / "world", 1, 1, 64, 6, 10.0, 3)
    return tmp_path / "world"


def test_states_are_in_the_pixels_of_the_stored_frames(world: Path, tmp_path: Path) -> None:
    store = open_data(DataSettings(world, size=32, cache=tmp_path / "clips"))
    record = store.split("train")[0]
    states = disc_states(world, record)
    assert states is not None
    told = json.loads((world / "train" / "00000.json").read_text())["states"]
    np.testing.assert_allclose(states.positions, np.array(told["positions"]) / 2)
    np.testing.assert_allclose(states.radius, np.array(told["radius"]) / 2)
    for frame, places in zip(store.frames(record), states.positions, strict=True):
        for color, (x, y) in zip(states.colors, places, strict=True):
            seen = frame[int(y), int(x)].astype(int)
            assert np.abs(seen - color).max() < 60, "the ball is not where its state says"
    assert np.abs(store.frames(record)[:, 0, 0].astype(int) - states.background).max() < 60


def test_states_are_none_where_they_are_not_known(world: Path, tmp_path: Path) -> None:
    for changed in ({"fps": 5.0}, {"width": 48}):  # every other frame; cropped above and below
        settings = replace(DataSettings(world, size=32, cache=tmp_path / "clips"), **changed)
        assert disc_states(world, open_data(settings).split("train")[0]) is None
    store = open_data(DataSettings(world, size=32, cache=tmp_path / "clips"))
    assert disc_states(tmp_path, store.split("train")[0]) is None
    write_world("paddle", tmp_path / "paddle", 1, 0, 32, 6, 10.0, 0)
    paddle = open_data(DataSettings(tmp_path / "paddle", size=32, cache=tmp_path / "clips"))
    assert disc_states(tmp_path / "paddle", paddle.records[0]) is None
