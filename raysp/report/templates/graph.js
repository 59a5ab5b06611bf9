"use strict";
// The graph of interacting parts of a model: a row for each layer, the deepest at the top, and columns as in the heat map.
// Lines are routed around unrelated parts and away from one another.
(function (raysp) {
  const { shape } = raysp;
  const graph = raysp.data.drawing && raysp.data.drawing.graph;
  if (!graph) return;
  const nodesByIndex = new Map(graph.nodes.map((node) => [node[0], node]));
  const SHADES = 20;
  // The step of shading, that of the square root as in grid.py.
  const shadeOf = (strength) => (strength ? Math.max(1, Math.round(SHADES * Math.sqrt(strength))) : 0);
  let last = null;
  const GUTTER = 44;
  const SAMPLES = 22;
  const NUMBERED = { head: "head", neurons: "neurons from" };

  // Sizes and positions that the whole drawing depends on.
  function frame(drawn) {
    const { layers, columns } = graph;
    const width = raysp.svg.getBoundingClientRect().width;
    const starts = columns.map((column, i) => i + 0.8 * columns.slice(1, i + 1).filter((each, j) => each.kind !== columns[j].kind).length);
    const span = starts[starts.length - 1] + 1;
    const step = Math.min(110, (width - GUTTER - 10) / span);
    const left = GUTTER + Math.max(0, (width - GUTTER - 10 - step * span) / 2);
    const usual = layers.length < 3 ? 150 : Math.max(28, Math.min(104, 520 / (layers.length - 1)));
    const radius = Math.max(9, Math.min(usual < 40 ? 9 : 12, step / 2 - 2));
    const floors = floorsOf(drawn, radius, width - GUTTER);
    const row = Math.max(usual, (2 * radius + 5) * Math.max(...floors) + 18);
    const margin = layers.length < 2 ? 110 : Math.min(44, 0.5 * usual) + 0.5 * (row - usual);
    const bottom = 22 + margin + row * (layers.length - 1);
    return { width, row, step, bottom, radius, floors, height: bottom + margin + 52, y: layers.map((_, i) => 22 + margin + row * i),
      x: aligned(width) || starts.map((start) => left + step * (start + 0.5)) };
  }

  // The columns of the heat map above, if it has the same ones and fills the page.
  function aligned(width) {
    const origin = raysp.svg.getBoundingClientRect().left;
    const heads = [...raysp.field.querySelector(".heat").querySelectorAll("thead tr:last-child th")].map((head) => head.getBoundingClientRect());
    const [first, last] = [heads[0], heads[heads.length - 1]];
    if (heads.length !== graph.columns.length || last.right - first.left < 0.7 * width || last.right - origin > width) return null;
    return heads.map((box) => (box.left + box.right) / 2 - origin);
  }

  function nodeOf([index, row, column, text], radius) {
    return { i: index, row, column, text, half: Math.max(radius, 3.3 * text.length + 5) };
  }

  function membersOf(drawn, radius) {
    const members = new Set(drawn.flatMap((arc) => arc.components));
    return graph.nodes.filter(([index]) => members.has(index)).map((node) => nodeOf(node, radius));
  }

  // For each layer, the number of lines over which its parts are spread so that they fit side by side.
  function floorsOf(drawn, radius, width) {
    const wanted = graph.layers.map(() => 0);
    for (const node of membersOf(drawn, radius)) wanted[node.row] += 2 * node.half + 4;
    return wanted.map((want) => Math.max(1, Math.ceil((1.1 * want) / width)));
  }

  // The parts of the interactions drawn, each in its column unless its neighbours need the space.
  function placed(drawn, at) {
    const nodes = membersOf(drawn, at.radius).map((node) => ({ ...node, x: at.x[node.column], y: at.y[node.row] }));
    at.floors.forEach((count, row) => {
      const all = nodes.filter((node) => node.row === row).sort((a, b) => a.x - b.x);
      for (let floor = 0; floor < count; floor += 1) {
        const level = all.filter((_, i) => i % count === floor);
        for (const node of level) node.y += (floor - (count - 1) / 2) * (2 * at.radius + 5);
        apart(level, at.width - 4);
      }
    });
    return new Map(nodes.map((node) => [node.i, node]));
  }

  // Nodes from left to right, shifted so that none touches the next or the edge.
  function apart(row, edge) {
    const room = (a, b) => a.half + b.half + 4;
    for (let i = 1; i < row.length; i += 1) row[i].x = Math.max(row[i].x, row[i - 1].x + room(row[i - 1], row[i]));
    for (let i = row.length - 1; i >= 0; i -= 1) {
      row[i].x = Math.min(row[i].x, i === row.length - 1 ? edge - row[i].half : row[i + 1].x - room(row[i], row[i + 1]));
    }
  }

  // Curves from a to b that bend to either side, at both ends or at one, the cheapest first: `points` are start, control, control, end.
  function curves(a, b, at) {
    const [dx, dy] = [b.x - a.x, b.y - a.y];
    const length = Math.hypot(dx, dy) || 1;
    const flat = Math.abs(dy) < 1;
    const lift = Math.min(0.46 * at.row, 10 + 0.16 * length);
    const bends = flat ? [1, -1, 1.5, -1.5, 0.7, -0.7, 2.1, -2.1, 2.8, -2.8].map((each) => [each * lift, each * lift])
      : [0.025, 0.05, 0.1, 0.16, 0.24, 0.34, 0.46].flatMap((each) => [each, -each]).map((each) => each * (length + 30))
        .flatMap((each) => [[each, each], [each, 0], [0, each]]).concat([[0, 0]]);
    // Flat ones rise soon and stay level, so that long ones do not reach far into other rows.
    const pull = flat ? Math.min(0.3, 40 / length) : 0.33;
    const [ox, oy] = flat ? [0, -4 / 3] : [(4 / 3) * (-dy / length), (4 / 3) * (dx / length)];
    return bends.map(([first, last]) => ({
      bent: flat ? 0.1 * Math.abs(first) : (22 * (Math.abs(first) + Math.abs(last))) / (2 * length),
      points: [[a.x, a.y], [a.x + pull * dx + first * ox, a.y + pull * dy + first * oy], [b.x - pull * dx + last * ox, b.y - pull * dy + last * oy], [b.x, b.y]],
    })).sort((one, other) => one.bent - other.bent);
  }

  function samples([p, q, r, s]) {
    return Array.from({ length: SAMPLES - 1 }, (_, i) => {
      const t = (i + 1) / SAMPLES;
      const u = 1 - t;
      return [0, 1].map((k) => u * u * u * p[k] + 3 * u * u * t * q[k] + 3 * u * t * t * r[k] + t * t * t * s[k]);
    });
  }

  // The curve from a to b that runs over the fewest others; `taken` remembers where lines run.
  function route(a, b, nodes, taken, at) {
    let best = null;
    for (const curve of curves(a, b, at)) {
      if (best && curve.bent >= best.cost) break;
      const along = samples(curve.points);
      const hit = nodes.filter((node) => node !== a && node !== b
        && along.some(([x, y]) => Math.abs(x - node.x) < node.half + 4 && Math.abs(y - node.y) < at.radius + 4)).length;
      const beside = along.filter(([x, y]) => taken.has(key(x, y)) && [a, b].every((end) => Math.hypot(x - end.x, y - end.y) > 24)).length;
      const outside = along.filter(([x, y]) => x < GUTTER || x > at.width - 2 || y < 4 || y > at.height - 34).length;
      const cost = 14 * hit + 0.6 * beside + 5 * outside + curve.bent;
      if (!best || cost < best.cost) best = { cost, along, points: curve.points };
    }
    for (const [x, y] of best.along) for (const [i, j] of [[0, 0], [5, 0], [-5, 0], [0, 5], [0, -5]]) taken.add(key(x + i, y + j));
    const [p, q, r, s] = best.points.map((point) => point.map((value) => value.toFixed(1)));
    return `M${p}C${q} ${r} ${s}`;
  }

  function key(x, y) {
    return `${Math.round(x / 5)} ${Math.round(y / 5)}`;
  }

  // Where the lines of a set of three and more meet: amid its members, and not on a part or on the meeting point of another set.
  function hub(members, nodes, hubs, at) {
    const mean = (name) => members.reduce((sum, node) => sum + node[name], 0) / members.length;
    let best = null;
    for (const [i, j] of [0, -1, 1, -2, 2].flatMap((i) => [0, -1, 1].map((j) => [i, j]))) {
      const x = Math.max(GUTTER, Math.min(at.width - 14, mean("x") + 0.25 * j * Math.max(at.step, 40)));
      const y = mean("y") + 0.25 * i * at.row;
      const near = nodes.filter((node) => Math.abs(x - node.x) < node.half + 12 && Math.abs(y - node.y) < at.radius + 8).length;
      const crowded = hubs.filter((other) => Math.hypot(x - other.x, y - other.y) < 18).length;
      // Level with all of its members, its lines would lie on one another.
      const level = members.every((node) => Math.abs(y - node.y) < 6) ? 1 : 0;
      const cost = 10 * (near + crowded + level) + Math.abs(i) + Math.abs(j) + (y < 10 || y > at.bottom + 30 ? 20 : 0);
      if (!best || cost < best.cost) best = { cost, x, y };
    }
    hubs.push(best);
    return best;
  }

  function drawAll(drawn) {
    const at = frame(drawn);
    if (!at.width) return;
    raysp.svg.setAttribute("height", at.height.toFixed(0));
    drawLattice(at);
    const places = placed(drawn, at);
    last = { at, places, taken: new Set(), hubs: [] };
    const lines = drawn.map((arc) => lineOf(arc, last));
    // The weakest first, so that the strongest lie on top, and the parts over all.
    raysp.svg.append(...lines.reverse(), ...[...places.values()].map((node) => knot(node, at)));
  }

  function lineOf(arc, { at, places, taken, hubs }) {
    const nodes = [...places.values()];
    const members = arc.components.map((index) => places.get(index)).sort((a, b) => a.y - b.y || a.x - b.x);
    const centre = members.length > 2 ? hub(members, nodes, hubs, at) : null;
    const path = centre ? members.map((node) => route(centre, node, nodes, taken, at)).join("") : route(members[0], members[members.length - 1], nodes, taken, at);
    return line(arc, path, centre);
  }

  // One more interaction, over those that are drawn and with parts of its own where it needs them.
  function add(arc) {
    const group = shape("g", {});
    if (!last) return group;
    const places = new Map(last.places);
    const missing = arc.components.filter((index) => !places.has(index));
    for (const index of missing) {
      const node = nodeOf(nodesByIndex.get(index), last.at.radius);
      places.set(index, { ...node, x: last.at.x[node.column], y: last.at.y[node.row] });
    }
    group.append(lineOf(arc, { ...last, places, taken: new Set(), hubs: [] }), ...missing.map((index) => knot(places.get(index), last.at)));
    raysp.svg.append(group);
    return group;
  }

  raysp.graph = { draw: drawAll, add };

  // All parts of the game as points, and the names of layers and columns.
  function drawLattice(at) {
    const { layers, columns, nodes } = graph;
    for (const [, row, column] of nodes) raysp.svg.append(shape("circle", { class: "lattice", cx: at.x[column], cy: at.y[row], r: 1.6 }));
    layers.forEach((layer, i) => raysp.svg.append(shape("text", { class: "axis", x: 0, y: at.y[i] + 4 }, `L${layer}`)));
    const foot = at.height - 20;
    const kinds = [...new Set(columns.map((column) => column.kind))].map((kind) => columns.map((column, i) => ({ ...column, x: at.x[i] })).filter((each) => each.kind === kind));
    write(kinds.flatMap((group) => (group.length > 1 || NUMBERED[group[0].kind] ? group : [])), foot);
    write(kinds.map((group) => ({ title: NUMBERED[group[0].kind] || group[0].title, x: (group[0].x + group[group.length - 1].x) / 2 })), foot + 16);
  }

  // As many names of a line as do not touch.
  function write(all, y) {
    let free = 0;
    for (const { title, x } of all) {
      const half = 3.4 * title.length;
      if (x - half < free) continue;
      raysp.svg.append(shape("text", { class: "axis middle", x: x.toFixed(1), y }, title));
      free = x + half + 5;
    }
  }

  function line(arc, d, centre) {
    const group = shape("g", { class: `arc ${arc.kind}` });
    const width = 1.2 + 4.3 * arc.strength;
    group.append(shape("path", { class: "halo", d, "stroke-width": (width + 3).toFixed(2) }), shape("path", { class: "wire", d, "stroke-width": width.toFixed(2) }));
    if (arc.kind === "redundancy") group.lastChild.setAttribute("stroke-dasharray", `${(4 + width).toFixed(1)} ${(2.5 + 0.6 * width).toFixed(1)}`);
    if (centre) group.append(shape("circle", { class: "hub", cx: centre.x.toFixed(1), cy: centre.y.toFixed(1), r: (3 + 2 * arc.strength).toFixed(1) }));
    group.append(shape("path", { class: "hit", d }));
    Object.assign(group.dataset, { rank: arc.rank, tip: arc.tip });
    return group;
  }

  function knot(node, at) {
    const group = shape("g", { class: `c node ${raysp.parts.tone(node.i)}` });
    const box = { x: (node.x - node.half).toFixed(1), y: (node.y - at.radius).toFixed(1), width: (2 * node.half).toFixed(1), height: 2 * at.radius, rx: at.radius };
    group.append(shape("rect", box), shape("text", { class: "middle", x: node.x.toFixed(1), y: node.y + 4 }, node.text));
    Object.assign(group.dataset, { i: node.i, s: shadeOf(raysp.parts.strength(node.i)), tip: raysp.parts.tip(node.i) });
    return group;
  }
}(window.raysp));
