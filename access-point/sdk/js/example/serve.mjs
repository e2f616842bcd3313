// Serves the demo page, with what it stands on, on loopback.
//
// usage: serve.mjs [PORT]
// Then open the address that it prints, with what `page.js` says behind it.
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, normalize } from "node:path";
import { fileURLToPath } from "node:url";

const sdk = fileURLToPath(new URL("..", import.meta.url));
const types = { ".html": "text/html; charset=utf-8", ".js": "text/javascript", ".mjs": "text/javascript" };

const server = createServer(async (request, response) => {
  const { pathname } = new URL(request.url, "http://localhost");
  const path = sdk + normalize(pathname);
  const found = await stat(path).catch(() => null);
  const type = types[extname(path)];
  if (!found?.isFile() || !type) return response.writeHead(404).end();
  response.writeHead(200, { "content-type": type, "cache-control": "no-store" });
  createReadStream(path).pipe(response);
});
server.listen(Number(process.argv[2] ?? 0), "127.0.0.1", () => {
  console.log(`http://127.0.0.1:${server.address().port}/example/index.html`);
});
