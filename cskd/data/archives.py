"""Official archives: downloaded (resumed and retried), checked against the published checksum, and unpacked."""

import hashlib
import http.client
import shutil
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

from cskd.data.folders import ProgressReport, flush, no_report, require_free, storage_errors
from cskd.data.sources.base import Archive
from cskd.utils.errors import UserError

BLOCK = 1 << 20
TIMEOUT_S = 30
ATTEMPTS = 4
BACKOFF_S = 0.5  # before the second attempt; doubled before each further one
RETRIED_STATUS = (408, 416, 429)  # and every 5xx; before a retry after 416, the ``.part`` file is deleted


class _RetryableError(Exception):
    """A download failed for a temporary reason."""


class _UnavailableError(Exception):
    """An address does not give the official file. The message is the reason."""


def download(archive: Archive, folder: Path, report: ProgressReport = no_report) -> Path:
    """Download an archive into ``folder`` and return its path. An interrupted download resumes from its ``.part`` file.

    Mirrors are tried if the official address fails. Raises UserError with the address, file name, folder and checksum
    if all fail.
    """
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    reasons, urls = [], (archive.url, *archive.mirrors)
    if archive.needs_account:
        reasons, urls = ["its server asks for an account"], ()
    for url in urls:
        try:
            return _download_from(url, archive, folder, report)
        except _UnavailableError as error:
            reasons.append(f"{url}: {error}" if archive.mirrors else str(error))
    reason = "; ".join(reasons)
    raise UserError(f"{archive.filename} could not be downloaded ({reason}): {archive.manual_download(folder)}")


def _download_from(url: str, archive: Archive, folder: Path, report: ProgressReport) -> Path:
    """Download an archive from one address. Raises _UnavailableError if that fails."""
    part = folder / f"{archive.filename}.part"
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(BACKOFF_S * 2 ** (attempt - 1))
        resumed = part.exists()
        try:
            _fetch(url, part, report)
        except _RetryableError as error:
            reason = str(error)
            continue
        checksum = _checksum(part, archive, report)
        if checksum == archive.checksum:
            with storage_errors(folder):
                flush(part)
                return part.replace(folder / archive.filename)
        part.unlink()
        reason = f"it has {(checksum or '').replace(':', ' ')}"
        if not resumed:  # the server's file is wrong; after a resume, the earlier part may be wrong: start again
            break
    raise _UnavailableError(reason)


def _fetch(url: str, part: Path, report: ProgressReport) -> None:
    """Complete the ``.part`` file from its present length."""
    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "cskd"})
    if done:
        request.add_header("Range", f"bytes={done}-")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            # Status 206 sends the remaining bytes. A server without ranges sends all bytes with status 200.
            resumes = response.headers.get("Content-Range", "").startswith(f"bytes {done}-")
            if response.status != http.HTTPStatus.PARTIAL_CONTENT or not resumes:
                done = 0
            length = response.headers.get("Content-Length")
            total = done + int(length) if length and length.isdigit() else None
            require_free(part.parent, (total or done) - done)
            for reached in _append(response, part, done):
                done = reached
                report(f"download {part.stem}", done, total)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and done:
            if error.headers.get("Content-Range") == f"bytes */{done}":
                return  # the part is complete already
            part.unlink()
        reason = f"HTTP {error.code} {error.reason}"
        if error.code in RETRIED_STATUS or error.code >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
            raise _RetryableError(reason) from error
        raise _UnavailableError(reason) from error
    except (OSError, http.client.HTTPException) as error:  # URLError and every socket error are OSErrors
        raise _RetryableError(" ".join(str(getattr(error, "reason", error)).split())) from error
    # http.client treats a connection that closes early as a normal end of file.
    if total is not None and done != total:
        raise _RetryableError(f"the connection closed after {done:,} of {total:,} bytes")


def _append(response: http.client.HTTPResponse, part: Path, done: int) -> Iterator[int]:
    """Write the response after the first ``done`` bytes of the part; yield the length so far."""
    with storage_errors(part.parent):
        file = part.open("r+b" if done else "wb")
    with file:
        file.seek(done)
        yield done
        while block := response.read(BLOCK):
            with storage_errors(part.parent):
                file.write(block)
                file.flush()
            done += len(block)
            yield done


def verify(path: Path, archive: Archive, report: ProgressReport = no_report) -> None:
    """Raise UserError if the file does not have the archive's checksum. Without a published one, nothing is checked."""
    checksum = _checksum(path, archive, report)
    if checksum != archive.checksum:
        actual, expected = checksum.replace(":", " "), archive.checksum.replace(":", " ")
        raise UserError(
            f"{path} has {actual}, not {expected}: it is damaged or not the official file; "
            f"delete it to download {archive.url}"
        )


def _checksum(path: Path, archive: Archive, report: ProgressReport) -> str | None:
    """Return the file's checksum, with the algorithm and in the format of the archive's checksum."""
    if archive.checksum is None:
        return None
    digest = hashlib.new(archive.algorithm, usedforsecurity=False)
    with storage_errors(path), path.open("rb") as file:
        total, done = path.stat().st_size, 0
        while block := file.read(BLOCK):
            digest.update(block)
            done += len(block)
            report(f"check {archive.filename}", done, total)
    return f"{archive.algorithm}:{digest.hexdigest()}"


def link(path: Path, folder: Path) -> None:
    """Link a file into ``folder``."""
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / path.name).symlink_to(path.absolute())


def unpack_or_copy(path: Path, folder: Path, report: ProgressReport = no_report) -> None:
    """Unpack a zip or tar file into ``folder``, or copy a text list. The folder may have other content.

    The checksum of a zip or tar file was verified, so its content is known. Raises UserError if the disk is full.
    """
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".txt":
            shutil.copy(path, folder / path.name)
        elif path.suffix == ".zip":
            _unpack_zip(path, folder, report)
        else:
            _unpack_tar(path, folder, report)


def _unpack_zip(path: Path, folder: Path, report: ProgressReport) -> None:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        require_free(folder, sum(member.file_size for member in members))
        for member in members:
            archive.extract(member, folder)
            report(f"unpack {path.name}", archive.fp.tell(), path.stat().st_size)


def _unpack_tar(path: Path, folder: Path, report: ProgressReport) -> None:
    with path.open("rb") as file, tarfile.open(fileobj=file) as archive:
        require_free(folder, path.stat().st_size)  # images are compressed already: about the size on the disk
        for member in archive:
            archive.extract(member, folder, filter="data")
            report(f"unpack {path.name}", file.tell(), path.stat().st_size)
