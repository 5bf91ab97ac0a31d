"""A training that can be ended early and taken up again: a line of many slopes, fitted by noisy gradient descent.

It keeps all that the next step depends on: weights, velocity, and the state of its random numbers. A training that
was paused so equals one that was not, to the last bit.
"""

import json
import os
import random
from collections.abc import Sequence

from orchestrator import trial

Row = tuple[list[float], float]
State = tuple[int, list[float], list[float], random.Random]

SIZE = 12


def example(rng: random.Random) -> Row:
    """One row of data: what goes in, and what should come out."""
    x = [rng.gauss(0, 1) for _ in range(SIZE)]
    return x, sum((index + 1) * value for index, value in enumerate(x)) + rng.gauss(0, 0.5)


def fault(weights: Sequence[float], row: Row) -> float:
    """By how much a row's value is missed."""
    x, y = row
    return sum(weight * value for weight, value in zip(weights, x, strict=True)) - y


def restore() -> State:
    """Epochs done, weights, velocity, random numbers: those of the latest checkpoint, or those of the beginning."""
    rng = random.Random(trial.seed() or 0)
    found = trial.latest_checkpoint()
    if found is None:
        return 0, [0.0] * SIZE, [0.0] * SIZE, rng
    with open(os.path.join(found[1], "state.json"), encoding="utf-8") as stream:
        state = json.load(stream)
    version, numbers, gauss = state["random"]
    rng.setstate((version, tuple(numbers), gauss))
    return found[0], state["weights"], state["velocity"], rng


def save(state: State) -> None:
    """Keep the state, whole or not at all."""
    epoch, weights, velocity, rng = state
    with trial.new_checkpoint(epoch) as folder, open(os.path.join(folder, "state.json"), "w", encoding="utf-8") as file:
        json.dump({"weights": weights, "velocity": velocity, "random": rng.getstate()}, file)


def main() -> None:
    """Train for as many epochs as the parameters say, or until somebody asks for an end."""
    p = trial.params()
    valid = [example(random.Random(f"valid {index}")) for index in range(200)]
    done, weights, velocity, rng = restore()
    loss = float("nan")
    for epoch in range(done + 1, p["epochs"] + 1):
        for _ in range(p["rows"]):
            row = example(rng)
            miss = fault(weights, row)
            velocity = [
                p["momentum"] * v - p["learning_rate"] * miss * x for v, x in zip(velocity, row[0], strict=True)
            ]
            weights = [max(-1e6, min(1e6, w + v)) for w, v in zip(weights, velocity, strict=True)]
        loss = sum(fault(weights, row) ** 2 for row in valid) / len(valid)
        trial.report(epoch, loss)
        if epoch < p["epochs"] and trial.should_stop():
            save((epoch, weights, velocity, rng))
            if trial.stop_reason() == "walltime":
                trial.requeue()
            break
    trial.finish(loss=loss)


if __name__ == "__main__":
    main()
