const data = parse("overview");
const state = { metric: data.metric, open: null };
const buttons = new Map(); // place in data.rows -> its button

function colour(metric, value) {
  const [low, high] = metric.limits;
  let share = Math.min(1, Math.max(0, (value - low) / (high - low)));
  if (!metric.higher_is_better) share = 1 - share;
  return data.colours[Math.round(share * (data.colours.length - 1))];
}

const chosenMetric = () => data.metrics.find((metric) => metric.name === state.metric) || data.metrics[0];

function paint(node, row, best) {
  const metric = chosenMetric();
  node.className = "cell";
  node.style.background = node.style.color = "";
  let said;
  if (row.pending) { node.textContent = ""; node.classList.add("none"); said = "no finished fit"; }
  else if (row.failed) {
    const value = metric ? row[metric.name] : undefined;
    node.replaceChildren(make("span", { text: short(value) }));
    node.classList.add("failed");
    said = `${known(value) ? `${metric.label} ${shown(value)}, ` : ""}${data.words.not_sure}`;
  }
  else {
    const value = metric ? row[metric.name] : undefined;
    node.textContent = short(value);
    if (known(value)) { node.style.background = colour(metric, value); node.style.color = inkOn(colour(metric, value)); }
    said = known(value) ? `${metric.label} ${shown(value)}` : "undefined";
  }
  if (row.below && !row.failed) { node.classList.add("below"); said += `, ${data.words.worse}`; }
  if (best) { node.classList.add("best"); said += `, ${data.words.best}`; }
  const name = `${row.backbone}, ${row.layer}, ${row.region}, ${row.readout}: ${said}`;
  node.setAttribute("aria-label", name);
  node.title = name;
}

function columns() { // regions, with a gap before each new area
  const result = [];
  data.regions.forEach((region, i) => {
    const area = data.areas[region];
    if (i && known(area) && area !== data.areas[data.regions[i - 1]]) result.push(null);
    result.push(region);
  });
  return result;
}

function areaRow(order) {
  if (!order.some((region) => region !== null && known(data.areas[region]) && data.areas[region] !== region)) return null;
  const cells = [make("td")];
  let run = null;
  for (const region of order) {
    if (region === null) { cells.push(make("td", { class: "gap" })); run = null; continue; }
    const area = data.areas[region] ?? "";
    if (run && run.area === area) run.node.colSpan += 1;
    else { run = { area, node: make("th", { class: "area", scope: "colgroup", text: area }) }; cells.push(run.node); }
  }
  return make("tr", {}, ...cells);
}

function panel(entry) {
  const order = columns();
  const upright = data.regions.some((region) => region.length > 5);
  const body = make("tbody");
  for (const layer of entry.layers) {
    if (!Object.keys(entry.cells[layer] || {}).length) continue; // of another panel: all together, or a closed form
    const line = make("tr", { role: "row" }, make("th", { scope: "row", role: "rowheader", text: layer, title: layer }));
    for (const region of order) {
      if (region === null) { line.append(make("td", { class: "gap", role: "presentation" })); continue; }
      const place = (entry.cells[layer] || {})[region];
      const row = known(place) ? data.rows[place] : null;
      let node;
      if (!row) node = make("span"); // no fit can be there
      else if (row.reference) node = make("span");
      else {
        node = make("button", { type: "button", tabindex: -1, "aria-pressed": "false", "data-study": row.study, on: { click: () => openStudy(place) } });
        buttons.set(place, node);
      }
      if (row) paint(node, row, entry.best[region] === layer);
      line.append(make("td", { role: "gridcell" }, node));
    }
    body.append(line);
  }
  const learned = data.untrained.includes(entry.backbone) ? " (random)" : "";
  const title = `${entry.backbone}${learned} \u00b7 ${entry.readout}`;
  const node = make("table", { class: "map" + (upright ? " upright" : "") + (data.regions.length <= 6 ? " roomy" : ""), role: "grid", "aria-label": title },
    make("thead", {}, areaRow(order), make("tr", {}, make("td"), ...order.map((region) => region === null
      ? make("td", { class: "gap" }) : make("th", { class: "region", scope: "col", title: region }, make("span", { text: region }))))),
    body, ceilingRow(order));
  const first = node.querySelector("button.cell");
  if (first) first.tabIndex = 0;
  node.addEventListener("keydown", (event) => move(event, node));
  return make("div", { class: "panel" }, make("h3", { text: title }), node);
}

