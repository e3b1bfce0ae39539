// An HTTP server on Node's own http module. In: the port as its argument.
// GET /call?port=N asks 127.0.0.1:N/hello itself before it answers; every other path answers "hello".
const http = require('http');
const agent = new http.Agent({ keepAlive: true });

http.createServer((request, response) => {
  const url = new URL(request.url, 'http://here');
  if (url.pathname !== '/call') return response.end('hello');
  const options = { agent, host: '127.0.0.1', port: Number(url.searchParams.get('port')), path: '/hello' };
  http.get(options, (answer) => {
    answer.resume();
    answer.on('end', () => response.end(String(answer.statusCode)));
  }).on('error', (error) => { response.statusCode = 502; response.end(error.message); });
}).listen(Number(process.argv[2]), '127.0.0.1');
