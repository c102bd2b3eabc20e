// A study's search: learning curves, hyperparameters, and which of them matter.
function search(row, details) {
  const result = [];
  if (details.curves.trials.some((trial) => trial.v.length > 1)) result.push(make("h3", { text: "Learning curves" }), curve(details.curves), curveNote(details.curves));
  const names = Object.keys(details.parameters);
  if (names.length) {
    const best = details.curves.best;
    result.push(make("h3", { text: known(best) ? `Hyperparameters of the best trial, ${best}` : "Hyperparameters" }),
      table(["name", "value"], names.map((name) => [name, details.parameters[name]])));
  }
  result.push(...slices(details), ...importance(details));
  if (known(details.seconds)) result.push(make("p", { class: "quiet", text: `Time spent on this study: ${duration(details.seconds)}` }));
  return result;
}

function curve(curves) {
  const width = 520, height = 250, left = 46, right = 18, top = 12, bottom = 36;
  const [low, high] = curves.range;
  const every = curves.trials.flatMap((trial) => trial.x || []);
  const last = Math.max(curves.grid.at(-1) || 1, ...every);
  const x = (step) => left + (width - left - right) * step / last;
  const y = (value) => top + (height - top - bottom) * (high - value) / (high - low);
  const svg = make("svg", { svg: true, class: "curve", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "validation loss of every trial against training steps" });
  const put = (tag, options, text) => svg.append(make(tag, { svg: true, ...options, ...(text === undefined ? {} : { text }) }));
  put("clipPath", { id: "inside" });
  svg.lastChild.append(make("rect", { svg: true, x: left, y: 0, width: width - left - right + 4, height: height - bottom }));
  for (const value of ticks(low, high)) {
    put("path", { class: "axis", d: `M${left - 4},${y(value)}H${left}` });
    put("text", { x: left - 7, y: y(value) + 4, "text-anchor": "end" }, shown(value));
  }
  for (const step of ticks(0, last)) {
    put("path", { class: "axis", d: `M${x(step)},${height - bottom}v4` });
    put("text", { x: x(step), y: height - bottom + 16, "text-anchor": "middle" }, shown(step));
  }
  put("path", { class: "axis", d: `M${left},${top - 6}V${height - bottom}H${width - right}` });
  put("text", { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" }, "training step");
  put("text", { transform: `translate(11 ${(top + height - bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, "validation loss");
  if (low < 1 && high > 1) {
    put("path", { class: "mean", d: `M${left},${y(1)}H${width - right}` });
    put("text", { class: "small", x: width - right, y: y(1) + 11, "text-anchor": "end" }, "predicts the mean");
  }
  const inside = make("g", { svg: true, "clip-path": "url(#inside)" });
  svg.append(inside);
  const rank = (trial) => trial.n === curves.best ? 3 : { pruned: 0, failed: 0, running: 1, complete: 2 }[trial.s] ?? 0;
  let said = null;
  for (const trial of [...curves.trials].sort((a, b) => rank(a) - rank(b))) {
    const steps = trial.x || curves.grid;
    const points = trial.v.map((value, i) => [steps[i], value]).filter((point) => known(point[1]));
    if (!points.length) continue;
    const kind = trial.n === curves.best ? "chosen" : trial.s === "failed" ? "pruned" : trial.s;
    inside.append(make("path", { svg: true, class: kind, "data-trial": trial.n, d: "M" + points.map(([step, value]) => `${x(step).toFixed(1)},${y(Math.min(value, high + (high - low))).toFixed(1)}`).join("L") },
      make("title", { svg: true, text: `trial ${trial.n}, ${trial.s}` })));
    if (kind === "chosen") {
      const [step, value] = points.reduce((a, b) => (b[1] < a[1] ? b : a));
      inside.append(make("circle", { svg: true, class: "dot", cx: x(step), cy: y(value), r: 4 }));
      const end = x(step) > width * 0.6;
      said = make("text", { svg: true, class: "said", x: x(step) + (end ? -8 : 8), y: Math.max(y(value) - 8, 22), "text-anchor": end ? "end" : "start", text: `trial ${trial.n}: ${shown(value)}` });
    }
  }
  if (said) svg.append(said);
  return svg;
}

function curveNote(curves) {
  const count = (kind) => curves.trials.filter((trial) => trial.s === kind).length;
  const above = curves.trials.filter((trial) => !trial.v.some((value) => known(value) && value <= curves.range[1])).length;
  const parts = [`${count("complete")} complete`, `${count("pruned")} pruned (faint)`];
  if (count("failed")) parts.push(`${count("failed")} failed`);
  if (above) parts.push(`${above} above the axis`);
  return make("p", { class: "quiet", text: parts.join(", ") });
}

// The least value that each trial reached, against each hyperparameter that varies.
function slices(details) {
  const names = Object.keys(details.settings || {});
  if (!names.length || !details.curves.trials.length) return [];
  const trials = details.curves.trials.map((trial, i) => ({ ...trial, i, y: least(trial.v) }));
  const seen = trials.filter((trial) => known(trial.y) && trial.y <= details.curves.range[1]);
  if (!seen.length) return [];
  const low = Math.min(...seen.map((trial) => trial.y)), high = Math.max(...seen.map((trial) => trial.y), low + 1e-6);
  const node = make("div", { class: "slices" });
  for (const name of names) node.append(slice(name, details.settings[name], details.log.includes(name), seen, low, high, details.curves.best));
  const left = trials.length - seen.length;
  return [make("h3", { text: "Every trial, by hyperparameter" }), node,
    make("p", { class: "quiet", text: `Least validation loss of each trial; filled: complete, open: pruned, ringed: the best${left ? `; ${left} above the axis` : ""}` })];
}

function least(values) {
  const there = values.filter(known);
  return there.length ? Math.min(...there) : null;
}

function slice(name, settings, log, trials, low, high, best) {
  const width = 250, height = 160, left = 44, right = 10, top = 10, bottom = 38;
  const scale = (value) => (log ? Math.log10(value) : value);
  const inside = trials.filter((trial) => known(settings[trial.i]));
  const every = inside.map((trial) => scale(settings[trial.i]));
  const first = Math.min(...every), last = Math.max(...every, first + 1e-9);
  const margin = 0.06 * (high - low);
  const x = (value) => left + 6 + (width - left - right - 12) * (scale(value) - first) / (last - first);
  const y = (value) => top + (height - top - bottom) * (high + margin - value) / (high - low + 2 * margin);
  const svg = make("svg", { svg: true, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `least validation loss of every trial against ${name}` });
  const put = (tag, options, text) => svg.append(make(tag, { svg: true, ...options, ...(text === undefined ? {} : { text }) }));
  for (const value of few(ticks(low, high))) {
    put("path", { class: "axis", d: `M${left - 4},${y(value)}H${left}` });
    put("text", { x: left - 7, y: y(value) + 4, "text-anchor": "end" }, shown(value));
  }
  for (const value of log ? decades(first, last) : few(ticks(first, last))) {
    put("path", { class: "axis", d: `M${x(value)},${height - bottom}v4` });
    put("text", { x: x(value), y: height - bottom + 16, "text-anchor": "middle" }, log && (value < 0.01 || value > 1000) ? value.toExponential(0).replace("e+", "e") : shown(value));
  }
  put("path", { class: "axis", d: `M${left},${top - 4}V${height - bottom}H${width - right}` });
  put("text", { x: (left + width - right) / 2, y: height - 5, "text-anchor": "middle" }, name.replaceAll("_", " "));
  for (const trial of [...inside].sort((a, b) => (a.s === "complete") - (b.s === "complete"))) {
    const at = { cx: x(settings[trial.i]).toFixed(1), cy: y(trial.y).toFixed(1) };
    svg.append(make("circle", { svg: true, class: trial.s === "complete" ? "point" : "point open", r: 2.8, ...at },
      make("title", { svg: true, text: `trial ${trial.n}, ${trial.s}: ${shown(settings[trial.i])}, loss ${shown(trial.y)}` })));
    if (trial.n === best) put("circle", { class: "ring", r: 6, ...at });
  }
  return svg;
}

// Every other one where there are more than a small axis has room for.
const few = (values) => (values.length > 4 ? values.filter((_, i) => i % 2 === 0) : values);

// Powers of ten for an axis whose ends are given as logarithms; 1, 2, 5 times them where it spans less than two.
function decades(first, last) {
  const result = [];
  const digits = last - first < 2 ? [1, 2, 5] : [1];
  const step = Math.max(1, Math.ceil((last - first) / 3.5));
  for (let power = Math.floor(first); power <= Math.ceil(last); power += 1) {
    if (digits.length === 1 && (power % step + step) % step) continue;
    for (const digit of digits) {
      const value = digit * 10 ** power;
      if (Math.log10(value) >= first - 1e-9 && Math.log10(value) <= last + 1e-9) result.push(Number(value.toPrecision(6)));
    }
  }
  return result;
}

function importance(details) {
  const shares = Object.entries(details.importance);
  if (!shares.length && !details.importance_note) return [];
  const largest = Math.max(...shares.map(([, share]) => share), 1e-9);
  return [make("h3", { text: "Which hyperparameters matter" }),
    ...(shares.length ? [make("div", { class: "importance" }, ...shares.flatMap(([name, share]) => [
      make("span", { text: name.replaceAll("_", " ") }), make("i", { style: `width:${(100 * share / largest).toFixed(1)}%` }), make("span", { text: share.toFixed(2) })]))] : []),
    make("p", { class: "quiet", text: details.importance_note.replace(/^./, (letter) => letter.toUpperCase()) })];
}
