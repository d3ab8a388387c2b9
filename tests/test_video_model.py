"""A tokenizer and its GPT as one model: frames in, frames out."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tokenreel.generation import VideoModel
from tokenreel.tokenizer import TokenizerConfig, VideoTokenizer
from tokenreel.tokenizer.frames import to_frames, to_video
from tokenreel.transformer import ClipConditions, ConditionConfig, GPTConfig, GPTSize, SamplingSettings, VideoGPT

TOKENIZER = TokenizerConfig(width=16, encoder_depth=1, decoder_depth=1, levels=(5, 5))


def randomised(model: Any) -> Any:
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A GPT's folder with its tokenizer, both tiny and random: window of 16 frames, 16 x 24."""
    fingerprint = randomised(VideoTokenizer(TOKENIZER)).save_pretrained(tmp_path / "tokenizer")
    config = GPTConfig(
        25,
        (4, 2, 3),
        GPTSize(dim=64, depth=1),
        conditions=ConditionConfig(labels=("cat", "dog")),
        fps=12.0,
        tokenizer=fingerprint,
    )
    randomised(VideoGPT(config)).save_pretrained(tmp_path / "gpt" / "model", tokenizer=tmp_path / "tokenizer")
    return tmp_path / "gpt"


@pytest.fixture
def model(folder: Path) -> VideoModel:
    return VideoModel.from_pretrained(folder)


def prompts(count: int, frames: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, frames, 16, 24, 3), dtype=np.uint8)


def test_prompts_are_continued(model: VideoModel) -> None:
    assert (model.window, model.frame_size, model.fps) == (16, (16, 24), 12.0)
    prompt = prompts(2, 4)
    made = model.continue_frames(prompt, num_frames=12)
    assert made.frames.shape == (2, 16, 16, 24, 3) and made.frames.dtype == np.uint8
    assert made.indices.shape == (2, 4, 2, 3)
    assert torch.equal(made.indices[:, :1], model.tokenizer.encode(to_video(prompt)))
    reconstruction = to_frames(model.tokenizer.reconstruct(to_video(prompt)))
    assert np.abs(made.frames[:, :4].astype(int) - reconstruction).max() <= 1  # a level may round otherwise
    assert not np.array_equal(made.frames[0, 4:], made.frames[1, 4:])


def test_what_lies_between_is_filled_in(model: VideoModel) -> None:
    clips, step = prompts(2, 16), 4
    with pytest.raises(ValueError, match=r"not trained to fill in .*--infilling 0\.5"):
        model.continue_frames(clips[:, :4], 4, last=clips[:, 8:12])
    object.__setattr__(model.gpt.config, "infilling", 0.5)
    made = model.continue_frames(clips[:, :4], 4, last=clips[:, 8:12])
    assert made.frames.shape == (2, 12, 16, 24, 3) and made.indices.shape == (2, 3, 2, 3)
    still = np.concatenate([np.repeat(clips[:, 8:9], 2 * step, axis=1), clips[:, 8:12]], axis=1)
    assert torch.equal(made.indices[:, 2:], model.tokenizer.encode(to_video(still))[:, 2:])
    other = model.continue_frames(clips[:, :4], 4, last=clips[:, 12:])
    assert torch.equal(other.indices[:, :1], made.indices[:, :1])
    assert not torch.equal(other.indices[:, 1], made.indices[:, 1]), "the end is not looked at"
    assert np.array_equal(
        model.continue_clip(clips[0, :4], 4, top_p=1.0, last=clips[0, 8:12]),
        model.continue_frames(clips[:1, :4], 4, SamplingSettings(), last=clips[:1, 8:12]).frames[0],
    )
    for values, message in (
        ((12, 4, 4), "12 prompt frames, 4 new and 4 last ones exceed the window of 16"),
        ((4, 4, 3), "last_frames 3 is not a multiple of the temporal stride 4; use 0 or 4"),
    ):
        with pytest.raises(ValueError, match=message):
            model.check_lengths(*values)
    with pytest.raises(ValueError, match=r"last is uint8 \(1, 4, 16, 24, 3\), expected uint8 \(2, L, 16, 24, 3\)"):
        model.continue_frames(clips[:, :4], 4, last=clips[:1, 8:12])
    with pytest.raises(ValueError, match=r"last is uint8 \(4, 16, 24, 3\), expected uint8 \(2, L, 16, 24, 3\)"):
        model.continue_frames(clips[:, :4], 4, last=clips[0, 8:12])
    with pytest.raises(ValueError, match="of a clip without end"):
        model.stream_frames(clips[:, :4], last=clips[:, 8:12])


