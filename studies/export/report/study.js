function openStudy(place) {
  if (state.open !== null && buttons.has(state.open)) buttons.get(state.open).setAttribute("aria-pressed", "false");
  state.open = place;
  buttons.get(place)?.setAttribute("aria-pressed", "true");
  const row = data.rows[place];
  const details = parse(`study-${place}`);
  const node = document.getElementById("study");
  const close = make("button", { type: "button", class: "plain close", text: "Close", on: { click: closeStudy } });
  node.replaceChildren(close, make("h2", { id: "study-title", text: `${row.backbone} \u00b7 ${row.layer} \u00b7 ${row.region} \u00b7 ${row.readout}` }));
  if (data.recording.simulated) node.append(make("span", { class: "badge", text: "simulated recording" }));
  if (row.failed) node.append(make("p", { class: "warning", text: `The best trial is ${data.words.not_sure}: on the held-out images, after correction for the number of trials.` }));
  if (row.below) node.append(make("p", { class: "quiet", text: "Its validation loss is above that of the closed form (smooth) of this layer and region." }));
  if (row.pending) node.append(make("p", { text: "No trial of this study has finished." }));
  for (const note of details?.notes || []) node.append(make("p", { class: "warning", text: note }));
  node.append(...scores(row, place));
  if (!details) node.append(make("p", { class: "quiet", text: "No further details were stored for this study." }));
  else node.append(...search(row, details), ...pictures(details), ...unitTable(details), ...loading(details));
  node.hidden = false;
  document.querySelector("main").classList.add("open");
  history.replaceState(null, "", "#" + encodeURIComponent(row.study));
  if (!window.matchMedia("(min-width: 1250px)").matches) node.scrollIntoView({ block: "start" });
  else node.scrollTop = 0;
}

function closeStudy() {
  const button = buttons.get(state.open);
  document.getElementById("study").hidden = true;
  document.querySelector("main").classList.remove("open");
  history.replaceState(null, "", location.pathname + location.search);
  state.open = null;
  if (button) { button.setAttribute("aria-pressed", "false"); button.focus(); }
}

const thousandths = (value) => (known(value) ? value.toFixed(3).replace(/^(-?)0\./, "$1.").replace("-", "\u2212") : null);

// A score, and below it the limits of its interval where it has one.
const limited = (row, name) => (known(row[name]) && (known(row[`${name}_low`]) || known(row[`${name}_high`]))
  ? `${thousandths(row[name])}\n[${thousandths(row[`${name}_low`]) ?? "\u2013"}, ${thousandths(row[`${name}_high`]) ?? "\u2013"}]` : thousandths(row[name]));

function scores(row, place) {
  const beside = data.rows.filter((other) => other !== row && !other.pending && (other.reference || other.readout === "smooth")
    && other.backbone === row.backbone && other.layer === row.layer && other.region === row.region);
  const limit = Object.keys(data.ceilings).length > 0;
  const lines = data.metrics.map((metric) => [
    metric.label + (metric.selected_on ? " (selected on)" : ""),
    limited(row, metric.name),
    ...(limit ? [metric.comparable_ceiling ? thousandths(row.noise_ceiling) : ""] : []),
    ...beside.map((other) => limited(other, metric.name)),
  ]);
  const head = ["score", "this study", ...(limit ? ["ceiling"] : []), ...beside.map((other) => other.readout)];
  const node = table(head, lines);
  node.classList.add("scores");
  const bracketed = data.metrics.some((metric) => [row, ...beside].some((one) => known(one[`${metric.name}_low`])));
  return [node, ...(row.compared || []).map((text) => make("p", { class: "compared", text: `${text} (paired, ${data.words.interval})` })),
    ...(data.no_loss ? [make("p", { class: "quiet over", text: `${data.no_loss[0].toUpperCase()}${data.no_loss.slice(1)}.` })] : []),
    ...(row.over || []).map((text) => make("p", { class: "quiet over", text })),
    ...(bracketed ? [make("p", { class: "quiet over", text: `In brackets: ${data.words.interval}.` })] : [])];
}

function pictures(details) {
  const result = [];
  if (details.images) {
    const { count, given, settings } = details.images;
    const notes = [data.recording.simulated ? "simulated recording" : "", settings, count < given ? `the first ${count} of ${given} units` : ""].filter(Boolean);
    result.push(make("h3", { text: "Most exciting images" }));
    if (notes.length) result.push(make("p", { class: "quiet", text: notes.join("; ") }));
    result.push(tiles(details.images, "images", false));
  }
  if (details.masks) {
    const [height, width] = details.masks.cells;
    result.push(make("h3", { text: "Where each unit reads" }),
      make("p", { class: "quiet", text: `Where each unit reads, on ${height} \u00d7 ${width} cells (of masks their size, else the length of the weights over channels), each from 0 to its own maximum` }),
      tiles(details.masks, "masks", true));
  }
  return result;
}

