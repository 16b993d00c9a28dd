// server.mjs PORT CERT KEY [h2]: bun, deno, or node's https / http2
import { readFileSync } from "node:fs";
import { argv } from "node:process";
const [port, cert, key, h2] = [+argv[2], readFileSync(argv[3], "utf8"), readFileSync(argv[4], "utf8"), argv[5]];
const echo = (r) => new Response(`# echo ${new URL(r.url).pathname}\n`);
if (globalThis.Bun) Bun.serve({ hostname: "127.0.0.1", port, tls: { cert, key }, fetch: echo });
else if (globalThis.Deno) Deno.serve({ hostname: "127.0.0.1", port, cert, key }, echo);
else {
  const f = (q, s) => s.end(`# echo ${q.url}\n`);
  const s = h2 ? (await import("node:http2")).createSecureServer({ cert, key, allowHTTP1: true }, f)
    : (await import("node:https")).createServer({ cert, key }, f);
  s.listen(port, "127.0.0.1");
}
