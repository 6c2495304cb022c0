"""Bringing a folder of MLflow's artifact store to local disk, whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from perennial_registry.mlflow_rest import ApiError, MlflowRest
from perennial_spec.errors import RegistryError

SCHEME = "mlflow-artifacts"
MAX_BYTES = 8 * 2**30
"""A larger bundle is refused: a step or server must not fill its disk by mistake."""
MAX_FILES = 10_000


def download_folder(rest: MlflowRest, uri: str, target: Path) -> None:
    """Copy the folder at `uri` (`mlflow-artifacts:/...`) to `target`, which appears only when it is complete.

    Raises:
        RegistryError: not such a URI, nothing there, too large, or the store is away.
    """
    root = artifact_path(uri)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        if _copy(rest, root, part) == 0:
            raise RegistryError(f"{uri} is empty", where=rest.url, next="train again: its artifacts were removed")
        try:
            part.rename(target)
        except OSError:
            if not target.is_dir():  # otherwise another process was faster, with the same content
                raise
    except ApiError as error:
        raise RegistryError(
            f"MLflow refused to give {uri}: {error.message}",
            where=f"{rest.url} ({error.code})",
            next="see that the server runs with --serve-artifacts and that the folder exists",
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def artifact_path(uri: str) -> str:
    """The path within the artifact store that `mlflow-artifacts:/path` or `mlflow-artifacts://host/path` names.

    Raises:
        RegistryError: another scheme, or no path.
    """
    parts = urlsplit(uri)
    path = unquote(parts.path).strip("/")
    if parts.scheme != SCHEME or not path:
        raise RegistryError(f"{uri!r} is not in MLflow's artifact store", expected=f"{SCHEME}:/path/of/a/folder")
    return path


def _copy(rest: MlflowRest, root: str, part: Path) -> int:
    """Number of files copied from `root` of the store into the folder `part`."""
    files, size, folders = 0, 0, [""]
    while folders:
        folder = folders.pop()
        for entry in rest.list_artifacts(f"{root}/{folder}".rstrip("/")):
            inside = str(PurePosixPath(folder) / _name(entry["path"]))
            if entry.get("is_dir"):
                (part / inside).mkdir()
                folders.append(inside)
                continue
            files += 1
            size += int(entry.get("file_size") or 0)
            if size > MAX_BYTES or files > MAX_FILES:
                raise RegistryError(
                    f"the folder {root} of the artifact store is too large",
                    where=rest.url,
                    expected=f"at most {MAX_BYTES} bytes in {MAX_FILES} files",
                )
            _copy_file(rest, f"{root}/{inside}", part / inside)
    return files


def _copy_file(rest: MlflowRest, path: str, target: Path) -> None:
    pauses = rest.pauses()
    while True:
        try:
            with target.open("wb") as file:
                for piece in rest.read_artifact(path):
                    file.write(piece)
            return
        except RegistryError:
            pause = next(pauses, None)
            if pause is None:
                raise
            time.sleep(pause)


def _name(path: str) -> str:
    """The last part of a listed path, which must be a plain name: a store must not write outside the folder."""
    name = PurePosixPath(path).name
    if not name or name == "..":
        raise RegistryError(f"the artifact store lists the path {path!r}", expected="paths inside the folder")
    return name
