"use strict";
// Everything that comes from recordings and configurations enters the page through text nodes
// and attributes set here, never as markup.
const SVG = "http://www.w3.org/2000/svg";

function make(tag, options = {}, ...children) {
  const node = options.svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (name === "svg" || value === null || value === undefined || value === false) continue;
    if (name === "text") node.textContent = value;
    else if (name === "on") for (const [event, act] of Object.entries(value)) node.addEventListener(event, act);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function parse(id) {
  const block = document.getElementById(id);
  return block ? JSON.parse(block.textContent) : null;
}

const known = (value) => value !== null && value !== undefined;

// As on the figures: at most four characters, no zero before the point.
function short(value) {
  if (!known(value)) return "\u2013";
  const size = Math.abs(value);
  let text = size >= 999.5 ? ">999" : size >= 9.995 ? size.toFixed(0) : size.toFixed(2).replace(/^0\./, ".");
  return value < 0 && text !== ".00" ? "\u2212" + text : text;
}

function shown(value) {
  if (!known(value)) return "\u2013";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value)) return String(value);
  const size = Math.abs(value);
  const text = size >= 1e5 || size < 1e-3 ? value.toExponential(2) : String(Number(value.toPrecision(4)));
  return text.replace("-", "\u2212").replace("e\u2212", "e-");
}

function duration(seconds) {
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

function table(head, lines, numeric = () => true) {
  return make("div", { class: "scroll" }, make("table", { class: "list" },
    make("thead", {}, make("tr", {}, ...head.map((text, i) => make("th", { scope: "col", class: i && numeric(i) ? "n" : null, text })))),
    make("tbody", {}, ...lines.map((line) => make("tr", {}, ...line.map((value, i) =>
      make(i ? "td" : "th", { scope: i ? null : "row", class: i && numeric(i) ? "n" : null, text: shown(value) })))))));
}

function list(entries) {
  return make("dl", {}, ...Object.entries(entries).flatMap(([name, value]) => [
    make("dt", { text: name }),
    make("dd", {}, describe(value)),
  ]));
}

function describe(value) {
  if (Array.isArray(value)) return document.createTextNode(value.map(shown).join(", "));
  if (value !== null && typeof value === "object") return list(value);
  if (typeof value === "string" && value.includes("\n")) return make("pre", { text: value });
  return document.createTextNode(shown(value));
}

// WCAG relative luminance decides between black and white.
function inkOn(hex) {
  const part = (at) => {
    const c = parseInt(hex.slice(at, at + 2), 16) / 255;
    return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  };
  return 0.2126 * part(1) + 0.7152 * part(3) + 0.0722 * part(5) > 0.179 ? "#000" : "#fff";
}

// Round numbers for an axis from low to high, about five of them.
function ticks(low, high) {
  const rough = (high - low) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((digit) => digit * power).find((size) => size >= rough);
  const result = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step / 1e6; at += step) result.push(Number(at.toPrecision(10)));
  return result;
}
