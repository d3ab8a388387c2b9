"""The rules of the house: who may import whom, what no file may do. Each is also shown to see a breach."""

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]

ANYTHING = {
    *("tokenizer", "transformer", "datasets", "generation", "training", "evaluation"),
    *("tools", "benchmarks", "tests"),
}
MAY_IMPORT: dict[str, set[str]] = {
    "tokenizer": set(),
    "transformer": set(),
    "datasets": set(),
    "generation": {"tokenizer", "transformer"},
    "training": set(),
    "evaluation": set(),
    "tools": ANYTHING,
    "benchmarks": ANYTHING,
    "tests": ANYTHING,
}
UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
VAGUE_NAMES = {"util", "utils", "helper", "helpers", "common", "misc"}
HEAVY = {"av", "decord", "wandb", "torchvision", "accelerate", "webdataset", "transformers"}
MOST_BYTES = 1_000_000

# A rule takes the folder and the source of a file and yields what is wrong with it.
Rule = Callable[[str, ast.Module], Iterator[str]]


def modules() -> list[Path]:
    return [path for room in MAY_IMPORT for path in sorted((ROOT / room).rglob("*.py"))]


def imported_names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every dotted name that is imported, with the level of relative imports (0: absolute)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            prefix = f"{node.module}." if node.module else ""
            yield from ((node.level, prefix + alias.name) for alias in node.names)
        elif isinstance(node, ast.Call) and called_name(node) in ("import_module", "__import__"):
            yield from ((0, str(a.value)) for a in node.args if isinstance(a, ast.Constant))


def called_name(node: ast.Call) -> str:
    """The last part of what is called: ``load`` for ``torch.load(...)``."""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def calls(tree: ast.Module) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every call as (source of what is called, its constant keyword arguments)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            keywords = {k.arg: k.value for k in node.keywords if k.arg}
            constants = {name: v.value for name, v in keywords.items() if isinstance(v, ast.Constant)}
            yield ast.unparse(node.func), constants


def import_direction(room: str, tree: ast.Module) -> Iterator[str]:
    for level, name in imported_names(tree):
        parts = name.split(".")
        if level == 0 and parts[0] == "tokenreel":
            target = parts[1] if len(parts) > 1 else "(the whole namespace)"
        elif level >= 2:  # .. is the namespace, seen from a room
            target = parts[0]
        else:
            continue
        if target != room and target not in MAY_IMPORT[room]:
            yield f"{room}/ may not import {target}/ ({name})"


def no_bare_room(room: str, tree: ast.Module) -> Iterator[str]:
    for level, name in imported_names(tree):
        if level == 0 and name.split(".")[0] in ANYTHING:
            yield f"import {name}: write tokenreel.{name}, else every class exists twice"


def no_execution_of_data(room: str, tree: ast.Module) -> Iterator[str]:
    if room == "tests":  # they make the hostile files
        return
    names = {name for level, name in imported_names(tree) if level == 0}
    roots = {name.split(".")[0] for name in names}
    yield from (f"import {name}: it executes what it reads" for name in roots & UNPICKLERS)
    yield from (f"import {name}: call it by that full name" for name in names & {"torch.load", "webdataset.decode"})
    for function, constants in calls(tree):
        if function == "torch.load" and constants.get("weights_only") is not True:
            yield "torch.load without weights_only=True executes what it reads"
        if constants.get("allow_pickle") is True:
            yield f"{function}(allow_pickle=True) executes what it reads"
        if constants.get("shell") is True or function in ("os.system", "os.popen"):
            yield f"{function} runs a shell"
        if "webdataset" in roots and function.split(".")[-1] == "decode":
            yield "a WebDataset's .decode() executes what it reads"


RULES = [import_direction, no_bare_room, no_execution_of_data]


