"""fre-export in a process that has imported torch already; `test_cli.py` gives it its globals."""

import os
import signal
import sys

from fre_export.launch import export

job: dict = globals()["job"]

# A test run in the background ignores Ctrl-C, and hands that down.
signal.signal(signal.SIGINT, signal.default_int_handler)
for stream, path in ((1, os.devnull), (2, job["stderr"])):
    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), stream)
sys.argv = ["fre-export", *job["argv"]]
export()
