"""What a plan is made from: facts of the videos, and what models cost here."""

from dataclasses import dataclass


@dataclass(frozen=True)
class VideoFacts:
    """Videos as they lie in a clip store."""

    lengths: tuple[int, ...]
    """Frames of each training video (of each shot of one)."""
    held_out: tuple[int, ...]
    """Frames of each validation video."""
    height: int
    width: int
    fps: float
    bytes: int
    """Of the frames of the training videos."""

    def frames(self, clip_frames: int) -> int:
        """Frames of the training videos that are as long as a clip."""
        return sum(length for length in self.lengths if length >= clip_frames)

    def videos(self, clip_frames: int) -> int:
        """Training videos that are as long as a clip."""
        return sum(length >= clip_frames for length in self.lengths)

    def clips(self, clip_frames: int, hop: int) -> int:
        """Training clips that begin every ``hop`` frames."""
        return _clips(self.lengths, clip_frames, hop)

    def held_out_clips(self, clip_frames: int, hop: int) -> int:
        """Validation clips."""
        return _clips(self.held_out, clip_frames, hop)


@dataclass(frozen=True)
class TokenizerOption:
    """A tokenizer that comes into question, and what a step of it takes here."""

    preset: str
    stride: tuple[int, int, int]
    parameters: int
    batch_size: int
    seconds_per_step: float
    peak_bytes: float
    """With the whole batch at once."""
    fixed_bytes: float
    """Of these, what does not grow with the batch."""

    @property
    def name(self) -> str:
        """In words."""
        return f"tokenizer {self.preset} at stride {self.stride}"


@dataclass(frozen=True)
class GPTOption:
    """A GPT that comes into question on the grid of a tokenizer, and what a step of it takes here."""

    dim: int
    depth: int
    stride: tuple[int, int, int]
    tokens_per_clip: int
    parameters: int
    batch_size: int
    seconds_per_step: float
    peak_bytes: float
    fixed_bytes: float

    @property
    def name(self) -> str:
        """In words."""
        return f"GPT {self.dim} x {self.depth} at stride {self.stride}"


Option = TokenizerOption | GPTOption
"""Where not even one clip fits into a GPU, seconds and bytes are infinite."""


def parts_needed(option: Option, memory: float) -> int | None:
    """Equal parts in which a step's clips fit into the memory one after the other; None if not even one clip does."""
    growing = option.peak_bytes - option.fixed_bytes
    for parts in range(1, option.batch_size + 1):
        if option.batch_size % parts == 0 and option.fixed_bytes + growing / parts <= memory:
            return parts
    return None


@dataclass(frozen=True)
class StageCost:
    """What a training costs here, measured by training a few steps."""

    seconds_per_step: float
    start_seconds: float = 0.0
    """Until the first step: the program itself, the data, the model."""
    first_seconds: float = 0.0
    """That the first steps take beyond the others: what is compiled or made once."""
    pause_seconds: float = 0.0
    """Of one validation with its pictures, and of saving after it."""
    saving_seconds: float = 0.0
    """Of that, the saving."""
    peak_bytes: float = 0.0

    def seconds(self, steps: int, validations: int) -> float:
        """Of a whole training; it saves once more than it validates, before the learning rate falls."""
        once = self.start_seconds + self.first_seconds + self.saving_seconds
        return once + steps * self.seconds_per_step + validations * self.pause_seconds

    def steps_in(self, seconds: float, validations: int) -> int:
        """Steps for which there is time."""
        return max(0, int((seconds - self.seconds(0, validations)) / self.seconds_per_step))


def _clips(lengths: tuple[int, ...], clip_frames: int, hop: int) -> int:
    return sum((length - clip_frames) // hop + 1 for length in lengths if length >= clip_frames)
