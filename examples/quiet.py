"""Import Keras without the messages of TensorFlow's start.

Some of them come before TensorFlow looks at TF_CPP_MIN_LOG_LEVEL, so that nothing but
a closed door keeps them out: standard error is shut until the backend has started.
What goes wrong later is raised in Python all the same.
"""

import logging
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

_stderr = os.dup(2)
_nothing = os.open(os.devnull, os.O_WRONLY)
os.dup2(_nothing, 2)
try:
    import keras

    if "TF_CONFIG" not in os.environ:  # Workers must find each other before.
        keras.ops.zeros(())  # Starts the devices.
finally:
    # A runner makes many models, for each of which Keras traces its functions anew.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    os.dup2(_stderr, 2)
    os.close(_stderr)
    os.close(_nothing)
