"""One optimizer step: in parts as at once, and what is told when numbers are no longer finite."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from tokenreel.training.step import Stepper, check_finite
from tokenreel.transformer import Conditions, GPTConfig, GPTSize, VideoGPT


class Output(NamedTuple):
    loss: Tensor
    rows: Tensor
    terms: dict[str, Tensor]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)
        self.seen: list[tuple[int, bool]] = []
        self.waits = False

    def forward(self, x: Tensor, y: Tensor) -> Output:
        self.seen.append((len(x), self.waits))
        errors = (self.layer(x)[:, 0] - y).square()
        return Output(errors.mean(), errors, {"l2": errors.mean().detach()})

    @contextmanager
    def accumulating(self) -> Iterator[None]:
        self.waits = True
        yield
        self.waits = False


def taken(parts: int) -> tuple[Net, Output, Tensor]:
    torch.manual_seed(0)
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=9.0)
    stepper = Stepper(Accelerator(cpu=True), net, optimizer, 0.1, parts, net.accumulating)
    output, norm = stepper.take({"x": torch.randn(6, 3), "y": torch.randn(6)}, 0.5, None)
    return net, output, norm


@pytest.mark.parametrize("parts", [2, 3, 6])
def test_a_step_in_parts_is_the_step_at_once(parts: int) -> None:
    (whole, output, norm), (cut, joined, its_norm) = taken(1), taken(parts)
    for one, other in zip(whole.parameters(), cut.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(joined, output)
    torch.testing.assert_close(its_norm, norm)
    assert norm > 0.2, "nothing was clipped"
    assert cut.seen == [(6 // parts, True)] * (parts - 1) + [(6 // parts, False)] and whole.seen == [(6, False)]


def test_the_check_comes_before_the_weights_change() -> None:
    told: list[Tensor] = []

    def check(loss: float, norm: float) -> None:
        told.append(torch.tensor([loss, norm]))
        raise ValueError("stop")

    torch.manual_seed(0)
    net = Net()
    before = net.layer.weight.detach().clone()
    stepper = Stepper(Accelerator(cpu=True), net, torch.optim.SGD(net.parameters()), 0.1, 2, net.accumulating)
    batch = {"x": torch.randn(6, 3), "y": torch.randn(6)}
    with pytest.raises(ValueError, match="stop"):
        stepper.take(batch, 0.5, check)
    assert torch.equal(net.layer.weight, before)
    net.zero_grad()
    output, norm = stepper.take(batch, 0.5, None)
    assert not torch.equal(net.layer.weight, before)
    torch.testing.assert_close(told[0], torch.stack([output.loss, norm]))


@pytest.mark.parametrize(
    ("loss", "norm", "weight", "message"),
    [
        (
            1.0,
            float("inf"),
            0.0,
            "the gradient of step 12 is inf.* its loss 1 and all weights are finite.*fp32.*--resume",
        ),
        (
            float("nan"),
            float("nan"),
            0.0,
            "the loss of step 12 is nan.*while all weights are finite.*--resume.*clips of that step",
        ),
        (
            float("nan"),
            0.0,
            float("nan"),
            r"1 tensors of weights, layer.bias the first,.*after step 10 and before step 12.*--resume",
        ),
    ],
)
def test_what_is_no_longer_finite_is_told_apart(loss: float, norm: float, weight: float, message: str) -> None:
    net = Net()
    nn.init.constant_(net.layer.bias, weight)
    with pytest.raises(ValueError, match=message):
        check_finite(loss, norm, net, step=12, since=10)
    check_finite(1.0, 2.0, net, step=12, since=10)


@pytest.mark.parametrize("factors", [1, 2])
def test_the_z_loss_is_trained_on_and_never_reported(factors: int) -> None:
    config = {"codebook_size": 32, "grid": (2, 2, 2), "size": GPTSize(dim=64, depth=1), "factors": factors}
    gpt, plain = (VideoGPT(GPTConfig(**config, z_loss=weight)) for weight in (0.5, 0.0))  # type: ignore[arg-type]
    for parameter in gpt.parameters():
        nn.init.normal_(parameter, std=0.5)
    plain.load_state_dict(gpt.state_dict())
    indices = torch.randint(32, (2, 2, 2, 2))
    output, reported = gpt.train()(indices), plain.train()(indices)
    torch.testing.assert_close(output.losses, reported.losses)
    torch.testing.assert_close(gpt.eval()(indices).loss, reported.losses.mean())
    tables = gpt.tables()
    hidden = gpt.hidden_states(indices, Conditions(), tables)
    if factors == 1:
        drift = (hidden @ tables.head[0].T).logsumexp(-1).square().mean()
        torch.testing.assert_close(output.loss, reported.loss + 0.5 * drift)
    assert output.loss > reported.loss + 0.1
