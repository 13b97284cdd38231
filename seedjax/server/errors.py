"""Errors as clients of OpenAI's API read them.

{"error": {"message": ..., "type": ..., "param": ..., "code": ...}}
"""

import math
from typing import Any

from starlette.responses import JSONResponse

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "invalid_request_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    503: "service_unavailable_error",
}


class ApiError(Exception):
    """A request that is answered with an error."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float = 1.0,
    ):
        """Joins the parts.

        Args:
          status: of HTTP.
          message: one line: what was got, what was expected, how to mend it.
          param: the field at fault, if it is one.
          code: a word for programs.
          retry_after: seconds until it may be tried again, for status 429.
        """
        message = " ".join(message.split())  # a field's name may break lines
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.retry_after = retry_after

    def body(self) -> dict[str, Any]:
        """The JSON object."""
        kind = TYPES.get(self.status, "server_error")
        return {
            "error": {
                "message": self.message,
                "type": kind,
                "param": self.param,
                "code": self.code,
            }
        }

    def response(self) -> JSONResponse:
        """The whole response."""
        wait = str(math.ceil(self.retry_after))
        headers = {429: {"Retry-After": wait}, 401: {"WWW-Authenticate": "Bearer"}}
        return JSONResponse(
            self.body(), status_code=self.status, headers=headers.get(self.status)
        )
