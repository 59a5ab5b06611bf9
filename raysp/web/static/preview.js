// A prompt in pieces, and what the model would say next, from which target and foil are chosen.

import { ask, clear, duration, later, make } from "./raysp.js";

const QUICK_MS = 2500; // a model that answers within this is asked whenever the prompt changes
const WAIT_MS = 600;
const SHOWN = 3000; // pieces of a long prompt

const byId = (id) => document.getElementById(id);

// A token with what cannot be seen made visible.
export function visible(text) {
  const [, before, middle, after] = /^( *)(.*?)( *)$/s.exec(text);
  const mark = (spaces) => (spaces ? make("i", { "aria-hidden": "true" }, "␣".repeat(spaces.length)) : null);
  const lines = middle.split("\n").flatMap((line, i) => (i ? [make("i", { "aria-hidden": "true" }, "↵"), line] : [line]));
  return make("span", { class: "token", title: JSON.stringify(text) }, mark(before), lines, mark(after));
}

export class Preview {
  constructor({ lensOf, put, given }) {
    Object.assign(this, { lensOf, put, given, quick: false, sent: "", waiting: null, answers: [] });
    this.soon = later(WAIT_MS, () => this.look({ asked: false }));
    byId("preview").addEventListener("click", () => this.look({ asked: true }));
  }

  // The form has changed: what is shown is no longer about it.
  changed() {
    if (this.text() === this.sent) { this.press(); return; }
    byId("pieces").classList.add("old");
    if (this.quick) this.soon();
  }

  // Target and foil are chosen from what is shown, and do not change it.
  text() {
    const { target, foil, ...lens } = this.lensOf().lens;
    return JSON.stringify(lens);
  }

  async look({ asked }) {
    this.soon.cancel();
    const text = this.text();
    if (!JSON.parse(text).prompt?.trim()) { this.say(asked ? "There is no prompt yet." : ""); return; }
    this.waiting?.abort();
    const mine = this.waiting = new AbortController();
    if (asked) this.say("Asking the model; the first time it has to be loaded…");
    const began = performance.now();
    try {
      const found = await ask("/preview", { body: { lens: JSON.parse(text) }, signal: mine.signal });
      this.sent = text;
      this.quick = performance.now() - began < QUICK_MS;
      byId("look").dataset.quick = this.quick;
      this.show(found, performance.now() - began);
    } catch (error) {
      if (error.name !== "AbortError") this.say(error.message, true);
    }
  }

  say(text, bad = false) {
    byId("preview-note").textContent = text;
    byId("preview-note").classList.toggle("bad", bad);
  }

  show(found, milliseconds) {
    const count = found.components.length;
    this.say([`${count.toLocaleString("en")} component${count === 1 ? "" : "s"}, answered by ${found.model} in ${duration(milliseconds / 1000)}.`, ...found.notes].join(" "));
    const pieces = [];
    let end = 0;
    found.components.slice(0, SHOWN).forEach(({ start, stop }, i) => {
      pieces.push(found.source.slice(end, start), make("span", { class: i % 2 ? "piece odd" : "piece" }, found.source.slice(start, stop)));
      end = stop;
    });
    clear(byId("pieces"), pieces, count > SHOWN ? `… and ${(count - SHOWN).toLocaleString("en")} more` : found.source.slice(end));
    byId("pieces").hidden = false;
    byId("pieces").classList.remove("old");
    this.answers = found.answers;
    clear(byId("answers"), found.answers.map((answer) => this.answer(answer)));
    byId("answers").hidden = !found.answers.length;
    this.press();
  }

  answer({ text, probability }) {
    const choose = (what) => make("button", { class: "quiet", type: "button", "data-path": `lens.${what.toLowerCase()}`, "aria-label": `${what}: ${JSON.stringify(text)}`, "aria-pressed": "false", click: () => this.put(`lens.${what.toLowerCase()}`, text) }, what);
    const odds = make("span", { class: "odds" }, `${(100 * probability).toFixed(probability < 0.0995 ? 1 : 0)}%`);
    const isPart = text.includes("\ufffd"); // of a character, which cannot be written as an answer
    return make("li", {}, visible(text), odds, isPart ? make("span", { class: "note part" }, "part of a character") : [choose("Target"), choose("Foil")]);
  }

  press() {
    byId("answers").querySelectorAll("li").forEach((item, i) => item.querySelectorAll("button").forEach((button) => button.setAttribute("aria-pressed", String(this.given(button.dataset.path) === this.answers[i].text))));
  }
}
