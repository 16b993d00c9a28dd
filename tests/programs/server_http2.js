// HTTP/2 server with bodies plain and in every coding. Usage: server_http2.js PORT [CERT KEY]
const fs = require("fs");
const http2 = require("http2");
const zlib = require("zlib");

const [port, cert, key] = process.argv.slice(2);
const pattern = (size) => Buffer.from(Array.from({ length: size }, (_, i) => (i * 7 + Math.floor(i / 251)) % 256));
const codings = { gzip: zlib.gzipSync, deflate: zlib.deflateSync, br: zlib.brotliCompressSync };

function answer(stream, headers) {
  const [, kind, size] = headers[":path"].split("?")[0].split("/");
  const coding = codings[headers["accept-encoding"]];
  const body = kind === "size" || kind === "chunked" ? pattern(Number(size)) : Buffer.alloc(0);
  if (kind === "echo") {
    const parts = [];
    stream.on("data", (part) => parts.push(part));
    stream.on("end", () => {
      stream.respond({ ":status": 200, "content-type": "application/octet-stream" });
      stream.end(Buffer.concat(parts));
    });
  } else if (kind === "204") {
    stream.respond({ ":status": 204 }, { endStream: true });
  } else if (kind === "error") {
    stream.respond({ ":status": 500, "set-cookie": ["a=1", "b=2"] });
    stream.end("oops");
  } else if (headers[":method"] === "HEAD") {
    stream.respond({ ":status": 200, "content-length": 12345 }, { endStream: true });
  } else if (kind === "chunked") {
    stream.respond({ ":status": 200 }, { waitForTrailers: true });
    stream.on("wantTrailers", () => stream.sendTrailers({ "x-sum": "9" }));
    stream.end(body);
  } else {
    const coded = coding && body.length ? { "content-encoding": headers["accept-encoding"] } : {};
    stream.respond({ ":status": 200, ...coded });
    stream.end(coding && body.length ? coding(body) : body);
  }
}

const server = cert
  ? http2.createSecureServer({ cert: fs.readFileSync(cert), key: fs.readFileSync(key) })
  : http2.createServer();
server.on("stream", answer);
server.listen(Number(port), "127.0.0.1");
