"""Comparing tokenizers: the description length, the plots, the file of configurations, and the whole command."""

import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerate.state import AcceleratorState
from PIL import Image

from tokenreel.datasets.clip_windows import ClipWindows
from tokenreel.datasets.data_source import DataSettings, held_out_windows, open_data
from tokenreel.evaluation.description_length import residual_bits, residual_counts
from tokenreel.evaluation.fidelity import psnr
from tokenreel.evaluation.plots import line_plot, scatter_plot
from tokenreel.generation import VideoModel
from tokenreel.tokenizer import TokenizerConfig
from tokenreel.tokenizer.config_file import read_configs
from tokenreel.tokenizer.frames import to_frames, to_video
from tokenreel.tools import compare_tokenizers, make_world, tokenizer_figures, train_tokenizer

SMALL = {"width": 16, "encoder_depth": 1, "decoder_depth": 1}
TWO = {
    "coarse": {**SMALL, "levels": [5, 5]},
    "fine": {**SMALL, "stride": [4, 4, 4], "quantizer": "vq", "vq_codebook_size": 32},
}
BUDGET = (
    "--data world --cache clips --size 32 --steps 3 --batch-size 2 --gpt.dim 64 --gpt.depth 1 --gpt-tokens 1280 "
    "--gpt-batch-tokens 256 --clips 3 --device cpu --precision fp32"
)


def call(arguments: str) -> None:
    AcceleratorState._reset_state(True)  # it is kept per process, and a command is a process of its own
    compare_tokenizers.main(arguments.split())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small world in which two tokenizers were compared."""
    folder = tmp_path_factory.mktemp("compare")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        world = "balls --out world --count 6 --val-count 4 --size 32 --frames 16"
        make_world.main(world.split())
        Path("two.json").write_text(json.dumps(TWO))
        call(f"{BUDGET} --configs two.json --run run")
    return folder


@pytest.fixture
def there(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run in that folder, as a user would in theirs."""
    monkeypatch.chdir(home)
    return home


# the description length


def test_gaussian_noise_costs_its_entropy() -> None:
    sigma, rng = 6.0, np.random.default_rng(0)
    frames = np.full((2, 8, 64, 64, 3), 128, np.uint8)

    def counts() -> np.ndarray:
        return residual_counts(frames, (frames + rng.normal(0, sigma, frames.shape)).round().astype(np.uint8))

    entropy = 0.5 * math.log2(2 * math.pi * math.e * sigma**2)  # of the continuous noise, alike for steps << sigma
    assert residual_bits(counts(), fitted=counts()) == pytest.approx(entropy, abs=0.01)


def test_a_perfect_picture_costs_nothing_and_an_unfitted_code_costs_more() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (4, 8, 64, 64, 3)).astype(np.uint8)
    perfect = residual_counts(frames, frames)
    assert 0 < residual_bits(perfect, perfect) < 0.01
    other = residual_counts(np.zeros_like(frames), frames)
    assert residual_bits(other, other) == pytest.approx(8.0, abs=0.01)
    # One residual among n seen, none of them like it, is log2(n + 511).
    one = residual_counts(np.uint8([3]), np.uint8([250]))
    assert one[255 + 247] == 1 and one.sum() == 1
    assert residual_bits(one, perfect) == pytest.approx(math.log2(frames.size + 511))


