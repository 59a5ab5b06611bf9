"use strict";
// What the other scripts share: numbers as people read them, SVG shapes, columns of numbers, and the tooltip.
window.raysp = window.raysp || {};
(function (raysp) {
  const WRITTEN_OUT = [-4, 6]; // powers of ten of numbers that are written out, as in numbers.py
  const SUPERSCRIPTS = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };
  const ARRAYS = { uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array, float32: Float32Array, float64: Float64Array };

  const known = (value) => typeof value === "number" && Number.isFinite(value);

  // Writes numbers with so many decimals as multiples of a power of ten.
  function writer(decimals, exponent) {
    const unit = exponent ? `×10${[...String(exponent)].map((digit) => SUPERSCRIPTS[digit]).join("")}` : "";
    const show = (value, signed = true) => {
      if (!known(value)) return "–";
      const text = (Math.abs(value) / 10 ** exponent).toFixed(Math.min(decimals, 100));
      if (!Number(text)) return "0";
      const [whole, part] = text.split(".");
      return `${value < 0 ? "−" : signed ? "+" : ""}${whole.replace(/\B(?=(\d{3})+$)/g, ",")}${part ? `.${part}` : ""}`;
    };
    return { unit, show, whole: (value, signed = true) => show(value, signed) + (["–", "0"].includes(show(value, signed)) ? "" : unit) };
  }

  // The scale at which the largest of the numbers has so many significant digits.
  function scale(values, digits = 4) {
    const largest = values.reduce((most, value) => (known(value) ? Math.max(most, Math.abs(value)) : most), 0);
    const power = largest ? Number(largest.toExponential(digits - 1).split("e")[1]) : 0;
    const written = power >= WRITTEN_OUT[0] && power <= WRITTEN_OUT[1];
    return writer(written ? Math.max(0, digits - 1 - power) : digits - 1, written ? 0 : power);
  }

  // A number by itself, or at the scale of another.
  function number(value, like, signed = true) {
    return scale([like || value], 3).whole(value, signed);
  }

  function shape(name, attributes, words = "") {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.textContent = words;
    return element;
  }

  function make(name, className, words = "") {
    const element = document.createElement(name);
    element.className = className;
    element.textContent = words;
    return element;
  }

  // A column of numbers that the page holds in base64, little-endian.
  function unpacked(column) {
    const bytes = Uint8Array.from(atob(column.base64), (char) => char.charCodeAt(0));
    return new ARRAYS[column.type](bytes.buffer);
  }

  // At most once a frame, however often it is asked for.
  function framed(work) {
    let waiting = 0;
    return () => { waiting = waiting || requestAnimationFrame(() => { waiting = 0; work(); }); };
  }

  // The tooltip: one element for pointer and keyboard, read out where a keyboard moves.
  let tip = null;
  function place(x, y) {
    tip.style.left = `${Math.max(8, Math.min(x + 14, innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${Math.max(4, y + 18 + tip.offsetHeight > innerHeight ? y - tip.offsetHeight - 10 : y + 18)}px`;
  }
  function showTip(words, x, y) {
    if (!tip) {
      tip = make("div", "tip");
      tip.setAttribute("role", "status");
      document.body.append(tip);
    }
    if (tip.textContent !== words) tip.textContent = words;
    tip.hidden = !words;
    if (words) place(x, y);
  }

  // Elements with `data-tip`, and components, show it beside the pointer, when focused, and when tapped.
  function listenForTips() {
    const toldBy = ({ target }) => target.closest("[data-tip], .c[data-i]");
    const wordsOf = (element) => element.dataset.tip || raysp.parts.tip(Number(element.dataset.i));
    document.addEventListener("mouseover", (event) => {
      const told = toldBy(event);
      if (told) showTip(wordsOf(told), event.clientX, event.clientY);
      else if (tip && !event.target.closest("[data-tips]")) showTip("", 0, 0);
    });
    document.addEventListener("mousemove", (event) => { if (tip && !tip.hidden && toldBy(event)) place(event.clientX, event.clientY); });
    document.addEventListener("focusin", (event) => {
      const told = toldBy(event);
      if (!told || !told.matches(":focus-visible")) return;
      const box = told.getBoundingClientRect();
      showTip(wordsOf(told), box.left, box.bottom - 12);
    });
    document.addEventListener("focusout", () => showTip("", 0, 0));
    document.addEventListener("keydown", (event) => { if (event.key === "Escape") showTip("", 0, 0); });
  }

  const held = document.getElementById("data");
  Object.assign(raysp, { data: held ? JSON.parse(held.textContent) : {}, framed, known, listenForTips, make, number, scale, shape, showTip, unpacked, writer });
}(window.raysp));
