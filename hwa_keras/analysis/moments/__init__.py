"""Moments: means and covariances of tensors, carried through the layers of a model.

`propagation` walks the steps that `graph` finds, `rules` says what each does to a
`joint` of tensors, whose `covariance` is instantiated late; `noise` is what the random
weights of a product add, `rectifier` what a ReLU does.
"""

from hwa_keras.analysis.moments.propagation import output_moments, propagated

__all__ = ["output_moments", "propagated"]
