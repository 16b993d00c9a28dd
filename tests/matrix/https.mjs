import https from "node:https";
const agent = new https.Agent({ keepAlive: true, maxSockets: 1, rejectUnauthorized: false });
const get = (u) => new Promise((ok, no) => https.get(u, { agent }, (r) => { r.on("data", (d) => process.stdout.write(d)); r.on("end", ok); }).on("error", no));
for (let i = 1; i <= 4; i++) { await get(`${process.argv[2]}/${i}`); await new Promise((r) => setTimeout(r, 400)); }
agent.destroy();
