// A server on Node's own http module that asks another one for each request, in many ways. In: its own port, the port of the other;
// over TLS the same behind them, a certificate and its key.
// GET /MODE/in/N asks /MODE/out/N, or /MODE/out/N/0 to /2 for several: which request was made for which can be told by the path.
// XY_MODE for MODE asks over TLS if Y is s. GET /pass/... asks /... over TLS. In the environment: FRAMEWORK (express, fastify), which
// serves instead of the http module alone. With --expose-gc garbage is collected all the time.
const fs = require('fs');
const http = require('http');
const https = require('https');
const net = require('net');

const [port, other, tlsPort, tlsOther, cert, key] = process.argv.slice(2);
// Under load every connection of the pool is kept; `few` has five, which requests wait for; `fresh` keeps none.
const agentsOf = (module) => ({
  module,
  kept: new module.Agent({ keepAlive: true, maxSockets: 256, rejectUnauthorized: false }),
  few: new module.Agent({ keepAlive: true, maxSockets: 5, rejectUnauthorized: false }),
  fresh: new module.Agent({ keepAlive: false, rejectUnauthorized: false }),
});
const plain = { ...agentsOf(http), name: 'http', port: other };
const secure = { ...agentsOf(https), name: 'https', port: tlsOther };
const by = (path) => (/^\/.s_/.test(path) ? secure : plain);

if (global.gc) setInterval(global.gc, 5);

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

const call = (path, { agent = 'kept', ...options }, done) => {
  const way = by(path);
  way.module.get({ host: '127.0.0.1', port: way.port, path, agent: way[agent], ...options }, (answer) => {
    answer.resume();
    answer.on('end', done);
  }).on('error', (error) => { console.error(path, error); done(); });
};
const ask = (path, options = {}) => new Promise((done) => call(path, options, done));
const fetched = async (path) => (await fetch(`${by(path).name}://127.0.0.1:${by(path).port}${path}`)).text();
const pass = (path) => new Promise((done) => {
  https.get({ host: '127.0.0.1', port: tlsOther, path, agent: secure.kept }, (answer) => {
    answer.resume();
    answer.on('end', done);
  }).on('error', (error) => { console.error(path, error); done(); });
});

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
  fresh: (path) => ask(path, { agent: 'fresh' }),
  named: (path) => ask(path, { host: 'localhost', agent: 'fresh', family: 4 }),
  two: async (path) => { await ask(`${path}/0`); await ask(`${path}/1`); },
  sleep: async (path) => { await sleep(3); await ask(path); },
  timer: (path) => new Promise((done) => setTimeout(() => call(path, {}, done), 3)),
  immediate: (path) => new Promise((done) => setImmediate(() => call(path, {}, done))),
  queued: (path) => ask(path, { agent: 'few' }),
  fetch: (path) => fetched(path),
  sleepfetch: async (path) => { await sleep(3); await fetched(path); },
  three: (path) => Promise.all([0, 1, 2].map(async (n) => { await sleep(n + 1); await ask(`${path}/${n}`); })),
  base: async (path) => { await query(); await ask(path); },
  file: async (path) => { await fs.promises.readFile(__filename); await ask(path); },
};

const served = async (url) => {
  const [, way, side] = url.split('/');
  const mode = modes[way.replace(/^.._/, '')];
  if (way === 'pass') await pass(url.slice('/pass'.length));
  else if (side === 'in' && mode) await mode(url.replace('/in/', '/out/'));
  return 'hello';
};

if (process.env.FRAMEWORK === 'express') {
  const express = require('express');
  const app = express();
  app.use(express.json());
  app.use((request, response, next) => setImmediate(next));
  app.get('/*path', async (request, response) => { response.send(await served(request.url)); });
  app.listen(Number(port), '127.0.0.1');
} else if (process.env.FRAMEWORK === 'fastify') {
  const app = require('fastify')();
  app.addHook('preHandler', async () => { await null; });
  app.get('/*', (request) => served(request.url));
  app.listen({ port: Number(port), host: '127.0.0.1' });
} else {
  const answer = async (request, response) => {
    const body = await served(request.url);
    response.setHeader('Content-Length', body.length);
    response.end(body);
  };
  http.createServer(answer).listen(Number(port), '127.0.0.1');
  if (cert) {
    const pair = { cert: fs.readFileSync(cert), key: fs.readFileSync(key) };
    https.createServer(pair, answer).listen(Number(tlsPort), '127.0.0.1');
  }
}
