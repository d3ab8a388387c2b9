"""What each process of a test in test_ranks.py does: trains a GPT in parts beside one that is whole, and compares.

torchrun --nproc_per_node 2 tests/one_rank.py FOLDER
"""

import sys
from contextlib import nullcontext
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from tokenreel.training import ranks, sharding
from tokenreel.training.checkpoints import load_checkpoint, save_checkpoint
from tokenreel.training.ema import WeightAverage
from tokenreel.training.optimizer import build_optimizer, orthogonalize
from tokenreel.training.retreat import Retreat
from tokenreel.training.settings import TrainingSettings
from tokenreel.training.step import Stepper
from tokenreel.transformer import GPTConfig, GPTSize, SamplingSettings, VideoGPT, sample_indices

CLIPS, CODES, GRID = 8, 37, (3, 2, 2)


class Learner:
    """A GPT and what trains it: in parts, or whole and on all clips in each process."""

    def __init__(self, in_parts: bool) -> None:
        torch.manual_seed(0)
        config = GPTConfig(codebook_size=CODES, grid=GRID, size=GPTSize(dim=64, depth=2), infilling=0.5)
        self.model = VideoGPT(config)
        with torch.no_grad():
            for weight in self.model.parameters():  # zeros hide mistakes
                weight.add_(torch.randn_like(weight) * 0.05)
        self.in_parts = sharding.place(self.model, torch.device("cpu"), in_parts)
        self.optimizer = build_optimizer(self.model, 1e-3, weight_decay=0.1)
        self.average, self.retreat = WeightAverage(self.model, 0.8), Retreat()
        accelerator = Accelerator(cpu=True)
        model = accelerator.prepare_model(self.model, evaluation_mode=True)
        self.stepper = Stepper(accelerator, model, self.optimizer, 0.5, 2, nullcontext)

    def step(self, number: int) -> float:
        """Train once; returns the gradient's norm."""
        draw = torch.Generator().manual_seed(number)
        indices = torch.randint(CODES, (CLIPS, *GRID), generator=draw)
        chance = torch.cat([torch.full((CLIPS, 1), number), torch.randint(1000, (CLIPS, 1), generator=draw)], dim=1)
        batch = {"indices": indices, "chance": chance}
        if self.in_parts:
            batch = {name: tensor.chunk(ranks.world_size())[ranks.rank()] for name, tensor in batch.items()}
        _, norm = self.stepper.take(batch, 1e-3, None)
        self.average.update(self.model)
        return float(norm)

    def tensors(self) -> list[Tensor]:
        """Weights, their average, and what the optimizer remembers."""
        remembered = [value for state in self.optimizer.state.values() for value in state.values() if value.ndim]
        return [*self.model.parameters(), *self.average.average.values(), *remembered]


def assert_alike(parts: Learner, whole: Learner) -> None:
    """All tensors of one that is in parts, to 1e-6."""
    for one, other in zip(sharding.whole(parts.tensors()), whole.tensors(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def learns_the_same() -> tuple[Learner, Learner]:
    """Both after a few steps, and how much of it a process holds."""
    parts, whole = Learner(in_parts=True), Learner(in_parts=False)
    for number in range(4):
        assert abs(parts.step(number) - whole.step(number)) < 1e-5
        assert_alike(parts, whole)
    held, all_of_it = (sum(sharding.own(tensor).numel() for tensor in one.tensors()) for one in (parts, whole))
    # Of an odd number of rows the first process holds one more, of a single row all.
    assert held < 1.05 * all_of_it / ranks.world_size()
    return parts, whole


def is_whole_for_a_while(parts: Learner, whole: Learner) -> None:
    """Processes run it as often as each likes, and the first alone samples, with the weights' average."""
    indices = torch.randint(CODES, (3, *GRID), generator=torch.Generator().manual_seed(9))
    models = [one.model.eval() for one in (parts, whole)]
    averages = parts.average.applied_to(parts.model), whole.average.applied_to(whole.model)
    with averages[0], averages[1], sharding.gathered(parts.model), torch.no_grad():
        for _ in range(2 * ranks.rank()):
            one, other = (model(indices).loss for model in models)
            torch.testing.assert_close(one, other)
        if ranks.is_first():
            made = [sample_indices(model, indices[:, :1], 2, SamplingSettings(), range(3)) for model in models]
            assert torch.equal(*made)
    with sharding.told_whole(parts.model, ranks.is_first()):
        if ranks.is_first():
            state = parts.model.state_dict()
            for name, tensor in whole.model.state_dict().items():
                torch.testing.assert_close(state[name], tensor, rtol=1e-5, atol=1e-6)
    for model in models:
        model.train()
    assert abs(parts.step(4) - whole.step(4)) < 1e-5
    assert_alike(parts, whole)


def goes_on_from_checkpoints(parts: Learner, whole: Learner, folder: Path) -> None:
    """Either from the other's, and back to a state that was kept."""
    saved = {}
    for name, one in (("parts", parts), ("whole", whole)):
        one.retreat.keep(one.model, one.optimizer, one.average)
        saved[name] = save_checkpoint(folder / name, 5, one.model, one.optimizer, one.average, one.retreat)
    ranks.wait_for_all()
    others = Learner(in_parts=True), Learner(in_parts=False)
    for one, name in zip(others, ("whole", "parts"), strict=True):
        assert load_checkpoint(saved[name], one.model, one.optimizer, one.average, one.retreat) == 5
    assert_alike(*others)
    for one in (parts, whole, *others):
        one.step(5)
    for one, other in ((parts, whole), others, (others[0], whole)):
        assert_alike(one, other)
    for one in others:
        one.retreat.go_back(one.model, one.optimizer, one.average)
        one.step(5)
    assert_alike(others[0], whole)
    assert_alike(*others)


def tells_what_is_not_finite(parts: Learner) -> None:
    """Everywhere, of a number that one process holds."""
    assert sharding.not_finite(parts.model) == []
    if ranks.rank() == 1:
        sharding.own(parts.model.row_embedding.weight.detach())[0, 3] = torch.nan
    assert sharding.not_finite(parts.model) == ["row_embedding.weight"]


def shares_matrices() -> None:
    """Whatever their number and shape."""
    for count, rows, columns in ((1, 8, 6), (3, 5, 7), (5, 1, 4), (4, 9, 2)):
        torch.manual_seed(count)
        model = torch.nn.Linear(columns, rows, bias=False)
        matrices = torch.randn(count, rows, columns)
        sharding.place(model, torch.device("cpu"), in_parts=True)
        parts = [sharding.own(sharding.part(matrix, like=model.weight)) for matrix in matrices]
        found = sharding.with_whole_matrices(orthogonalize, parts, like=model.weight)
        expected = [sharding.own(sharding.part(each, like=model.weight)) for each in orthogonalize(matrices)]
        torch.testing.assert_close(found, torch.stack(expected))


def main(folder: Path) -> None:
    """All of it."""
    torch.set_num_threads(1)
    ranks.join(TrainingSettings(run=folder, device="cpu"))
    shares_matrices()
    parts, whole = learns_the_same()
    is_whole_for_a_while(parts, whole)
    goes_on_from_checkpoints(parts, whole, folder)
    tells_what_is_not_finite(parts)
    ranks.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
