"""A recurrent encoder-decoder with attention that translates sentences (Cho et al. 2014; Luong et al. 2015)."""

from __future__ import annotations

from typing import Any

__all__ = ["attention_of", "translator"]


def translator(
    *,
    words: tuple[int, int],
    lengths: tuple[int, int],
    units: int = 48,
    embedding: int = 32,
    layers: int = 1,
    dropout: float = 0.1,
) -> Any:
    """Build a network.

    Parameters
    ----------
    words, lengths : tuple of int
        Words of both vocabularies, longest sentences of both languages. Word 0 is padding.
    units : int
        Of each direction of the encoder's layers; the decoder's have twice as many.
    embedding : int
        Dimensions of a word.
    layers : int
        Gated recurrent layers of encoder and decoder.
    dropout : float
        Share of the features before the last layer that is dropped at each training step.

    Returns
    -------
    keras.Model
        From (batch, ``sum(lengths)``), the numbers of the source's words and behind them those of the translation so far,
        begun with the sign for its begin, to logits (batch, ``lengths[1]``, ``words[1]``) of each next word.
    """
    from tensorflow import keras

    ops, make = keras.ops, keras.layers
    inputs = keras.Input((sum(lengths),))
    numbers = ops.cast(inputs, "int32")
    source, target = numbers[:, : lengths[0]], numbers[:, lengths[0] :]
    there = ops.cast(ops.not_equal(source, 0), "float32")

    encoded = make.Embedding(words[0], embedding)(source)
    for _ in range(layers):
        encoded = make.Bidirectional(make.GRU(units, return_sequences=True))(encoded)
    weights = ops.expand_dims(there, -1)
    summary = ops.sum(encoded * weights, axis=1) / ops.maximum(ops.sum(weights, axis=1), 1.0)

    decoded = make.Embedding(words[1], embedding)(target)
    for _ in range(layers):
        begin = make.Dense(2 * units, activation="tanh")(summary)
        decoded = make.GRU(2 * units, return_sequences=True)(decoded, initial_state=begin)
    # Luong's "general" score; words of padding are out of it.
    scores = ops.matmul(make.Dense(2 * units, use_bias=False)(decoded), ops.transpose(encoded, (0, 2, 1)))
    attention = make.Softmax(name="attention")(scores + (ops.expand_dims(there, 1) - 1.0) * 1e9)
    context = ops.matmul(attention, encoded)
    joined = make.Dense(2 * units, activation="tanh")(make.Concatenate()([context, decoded]))
    return keras.Model(inputs, make.Dense(words[1])(make.Dropout(dropout)(joined)))


def attention_of(model: Any) -> Any:
    """The model that gives a translator's attention: (batch, ``lengths[1]``, ``lengths[0]``), a row's sum is 1."""
    from tensorflow import keras

    return keras.Model(model.inputs, model.get_layer("attention").output)
