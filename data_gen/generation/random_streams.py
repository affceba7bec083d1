"""Random numbers of a sample. They depend on the dataset's seed, the split and the sample's index alone."""

from __future__ import annotations

import numpy as np

# Every other test set (half or double resolution, longer, out of distribution) draws from test's stream, so that its
# samples are paired with those of test.
STREAMS = {"train": 0, "valid": 1, "test": 2}


def stream(split: str) -> int:
    """Number of the random stream that a split draws from.

    Raises:
        ValueError: the split is not train, valid, test or test_<something>.
    """
    if split.startswith("test_"):
        return STREAMS["test"]
    if split not in STREAMS:
        raise ValueError(f"Unknown split {split!r}: use train, valid, test or test_<name>.")
    return STREAMS[split]


def generator(seed: int, split: str, index: int) -> np.random.Generator:
    """The random generator of one sample."""
    sequence = np.random.SeedSequence(seed, spawn_key=(stream(split), index))
    return np.random.Generator(np.random.Philox(sequence))
