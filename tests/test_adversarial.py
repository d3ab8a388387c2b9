"""The adversarial term: its gradients, its phases, and the way back when it does harm."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from torch import Tensor, nn

from tokenreel.tokenizer import LossConfig, TokenizerConfig, TokenizerObjective, VideoTokenizer
from tokenreel.tokenizer.adversary import Adversary, Balance
from tokenreel.tokenizer.discriminator import PatchDiscriminator
from tokenreel.tools import make_world, train_tokenizer
from tokenreel.training.ema import WeightAverage
from tokenreel.training.optimizer import build_optimizer
from tokenreel.training.retreat import Retreat

PLAIN = LossConfig(l2=1.0, log_l2=0.0)
MILD = replace(PLAIN, adversarial=0.5, adversarial_warmup=0, discriminator_width=4)


def objective(config: LossConfig = MILD, phase: str = "on") -> TokenizerObjective:
    torch.manual_seed(0)
    made = TokenizerObjective(VideoTokenizer(TokenizerConfig(width=16, encoder_depth=1, decoder_depth=1)), config)
    if made.adversary is not None:
        made.adversary.phase = phase
    return made


def videos() -> Tensor:
    return torch.rand(2, 3, 8, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


def gradients(module: nn.Module, loss: Tensor) -> list[Tensor | None]:
    return list(torch.autograd.grad(loss, list(module.parameters()), retain_graph=True, allow_unused=True))


# the term


def test_off_by_default_and_then_nothing_is_built() -> None:
    assert not LossConfig().adversarial
    plain = objective(PLAIN)
    assert plain.adversary is None and not any("discriminator" in name for name, _ in plain.named_parameters())
    assert list(plain(videos()).terms) == ["l2"]
    assert plain.judge(1.0, 0.9) == ("go on", None)
    waiting = objective(phase="waiting")
    assert list(waiting(videos()).terms) == ["l2"], "until it starts, it costs nothing either"


@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 4, 4), (3, 17, 30), (16, 32, 32)])
def test_the_discriminator_judges_clips_of_any_size(shape: tuple[int, int, int]) -> None:
    verdicts = PatchDiscriminator(4)(torch.rand(2, 3, *shape))
    T, H, W = shape
    assert verdicts.shape == (2, 1, math.ceil(T / 4), math.ceil(H / 8), math.ceil(W / 8))


def test_the_discriminator_learns_to_tell_blurred_clips_from_sharp_ones() -> None:
    adversary = Adversary(LossConfig(adversarial=1.0, discriminator_width=8)).train()
    optimizer = build_optimizer(adversary, 1e-2, 0.0)
    for _ in range(40):
        sharp = torch.rand(4, 3, 4, 16, 16) * 2 - 1
        blurred = nn.functional.avg_pool3d(sharp, 3, stride=1, padding=1)
        _, detects = adversary(sharp, blurred)
        detects.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert detects < 0.2, "1 is a guess"


def test_each_side_has_only_its_own_gradient() -> None:
    made = objective()
    adversary, tokenizer = made.adversary, made.tokenizer
    assert adversary is not None
    fools, detects = adversary(videos(), tokenizer(videos()).reconstruction)
    assert all(gradient is None for gradient in gradients(adversary, fools))
    assert all(gradient is None for gradient in gradients(tokenizer, detects))
    assert any(gradient is not None and gradient.abs().max() > 0 for gradient in gradients(tokenizer, fools))
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients(adversary, detects))


@pytest.mark.parametrize("strength", [0.0, 0.3, 5.0])
def test_the_adversarial_gradient_gets_the_length_that_was_asked_for(strength: float) -> None:
    pixels = torch.randn(2, 3, 4, 8, 8, requires_grad=True)
    toward, away = torch.randn_like(pixels), torch.randn_like(pixels) * 1000
    one, other = Balance.apply(pixels, strength)
    ((one * toward).sum() + (other * away).sum()).backward()
    expected = toward + strength * toward.norm() * away / away.norm()
    torch.testing.assert_close(pixels.grad, expected)


def test_the_term_rises_from_nothing_and_changes_what_is_learnt() -> None:
    config = replace(MILD, adversarial_warmup=4)
    with_term, without = objective(config), objective(PLAIN)
    optimizers = [build_optimizer(made, 1e-2, 0.0) for made in (with_term, without)]
    assert with_term.adversary is not None
    strengths, same = [], []
    for _ in range(6):
        strengths.append(with_term.adversary.strength)
        for made, optimizer in zip((with_term, without), optimizers, strict=True):
            output = made(videos())
            output.loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        weights = [made.tokenizer.decoder.unembed.weight for made in (with_term, without)]
        same.append(torch.equal(*weights))
    assert strengths == [0.0, 0.125, 0.25, 0.375, 0.5, 0.5]
    assert same == [True] + [False] * 5, "at strength 0 only the discriminator learns"
    assert list(with_term(videos()).terms) == ["l2", "adversarial", "discriminator"]


def test_only_the_tokenizer_is_compiled() -> None:
    made = objective()
    made.compile(dynamic=False)
    assert made.tokenizer._compiled_call_impl is not None and made._compiled_call_impl is None


# its phases


def test_it_starts_at_a_validation_keeps_what_is_best_and_goes_back_once() -> None:
    adversary = Adversary(LossConfig(adversarial=0.7))
    assert adversary.judge(29.0, 0.4) == ("go on", None)
    verdict, told = adversary.judge(30.0, 0.5)
    assert verdict == "keep" and told == "the adversarial term starts at a validation PSNR of 30.00 dB"
    assert adversary.judge(29.1, 0.6) == ("go on", None)
    assert adversary.judge(30.5, 0.7) == ("keep", None)
    assert adversary.judge(29.6, 0.8) == ("go on", None), "no more than 1 dB below the best"
    verdict, told = adversary.judge(29.4, 0.9)
    assert verdict == "go back" and told is not None
    assert "fell from 30.50 to 29.40 dB" in told and "lower --loss.adversarial (now 0.7)" in told
    assert adversary.phase == "off"
    for psnr in (20.0, 40.0):
        assert adversary.judge(psnr, 0.95) == ("go on", None)


def test_a_psnr_that_is_no_number_counts_as_harm_and_the_last_step_starts_nothing() -> None:
    adversary = Adversary(LossConfig(adversarial=1.0))
    assert adversary.judge(30.0, 1.0) == ("go on", None)
    adversary.judge(30.0, 0.6)
    assert adversary.judge(math.nan, 0.7)[0] == "go back"


def test_the_phase_is_part_of_the_weights() -> None:
    made = objective(phase="waiting")
    made.judge(31.0, 0.6)
    made(videos())
    other = objective(phase="waiting")
    other.load_state_dict(made.state_dict())
    assert other.adversary is not None
    assert (other.adversary.phase, other.adversary.steps_on, other.adversary.best_psnr) == ("on", 1, 31.0)


def test_going_back_brings_weights_optimizer_and_average_back_but_not_the_phase() -> None:
    made = objective(phase="waiting")
    optimizer, average, retreat = build_optimizer(made, 1e-2, 0.0), WeightAverage(made, 0.5), Retreat()

    def learn(steps: int) -> Tensor:
        for _ in range(steps):
            made(videos()).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            average.update(made)
        return made.tokenizer.decoder.unembed.weight.detach().clone()

    with pytest.raises(RuntimeError, match="asked to go back before it asked to keep"):
        retreat.go_back(made, optimizer, average)
    learn(2)
    retreat.keep(made, optimizer, average)
    averaged = {name: tensor.clone() for name, tensor in average.average.items()}
    straight = learn(2)
    assert made.adversary is not None
    made.adversary.phase = "off"
    retreat.go_back(made, optimizer, average)
    assert retreat.kept is None and made.adversary.phase == "off"
    assert average.steps == 2 and all(torch.equal(average.average[name], averaged[name]) for name in averaged)
    assert torch.equal(learn(2), straight), "with the optimizer as it was, the same steps lead to the same weights"


# a run that it ruins

RUN = (
    "--data world --cache clips --size 16 --clip-frames 8 --batch-size 4 --log-every 1 --evaluate-every 10 "
    "--checkpoint-every 10 --wandb disabled --device cpu --precision fp32 --lr 0.02 --warmup 5 --decay-share 0.4 "
    "--model.width 32 --model.encoder-depth 1 --model.decoder-depth 1 --ema-decay 0.5 "
    "--loss.l2 1 --loss.log-l2 0 --loss.adversarial 300 "
    "--loss.adversarial-start 0.5 --loss.adversarial-warmup 0 --loss.discriminator-width 4"
)
LAST = "checkpoints/step_000060"


def call(run: str, *options: str) -> None:
    AcceleratorState._reset_state(True)  # it is kept per process, and a command is a process of its own
    train_tokenizer.main([*RUN.split(), "--run", run, *options])


def lines(run: str) -> list[dict[str, Any]]:
    found = map(json.loads, (Path(run) / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if not k.startswith(("speed/", "memory/", "codebook/"))} for line in found]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a little world and the whole run in it."""
    folder = tmp_path_factory.mktemp("adversarial")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_world.main(
            ["balls", "--out", "world", "--count", "4", "--val-count", "2", "--size", "32", "--frames", "16"]
        )
        call("straight", "--steps", "60")
    return folder


