import http2 from "node:http2";
const u = new URL(process.argv[2]), c = http2.connect(u.origin, { rejectUnauthorized: false });
const get = (p) => new Promise((ok) => c.request({ ":path": p }).on("data", (d) => process.stdout.write(d)).on("end", ok));
for (let i = 1; i <= 4; i++) { await get(`${u.pathname}/${i}`); await new Promise((r) => setTimeout(r, 400)); }
c.close();
