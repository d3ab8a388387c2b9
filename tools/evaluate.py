"""Judge a model, or any videos, so that the figures can be believed: a benchmark card as JSON, table and page.

    python tools/evaluate.py                                          # the model in runs/gpt, on held-out clips
    python tools/evaluate.py --model runs/mine/gpt --out runs/mine/evaluation
    python tools/evaluate.py --frames my/samples --against my/videos  # videos that anything made
    python tools/evaluate.py --features builtin i3d_torchscript.pt    # FVD, too; or a transformers video encoder
    python tools/evaluate.py --compare runs/a/evaluation runs/b/evaluation

Every figure names its protocol, the hash of the code that measured it, the number of clips, a 95 % interval, and its
yardsticks: real clips, the tokenizer alone, a copy of the last prompt frame, its last motion repeated. Groups:
fidelity (the tokenizer alone), prediction (against what really happened, frame by frame; bits), distribution
(Fréchet and kernel distances in features of your choice), motion (flicker, speeds, order in time), memorization (the
nearest of all training clips; several answers to one prompt), the laws of an embedded world, drift (clips of eight
windows). Cards of unlike protocols are not compared.

Writes card.json, evaluation.html and, of a model, evaluation.json: the figures that tools/doctor.py and
tools/report.py read, with speed and memory, and on the embedded world of balls how far balls are from where they
should be.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from rich.console import Console
from tyro.conf import OmitArgPrefixes, Suppress

from tokenreel.datasets.atomic_file import atomic_file
from tokenreel.datasets.clip_shapes import left_out_in_words
from tokenreel.datasets.data_source import DataSettings
from tokenreel.evaluation.card import Card
from tokenreel.evaluation.card_page import Strip, card_page
from tokenreel.evaluation.figures_of_prediction import standard_measures
from tokenreel.generation import VideoModel
from tokenreel.tools.card_tables import comparison_table, figure_tables, model_tables
from tokenreel.tools.judged_frames import FrameSource, frames_card
from tokenreel.tools.judged_model import JudgedModel, held_out_clips, judged_model
from tokenreel.tools.judging_networks import JudgingNetworks
from tokenreel.tools.model_card import Judges, model_card, model_strips, write_model_figures
from tokenreel.tools.model_findings import Findings, drift, memory, world
from tokenreel.tools.sample_prompts import known_size
from tokenreel.training.command_line import run_tool
from tokenreel.training.hardware import DeviceName, describe_hardware, pick_device
from tokenreel.training.run_folder import check_writable
from tokenreel.transformer import SamplingSettings
from tokenreel.transformer.pretrained import data_of

Further = Literal["memorization", "world", "drift"]
LONG = 8
"""Windows that clips are long in which drift is sought."""


@dataclass(frozen=True, kw_only=True)
class Config(SamplingSettings):
    """What to judge, and on how much."""

    model: Path = Path("runs/gpt")
    """Run folder or model folder of the GPT."""
    out: Path = Path("runs/evaluation")
    """Folder for card.json, evaluation.html and evaluation.json."""
    prompt_frames: int = 4
    """Frames given to the model."""
    top_p: float = 0.9
    """Draw among the likeliest indices that together have this probability; 1 is all, and lets one index from the
    far tail break an object now and then."""
    overlap: Suppress[int] = 0
    """Clips are no longer than the window here."""
    clips: int = 64
    """Validation clips to continue, one per video if there are so many videos; or clips of either folder."""
    further: tuple[Further, ...] = ("memorization", "world", "drift")
    """Groups beside fidelity, prediction, distribution and motion, which are always there."""
    best_of: int = 4
    """Continuations of every prompt, of which the best counts as well."""
    seed: int = 0
    """Sample i uses seed + i."""
    text_encoder: str | None = None
    """Folder or hub id of the model's text encoder, where it is no longer found under the name that training knew."""
    data: Path | None = None
    """Folder of videos; default: what the model was trained on."""
    frame_size: str = ""
    """HEIGHTxWIDTH of the clips to judge, of a model trained on several sizes: a card is about one; default: the
    first. What it leaves out is told in its notes."""
    frames: Path | None = None
    """Judge the videos in this folder instead of a model."""
    against: Path | None = None
    """Real videos to judge them by; twice as many clips as are judged, or more."""
    paired: bool = False
    """They show the same under the same names: PSNR, SSIM and LPIPS, too."""
    clip_frames: int = 16
    """Frames of each clip, for --frames."""
    size: int = 64
    """Height and width that videos are brought to, for --frames."""
    fps: float = 0.0
    """Frames per second that they are brought to, for --frames; 0 keeps every frame."""
    compare: tuple[Path, Path] | None = None
    """Two cards, or folders that hold them: print them side by side, judge nothing."""
    networks: OmitArgPrefixes[JudgingNetworks] = field(default_factory=JudgingNetworks)
    """What to see clips with."""
    cache: Path = Path("runs/clips")
    """Folder in which decoded videos and features are kept."""
    device: DeviceName = "auto"
    """Where to run."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clips < 1 or not 0 <= self.seed < 2**32:
            raise ValueError(f"clips {self.clips}, seed {self.seed}: expected at least 1, and 0 or more below 2**32")
        if self.best_of < 1 or self.clip_frames < 2:
            raise ValueError(f"best_of {self.best_of}, clip_frames {self.clip_frames}: expected at least 1 and 2")
        if (self.frames is None) != (self.against is None):
            raise ValueError("--frames and --against: expected both or neither; videos are judged by real ones")
        if self.frames is not None and (self.data is not None or self.frame_size):
            raise ValueError(
                "--data and --frame-size choose clips of a model's data, expected neither with --frames; real videos "
                "are named by --against, their frames' size by --size"
            )


def evaluate(config: Config) -> None:
    """Judge a model, judge videos, or compare two cards."""
    if config.compare is not None:
        Console().print(comparison_table(*config.compare))
    elif config.frames is not None:
        _evaluate_frames(config, config.frames, config.against or Path())
    else:
        _evaluate_model(config)


def _evaluate_model(config: Config) -> None:
    begin, device = time.perf_counter(), pick_device(config.device)
    model = VideoModel.from_pretrained(config.model, device, config.text_encoder)
    size = known_size(config.frame_size, model)
    most = model.window - model.tokenizer.config.stride[0]
    if config.prompt_frames > most:
        raise ValueError(
            f"prompt_frames {config.prompt_frames} leave nothing to judge in the window of {model.window} frames; use "
            f"at most {most}"
        )
    model.check_lengths(config.prompt_frames, model.window - config.prompt_frames)
    config.check_codebook(model.gpt.config.head_sizes)
    measures = standard_measures(min(size)) + config.networks.lpips(device)
    networks, classifier = config.networks.feature_networks(device), config.networks.classifier_network(device)
    judges = Judges(measures, networks, classifier, config.cache / "features")
    source = DataSettings.of_model(data_of(config.model), config.data, config.cache)
    clips = held_out_clips(source, model.window, config.clips, size)
    check_writable(config.out)

    judged = judged_model(model, clips, config.prompt_frames, config, config.seed, config.best_of)
    card, shown = model_card(model, judged, config.prompt_frames, config, judges, str(config.model))
    root = config.data or Path(data_of(config.model)["folder"])
    short = config.out / "evaluation.json"
    result = write_model_figures(short, card, judged, config.prompt_frames, shown, config, device, root)
    title = f"{config.model} on {len(judged.truth)} clips of split {card.protocol['split']}"
    further = _further(config, model, judged, source, root)
    figures = [*card.figures, *(figure for findings in further for figure in findings.figures)]
    notes = [f"judged are {words}"] if (words := left_out_in_words(clips[0])) else []
    card = replace(card, figures=figures, notes=[*notes, *(note for findings in further for note in findings.notes)])
    strips = model_strips(judged, shown, config.prompt_frames) + [strip for each in further for strip in each.strips]
    _write(config, card, title, strips, time.perf_counter() - begin)
    Console().print(*model_tables(result), f"these are in {short}", sep="\n", highlight=False, soft_wrap=True)


def _further(
    config: Config, model: VideoModel, judged: JudgedModel, source: DataSettings, root: Path
) -> list[Findings]:
    findings = []
    if "memorization" in config.further:
        findings.append(memory(model, judged, source, config.prompt_frames))
    if "world" in config.further:
        findings.append(world(model, judged, root, config.prompt_frames, config))
    if "drift" in config.further and config.prompt_frames:
        findings.append(drift(model, judged, config.prompt_frames, LONG * model.window, config, config.seed))
    return findings


def _evaluate_frames(config: Config, made: Path, real: Path) -> None:
    begin, device = time.perf_counter(), pick_device(config.device)
    check_writable(config.out)
    networks = config.networks.feature_networks(device)
    source = FrameSource((config.size, config.size), config.fps or None, config.clip_frames, config.cache)
    measures = standard_measures(config.size) + config.networks.lpips(device) if config.paired else None
    classifier = config.networks.classifier_network(device)
    card, strips = frames_card(made, real, source, networks, classifier, measures, config.clips)
    _write(config, card, f"{made} against {real}", strips, time.perf_counter() - begin)


def _write(config: Config, card: Card, title: str, strips: Sequence[Strip], seconds: float) -> None:
    took = {"seconds": round(seconds), "hardware": describe_hardware(pick_device(config.device))}
    card = replace(card, subject={**card.subject, **took})
    for name, text in (("card.json", card.to_json()), ("evaluation.html", card_page(card, title, strips))):
        with atomic_file(config.out / name) as file:
            file.write(text.encode())
    console = Console()
    console.print(title, *figure_tables(card), *card.notes, sep="\n", highlight=False)
    where = f"{config.out / 'card.json'}, to look at {config.out / 'evaluation.html'}"
    console.print(f"protocol {card.protocol_id}, {seconds:.0f} s; written to {where}", highlight=False, soft_wrap=True)


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    run_tool(evaluate, Config, argv, description=__doc__)


if __name__ == "__main__":
    main()
