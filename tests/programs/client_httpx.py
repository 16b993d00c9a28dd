"""HTTP/2 with many streams on one connection. Usage: client_httpx.py URL RUN POSTS [TIMES]"""

import asyncio
import sys

import httpx

from plan import requests, truth

url, run, posts = sys.argv[1], sys.argv[2], sys.argv[3] == "posts"
times = int(sys.argv[4]) if len(sys.argv) > 4 else 1
plan = [one for one in requests(posts) if not one[1].startswith("/close")] * times


async def send(client, number, method, path, body):
    headers = {"X-Run": run, "X-Number": str(number), "Accept-Encoding": "identity"}
    response = await client.request(method, url + path, content=body or None, headers=headers)
    assert response.http_version == "HTTP/2", response.http_version
    truth(number, method, path, response.status_code, body, response.content)


async def main():
    limits = httpx.Limits(max_connections=2)
    # Without TLS the protocol is known beforehand.
    async with httpx.AsyncClient(http1=url.startswith("https"), http2=True, verify=False, limits=limits, timeout=60) as client:
        await asyncio.gather(*(send(client, number, *one) for number, one in enumerate(plan)))


asyncio.run(main())
