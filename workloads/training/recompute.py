"""A network that computes its blocks a second time on the way back, and keeps nothing but what goes into them.

Gradient checkpointing (Chen et al. 2016) at the cost of another pass forwards. It works on any network of Keras'
functional kind, whose own form and file stay what they are. (`keras.RematScope` works layer by layer, so that it keeps
what goes into every layer, and fails in a graph of TensorFlow.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["recomputed"]

IN_A_BLOCK = 2  # convolutions: what is computed again at once is in memory at once
KEPT = 3  # convolutions at the end, needed first on the way back: to compute them again would save nothing


@dataclass(frozen=True, slots=True)
class _Block:
    """Operations one after the other: only the first has several inputs, and only the last one's output goes elsewhere."""

    operations: list[Any]

    @property
    def inputs(self) -> list[Any]:
        return _tensors(self.operations[0].input)

    @property
    def output(self) -> Any:
        return self.operations[-1].output

    @property
    def convolutions(self) -> int:
        return sum(map(_has_kernel, self.operations))

    def grows_by(self, operation: Any) -> bool:
        """Whether the whole could still be computed again at once; what draws or counts must not be computed twice."""
        return not (_has_state(operation) or _has_state(self.operations[-1])) and (
            self.convolutions + _has_kernel(operation) <= IN_A_BLOCK
        )

    def function(self, *, again: bool) -> Callable[..., Any]:
        """What it computes, of its inputs; ``again`` on the way back if so asked."""
        import tensorflow as tf
        from tensorflow import keras

        first = self.operations[0]
        if _has_state(first):
            return lambda *tensors: first(*tensors, training=True)
        graph = keras.Function(self.inputs, self.output)

        def compute(*tensors: Any) -> Any:
            return graph(list(tensors))

        return tf.recompute_grad(compute) if again else compute


def recomputed(model: Any) -> Callable[[Any], Any]:
    """``model`` in training, as a function of its input, whose gradient computes blocks of it again.

    Parameters
    ----------
    model : keras.Model
        Of one input and one output, made of layers that are used once each. What has random numbers or running
        means (dropout, batch normalisation) is not computed again.
    """
    blocks: list[tuple[_Block, Callable[..., Any]]] = []
    behind = 0  # convolutions
    for block in reversed(_blocks(model)):
        blocks.append((block, block.function(again=bool(block.convolutions) and behind >= KEPT)))
        behind += block.convolutions

    def forward(inputs: Any) -> Any:
        values = {id(model.inputs[0]): inputs}
        for block, function in reversed(blocks):
            values[id(block.output)] = function(*(values[id(each)] for each in block.inputs))
        return values[id(model.outputs[0])]

    return forward


def _blocks(model: Any) -> list[_Block]:
    """The operations of ``model`` in blocks, in an order in which they can be computed."""
    from tensorflow import keras

    operations = [
        each
        for each in keras.Function(model.inputs, model.outputs).operations
        if not isinstance(each, keras.layers.InputLayer)
    ]
    uses = Counter(id(tensor) for each in operations for tensor in _tensors(each.input))
    uses.update(id(tensor) for tensor in model.outputs)
    blocks: list[_Block] = []
    of_output: dict[int, _Block] = {}
    for operation in operations:
        inputs = _tensors(operation.input)
        before = of_output.get(id(inputs[0])) if len(inputs) == 1 and uses[id(inputs[0])] == 1 else None
        if before is not None and before.grows_by(operation):
            before.operations.append(operation)
            block = before
        else:
            block = _Block([operation])
            blocks.append(block)
        of_output[id(operation.output)] = block
    return blocks


def _tensors(found: Any) -> list[Any]:
    return list(found) if isinstance(found, list | tuple) else [found]


def _has_kernel(operation: Any) -> bool:
    return hasattr(operation, "kernel")


def _has_state(operation: Any) -> bool:
    return bool(getattr(operation, "non_trainable_variables", ()))
