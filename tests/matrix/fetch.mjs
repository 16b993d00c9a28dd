// fetch.mjs URL: node, deno and bun
for (let i = 1; i <= 4; i++) {
  console.log(await (await fetch(`${process.argv[2]}/${i}`, { tls: { rejectUnauthorized: false } })).text());
  await new Promise((r) => setTimeout(r, 400));
}
