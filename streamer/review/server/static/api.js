// The server, asked with the token that the page's address had.

const KEY = "leukostream-token";

/** The token leaves the address, its history and what is sent along as referrer; the tab keeps it. */
function tokenOfPage() {
  const given = new URLSearchParams(location.search).get("token");
  if (given !== null) {
    sessionStorage.setItem(KEY, given);
    history.replaceState(null, "", location.pathname + location.hash);
  }
  return sessionStorage.getItem(KEY) ?? "";
}

const token = tokenOfPage();
export const hasToken = token !== "";

/** What the server refused, in its words. */
export class Refused extends Error {
  constructor(status, code, detail) {
    super(detail);
    this.status = status;
    this.code = code;
  }
}

let session = null;
export const choose = (id) => { session = id; };

function address(path, query = {}) {
  const parts = new URLSearchParams();
  if (session !== null) parts.set("session", session);
  for (const [name, value] of Object.entries(query)) if (value !== null && value !== undefined) parts.set(name, value);
  const text = parts.toString();
  return `/api/v1/${path}${text && `?${text}`}`;
}

async function ask(path, query, options = {}) {
  let answer;
  try {
    answer = await fetch(address(path, query), {
      ...options,
      headers: { Authorization: `Bearer ${token}`, ...options.headers },
      credentials: "omit",
      redirect: "error",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "no server", "The server does not answer. Is leukostream still running there?");
  }
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => ({}));
  throw new Refused(answer.status, said.code ?? "failed", said.detail ?? `The server answered ${answer.status}.`);
}

export const get = async (path, query) => (await ask(path, query)).json();
export const blob = async (path, signal) => (await ask(path, {}, { signal })).blob();

export async function post(path, body) {
  const options = { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
  return (await ask(path, {}, options)).json();
}

/** Server-sent events, each to `heard(name, data)`; `state(true or false)` says whether they come. Tries again until
 * `signal` aborts. EventSource can't send a header, and would put the token into an address. */
export async function listen(query, heard, state, signal) {
  let wait = 250;
  while (!signal.aborted) {
    try {
      const answer = await ask("events", query, { signal });
      state(true);
      wait = 250;
      await read(answer.body.pipeThrough(new TextDecoderStream()), heard);
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Refused && error.status === 401) throw error;
    }
    state(false);
    await new Promise((done) => setTimeout(done, wait));
    wait = Math.min(5000, 2 * wait);
  }
}

async function read(stream, heard) {
  let text = "";
  for await (const part of stream) {
    text += part;
    const events = text.split("\n\n");
    text = events.pop();
    for (const one of events) {
      const fields = Object.fromEntries(
        one.split("\n").filter((line) => !line.startsWith(":")).map((line) => {
          const at = line.indexOf(": ");
          return [line.slice(0, at), line.slice(at + 2)];
        }),
      );
      if (fields.event) heard(fields.event, JSON.parse(fields.data));
    }
  }
}
