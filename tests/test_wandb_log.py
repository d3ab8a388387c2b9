"""wandb may be missing, unreachable or slow: training neither waits nor stops."""

import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tokenreel.training import wandb_log
from tokenreel.training.run_log import RunLog


class FakeWandb:
    """Keeps what it is told."""

    def __init__(self, fails: tuple[str, ...] = (), slow: float = 0.0) -> None:
        self.fails, self.slow = fails, slow
        self.begun: list[dict[str, Any]] = []
        self.logged: list[tuple[int, dict[str, Any]]] = []
        self.finished = False

    def teardown(self) -> None:
        self.torn_down = True

    def login(self, **_: Any) -> bool:
        return True

    def Settings(self, **settings: Any) -> dict[str, Any]:
        return settings

    def init(self, **settings: Any) -> Any:
        time.sleep(self.slow)
        if settings["mode"] in self.fails:
            raise ConnectionError(f"no {settings['mode']}\nserver")
        self.begun.append(settings)
        return SimpleNamespace(log=self._log, finish=self._finish)

    def _log(self, record: dict[str, Any], step: int) -> None:
        if "log" in self.fails:
            raise BrokenPipeError("the service died")
        self.logged.append((step, record))

    def _finish(self) -> None:
        time.sleep(self.slow)
        self.finished = True


def logged(run: Path, fake: Any, monkeypatch: pytest.MonkeyPatch, mode: Any = "auto") -> None:
    """Log three steps."""
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setenv("WANDB_SILENT", "true")
    run.mkdir(exist_ok=True)
    log = RunLog(run, {"seed": 0}, 0, 3, mode)
    for step in (1, 2, 3):
        log.log(step, {"train/loss": 0.5})
    log.close()
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 3


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().out.split())


def test_a_wandb_that_is_missing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logged(tmp_path / "run", None, monkeypatch)
    assert "wandb stopped (import of wandb halted; None in sys.modules), training goes on" in said(capsys)


def test_a_server_that_cannot_be_reached_leaves_the_run_offline_under_its_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    identities = set()
    for mode in ("auto", "online"):
        fake = FakeWandb(fails=("online",))
        logged(tmp_path / "run", fake, monkeypatch, mode)
        (begun,) = fake.begun
        assert begun["mode"] == "offline" and [step for step, _ in fake.logged] == [1, 2, 3] and fake.finished
        told = said(capsys)
        assert "wandb cannot be reached (no online server), the run is logged offline; metrics.jsonl has" in told
        assert f"`wandb sync {tmp_path}/run/wandb/*`" in told
        identities.add(begun["id"])
    assert identities == {(tmp_path / "run" / "wandb_id").read_text()}, "a resumed run is the same run"


def test_a_slow_wandb_slows_nothing_and_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(wandb_log, "SECONDS_UNSAID", 0.1)
    monkeypatch.setattr(wandb_log, "SECONDS_TO_FINISH", 0.2)
    fake = FakeWandb(slow=100.0)
    begin = time.monotonic()
    logged(tmp_path / "run", fake, monkeypatch)
    assert time.monotonic() - begin < 50 and not fake.finished
    told = said(capsys)
    assert "wandb has not taken everything yet: waiting for it, 0 s at most wandb was not done after 0 s" in told


def test_a_wandb_that_breaks_on_the_way_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logged(tmp_path / "run", FakeWandb(fails=("log",)), monkeypatch)
    assert said(capsys).count("wandb stopped (the service died), training goes on") == 1


@pytest.mark.slow
def test_the_real_wandb_without_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setattr(wandb_log, "SECONDS_TO_START", 3.0)
    import wandb

    logged(tmp_path / "run", wandb, monkeypatch, "online")
    told = said(capsys)
    assert "wandb cannot be reached" in told and "wandb stopped" not in told and "was not done" not in told
    (kept,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    assert kept.name.endswith((tmp_path / "run" / "wandb_id").read_text())
