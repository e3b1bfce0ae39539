// Node as client, several connections at once in one thread. In: https | fetch, prefix, connections, requests on each, ports.
// Asks /PREFIX/<port that is asked>/<connection>/<number>.
process.env.NODE_TLS_REJECT_UNAUTHORIZED = '0';
const https = require('https');
const [how, prefix, connections, requests, ...ports] = process.argv.slice(2);
const get = (agent, port, path) => new Promise((done, failed) => {
  https.get({ host: '127.0.0.1', port, path, agent }, (answer) => {
    answer.resume();
    answer.on('end', () => answer.statusCode === 200 ? done() : failed(new Error(answer.statusCode)));
  }).on('error', failed);
});
const run = async (connection) => {
  const agent = new https.Agent({ keepAlive: true, maxSockets: 1 }), port = ports[connection % ports.length];
  for (let number = 0; number < Number(requests); number++) {
    const path = `${prefix}/${port}/${connection}/${number}`;
    if (how === 'fetch') await (await fetch(`https://127.0.0.1:${port}${path}`)).text();
    else await get(agent, port, path);
  }
  agent.destroy();
};
Promise.all([...Array(Number(connections)).keys()].map(run)).then(() => process.exit(0), (error) => {
  console.error(error);
  process.exit(1);
});
