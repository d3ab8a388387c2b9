"""What wandb is told of a run, from a thread of its own: training never waits for it, nor stops because of it."""

import os
import queue
import threading
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

WandbMode = Literal["auto", "online", "offline", "disabled"]
SECONDS_TO_START, SECONDS_UNSAID, SECONDS_TO_FINISH = 15.0, 3.0, 30.0
"""For its server to answer at the start; at the end, before it is said that it is waited for, and then altogether."""
MOST_WAITING = 10_000
"""Records that may wait for wandb; what comes while it does not answer is dropped, metrics.jsonl has it all."""


class WandbLog:
    """A wandb run that goes on under its old id when the training is resumed (``wandb_id`` in the run folder).

    Args:
        run: The run's folder.
        config: The resolved configuration.
        mode: "auto" is online when the user is logged in, else offline. Without an answer from the server it goes on
            offline; ``wandb sync`` brings that up later.
        say: Told in words when wandb does not do what it should; called from another thread.
    """

    def __init__(self, run: Path, config: Mapping[str, Any], mode: WandbMode, say: Callable[[str], None]) -> None:
        os.environ.setdefault("WANDB_SILENT", "true")
        # What it tells of itself goes to a server that may not answer: 20 seconds at the end of the process.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        self._run, self._config, self._mode, self._say = run, dict(config), mode, say
        self._waiting: queue.Queue[Callable[[Any], None] | None] = queue.Queue(MOST_WAITING)
        self._thread = threading.Thread(target=self._work, name="wandb", daemon=True)
        self._thread.start()

    def log(self, step: int, record: Mapping[str, float | str]) -> None:
        """Hand over a record."""
        self._hand_over(lambda started: started.log(dict(record), step=step))

    def media(self, step: int, name: str, path: Path) -> None:
        """Hand over a picture (.png) or video."""

        def show(started: Any) -> None:
            """As wandb takes it, told from its own thread."""
            import wandb

            kind = wandb.Image if path.suffix == ".png" else wandb.Video
            started.log({name: kind(str(path))}, step=step)

        self._hand_over(show)

    def close(self) -> None:
        """End the wandb run; waits for it no longer than half a minute, and says so."""
        self._hand_over(None)
        self._thread.join(SECONDS_UNSAID)
        if self._thread.is_alive():
            self._say(f"wandb has not taken everything yet: waiting for it, {SECONDS_TO_FINISH:.0f} s at most")
            self._thread.join(SECONDS_TO_FINISH - SECONDS_UNSAID)
        if self._thread.is_alive():
            self._say(f"wandb was not done after {SECONDS_TO_FINISH:.0f} s; {self._later()}")

    def _hand_over(self, task: Callable[[Any], None] | None) -> None:
        with suppress(queue.Full):
            self._waiting.put_nowait(task)

    def _work(self) -> None:
        started = None
        try:
            started = self._start()
            while (task := self._waiting.get()) is not None:
                task(started)
            started.finish()
        except Exception as error:  # whatever it is: training does not depend on it
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            self._say(f"wandb stopped ({reason}), training goes on; {self._later()}")

    def _start(self) -> Any:
        import wandb

        mode = self._mode
        if mode == "auto":
            mode = "online" if wandb.login(prompt=False, verify=False) else "offline"
        try:
            return self._init(mode)
        except Exception as error:
            if mode == "offline":
                raise
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            self._say(f"wandb cannot be reached ({reason}), the run is logged offline; {self._later()}")
            wandb.teardown()  # the attempt still holds the run's id
            return self._init("offline")

    def _init(self, mode: str) -> Any:
        import wandb

        identity = self._run / "wandb_id"
        if not identity.exists():
            identity.write_text(uuid.uuid4().hex[:8])
        return wandb.init(
            project="tokenreel",
            name=self._run.name,
            id=identity.read_text().strip(),
            resume="allow",
            dir=str(self._run),
            config=self._config,
            mode=mode,  # type: ignore[arg-type]
            settings=wandb.Settings(init_timeout=SECONDS_TO_START),
        )

    def _later(self) -> str:
        return f"metrics.jsonl has everything, and `wandb sync {self._run}/wandb/*` brings up what is there"
