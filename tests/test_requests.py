"""Requests: read from files, completed from the command line, joined with what is known of the prompt."""

import json
from pathlib import Path
from typing import Any

import pytest

from tokenreel.generation.requests import Request, read_actions, read_requests
from tokenreel.transformer import ClipConditions


def test_text_files_hold_a_caption_per_line(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("\ufeffa red ball\n\n  two blue balls \n")
    assert read_requests(path) == [Request("a red ball"), Request("two blue balls")]


def test_json_lines_hold_a_request_each_and_leave_the_rest_to_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    full = {"prompt": "a", "label": "b", "actions": [0, "left", None], "seed": 0, "frames": 8, "format": "gif"}
    path.write_text(f"{json.dumps(full)}\n{{}}\n")
    first, second = read_requests(path)
    general = Request("said", None, None, 7, 4, "mp4")
    assert first.over(general) == Request(**full), "seed 0 is said, not left open"
    assert second.over(general) == general


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.csv", "a", "expected prompts.txt"),
        ("p.txt", "\n \n", "has no requests"),
        ("p.jsonl", '{"prompt": "a"}\n{"promt": "b"}', r"p.jsonl, line 2: got .* expected a JSON object with keys"),
        ("p.jsonl", "[1]", "line 1: got '\\[1\\]', expected a JSON object"),
        ("p.jsonl", "{", "line 1: "),
        ("p.jsonl", '{"seed": -1}', "line 1: seed -1: expected a whole number"),
        ("p.jsonl", '{"seed": 1.5}', "seed 1.5: expected a whole number"),
        ("p.jsonl", '{"frames": "8"}', "frames '8': expected a number"),
        ("p.jsonl", '{"format": "mov"}', "format 'mov': expected one of mp4, webm, gif, avi"),
        ("p.jsonl", '{"prompt": 3}', "prompt 3: expected text"),
        ("p.jsonl", '{"actions": "left"}', "actions 'left': expected a list"),
    ],
)
def test_files_that_hold_no_requests(name: str, text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_requests(path)


def test_text_of_another_encoding_is_told(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes("ein roter Ball über Grün".encode("latin-1"))
    with pytest.raises(ValueError, match=r"prompts.txt is not UTF-8 text .*; save it as UTF-8"):
        read_requests(path)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    for read in (read_requests, read_actions):
        with pytest.raises(FileNotFoundError, match=r"there is no file .*none.jsonl"):
            read(tmp_path / "none.jsonl")


def test_actions_are_a_list_alone_or_by_name(tmp_path: Path) -> None:
    path = tmp_path / "actions.json"
    for said in ([0, "left", [0.5, 1]], {"actions": [0, "left", [0.5, 1]], "more": 1}):
        path.write_text(json.dumps(said))
        assert read_actions(path) == [0, "left", [0.5, 1]]
    for text, message in (
        ("{}", "expected a list such as"),
        ("[]", "expected a list such as"),
        ("3", "expected a list such as"),
        ("[", "not valid JSON"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_actions(path)


OWN = ClipConditions("cat", "a cat", [None, 1, 2, 3, 4, 5])


@pytest.mark.parametrize(
    ("request_", "own", "prompt_frames", "expected"),
    [
        (Request(), OWN, 2, OWN),
        (Request(""), OWN, 2, ClipConditions("cat", None, OWN.actions)),
        (Request("a dog", "dog"), OWN, 2, ClipConditions("dog", "a dog", OWN.actions)),
        (Request(actions=[7, 8, 9, 9, 9]), OWN, 2, ClipConditions("cat", "a cat", [None, 1, 7, 8, 9, 9])),
        (Request(actions=[7, 8, 9, 9]), ClipConditions(), 2, ClipConditions(actions=[None, None, 7, 8, 9, 9])),
        (Request(actions=[7, 8, 9, 9]), ClipConditions(), 0, ClipConditions(actions=[None, 8, 9, 9])),
    ],
)
def test_what_is_requested_goes_before_what_is_known(
    request_: Request, own: ClipConditions, prompt_frames: int, expected: ClipConditions
) -> None:
    assert request_.conditions(own, prompt_frames, 4) == expected


def test_too_few_actions_are_refused() -> None:
    known: Any = Request(actions=[1, 2, 3])
    with pytest.raises(ValueError, match="got 3 actions for 4 new frames; give one per frame, or ask for fewer frames"):
        known.conditions(OWN, 2, 4)


def test_what_was_played_ends_with_the_clip_and_is_unknown_after_it() -> None:
    own = ClipConditions(actions=[None, 1, 2, 0])
    assert Request().conditions(own, 2, 6).actions == [None, 1, 2, 0, None, None, None, None]
    assert Request().conditions(own, 2, 2).actions == [None, 1, 2, 0]
    assert Request().conditions(ClipConditions(), 2, 6).actions is None
