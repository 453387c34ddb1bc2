// Asks the server: what the page shows, and what a person wants. Answers that say no are errors with the server's words.

export class Refused extends Error {}

async function answered(response) {
  if (response.ok) return response;
  let words = `${response.status} ${response.statusText}`;
  const text = await response.text();
  try { words = JSON.parse(text).error || words; } catch { words = text || words; }
  const error = new Refused(words);
  error.status = response.status;
  throw error;
}

// All that the page shows. Of the past comes only what an earlier view lacks; its newest episode comes again.
export async function view(before) {
  const known = before ? before.episodes.filter((entry) => entry.step !== null).slice(0, -1) : [];
  const query = known.length ? `?past=${before.past}&after=${known.at(-1).step}` : "";
  const found = await (await answered(await fetch(`/api/view${query}`))).json();
  found.episodes.unshift(...known.filter((entry) => entry.step >= found.oldest && entry.step <= found.after));
  return found;
}

export async function ask(what, data = {}) {
  const asked = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(data) };
  const response = await fetch(`/api/${what}`, asked).catch(() => { throw new Refused("The program that runs this world does not answer. What you typed is still there."); });
  await answered(response);
}

// Events as they come; told of lost and found connections. The browser reconnects by itself and says which event it saw last.
export function listen(tell, connection) {
  const source = new EventSource("/api/events");
  for (const kind of ["begun", "stage", "paused", "pass", "failed", "changed"]) {
    source.addEventListener(kind, (event) => tell(kind, JSON.parse(event.data)));
  }
  source.addEventListener("open", () => connection(true));
  source.addEventListener("error", () => {
    connection(false);
    if (source.readyState === EventSource.CLOSED) setTimeout(() => listen(tell, connection), 2000);
  });
}
