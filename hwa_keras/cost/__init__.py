"""What a model costs: parameters, memory and operations by their bits."""

from hwa_keras.cost.counting import summary
from hwa_keras.cost.result import LayerSummary, ModelSummary

__all__ = ["LayerSummary", "ModelSummary", "summary"]