// As on the heatmap: of scores that the ceiling lies on the scale of.
const ceiled = (metric) => Boolean(metric && metric.comparable_ceiling && Object.keys(data.ceilings).length);

function ceilingRow(order) {
  const metric = chosenMetric();
  if (!ceiled(metric)) return null;
  return make("tfoot", {}, make("tr", {}, make("th", { scope: "row", text: "ceiling" }), ...order.map((region) => {
    if (region === null) return make("td", { class: "gap" });
    const value = data.ceilings[region];
    const fill = known(value) ? colour(metric, value) : null;
    return make("td", {}, make("i", { text: short(value), class: fill ? "filled" : null, style: fill ? `background:${fill};color:${inkOn(fill)}` : null }));
  })));
}

// Arrow keys walk a map; one cell of each map can be reached with Tab.
function move(event, map) {
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], Home: [0, -Infinity], End: [0, Infinity] };
  const step = steps[event.key];
  if (!step || !event.target.matches("button.cell")) return;
  event.preventDefault();
  const lines = [...map.tBodies[0].rows].map((row) => [...row.querySelectorAll("td:not(.gap)")].map((cell) => cell.querySelector("button.cell")));
  let y = lines.findIndex((line) => line.includes(event.target));
  let x = lines[y].indexOf(event.target);
  let next = null;
  if (!Number.isFinite(step[1])) next = (step[1] < 0 ? lines[y] : [...lines[y]].reverse()).find(Boolean);
  while (!next) {
    y += step[0]; x += step[1];
    if (!lines[y] || x < 0 || x >= lines[y].length) return;
    next = lines[y][x];
  }
  map.querySelectorAll('button.cell[tabindex="0"]').forEach((button) => { button.tabIndex = -1; });
  next.tabIndex = 0;
  next.focus();
}

function drawMaps() {
  buttons.clear();
  document.getElementById("grid").replaceChildren(...data.grid.map((line) => make("div", { class: "backbone" }, ...line.map(panel))));
  drawLegend();
  const metric = chosenMetric();
  const caveat = document.getElementById("caveat");
  caveat.hidden = !metric;
  caveat.classList.toggle("warning", Boolean(metric && metric.selected_on));
  caveat.textContent = metric ? [metric.over, metric.beside, metric.against].filter(Boolean).join(" \u00b7 ") : "";
  const sure = document.getElementById("sure");
  sure.hidden = !data.sure.length;
  sure.replaceChildren(...data.sure.map((text) => make("li", { text })));
  if (state.open !== null && buttons.has(state.open)) buttons.get(state.open).setAttribute("aria-pressed", "true");
}

function drawLegend() {
  const metric = chosenMetric();
  const parts = [];
  if (metric) {
    const [low, high] = metric.limits;
    const order = metric.higher_is_better ? data.colours : [...data.colours].reverse();
    parts.push(make("span", { class: "scale" }, make("span", { text: shown(low) }), make("i", { style: `background:linear-gradient(to right, ${order.join(",")})` }), make("span", { text: shown(high) }), make("span", { text: metric.label })));
  }
  const key = (kind, text) => make("span", { class: "key" }, make("i", { class: kind }), make("span", { text }));
  if (data.grid.some((line) => line.some((entry) => Object.keys(entry.best).length))) parts.push(key("best", data.words.best));
  if (data.rows.some((row) => row.failed)) parts.push(key("failed", `${data.words.not_sure} (${data.words.how_told})`));
  if (data.rows.some((row) => row.below && !row.failed)) parts.push(key("below", data.words.worse));
  if (data.rows.some((row) => row.pending)) parts.push(make("span", { class: "key" }, make("i", { class: "cell none" }), make("span", { text: "no finished fit" })));
  if (ceiled(metric)) parts.push(make("span", { text: "ceiling: mean CCmax, the correlation that noise leaves possible" }));
  document.getElementById("legend").replaceChildren(...parts);
}
