"""A place for caches where there is no home to write to."""

import atexit
import os
import shutil
import tempfile

_CACHES = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME")


def provide_home() -> None:
    """Gives W&B and matplotlib a folder where ``HOME`` is unset or cannot be written to.

    Both work without, after some twenty lines of log.
    """
    home = os.environ.get("HOME")
    if os.name != "posix" or (home and os.access(home, os.W_OK)):
        return
    if all(name in os.environ for name in _CACHES):
        return
    folder = tempfile.mkdtemp(prefix="lit-models-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name in _CACHES:
        os.environ.setdefault(name, folder)
