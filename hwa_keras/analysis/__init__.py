"""Analysis: what a run found, for people to read."""

from hwa_keras.analysis.report import Section, report

__all__ = ["Section", "report"]
