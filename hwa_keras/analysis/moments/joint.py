"""Joint: the means of the tensors in use, and the covariances of all pairs of them."""

from keras import ops

from hwa_keras.analysis.moments.noise import Places
from hwa_keras.analysis.moments.rectifier import rectified, rectified_covariance

__all__ = ["Joint"]


class Joint:
    """The first and second moments of the tensors that a pass still needs.

    Tensors of a network that share a noisy ancestor are correlated, as the two branches
    of a skip are; so the covariances between each two of them are kept, as long as both
    are needed. A tensor without a covariance with itself is exact.

    Args:
        budget: The `Budget` of covariances.
        places: A `Places`, or None for a new one.

    Attributes:
        means: Dictionary from the numbers of tensors to tensors `[examples, ...]`.
        kept: Set of the numbers of the tensors that are needed later.
    """

    def __init__(self, budget, places=None):
        self.budget = budget
        self.places = places or Places()
        self.means = {}
        self.kept = set()
        self._covariances = {}

    def covariance(self, i, j):
        """The `Covariance` between two tensors, or None where there is none."""
        if (i, j) in self._covariances:
            return self._covariances[i, j]
        found = self._covariances.get((j, i))
        return None if found is None else found.transposed()

    def is_exact(self, i):
        return self.covariance(i, i) is None

    def put(self, i, mean, own=None, others=None):
        """Set the moments of a tensor, in place of those it had.

        Args:
            i: Its number.
            mean: Tensor `[examples, ...]`.
            own: Its `Covariance` with itself, or None.
            others: Dictionary from the numbers of other tensors to the covariances
                between them and this one.
        """
        self.drop(i)
        self.means[i] = mean
        if own is not None:
            self._covariances[i, i] = own
        for j, covariance in (others or {}).items():
            self._covariances[j, i] = covariance

    def drop(self, i):
        """Forget a tensor."""
        self.means.pop(i, None)
        for pair in [pair for pair in self._covariances if i in pair]:
            del self._covariances[pair]

    def moved(self, x, y, mean):
        """Have y be x in another shape, its elements in the same order."""
        self.put(y, mean, self.covariance(x, x), self._others(x, y, lambda c: c))

    def scaled(self, x, y, mean, scale):
        """Have y be s·x plus a constant, element by element; s is `[1, n]`."""
        own = self.covariance(x, x)
        if own is not None:
            own = own.scaled(scale, both=True)
        self.put(y, mean, own, self._others(x, y, lambda c: c.scaled(scale)))

    def linear(self, x, y, mean, function, by_channel=False):
        """Have y be L(x) plus a constant.

        Args:
            x, y: Numbers of tensors.
            mean: Tensor, the mean of y.
            function: L; see `Covariance.through`.
            by_channel: See `Covariance.through`.
        """
        shape = tuple(int(n) for n in self.means[x].shape[1:])

        def through(covariance):
            return covariance.through(function, shape, by_channel)

        own = self.covariance(x, x)
        if own is not None:
            own = through(through(own).transposed())
        self.put(y, mean, own, self._others(x, y, through))

    def _others(self, x, y, change):
        """The covariances of what is kept with y, from those with x."""
        pairs = {j: self.covariance(j, x) for j in self.kept if j != y}
        return {j: change(found) for j, found in pairs.items() if found is not None}

    def perturbed(self, y, covariance):
        """Add to y noise that depends on no tensor, of a `Covariance`."""
        own = self.covariance(y, y)
        self._covariances[y, y] = covariance if own is None else own.plus(covariance)

    def summed(self, inputs, signs, y):
        """Have y be a sum of tensors, each with its sign, 1 or −1."""
        terms = list(zip(inputs, signs, strict=True))
        mean = sum(sign * self.means[i] for i, sign in terms)
        others = {j: self._sum_with(j, terms) for j in self.kept if j != y}
        found = {j: total for j, total in others.items() if total is not None}
        parts = [(self._sum_with(i, terms), sign) for i, sign in terms]
        self.put(y, mean, _total(parts), found)

    def _sum_with(self, j, terms):
        return _total([(self.covariance(j, i), sign) for i, sign in terms])

    def rectified(self, x, y, terms):
        """Have y be max(x, 0), taking x and all that is kept as jointly Gaussian.

        Between y and another tensor, Cov(max(x, 0), v) = Φ(μ/σ)·Cov(x, v) is exact
        (Stein's lemma).

        Args:
            x, y: Numbers of tensors.
            terms: How many terms of the series; see `rectified_covariance`.
        """
        own, before = self.covariance(x, x), self.means[x]
        if own is None:
            self.put(y, ops.relu(before))
            return
        b, p, _, c = map(int, own.values.shape)
        variance = own.variance()
        mean, own_variance, positive = rectified(
            ops.reshape(before, ops.shape(variance)), variance
        )
        moments = [ops.reshape(m, (b, p, c)) for m in (before, variance)]
        pairs = ops.reshape(own_variance, (b, 1, p, c))
        if p > 1:
            first, second = (
                tuple(ops.expand_dims(m, axis) for m in moments) for axis in (2, 1)
            )
            between = rectified_covariance(own.values, first, second, terms)
            same = ops.reshape(ops.eye(p, dtype="bool"), (1, p, p, 1))
            pairs = ops.where(same, pairs, between)
        own = own.with_values(pairs)
        others = self._others(x, y, lambda found: found.scaled(positive))
        self.put(y, ops.reshape(mean, ops.shape(before)), own, others)


def _total(parts):
    """The sum of covariances with signs, of which those that are None are zero."""
    total = None
    for covariance, sign in parts:
        if covariance is None:
            continue
        if total is None:
            total = covariance.with_values(sign * covariance.values)
        else:
            total = total.plus(covariance, sign)
    return total
