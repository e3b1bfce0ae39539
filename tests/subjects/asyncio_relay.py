"""An HTTP/1.1 server on asyncio that asks another server before it answers.

In: the kind of server (aiohttp, uvicorn, fastapi, streams, other), the event loop (asyncio, uvloop), its own port, the port of the
other one. GET /MODE/in/N asks for /MODE/out/N, in the way that MODE says: which request was made for which can be told by the path.
In the environment: SERVES_TLS (certificate:key; streams, aiohttp, uvicorn), ASKS_TLS (nobody's certificate is looked at), ASKS_FOR
(`in` in the place of `out`: it stands before another one).
"""
import asyncio
import os
import random
import ssl
import sys
import urllib.request

kind, loop_name, own, other = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
certificate, key = os.environ["SERVES_TLS"].split(":") if "SERVES_TLS" in os.environ else (None, None)
asks_for = os.environ.get("ASKS_FOR", "out")
trusting = None
if "ASKS_TLS" in os.environ:
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
sessions = {}
kept = set()


def serving():
    if not certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def target(mode, number):
    return f"{'https' if trusting else 'http'}://127.0.0.1:{other}/{mode}/{asks_for}/{number}"


async def ask_by_httpx(mode, number):
    import httpx

    if mode not in sessions:
        sessions[mode] = httpx.AsyncClient(verify=trusting or True, trust_env=False, timeout=None)
    (await sessions[mode].get(target(mode, number))).read()


async def ask(mode, number):
    import aiohttp

    # Few connections, so that requests wait for each other's; or one for each request.
    limit = {"queued": 5}.get(mode, 0)
    if mode not in sessions:
        connector = aiohttp.TCPConnector(limit=limit, force_close=mode == "new", ssl=trusting or True)
        sessions[mode] = aiohttp.ClientSession(connector=connector)
    async with sessions[mode].get(target(mode, number)) as response:
        await response.read()


def ask_and_wait(mode, number):
    urllib.request.urlopen(target(mode, number), context=trusting).read()


async def ask_later(mode, number):
    await asyncio.sleep(0.1)
    await ask(mode, number)


async def relay(path):
    parts = path.strip("/").split("/")
    # What comes through other programs has their steps before its own.
    if len(parts) < 3 or parts[-2] != "in":
        return b"hello"
    mode, number = parts[0], parts[-1]
    if mode == "later":
        await asyncio.sleep(random.uniform(0.001, 0.005))
    if mode == "two":
        await ask(mode, number + "/0")
        await asyncio.sleep(0.001)
        await ask(mode, number + "/1")
    elif mode == "three":
        await asyncio.gather(*(ask(mode, f"{number}/{n}") for n in range(3)))
    elif mode == "httpx":
        await ask_by_httpx(mode, number)
    elif mode == "thread":
        # asyncio.to_thread() copies the context; run_in_executor() by itself does not.
        await asyncio.to_thread(ask_and_wait, mode, number)
    elif mode == "callback":
        done = asyncio.get_running_loop().create_future()
        start = lambda: kept.add(asyncio.ensure_future(go_on(done, mode, number)))
        asyncio.get_running_loop().call_later(0.002, start)
        await done
    elif mode == "after":
        task = asyncio.ensure_future(ask_later(mode, number))
        kept.add(task)
        task.add_done_callback(kept.discard)
    else:
        await ask(mode, number)
    return b"hello"


async def go_on(done, mode, number):
    await ask(mode, number)
    done.set_result(None)
    kept.discard(asyncio.current_task())


async def application(scope, receive, send):
    if scope["type"] != "http":
        return
    body = await relay(scope["path"])
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def serve_streams():
    async def serve(reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await relay(head.split(b" ")[1].decode())
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", own, backlog=512, ssl=serving())
    async with server:
        await server.serve_forever()


async def serve_aiohttp():
    from aiohttp import web

    async def handle(request):
        return web.Response(body=await relay(request.path))

    server = web.Server(handle)
    runner = web.ServerRunner(server)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", own, backlog=512, ssl_context=serving()).start()
    await asyncio.Event().wait()


def fastapi():
    from fastapi import FastAPI

    app = FastAPI()

    # Without async it runs in a thread, with a copy of the context.
    @app.get("/sync/in/{number}")
    def handle_in_thread(number: str):
        ask_and_wait("sync", number)
        return "hello"

    @app.get("/{mode}/in/{number}")
    async def handle(mode: str, number: str):
        await relay(f"/{mode}/in/{number}")
        return "hello"

    @app.get("/ready")
    async def ready():
        return "hello"

    return app


if kind in ("uvicorn", "fastapi"):
    import uvicorn

    app = application if kind == "uvicorn" else fastapi()
    files = {"ssl_certfile": certificate, "ssl_keyfile": key} if certificate else {}
    uvicorn.run(app, host="127.0.0.1", port=own, loop=loop_name, log_level="warning", backlog=512, **files)
else:
    if loop_name == "uvloop":
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    asyncio.run(serve_aiohttp() if kind == "aiohttp" else serve_streams())
