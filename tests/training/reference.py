"""Sharpness-aware steps in NumPy, float64, written from the papers' formulas.

A network of a dense layer, batch normalization, a ReLU and a dense layer, with its
mean cross-entropy and gradients by hand.
"""

import numpy as np

NAMES = ("kernel_1", "bias_1", "gamma", "beta", "kernel_2", "bias_2")
SCALED = ("kernel_1", "gamma", "kernel_2")  # ASAM's: not the biases, not beta
EPSILON = 1e-3  # of Keras's batch normalization


def loss_and_gradients(w, x, y):
    """The loss, its gradients, and the batch's mean and variance."""
    n = len(x)
    a = x @ w["kernel_1"] + w["bias_1"]
    mean, variance = a.mean(0), a.var(0)
    spread = np.sqrt(variance + EPSILON)
    normal = (a - mean) / spread
    b = normal * w["gamma"] + w["beta"]
    h = np.maximum(b, 0)
    z = h @ w["kernel_2"] + w["bias_2"]
    z = z - z.max(1, keepdims=True)
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    loss = -np.log(p[np.arange(n), y]).mean()
    dz = p.copy()
    dz[np.arange(n), y] -= 1
    dz /= n
    db = (dz @ w["kernel_2"].T) * (b > 0)
    dn = db * w["gamma"]
    da = (dn - dn.mean(0) - normal * (dn * normal).mean(0)) / spread
    return (
        loss,
        {
            "kernel_1": x.T @ da,
            "bias_1": da.sum(0),
            "gamma": (db * normal).sum(0),
            "beta": db.sum(0),
            "kernel_2": h.T @ dz,
            "bias_2": dz.sum(0),
        },
        (mean, variance),
    )


def scales(w, method, eta, norm, scaled=SCALED):
    """T of each tensor."""
    found = {name: np.ones_like(value) for name, value in w.items()}
    for name in scaled:
        if method == "asam":
            found[name] = np.abs(w[name]) + eta
        elif method == "samson":
            size = (np.abs(w[name]) ** 2).sum() ** 0.5
            if norm == "inf":
                size = np.abs(w[name]).max()
            found[name] = (np.abs(w[name]) + eta) / size
    return found


def worst(w, g, method, rho, eta=0.01, norm=2, scaled=SCALED):
    """ε = ρ T² g / ‖T g‖₂."""
    t = scales(w, method, eta, norm, scaled)
    total = np.sqrt(sum(((t[k] * g[k]) ** 2).sum() for k in w))
    return {k: rho * t[k] ** 2 * g[k] / total for k in w}


def step(w, x, y, learning_rate, method, rho, eta=0.01, norm=2, scaled=SCALED):
    """The weights after one step of SGD, the loss, and the batch's statistics."""
    loss, g, statistics = loss_and_gradients(w, x, y)
    e = worst(w, g, method, rho, eta, norm, scaled)
    _, ahead, _ = loss_and_gradients({k: w[k] + e[k] for k in w}, x, y)
    return {k: w[k] - learning_rate * ahead[k] for k in w}, loss, statistics
