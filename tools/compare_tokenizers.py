"""Choose a tokenizer for your clips: train several, and a small GPT on the tokens of each; one table, one plot.

    python tools/compare_tokenizers.py                                # on the embedded world of balls
    python tools/compare_tokenizers.py --data my/videos --run runs/mine/compare
    python tools/compare_tokenizers.py --data my/videos --configs my.json    # {"fine": {"stride": [4, 4, 4]}, ...}

Reconstruction alone misleads: what a tokenizer costs is what its tokens cost a GPT, not log2 of the codebook's size.

One budget for all. Every tokenizer is trained on the same clips: --steps of --batch-size. Every GPT is trained on
the same number of tokens, --gpt-tokens in steps of --gpt-batch-tokens, so for about the same time; where a clip is
more tokens, it sees fewer clips, as it would in any time you have. Clips and seconds of both stand in the table.

Judged on validation clips: PSNR; bits per token and pixel by the GPT's cross-entropy, beside the nominal log2 K;
the total description length (evaluation/description_length.py), lower is better; codebook use; speed. The run folder
holds comparison.json, comparison.png, and in NAME/ the tokenizer, its token shards and its GPT, ready for the other
commands. A tokenizer that fails is reported and the others go on; --resume goes on with what is not finished.
"""

import json
import math
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tokenreel.datasets.atomic_file import atomic_file
from tokenreel.datasets.clip_store import ClipStore
from tokenreel.datasets.clip_windows import ClipWindows
from tokenreel.datasets.data_source import DataSettings, open_data
from tokenreel.evaluation.plots import scatter_plot
from tokenreel.tokenizer import TokenizerConfig
from tokenreel.tokenizer.config_file import read_configs
from tokenreel.tools import tokenize_dataset, train_gpt, train_tokenizer
from tokenreel.tools.tokenizer_figures import FIGURES, figures_of
from tokenreel.training.command_line import run_tool
from tokenreel.training.hardware import DeviceName, Precision, describe_hardware, pick_device
from tokenreel.training.run_folder import check_writable
from tokenreel.transformer import GPTSize

CHOICES = {
    "4x8x8-fsq-625": TokenizerConfig(),
    "4x8x8-fsq-2560": TokenizerConfig(levels=(8, 8, 8, 5)),
    "4x8x8-vq-1024": TokenizerConfig(quantizer="vq"),
    "2x8x8-fsq-625": TokenizerConfig(stride=(2, 8, 8)),
    "4x4x4-fsq-625": TokenizerConfig(stride=(4, 4, 4)),
}
"""More codes, a learned codebook, finer in time, finer in space: each beside the default."""
LEAST_HOP = 4
PIXELS_PER_TOKEN = math.prod(TokenizerConfig().stride)
# On a resumed comparison only these may differ: they say where and what, not how much.
FREE = {"configs", "run", "data", "cache", "curation", "device", "resume"}


@dataclass(frozen=True, kw_only=True)
class Config(DataSettings):
    """What to compare, and the budget of each."""

    run: Path = Path("runs/compare")
    """Folder of the comparison."""
    configs: Path | None = None
    """JSON file of tokenizers, name to settings of --model in train_tokenizer; default: five common choices."""
    clip_frames: int = 16
    """Frames per clip; a multiple of every temporal stride."""
    steps: int = 250
    """Training steps of each tokenizer."""
    batch_size: int = 8
    """Clips per step of a tokenizer."""
    gpt: GPTSize = field(default_factory=lambda: GPTSize(dim=128, depth=4))
    """Width, depth, dropout of the GPTs."""
    gpt_tokens: int = 600_000
    """Tokens each GPT is trained on."""
    gpt_batch_tokens: int = 2048
    """Tokens per step of a GPT, as nearly as whole clips make it."""
    clips: int = 64
    """Validation clips to judge by, and training clips to fit the code of the residuals on."""
    seed: int = 0
    """Seed of every training."""
    device: DeviceName = "auto"
    """Where to train."""
    precision: Precision = "auto"
    """Multiply in bf16 where the hardware has it ("auto"), or as named."""
    resume: bool = False
    """Go on: finished tokenizers are kept, others may be added with --configs; the budget must be the same."""

    def __post_init__(self) -> None:
        for name in ("clip_frames", "steps", "batch_size", "gpt_tokens", "gpt_batch_tokens", "clips"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: expected at least 1")


def compare_tokenizers(config: Config) -> None:
    """Train and judge every tokenizer, then print the table and write JSON and plot.

    Raises:
        ValueError: If a setting does not fit, before any training; or at the end, if a tokenizer failed.
    """
    choices = read_configs(config.configs) if config.configs else CHOICES
    device = pick_device(config.device)
    for name, model in choices.items():
        _check(name, model, config)
    store = open_data(config)
    hop = _hop(config, store)
    _open(config, store)
    rows: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    for number, (name, model) in enumerate(choices.items(), start=1):
        print(f"tokenizer {number} of {len(choices)}: {name}")
        try:
            rows.append({"name": name, **_member(config, config.run / name, model, hop)})
        except (ValueError, OSError, RuntimeError) as error:  # RuntimeError: torch's own, such as too little memory
            failed[name] = " ".join(str(error).split())
            print(f"{name} failed: {failed[name]}")
    budget = {"settings": _budget(config, store), "data": config.describe(store), "hardware": describe_hardware(device)}
    _report(config.run, {**budget, "tokenizers": rows, "failed": failed})
    if failed:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in failed.items())
        raise ValueError(f"{len(failed)} of {len(choices)} tokenizers failed ({reasons}); --resume tries them again")