@pytest.mark.parametrize("rule", RULES)
def test_rule_holds_everywhere(rule: Rule) -> None:
    assert len(modules()) > 10
    wrong = [
        f"{path.relative_to(ROOT)}: {breach}"
        for path in modules()
        for breach in rule(path.relative_to(ROOT).parts[0], ast.parse(path.read_text()))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("rule", "room", "source"),
    [
        (import_direction, "tokenizer", "from tokenreel.datasets.order import Order"),
        (import_direction, "evaluation", "import tokenreel.generation as g"),
        (import_direction, "generation", "def f():\n    from tokenreel import training"),
        (import_direction, "transformer", "from ..tokenizer import VideoTokenizer"),
        (import_direction, "datasets", "import importlib\nimportlib.import_module('tokenreel.tokenizer')"),
        (import_direction, "training", "import tokenreel"),
        (no_bare_room, "tests", "import tokenizer"),
        (no_bare_room, "tools", "from datasets.order import Order"),
        (no_bare_room, "tools", "if True:\n    import transformer.gpt as gpt"),
        (no_execution_of_data, "training", "import torch\ntorch.load('x')"),
        (no_execution_of_data, "training", "import torch\ntorch.load('x', weights_only=False)"),
        (no_execution_of_data, "training", "from torch import load"),
        (no_execution_of_data, "datasets", "import pickle"),
        (no_execution_of_data, "datasets", "from pickle import loads"),
        (no_execution_of_data, "datasets", "import numpy as np\nnp.load('x', allow_pickle=True)"),
        (no_execution_of_data, "tools", "import subprocess\nsubprocess.run('ls', shell=True)"),
        (no_execution_of_data, "tools", "import os\nos.system('ls')"),
        (no_execution_of_data, "datasets", "import webdataset as w\nw.WebDataset('x').shuffle(1).decode()"),
        (no_execution_of_data, "datasets", "from webdataset import decode"),
    ],
)
def test_rule_sees_a_breach(rule: Rule, room: str, source: str) -> None:
    assert list(rule(room, ast.parse(source)))


@pytest.mark.parametrize(
    ("rule", "room", "source"),
    [
        (import_direction, "generation", "from tokenreel.tokenizer import VideoTokenizer"),
        (import_direction, "datasets", "from .order import Order\nfrom tokenreel.datasets import worlds"),
        (import_direction, "tools", "from tokenreel.training.loop import run"),
        (no_bare_room, "tools", "from tokenreel import datasets\nimport torch.utils.data"),
        (no_execution_of_data, "training", "import torch\ntorch.load('x', weights_only=True)"),
        (no_execution_of_data, "datasets", "import json\njson.load(f)\nb'x'.decode()"),
    ],
)
def test_rule_lets_good_code_pass(rule: Rule, room: str, source: str) -> None:
    assert not list(rule(room, ast.parse(source)))


def test_folders_and_files_have_the_right_names() -> None:
    assert not (ROOT / "datasets" / "__init__.py").exists(), "it would hide other people's `datasets` package"
    roots = [folder for folder in (ROOT, *(ROOT / room for room in MAY_IMPORT)) if (folder / "conftest.py").exists()]
    assert roots == [ROOT / "tests"], "a conftest.py elsewhere is imported under the wrong name"
    vague = [str(path) for path in modules() if {*path.relative_to(ROOT).with_suffix("").parts} & VAGUE_NAMES]
    assert not vague, "name these by what they hold"
    links = {path.name: path.resolve() for path in (ROOT / ".typing" / "tokenreel").iterdir()}
    assert links == {room: ROOT / room for room in MAY_IMPORT if room != "tests"}


def test_no_file_of_the_repository_is_large() -> None:
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listing.returncode or not listing.stdout:
        pytest.skip("not a git checkout, so the files of the repository are not known")
    paths = [ROOT / name for name in listing.stdout.decode().split("\0") if name]
    large = {str(path): path.stat().st_size for path in paths if path.is_file() and path.stat().st_size > MOST_BYTES}
    assert not large, f"the limit is {MOST_BYTES} bytes"


def test_importing_the_models_stays_light() -> None:
    code = f"import sys, tokenreel.tokenizer, tokenreel.transformer; print(*sys.modules.keys() & {HEAVY})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []
