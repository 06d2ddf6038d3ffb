"""Run code in a fresh Python process, as a user who comes back would."""

import inspect
import multiprocessing
import os
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

TIMEOUT = 500


def quicken():
    """Trace and run graphs without what pays off later, a third of the time of tests.

    Graphs run as they were traced, errors keep the frames of Keras and TensorFlow, and
    garbage is collected less often. The suite does it, and the scripts that it runs;
    other fresh processes (exports, loaded models) do as they do for users.
    """
    import gc

    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        gc.set_threshold(50_000, 20, 100)
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
        tf.debugging.disable_traceback_filtering()
        keras.config.disable_traceback_filtering()


QUICKEN = f"{inspect.getsource(quicken)}\nquicken()\n"


def run(code, **variables):
    """Run code in a process that has imported hwa_keras and no more; return its output.

    Importing it and Keras with its backend takes longer than most of what is run. One
    process does it, once for all tests of a worker, and forks before anything else
    happens.

    Args:
        code: Python source.
        **variables: Plain values that the code sees under these names.
    """
    found = _forked(_source(code, variables))
    assert found.returncode == 0, found.stderr[-4000:]
    return found.stdout


def run_script(path, *arguments):
    """Run a script as `run` runs code, as quickly as the suite runs.

    Args:
        path: Of the script.
        *arguments: What comes after it on the command line.

    Returns:
        A `subprocess.CompletedProcess`.
    """
    return _forked(
        QUICKEN
        + _source(
            """
            import os, runpy, sys
            sys.argv = [path, *arguments]
            sys.path[0] = os.path.dirname(path)
            runpy.run_path(path, run_name="__main__")
            """,
            {"path": str(path), "arguments": [str(each) for each in arguments]},
        )
    )


def run_bare(code, **variables):
    """As `run`, in a new interpreter that has imported nothing."""
    found = subprocess.run(
        [sys.executable, "-c", _source(code, variables)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert found.returncode == 0, found.stderr[-4000:]
    return found.stdout


def forkserver():
    """The context of processes that begin with hwa_keras imported.

    A worker has one such server, and what it imports is settled at the first use.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hwa_keras"])
    return context


def _source(code, variables):
    prelude = "".join(f"{name} = {value!r}\n" for name, value in variables.items())
    return prelude + textwrap.dedent(code)


def _forked(source):
    context = forkserver()
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder, name) for name in ("stdout", "stderr")]
        for path in outputs:
            path.touch()
        arguments = source, dict(os.environ), os.getcwd(), outputs
        process = context.Process(target=_execute, args=arguments)
        process.start()
        process.join(TIMEOUT)
        if late := process.is_alive():
            process.kill()
            process.join()
        found = subprocess.CompletedProcess(
            process.name,
            process.exitcode,
            *(path.read_text(encoding="utf-8") for path in outputs),
        )
        process.close()
    assert not late, f"not done after {TIMEOUT} s\n{found.stderr[-4000:]}"
    return found


def _execute(source, environment, folder, outputs):
    """In the forked process: what `python -c` does."""
    for number, path in enumerate(outputs, start=1):
        with open(path, "wb") as file:
            os.dup2(file.fileno(), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    exec(compile(source, "<fresh>", "exec"), {"__name__": "__main__"})


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
