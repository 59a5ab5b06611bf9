// The page Ask: checks what is filled in while it is written, previews the prompt, plans, and submits.

import { readFile } from "./files.js";
import { clearProblem, control, controls, fillIn, kind, panel, showExplorer, showProblem, specOf } from "./form.js";
import { showPlan } from "./planned.js";
import { Preview } from "./preview.js";
import { ask, later, patiently, tell } from "./raysp.js";

const KEPT = "raysp.ask";
const CHECK_MS = 350;
const MOST_KEPT = 1 << 18; // characters of files that survive a reload
const MOST_CHECKED = 1 << 21; // and that are sent with every check

const byId = (id) => document.getElementById(id);
const form = byId("ask");
const LENSES = [...document.querySelectorAll("[data-lens]")].map((section) => section.dataset.lens);
const touched = new Set();
let files = {};
let checking = null;
let key = { body: "", value: "" };
let yamlOfForm = "";

const preview = new Preview({ lensOf: () => specOf("feature", files), put: (path, text) => {
  const element = control(path, "feature");
  element.value = element.value === text ? "" : text;
  touched.add(element.id);
  changed();
}, given: (path) => control(path, "feature").value });

// ---- what is asked

function question(from = kind()) {
  if (from === "spec") return { text: byId("yaml").value, headers: { "Content-Type": "application/yaml" } };
  const content = {};
  for (const element of controls(from)) if (files[element.id]) content[files[element.id].hash] = files[element.id].content;
  return { body: { spec: specOf(from, files), ...(Object.keys(content).length ? { content } : {}) } };
}

const isLarge = () => Object.values(files).reduce((sum, file) => sum + file.content.length, 0) > MOST_CHECKED;

// Checks the question. Problems of fields that nobody has filled in yet are not shown before a submission.
async function check() {
  checking?.abort();
  const mine = checking = new AbortController();
  try {
    const found = await ask("/check", { ...question(), signal: mine.signal });
    clearProblem();
    yamlOfForm = found.yaml;
    say(found.runs > 1 ? `Asks for ${found.runs.toLocaleString("en")} runs.` : "Ready to be asked.");
  } catch (error) {
    if (error.name === "AbortError") return;
    const element = showProblem(error, { touched });
    say(element && !element.hasAttribute("aria-invalid") ? "" : "Something has to be corrected first.");
  }
}

// Without this, a question about nothing would only fail once it runs.
function missing() {
  const paths = panel().dataset.sources?.split(" ");
  if (!paths || paths.some((path) => control(path).value.trim())) return false;
  const element = showProblem({ problem: { field: paths[0], problem: "is missing", remedy: "without it there is nothing to ask about", value: null } });
  say("Something has to be corrected first.");
  element.focus();
  return true;
}

function reveal(element) {
  const folded = element.closest("details");
  if (folded) folded.open = true;
  return element;
}

function say(text) {
  if (byId("state").textContent !== text) byId("state").textContent = text;
}

const checkSoon = later(CHECK_MS, () => { if (!isLarge() && !(kind() === "spec" && !byId("yaml").value.trim())) check(); });

// What a plan or a submission says must not be wiped away by a check that was still on its way.
function stopChecking() {
  checkSoon.cancel();
  checking?.abort();
}

function changed() {
  checking?.abort();
  byId("planned").hidden = true;
  keep();
  checkSoon();
  if (kind() === "feature") preview.changed();
}

// ---- what survives a reload

function keep() {
  const values = {};
  for (const which of LENSES) {
    for (const element of controls(which)) {
      const value = element.type === "checkbox" ? element.checked : element.value;
      if (value !== element.defaultValue && value !== false && value !== "" && !files[element.id]) values[element.id] = value;
    }
  }
  const small = Object.fromEntries(Object.entries(files).filter(([, file]) => file.content.length <= MOST_KEPT));
  try {
    sessionStorage.setItem(KEPT, JSON.stringify({ kind: kind(), values, files: small, yaml: byId("yaml").value, priority: byId("priority").value, touched: [...touched] }));
  } catch { /* storage is full or switched off: nothing is kept */ }
}

function restore() {
  let kept = null;
  try {
    kept = JSON.parse(sessionStorage.getItem(KEPT));
  } catch { /* as if nothing were kept */ }
  if (!kept) return;
  form.elements.kind.value = kept.kind;
  for (const [id, value] of Object.entries(kept.values)) {
    const element = byId(id);
    if (element && typeof value === "boolean") element.checked = value;
    else if (element) element.value = value;
  }
  for (const [id, file] of Object.entries(kept.files)) if (byId(id)) attach(byId(id), file);
  byId("yaml").value = kept.yaml;
  byId("priority").value = kept.priority;
  kept.touched.forEach((id) => touched.add(id));
}

// ---- files

function attach(element, file) {
  files[element.id] = file;
  element.value = `${file.name} (${size(file.bytes)})`;
  element.readOnly = true;
  const button = element.parentElement.querySelector(".choose");
  button.textContent = "Remove";
  button.setAttribute("aria-label", `Remove ${file.name}`);
}

