"""Carries plain connections over TLS, for the suite, whose Python speaks none that is current:
`over_tls.py PORT TARGET_PORT`. What one side ends, it ends on the other."""

import asyncio
import ssl
import sys

CHUNK = 65536


async def carry(reader, writer):
    try:
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
    except (OSError, ssl.SSLError):
        pass
    finally:
        writer.close()


async def main(port, target):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # The certificate was made for this run.
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    async def serve(reader, writer):
        there, back = await asyncio.open_connection("127.0.0.1", target, ssl=context)
        await asyncio.gather(carry(reader, back), carry(there, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    await server.serve_forever()


asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
