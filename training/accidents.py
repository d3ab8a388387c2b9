"""Taking a step, and what follows when it goes wrong: it is passed over, or the weights go back to a checkpoint."""

from typing import Any

from torch import Tensor

from tokenreel.training import ranks
from tokenreel.training.checkpoints import checkpoint_until, go_back_to
from tokenreel.training.running import Running
from tokenreel.training.step import AGAIN, check_finite

FIRST_WORDS, MORE_WORDS = 3, 100
"""Steps not taken that are told one by one; of later ones only so many apart."""


def take_step(run: Running, batch: dict[str, Tensor], step: int) -> tuple[Any, Tensor]:
    """Take a step, or pass over it where numbers are not finite; go back when that does not help."""
    ranks.seed_draws(run.settings.seed, step - 1)
    output, norm = run.stepper.take(batch, run.rate(step), lambda *found: run.watch.sound(*ranks.means(*found)))
    if run.watch.in_a_row == 0:
        run.stage.observe(output)
        if run.average is not None:
            run.average.update(run.stage.model)
        run.watch.follow(step, *ranks.means(run.stage.error(output)))
    elif run.watch.skipped <= FIRST_WORDS or run.watch.skipped % MORE_WORDS == 0:
        found = f"its loss is {output.loss.item():.4g} and its gradient {float(norm):.4g}"
        run.log.log(step, {"skipped": f"step {step} was not taken, {found} ({run.watch.skipped} such steps so far)"})
    if why := run.watch.accident():
        _go_back(run, step, why, *ranks.means(output.loss.item(), float(norm)))  # all are to find the same
    return output, norm


def _go_back(run: Running, step: int, why: str, loss: float, norm: float) -> None:
    """Bring back the weights of a checkpoint from before an accident, once in a run.

    Raises:
        ValueError: If that was done before, or there is no checkpoint.
    """
    watch, folder = run.watch, checkpoint_until(run.settings.run, run.watch.calm_step)
    if watch.went_back or folder is None:
        check_finite(loss, norm, run.stage.model, step, since=step - watch.in_a_row)
        raise ValueError(f"step {step}: {why}; lower --lr or raise --warmup, and {AGAIN}")
    go_back_to(folder, run.stage.model, run.stepper.optimizer, run.average, run.retreat)
    watch.go_back(step)
    run.log.log(
        step,
        {
            "went_back": f"{why}: the weights go back to those of {folder.name}, and training goes on with the next "
            "clips at half the learning rate; if it happens again the run ends"
        },
    )
