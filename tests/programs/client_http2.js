// HTTP/2 on one connection, with coded bodies. Usage: client_http2.js URL RUN POSTS
const { execFileSync } = require("child_process");
const crypto = require("crypto");
const http2 = require("http2");
const zlib = require("zlib");

const [url, run, posts] = process.argv.slice(2);
const sha1 = (data) => crypto.createHash("sha1").update(data).digest("hex");
const script = `import plan, json; print(json.dumps([[m, p, b.hex()] for m, p, b in plan.requests(${posts === "posts" ? "True" : "False"})]))`;
const plan = JSON.parse(execFileSync("python3", ["-c", script], { cwd: __dirname, maxBuffer: 1 << 26 }))
  .filter(([, target]) => !target.startsWith("/close"));
const codings = ["identity", "gzip", "deflate", "br"];
const undo = { gzip: zlib.gunzipSync, deflate: zlib.inflateSync, br: zlib.brotliDecompressSync };
const session = http2.connect(url, { rejectUnauthorized: false });

function send(number, method, target, body) {
  return new Promise((resolve, reject) => {
    const headers = { ":method": method, ":path": target, "x-run": run, "x-number": number, "accept-encoding": codings[number % 4] };
    const stream = session.request(headers, { endStream: !body.length });
    const parts = [];
    let answer = {};
    stream.on("response", (headers) => (answer = headers));
    stream.on("data", (part) => parts.push(part));
    stream.on("error", reject);
    stream.on("end", () => {
      const coding = undo[answer["content-encoding"]];
      const received = coding ? coding(Buffer.concat(parts)) : Buffer.concat(parts);
      console.log(JSON.stringify({ id: String(number), method, path: target, status: answer[":status"], sent: sha1(body), received: sha1(received) }));
      resolve();
    });
    if (body.length) stream.end(body);
  });
}

Promise.all(plan.map(([method, target, hex], number) => send(number, method, target, Buffer.from(hex, "hex"))))
  .then(() => session.close(), (error) => { console.error(error); process.exit(1); });
