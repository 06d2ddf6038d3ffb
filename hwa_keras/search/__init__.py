"""Search: designs that trade accuracy against what the hardware takes."""

from hwa_keras.search.range_front import RangeFront, RangePoint
from hwa_keras.search.ranges import optimize_ranges

__all__ = ["RangeFront", "RangePoint", "optimize_ranges"]
