# Data that outlives an update and a rollback: each version has a file of its own, and leaves the older one alone.
#
# Version 1 kept a number. Version 2 keeps a number and a unit. While 2 is on trial nothing that 1 needs is touched;
# after a rollback 1 goes on with its own file. A later release, when nobody goes back to 1 any more, removes it.
import json
import os

import sekisho

VERSION = 2
PATH = "/data/counter.v%d"


def _read(version):
    try:
        with open(PATH % version) as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


def load():
    """The newest data that this version understands, brought forward; once, at the start."""
    found = None if sekisho.on_trial() else _read(2)  # what a trial finds of its own was left by one that failed
    if found is None:
        old = _read(1)
        found = {"count": old["count"] if old else 0, "unit": "turns"}
    return found


def save(values):
    """Writes a new file and renames it over the old one: a power cut leaves either."""
    name = PATH % VERSION
    with open(name + ".new", "w") as file:
        json.dump(values, file)
    os.rename(name + ".new", name)
    if not sekisho.on_trial():  # what an older version would go back to is kept up to date for it
        with open(PATH % 1 + ".new", "w") as file:
            json.dump({"count": values["count"]}, file)
        os.rename(PATH % 1 + ".new", PATH % 1)