def test_a_ruinous_term_is_taken_back_and_said_so(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    found = lines("straight")
    psnr = {line["step"]: line["val/psnr"] for line in found if "val/psnr" in line}
    fallen = next(line["val/psnr"] for line in found if line["step"] == 40 and "val/psnr" in line)
    assert {line["step"]: line["note"] for line in found if "note" in line}.keys() == {30}
    warned = {line["step"]: line["warning"] for line in found if "warning" in line}
    assert warned.keys() == {40} and "fell from" in warned[40]
    assert fallen < psnr[30] - 1
    assert psnr[40] == psnr[30] and psnr[50] > psnr[30], "it is back, and said so, and training goes on"
    told = [line["step"] for line in found if {"train/l2", "train/adversarial", "train/discriminator"} <= set(line)]
    assert told == list(range(31, 41))


def test_what_is_released_is_the_average_of_the_tokenizer_alone(home: Path) -> None:
    released = load_file(home / "straight/model/model.safetensors")
    average = torch.load(home / "straight" / LAST / "state.pt", weights_only=True)["average"]["weights"]
    of_tokenizer = {name.removeprefix("tokenizer."): name for name in average if name.startswith("tokenizer.")}
    assert of_tokenizer.keys() <= released.keys() and not any("discriminator" in name for name in released)
    assert all(torch.equal(released[name], average[full]) for name, full in of_tokenizer.items())
    trained = load_file(home / "straight" / LAST / "weights.safetensors")
    assert not any(torch.equal(released[name], trained[full]) for name, full in of_tokenizer.items())


@pytest.mark.slow
def test_a_run_resumed_before_or_after_it_went_back_is_the_same_and_stays_off(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)

    class Killed(BaseException):
        pass

    def killed_at(step: int) -> Any:
        batch = train_tokenizer.TokenizerStage.batch

        def killing(stage: Any, at: int) -> dict[str, Tensor]:
            if at == step:
                raise Killed
            return batch(stage, at)

        return killing

    for step in (34, 43):  # what to go back to, and that it went back, are in the checkpoint
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(train_tokenizer.TokenizerStage, "batch", killed_at(step))
            call("broken", "--steps", "60", "--resume")
    call("broken", "--steps", "60", "--resume")
    assert lines("broken") == lines("straight")
    one, other = (load_file(Path(run) / LAST / "weights.safetensors") for run in ("straight", "broken"))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    state = torch.load(Path("straight") / LAST / "state.pt", weights_only=True)
    assert state["retreat"] is None, "what nobody goes back to any more is not carried along"
    call("broken", "--steps", "70", "--resume")
    assert not [line for line in lines("broken") if line["step"] > 40 and {"train/adversarial", "note"} & set(line)]
