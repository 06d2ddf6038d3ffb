"""Only for an environment that holds Larq: `make larq` has one of its own."""

import importlib.util
import os

if importlib.util.find_spec("larq"):
    # Larq is written for Keras 2. Read when tf.keras is first used.
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
else:
    collect_ignore_glob = ["test_*.py"]
