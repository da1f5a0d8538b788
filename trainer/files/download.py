"""Files from the web: over https, whole, and of a known SHA-256."""

from __future__ import annotations

import shutil
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import field_validator
from tqdm import tqdm

from trainer.errors import UserError
from trainer.files.atomic import atomic, sha256
from trainer.settings.base import Settings, setting

if TYPE_CHECKING:
    from urllib.request import OpenerDirector

TIMEOUT_SECONDS: Final = 60.0
FOLDER: Final = Path("resources/checkpoints")


def is_url(place: str) -> bool:
    return "://" in place


def https(url: str) -> str:
    """``url``. Raises ValueError unless it is one of https."""
    if not url.startswith("https://"):
        raise ValueError(f"{url!r} does not begin with https://; give such a URL")
    return url


class DownloadSettings(Settings):
    """A file from the web, such as a published checkpoint."""

    url: str = setting(..., "where it is", "download")
    sha256: str = setting(..., "SHA-256 that it must have", "download", pattern="^[0-9a-f]{64}$")
    out: Path | None = setting(
        None, f"file to write; None: <SHA-256's beginning>-<name> in {FOLDER}", "download"
    )

    _url_is_https = field_validator("url")(https)


def cached(url: str, digest: str) -> Path:
    """Where the file of ``url`` with SHA-256 ``digest`` is kept."""
    name = urllib.parse.urlsplit(url).path.rpartition("/")[-1]
    return FOLDER / f"{digest[:8]}-{name}"


def download(settings: DownloadSettings) -> Path:
    """The file's path; it is fetched unless it is there with the right SHA-256.

    Raises UserError when it cannot be fetched or is another file; then nothing is written.
    """
    # Every run imports this module, few download: 0.1 s of each start.
    import http.client
    from urllib.request import Request

    path = settings.out or cached(settings.url, settings.sha256)
    if path.is_file() and sha256(path) == settings.sha256:
        return path
    headers = {"User-Agent": "local-sgd"}
    request = Request(settings.url, headers=headers)  # noqa: S310 checked by https()
    with atomic(path) as temporary:
        try:
            with _https_alone().open(request, timeout=TIMEOUT_SECONDS) as response:
                size = response.headers.get("Content-Length")
                total = int(size) if size else None
                with (
                    temporary.open("wb") as file,
                    tqdm.wrapattr(response, "read", total=total, desc=path.name) as source,
                ):
                    shutil.copyfileobj(source, file)
            # A connection that breaks reads like the end of the file.
            if total is not None and (found := temporary.stat().st_size) != total:
                raise OSError(f"it ended after {found} of {total} bytes; try again")
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise UserError(
                f"{settings.url}: cannot be downloaded ({error}); get the file another way and "
                f"put it at {path}"
            ) from None
        if (digest := sha256(temporary)) != settings.sha256:
            raise UserError(
                f"{settings.url}: its SHA-256 is {digest}, {settings.sha256} was asked for; "
                "correct the URL or the digest"
            )
    return path


def _https_alone() -> OpenerDirector:
    """What ``urlopen`` opens with, but a server cannot send us on to another protocol."""
    import urllib.request as known

    opener = known.OpenerDirector()
    for handler in (
        known.ProxyHandler,
        known.HTTPSHandler,
        known.UnknownHandler,
        known.HTTPRedirectHandler,
        known.HTTPDefaultErrorHandler,
        known.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener
