"""Muon and AdamW as one optimizer, its learning rate over a run, and the average of the weights."""

from copy import deepcopy
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from tokenreel.training.ema import WeightAverage
from tokenreel.training.optimizer import BETAS, EPS, MuonAdamW, build_optimizer, orthogonalize
from tokenreel.training.schedule import Schedule


class Net(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, width)
        self.mixer = nn.Conv1d(width, width, 3, padding=1, groups=width)
        self.norm = nn.RMSNorm(width)
        self.up, self.twin, self.down = nn.Linear(width, 16), nn.Linear(width, 16), nn.Linear(16, width)
        self.gate = nn.Linear(width, 1)
        self.head = nn.Linear(width, 5)

    def forward(self, indices: Tensor) -> Tensor:
        x = self.embedding(indices)
        x = x + self.mixer(x.mT).mT
        x = x + self.down(torch.relu(self.up(self.norm(x))) * self.twin(x)) * self.gate(x)
        return self.head(x)


def train_a_bit(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        indices = torch.randint(5, (4, 6))
        nn.functional.cross_entropy(model(indices).flatten(0, 1), indices.roll(1, 1).flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()


# optimizer


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 48, 16), (2, 16, 48), (1, 7, 33)])
def test_singular_values_are_pressed_to_about_one(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape) * torch.logspace(-3, 3, shape[0])[:, None, None]
    values = torch.linalg.svdvals(orthogonalize(matrices))
    assert values.min() > 0.3 and values.max() < 1.3
    assert 0.7 < values.mean() < 1.15
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    alignment = (orthogonalize(matrices) * (left @ right)).sum((1, 2)) / min(shape[1:])
    assert alignment.min() > 0.7, "not the nearest orthogonal matrix"


def test_matrices_go_to_muon_and_everything_else_to_adamw() -> None:
    model = Net()
    groups = {group["muon"]: group for group in build_optimizer(model, 1e-3, weight_decay=0.1).param_groups}
    names = {id(p): name for name, p in model.named_parameters()}
    matrices = {"up.weight", "twin.weight", "down.weight", "head.weight"}
    assert {names[id(p)] for p in groups[True]["params"]} == matrices
    assert {names[id(p)] for p in groups[False]["params"]} == set(names.values()) - matrices
    assert groups[True]["weight_decay"] == 0.1 and groups[False]["weight_decay"] == 0.0
    only = build_optimizer(nn.Linear(4, 4, bias=False), 1e-3, 0.0)
    assert [group["muon"] for group in only.param_groups] == [True]


def test_the_adamw_part_is_torchs() -> None:
    ours, theirs = nn.Parameter(torch.randn(3, 5)), nn.Parameter(torch.empty(3, 5))
    theirs.data.copy_(ours.data)
    optimizers = (
        MuonAdamW([], [ours], lr=0.01),
        torch.optim.AdamW([theirs], lr=0.01, betas=BETAS, eps=EPS, weight_decay=0.0),
    )
    for step in range(8):
        gradient = torch.randn(3, 5) * 10 ** (step - 4)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = 0.01 / (step + 1)
            optimizer.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_a_muon_step_is_orthogonal_of_adamws_size_and_decays_matrices() -> None:
    parameter = nn.Parameter(torch.ones(32, 64))
    optimizer = MuonAdamW([parameter], [], lr=0.01, weight_decay=0.5)
    parameter.grad = torch.randn(32, 64)
    optimizer.step()
    update = parameter.detach() - 0.995
    values = torch.linalg.svdvals(update) / (0.01 * 0.2 * 64**0.5)
    assert values.min() > 0.3 and values.max() < 1.3
    assert 0.1 < update.square().mean().sqrt() / 0.01 < 0.3
    assert (update * parameter.grad).sum() < 0


def test_matrices_of_one_shape_stepped_together_are_as_if_alone() -> None:
    together, alone = [nn.Parameter(torch.randn(8, 4)) for _ in range(3)], []
    for parameter in together:
        parameter.grad = torch.randn(8, 4)
        copy = nn.Parameter(parameter.detach().clone())
        copy.grad = parameter.grad.clone()
        MuonAdamW([copy], [], lr=0.1).step()
        alone.append(copy)
    MuonAdamW(together, [], lr=0.1).step()
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_an_optimizer_restored_from_its_state_goes_on_alike() -> None:
    model, copy = Net(), Net()
    optimizer = build_optimizer(model, 0.01, 0.1)
    train_a_bit(model, optimizer, 3)
    restored = build_optimizer(copy, 0.5, 0.0)
    copy.load_state_dict(model.state_dict())
    restored.load_state_dict(deepcopy(optimizer.state_dict()))
    for net, its in ((model, optimizer), (copy, restored)):
        torch.manual_seed(1)
        train_a_bit(net, its, 3)
    for one, other in zip(model.parameters(), copy.parameters(), strict=True):
        assert torch.equal(one, other)


# schedule and weight average


def test_the_rate_rises_stays_and_falls() -> None:
    schedule = Schedule(steps=100, warmup=10, decay_share=0.4, floor=0.02)
    rates = [schedule.factor(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[4] == pytest.approx(0.5)
    assert rates[9:60] == [1.0] * 51
    assert rates[80] == pytest.approx(0.02 + 0.98 * 20 / 40)
    assert rates[99] == pytest.approx(0.02 + 0.98 / 40)
    assert all(0 < later <= earlier for earlier, later in pairwise(rates[60:]))
    assert Schedule(steps=1, warmup=0, decay_share=0.0).factor(0) == 1.0


def test_a_longer_run_shares_the_steps_before_the_rate_falls() -> None:
    short, long = Schedule(steps=100, warmup=10, decay_share=0.4), Schedule(steps=150, warmup=10, decay_share=0.4)
    same = [step for step in range(100) if short.factor(step) == long.factor(step)]
    assert same == list(range(61)) and short.stable_steps == 61
    assert long.shares(61, short) and not long.shares(62, short) and short.shares(61, long)
    assert short.shares(100, short) and short.shares(100, Schedule(100, 50, 0.4)), "an accident: a longer warm-up"
    assert Schedule(steps=10, warmup=0, decay_share=0.0).stable_steps == 10


def test_the_weight_average() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = WeightAverage(model, decay=0.5)
    expected = 0.0
    for step in range(1, 30):
        nn.init.constant_(model.weight, float(step))
        average.update(model)
        decay = min(0.5, step / (step + 9))
        expected = decay * expected + (1 - decay) * step
    assert average.average["weight"].item() == pytest.approx(expected)
    with pytest.raises(RuntimeError, match="stop"), average.applied_to(model):
        assert model.weight.item() == pytest.approx(expected)
        raise RuntimeError("stop")
    assert model.weight.item() == 29.0
    with pytest.raises(ValueError, match=r"ema_decay 1.0: expected 0 \(off\) or a value below 1"):
        WeightAverage(model, 1.0)
