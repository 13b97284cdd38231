"""The page on which one watches code being denoised: files of `page/`, as they are.

They hold nothing secret and need no API key; the requests that they send do.
"""

import hashlib
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable

from starlette.requests import Request
from starlette.responses import Response

from seedjax.files.package import package_text
from seedjax.server.errors import ApiError

TYPES = {
    "css": "text/css",
    "html": "text/html",
    "js": "text/javascript",
    "svg": "image/svg+xml",
    "txt": "text/plain",
}
HEADERS = {
    # Nothing from elsewhere; CodeMirror makes style elements.
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


class Page:
    """The page's files, in memory."""

    def __init__(self) -> None:
        """Reads all of them."""
        root = resources.files("seedjax.server").joinpath("page")
        self.files = {
            name: package_text("seedjax.server", f"page/{name}").encode()
            for name in sorted(_names(root))
        }

    async def file(self, request: Request) -> Response:
        """One of the files; index.html at the root.

        Raises:
          ApiError: if there is no such file.
        """
        name = request.path_params.get("name", "index.html")
        if name not in self.files:
            message = f"there is no file {name!r} of the page"
            raise ApiError(404, message, code="not_found")
        content = self.files[name]
        tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        headers = HEADERS | {"ETag": tag}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        kind = TYPES[name.rpartition(".")[2]]
        return Response(content, media_type=kind, headers=headers)


def _names(folder: Traversable, before: str = "") -> Iterator[str]:
    """Names of the files in a folder and those in it."""
    for each in folder.iterdir():
        name = before + each.name
        if each.is_dir():
            yield from _names(each, f"{name}/")
        elif name.rpartition(".")[2] in TYPES:
            yield name
