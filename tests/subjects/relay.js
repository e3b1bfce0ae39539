// A server on Node's own http module that asks another one for each request, in many ways. In: its own port, the port of the other.
// GET /MODE/in/N asks /MODE/out/N, or /MODE/out/N/0 to /2 for several: which request was made for which can be told by the path.
const fs = require('fs');
const http = require('http');
const net = require('net');

const [port, other] = process.argv.slice(2);
// Under load every connection of the pool is kept; `few` has five, which requests wait for; `fresh` keeps none.
const kept = new http.Agent({ keepAlive: true, maxSockets: 256 });
const few = new http.Agent({ keepAlive: true, maxSockets: 5 });
const fresh = new http.Agent({ keepAlive: false });

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

const call = (path, options, done) => {
  http.get({ host: '127.0.0.1', port: other, path, agent: kept, ...options }, (answer) => {
    answer.resume();
    answer.on('end', done);
  }).on('error', (error) => { console.error(path, error); done(); });
};
const ask = (path, options) => new Promise((done) => call(path, options, done));
const fetched = async (path) => (await fetch(`http://127.0.0.1:${other}${path}`)).text();

// A pool as database clients have them: five connections, each for one question at a time, others wait.
const pool = { idle: [], made: 0, waiting: [] };
const query = () => new Promise((done) => {
  pool.waiting.push(done);
  serveNext();
});
const serveNext = () => {
  if (!pool.waiting.length) return;
  const use = (socket) => {
    socket.done = pool.waiting.shift();
    socket.write('question\n');
  };
  if (pool.idle.length) return use(pool.idle.pop());
  if (pool.made === 5) return;
  pool.made += 1;
  const socket = net.connect(base.address().port, '127.0.0.1', () => {
    pool.idle.push(socket);
    serveNext();
  });
  socket.on('data', () => {
    const { done } = socket;
    pool.idle.push(socket);
    done();
    serveNext();
  });
};
const base = net.createServer((socket) => {
  socket.on('data', () => setTimeout(() => socket.write('answer\n'), 2));
  socket.on('error', () => {});
}).listen(0, '127.0.0.1');

const modes = {
  now: (path) => ask(path),
  fresh: (path) => ask(path, { agent: fresh }),
  named: (path) => ask(path, { host: 'localhost', agent: fresh, family: 4 }),
  two: async (path) => { await ask(`${path}/0`); await ask(`${path}/1`); },
  sleep: async (path) => { await sleep(3); await ask(path); },
  timer: (path) => new Promise((done) => setTimeout(() => call(path, {}, done), 3)),
  immediate: (path) => new Promise((done) => setImmediate(() => call(path, {}, done))),
  queued: (path) => ask(path, { agent: few }),
  fetch: (path) => fetched(path),
  sleepfetch: async (path) => { await sleep(3); await fetched(path); },
  three: (path) => Promise.all([0, 1, 2].map(async (n) => { await sleep(n + 1); await ask(`${path}/${n}`); })),
  base: async (path) => { await query(); await ask(path); },
  file: async (path) => { await fs.promises.readFile(__filename); await ask(path); },
};

http.createServer(async (request, response) => {
  const [, mode, side] = request.url.split('/');
  if (side === 'in' && modes[mode]) await modes[mode](request.url.replace('/in/', '/out/'));
  response.setHeader('Content-Length', 5);
  response.end('hello');
}).listen(Number(port), '127.0.0.1');
