"""Features learnt without labels: a dictionary by spherical k-means, after Coates and Ng 2012.

Small patches are normalised and whitened; the dictionary is learnt by k-means in which each patch is a multiple of the
one atom that resembles it most, and atoms have length 1. A patch's code says how much it has of each atom.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ENCODINGS",
    "NORMALISATIONS",
    "Dictionary",
    "learn_dictionary",
    "normalise",
    "spherical_kmeans",
    "whitening",
]

Array = NDArray[np.float64]
NORMALISATIONS = ("none", "brightness", "contrast")
ENCODINGS = ("soft", "hard")
CONTRAST_FLOOR = 1e-2  # added to a patch's variance: a flat one keeps its noise small


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dictionary:
    """A learnt dictionary.

    Attributes
    ----------
    mean : ndarray, shape (values,)
        Of the normalised patches.
    whitening : ndarray, shape (values, values)
    atoms : ndarray, shape (atoms, values)
        Of length 1, in the whitened space.
    normalisation : str
        One of `NORMALISATIONS`.
    """

    mean: Array
    whitening: Array
    atoms: Array
    normalisation: str

    def encode(self, patches: Array, *, encoding: str, threshold: float = 0.0) -> Array:
        """Codes of ``patches``, shape (patches, atoms).

        ``soft``: how far the product with an atom goes beyond ``threshold``, else 0; ``hard``: 1 for the atom with the
        largest product by amount, else 0.
        """
        products = (normalise(patches, self.normalisation) - self.mean) @ self.whitening @ self.atoms.T
        if encoding == "soft":
            return np.asarray(np.maximum(0.0, products - threshold))
        if encoding == "hard":
            return np.asarray(np.eye(len(self.atoms))[np.argmax(np.abs(products), axis=1)])
        raise ValueError(f"no encoding is called {encoding!r}: there is {', '.join(ENCODINGS)}")


def normalise(patches: Array, how: str) -> Array:
    """``patches``, shape (patches, values), as they are; or each of mean 0; or of mean 0 and deviation 1."""
    if how == "none":
        return patches
    centred = patches - patches.mean(axis=1, keepdims=True)
    if how == "brightness":
        return np.asarray(centred)
    return np.asarray(centred / np.sqrt(centred.var(axis=1, keepdims=True) + CONTRAST_FLOOR))


def whitening(patches: Array, epsilon: float) -> tuple[Array, Array]:
    """Mean of ``patches`` and the matrix that whitens them and turns them back (ZCA, Bell and Sejnowski 1997).

    ``epsilon`` is added to each variance, and keeps those that are little but noise small.
    """
    mean = patches.mean(axis=0)
    centred = patches - mean
    variances, axes = np.linalg.eigh(centred.T @ centred / len(patches))
    return mean, np.asarray((axes / np.sqrt(np.maximum(variances, 0.0) + epsilon)) @ axes.T)


def spherical_kmeans(patches: Array, atoms: int, rng: np.random.Generator, *, iterations: int = 10) -> Array:
    """Atoms of length 1, shape (atoms, values), for whitened ``patches``, shape (patches, values).

    Each round a patch goes to the atom with the largest product by amount, and an atom becomes the sum of its patches
    times these products, with itself added so that it never jumps. They begin as random directions.
    """
    found = _of_length_one(rng.normal(size=(atoms, patches.shape[1])))
    rows = np.arange(len(patches))
    for _ in range(iterations):
        products = patches @ found.T
        chosen = np.argmax(np.abs(products), axis=1)
        shares = np.zeros_like(products)
        shares[rows, chosen] = products[rows, chosen]
        found = _of_length_one(shares.T @ patches + found)
    return found


def learn_dictionary(
    patches: Array, *, atoms: int, epsilon: float, normalisation: str, rng: np.random.Generator
) -> Dictionary:
    """Normalise, whiten and learn, from ``patches`` of shape (patches, values)."""
    normalised = normalise(patches, normalisation)
    mean, matrix = whitening(normalised, epsilon)
    found = spherical_kmeans((normalised - mean) @ matrix, atoms, rng)
    return Dictionary(mean=mean, whitening=matrix, atoms=found, normalisation=normalisation)


def _of_length_one(vectors: Array) -> Array:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))
