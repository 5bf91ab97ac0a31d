"""The whole state of a Keras training, so that one that is taken up again equals one that was never interrupted.

That is: model, optimizer with its step and moments, the learning rate be it a schedule or a number,
epoch, random generators of Python, NumPy, TensorFlow and the model's own layers.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from orchestrator import trial
from workloads.errors import WorkloadError
from workloads.training.checkpoint import Checkpoints, State, numpy_states, set_random_state

if TYPE_CHECKING:
    from keras.callbacks import Callback

__all__ = ["capture", "checkpoint_callback", "restore"]


def capture(
    model: Any,
    optimizer: Any,
    *,
    step: int,
    generators: Mapping[str, Any],
    facts: Mapping[str, Any],
    random: Mapping[str, Any] | None = None,
) -> State:
    """Take the state of a training after ``step`` epochs.

    Parameters
    ----------
    generators : mapping
        Further generators that the training draws from, by name: NumPy's, `tf.random.Generator`,
        `keras.random.SeedGenerator`.
    facts : mapping
        What else is to be known when it goes on, as JSON.
    random : mapping, optional
        Where the global generators and those of NumPy stood, as `checkpoint.numpy_states` has it; now unless it is given.
    """
    arrays = {f"model-{index}": _array(variable) for index, variable in enumerate(model.variables)}
    arrays |= {f"optimizer-{index}": _array(variable) for index, variable in enumerate(optimizer.variables)}
    arrays |= {
        f"generator-{name}": _array(generator.state)
        for name, generator in generators.items()
        if not isinstance(generator, np.random.Generator)
    }
    return State(step=step, arrays=arrays, facts={**facts, **(random or numpy_states(generators))})


def restore(state: State, model: Any, optimizer: Any, *, generators: Mapping[str, Any]) -> None:
    """Set a training to a state that `capture` took; model and optimizer must be built.

    Raises
    ------
    WorkloadError
        If the state is of another network or optimizer.
    """
    own = [(f"model-{index}", variable) for index, variable in enumerate(model.variables)]
    own += [(f"optimizer-{index}", variable) for index, variable in enumerate(optimizer.variables)]
    own += [
        (f"generator-{name}", generator.state)
        for name, generator in generators.items()
        if not isinstance(generator, np.random.Generator)
    ]
    shapes = {name: tuple(variable.shape) for name, variable in own}
    if shapes != {name: array.shape for name, array in state.arrays.items()}:
        raise WorkloadError(
            "the checkpoint is of another network or optimizer", hint="remove the trial's folder checkpoint/"
        )
    for name, variable in own:
        variable.assign(state.arrays[name])
    for name, numbers in state.facts["generators"].items():
        generators[name].bit_generator.state = numbers
    set_random_state(state.facts["random"])


def checkpoint_callback(
    checkpoints: Checkpoints,
    *,
    epochs: int,
    generators: Mapping[str, Any] | None = None,
    also: Sequence[Callback] = (),
) -> tuple[Callback, int]:
    """Let ``fit`` go on where the trial's last attempt left it.

    ::

        callback, done = checkpoint_callback(checkpoints, epochs=60, also=[plateau])
        model.fit(data, epochs=60, initial_epoch=done, callbacks=[plateau, callback])

    The callback comes last of all. It saves after an epoch when that is due, or the trial is to
    stop: ahead of the walltime the program then ends and asks for another attempt (exit code 85);
    for any other reason `fit` ends. A walltime warning must be longer than an epoch.

    Parameters
    ----------
    generators : mapping, optional
        As in `capture`: what the order and the augmentation of the data are drawn from.
    also : sequence of keras.callbacks.Callback
        Callbacks that remember something (ReduceLROnPlateau, EarlyStopping): their numbers and
        arrays are saved too.

    Returns
    -------
    callback : keras.callbacks.Callback
    done : int
        Epochs that are done already.
    """
    from keras.callbacks import Callback

    drawn_from = dict(generators or {})
    known = checkpoints.load()

    class _Checkpoint(Callback):  # type: ignore[misc]  # Keras is not typed
        def on_train_begin(self, _logs: Any = None) -> None:
            # The others have just forgotten what they knew, and what `fit` sets up has drawn what it draws.
            if known is not None:
                memories, state = _split(known)
                self.model.optimizer.build(self.model.trainable_variables)
                restore(state, self.model, self.model.optimizer, generators=drawn_from)
                for callback, memory in zip(also, memories, strict=True):
                    vars(callback).update(memory)

        def on_epoch_end(self, epoch: int, _logs: Any = None) -> None:
            reason = trial.stop_reason()
            if reason or checkpoints.due:
                state = capture(self.model, self.model.optimizer, step=epoch + 1, generators=drawn_from, facts={})
                checkpoints.save(_joined(state, also))
            if reason == "walltime" and epoch + 1 < epochs:
                trial.requeue()
            if reason:
                self.model.stop_training = True

    return _Checkpoint(), known.step if known is not None else 0


def _array(variable: Any) -> NDArray[Any]:
    array = np.asarray(variable)
    # Files of NumPy know neither bfloat16 nor float8; float32 holds each of their numbers exactly.
    return array if array.dtype.isbuiltin == 1 else array.astype(np.float32)


def _joined(state: State, also: Sequence[Callback]) -> State:
    """``state`` and what other callbacks remember."""
    arrays, facts = dict(state.arrays), []
    for index, callback in enumerate(also):
        numbers: dict[str, Any] = {}
        # Its settings it has already; and some callbacks change them as they begin, from one sign to the other.
        settings = inspect.signature(type(callback).__init__).parameters
        for name, remembered in vars(callback).items():
            if name.startswith("_") or name in {"params", "model", *settings}:
                continue
            value = remembered.item() if isinstance(remembered, np.generic) else remembered
            if value is None or isinstance(value, bool | int | float | str):
                numbers[name] = value
            elif isinstance(value, list) and value and all(isinstance(each, np.ndarray) for each in value):
                arrays |= {f"callback-{index}-{name}-{place}": each for place, each in enumerate(value)}
        facts.append(numbers)
    return State(step=state.step, arrays=arrays, facts={**state.facts, "callbacks": facts})


def _split(state: State) -> tuple[list[dict[str, Any]], State]:
    """What other callbacks remembered, and the rest."""
    memories = [dict(numbers) for numbers in state.facts["callbacks"]]
    for key in sorted(key for key in state.arrays if key.startswith("callback-")):
        _, index, name, place = key.split("-")
        values = memories[int(index)].setdefault(name, {})
        values[int(place)] = state.arrays[key]
    for numbers in memories:
        for name, value in numbers.items():
            if isinstance(value, dict):
                numbers[name] = [value[place] for place in sorted(value)]
    arrays = {key: array for key, array in state.arrays.items() if not key.startswith("callback-")}
    return memories, State(step=state.step, arrays=arrays, facts=state.facts)
