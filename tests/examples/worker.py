"""A script as one of several workers: worker.py SCRIPT TF_CONFIG [ARGUMENTS]."""

import os
import runpy
import sys

if __name__ == "__main__":
    script, os.environ["TF_CONFIG"], *arguments = sys.argv[1:]
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")
