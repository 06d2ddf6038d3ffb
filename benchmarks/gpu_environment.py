"""What `benchmarks.gpu` needs settled before Keras is imported, and the time then."""

import os
import sys
import tempfile
import time

START = time.perf_counter()

os.environ.setdefault("KERAS_BACKEND", "jax")
# Where TensorFlow is installed, Keras imports it even on JAX, to compare types.
sys.modules.setdefault("tensorflow", None)

# Each share of the chips compiles the same thing again.
_cache = tempfile.TemporaryDirectory(prefix="gpu_benchmark_")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", _cache.name)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
