// What the server is asked. Every failure becomes a ServerError whose message is a sentence for the person.

const PATIENCE = 8;

export class ServerError extends Error {}

const pause = (seconds, signal) => new Promise((done, failed) => {
  const timer = setTimeout(done, 1000 * seconds);
  signal?.addEventListener("abort", () => { clearTimeout(timer); failed(signal.reason); }, { once: true });
});

// The answer, as soon as the server has room for the request; `waiting` is told each time when it has none.
async function ask(path, body, { signal, waiting } = {}) {
  const request = body === undefined ? { signal } : {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal,
  };
  for (let attempt = 1; ; attempt += 1) {
    let answer;
    try {
      answer = await fetch(path, request);
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new ServerError("The server does not answer. Start it again with more-r1 serve; what is on this page stays.");
    }
    if (answer.ok) return answer;
    if (answer.status === 429 && attempt < PATIENCE) {
      const seconds = Math.min(Number(answer.headers.get("Retry-After")) || 1, 30);
      waiting?.(seconds);
      await pause(seconds, signal);
      continue;
    }
    throw new ServerError(await reason(answer));
  }
}

async function reason(answer) {
  try {
    const { error } = await answer.json();
    if (typeof error === "string" && error) return error;
  } catch { /* not JSON: the number must do */ }
  return `The server answered ${answer.status} without a word of why.`;
}

const json = async (...request) => (await ask(...request)).json();

export const schema = () => json("/schema");
export const examples = () => json("/examples");
export const tokens = async (text) => (await json("/tokens", { text })).tokens;
export const propose = (record, how) => json("/propose", record, how);
export const extract = (record, how) => json("/extract", record, how);
export const graphFile = async (format, documents) => (await ask(`/graph?format=${format}`, { documents })).blob();
export const dataFile = async (format, documents) => (await ask(`/export?format=${format}`, { documents })).blob();
