"""`seedjax serve`."""

import hashlib
import logging
import os
import socket
import stat
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from seedjax.cli import options, progress
from seedjax.config import override
from seedjax.errors import InputError
from seedjax.files.text import read_text

EXTRA = "pip install 'seedjax[server]'"


@options.grouped
def serve(
    *,
    loading: options.Loading,
    host: Annotated[
        str, typer.Option(help="Address to listen at; others than local need keys.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = (
        8000
    ),
    name: Annotated[
        str | None, typer.Option(help="What clients call the model; else its own name.")
    ] = None,
    slots: Annotated[int, typer.Option(min=1, help="Requests in flight at once.")] = 8,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Longest completion. Default: the model's."),
    ] = None,
    max_prompt_tokens: Annotated[
        int | None, typer.Option(min=1, help="Default: what the model has room for.")
    ] = None,
    max_waiting: Annotated[
        int, typer.Option(min=1, help="Requests in the queue; more get status 429.")
    ] = 128,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds that a request may take.")
    ] = 120.0,
    requests_per_minute: Annotated[
        int | None,
        typer.Option(min=1, help="Of a client; more get status 429. Default: any."),
    ] = None,
    key_file: Annotated[
        Path | None,
        typer.Option(help="API keys, one a line, in a file that not all may read."),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            help="Name under which a proxy or a tunnel calls the server (its Host "
            "header), beside its own; may be repeated. Default: those of this machine, "
            "and with keys any.",
            metavar="NAME",
        ),
    ] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option(
            help="Parameter that is dropped instead of refused, with a warning in the "
            "response; may be repeated.",
            metavar="PARAMETER",
        ),
    ] = None,
    feedback: Annotated[
        Path | None,
        typer.Option(
            help="SQLite file in which accepted and rejected completions, with their "
            "prompts, are stored. Default: nothing is."
        ),
    ] = None,
    page: Annotated[
        bool, typer.Option(help="A page at / on which one watches the denoising.")
    ] = True,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="path.to.field=value of the sampler's recipe; may be repeated.",
        ),
    ] = None,
) -> None:
    """Serve a model over HTTP, in the words of OpenAI's API, to programs and editors.

    Example: seedjax serve --port 8000 --slots 8
    """
    try:
        import uvicorn

        from seedjax.server import ServerConfig, create_app
        from seedjax.server.config import LOCAL_HOSTS
    except ImportError as error:
        raise InputError(f"{error.name} is not installed; {EXTRA}") from None
    digests = read_keys(key_file)
    if host not in LOCAL_HOSTS and not digests:
        raise InputError(
            f"--host {host} lets other machines in, and there is no API key; give a "
            "--key-file, or listen at 127.0.0.1"
        )
    hosts = None
    if allowed_host:
        hosts = LOCAL_HOSTS.union([host.lower()], map(str.lower, allowed_host))
    with listening(host, port) as sock:
        with progress.waiting(f"loading {loading.model}") as status:
            model = loading.load(status)
        recipe = override(model.sampler, settings or [])
        fields = {
            each.partition("=")[0].split(".")[0].strip() for each in settings or []
        }
        config = ServerConfig(
            name=name or model.name,
            num_slots=slots,
            max_new_tokens=max_new_tokens or recipe.max_new_tokens,
            max_prompt_tokens=max_prompt_tokens,
            max_waiting=max_waiting,
            timeout_s=timeout,
            requests_per_minute=requests_per_minute,
            key_digests=digests,
            hosts=hosts,
            ignored=frozenset(ignore or []),
            feedback=None if feedback is None else str(feedback),
            page=page,
        )
        overrides: Any = {field: getattr(recipe, field) for field in sorted(fields)}
        app = create_app(model, config, **overrides)
        logging.basicConfig(stream=sys.stderr, format="%(message)s")
        logging.getLogger("seedjax.server").setLevel(logging.INFO)
        address = "{}:{}".format(*sock.getsockname()[:2])
        print(
            f"serving {config.name} at http://{address}/v1, ready when "
            f"http://{address}/health says ok; "
            + (f"open http://{address}/ in a browser; " if page else "")
            + "Ctrl-C ends",
            file=sys.stderr,
        )
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                timeout_keep_alive=10,
                timeout_graceful_shutdown=int(timeout) + 1,
                server_header=False,
            )
        )
        try:
            server.run(sockets=[sock])
        except KeyboardInterrupt:
            if app.state.service.is_compiling:
                # A thread in the compiler makes the interpreter abort at its end.
                os._exit(130)
            raise


def read_keys(file: Path | None) -> frozenset[str]:
    """SHA-256 of the keys in a file.

    Raises:
      InputError: if there is none in it, or others may read it.
    """
    if file is None:
        return frozenset()
    text = read_text(file, hint="give one that holds API keys")
    # A group may: containers are given secrets so.
    if os.name == "posix" and file.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
        raise InputError(f"others may read {str(file)!r}; chmod 600 it")
    keys = [line.strip() for line in text.splitlines() if line.strip()]
    if not keys:
        raise InputError(f"{str(file)!r} holds no key; write one a line")
    return frozenset(hashlib.sha256(key.encode()).hexdigest() for key in keys)


def listening(host: str, port: int) -> socket.socket:
    """A socket bound to an address.

    Raises:
      InputError: if there is no such address, or the port is in use.
    """
    try:
        family, kind, *_, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"cannot listen at {host}:{port}: {reason}; give another --host or --port"
        ) from None
    return sock
