"""UCF-101 as it is downloaded, put into the folders of its official splits.

Source: Soomro, Zamir, Shah, "UCF101: A Dataset of 101 Human Action Classes From Videos in The Wild", 2012.
"""

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tokenreel.datasets.atomic_file import atomic_file
from tokenreel.datasets.dataset_folder import begin_folder, finish_folder
from tokenreel.datasets.gameplay import DATASET_FILE

PAGE = "https://www.crcv.ucf.edu/data"
VIDEOS = ("UCF-101", "UCF101", ".")
LISTS = ("ucfTrainTestlist", "UCF101TrainTestSplits-RecognitionTask/ucfTrainTestlist", ".")
VIDEO = re.compile(r"v_([A-Za-z]+)_g(\d\d)_c\d\d\.avi")
SOURCE = f"UCF-101 ({PAGE}/UCF101.php)"
LICENCE = "none is stated; the videos were taken from YouTube for research"


@dataclass(frozen=True)
class Ucf101Settings:
    """What was downloaded, and which split is wanted."""

    root: Path = Path("data/UCF101")
    """Folder with the unpacked UCF-101 and ucfTrainTestlist."""
    fold: Literal[1, 2, 3] = 1
    """Which of the three official splits; results are most often told for the first."""
    allow_missing: bool = False
    """Go on without videos of the lists that are not there; they are counted."""


def make_ucf101(settings: Ucf101Settings, out: Path, progress: Callable[[int, int], None]) -> bool:
    """Links the videos into ``out/{train,test}/CLASS/``, where training takes a tenth of the groups for validation.

    The videos are links (hard ones where the disk allows it, else symbolic ones, else copies).

    Returns:
        Whether anything was made; False if all was there.

    Raises:
        FileNotFoundError: If something was not downloaded; the message says what is missing and where it belongs.
        ValueError: If the lists are not those of UCF-101, or the folder holds something else.
        OSError: If a file cannot be written.
    """
    videos, lists = _found(settings)
    splits = {split: _listed(lists / f"{split}list{settings.fold:02d}.txt") for split in ("train", "test")}
    both = set(splits["train"]) & set(splits["test"])
    if both:
        raise ValueError(f"{lists}: {min(both)} is in both lists of split {settings.fold}; download them again")
    missing = [name for names in splits.values() for name in names if not (videos / name).is_file()]
    total = sum(map(len, splits.values()))
    if missing and not settings.allow_missing:
        raise FileNotFoundError(
            f"{len(missing)} of the {total} videos in the lists are not in {videos}, such as {missing[0]}; unpack "
            "UCF101.rar again, or leave them out with --allow-missing"
        )
    told = {"recipe": "ucf101", "fold": settings.fold, "root": str(videos.absolute()), "missing": len(missing)}
    if not begin_folder(out, told, DATASET_FILE):
        return False
    done, rows = 0, []
    for split, names in splits.items():
        for name in names:
            done += 1
            progress(done, total)
            if (videos / name).is_file():
                _link(videos / name, out / split / name)
                rows.append(_row(split, name))
    with atomic_file(out / "metadata.csv") as file:
        file.write("\n".join(["file_name,group,source,licence", *rows, ""]).encode("ascii"))
    finish_folder(out, told, DATASET_FILE)
    return True


def _found(settings: Ucf101Settings) -> tuple[Path, Path]:
    """The folders of the videos and of the lists.

    Raises:
        FileNotFoundError: If one is not there, with all that is to be done.
    """
    root = settings.root
    needed = [f"{split}list{settings.fold:02d}.txt" for split in ("train", "test")]
    videos = next((root / name for name in VIDEOS if any((root / name).glob("*/v_*_g??_c??.avi"))), None)
    lists = next((root / name for name in LISTS if all((root / name / file).is_file() for file in needed)), None)
    if videos is not None and lists is not None:
        return videos, lists
    steps = []
    if videos is None:
        packed = (root / "UCF101.rar").is_file()
        fetch = "" if packed else f"download {PAGE}/UCF101/UCF101.rar (6.5 GB) into {root}, then "
        steps.append(
            f"{fetch}run: unrar x {root / 'UCF101.rar'} {root}{os.sep} (makes {root / 'UCF-101'}/CLASS/v_*.avi)"
        )
    if lists is None:
        name = "UCF101TrainTestSplits-RecognitionTask.zip"
        packed = (root / name).is_file()
        fetch = "" if packed else f"download {PAGE}/UCF101/{name} into {root}, then "
        steps.append(f"{fetch}run: unzip {root / name} -d {root} (makes {root / LISTS[0]}/{needed[0]})")
    needs = {"the videos": videos, f"the lists of split {settings.fold}": lists}
    lacking = " and ".join(what for what, there in needs.items() if there is None)
    raise FileNotFoundError(f"UCF-101 in {root}: {lacking} are missing; {'; '.join(steps)}")


def _listed(path: Path) -> list[str]:
    """The videos of a list, as CLASS/NAME.avi.

    Raises:
        ValueError: If a line names none.
    """
    names = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        name = line.split()[0]
        video = VIDEO.fullmatch(name.rpartition("/")[2])
        # In the lists HandstandPushups, in the names of its videos HandStandPushups.
        if video is None or name.count("/") != 1 or name.partition("/")[0].lower() != video[1].lower():
            raise ValueError(f"{path}, line {number}: {line!r}, expected CLASS/v_CLASS_g01_c01.avi; download it again")
        names.append(name)
    if not names:
        raise ValueError(f"{path} names no video; download it again")
    return names


def _row(split: str, name: str) -> str:
    video = VIDEO.fullmatch(name.rpartition("/")[2])
    assert video is not None, "the lists were checked"
    # All clips of a group were cut from one film.
    return f"{split}/{name},{video[1]} {video[2]},{SOURCE},{LICENCE}"


def _link(source: Path, target: Path) -> None:
    """Put a file under a second name, by the cheapest way that there is."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)  # a link to what is gone
    for way in (os.link, os.symlink):
        try:
            way(source.resolve(), target)
        except OSError:
            continue
        return
    shutil.copyfile(source, target)
