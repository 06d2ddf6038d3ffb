"""Results: estimates, tables, figures, files and the page of a run."""

from hwa_keras.core.files import write_whole
from hwa_keras.results.axis import Axis
from hwa_keras.results.estimates import Estimate, estimate, proportion
from hwa_keras.results.files import write_json, write_text
from hwa_keras.results.page import Section, report
from hwa_keras.results.result import Result
from hwa_keras.results.tabular import Tabular

__all__ = [
    "Axis",
    "Estimate",
    "Result",
    "Section",
    "Tabular",
    "estimate",
    "proportion",
    "report",
    "write_json",
    "write_text",
    "write_whole",
]
