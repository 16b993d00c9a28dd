// HTTP/1.1 over TLS: GET /size/N, and POST, which is answered with what it brought. Usage: server_node.js PORT CERT KEY
const fs = require("fs");
const https = require("https");

const [port, cert, key] = process.argv.slice(2);
const pattern = (size) => Buffer.from(Array.from({ length: size }, (_, i) => (i * 7 + Math.floor(i / 251)) % 256));
const bodies = {};

https
  .createServer({ cert: fs.readFileSync(cert), key: fs.readFileSync(key) }, (request, response) => {
    if (request.method === "POST") {
      request.pipe(response);
    } else {
      const size = Number(request.url.split("?")[0].split("/")[2]);
      response.end((bodies[size] ??= pattern(size)));
    }
  })
  .listen(Number(port), "127.0.0.1");
