"""What all tests share: the same random numbers every time, and the shared test videos where they are."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    """Every test starts from the same seeds, on one thread: it passes or fails alone as in the suite."""
    random.seed(0)
    np.random.seed(0)
    torch = sys.modules.get("torch")  # tests without torch should not wait for its import
    if torch is not None:
        torch.manual_seed(0)
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the shared test videos (real/, odd/, atari/, vizdoom/); skips the test without them."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the shared test videos are not at {folder}")
    return folder


NURSERY = """
import json, os, random, sys, traceback
from tokenreel.tools import train_gpt, train_tokenizer
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if not child:
        os.chdir(job["folder"])
        out = os.open(job["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1), os.dup2(out, 2)
        random.seed(0)  # Python gives every fork another state
        status = 0
        try:
            exec(job["code"], {"__name__": "__main__"})
        except SystemExit as end:
            status = end.code or 0
        except BaseException:
            traceback.print_exc()
            status = 1
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(status)
    status = os.waitpid(child, 0)[1]
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


@pytest.fixture(scope="session")
def fresh_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], tuple[int, str]]]:
    """Runs code in a process of its own, forked from one that has imported the trainings and done nothing else.

    Returns the exit status, negative for the signal that killed it, and what it printed. The code runs in the folder
    that is current.
    """
    if not hasattr(os, "fork"):
        pytest.skip("this system cannot fork processes")
    out = tmp_path_factory.mktemp("processes") / "out"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", NURSERY]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
    ) as nursery:
        assert nursery.stdin is not None and nursery.stdout is not None

        def run(code: str) -> tuple[int, str]:
            assert nursery.stdin is not None and nursery.stdout is not None
            nursery.stdin.write(json.dumps({"code": code, "out": str(out), "folder": os.getcwd()}) + "\n")
            nursery.stdin.flush()
            return int(nursery.stdout.readline()), out.read_text()

        yield run
        nursery.stdin.close()


@pytest.fixture
def chi_square() -> Callable[[Any, Any], float]:
    """Pearson's statistic of drawn indices against their probabilities; nothing of probability 0 may be drawn."""
    import torch

    def statistic(drawn: torch.Tensor, probability: torch.Tensor) -> float:
        counts = torch.bincount(drawn, minlength=len(probability)).double()
        possible = probability > 0
        assert (counts[~possible] == 0).all()
        expected = probability[possible].double() * len(drawn)
        assert expected.min() > 5, "too few draws for the statistic"
        return float(((counts[possible] - expected).square() / expected).sum())

    return statistic


@pytest.fixture
def cached_states() -> Callable[..., Any]:
    """What a GPT's cached decoder makes of every token: the prompt's indices in one piece, the others one by one."""
    import torch

    from tokenreel.transformer.static_decoder import StaticDecoder

    @torch.no_grad()
    def states(gpt: Any, indices: torch.Tensor, conditions: Any, prefill: int, order: Any = None) -> torch.Tensor:
        """Hidden states (B, T'·H'·W', D) of indices (B, T', H', W'), as ``gpt.hidden_states`` gives them."""
        size = indices.shape[2:]
        order, flat, tables = order or gpt.layout(size).order, indices.flatten(1), gpt.tables(size)
        decoder, told = StaticDecoder(gpt, len(indices), order=order), gpt.conditions(conditions, *indices.shape[:2])
        sequence, at = gpt.sequence(flat[:, order.places[: flat.shape[1]]]), torch.arange(flat.shape[1])
        begin = gpt.embed(sequence, at[: prefill + 1], order, tables, told)
        made = [decoder.forward(torch.cat([told.prefix, begin], dim=1))[:, gpt.config.prefix - 1 :]]
        for place in at[prefill + 1 :]:
            made.append(decoder.forward(gpt.embed(sequence, place[None], order, tables, told)))
        return torch.cat(made, dim=1)

    return states