def test_a_clip_depends_on_its_own_seed_and_prompt_alone(model: VideoModel) -> None:
    prompt, settings = prompts(3, 4), SamplingSettings(temperature=1.2, top_k=20)
    together = model.continue_frames(prompt, 8, settings)
    assert torch.equal(model.continue_frames(prompt, 8, settings, seeds=[0, 1, 2]).indices, together.indices)
    for i in range(3):
        alone = model.continue_frames(prompt[[i]], 8, settings, seeds=[i])
        assert torch.equal(alone.indices[0], together.indices[i])
        assert np.abs(alone.frames[0].astype(int) - together.frames[i]).max() <= 1
    other = model.continue_frames(prompt, 8, settings, seeds=[10, 11, 12])
    assert not torch.equal(other.indices, together.indices)


def test_clips_from_nothing(model: VideoModel) -> None:
    made = model.continue_frames(prompts(3, 0), 16)
    assert made.frames.shape == (3, 16, 16, 24, 3) and made.indices.shape == (3, 4, 2, 3)
    assert len({tuple(row.flatten().tolist()) for row in made.indices}) == 3


class Encoder:
    """Every caption, the empty one too, has the same vectors."""

    same = True

    def check_same(self, name: str, dim: int, probe: tuple[float, ...]) -> None:
        assert (name, dim, probe) == ("some/encoder", 2, (1.0,))
        if not self.same:
            raise ValueError("not the same")

    def longest(self, captions: list[str]) -> int:
        return max(map(len, captions))

    def encode(self, captions: list[str], max_tokens: int, cut: bool) -> np.ndarray:
        assert cut
        return np.ones((len(captions), max_tokens, 2), np.float16)


def test_no_caption_is_not_an_empty_one_to_a_text_encoder(model: VideoModel, monkeypatch: pytest.MonkeyPatch) -> None:
    conditions = ConditionConfig(caption_words=3, text_encoder="some/encoder", text_dim=2, text_probe=(1.0,))
    gpt = randomised(VideoGPT(GPTConfig(25, (4, 2, 3), GPTSize(dim=64, depth=1), conditions=conditions)))
    told = VideoModel(model.tokenizer, gpt)
    loaded: list[str] = []
    monkeypatch.setattr(
        "tokenreel.generation.condition_reader.TextEncoder.load", lambda name: loaded.append(name) or Encoder()
    )
    assert not told.conditions.tensors([ClipConditions()] * 2, 4).captions.any() and not loaded, "loaded for nothing"
    captions = told.conditions.tensors([ClipConditions(caption="a"), ClipConditions()], 4).captions
    assert captions.shape == (2, 3, 2) and (captions[0] == 1).all() and not captions[1].any()
    with pytest.warns(UserWarning, match="cut to the first 3 tokens"):
        told.conditions.tensors([ClipConditions(caption="long")], 4)
    VideoModel(model.tokenizer, gpt, "moved/encoder").conditions.tensors([ClipConditions(caption="b")], 4)
    assert loaded == ["some/encoder", "moved/encoder"]
    monkeypatch.setattr(Encoder, "same", False)
    with pytest.raises(ValueError, match="not the same"):
        VideoModel(model.tokenizer, gpt, "another").conditions.tensors([ClipConditions(caption="b")], 4)


def test_labels_are_passed_on(model: VideoModel) -> None:
    greedy, prompt = SamplingSettings(temperature=0), prompts(1, 0)
    by_label = [
        model.continue_frames(prompt, 16, greedy, conditions=[ClipConditions(name)]).indices
        for name in (None, "cat", "dog")
    ]
    assert not torch.equal(by_label[0], by_label[1]) and not torch.equal(by_label[1], by_label[2])
    assert torch.equal(model.continue_frames(prompt, 16, greedy).indices, by_label[0])
    with pytest.raises(ValueError, match="label 'bird' is unknown to this model; it knows: cat, dog"):
        model.continue_frames(prompt, 16, conditions=[ClipConditions("bird")])


