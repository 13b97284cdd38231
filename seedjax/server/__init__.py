"""An HTTP server with the API of OpenAI, infilling and edits for editors.

    client ─▶ app ─▶ bodies ─▶ jobs ─▶ worker ─▶ Engine
                 checks  fields    prompts    one thread   slots on the device

`seedjax serve` starts it. `create_app` makes the same as an ASGI application.
"""

from seedjax.server.app import create_app
from seedjax.server.config import ServerConfig

__all__ = ["ServerConfig", "create_app"]
