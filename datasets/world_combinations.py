"""Which balls a clip of the world `balls` may hold, and which combinations of colours are kept from training."""

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

MOST_BALLS = 3

Combination = tuple[str, ...]
"""Names of colours, in the order of the world's colours; a name comes as often as there are balls of it."""


def all_combinations(colors: Sequence[str], twins: bool) -> list[Combination]:
    """Every combination of one to three balls.

    Args:
        colors: Names of the colours.
        twins: Whether several balls may have one colour.
    """
    chosen = itertools.combinations_with_replacement if twins else itertools.combinations
    return [balls for n in range(1, MOST_BALLS + 1) for balls in chosen(colors, n)]


def drawn_combination(rng: np.random.Generator, combinations: Sequence[Combination]) -> Combination:
    """Draw one combination.

    There are many more combinations of three balls than single balls. With equal odds for each combination single
    balls would be rare, with equal odds for each number of balls three balls would be learned badly; the number
    is drawn by the root of how many combinations it has, halfway between.
    """
    by_number: defaultdict[int, list[Combination]] = defaultdict(list)
    for balls in combinations:
        by_number[len(balls)].append(balls)
    groups = list(by_number.values())
    odds = np.sqrt([len(group) for group in groups])
    group = groups[rng.choice(len(groups), p=odds / odds.sum())]
    return group[rng.integers(len(group))]


def held_out_combinations(combinations: Sequence[Combination], share: float, seed: int) -> list[Combination]:
    """Choose combinations that training is not to see.

    What remains still shows every colour alone, in every number of balls and in every number of its own
    kind: what is held out is new only as a combination.

    Args:
        combinations: All of them.
        share: Share of the combinations of two balls, and of those of three, more than 0 and less than 1.
        seed: Same seed, same choice.

    Raises:
        ValueError: If the share is out of range, or more than can be held out.
    """
    if not 0 < share < 1:
        raise ValueError(f"hold_out is {share}; expected a share between 0 and 1, such as 0.2")
    rng = np.random.default_rng([seed, len(combinations)])
    shown = Counter(fact for balls in combinations for fact in _facts(balls))
    held_out: list[Combination] = []
    for n in range(2, MOST_BALLS + 1):
        group = [balls for balls in combinations if len(balls) == n]
        wanted, taken = max(1, round(share * len(group))), 0
        for i in rng.permutation(len(group)):
            facts = _facts(group[i])
            if taken < wanted and all(shown[fact] > 1 for fact in facts):
                shown.subtract(facts)
                held_out.append(group[i])
                taken += 1
        if taken < wanted:
            raise ValueError(
                f"hold_out is {share}, which is {wanted} combinations of {n} balls; expected at most "
                f"{math.floor(100 * taken / len(group)) / 100}, else a colour would never be seen in training"
            )
    order = {balls: place for place, balls in enumerate(combinations)}
    return sorted(held_out, key=order.__getitem__)


def options_by_split(
    colors: Sequence[str], options: Mapping[str, Any], seed: int
) -> tuple[dict[str, dict[str, Any]], dict[str, list[list[str]]]]:
    """Turn the option `hold_out` of a world into what the clips of each split are drawn from.

    Args:
        colors: Names of the colours.
        options: Of the world; `hold_out` is taken out, 0 or none holds nothing out.
        seed: Of the world.

    Returns:
        The options of a clip in "train" and in "val", and what `world.json` adds: `held_out`, lists of names.

    Raises:
        ValueError: As :func:`held_out_combinations`.
    """
    plain = {name: value for name, value in options.items() if name != "hold_out"}
    if not options.get("hold_out"):
        return {"train": plain, "val": plain}, {}
    everything = all_combinations(colors, plain.get("twins", False))
    held_out = held_out_combinations(everything, options["hold_out"], seed)
    shown = [balls for balls in everything if balls not in held_out]
    by_split = {"train": plain | {"combinations": shown}, "val": plain | {"combinations": held_out}}
    return by_split, {"held_out": [list(balls) for balls in held_out]}


def caption(balls: Sequence[str]) -> str:
    """What is to be seen, such as "two red balls and a green ball"."""
    words = {2: "two {} balls", 3: "three {} balls"}
    single = {name: f"{'an' if name[0] in 'aeiou' else 'a'} {name} ball" for name in balls}
    parts = [words.get(number, single[name]).format(name) for name, number in Counter(balls).items()]
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _facts(balls: Combination) -> list[tuple[str, str, int]]:
    """What a combination shows of each colour: the number of balls it is among, and how many are of its kind."""
    own = Counter(balls)
    return [(name, "among", len(balls)) for name in own] + [(name, "own", number) for name, number in own.items()]
