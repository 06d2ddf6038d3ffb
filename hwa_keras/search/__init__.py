"""Search: designs that trade accuracy against what the hardware takes."""

from hwa_keras.search.comparison import Comparison, compare
from hwa_keras.search.crossbar_objectives import CrossbarAccuracyPower
from hwa_keras.search.design_space import Candidate, DesignSpace
from hwa_keras.search.evaluation import Objective, Objectives
from hwa_keras.search.evolution import reevaluate, scale_ranges, search
from hwa_keras.search.predictor import Predictor
from hwa_keras.search.range_front import RangeFront, RangePoint
from hwa_keras.search.ranges import optimize_ranges
from hwa_keras.search.rank_samples import RankSamples, rank_samples
from hwa_keras.search.search_result import SearchResult, Solution
from hwa_keras.search.sizes import Choice
from hwa_keras.search.subnet_objectives import (
    DriftObjective,
    ErrorObjective,
    LatencyObjective,
    MemoryObjective,
    SpikingObjective,
    SubnetObjective,
)
from hwa_keras.search.supernets import spaces
from hwa_keras.search.supernets.architecture import ArchitectureSpace, Stage
from hwa_keras.search.supernets.supernet import Supernet

__all__ = [
    "ArchitectureSpace",
    "Candidate",
    "Choice",
    "Comparison",
    "CrossbarAccuracyPower",
    "DesignSpace",
    "DriftObjective",
    "ErrorObjective",
    "LatencyObjective",
    "MemoryObjective",
    "Objective",
    "Objectives",
    "Predictor",
    "RangeFront",
    "RangePoint",
    "RankSamples",
    "SearchResult",
    "Solution",
    "SpikingObjective",
    "Stage",
    "SubnetObjective",
    "Supernet",
    "compare",
    "optimize_ranges",
    "rank_samples",
    "reevaluate",
    "scale_ranges",
    "search",
    "spaces",
]
