// The page of an answer: what the service can do about it, and what-ifs that are links.

import "./spec.js";
import "./exactly.js";

// Tables that do not fit the window can be scrolled by keyboard.
const reach = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const [wide, title] = [target.scrollWidth > target.clientWidth, target.closest("section")?.querySelector("h2")?.textContent];
    if (!wide || target.hasAttribute("tabindex")) continue;
    target.tabIndex = 0;
    target.setAttribute("role", "region");
    target.setAttribute("aria-label", title ?? "Table");
  }
});
for (const place of document.querySelectorAll(".scroll")) reach.observe(place);
