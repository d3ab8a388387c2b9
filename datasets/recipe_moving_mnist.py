"""Moving MNIST: two digits that drift over a black square and bounce off its sides.

Source: Srivastava, Mansimov, Salakhutdinov, "Unsupervised Learning of Video Representations using LSTMs", 2015.
"""

import gzip
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tokenreel.datasets.array_file import array_facts, open_array
from tokenreel.datasets.dataset_folder import begin_folder, finish_folder, is_recorded, write_recording
from tokenreel.datasets.gameplay import DATASET_FILE

SEQUENCES = "mnist_test_seq.npy"
IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
PAGE = "https://www.cs.toronto.edu/~nitish/unsupervised_video"
SOURCE = f"Moving MNIST ({PAGE})"
LICENCE = "digits of MNIST: CC BY-SA 3.0"
FRAMES, SIZE, FPS = 20, 64, 10.0
SPEED = 3.6
"""Pixels per frame."""
HELD_OUT = 1 / 6
"""Share of the digits, the last ones, that only validation shows."""


@dataclass(frozen=True)
class MovingMnistSettings:
    """What was downloaded, and how much is made of it."""

    root: Path = Path("data/MNIST")
    """Folder with mnist_test_seq.npy, or with train-images-idx3-ubyte of MNIST (also .gz), or with both."""
    count: int = 10_000
    """Training sequences made from the digits of MNIST."""
    val_count: int = 1000
    """Validation sequences, made from other digits; without digits, the last ones of mnist_test_seq.npy."""
    digits: int = 2
    """Digits in a sequence that is made."""
    seed: int = 0
    """Same seed, same sequences."""

    def __post_init__(self) -> None:
        for name, least in (("count", 1), ("val_count", 1), ("digits", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least {least}")


def make_moving_mnist(settings: MovingMnistSettings, out: Path, progress: Callable[[int, int], None]) -> bool:
    """Writes the sequences as lossless videos.

    With the digits of MNIST: ``train`` and ``val`` are made from them (different digits), ``test`` is the published set
    if it is there. Without them the published set is all there is, and is divided into ``train`` and ``val``.

    Returns:
        Whether anything was made; False if all was there.

    Raises:
        FileNotFoundError: If nothing was downloaded.
        ValueError: If a file is not what its name says, or the folder holds something else.
        OSError: If a file cannot be written.
    """
    published, images = settings.root / SEQUENCES, _idx(settings.root, IMAGES)
    if not published.is_file() and images is None:
        raise FileNotFoundError(
            f"Moving MNIST in {settings.root}: nothing is there; download {PAGE}/mnist_test_seq.npy (820 MB) into "
            f"{settings.root}, or {IMAGES}.gz (and {LABELS}.gz) of MNIST, to have sequences made from its digits"
        )
    sequences = _published(published) if published.is_file() else None
    if images is None and sequences is not None and settings.val_count >= sequences.shape[1]:
        raise ValueError(f"val_count {settings.val_count} leaves nothing of {sequences.shape[1]} sequences; use less")
    told = {
        "recipe": "moving-mnist",
        "seed": settings.seed,
        "digits": settings.digits,
        "published": published.is_file(),
    }
    told = {**told, "count": settings.count, "val_count": settings.val_count, "made": images is not None}
    if not begin_folder(out, told, DATASET_FILE):
        return False
    parts = _parts(settings, sequences, images, _idx(settings.root, LABELS))
    total, done = sum(count for _, count, _ in parts), 0
    for split, count, sequence in parts:
        for number in range(count):
            video = out / split / f"{number:05d}.mkv"
            if not is_recorded(video):
                frames, caption = sequence(number)
                sidecar = {"source": SOURCE, "licence": LICENCE} | ({"caption": caption} if caption else {})
                write_recording(video, np.repeat(frames[..., None], 3, axis=3), FPS, sidecar)
            done += 1
            progress(done, total)
    finish_folder(out, told, DATASET_FILE)
    return True


Sequence = Callable[[int], tuple[np.ndarray, str | None]]
"""Gives sequence k: uint8 (T, H, W), and its caption."""


def _parts(
    settings: MovingMnistSettings, sequences: np.ndarray | None, images: np.ndarray | None, labels: np.ndarray | None
) -> list[tuple[str, int, Sequence]]:
    """(split, number of sequences, what gives them) of each split."""

    def of_published(first: int) -> Sequence:
        """The published sequences from one on."""
        assert sequences is not None
        return lambda number: (np.asarray(sequences[:, first + number]), None)

    if images is None:
        assert sequences is not None, "one of both is there"
        train = sequences.shape[1] - settings.val_count
        return [("train", train, of_published(0)), ("val", settings.val_count, of_published(train))]
    if images.ndim != 3 or (labels is not None and labels.shape != images.shape[:1]):
        got = f"{images.shape} images, {None if labels is None else labels.shape} labels"
        raise ValueError(f"{settings.root}: {got}; expected (N, 28, 28) and (N,); download both again")
    kept = int(len(images) * (1 - HELD_OUT))

    def made(split: int, first: int, last: int) -> Sequence:
        """Sequences of the digits first to last."""

        def sequence(number: int) -> tuple[np.ndarray, str | None]:
            rng = np.random.default_rng([settings.seed, split, number])
            chosen = rng.integers(first, last, settings.digits)
            named = None if labels is None else " and ".join(str(label) for label in labels[chosen])
            return bouncing(images[chosen], rng), named

        return sequence

    parts = [("train", settings.count, made(0, 0, kept)), ("val", settings.val_count, made(1, kept, len(images)))]
    return parts if sequences is None else [*parts, ("test", sequences.shape[1], of_published(0))]


def bouncing(digits: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A sequence of digits that move straight on and bounce off the sides.

    Args:
        digits: uint8 (n, h, w), none larger than the frame.
        rng: Draws where each begins and where it goes.

    Returns:
        uint8 (20, 64, 64); where digits overlap, the brighter one.
    """
    frames = np.zeros((FRAMES, SIZE, SIZE), np.uint8)
    for digit in digits:
        room = np.array([SIZE - digit.shape[0], SIZE - digit.shape[1]])
        angle = rng.uniform(0, 2 * np.pi)
        away = rng.uniform(0, room) + np.outer(np.arange(FRAMES), SPEED * np.array([np.sin(angle), np.cos(angle)]))
        # A way that is folded back at the sides.
        places = np.abs((away + room) % (2 * room) - room).round().astype(int)
        for frame, (top, left) in zip(frames, places, strict=True):
            window = frame[top : top + digit.shape[0], left : left + digit.shape[1]]
            np.maximum(window, digit, out=window)
    return frames


def _published(path: Path) -> np.ndarray:
    """The published sequences, uint8 (T, N, H, W), mapped."""
    facts: Any = next(iter(array_facts(path).values()))
    if facts.dtype != np.uint8 or len(facts.shape) != 4 or facts.shape[0] != FRAMES or facts.shape[2:] != (SIZE, SIZE):
        raise ValueError(f"{path} is {facts.dtype} {facts.shape}, expected uint8 (20, N, 64, 64); download it again")
    return open_array(str(path), "")


def _idx(root: Path, name: str) -> np.ndarray | None:
    """An array in MNIST's own format, packed or not; None if it is not there.

    Raises:
        ValueError: If it is damaged.
    """
    for path in _names(root, name):
        if path.is_file():
            try:
                content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
                if content[:3] != b"\0\0\x08":  # bytes
                    raise ValueError("it begins otherwise")
                axes = content[3]
                shape = np.frombuffer(content, ">u4", axes, offset=4)
                return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)
            except (OSError, EOFError, ValueError, IndexError) as error:
                raise ValueError(f"{path} is no file of MNIST ({error}); download it again") from error
    return None


def _names(root: Path, name: str) -> Iterator[Path]:
    # torchvision puts them into MNIST/raw, others write a dot.
    for folder in (root, root / "MNIST/raw", root / "raw"):
        for written in (name, name.replace("-idx", ".idx")):
            yield folder / written
            yield folder / f"{written}.gz"