function detach(element) {
  if (!files[element.id]) return;
  delete files[element.id];
  element.value = "";
  element.readOnly = false;
  const button = element.parentElement.querySelector(".choose");
  button.textContent = "Choose file";
  button.setAttribute("aria-label", `Choose a file for ${element.labels[0].textContent.toLowerCase()}`);
}

function size(bytes) {
  return bytes < 1000 ? `${bytes} bytes` : bytes < 1e6 ? `${Math.round(bytes / 1000)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

for (const place of document.querySelectorAll(".with-file")) {
  const [element, upload] = [place.querySelector("[name]"), place.querySelector(".upload")];
  place.querySelector(".choose").addEventListener("click", () => {
    if (!files[element.id]) { upload.click(); return; }
    detach(element);
    changed();
  });
  upload.addEventListener("change", async () => {
    const [chosen] = upload.files;
    upload.value = "";
    if (!chosen) return;
    try {
      attach(element, await readFile(chosen));
    } catch {
      tell(`${chosen.name} cannot be read.`, { bad: true });
      return;
    }
    touched.add(element.id);
    changed();
  });
}

// ---- which form is shown

function showKind() {
  for (const section of document.querySelectorAll("section.lens")) section.hidden = section !== panel();
  if (kind() === "spec" && !byId("yaml").value.trim()) byId("yaml").value = yamlOfForm;
  clearProblem();
  say("");
  changed();
}

// ---- plan and submit

function busy(button, text) {
  const before = button.textContent;
  button.disabled = true;
  button.textContent = text;
  return () => { button.disabled = false; button.textContent = before; };
}

async function refusedBy(work) {
  try {
    return await patiently(work, () => say("The service is busy; asking again…"));
  } catch (error) {
    if (error.name === "AbortError") return null;
    const element = showProblem(error);
    if (element) reveal(element).focus();
    else byId("problem").scrollIntoView({ block: "nearest" });
    say("Something has to be corrected first.");
    return null;
  }
}

byId("plan").addEventListener("click", async () => {
  stopChecking();
  if (missing()) return;
  const free = busy(byId("plan"), "Planning…");
  say("A few evaluations are measured to estimate the time.");
  const found = await refusedBy(() => ask("/plan", question()));
  free();
  if (!found) return;
  clearProblem();
  say("");
  showPlan(byId("planned"), byId("plan-content"), found);
});

// The key is new for every question, and the same for a question that is sent again because the answer did not arrive.
function keyOf(body) {
  if (key.body !== body) key = { body, value: [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("") };
  return key.value;
}

let submitting = false;
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (submitting) return;
  stopChecking();
  for (const element of controls()) touched.add(element.id);
  if (missing()) return;
  submitting = true;
  const free = busy(byId("submit"), "Submitting…");
  const asked = question();
  const priority = byId("priority").value;
  const headers = { ...asked.headers, "Idempotency-Key": keyOf(`${priority} ${asked.text ?? JSON.stringify(asked.body)}`) };
  const found = await refusedBy(() => ask(`/runs?priority=${priority}`, { ...asked, headers }));
  submitting = false;
  free();
  if (found) location.assign(pageOf(found.runs, asked.body?.spec));
});

function pageOf(runs, spec) {
  if (runs.length === 1) return `/runs/${encodeURIComponent(runs[0].run_id)}`;
  const set = spec?.examples && (spec.name || spec.examples);
  return set ? `/runs?set=${encodeURIComponent(set)}` : `/runs?q=${encodeURIComponent(runs[0].run_id.replace(/-\d+$/, ""))}`;
}

byId("clear").addEventListener("click", () => {
  for (const element of controls()) {
    detach(element);
    if (element.type === "checkbox") element.checked = false;
    else element.value = element.name === "explorer.kind" ? [...element.options].find((each) => each.defaultSelected).value : "";
    touched.delete(element.id);
  }
  if (kind() === "spec") byId("yaml").value = "";
  showExplorer();
  clearProblem();
  say("");
  changed();
});

form.addEventListener("input", (event) => {
  if (event.target.name === "kind") { showKind(); return; }
  if (event.target.name === "explorer.kind") showExplorer();
  touched.add(event.target.id);
  changed();
});
addEventListener("pageshow", (event) => { if (event.persisted) key = { body: "", value: "" }; });

// ---- begin

async function fillFrom(run) {
  const { spec, run_id: id } = await patiently(() => ask(`/runs/${encodeURIComponent(run)}`));
  const which = spec.lens?.kind;
  if (!LENSES.includes(which)) {
    tell(`Run ${id} is about a ${which}, which cannot be asked about from here.`, { bad: true });
    return;
  }
  Object.keys(files).forEach((each) => detach(byId(each)));
  form.elements.kind.value = which;
  fillIn(which, spec);
  controls(which).filter((each) => each.value).forEach((each) => touched.add(each.id));
  history.replaceState(null, "", "/ask");
}

restore();
for (const which of LENSES) showExplorer(which);
const from = new URLSearchParams(location.search).get("from");
if (from) await fillFrom(from).catch((error) => tell(error.message, { bad: true }));
showKind();
