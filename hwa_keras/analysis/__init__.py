"""Analysis: what a run found, for people to read."""

from hwa_keras.analysis.report import report

__all__ = ["report"]
