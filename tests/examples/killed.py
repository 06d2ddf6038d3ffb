"""A script that is killed once a file is there: killed.py SCRIPT FILE [ARGUMENTS]."""

import os
import runpy
import signal
import sys
import threading
import time


def kill_at(path):
    while not os.path.isfile(path):
        time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    script, path, *arguments = sys.argv[1:]
    threading.Thread(target=kill_at, args=[path], daemon=True).start()
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")
