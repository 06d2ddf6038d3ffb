"""Predictor: a small network in place of objectives that take long."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

import keras
import numpy as np
from scipy import stats

from hwa_keras.core.checks import check_count
from hwa_keras.search.design_space import Candidate, DesignSpace
from hwa_keras.search.evaluation import Evaluation, as_objectives, failed

__all__ = ["Predictor"]


class Predictor:
    """Objectives that a network predicts, after it has learned from candidates.

    Three layers of 400 units with ReLU and a linear one, on the options of the choices
    one-hot and the multipliers. It is an objective itself, for `search`.

    Args:
        space: A `DesignSpace`.
        objectives: The objectives to predict, one or a list.
        units: Integer ≥ 1, of each layer. Defaults to `400`.
        layers: Integer ≥ 1. Defaults to `3`.

    Attributes:
        error: Dictionary from the names of objectives to what `fit` found on candidates
            that it held out: `rmse`, `mae`, `range` (of the values) and `spearman`, the
            rank correlation.

    Example:
        >>> from hwa_keras.search import Choice, DesignSpace, Objective, Predictor
        >>> class Depths:
        ...     layers = ("first", "second")
        ...     choices = (Choice("depth", (1, 2)),)
        ...     def encode(self, config): return [config["depth"] - 1]
        ...     def decode(self, indices): return {"depth": int(indices[0]) + 1}
        ...     def sample(self, rng): return {"depth": int(rng.integers(1, 3))}
        ...     def active(self, config): return np.arange(2) < config["depth"]
        >>> space = DesignSpace(Depths())
        >>> power = Objective(lambda c: {"power": sum(c.multipliers)}, {"power": "min"})
        >>> predictor = Predictor(space, power, units=16)
        >>> candidates = space.latin_hypercube(architectures=2, ranges=20)
        >>> predictor.fit(candidates, epochs=50, batch_size=8, verbose=0)
        >>> predictor.error["power"]["spearman"] > 0.8
        True

    Reference:
        - S. Henwood, PhD thesis, Polytechnique Montréal, 2024, annex C.
    """

    def __init__(
        self, space: DesignSpace, objectives: Any, units: int = 400, layers: int = 3
    ) -> None:
        check_count("Predictor", units=units, layers=layers)
        self.space = space
        self.objectives = as_objectives(objectives)
        self.units, self.layers = units, layers
        self.error: dict[str, Any] | None = None
        self._model: Any = None

    @property
    def directions(self) -> Mapping[str, str]:
        """Those of the objectives."""
        return self.objectives.directions

    def fit(
        self,
        candidates: Sequence[Candidate],
        values: Sequence[Mapping[str, float]] | None = None,
        epochs: int = 200,
        batch_size: int = 256,
        held_out: float = 0.2,
        learning_rate: float = 0.01,
        seed: int = 0,
        executor: Executor | None = None,
        verbose: int | str = 1,
    ) -> None:
        """Learn from candidates; those that fail are left out.

        SGD with momentum 0.9 on the mean squared error, the learning rate divided by 10
        on a plateau. Values are scaled to [0, 1], so that all weigh the same.

        Args:
            candidates: List of `Candidate`s, such as `space.latin_hypercube(...)`.
            values: List of dictionaries, what the objectives gave for each; or None
                to evaluate them here.
            epochs: Integer ≥ 1. Defaults to `200`.
            batch_size: Integer ≥ 1. Defaults to `256`.
            held_out: Float in ]0, 1[, the share of candidates that `error` is measured
                on. Whole architectures are held out. Defaults to `0.2`.
            learning_rate: Float > 0. Defaults to `0.01`.
            seed: Integer, of the split, the weights and the order. Defaults to `0`.
            executor: As in `search`, for the objectives.
            verbose: As in `keras.Model.fit`.

        Raises:
            ValueError: If no two architectures are left, or `held_out` is no share.
        """
        if values is None:
            values = Evaluation(self.objectives, executor)(list(candidates))
        pairs = [
            (c, v)
            for c, v in zip(candidates, values, strict=True)
            if not failed(v, self.directions)
        ]
        train, test = _split([c for c, _ in pairs], held_out, seed)
        inputs = self._inputs([c for c, _ in pairs])
        targets = np.array([[v[n] for n in self.directions] for _, v in pairs])
        low, high = targets[train].min(0), targets[train].max(0)
        self._low, self._span = low, np.where(high > low, high - low, 1.0)
        scaled = (targets - self._low) / self._span
        self._model = self._network(inputs.shape[1], len(self.directions), seed)
        self._model.compile(keras.optimizers.SGD(learning_rate, momentum=0.9), "mse")
        keras.utils.set_random_seed(seed)
        self._model.fit(
            inputs[train],
            scaled[train],
            batch_size=batch_size,
            epochs=epochs,
            callbacks=[keras.callbacks.ReduceLROnPlateau("loss", 0.1, 10)],
            verbose=verbose,
        )
        found = self._predict(inputs[test])
        self.error = {
            name: _error(found[:, i], targets[test, i])
            for i, name in enumerate(self.directions)
        }

    def __call__(self, candidate: Candidate) -> dict[str, float]:
        return self.evaluate([candidate])[0]

    def evaluate(self, candidates: Sequence[Candidate]) -> list[dict[str, float]]:
        """Predicted values of many candidates at once, a list of dictionaries.

        Raises:
            RuntimeError: If it was not fitted.
        """
        if self._model is None:
            raise RuntimeError("The predictor has learned nothing. Call `fit` first.")
        if not candidates:
            return []
        found = self._predict(self._inputs(candidates))
        return [dict(zip(self.directions, row.tolist(), strict=True)) for row in found]

    def _inputs(self, candidates):
        """One-hot options and multipliers, `[n, features]`."""
        encode = self.space.architecture.encode
        indices = np.array([encode(c.config) for c in candidates], int)
        hot = [np.eye(n)[indices[:, i]] for i, n in enumerate(self.space.sizes)]
        ranges = np.array([c.multipliers for c in candidates])
        return np.concatenate([*hot, ranges], axis=1).astype("float32")

    def _network(self, features, outputs, seed):
        def dense(units, i, activation=None):
            start = keras.initializers.GlorotUniform(seed=seed + i)
            return keras.layers.Dense(units, activation, kernel_initializer=start)

        hidden = [dense(self.units, i, "relu") for i in range(self.layers)]
        last = dense(outputs, self.layers)
        return keras.Sequential([keras.Input((features,)), *hidden, last])

    def _predict(self, inputs):
        scaled = self._model.predict(inputs, batch_size=1024, verbose=0)
        return np.asarray(scaled, float) * self._span + self._low


def _split(candidates, held_out, seed):
    """Bools of candidates to learn from and to test on, by whole architectures."""
    if not 0 < held_out < 1:
        raise ValueError(
            f"`held_out` of Predictor must be in ]0, 1[. Received: {held_out!r}."
        )
    names = [repr(sorted(candidate.config.items())) for candidate in candidates]
    known = sorted(set(names))
    if len(known) < 2:
        raise ValueError(
            f"A predictor learns from some architectures and is tested on others: two "
            f"or more with finite objectives are needed, and there are {len(known)}."
        )
    order = np.random.default_rng(seed).permutation(len(known))
    count = min(max(1, round(held_out * len(known))), len(known) - 1)
    kept = {known[i] for i in order[:count]}
    test = np.array([name in kept for name in names])
    return ~test, test


def _error(found, values):
    """How far predictions are off."""
    off = found - values
    constant = np.ptp(found) == 0 or np.ptp(values) == 0
    rank = np.nan if constant else float(stats.spearmanr(found, values).statistic)
    return {
        "rmse": float(np.sqrt(np.mean(off**2))),
        "mae": float(np.mean(np.abs(off))),
        "range": float(np.ptp(values)),
        "spearman": rank,
    }
