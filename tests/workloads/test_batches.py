"""The input pipeline: epochs drawn ahead, in their order, and none of it to be seen in what a training is."""

from __future__ import annotations

import contextlib
import threading

import numpy as np
import pytest

from workloads.errors import WorkloadError
from workloads.training.batches import Arrays, Epoch, epochs_ahead

pytestmark = pytest.mark.tensorflow


def numbers(rng: np.random.Generator, count: int = 5) -> Arrays:
    drawn = rng.normal(size=(count, 2)).astype(np.float32)
    return drawn, drawn[:, :1]


def values(epoch: Epoch) -> list[list[float]]:
    return [np.asarray(inputs)[:, 0].tolist() for inputs, _ in epoch.batches]


def test_batches_have_the_samples_in_their_order_and_the_last_one_may_be_short() -> None:
    rng, again = np.random.default_rng(4), np.random.default_rng(4)
    found = [
        values(epoch)
        for epoch in epochs_ahead(lambda _: numbers(rng), first=1, last=3, batch_size=2, generators={"data": rng})
    ]
    assert [[len(batch) for batch in epoch] for epoch in found] == [[2, 2, 1]] * 3
    assert [[value for batch in epoch for value in batch] for epoch in found] == [
        numbers(again)[0][:, 0].tolist() for _ in range(3)
    ]


def test_the_next_epoch_is_drawn_while_this_one_trains_and_no_further() -> None:
    drawn = {number: threading.Event() for number in range(1, 6)}

    def draw(number: int) -> Arrays:
        drawn[number].set()
        return np.zeros((2, 1), np.float32), np.zeros((2, 1), np.float32)

    with contextlib.closing(epochs_ahead(draw, first=2, last=4, batch_size=2, generators={})) as epochs:
        first = next(epochs)
        assert first.number == 2
        assert drawn[3].wait(timeout=60.0)
        assert not drawn[4].is_set()
        assert [epoch.number for epoch in epochs] == [3, 4]
    assert not drawn[5].is_set()


def test_an_epoch_knows_where_the_generators_stood_when_it_was_drawn() -> None:
    rng, again = np.random.default_rng(1), np.random.default_rng(1)
    for epoch in epochs_ahead(lambda _: numbers(rng), first=1, last=3, batch_size=2, generators={"data": rng}):
        numbers(again)
        assert epoch.random["generators"]["data"] == again.bit_generator.state


def test_what_goes_wrong_in_drawing_is_told_as_it_was() -> None:
    def draw(number: int) -> Arrays:
        if number == 2:
            raise WorkloadError("case_7.nii.gz: holds no voxel")
        return np.zeros((2, 1), np.float32), np.zeros((2, 1), np.float32)

    epochs = epochs_ahead(draw, first=1, last=9, batch_size=2, generators={})
    assert next(epochs).number == 1
    with pytest.raises(WorkloadError, match=r"case_7\.nii\.gz: holds no voxel"):
        next(epochs)


def test_a_training_that_is_over_draws_nothing() -> None:
    assert not list(epochs_ahead(lambda _: pytest.fail("drawn"), first=4, last=3, batch_size=2, generators={}))
