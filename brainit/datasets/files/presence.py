"""Is a file's content here at all, and is it of the kind that its name says: looked at before it is read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from brainit.errors import InputError, MissingDataError

_HEAD = 512
_GZIP = b"\x1f\x8b"
_APPLE_DOUBLE = b"\x00\x05\x16\x07"
_LFS = b"version https://git-lfs.github.com/spec"
_WEB = (b"<!doctype html", b"<html")
#: First four bytes of a NIfTI-1 or NIfTI-2 file, either byte order: the size of its header.
_NIFTI = {size.to_bytes(4, order) for size in (348, 540) for order in ("little", "big")}


def visible(paths: Iterable[Path]) -> list[Path]:
    """Sort paths and leave out hidden ones: macOS puts ``._NAME`` beside ``NAME`` on foreign disks."""
    return sorted(path for path in paths if not path.name.startswith("."))


def there(path: Path) -> bool:
    """Whether a file is there; a link whose content is missing counts, so that its reader can say so."""
    return path.is_file() or (path.is_symlink() and not path.exists())


def check_content(path: Path, missing: str = "copy it there or check the folder's layout") -> bytes:
    """Refuse what cannot be the file's content, and return its first bytes.

    Parameters
    ----------
    path : Path
    missing : str
        What to do where there is no such file.

    Returns
    -------
    bytes
        The first 512 or fewer.

    Raises
    ------
    MissingDataError
        There is no such file, or only a pointer of git-annex or Git LFS in its place.
    InputError
        It is empty, a folder, a resource file of macOS, a web page, or gzipped where its name says otherwise.
    """
    if not path.exists():
        raise MissingDataError(_why_missing(path, missing))
    if path.is_dir():
        raise InputError(f"{path} is a folder; a file is expected")
    with path.open("rb") as stream:
        head = stream.read(_HEAD)
    if not head:
        raise InputError(f"{path} is empty (0 bytes); copy it again from its source")
    if head.startswith(_LFS):
        raise MissingDataError(
            f"{path} is a Git LFS pointer, its content is not here; get it with: git lfs pull, or datalad get"
        )
    if b"annex/objects/" in head and len(head) < _HEAD:
        raise MissingDataError(_annex(path, "pointer"))
    if head.startswith(_APPLE_DOUBLE):
        raise InputError(f"{path} is a resource file of macOS (AppleDouble), not data; remove it")
    if head.lstrip().lower().startswith(_WEB):
        raise InputError(f"{path} is a web page, not data (a login or an error page?); download it again")
    _check_zipped(path, head)
    return head


def _why_missing(path: Path, missing: str) -> str:
    if not path.is_symlink():
        return f"{path} does not exist; {missing}"
    target = str(path.readlink())
    if "annex/objects" in target:
        return _annex(path, "link")
    return f"{path} is a link to {target}, which does not exist; copy the file itself"


def _annex(path: Path, what: str) -> str:
    return f"{path} is a git-annex {what}, its content is not here; get it with: datalad get {path.name}"


def _check_zipped(path: Path, head: bytes) -> None:
    zipped = head.startswith(_GZIP)
    if path.suffix == ".gz" and not zipped:
        what = "a NIfTI file that is not gzipped" if head[:4] in _NIFTI else "not a gzip file"
        fix = "rename it to .nii or gzip it" if head[:4] in _NIFTI else "copy it again"
        raise InputError(f"{path} is {what} although its name ends in .gz; {fix}")
    if path.suffix == ".nii" and zipped:
        raise InputError(f"{path} is gzipped although its name ends in .nii; rename it to .nii.gz")