function tiles(sheet, kind, sharp) {
  const many = sheet.count > 24;
  const node = make("div", { class: `tiles ${kind}${sharp ? " cells" : ""}`, style: `--tile:${sharp ? (many ? 56 : 72) : many ? 76 : 110}px` });
  const canvases = [];
  for (let i = 0; i < sheet.count; i += 1) {
    const name = sheet.names[i];
    const canvas = make("canvas", { width: sheet.w, height: sheet.h, role: "img", "aria-label": `unit ${name}` });
    canvases.push(canvas);
    node.append(make("figure", {}, canvas, make("figcaption", { text: name }, (sheet.notes || [])[i] ? make("small", { text: sheet.notes[i] }) : null)));
  }
  const image = new Image();
  image.onload = () => {
    canvases.forEach((canvas, i) => {
      const column = i % sheet.across, row = Math.floor(i / sheet.across);
      canvas.getContext("2d").drawImage(image, column * sheet.w, row * sheet.h, sheet.w, sheet.h, 0, 0, sheet.w, sheet.h);
    });
    node.dataset.drawn = "true";
  };
  image.src = sheet.src;
  return node;
}

// A score and the limits of its interval stand in one column: 0.812 [0.790, 0.834].
function unitTable(details) {
  const { columns, values } = details.units;
  if (!columns.length || !values[0].length) return [];
  const at = (name) => values[columns.indexOf(name)];
  const limit = /_(low|high)$/;
  const kept = columns.filter((name) => !(limit.test(name) && columns.includes(name.replace(limit, ""))));
  const scored = (name) => columns.includes(`${name}_low`) && columns.includes(`${name}_high`);
  const fixed = (value) => thousandths(value) ?? "\u2013";
  const written = kept.map((name) => at(name).map((value, i) => !scored(name) || !known(value) ? value
    : `${fixed(value)} [${fixed(at(`${name}_low`)[i])}, ${fixed(at(`${name}_high`)[i])}]`));
  const numeric = (i) => scored(kept[i]) || at(kept[i]).some((value) => typeof value === "number");
  const lines = written[0].map((_, i) => written.map((column) => column[i]));
  const node = table(kept.map((name) => name.replaceAll("_", " ")), lines, numeric);
  node.classList.add("tall");
  const parts = [make("summary", { text: `Scores of its ${lines.length} units` })];
  if (kept.some(scored)) parts.push(make("p", { class: "quiet", text: `In brackets: ${data.words.interval}; \u2013: undefined, or a limit that the data leave open.` }));
  return [make("details", { class: "units" }, ...parts, node)];
}

function loading(details) {
  if (!details.load) return [];
  const code = make("pre", { class: "load", text: details.load });
  const copy = make("button", { type: "button", class: "plain copy", text: "Copy", on: { click: async () => {
    try { await navigator.clipboard.writeText(details.load); copy.textContent = "Copied"; }
    catch { getSelection().selectAllChildren(code); copy.textContent = "Selected"; }
  } } });
  return [make("h3", { text: "Load the encoder" }), code, copy];
}

function introduce() {
  const { recording } = data;
  const lead = document.getElementById("lead");
  const studies = data.rows.filter((row) => !row.reference).length;
  lead.append(`${studies} ${studies === 1 ? "study" : "studies"} on ${recording.label}. `);
  if (recording.simulated) lead.append(make("span", { class: "badge", text: "simulated recording" }));
  const select = document.getElementById("metric");
  for (const metric of data.metrics) select.append(make("option", { value: metric.name, selected: metric.name === state.metric, text: metric.label }));
  select.addEventListener("change", () => { state.metric = select.value; drawMaps(); });
  if (!data.metrics.length) select.closest("label").hidden = true;

  const section = document.getElementById("recording");
  section.append(list({ name: recording.label, source: recording.source, ...(recording.simulated ? { simulated: true } : {}), ...recording.facts }));
  const about = [["region", "name"], ["area", "area"], ["units", "n_units"], ["with a ceiling", "n_units_with_ceiling"], ["mean reliability", "reliability"], ["mean ceiling", "noise_ceiling"], ["share missing", "missing"]]
    .filter(([, name]) => recording.regions.some((region) => known(region[name]) && region[name] !== ""));
  if (recording.regions.length) section.append(table(about.map(([text]) => text), recording.regions.map((region) => about.map(([, name]) => region[name])), (i) => about[i][1] !== "area"));
  for (const note of recording.notes) section.append(make("p", { class: "quiet", text: note }));

  document.getElementById("provenance").append(list(data.provenance));
}

introduce();
drawMaps();
const wanted = decodeURIComponent(location.hash.slice(1));
const linked = data.rows.findIndex((row) => !row.reference && row.study === wanted);
if (linked >= 0) openStudy(linked);
document.addEventListener("keydown", (event) => { if (event.key === "Escape" && state.open !== null) closeStudy(); });
