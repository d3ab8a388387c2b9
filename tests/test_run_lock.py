"""One training per run folder: refused while another holds it, free again however that one ended."""

import os
import signal
import time
from pathlib import Path

import pytest

from tokenreel.training.run_lock import LOCK_FILE, claimed

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork processes")


def holder(run: Path, resume: bool = False) -> int:
    """A process that holds a run, and has a child of its own that inherits what it has open."""
    reading, writing = os.pipe()
    process = os.fork()
    if process:
        assert os.read(reading, 1) == b"!"
        return process
    with claimed(run, resume):
        (run / "something").touch()
        if not os.fork():
            time.sleep(3)
            os._exit(0)
        os.write(writing, b"!")
        time.sleep(60)
    os._exit(0)


@pytest.mark.parametrize("resume", [False, True])
def test_a_second_run_is_refused_and_a_killed_one_leaves_nothing_in_the_way(tmp_path: Path, resume: bool) -> None:
    process = holder(tmp_path / "run")
    message = rf"run is in use by process {process} on .*, expected one training per run folder; wait for its end"
    with pytest.raises(ValueError, match=message), claimed(tmp_path / "run", resume):
        raise AssertionError("two trainings at once")
    with claimed(tmp_path / "other", resume):
        pass
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    assert (tmp_path / "run" / LOCK_FILE).exists()
    with claimed(tmp_path / "run", resume):
        assert str(os.getpid()) in (tmp_path / "run" / LOCK_FILE).read_text()


def test_a_mistake_found_early_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), claimed(tmp_path / "run", False):
        raise RuntimeError("no such videos")
    assert not (tmp_path / "run").exists()
    with claimed(tmp_path / "run", False):
        (tmp_path / "run" / "config.json").touch()
    assert (tmp_path / "run" / "config.json").exists()


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"cannot write to .*file/run"), claimed(tmp_path / "file" / "run", False):
        raise AssertionError("work began")


def test_a_file_system_without_locks_is_said_and_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("tokenreel.training.run_lock.fcntl.lockf", no_locks)
    with claimed(tmp_path / "run", False):
        pass
    assert "has no locks (Operation not supported): see to it that nothing else trains there" in capsys.readouterr().out
