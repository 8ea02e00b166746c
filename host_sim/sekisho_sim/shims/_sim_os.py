"""`os` without what only a desktop has."""

import os as _o
from os import (  # noqa: F401
    VfsFat,
    VfsLfs2,
    chdir,
    getcwd,
    mkdir,
    mount,
    remove,
    rename,
    rmdir,
    stat,
    statvfs,
    umount,
    unlink,
    urandom,
)

__name__ = "os"

from _sim_sys import implementation, version


def uname():
    release = "%d.%d.%d" % implementation[1][:3]
    return ("esp32", "esp32", release, version, implementation[2])


def sync():
    pass


def dupterm(stream, index=0):
    return None


def ilistdir(*path):
    return (entry for entry in _o.ilistdir(*path) if entry[0] != ".frozen")  # the frozen modules are no files


def listdir(*path):
    return [entry[0] for entry in ilistdir(*path)]