def _check(name: str, model: TokenizerConfig, config: Config) -> None:
    """Whether a tokenizer fits the clips and what its folder already holds."""
    try:
        model.grid(config.clip_frames, *config.frame_size)
    except ValueError as error:
        raise ValueError(f"tokenizer {name}: {error}") from None
    earlier = config.run / name / "tokenizer" / "config.json"
    if config.resume and earlier.is_file():
        before, now = json.loads(earlier.read_text())["model"], json.loads(json.dumps(asdict(model)))
        if before != now:
            changed = [key for key in now if before.get(key) != now[key]]
            raise ValueError(
                f"tokenizer {name} was trained with other {', '.join(changed)} in {config.run / name}; give this one "
                "another name, or delete that folder"
            )


def _hop(config: Config, store: ClipStore) -> int:
    """Frames between the GPTs' training clips: so that at the default stride a GPT sees each clip about once.

    More clips would be encoded for nothing, fewer would be learned by heart.
    """
    hop, longest = LEAST_HOP, max(record.frames for record in store.records)
    seen = config.gpt_tokens * PIXELS_PER_TOKEN / (config.clip_frames * math.prod(config.frame_size))
    while hop < longest and len(ClipWindows(store, "train", config.clip_frames, hop)) > seen:
        hop *= 2
    return hop


def _budget(config: Config, store: ClipStore) -> dict[str, Any]:
    """What must be alike for all tokenizers of a comparison, as it stands in JSON."""
    settings = {f.name: getattr(config, f.name) for f in fields(config) if f.name not in FREE}
    return json.loads(json.dumps({**settings, "gpt": asdict(config.gpt), "videos": store.fingerprint}))


def _open(config: Config, store: ClipStore) -> None:
    """Make the run folder, or check that the comparison in it may be continued."""
    check_writable(config.run)
    path, budget = config.run / "config.json", _budget(config, store)
    if path.exists():
        if not config.resume:
            raise ValueError(
                f"{config.run} already holds a comparison; add --resume to go on, or choose another --run, or delete "
                "the folder"
            )
        before = json.loads(path.read_text())
        for name in sorted(before.keys() | budget.keys()):
            if before.get(name) != budget.get(name):
                raise ValueError(
                    f"{config.run} was made with {name}={before.get(name)}, got {budget.get(name)}; resume with the "
                    "same, or choose another --run"
                )
    _write_json(path, budget)


def _member(config: Config, home: Path, model: TokenizerConfig, hop: int) -> dict[str, Any]:
    """Train a tokenizer and its GPT in their folder, and judge them; a finished one is only read."""
    finished = home / "figures.json"
    if finished.exists():
        print(f"finished before: {finished}")
        return json.loads(finished.read_text())
    shared: dict[str, Any] = {"seed": config.seed, "device": config.device, "precision": config.precision}
    # Not compiled: for so short a run it would take longer than it saves. No wandb: this is one run, not ten.
    shared |= {"resume": config.resume, "compile": "off", "wandb": "disabled", "evaluate_every": 10**9}
    source = {f.name: getattr(config, f.name) for f in fields(DataSettings)}
    recipe = train_tokenizer.TOOL_PRESETS["tiny"]
    length: dict[str, Any] = {"steps": config.steps, "warmup": min(recipe.warmup, config.steps // 10)}
    length |= {"clip_frames": config.clip_frames, "batch_size": config.batch_size}
    train_tokenizer.train_tokenizer(replace(recipe, run=home / "tokenizer", model=model, **source, **length, **shared))
    tokenize_dataset.tokenize_dataset(
        tokenize_dataset.Config(
            tokenizer=home / "tokenizer", out=str(home / "tokens"), hop=hop, cache=config.cache, device=config.device
        )
    )
    tokens = math.prod(model.grid(config.clip_frames, *config.frame_size))
    batch_size = max(1, round(config.gpt_batch_tokens / tokens))
    steps = max(1, round(config.gpt_tokens / (batch_size * tokens)))
    recipe_gpt = replace(
        train_gpt.TOOL_PRESETS["tiny"], run=home / "gpt", shards=str(home / "tokens"), model=config.gpt
    )
    warmup = min(recipe_gpt.warmup, steps // 10)
    train_gpt.train_gpt(replace(recipe_gpt, steps=steps, batch_size=batch_size, warmup=warmup, **shared))
    figures = figures_of(home, config, config.clips, config.device)
    _write_json(finished, figures)
    return figures


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with atomic_file(path) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode())


def _report(run: Path, result: dict[str, Any]) -> None:
    """Write the JSON, print the table with a column per tokenizer, draw the plot."""
    _write_json(run / "comparison.json", result)
    rows, console = result["tokenizers"], Console()
    if rows:
        if not console.is_terminal:
            console = Console(width=40 + 20 * len(rows))  # a file takes lines of any length
        table = Table(title=f"{run}: {rows[0]['clips']} clips of split {rows[0]['split']}", title_justify="left")
        table.add_column("figure")
        for row in rows:
            table.add_column(row["name"], justify="right")
        for title, key, form in FIGURES:
            table.add_row(title, *(form.format(row[key]) for row in rows))
        console.print(table)
        needed = {row["name"]: (row["bits_per_pixel"], row["psnr_db"]) for row in rows}
        nominal = {row["name"]: row["nominal_bits_per_pixel"] for row in rows}
        scatter_plot(
            run / "comparison.png",
            needed,
            xlabel="bits per pixel: dot: needed by the GPT, ring: nominal, log2 K",
            ylabel="PSNR (dB)",
            title="Tokenizers on validation clips: up is better pictures, left is fewer bits to model",
            faint_x=nominal,
            log_x=all(bits > 0 for bits, _ in needed.values()),
        )
        print(f"plot in {run / 'comparison.png'}")
    print(f"figures in {run / 'comparison.json'}")


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    run_tool(compare_tokenizers, Config, argv, description=__doc__)


if __name__ == "__main__":
    main()
