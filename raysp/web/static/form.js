// The forms of the page Ask as values: what is filled in, as a spec and back, and problems beside the fields that they are about.

import { clear, make } from "./raysp.js";

const form = document.getElementById("ask");
const helps = new Map();

export const kind = () => form.elements.kind.value;
export const panel = (which = kind()) => document.getElementById(`lens-${which}`);
export const controls = (which = kind()) => [...panel(which).querySelectorAll("[name]")];
export const control = (path, which = kind()) => controls(which).find((each) => each.name === path);

// What a control holds, undefined where it is left at its default.
function valueOf(element, files) {
  if (files[element.id]) return files[element.id].reference;
  if (element.type === "checkbox") return element.checked || undefined;
  if (element.dataset.kind === "list") {
    const lines = element.value.split("\n").filter((line) => line.trim());
    return lines.length ? lines : undefined;
  }
  return element.value === "" ? undefined : element.value;
}

const applies = (element) => !element.closest("[data-explorers][hidden]");

// The spec that a form describes; `files` are the chosen ones by the id of their control.
export function specOf(which, files) {
  const spec = { lens: { kind: which } };
  for (const element of controls(which)) {
    const value = applies(element) ? valueOf(element, files) : undefined;
    if (value === undefined) continue;
    const [group, name] = element.name.includes(".") ? element.name.split(".") : [null, element.name];
    if (group) (spec[group] = spec[group] || {})[name] = value;
    else spec[name] = value;
  }
  return spec;
}

// Fill in a form from a spec; what is at its default stays empty.
export function fillIn(which, spec) {
  for (const element of controls(which)) {
    const [group, name] = element.name.includes(".") ? element.name.split(".") : [null, element.name];
    const value = group ? spec[group]?.[name] : spec[name];
    if (element.type === "checkbox") element.checked = value === true;
    else if (element.dataset.kind === "list") element.value = (value || []).join("\n");
    else element.value = isUsual(element, value) ? "" : typeof value === "object" ? JSON.stringify(value) : String(value);
  }
  // What the service fills in for a local folder would refuse another model.
  const hash = control("lens.model_hash", which);
  if (hash) hash.value = "";
  if (spec.explorer?.kind) control("explorer.kind", which).value = spec.explorer.kind;
  showExplorer(which);
}

function isUsual(element, value) {
  if (value === null || value === undefined || value === "") return true;
  const usual = element.tagName === "SELECT" ? element.options[0].textContent : element.placeholder;
  return element.name !== "explorer.kind" && (String(value) === usual || (usual !== "" && Number(usual) === value));
}

// Options of other explorers than the chosen one are neither shown nor sent.
export function showExplorer(which = kind()) {
  const chosen = control("explorer.kind", which)?.value;
  for (const field of panel(which).querySelectorAll("[data-explorers]")) field.hidden = !field.dataset.explorers.split(" ").includes(chosen);
}

const noteOf = (element) => document.getElementById(`${element.id}-note`);

// The control that a problem is about: its field is a path in a spec, a name, or `examples row 3, prompt`.
function concerned(problem) {
  const field = String(problem.field || "");
  const name = field.split(/[ ,]/)[0];
  if (kind() === "spec") return null;
  return control(field) || controls().find((each) => applies(each) && (each.name.split(".").pop() === name || name.startsWith(`${each.name}.`) || each.name === name)) || null;
}

export function clearProblem() {
  const top = document.getElementById("problem");
  top.hidden = true;
  clear(top);
  for (const element of form.querySelectorAll("[aria-invalid]")) element.removeAttribute("aria-invalid");
  for (const [note, help] of helps) {
    note.textContent = help;
    note.classList.remove("problem");
  }
  helps.clear();
}

// Show a problem in place of its field's help, or at the top. Returns the field's control.
export function showProblem(refused, { touched = null } = {}) {
  clearProblem();
  const problem = refused.problem || { detail: refused.message };
  const element = concerned(problem);
  if (!element) {
    const top = document.getElementById("problem");
    top.append(make("span", {}, problem.detail));
    top.hidden = false;
    return null;
  }
  if (touched && !touched.has(element.id)) return element;
  element.setAttribute("aria-invalid", "true");
  const note = noteOf(element);
  helps.set(note, note.textContent);
  note.classList.add("problem");
  note.textContent = problem.problem ? sentence(problem) : problem.detail;
  return element;
}

function sentence({ problem, remedy, value }) {
  const given = value === null || value === undefined || value === "" || typeof value === "object" || String(value).length > 40 ? "This" : `“${value}”`;
  return `${given} ${problem}; ${remedy}.`;
}