def test_clips_grow_beyond_the_window_and_come_as_they_are_made(model: VideoModel) -> None:
    prompt, settings = prompts(2, 4), SamplingSettings(top_k=20)
    made = model.continue_frames(prompt, 40, settings)
    assert made.frames.shape == (2, 44, 16, 24, 3)
    assert torch.equal(made.indices[:, :4], model.continue_frames(prompt, 12, settings).indices)
    stream = model.stream_frames(prompt, None, settings)
    parts = [next(stream) for _ in range(11)]
    assert [part.shape[1] for part in parts] == [4] * 11
    assert np.array_equal(np.concatenate(parts, axis=1), made.frames)
    whole = to_frames(model.tokenizer.decode(made.indices))
    assert np.abs(made.frames.astype(int) - whole).max() <= 1


def test_one_clip_in_one_call(model: VideoModel) -> None:
    prompt = prompts(1, 8)
    clip = model.continue_clip(prompt[0], 16, seed=3, top_k=20, label="dog")
    told = [ClipConditions("dog")]
    same = model.continue_frames(prompt, 16, SamplingSettings(top_k=20, top_p=0.9), [3], told).frames[0]
    assert clip.shape == (24, 16, 24, 3) and np.array_equal(clip, same)


def test_actions_may_depend_on_what_was_shown(model: VideoModel) -> None:
    conditions = ConditionConfig(action_names=("stay", "left", "right"))
    gpt = randomised(VideoGPT(GPTConfig(25, (4, 2, 3), GPTSize(dim=64, depth=1), conditions=conditions)))
    player, prompt, shown = VideoModel(model.tokenizer, gpt), prompts(1, 4), []

    def play() -> Iterator[list[list[str]]]:
        for latent_frame in range(6):
            assert len(shown) == 1 + latent_frame, "asked before the last frame was seen"
            yield [[("left", "right")[int(shown[-1].mean()) % 2]] * 4]

    greedy, told = SamplingSettings(temperature=0), [ClipConditions(actions=[None, 0, 0, 0])]
    for frames in player.stream_frames(prompt, 24, greedy, conditions=told, actions=play()):
        shown.append(frames)
    done = [("left", "right")[int(part.mean()) % 2] for part in shown[:-1] for _ in range(4)]
    known = [ClipConditions(actions=[None, 0, 0, 0, *done])]
    again = player.continue_frames(prompt, 24, greedy, conditions=known).frames
    assert np.array_equal(np.concatenate(shown, axis=1), again) and len(set(done)) == 2
    with pytest.raises(ValueError, match="action 'jump' is unknown to this model"):
        list(player.stream_frames(prompt, 4, greedy, conditions=told, actions=[[["jump"] * 4]]))
    for wrong in ([[1] * 4, [1] * 4], [[1] * 8], [1] * 4):
        with pytest.raises(ValueError, match="expected a list of 4 for each of 1 clips"):
            list(player.stream_frames(prompt, 4, greedy, conditions=told, actions=[wrong]))
    with pytest.raises(ValueError, match="a clip without end needs actions that come on the way"):
        player.stream_frames(prompt, conditions=told)
    with pytest.raises(ValueError, match="this model was trained without any; leave them out"):
        model.stream_frames(prompt, actions=play())


def test_what_cannot_be_is_refused_before_the_first_frame(model: VideoModel) -> None:
    for settings, seeds in (
        (SamplingSettings(overlap=4), [0]),
        (SamplingSettings(top_k=26), [0]),
        (SamplingSettings(guidance=2.0), [0]),
        (SamplingSettings(), [0, 1]),
    ):
        with pytest.raises(ValueError):
            model.stream_frames(prompts(1, 4), None, settings, seeds)
    with pytest.raises(ValueError, match="got no prompts"):
        model.continue_frames(prompts(0, 4), 4)