@pytest.mark.parametrize(
    ("frames", "truth"), [(np.zeros(3, np.uint8), np.zeros(4, np.uint8)), (np.zeros(3), np.zeros(3, np.uint8))]
)
def test_arrays_that_do_not_fit_are_refused(frames: np.ndarray, truth: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected uint8 of one shape"):
        residual_counts(frames, truth)
    with pytest.raises(ValueError, match="expected \\(511,\\) twice and at least 1"):
        residual_bits(np.zeros(511, np.int64), np.zeros(511, np.int64))


# the plots


def test_plots_are_drawn_and_every_name_stands_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    drawn: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (drawn.append(self), save(self, *a, **k))[1])
    points = {f"tokenizer {number}": (1.0 + number / 1000, 30.0) for number in range(4)}
    scatter_plot(tmp_path / "points.png", points, "x", "y", faint_x={"tokenizer 0": 2.0}, log_x=True)
    line_plot(tmp_path / "lines.png", {"a": ([1, 2, 3], np.array([1.0, 4.0, 9.0])), "b": ([1], [2])}, "x", "y", "t")
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["lines.png", "points.png"]
    for path in tmp_path.iterdir():
        picture = np.asarray(Image.open(path).convert("L"))
        assert picture.shape == (600, 960) and 0.01 < (picture < 250).mean() < 0.5
    names = drawn[0].axes[0].texts
    assert [text.get_text() for text in names] == list(points)
    boxes = [text.get_window_extent() for text in names]
    assert all(not a.overlaps(b) for number, a in enumerate(boxes) for b in boxes[:number])
    with pytest.raises(ValueError, match="3 x and 2 y values"):
        line_plot(tmp_path / "new.png", {"a": ([1, 2, 3], [1, 2])}, "x", "y")
    with pytest.raises(ValueError, match="x 0 on a logarithmic axis"):
        scatter_plot(tmp_path / "new.png", {"a": (0, 1)}, "x", "y", log_x=True)


def test_training_does_not_pay_for_the_plots() -> None:
    code = "import sys, tokenreel.evaluation.plots as p; print('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


# the file of configurations


