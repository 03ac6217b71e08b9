// Every message of a run once and in order, also what was published before: npm install zeromq@6, then
// node examples/complete_client.js tcp://127.0.0.1:5555
"use strict";

const { randomUUID } = require("node:crypto");
const { Dealer, Subscriber } = require("zeromq");

const ANSWER_MS = 5_000;

const endpoint = process.argv[2];
const [, address, port] = endpoint.match(/^(.*):(\d+)$/);
const stream = new Subscriber({ linger: 0 });
const service = new Dealer({ linger: 0, receiveTimeout: ANSWER_MS });

/** The reply to a request, which is sent again until it is answered. */
async function ask(request, fields = {}) {
  const body = { request, version: "2.0", id: randomUUID(), ...fields };
  for (;;) {
    await service.send(JSON.stringify(body));
    try {
      for (;;) {
        const [head, ...parts] = await service.receive();
        const reply = JSON.parse(head);
        if (reply.id === body.id) return [reply, parts]; // another one answers a request that was sent twice
      }
    } catch (error) {
      if (error.code !== "EAGAIN") throw error;
    }
  }
}

/** The messages of a session after one and up to another. */
async function* replay(session, after, until) {
  while (after < until) {
    const [reply, parts] = await ask("replay", { session, after, until, topics: [""] });
    if (reply.reply === "refused" && reply.code === "too old") {
      const [snapshot] = await ask("snapshot");
      const state = Object.values(snapshot.sources).find((one) => one.session === session);
      const keptFrom = Math.min(state ? state.oldest_session_seq : until + 1, until + 1);
      console.error(`lost: ${keptFrom - 1 - after} messages are no longer kept`);
      after = keptFrom - 1;
      continue;
    }
    if (reply.reply === "refused") throw new Error(`replay: ${reply.code}: ${reply.reason}`);
    for (const count of reply.messages) {
      const [topic, header, ...payloads] = parts.splice(0, count);
      yield { topic: topic.toString(), header: header.toString(), payloads };
    }
    after = reply.through;
  }
}

/** Until every source that was seen has ended. */
async function* messages() {
  stream.connect(endpoint);
  service.connect(`${address}:${Number(port) + 1}`);
  stream.subscribe(""); // 1. subscribe: from here on the stream is kept for us
  const reached = new Map(); // by session the last session_seq that was given
  const running = new Set();
  const [snapshot] = await ask("snapshot"); // 2. where everything stands
  for (const [source, state] of Object.entries(snapshot.sources)) {
    running.add(source);
    yield* replay(state.session, -1, state.session_seq); // 3. what was published up to there
    reached.set(state.session, state.session_seq);
    if (state.end !== null) running.delete(source);
  }
  while (running.size > 0 || reached.size === 0) {
    const [topic, header, ...payloads] = await stream.receive(); // 4. the stream, without what is known
    const message = JSON.parse(header); // times in nanoseconds may exceed 2^53: take those from the text
    if (message.version.split(".")[0] !== "2") throw new Error(`version: got ${message.version}, expected 2.x`);
    const last = reached.get(message.session) ?? -1;
    if (message.session_seq <= last) continue;
    yield* replay(message.session, last, message.session_seq - 1); // 5. what the stream lost
    yield { topic: topic.toString(), header: header.toString(), payloads };
    reached.set(message.session, message.session_seq);
    running.add(message.source);
    if (message.type === "end" && message.reason !== "new slide") running.delete(message.source);
  }
}

(async () => {
  for await (const { topic, header } of messages()) console.log(topic, header);
})()
  .catch((error) => {
    console.error(error.message);
    process.exitCode = 1;
  })
  .finally(() => {
    stream.close();
    service.close();
  });
