// What if some components were removed, beyond the prediction of the page: exact values, the smallest set that changes the answer, and a link to each.
//
// The page's own script tells of every removed set by the event `whatif` and takes one by `whatif-set`.

import { ask, clear, make, tell } from "./raysp.js";
import { copy } from "./spec.js";

const AGAIN_MS = 1000;
const WITHOUT = "without";
const MOST_NAMED = 6;
const { scale } = window.raysp;
const at = (id) => document.getElementById(id);
const [place, template] = [at("whatif-exact"), at("exactly")];

// ---- sets of components as parts of an address: 3,7,10-14

function written(numbers) {
  const parts = [];
  for (let i = 0; i < numbers.length; i += 1) {
    const from = numbers[i];
    while (numbers[i + 1] === numbers[i] + 1) i += 1;
    parts.push(numbers[i] === from ? `${from}` : `${from}-${numbers[i]}`);
  }
  return parts.join(",");
}

function read(text, n) {
  const found = new Set();
  for (const part of text.split(",")) {
    const [, from, to = from] = /^(\d{1,7})(?:-(\d{1,7}))?$/.exec(part.trim()) ?? [];
    if (from !== undefined) for (let i = Number(from); i <= Math.min(Number(to), n - 1); i += 1) found.add(i);
  }
  return [...found].sort((a, b) => a - b);
}

