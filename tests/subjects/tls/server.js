// Node's https module; its TLS works in memory. In: port, certificate, key. Answers "ok" to everything.
const fs = require('fs'), https = require('https');
const [port, cert, key] = process.argv.slice(2);
https.createServer({ cert: fs.readFileSync(cert), key: fs.readFileSync(key) }, (request, response) => {
  response.setHeader('Content-Length', 2);
  response.end('ok');
}).listen(Number(port), '127.0.0.1');
