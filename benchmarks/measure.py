"""Measure two things side by side, and say on what."""

import os
import platform
import resource
import statistics
import time

import keras
import numpy as np

import hwa_keras


def describe():
    """The machine and the versions, in one line."""
    backend = keras.backend.backend()
    version = __import__(backend).__version__
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else "?"
    return (
        f"{platform.machine()}, {cores} cores, Python {platform.python_version()}, "
        f"{backend} {version}, Keras {keras.__version__}, NumPy {np.__version__}, "
        f"hwa_keras {hwa_keras.__version__}"
    )


def seconds(function):
    """Wall-clock time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def side_by_side(plain, other, repeats, warmup=2):
    """Medians of two calls measured in turn, and the median of their ratios.

    Returns:
        Seconds of `plain`, seconds of `other`, and other / plain.
    """
    for _ in range(warmup):
        plain()
        other()
    pairs = [(seconds(plain), seconds(other)) for _ in range(repeats)]
    medians = [statistics.median(column) for column in zip(*pairs, strict=True)]
    return *medians, statistics.median(b / a for a, b in pairs)


def peak_memory():
    """Largest resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024


def row(what, plain, other, ratio, bound):
    """One line of a table of ratios; times in seconds."""
    return (
        f"{what:<58} {1e3 * plain:>9.2f} {1e3 * other:>9.2f} {ratio:>7.2f} {bound:>6}"
    )


HEADER = f"{'what':<58} {'plain ms':>9} {'other ms':>9} {'ratio':>7} {'bound':>6}"
