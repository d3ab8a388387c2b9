"""Decoding in child processes that may be killed: a time limit per file, answers in the order of the jobs."""

import json
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

# A fresh interpreter and not a fork (decoders hang across fork), nor multiprocessing's spawn (it would import
# the user's script, and torch with it, once more). -P keeps the working directory from shadowing modules.
WORKER_COMMAND: Sequence[str] = (sys.executable, "-P", "-m", "tokenreel.datasets.ingest_worker")
# How many jobs per worker may be ahead of the one whose answer is awaited; bounds the parts on disk.
JOBS_AHEAD = 32


class DecodeWorker:
    """One child process, started at its first job and again after it was killed or crashed.

    Args:
        log: File that takes what the child prints; its last line explains a crash.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self._process: subprocess.Popen[str] | None = None
        self._closed = False

    def run(self, job: dict[str, Any], time_limit: float) -> dict[str, Any]:
        """Sends a job and waits for the answer.

        Args:
            job: See ``ingest_worker.decode``.
            time_limit: Seconds after which the child is killed.

        Returns:
            The child's answer, or ``{"rejected": reason}`` if it took too long or crashed.
        """
        process = self._started()
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            process.kill()

        timer = threading.Timer(time_limit, expire)
        timer.start()
        line = ""
        with suppress(OSError):
            assert process.stdin and process.stdout
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        timer.cancel()
        timer.join()
        if expired.is_set() or not line.endswith("\n"):
            status = self._ended()
            if expired.is_set():
                return {"rejected": f"decoding took longer than {time_limit:g} s"}
            return {"rejected": f"the decoder crashed ({status})"}
        return json.loads(line)

    def close(self) -> None:
        """Kills the child; no more jobs."""
        self._closed = True
        process = self._process
        if process is not None:
            process.kill()
            self._ended()

    def _started(self) -> subprocess.Popen[str]:
        if self._closed:
            raise RuntimeError("the worker is closed")
        if self._process is None:
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    WORKER_COMMAND,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    encoding="ascii",
                )
        return self._process

    def _ended(self) -> str:
        """Waits for the end of the child and says how it ended."""
        process, self._process = self._process, None
        if process is None:
            return "closed"
        with suppress(OSError):
            assert process.stdin and process.stdout
            process.stdout.close()
            process.stdin.close()
        code = process.wait()
        with suppress(ValueError):
            if code < 0:
                return signal.Signals(-code).name
        last = self._log.read_text(errors="replace").strip().splitlines()[-1:]
        return ": ".join([f"exit status {code}", *last])


def decode_all(
    jobs: Iterable[dict[str, Any]], workers: int, time_limit: float, log_folder: Path
) -> Generator[dict[str, Any]]:
    """Runs jobs on child processes and yields their answers in the order of the jobs.

    Args:
        jobs: See ``ingest_worker.decode``; taken a bounded number ahead.
        workers: Number of child processes.
        time_limit: Seconds per job.
        log_folder: Folder for what the children print.

    Yields:
        Answers as from ``DecodeWorker.run``.
    """
    pool = [DecodeWorker(log_folder / f"worker-{number}.log") for number in range(workers)]
    idle: queue.SimpleQueue[DecodeWorker] = queue.SimpleQueue()
    for worker in pool:
        idle.put(worker)

    def run(job: dict[str, Any]) -> dict[str, Any]:
        """Give a job to a worker that is idle."""
        worker = idle.get()
        try:
            return worker.run(job, time_limit)
        finally:
            idle.put(worker)

    threads = ThreadPoolExecutor(workers)
    waiting: deque[Future[dict[str, Any]]] = deque()
    try:
        for job in jobs:
            waiting.append(threads.submit(run, job))
            if len(waiting) > workers * JOBS_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        for worker in pool:
            worker.close()
        threads.shutdown(wait=True)
