// What the scripts of all pages share: requests to the REST interface, events, elements made of text, numbers, and messages.

const csrf = document.querySelector("meta[name=csrf-token]").content;

// An error of the service: `problem` is its document, `message` the line for people.
export class Refused extends Error {
  constructor(problem) {
    super(problem.detail);
    this.problem = problem;
  }
}

// Asks the REST interface; `body` is sent as JSON, `text` as it is. Returns what it answers, or throws `Refused`.
export async function ask(path, { method, body, text, headers, signal } = {}) {
  const verb = method || (body === undefined && text === undefined ? "GET" : "POST");
  const sent = { Accept: "application/json", ...(verb === "GET" ? {} : { "X-CSRF-Token": csrf }), ...(body === undefined ? {} : { "Content-Type": "application/json" }), ...headers };
  let response;
  try {
    response = await fetch(`/api/v1${path}`, { method: verb, headers: sent, body: body === undefined ? text : JSON.stringify(body), signal, credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused({ status: 0, detail: "The service cannot be reached." });
  }
  if (response.status === 401) {
    location.assign(`/login?next=${encodeURIComponent(location.pathname + location.search)}`);
    throw new Refused({ status: 401, detail: "The session has ended." });
  }
  const answer = response.status === 204 ? null : await response.json().catch(() => ({ detail: `The service answered ${response.status}.` }));
  if (!response.ok) throw new Refused({ status: response.status, ...answer });
  return response.status === 202 ? { ...answer, pending: true } : answer;
}

// Asks again where the service is busy or being restarted, and tells so. What is asked must be the same when it is asked twice.
export async function patiently(work, told = () => {}) {
  for (let left = 5; ; left -= 1) {
    try {
      return await work();
    } catch (error) {
      if (!left || ![0, 503].includes(error.problem?.status)) throw error;
      told();
      await new Promise((resolve) => { setTimeout(resolve, 1500); });
    }
  }
}

// Listens to the states of runs, for ever or until the run has ended; the browser reconnects by itself.
export function listen(path, heard) {
  const source = new EventSource(`/api/v1${path}`);
  source.addEventListener("state", (event) => {
    const state = JSON.parse(event.data);
    if (heard(state) === false) source.close();
  });
  addEventListener("pagehide", () => source.close(), { once: true });
  return source;
}

// An element with attributes (functions listen to events, `class` and `data-…` as in HTML) and children, of which texts are only text.
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined).map((child) => (child instanceof Node ? child : String(child))));
  return element;
}

export function clear(element, ...children) {
  element.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined));
}

// Tells something to everybody, also to those who do not see it.
export function tell(text, { bad = false } = {}) {
  const place = document.getElementById("told");
  clear(place, make("p", { class: bad ? "bad" : "" }, text));
  clearTimeout(tell.timer);
  tell.timer = setTimeout(() => clear(place), bad ? 12000 : 5000);
}

// A number with the digits that matter, with its sign where it is a change.
export function number(value, { signed = false, digits = 3 } = {}) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  const text = size !== 0 && (size >= 1e6 || size < 1e-4) ? size.toExponential(2) : size >= 1000 ? Math.round(size).toLocaleString("en") : size.toPrecision(digits).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "");
  return `${value < 0 ? "−" : signed ? "+" : ""}${text}`;
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "–";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 90) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${(seconds / 3600).toFixed(1)} h` : `${Math.round(seconds / 86400)} days`;
}

// Calls a function once its last call is some time ago; `cancel` forgets that call.
export function later(milliseconds, call) {
  let timer;
  const soon = (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => call(...given), milliseconds);
  };
  soon.cancel = () => clearTimeout(timer);
  return soon;
}

document.getElementById("log-out")?.addEventListener("click", async () => {
  await fetch("/logout", { method: "POST", headers: { "X-CSRF-Token": csrf }, credentials: "same-origin" });
  location.assign("/login");
});
