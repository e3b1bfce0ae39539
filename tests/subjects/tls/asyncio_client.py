"""asyncio as client, several connections at once in one thread. In: prefix, connections, requests on each, ports.
Asks /PREFIX/<port that is asked>/<connection>/<number>."""
import asyncio, ssl, sys

prefix, connections, requests, *ports = sys.argv[1], *map(int, sys.argv[2:])
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE


async def run(connection):
    port = ports[connection % len(ports)]
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    for number in range(requests):
        writer.write(f"GET {prefix}/{port}/{connection}/{number} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert b" 200 " in head, head
        await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
    writer.close()


async def main():
    await asyncio.gather(*map(run, range(connections)))


asyncio.run(main())
