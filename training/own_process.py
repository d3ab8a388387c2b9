"""Work in a process of its own, so that its memory is that of this work alone, and what its death means."""

import os
import signal
import traceback
from collections.abc import Callable
from multiprocessing import connection, get_context
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
WANT_OF_MEMORY = ("out of memory", "allocate memory", "not enough memory", "bad_alloc", "MemoryError", "ALLOC_FAILED")
"""What libraries say whose requests for memory were refused."""
LAST_WORDS = 300


def in_own_process(log: Path, work: Callable[..., T], *arguments: Any) -> T:
    """Call a function in a new process.

    Args:
        log: File for what it prints.
        work: The function; it must be found by its name in its module.
        arguments: Its arguments.

    Raises:
        MemoryError: If it got too little memory, or was killed by SIGKILL, as systems do with what takes too much.
        ChildProcessError: If it died of anything else; with the last words of what it printed.
        Exception: What the function raised.
    """
    begin = log.stat().st_size if log.exists() else 0  # others may have written into it
    context = get_context("spawn")
    answers, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(theirs, log, work, arguments))
    process.start()
    theirs.close()
    try:
        connection.wait([answers, process.sentinel])
        answer = answers.recv() if answers.poll() else None
    except EOFError:
        answer = None
    except BaseException:
        process.kill()
        raise
    finally:
        process.join()
    if answer is None:
        raise _death(process.exitcode or 0, log, begin)
    worked, made = answer
    if not worked:
        raise made
    result: T = made
    return result


def _answer(answers: Any, log: Path, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """What the new process does."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    try:
        answer = (True, work(*arguments))
    except Exception as error:
        answer = (False, _told(error))
    answers.send(answer)


def _told(error: Exception) -> Exception:
    """An error as whoever called is told of it."""
    if isinstance(error, RuntimeError) and any(sign in str(error) for sign in WANT_OF_MEMORY):
        return MemoryError(str(error).splitlines()[0])
    error.add_note(traceback.format_exc())
    return error


def _death(status: int, log: Path, begin: int = 0) -> Exception:
    """What a process died of, by its exit status and by what it said last, from a byte of its log on."""
    said = log.read_bytes()[begin:].decode(errors="replace").split("\n") if log.exists() else []
    last = next((line.strip() for line in reversed(said) if line.strip()), "nothing")[-LAST_WORDS:]
    if status == -getattr(signal, "SIGKILL", 9):
        return MemoryError("the process was killed by SIGKILL, as systems do with one that takes too much memory")
    if any(sign in last for sign in WANT_OF_MEMORY):
        return MemoryError(last)
    cause = _signal_name(-status) if status < 0 else f"exit status {status}"
    return ChildProcessError(
        f"a process that measures ended by {cause}, which is no want of memory, expected a result; it said last: {last}"
    )


def _signal_name(number: int) -> str:
    """Of a signal; some have a number alone."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
