"""What the README and the Makefile tell people to type is understood by the tools."""

import importlib
import re
import shlex
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
TOOLS = (
    *("make_world", "train_tokenizer", "tokenize_dataset", "train_gpt", "sample", "evaluate", "compare_tokenizers"),
    *("doctor", "report", "prepare_dataset", "inspect_shards", "plan"),
)


def commands(text: str) -> list[str]:
    """Every `python tools/NAME.py …`, without comments and without variables of make."""
    lines = re.findall(r"python (tools/\w+\.py[^\n`]*)", text)
    return [re.sub(r"\$\(DEMO\)", "runs/demo", re.sub(r"\$\(\w+_OPTIONS\)", "", line)) for line in lines]


def tool(name: str) -> ModuleType:
    return importlib.import_module(f"tokenreel.tools.{name}")


def understood(name: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The configuration that a tool makes of arguments, without running it."""
    configs: list[Any] = []
    module = tool(name)
    monkeypatch.setattr(module, name, configs.append)  # the function that does the work has the tool's name
    module.main(arguments)
    return configs[0]


@pytest.mark.parametrize("line", commands(README) + commands(MAKEFILE))
def test_every_command_is_understood(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    script, *arguments = shlex.split(line, comments=True)
    assert (ROOT / script).is_file()
    understood(Path(script).stem, arguments, monkeypatch)


def test_the_four_commands_are_there() -> None:
    named = {line.split()[0] for line in commands(README)}
    assert {f"tools/{name}.py" for name in TOOLS[1:5]} <= named


def test_every_option_named_in_the_readme_exists(capsys: pytest.CaptureFixture[str]) -> None:
    launchers = {"--nnodes", "--node", "--nproc", "--num", "--master", "--multi"}  # up to the first underscore
    slurm = {"--nodes", "--ntasks-per-node", "--gpus-per-node", "--requeue"}
    known = {"--help", "--preset", *launchers, *slurm}
    recipes = [("make_dataset", recipe) for recipe in tool("make_dataset").RECIPES]
    for name, *rest in [*((name,) for name in TOOLS), *recipes]:
        with pytest.raises(SystemExit):
            tool(name).main([*rest, "--help"])
        known |= set(re.findall(r"--[a-z][a-z.-]*", capsys.readouterr().out))
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z.-]*", README))
    assert named and not named - known, named - known


def test_pictures_exist_and_nothing_is_left_to_fill_in() -> None:
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README)
    assert pictures and all((ROOT / picture).is_file() for picture in pictures)
    assert not re.search(r"DEMO_TABLE|TODO|TBD", README)


def test_the_python_examples_import_what_they_use() -> None:
    examples = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert examples
    for example in examples:
        compile(example, "README.md", "exec")
        for line in example.splitlines():
            if line.startswith("from tokenreel"):
                exec(line, {})
