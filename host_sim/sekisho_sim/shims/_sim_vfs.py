"""`vfs` with the file systems of the chip's build: no VfsRom, VfsLfs1, VfsPosix."""

from vfs import VfsFat, VfsLfs2, mount, umount  # noqa: F401

__name__ = "vfs"
