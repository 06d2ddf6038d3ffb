"""Accuracy on chips over a year: as many chips as the time allows."""

import time

import hwa_keras

__all__ = ["TIMES", "sweep"]

TIMES = {"1 s": 1.0, "1 day": 86_400.0, "1 year": 31_536_000.0}
# How many chips at a time, so that a run that is cut short has some: 10 in all.
SHARES = (1, 1, 2, 2, 2, 2)


def sweep(networks, data, size, deadline, tell):
    """Follow chips of each network, and tell after each share what was found.

    Args:
        networks: Dictionary from names to compiled networks.
        data: What `gpu_data.normalized` returned.
        size: A `benchmarks.gpu.Size`.
        deadline: When to end, in seconds of `time.perf_counter()`. The first chip of
            each network is evaluated all the same.
        tell: Function that gets a dictionary from labels to `Result`s, and the
            label of the one that is new.
    """
    found = {}
    test = tuple(part[: size.chip_images] for part in data.test)
    calibration = data.train[0][: size.calibration_images]
    done, seconds = 0, None
    for share in SHARES:
        left = deadline - time.perf_counter()
        if seconds is not None:
            share = min(share, int(left / seconds))
        share = min(share, size.chips - done)
        if share < 1 or (done and left < 0):
            break
        start = time.perf_counter()
        chips = range(done, done + share)
        for label, result in _share(networks, test, calibration, size, chips):
            if label in found:
                result = type(result).join(found[label], result)
            found[label] = result
            tell(found, label)
        if done:  # The first one is compiled, and says nothing about others.
            seconds = (time.perf_counter() - start) / share
        done += share


def _share(networks, test, calibration, size, chips):
    """Sweeps of a range of chips: of each network without AdaBS and with it."""
    for name, model in networks.items():
        for label, compensation, inputs in (
            (name, ["none", "measured"], None),
            (f"{name} + AdaBS", ["measured"], calibration),
        ):
            result = hwa_keras.drift_sweep(
                model,
                "pcm",
                test,
                times=TIMES,
                chips=chips,
                compensation=compensation,
                metric="accuracy",
                batch_size=min(500, size.chip_images),
                calibration=inputs,
                verbose=0,
            )
            result.name = label
            yield label, result