@pytest.mark.parametrize(
    ("prompt_frames", "num_frames", "message"),
    [
        (5, 8, "^prompt_frames 5 is not a multiple of the temporal stride 4; use 4 or 8$"),
        (3, 8, "^prompt_frames 3 is not a multiple of the temporal stride 4; use 0 or 4$"),
        (-4, 8, "^prompt_frames -4: expected 0 or more, in steps of 4$"),
        (4, 6, "^num_frames 6 is not a multiple of the temporal stride 4; use 4 or 8$"),
        (4, 3, "^num_frames 3: expected 4 or more, in steps of 4$"),
        (4, -4, "^num_frames -4: expected 4 or more, in steps of 4$"),
        (20, 4, "^prompt_frames 20 exceed the window of 16 frames .*; give the last of them$"),
    ],
)
def test_lengths_that_do_not_fit(model: VideoModel, prompt_frames: int, num_frames: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model.check_lengths(prompt_frames, num_frames)
    if prompt_frames >= 0:
        with pytest.raises(ValueError, match=message):
            model.continue_frames(prompts(1, prompt_frames), num_frames)


def test_prompts_that_do_not_fit(model: VideoModel) -> None:
    with pytest.raises(ValueError, match=r"prompt is uint8 \(1, 4, 24, 16, 3\), expected uint8 \(B, P, 16, 24, 3\)"):
        model.continue_frames(prompts(1, 4).swapaxes(2, 3), 8)
    with pytest.raises(ValueError, match="expected uint8"):
        model.continue_frames(prompts(1, 4).astype(np.float32), 8)
    with pytest.raises(ValueError, match="got 2 seeds for 1 prompts"):
        model.continue_frames(prompts(1, 4), 8, seeds=[1, 2])


def test_mistakes_in_python_say_what_to_do(model: VideoModel) -> None:
    clip = prompts(1, 4)[0]
    for prompt, num_frames, message in (
        (clip, None, "num_frames None: expected a number of frames; stream_frames makes clips without end"),
        (clip, 4.0, r"num_frames 4\.0: expected a whole number of frames"),
        (clip[0], 4, r"prompt has shape \(16, 24, 3\), expected one clip, \(P, H, W, 3\)"),
        (clip[None], 4, "continue_frames takes several clips"),
        (clip / 255.0, 4, "prompt is float64 .*; give colours as whole numbers from 0 to 255"),
        (clip[:, ::2], 4, r"expected uint8 \(B, P, 16, 24, 3\); load_video brings a file to that size"),
    ):
        with pytest.raises(ValueError, match=message):
            model.continue_clip(prompt, num_frames)
    assert np.array_equal(model.continue_clip(clip, 4, seed=np.int64(3)), model.continue_clip(list(clip), 4, seed=3))


@pytest.mark.filterwarnings("error")
def test_prompts_may_be_views_of_any_kind(model: VideoModel) -> None:
    clip = prompts(1, 4)[0]
    fixed = clip[::-1].copy()
    fixed.flags.writeable = False
    assert np.array_equal(model.continue_clip(clip[::-1], 4), model.continue_clip(fixed, 4))


def test_a_model_says_what_it_is(model: VideoModel) -> None:
    assert repr(model) == "VideoModel(16x24 at 12 fps, window of 16 frames, may be told: labels)"


def test_another_tokenizer_is_refused(folder: Path) -> None:
    randomised(VideoTokenizer(TOKENIZER)).save_pretrained(folder / "model" / "tokenizer")
    with pytest.raises(ValueError, match=r"tokenizer has fingerprint \w{12}, expected \w{12}, the tokenizer this GPT"):
        VideoModel.from_pretrained(folder)
    with pytest.raises(ValueError, match="the tokenizer has 36 codes, the GPT was trained on 25; use the tokenizer"):
        VideoModel(VideoTokenizer(TokenizerConfig(width=16, levels=(6, 6))), VideoGPT.from_pretrained(folder))


def test_a_folder_without_gpt_or_tokenizer_is_told(folder: Path, tmp_path: Path) -> None:
    (folder / "model" / "tokenizer" / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="tokenizer holds no tokenizer weights"):
        VideoModel.from_pretrained(folder)
    with pytest.raises(FileNotFoundError, match="no GPT folder"):
        VideoModel.from_pretrained(tmp_path / "missing")
