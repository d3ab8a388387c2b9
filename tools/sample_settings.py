"""Settings of one sampling."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tokenreel.training.hardware import DeviceName
from tokenreel.transformer import SamplingSettings

PROMPT_FRAMES = 4
NUM_SAMPLES = 4
AT_ONCE = 32
"""Clips sampled together; more would gain little speed for their memory."""


@dataclass(frozen=True, kw_only=True)
class Config(SamplingSettings):
    """What to continue, and how."""

    model: Path = Path("runs/gpt")
    """Run folder or model folder of the GPT."""
    tokenizer: Path | None = None
    """Another tokenizer with the same encoder and codebook, such as one whose decoder was trained further; default:
    the one that the model carries."""
    input: Path | None = None
    """A video to continue, of any size and rate; default: clips of the validation split."""
    prompt_frames: int | None = None
    """Frames given to the model, a multiple of its temporal stride; 0 makes clips from nothing; default: 4, or 0
    where --prompt or --prompts says what is to be seen and no --input is given."""
    top_p: float = 0.9
    """Draw among the likeliest indices that together have this probability; 1 is all, and lets one index from the
    far tail break an object now and then. For clips from nothing see --sharpen."""
    frame_size: str = ""
    """HEIGHTxWIDTH of clips from nothing, for a model that was trained on several sizes; default: the first of them.
    An --input is brought to the one nearest its shape."""
    last_frames: int = 0
    """Frames given that come after the new ones, which then fill in what lies between: the end of each validation
    clip, or what --input shows there. The model must have been trained with --infilling, and all fit its window."""
    frames: int = 0
    """New frames, any multiple of the model's temporal stride: beyond the window the model goes on from the last of
    what it made; 0: up to the window the model was trained on, or as many as there are actions."""
    num_samples: int | None = None
    """Clips to make: of different prompts from the validation split, or continuations of one --input; with --prompts
    of each line; default: 4, and 1 with --prompts."""
    prompt: str | None = None
    """Caption of the clips, if the model was trained on captions; default: that of each validation clip, else none."""
    text_encoder: str | None = None
    """Folder or hub id of the model's text encoder, where it is no longer found under the name that training knew."""
    label: str | None = None
    """Class of the clips, one of the model's labels; default: that of each validation clip, else none."""
    actions: Path | None = None
    """JSON file with the action that leads to each new frame, by number, name or as numbers, if the model was trained
    on actions: a list; default: what was done in each validation clip, else unknown."""
    prompts: Path | None = None
    """Many requests: a .txt file with a caption per line, or a .jsonl file with an object per line that may hold
    prompt, label, actions, seed, frames and format; what a line leaves open is as said here."""
    seed: int = 0
    """Sample i uses seed + i, and is the same whatever else is sampled."""
    keep_prompt: bool = False
    """Show the given frames themselves instead of what the tokenizer makes of them."""
    format: Literal["mp4", "webm", "gif", "avi"] = "mp4"
    """File format of the clips."""
    out: Path = Path("runs/samples")
    """Folder for the clips and the comparison."""
    data: Path | None = None
    """Folder of videos or clip store to take prompts from; default: what the model was trained on."""
    cache: Path = Path("runs/clips")
    """Folder in which decoded videos are kept."""
    device: DeviceName = "auto"
    """Where to sample."""

    @property
    def given_frames(self) -> int:
        """Prompt frames, chosen if they are not said."""
        from_nothing = (self.prompt or self.prompts) and not self.input
        return (0 if from_nothing else PROMPT_FRAMES) if self.prompt_frames is None else self.prompt_frames
