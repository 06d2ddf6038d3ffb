"""m_sharpness: how much the loss rises within a neighborhood of the weights."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from hwa_keras import backend
from hwa_keras.core.checks import check_count
from hwa_keras.core.substitution import stateless
from hwa_keras.core.types import Data
from hwa_keras.results import Estimate, estimate
from hwa_keras.training.perturbation import SCALED, Perturbation

__all__ = ["m_sharpness"]


def m_sharpness(
    model: keras.Model,
    data: Data,
    method: str = "sam",
    rho: float | None = None,
    eta: float = 0.01,
    norm: float | str = 2,
    scaled: Sequence[str] | Callable[[Any], bool] = SCALED,
    m: int = 128,
) -> Estimate:
    """Measure by how much the loss rises at the worst point of a neighborhood.

    The mean over batches S of m examples of L_S(W + ε) − L_S(W), in which a rest of
    fewer examples counts for as much less. L_S is the mean loss of a batch and ε its
    own worst perturbation to first order, as a `SharpnessAwareModel` looks for it. The
    model is evaluated as at inference: moving statistics, no dropout and no noise. On
    hardware, the trained weights behind the
    quantized ones are moved.

    Args:
        model: A compiled Keras model, whose loss is L, penalties of the weights
            included.
        data: A pair `(x, y)` of arrays, or an iterable of batches `(x, y)`, such as a
            `tf.data.Dataset` or an iterator; not a list of them.
        method: `"sam"`, `"asam"` or `"samson"`. Defaults to `"sam"`.
        rho: Float > 0, the size of the neighborhood. Defaults to that of the method.
        eta: Float ≥ 0. Defaults to `0.01`.
        norm: 2 or `"inf"`. Defaults to `2`.
        scaled: Which variables the method scales. See `training.Perturbation`, where
            all of these are explained.
        m: Integer ≥ 1, the number of examples in a batch, for arrays. Defaults to
            `128`.

    Returns:
        An `Estimate` over the batches, whose `mean` is the m-sharpness.

    Raises:
        ValueError: If the model is not compiled or has nothing to move, there is no
            data, or an argument is out of its range.

    Example:
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
        >>> model.compile("sgd", "mse")
        >>> data = np.ones((4, 8)), np.zeros((4, 3))
        >>> found = hwa_keras.analysis.m_sharpness(model, data, "samson", rho=0.5, m=2)
        >>> found.count, found.mean > 0
        (2, True)

    Reference:
        - Foret et al., 2021, arXiv:2010.01412; S. Henwood, PhD thesis, Polytechnique
          Montréal, 2024, equations 3.24 and 5.5.
    """
    perturbation = Perturbation(method, rho, eta, norm, scaled)
    if not model.compiled:
        raise ValueError(
            f"The model '{model.name}' is not compiled. Call model.compile(loss=...) "
            "first: sharpness is that of its loss."
        )
    variables = model.trainable_variables
    if not variables:
        raise ValueError(
            f"The model '{model.name}' has no trainable weights to move. A chip has "
            "none; measure the model that it was made from."
        )
    rises = backend.traced(_rise(model, perturbation))
    weights = [v.value for v in variables]
    found, sizes = [], []
    for x, y in _batches(data, m):
        found.append(float(ops.convert_to_numpy(rises(weights, x, y))))
        sizes.append(len(keras.tree.flatten(y)[0]))
    if not found:
        raise ValueError("`data` is empty: there is no batch to measure on.")
    return estimate(found, weights=sizes)


def _rise(model, perturbation):
    """A function from weights and a batch to L(W + ε) − L(W)."""
    variables = model.trainable_variables
    scaled = [perturbation.is_scaled(v) for v in variables]

    def rise(weights, x, y):
        def loss_at(points):
            def forward():
                y_pred = model(x, training=False)
                return model.compute_loss(x, y, y_pred, None, training=False)

            values = list(zip(variables, points, strict=True))
            return stateless(model, values, forward, model.metrics_variables)[0], None

        (loss, _), gradients = backend.value_and_gradient(loss_at, list(weights))
        epsilons = perturbation(weights, gradients, scaled)
        worst, _ = loss_at(
            [w if e is None else w + e for w, e in zip(weights, epsilons, strict=True)]
        )
        return worst - loss

    return rise


def _batches(data, m):
    if not isinstance(data, (tuple, list)):
        yield from (batch[:2] for batch in data)
        return
    if len(data) != 2:
        raise ValueError(f"`data` must be a pair (x, y). Received {len(data)} parts.")
    check_count("m_sharpness", m=m)
    size = len(keras.tree.flatten(data[0])[0])
    for start in range(0, size, m):
        yield keras.tree.map_structure(
            lambda t, i=start: ops.convert_to_tensor(t[i : i + m]), tuple(data)
        )
