"""The package as users get it: sdist, wheel from the sdist, and life beside other people's packages."""

import ast
import configparser
import importlib.util
import os
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("tokenizer", "transformer", "datasets", "generation", "training", "evaluation", "tools")
NOT_SOURCE = (".git", ".venv*", "*.egg-info", "__pycache__", ".*_cache", "build", "dist", "runs", "wandb")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("build") is None, reason="needs the package `build`"),
    pytest.mark.skipif(importlib.util.find_spec("pip") is None, reason="needs pip in this environment"),
]


def run(*command: str | Path, cwd: Path | None = None) -> str:
    # PYTHONPATH would bring this environment's packages in before the ones under test.
    environment = {**os.environ, "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONPATH": ""}
    result = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel built from the sdist of a copy of this checkout (building writes into the source folder)."""
    source = tmp_path_factory.mktemp("source") / "checkout"
    shutil.copytree(ROOT, source, symlinks=True, ignore=shutil.ignore_patterns(*NOT_SOURCE))
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source)  # sdist, then wheel from it
    assert len(list(out.glob("tokenreel-*.tar.gz"))) == 1
    (built,) = out.glob("tokenreel-*.whl")
    return built


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of somebody else's distribution `datasets`, as Hugging Face's is."""
    path = tmp_path_factory.mktemp("stub") / "datasets-9.9-py3-none-any.whl"
    info = "datasets-9.9.dist-info"
    files = {
        "datasets/__init__.py": "NAME = 'somebody else'\n",
        "datasets/order.py": "NAME = 'their order'\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: datasets\nVersion: 9.9\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def test_wheel_holds_every_module_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        f"tokenreel/{path.relative_to(ROOT).as_posix()}" for room in ROOMS for path in (ROOT / room).rglob("*.py")
    }
    assert len(expected) > 20
    packaged = {name for name in names if ".dist-info/" not in name}
    assert packaged == expected | {f"tokenreel/{room}/py.typed" for room in ROOMS}


def test_every_command_of_the_wheel_exists(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (listing,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
    parser = configparser.ConfigParser()
    parser.read_string(archive.read(listing).decode())
    commands = dict(parser["console_scripts"])
    assert commands == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    for target in commands.values():
        module, function = target.split(":")
        path = module.replace(".", "/") + ".py"
        assert path in archive.namelist(), f"{target} has no module"
        tree = ast.parse(archive.read(path))
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, target


OURS = "from tokenreel.datasets.order import Order; assert len(Order(5, 4).batch(0)) == 4"
THEIRS = "import datasets, datasets.order as o; assert (datasets.NAME, o.NAME) == ('somebody else', 'their order')"


def test_lives_beside_another_package_called_datasets(wheel: Path, stub: Path, tmp_path: Path) -> None:
    home = tmp_path / "venv"
    venv.create(home, with_pip=False)
    folder = home / ("Scripts" if os.name == "nt" else "bin")
    python = folder / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    # Our dependencies come from the running environment, at the end of the path; its installs of us do not.
    libraries = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (site / "dependencies.pth").write_text("\n".join(libraries))

    def pip(*arguments: str | Path) -> None:
        run(sys.executable, "-m", "pip", "--python", python, "--quiet", *arguments)

    def use(*programs: str) -> None:
        for cwd in (tmp_path, ROOT):  # a checkout as working directory must hide nobody's package either
            run(python, "-c", "\n".join(programs), cwd=cwd)

    for first, second in ((wheel, stub), (stub, wheel)):
        pip("install", "--no-deps", first)
        pip("install", "--no-deps", second)
        use(
            OURS,
            THEIRS,
            f"import sys; assert sys.modules['tokenreel.datasets.order'].__file__.startswith({str(site)!r})",
        )
        assert (folder / "tokenreel-train-gpt").exists() or (folder / "tokenreel-train-gpt.exe").exists()
        pip("uninstall", "--yes", "tokenreel")
        assert not list((site / "tokenreel").rglob("*.py"))
        use(THEIRS)
        pip("install", "--no-deps", wheel)
        pip("uninstall", "--yes", "datasets")
        use(OURS)
        pip("uninstall", "--yes", "tokenreel")
