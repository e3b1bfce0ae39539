"""An HTTP/1.1 server on asyncio streams, keep-alive, one thread. In: the port as its argument.

GET /call?port=N asks 127.0.0.1:N/hello itself before it answers; every other path answers "hello".
"""
import asyncio
import sys
from urllib.parse import parse_qs, urlsplit


async def ask(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /hello HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: close\r\n\r\n" % port)
    answer = await reader.read()
    writer.close()
    return answer.split(b" ")[1]


async def serve(reader, writer):
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            target = urlsplit(head.split(b" ")[1].decode())
            body = b"hello"
            if target.path == "/call":
                body = await ask(int(parse_qs(target.query)["port"][0]))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]))
    async with server:
        await server.serve_forever()


asyncio.run(main())
