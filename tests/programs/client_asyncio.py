"""Keep-alive on several connections at once, through memory BIOs. Usage: client_asyncio.py URL RUN POSTS"""

import asyncio
import ssl
import sys
import urllib.parse

from plan import requests, truth

url, run, posts = urllib.parse.urlsplit(sys.argv[1]), sys.argv[2], sys.argv[3] == "posts"
context = ssl._create_unverified_context() if url.scheme == "https" else None
CONNECTIONS = 4


async def read_head(reader):
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    return int(lines[0].split()[1]), headers


async def read_body(reader, method, status, headers):
    if method == "HEAD" or status in (204, 304):
        return b""
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while size := int(await reader.readline(), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        while await reader.readline() != b"\r\n":
            pass
        return body
    if "content-length" in headers:
        return await reader.readexactly(int(headers["content-length"]))
    return await reader.read()


async def worker(queue):
    reader = writer = None
    while queue:
        number, (method, path, body) = queue.pop(0)
        if writer is None:
            reader, writer = await asyncio.open_connection(url.hostname, url.port, ssl=context)
        head = f"{method} {path} HTTP/1.1\r\nHost: {url.netloc}\r\nX-Run: {run}\r\nX-Number: {number}\r\n"
        if body:
            head += f"Content-Length: {len(body)}\r\n"
        writer.write(head.encode() + b"\r\n" + body)
        status, headers = await read_head(reader)
        truth(number, method, path, status, body, await read_body(reader, method, status, headers))
        if headers.get("connection") == "close":
            writer.close()
            writer = None
    if writer is not None:
        writer.close()


async def main():
    queue = list(enumerate(requests(posts)))
    await asyncio.gather(*(worker(queue) for _ in range(CONNECTIONS)))


asyncio.run(main())
