// Keep-alive with several sockets. Usage: client_node.js URL RUN POSTS
const { execFileSync } = require("child_process");
const crypto = require("crypto");
const path = require("path");

const [url, run, posts] = process.argv.slice(2);
const module_ = url.startsWith("https") ? require("https") : require("http");
const agent = new module_.Agent({ keepAlive: true, maxSockets: 4, rejectUnauthorized: false });
const sha1 = (data) => crypto.createHash("sha1").update(data).digest("hex");
const script = `import plan, json; print(json.dumps([[m, p, b.hex()] for m, p, b in plan.requests(${posts === "posts" ? "True" : "False"})]))`;
const plan = JSON.parse(execFileSync("python3", ["-c", script], { cwd: __dirname, maxBuffer: 1 << 26 }));

function send(number, method, target, body) {
  return new Promise((resolve, reject) => {
    const headers = { "X-Run": run, "X-Number": number };
    if (body.length) headers["Content-Length"] = body.length;
    const request = module_.request(url + target, { method, agent, headers }, (response) => {
      const parts = [];
      response.on("data", (part) => parts.push(part));
      response.on("end", () => {
        const line = { id: String(number), method, path: target, status: response.statusCode, sent: sha1(body), received: sha1(Buffer.concat(parts)) };
        console.log(JSON.stringify(line));
        resolve();
      });
    });
    request.on("error", reject);
    request.end(body);
  });
}

Promise.all(plan.map(([method, target, hex], number) => send(number, method, target, Buffer.from(hex, "hex"))))
  .then(() => agent.destroy(), (error) => { console.error(error); process.exit(1); });