def test_a_file_of_configurations_is_read(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text('{"a.1": {"stride": [2, 8, 8], "commitment_weight": 1}, "B-2": {}}')
    assert read_configs(path) == {
        "a.1": TokenizerConfig(stride=(2, 8, 8), commitment_weight=1),
        "B-2": TokenizerConfig(),
    }


BAD_FILES = {
    "no file": (None, "no file .*c.json; expected JSON such as"),
    "no JSON": ("{", "c.json: .*; expected one JSON object"),
    "a list": ("[1]", r"holds \[1\], expected a JSON object"),
    "nothing": ("{}", "expected a JSON object with a tokenizer"),
    "a path": ('{"../up": {}}', "'../up' cannot name a folder; use up to 64 letters"),
    "no name": ('{"": {}}', "'' cannot name a folder"),
    "a long name": (json.dumps({"x" * 65: {}}), "cannot name a folder"),
    "a dot at the end": ('{"a.": {}}', "'a.' cannot name a folder"),
    "a name twice": ('{"a": {}, "b": {}, "a": {"width": 8}}', "the name 'a' comes twice"),
    "a setting twice": ('{"a": {"width": 8, "width": 16}}', "the name 'width' comes twice"),
    "one folder": ('{"Fine": {}, "fine": {}}', "'Fine' and 'fine' would be one folder"),
    "no settings": ('{"a": 3}', "'a': got 3, expected an object of settings"),
    "an unknown setting": ('{"a": {"widht": 8}}', "'a': setting 'widht' is unknown; expected one of stride, width"),
    "a text": ('{"a": {"width": "8"}}', "'a': width \"8\", expected a whole number such as"),
    "a truth": ('{"a": {"width": true}}', "'a': width true, expected a whole number"),
    "a fraction in a list": ('{"a": {"stride": [4, 8.5, 8]}}', r"stride \[4, 8.5, 8\], expected a list of whole"),
    "a number for a list": ('{"a": {"levels": 8}}', "levels 8, expected a list of whole numbers"),
    "a stride of three": ('{"a": {"stride": [3, 8, 8]}}', r"'a': stride \(3, 8, 8\): expected three powers of two"),
    "a quantizer": ('{"a": {"quantizer": "rvq"}}', "'a': quantizer 'rvq': expected"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_wrong_file_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    text, message = BAD_FILES[case]
    if text is not None:
        (tmp_path / "c.json").write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_configs(tmp_path / "c.json")


# the command


def comparison(run: str = "run") -> dict[str, Any]:
    return json.loads(Path(run, "comparison.json").read_text())


def test_one_budget_and_every_figure(there: Path) -> None:
    told = comparison()
    rows = {row["name"]: row for row in told["tokenizers"]}
    assert list(rows) == ["coarse", "fine"] and told["failed"] == {} and told["settings"]["gpt_tokens"] == 1280
    assert all(row["tokenizer_clips"] == 6 and row["clips"] == 3 and row["split"] == "val" for row in rows.values())
    # 64 tokens a clip, 4 clips a step; 256 a clip, 1 clip a step: 5 steps of 256 tokens each.
    assert (rows["coarse"]["gpt_clips"], rows["fine"]["gpt_clips"]) == (20, 5)
    for name, tokens, K in (("coarse", 64, 25), ("fine", 256, 32)):
        row, per_pixel = rows[name], tokens / (16 * 32 * 32)
        assert row["tokens_per_s_of_video"] == tokens / 1.6
        assert row["codebook_size"] == K and 1 <= row["perplexity"] <= row["codes_used"] <= K
        assert row["nominal_bits_per_pixel"] == pytest.approx(math.log2(K) * per_pixel)
        assert row["bits_per_pixel"] == pytest.approx(row["bits_per_token"] * per_pixel)
        total = row["bits_per_pixel"] + row["residual_bits_per_pixel"]
        assert row["total_bits_per_pixel"] == pytest.approx(total)
        assert all(math.isfinite(row[key]) and row[key] > 0 for _, key, _ in tokenizer_figures.FIGURES)
        assert VideoModel.from_pretrained(Path("run", name, "gpt")).window == 16
    assert Image.open("run/comparison.png").size == (960, 600)
    assert not list(Path("run").rglob("*tmp*")) and not list(Path().rglob("wandb"))


def test_figures_are_those_of_the_arrays(there: Path) -> None:
    """PSNR, residual and GPT bits of one tokenizer, worked out again from frames."""
    model = VideoModel.from_pretrained("run/fine/gpt")
    source = DataSettings(data=Path("world"), size=32, cache=Path("clips"))
    held_out, train = held_out_windows(source, 16, one_per_video=False), ClipWindows(open_data(source), "train", 16, 16)
    chosen = [0, 2, 3]  # 3 of 4 validation clips, spread evenly
    truth, fitted = held_out.batch(chosen), train.batch([0, 2, 5])
    indices = model.tokenizer.encode(to_video(truth))
    made = to_frames(model.tokenizer.decode(indices))
    row = comparison()["tokenizers"][1]
    assert row["psnr_db"] == pytest.approx(psnr(made, truth).mean(), abs=1e-3)
    assert row["codes_used"] == len(indices.unique())
    code = residual_counts(to_frames(model.tokenizer.reconstruct(to_video(fitted))), fitted)
    assert row["residual_bits_per_pixel"] == pytest.approx(3 * residual_bits(residual_counts(made, truth), code))
    known = model.gpt.config.conditions
    told = model.conditions.tensors([known.of_record(held_out.record(clip)) for clip in chosen], indices.shape[1])
    nats = [model.gpt(indices[[i]], *told.rows(i, i + 1)).loss.item() for i in range(3)]
    assert row["bits_per_token"] == pytest.approx(np.mean(nats) / math.log(2), rel=1e-5)


def test_the_table_shows_every_figure_of_every_tokenizer(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compare_tokenizers._report(Path("run"), comparison())
    said = capsys.readouterr().out
    assert re.search(r"figure +┃ +coarse ┃ +fine ┃", said)
    assert all(said.count(f"│ {title} ") == 1 for title, _, _ in tokenizer_figures.FIGURES)


def test_resume_trains_nothing_twice_and_takes_another_in(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[Path] = []
    train: Callable[[Any], None] = train_tokenizer.train_tokenizer
    monkeypatch.setattr(train_tokenizer, "train_tokenizer", lambda config: (trained.append(config.run), train(config)))
    shutil.copytree("run", "more")
    before = comparison()["tokenizers"]
    Path("three.json").write_text(json.dumps({**TWO, "third": {**SMALL, "levels": [5, 3]}}))
    call(f"{BUDGET} --configs three.json --run more --resume")
    assert trained == [Path("more/third/tokenizer")]
    assert comparison("more")["tokenizers"][:2] == before and len(comparison("more")["tokenizers"]) == 3


def test_one_that_fails_is_reported_and_the_others_go_on(
    there: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train: Callable[[Any], None] = train_tokenizer.train_tokenizer

    def broken(config: Any) -> None:
        if "coarse" in str(config.run):
            raise RuntimeError("no memory\nfor this")
        train(config)

    with monkeypatch.context() as patch:
        patch.setattr(train_tokenizer, "train_tokenizer", broken)
        with pytest.raises(SystemExit) as end:
            call(f"{BUDGET} --configs two.json --run half")
    assert end.value.code == 2
    assert "1 of 2 tokenizers failed (coarse: no memory for this); --resume" in capsys.readouterr().err
    assert [row["name"] for row in comparison("half")["tokenizers"]] == ["fine"]
    assert comparison("half")["failed"] == {"coarse": "no memory for this"}
    call(f"{BUDGET} --configs two.json --run half --resume")
    assert [row["name"] for row in comparison("half")["tokenizers"]] == ["coarse", "fine"]
    same = ("psnr_db", "bits_per_token", "residual_bits_per_pixel", "codes_used")
    for mine, alone in zip(comparison("half")["tokenizers"], comparison()["tokenizers"], strict=True):
        assert {key: mine[key] for key in same} == {key: alone[key] for key in same}, "the order must not matter"


def changed(text: str) -> str:
    Path("changed.json").write_text(text)
    return f"{BUDGET} --configs changed.json"


MISTAKES: dict[str, tuple[Callable[[], str], str]] = {
    "a stride too long": (
        lambda: changed('{"ok": {}, "long": {"stride": [32, 8, 8]}}') + " --run new",
        "tokenizer long: frames 16 is not a multiple of the tokenizer's stride 32",
    ),
    "an unknown setting": (lambda: changed('{"a": {"widht": 8}}') + " --run new", "'a': setting 'widht' is unknown"),
    "no clips": (lambda: f"{BUDGET} --clips 0 --run new", "clips 0: expected at least 1"),
    "long clips": (lambda: f"{BUDGET} --clip-frames 32 --run new", "has 16 frames at 10 fps, expected at least 32"),
    "a finished comparison": (lambda: f"{BUDGET} --configs two.json --run run", "run already holds a comparison; add"),
    "another budget": (
        lambda: f"{BUDGET} --configs two.json --run run --resume --seed 3",
        "run was made with seed=0, got 3; resume with the same",
    ),
    "another tokenizer of the name": (
        lambda: changed(json.dumps({"coarse": {**SMALL, "levels": [7, 7]}})) + " --run run --resume",
        "tokenizer coarse was trained with other levels in run/coarse; give this one another name",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_line_before_any_training(
    case: str, there: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_tokenizer, "train_tokenizer", lambda config: pytest.fail("trained"))
    command, message = MISTAKES[case]
    before = {path: path.read_bytes() for path in Path("run").rglob("*.json")}
    with pytest.raises(SystemExit) as end:
        call(command())
    said = capsys.readouterr().err
    assert end.value.code == 2 and said.startswith("error: ") and said.count("\n") == 1
    assert re.search(message, said), said
    assert not Path("new").exists() and {path: path.read_bytes() for path in before} == before


def test_every_choice_of_the_default_fits_the_default_clips() -> None:
    config = compare_tokenizers.Config()
    for name, model in compare_tokenizers.CHOICES.items():
        compare_tokenizers._check(name, model, config)
        stride = "x".join(map(str, model.stride))
        assert name == f"{stride}-{model.quantizer}-{model.codebook_size}"
