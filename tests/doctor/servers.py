"""Servers on 127.0.0.1 that behave as FLARE's do, or do not."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.doctor.authority import Authority


def tls(
    folder: Path, authority: Authority, *, clients: Authority | None = None, name="localhost", **dates
) -> ssl.SSLContext:
    """A server's TLS with mutual authentication, as FLARE sets it up.

    Args:
        folder: for the certificates.
        authority: issues the server's certificate.
        clients: whose clients are taken; default: the same authority's.
        name: in the certificate.
        dates: of the certificate, see :meth:`Authority.issue`.
    """
    certificate, key, root = (folder / f"theirs.{kind}" for kind in ("crt", "key", "root"))
    authority.issue(certificate, key, name, **dates)
    (clients or authority).write(root)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(root)
    context.load_cert_chain(certificate, key)
    return context


@contextlib.contextmanager
def raw(talk: Callable[[socket.socket], None], context: ssl.SSLContext | None = None) -> Iterator[int]:
    """Takes one connection, inside TLS if there is a context, and hands it to ``talk``; gives the port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(20)

        def serve() -> None:
            with contextlib.suppress(OSError):
                connection, _ = listening.accept()
                with connection:
                    connection.settimeout(20)
                    if context is None:
                        talk(connection)
                    else:
                        with context.wrap_socket(connection, server_side=True) as secure:
                            talk(secure)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
    thread.join(25)


@contextlib.contextmanager
def flare_http(context: ssl.SSLContext) -> Iterator[int]:
    """What FLARE's ``http`` driver runs: aiohttp with a page that this is not asked for; gives the port."""
    from aiohttp import web

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    runner = web.AppRunner(web.Application(), access_log=None)

    async def start() -> int:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        return site._server.sockets[0].getsockname()[1]

    def wait(work):
        return asyncio.run_coroutine_threadsafe(work, loop).result(20)

    try:
        yield wait(start())
    finally:
        wait(runner.cleanup())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@contextlib.contextmanager
def flare_grpc(folder: Path, authority: Authority, clients: Authority | None = None, **issue) -> Iterator[int]:
    """What FLARE's ``grpc`` driver runs; gives the port."""
    from concurrent.futures import ThreadPoolExecutor

    import grpc

    certificate, key, root = (folder / f"grpc.{kind}" for kind in ("crt", "key", "root"))
    authority.issue(certificate, key, "localhost", **issue)
    (clients or authority).write(root)
    pair = (key.read_bytes(), certificate.read_bytes())
    credentials = grpc.ssl_server_credentials([pair], root.read_bytes(), require_client_auth=True)
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait(10)
