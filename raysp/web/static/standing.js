// Where a run stands, as lists and pages of runs show it: its status in words, its progress, and the buttons that steer it.

import { ask, duration, make, number, tell } from "./raysp.js";

const UNDER_WAY = new Set(["queued", "running", "paused"]);
const STEERED = { pause: "Pause", resume: "Resume", cancel: "Cancel" };
const PHASES = { calibrate: "calibrating", explore: "exploring", analyse: "fitting", validate: "validating", queries: "answering queries" };
const WISHES = { paused: "pausing", cancelled: "cancelling", running: "resuming" };

export const isUnderWay = (state) => UNDER_WAY.has(state.status);

// The status in words: what is wanted of a run that has not come to it yet, the place in the queue, or the phase.
export function standing(state) {
  if (isUnderWay(state) && state.desired && state.desired !== "running" && state.desired !== state.status) return `${WISHES[state.desired]} after the batches under way`;
  if (state.status === "queued" && state.position) return state.position === 1 ? "next in the queue" : `${state.position} in the queue`;
  if (state.status === "running" && state.progress?.phase) return state.progress.detail || (PHASES[state.progress.phase] ?? state.progress.phase);
  return state.status;
}

// The share of evaluations that a run has, from 0 to 1; null where it is not known.
export function shareOf(state) {
  const { progress } = state;
  return progress && progress.total ? Math.min(1, progress.done / progress.total) : null;
}

// A bar with the share, the counts, the rate and the time that is left, which `show` renews in place.
export class ProgressBar {
  constructor(label) {
    this.bar = make("progress", { max: 1, "aria-label": label });
    this.figures = make("span", { class: "figures" });
    this.element = make("div", { class: "progressed" }, this.bar, this.figures);
  }

  show(state) {
    const share = shareOf(state);
    if (share === null) this.bar.removeAttribute("value");
    else this.bar.value = share;
    const { done, total, rate, left } = state.progress ?? {};
    const told = [
      share === null ? null : `${Math.floor(100 * share)} %`,
      total ? `${done.toLocaleString("en")} of ${total.toLocaleString("en")}` : null,
      rate && state.status === "running" ? `${number(rate)}/s` : null,
      left !== null && left !== undefined && state.status === "running" ? `${duration(left)} left` : null,
    ];
    const text = told.filter(Boolean).join(" · ");
    if (this.figures.textContent !== text) this.figures.textContent = text;
  }
}

function choicesOf(state) {
  if (state.status === "done") return [];
  if (!isUnderWay(state)) return ["resume"];
  if (!state.desired) return []; // a run in the process of a command: nothing here reaches it
  if (state.desired === "cancelled") return [];
  return state.status === "paused" || state.desired === "paused" ? ["resume", "cancel"] : ["pause", "cancel"];
}

// Buttons that pause, resume and cancel a run. They are replaced only where others are possible, so that the one in focus stays.
export class Steering {
  constructor(id, name, steered) {
    Object.assign(this, { id, name, steered, shown: null, element: make("span", { class: "steering" }) });
  }

  show(state) {
    const choices = choicesOf(state);
    if (this.shown === choices.join()) return;
    const focused = this.element.contains(document.activeElement);
    this.shown = choices.join();
    this.element.replaceChildren(...choices.map((what) => make(
      "button", { type: "button", class: `quiet${what === "cancel" ? " danger" : ""}`, "aria-label": `${STEERED[what]} ${this.name}`, click: () => this.steer(what) }, STEERED[what],
    )));
    if (focused) this.element.querySelector("button")?.focus();
  }

  async steer(what) {
    if (what === "cancel" && !await confirmed(`Cancel ${this.name}?`, "It ends after the batches under way. What was measured stays stored, and resuming continues from there.", "Cancel the run", "Keep it running")) return;
    for (const button of this.element.querySelectorAll("button")) button.disabled = true;
    try {
      const state = await ask(`/runs/${encodeURIComponent(this.id)}/${what}`, { method: "POST" });
      this.shown = null;
      this.show(state);
      this.steered(state);
    } catch (error) {
      tell(error.message, { bad: true });
      for (const button of this.element.querySelectorAll("button")) button.disabled = false;
    }
  }
}

// Asks whether something is meant; true if so.
export function confirmed(question, details, yes, no) {
  return new Promise((answered) => {
    const title = make("h2", { id: "confirm-title" }, question);
    const dialog = make("dialog", { class: "app confirm", "aria-labelledby": "confirm-title" }, title, make("p", {}, details));
    const end = (answer) => { dialog.close(); dialog.remove(); answered(answer); };
    dialog.append(make("p", { class: "buttons" }, make("button", { type: "button", class: "quiet", autofocus: true, click: () => end(false) }, no), make("button", { type: "button", class: "danger", click: () => end(true) }, yes)));
    dialog.addEventListener("cancel", (event) => { event.preventDefault(); end(false); });
    document.body.append(dialog);
    dialog.showModal();
  });
}

// How long ago something was, in words; `stored` is a time in UTC as the store has it.
export function ago(stored) {
  const seconds = (Date.now() - moment(stored)) / 1000;
  if (seconds < 45) return "just now";
  const [count, unit] = seconds < 5400 ? [seconds / 60, "minute"] : seconds < 129600 ? [seconds / 3600, "hour"] : [seconds / 86400, "day"];
  return new Intl.RelativeTimeFormat("en", { numeric: "always", style: "short" }).format(-Math.max(1, Math.round(count)), unit);
}

export const moment = (stored) => new Date(/[Zz]|[+-]\d\d:?\d\d$/.test(stored) ? stored : `${stored}Z`);

// A time that reads as how long ago it was; `renewTimes` renews all of them.
export function timeOf(stored) {
  return make("time", { datetime: moment(stored).toISOString(), title: moment(stored).toLocaleString(), "data-stored": stored }, ago(stored));
}

export function renewTimes() {
  for (const element of document.querySelectorAll("time[data-stored]")) element.textContent = ago(element.dataset.stored);
}

export const classOf = (words) => String(words).replaceAll(" ", "-");
