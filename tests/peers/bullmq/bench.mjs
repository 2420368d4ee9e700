// BullMQ's throughput on a given, empty redis-server: how fast jobs are added,
// then how fast a worker with a no-op handler completes them.
//
//   npm ci
//   node bench.mjs --addr 127.0.0.1:6379 --tasks 50000 --batch 100 --clients 4 --payload-bytes 64
//
// Enqueue: each client has its own Queue, so its own connection, and awaits one
// `addBulk` of --batch jobs at a time; BullMQ pipelines a bulk's jobs.
//   https://docs.bullmq.io/guide/queues/adding-bulks
// Process: one Worker with a concurrency of 300.
//   https://docs.bullmq.io/guide/workers/concurrency
//   https://docs.bullmq.io/guide/parallelism-and-concurrency
// Completed jobs are kept, BullMQ's default. Its documentation suggests removing
// them to save memory, not for speed, and removing made no difference here.
//   https://docs.bullmq.io/guide/queues/auto-removal-of-jobs
//
// Also tried, with 20,000 to 50,000 jobs of 64 bytes on 2 cores shared with Redis
// (rough figures, in jobs a second; the settings above add 20,000 to 33,000 and
// complete 10,000 to 14,700):
//   adding: batches of 50, 200, 500 or 1,000, 1 to 16 clients, and a single Queue
//     for all clients: no different within the noise;
//   one worker, concurrency 20: 7,500; 50 to 200: 9,700 to 13,200;
//     500 to 1,000: 9,400 to 13,500; 1,500 to 2,000: 5,400 to 9,200;
//   two workers, concurrency 100 or 150: 9,300 to 16,500, on average no better
//     than one; 300: 9,500 to 14,000;
//   4 workers, concurrency 50 to 100: 9,500 to 11,900; 300: 9,000;
//   8 workers, concurrency 50 or 100: 9,000 to 10,600; 300: 7,200;
//   two worker processes: 7,900 to 10,500, since they and Redis share the 2 cores;
//   ioredis's enableAutoPipelining: 7,300 to 8,500;
//   removeOnComplete with a count of 0: 11,100, beside 10,500 with jobs kept.

import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { Queue, Worker } from 'bullmq';
import { Redis } from 'ioredis';

const QUEUE = 'bench';
const CONCURRENCY = 300;

const { values: args } = parseArgs({
  options: {
    addr: { type: 'string', default: '127.0.0.1:6379' },
    tasks: { type: 'string', default: '50000' },
    batch: { type: 'string', default: '100' },
    clients: { type: 'string', default: '4' },
    'payload-bytes': { type: 'string', default: '64' },
  },
});
const [host, port] = args.addr.split(':');
const connection = { host, port: Number(port) };
const tasks = count('tasks');
const batch = count('batch');
const clients = count('clients');
const text = 'x'.repeat(count('payload-bytes'));

const server = new Redis(connection);
server.on('error', fail);
if ((await server.dbsize()) > 0) fail(`the server at ${args.addr} is not empty`);

const queues = Array.from({ length: clients }, () => new Queue(QUEUE, { connection }));
await ready(queues);
await measure('enqueue', enqueue);
await expectCounts({ wait: tasks, completed: 0 });

const worker = new Worker(QUEUE, async () => {}, {
  connection,
  concurrency: CONCURRENCY,
  autorun: false,
}).on('failed', (_job, error) => fail(error));
await ready([worker]);
await measure('process', completeAll);
await expectCounts({ wait: 0, active: 0, failed: 0, completed: tasks });

// Everything is in Redis by now: there is nothing to close gracefully.
process.exit();

async function enqueue() {
  let left = tasks;
  await Promise.all(queues.map(async (queue) => {
    while (left > 0) {
      const length = Math.min(batch, left);
      left -= length;
      await queue.addBulk(Array.from({ length }, () => ({ name: 'job', data: text })));
    }
  }));
}

async function completeAll() {
  worker.run().catch(fail);
  // A job enters this set in the script that acknowledges it.
  const completed = queues[0].toKey('completed');
  while ((await server.zcard(completed)) < tasks) await sleep(5);
}

async function expectCounts(expected) {
  const counts = await queues[0].getJobCounts(...Object.keys(expected));
  for (const [state, jobs] of Object.entries(expected)) {
    if (counts[state] !== jobs) fail(`${counts[state]} jobs in "${state}", not ${jobs}`);
  }
}

async function measure(phase, run) {
  const cpu = await serverSeconds();
  const start = performance.now();
  await run();
  const seconds = round((performance.now() - start) / 1000);
  const server_seconds = round((await serverSeconds()) - cpu);
  console.log(JSON.stringify({ phase, tasks, seconds, server_seconds }));
}

/** The CPU time the server has used so far. */
async function serverSeconds() {
  const info = await server.info('cpu');
  const field = (name) => Number(info.match(new RegExp(`^${name}:(.*)`, 'm'))[1]);
  return field('used_cpu_user') + field('used_cpu_sys');
}

function round(seconds) {
  return Number(seconds.toFixed(6));
}

async function ready(handles) {
  for (const handle of handles) handle.on('error', fail);
  await Promise.all(handles.map((handle) => handle.waitUntilReady()));
}

function count(name) {
  const value = Number(args[name]);
  return Number.isInteger(value) && value > 0 ? value : fail(`--${name} takes a whole number above 0`);
}

function fail(reason) {
  console.error(reason);
  process.exit(1);
}
