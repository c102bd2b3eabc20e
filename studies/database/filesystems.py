"""Which kind of file system a path lies on: SQLite's locks do not hold on one that several machines share."""

from __future__ import annotations

from pathlib import Path

import psutil

from tuner.errors import InputError

NETWORK = (
    "acfs",
    "afs",
    "beegfs",
    "ceph",
    "cifs",
    "fuse.ceph",
    "fuse.glusterfs",
    "fuse.rclone",
    "fuse.s3fs",
    "fuse.sshfs",
    "gfs2",
    "glusterfs",
    "gpfs",
    "lustre",
    "ncpfs",
    "nfs",
    "nfs4",
    "ocfs2",
    "orangefs",
    "panfs",
    "smb2",
    "smb3",
    "smbfs",
    "wekafs",
)
"""Names in the mount table of file systems that another machine serves or shares."""


def file_system(path: Path) -> tuple[str, str] | None:
    """Kind and mount point of the file system that a path lies on.

    Parameters
    ----------
    path
        A file or folder; it need not exist.

    Returns
    -------
    tuple of str or None
        None where the system does not tell what is mounted.
    """
    try:
        mounts = psutil.disk_partitions(all=True)
    except OSError:
        return None
    real = path.resolve()
    found: tuple[int, str, str] | None = None
    for mount in mounts:
        point = Path(mount.mountpoint)
        # Of two on the same point the later one lies on top.
        if real.is_relative_to(point) and (found is None or len(point.parts) >= found[0]):
            found = (len(point.parts), mount.fstype, mount.mountpoint)
    return None if found is None else (found[1], found[2])


def refuse_network(database: Path) -> None:
    """Refuse an SQLite database on a network file system.

    Raises
    ------
    InputError
        With the reason, and what to use instead.
    """
    found = file_system(database)
    if found is None or found[0].lower() not in NETWORK:
        return
    kind, point = found
    raise InputError(
        f"storage.url: {database} lies on a network file system ({kind} at {point}), where the locks "
        "that keep an SQLite database whole do not hold; put it on a local disk, or use "
        "PostgreSQL (postgresql+psycopg://...) to share it between machines"
    )
