"use strict";
// Arcs between interacting words or sentences, positioned over the text.
(function (raysp) {
  const { shape } = raysp;

  // The position of each component; `slots` are the arcs that touch it, each with an anchor of its own.
  function anchors(arcs, origin) {
    const found = new Map();
    for (const arc of arcs) {
      for (const index of arc.components) {
        if (!found.has(index)) {
          const [element] = raysp.elementsOf(index);
          const box = element.getClientRects()[0] || element.getBoundingClientRect();
          found.set(index, {
            left: box.left - origin.left, width: box.width, top: box.top - origin.top, bottom: box.bottom - origin.top, slots: [],
          });
        }
        found.get(index).slots.push(arc);
      }
    }
    for (const [index, place] of found) place.slots.sort((a, b) => heading(a, index) - heading(b, index));
    return found;
  }

  // Arcs to the left start on the left; of arcs in the same direction, the longer one starts further inside.
  function heading(arc, index) {
    const others = arc.components.filter((other) => other !== index);
    const distance = others.reduce((sum, other) => sum + other - index, 0) / others.length;
    return distance === 0 ? 0 : 1 / distance;
  }

  function point(place, arc) {
    const { slots, width, left, top, bottom } = place;
    const shift = (slots.indexOf(arc) + 1) / (slots.length + 1) - 0.5;
    return {
      x: left + width / 2 + shift * Math.min(width * 0.9, 9 * slots.length), y: (top + bottom) / 2 + shift * Math.min(bottom - top, 6 * slots.length), top, bottom,
    };
  }

  // Between words of one line: an arch above it. Between lines: from the foot of the upper word to the head of the lower one.
  function between(a, b, room) {
    if (Math.abs(a.top - b.top) < 4) {
      const lift = 6 + (room - 6) * (1 - Math.exp(-Math.abs(b.x - a.x) / 220));
      return { ends: [[a.x, a.top], [b.x, b.top]], controls: [[a.x, a.top - 1.3 * lift], [b.x, b.top - 1.3 * lift]] };
    }
    const [upper, lower] = a.top < b.top ? [a, b] : [b, a];
    const bend = Math.min(44, 0.6 * (lower.top - upper.bottom));
    return { ends: [[upper.x, upper.bottom], [lower.x, lower.top]], controls: [[upper.x, upper.bottom + bend], [lower.x, lower.top - bend]] };
  }

  // Between lines of a list: a bow in the margin, the wider the further apart.
  function beside(a, b, margin, height) {
    const edge = margin - 4;
    const depth = 10 + (margin - 20) * Math.sqrt(Math.abs(b.y - a.y) / height);
    return { ends: [[edge, a.y], [edge, b.y]], controls: [[edge - 1.3 * depth, a.y], [edge - 1.3 * depth, b.y]] };
  }

  function dot([x, y]) {
    return `M${x - 1.6} ${y}a1.6 1.6 0 1 0 3.2 0a1.6 1.6 0 1 0 -3.2 0`;
  }

  // A set of three or more is a chain with a dot at every member, so that its arcs are seen as one.
  function pathOf(arc, places, origin, style) {
    const listed = raysp.field.classList.contains("listed");
    const room = 0.52 * (parseFloat(style.lineHeight) || 50);
    const points = arc.components.map((index) => point(places.get(index), arc));
    let path = "";
    for (let i = 1; i < points.length; i += 1) {
      const curve = listed ? beside(points[i - 1], points[i], parseFloat(style.paddingLeft), origin.height) : between(points[i - 1], points[i], room);
      path += `M${curve.ends[0]}C${curve.controls[0]} ${curve.controls[1]} ${curve.ends[1]}`;
      if (points.length > 2) path += curve.ends.map(dot).join("");
    }
    return path;
  }

  function lineOf(arc, places, origin, style) {
    const path = shape("path", { class: `arc ${arc.kind}`, d: pathOf(arc, places, origin, style), "stroke-width": (1.2 + 2.8 * arc.strength).toFixed(2) });
    Object.assign(path.dataset, { rank: arc.rank, tip: arc.tip });
    return path;
  }

  function drawAll(drawn) {
    const origin = raysp.field.getBoundingClientRect();
    const style = getComputedStyle(raysp.field);
    const places = anchors(drawn, origin);
    // The weakest first, so that the strongest lie on top.
    raysp.svg.append(...[...drawn].reverse().map((arc) => lineOf(arc, places, origin, style)));
  }

  raysp.arcs = {
    draw: drawAll,
    // One more arc, over those that are drawn.
    add(arc) {
      const origin = raysp.field.getBoundingClientRect();
      const path = lineOf(arc, anchors([arc], origin), origin, getComputedStyle(raysp.field));
      raysp.svg.append(path);
      return path;
    },
  };
}(window.raysp));