function begin() {
  place.append(template.content.cloneNode(true));
  const id = at("run").dataset.run;
  const { labels } = window.raysp.parts;
  const path = `/runs/${encodeURIComponent(id)}`;
  const found = new Map(); // measured sets by how they are written
  let now = { removed: [], value: null, lo: null, hi: null };
  let asked = null; // what is being measured

  // Beside the prediction: the exact value, where it is known.
  const exactValue = make("dd", { id: "exact-value" });
  at("whatif").querySelector(".ends").append(make("div", {}, make("dt", {}, "exact"), exactValue));

  const set = (removed) => document.dispatchEvent(new CustomEvent("whatif-set", { detail: { removed } }));
  const named = (removed) => (removed.length ? removed.slice(0, MOST_NAMED).map((i) => labels[i].trim() || `#${i + 1}`).join(", ") + (removed.length > MOST_NAMED ? ` and ${removed.length - MOST_NAMED} more` : "") : "nothing");

  // ---- the address

  const key = () => written(now.removed);

  function fromAddress() {
    const given = new URLSearchParams(location.hash.slice(1)).get(WITHOUT);
    if (given !== null && given !== key()) set(read(given, labels.length));
  }

  function toAddress() {
    const anchored = location.hash && !new URLSearchParams(location.hash.slice(1)).has(WITHOUT);
    if (!now.removed.length && (anchored || !location.hash)) return;
    history.replaceState(history.state, "", now.removed.length ? `#${WITHOUT}=${key()}` : location.pathname + location.search);
  }

  // ---- exact values

  async function measured(removed) {
    for (let seconds = 0; ; seconds += 1) {
      const answer = await ask(`${path}/measure`, { body: { removed } });
      if (!answer.pending) return answer;
      status(`Measuring without ${named(removed)} … the model has not answered yet (asked ${seconds + 1} times)`);
      await new Promise((ready) => { setTimeout(ready, AGAIN_MS); });
    }
  }

  function status(text, bad = false) {
    at("exact-status").textContent = text;
    at("exact-status").classList.toggle("bad", bad);
  }

  function told({ value, measured: exact, lo, hi }) {
    const { whole } = scale([value, exact, lo, hi]);
    const inside = lo === null ? null : exact >= lo - 1e-9 && exact <= hi + 1e-9;
    return { predicted: whole(value), exact: whole(exact), error: whole(value - exact), inside, interval: lo === null ? "–" : `${whole(lo)} to ${whole(hi)}` };
  }

  function sentence(answer) {
    const { exact, error, inside } = told(answer);
    if (inside && !answer.compared) return `Exact value ${exact}, as the run measured it.`;
    return `Exact value ${exact}: the prediction is off by ${error}${inside === null ? "" : inside ? ", within its interval" : ", outside its interval"}.`;
  }

  function showExact() {
    const answer = found.get(key());
    const { exact, error } = answer ? told(answer) : {};
    exactValue.replaceChildren(...(answer ? [exact, make("small", {}, `prediction off by ${error}`)] : [make("small", { class: "unmeasured" }, "not measured")]));
  }

  function list() {
    showExact();
    at("exact-measured").hidden = !found.size;
    clear(at("exact-rows"), [...found.values()].reverse().map((answer) => {
      const { predicted, exact, error, inside, interval } = told(answer);
      const names = named(answer.removed);
      return make(
        "tr", {}, make("td", { class: "set" }, names), make("td", { class: "num" }, predicted), make("td", { class: "num" }, exact), make("td", { class: "num" }, error),
        make("td", { class: "wide" }, interval, inside === null ? null : make("small", { class: inside ? "" : "bad" }, inside ? "contains the exact value" : "does not contain the exact value")),
        make("td", {}, make("button", { type: "button", class: "button small", "aria-label": `Show without ${names}`, click: () => set(answer.removed) }, "Show")),
      );
    }));
  }

  function keep(answer) {
    const name = written(answer.removed);
    found.delete(name);
    found.set(name, answer);
    list();
  }

  async function measure() {
    const { removed } = now;
    asked = key();
    at("exact-measure").disabled = true;
    status(`Measuring without ${named(removed)} …`);
    try {
      const answer = await measured(removed);
      keep(answer);
      if (asked === key()) status(sentence(answer));
      else status(`Without ${named(removed)}: ${sentence(answer)}`);
    } catch (error) {
      status(error.message, true);
    }
    asked = null;
    at("exact-measure").disabled = false;
  }

  // ---- the smallest set

  const crossing = (threshold, intact) => `${intact > threshold ? "below" : "above"} ${scale([threshold]).whole(threshold)}`;

  function outcome({ status: ended, best, tried, threshold, value_intact: intact, most }) {
    const missed = tried.filter((each) => each.flipped === false);
    const wrong = missed.length ? ` The surrogate predicted that of ${missed.length === 1 ? "a smaller set" : `${missed.length} smaller sets`} too, and was wrong: the model did not confirm it.` : "";
    if (ended === "flipped") {
      return `Without ${named(best.removed)} the value is ${scale([best.measured]).whole(best.measured)}, ${crossing(threshold, intact)}: verified with the model.${wrong}`;
    }
    if (ended === "predicted") return `Without ${named(best.removed)} the surrogate predicts ${scale([best.value]).whole(best.value)}, ${crossing(threshold, intact)}. Not verified.`;
    if (!tried.length) return `The surrogate predicts that no set of at most ${most} brings the value ${crossing(threshold, intact)}.`;
    return `None found: of the ${tried.length === 1 ? "set" : `${tried.length} sets`} of at most ${most} that the surrogate proposed, the model confirmed none. The surrogate was wrong about ${tried.length === 1 ? "it" : "them"}.`;
  }

  async function flip(event) {
    event.preventDefault();
    const [threshold, most] = [Number(at("flip-threshold").value.replace("−", "-")), Number(at("flip-most").value)];
    at("flip-threshold").setAttribute("aria-invalid", String(!Number.isFinite(threshold) || !at("flip-threshold").value.trim()));
    if (at("flip-threshold").getAttribute("aria-invalid") === "true") { at("flip-threshold").focus(); return; }
    at("flip-start").disabled = true;
    try {
      let answer = { pending: true, tried: [] };
      for (let turn = 0; answer.pending; turn += 1) {
        const so = answer.tried.length ? `, ${answer.tried.length} measured` : "";
        clear(at("flip-found"), make("p", {}, `Searching for the smallest set${so} …`));
        if (turn) await new Promise((ready) => { setTimeout(ready, AGAIN_MS); });
        answer = await ask(`${path}/flip`, { body: { threshold, most } });
      }
      for (const each of answer.tried) if (each.measured !== null) keep(each);
      clear(at("flip-found"), make("p", { class: answer.best ? "" : "none" }, outcome(answer)));
      if (answer.best) set(answer.best.removed);
    } catch (error) {
      clear(at("flip-found"), make("p", { class: "bad" }, error.message));
    }
    at("flip-start").disabled = false;
  }

  // ---- beginning

  document.addEventListener("whatif", ({ detail }) => {
    now = { ...detail, removed: [...detail.removed].sort((a, b) => a - b) };
    const answer = found.get(key());
    status(answer ? sentence(answer) : asked === key() ? at("exact-status").textContent : "");
    showExact();
    toAddress();
  });
  at("exact-measure").addEventListener("click", measure);
  at("exact-link").addEventListener("click", () => copy(location.href, "Link"));
  at("flip-form").addEventListener("submit", flip);
  addEventListener("hashchange", fromAddress);
  fromAddress();
  showExact();
}

if (place && template && window.raysp.whatIf) begin();
else if (location.hash.includes(`${WITHOUT}=`)) tell("This page cannot show what would be without some components.", { bad: true });
