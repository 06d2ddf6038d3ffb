"""Workers of an executor: an object, sent to each once, and calls of its methods."""

import hashlib
import pickle
import threading

__all__ = ["Remote"]

_held = threading.local()  # Models are in it, which no two threads may share.


class Remote:
    """An object whose methods are called in the workers of an executor.

    A worker unpickles it once, whatever the number of calls.

    Args:
        value: The object.
        executor: A `concurrent.futures.Executor`.
        what: String, what the object is, for errors.

    Raises:
        TypeError: If the executor has no `submit`.
        ValueError: If the object does not pickle.
    """

    def __init__(self, value, executor, what):
        if not callable(getattr(executor, "submit", None)):
            raise TypeError(
                "`executor` must be a concurrent.futures.Executor, such as a "
                f"ProcessPoolExecutor. Received: {executor!r}."
            )
        self._executor = executor
        self._payload = _pickled(value, what)
        self._digest = hashlib.blake2b(self._payload, digest_size=16).digest()

    def map(self, method, arguments):
        """Yield what a method returns for each of some arguments, in their order.

        What is not finished when the caller stops reading, or when a call fails, is
        cancelled.
        """
        submit = self._executor.submit
        futures = [
            submit(_called, self._digest, self._payload, method, argument)
            for argument in arguments
        ]
        try:
            for future in futures:
                yield future.result()
        finally:
            for future in futures:
                future.cancel()


def _called(digest, payload, method, argument):
    """In a worker: what a method of the object returns."""
    if getattr(_held, "digest", None) != digest:
        _held.value = pickle.loads(payload)
        _held.digest = digest
    return getattr(_held.value, method)(argument)


def _pickled(value, what):
    try:
        return pickle.dumps(value)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(
            f"An executor's workers get {what} pickled, and something in it does not "
            f"pickle: {error}. Define functions at the top of a module, not as a "
            "lambda or inside another function, and give data as arrays."
        ) from error
