"""The folder that Ray unpacks for a submitted job, which goes when the job is forgotten."""

import os
from pathlib import Path

from pipeline.store.local import open_local
from schemas.errors import InputError

_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray sets it for the process of a job
_PACKAGE = "_ray_pkg_"  # how the folder of a package begins that Ray made of a working directory
_UNPACKED = ("runtime_resources", "working_dir_files")  # where Ray unpacks it, or one from a URL


def check_outlives_job(*urls: str | Path) -> None:
    """Refuse to write where a job's own files are: nobody would find it there, and Ray deletes it.

    Raises InputError for the first of these paths or URLs that is in there. What a job
    reads may lie there.
    """
    for url in urls:
        path = _try_path(str(url))
        if path is not None and (folder := _job_folder_of(path)) is not None:
            raise InputError(
                f"{url} would be written to {path}, below the folder {folder.name} that Ray "
                "unpacked for this job and deletes after it; give an s3:// URL, or the full path "
                "of a folder that all nodes share"
            )


def _try_path(url: str) -> Path | None:
    """The full path of what lies on disk; None for any other."""
    if "://" in url and not url.startswith("file:"):
        return None
    return open_local(url).root.resolve()


def _job_folder_of(path: Path) -> Path | None:
    """The job's folder that a path is in, if it is in one."""
    is_job = _JOB in os.environ
    for folder in (path, *path.parents):
        is_package = is_job and folder.name.startswith(_PACKAGE)
        if is_package or folder.parent.parts[-2:] == _UNPACKED:
            return folder
    return None
