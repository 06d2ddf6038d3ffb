"""Run code in a fresh Python process, as a user who comes back would."""

import subprocess
import sys
import textwrap


def run(code, **variables):
    """Run code in a new interpreter and return what it printed.

    Args:
        code: Python source.
        **variables: Plain values that the code sees under these names.
    """
    prelude = "".join(f"{name} = {value!r}\n" for name, value in variables.items())
    found = subprocess.run(
        [sys.executable, "-c", prelude + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert found.returncode == 0, found.stderr[-4000:]
    return found.stdout


PREDICT = """
    import keras, numpy as np, hwa_keras
    inputs = np.load(inputs_path)
    found = {}
    for name in names:
        model = keras.models.load_model(f"{folder}/{name}.keras")
        found[name] = keras.ops.convert_to_numpy(model(inputs[name], training=False))
    np.savez(outputs_path, **found)
"""


def assert_loads_equal(models, inputs, folder):
    """Save models, load them in a process that imports hwa_keras alone, compare.

    Args:
        models: Dictionary from names to models.
        inputs: Dictionary from the same names to arrays.
        folder: A `pathlib.Path`.
    """
    import keras
    import numpy as np

    expected = {}
    for name, model in models.items():
        y = model(inputs[name], training=False)
        expected[name] = keras.ops.convert_to_numpy(y)
        model.save(folder / f"{name}.keras")
    np.savez(folder / "inputs.npz", **inputs)
    run(
        PREDICT,
        names=list(models),
        folder=str(folder),
        inputs_path=str(folder / "inputs.npz"),
        outputs_path=str(folder / "outputs.npz"),
    )
    found = np.load(folder / "outputs.npz")
    for name in models:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
