// An HTTP server on Node's own http module. In: the port as its argument; with a certificate and its key behind it, over TLS.
// GET /call?port=N asks 127.0.0.1:N/hello itself before it answers; every other path answers "hello".
const fs = require('fs');
const http = require('http');
const https = require('https');
const agent = new http.Agent({ keepAlive: true });

const [port, cert, key] = process.argv.slice(2);

const answer = (request, response) => {
  const url = new URL(request.url, 'http://here');
  if (url.pathname !== '/call') return response.end('hello');
  const options = { agent, host: '127.0.0.1', port: Number(url.searchParams.get('port')), path: '/hello' };
  http.get(options, (other) => {
    other.resume();
    other.on('end', () => response.end(String(other.statusCode)));
  }).on('error', (error) => { response.statusCode = 502; response.end(error.message); });
};

const server = cert
  ? https.createServer({ cert: fs.readFileSync(cert), key: fs.readFileSync(key) }, answer)
  : http.createServer(answer);
server.listen(Number(port), '127.0.0.1');
