# client.py LIBRARY URL [CA]: four GETs, 0.4 s apart, on one connection where the library can.
import asyncio, socket, ssl, sys, time
lib, url = sys.argv[1:3]
ctx = ssl._create_unverified_context()
run = asyncio.new_event_loop().run_until_complete

def urllib():
    from urllib.request import urlopen
    return lambda u: urlopen(u, context=ctx).read().decode()

def requests():
    import requests, urllib3; urllib3.disable_warnings()
    s = requests.Session(); s.verify = s.trust_env = False  # REQUESTS_CA_BUNDLE would win over verify
    return lambda u: s.get(u).text

def urllib3():
    import urllib3; urllib3.disable_warnings()
    p = urllib3.PoolManager(cert_reqs="CERT_NONE")
    return lambda u: p.request("GET", u).data.decode()

def aiohttp():
    import aiohttp
    async def make(): return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False))
    s = run(make())
    async def get(u):
        async with s.get(u) as r: return await r.text()
    return lambda u: run(get(u))

def httpx():
    import httpx
    c = httpx.Client(http2=True, verify=False)
    return lambda u: c.get(u).text

def httpx_async():
    import httpx
    c = httpx.AsyncClient(http2=True, verify=False)
    return lambda u: run(c.get(u)).text

def curl_cffi():
    from curl_cffi import requests
    s = requests.Session(verify=False, impersonate="chrome")
    return lambda u: s.get(u).text

def primp():
    import primp
    c = primp.Client(verify=False)
    return lambda u: c.get(u).text

def pycurl():
    import io, pycurl
    c = pycurl.Curl(); c.setopt(c.SSL_VERIFYPEER, 0); c.setopt(c.SSL_VERIFYHOST, 0)
    def get(u):
        b = io.BytesIO(); c.setopt(c.URL, u); c.setopt(c.WRITEDATA, b); c.perform()
        return b.getvalue().decode()
    return get

def pyopenssl():
    from OpenSSL import SSL
    host, port = url.split("/")[2].split(":")
    c = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), socket.create_connection((host, int(port))))
    c.set_connect_state()
    def get(u):
        c.sendall(f"GET /{u.split('/', 3)[3]} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
        return c.recv(65536).decode()
    return get

def awscrt():
    from awscrt import http, io
    host, port = url.split("/")[2].split(":")
    group = io.EventLoopGroup(1)
    options = io.TlsContextOptions(); options.verify_peer = False
    tls = io.ClientTlsContext(options).new_connection_options()
    boot = io.ClientBootstrap(group, io.DefaultHostResolver(group))
    c = http.HttpClientConnection.new(host, int(port), boot, tls_connection_options=tls).result()
    def get(u):
        b, headers = bytearray(), http.HttpHeaders([("Host", f"{host}:{port}")])
        s = c.request(http.HttpRequest("GET", "/" + u.split("/", 3)[3], headers),
                      on_body=lambda chunk, **_: b.extend(chunk))
        s.activate(); s.completion_future.result(10)
        return b.decode()
    return get

def grpc():
    import grpc
    _, _, host, name = url.split("/")
    ch = grpc.secure_channel(host, grpc.ssl_channel_credentials(open(sys.argv[3], "rb").read()))
    f = ch.unary_unary(f"/{name}/Get", lambda b: b, lambda b: b)
    return lambda u: f(b"\n\x04ping").decode()

get = globals()[lib]()
for i in range(1, 5):
    print(get(f"{url}/{i}"), flush=True)
    time.sleep(0.4)
