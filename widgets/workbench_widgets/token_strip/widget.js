// @ts-check
/**
 * Tokens of one or more texts, each coloured by a signed score.
 *
 * Orange lies below zero and blue above (a pair that colour-blind readers tell apart); the sign is
 * also drawn as a bar under (negative) or over (positive) the token, as long as the score is
 * large. Tokens reach the page through textContent only.
 */

/** @typedef {{title?: string, tokens?: string[], scores?: (number|null)[], kinds?: string[], total?: number|null, unit?: string}} Strip */
/** @typedef {{get(name: string): any, set(name: string, value: any): void, save_changes(): void, on(event: string, cb: () => void): void, off(event: string, cb: () => void): void}} Model */

const NEGATIVE = { light: [213, 94, 0], dark: [232, 130, 50] };
const POSITIVE = { light: [0, 114, 178], dark: [70, 160, 225] };
/** Longer texts are cut on the page (and it says so): ten thousand boxes stay quick. */
const MOST_TOKENS = 5000;
const TOKEN_CHARACTERS = 200;

/** Spaces, line ends and control characters as visible signs. @param {string} token @returns {string} */
export function visibleToken(token) {
  const cut = token.length > TOKEN_CHARACTERS ? `${token.slice(0, TOKEN_CHARACTERS)}…` : token;
  const shown = cut
    .replace(/\r\n|\n|\r/g, "↵")
    .replace(/\t/g, "⇥")
    .replace(/^ +| +$/g, (run) => "·".repeat(run.length))
    .replace(/\u00a0/g, "⍽");
  // eslint-disable-next-line no-control-regex
  return shown.replace(/[\u0000-\u001f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0))) || "∅";
}

/** @param {number|null|undefined} score @returns {string} */
export function signed(score) {
  if (score === null || score === undefined || Number.isNaN(score)) return "no score";
  if (!Number.isFinite(score)) return score > 0 ? "+∞" : "−∞";
  const size = Math.abs(score);
  const text = size === 0 ? "0" : size < 0.001 ? size.toExponential(1) : size.toFixed(size < 10 ? 3 : 1);
  return score > 0 ? `+${text}` : score < 0 ? `−${text}` : text;
}

/** The score as a share of the scale, in [-1, 1]; 0 where there is none. @param {number|null|undefined} score @param {number} scale @returns {number} */
export function share(score, scale) {
  if (typeof score !== "number" || Number.isNaN(score) || !(scale > 0)) return 0;
  return Math.max(-1, Math.min(1, score / scale));
}

/** The common scale: the one given, else the largest score of all strips. @param {number} given @param {Strip[]} strips @returns {number} */
export function commonScale(given, strips) {
  if (given > 0) return given;
  let largest = 0;
  for (const strip of strips) for (const score of strip.scores || []) if (Number.isFinite(score)) largest = Math.max(largest, Math.abs(Number(score)));
  return largest || 1;
}

/** @param {number} part @param {boolean} dark @returns {string} */
function background(part, dark) {
  const [r, g, b] = (part < 0 ? NEGATIVE : POSITIVE)[dark ? "dark" : "light"];
  return `rgba(${r}, ${g}, ${b}, ${(Math.sqrt(Math.abs(part)) * (dark ? 0.62 : 0.5)).toFixed(3)})`;
}

/** @param {string} tag @param {string} [className] @param {Record<string, string>} [attributes] @param {string} [text] @returns {HTMLElement} */
function make(tag, className = "", attributes = {}, text = "") {
  const node = document.createElement(tag);
  if (className) node.className = className;
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  // JupyterLab leaves the keys alone that are pressed in such an element.
  if ("tabindex" in attributes || /^(button|input|select)$/.test(tag)) node.setAttribute("data-lm-suppress-shortcuts", "true");
  if (text) node.textContent = text;
  return node;
}

/** "auto" follows JupyterLab's theme. @param {string} theme @returns {boolean} */
function isDark(theme) {
  return theme === "dark" || (theme === "auto" && document.body.dataset.jpThemeLight === "false");
}

class Strips {
  /** @param {Model} model @param {HTMLElement} el */
  constructor(model, el) {
    this.model = model;
    this.el = el;
    this.root = make("div", "wb-token-strip");
    this.body = make("div", "wb-strips");
    this.legend = make("div", "wb-scale");
    this.tooltip = make("div", "wb-token-tip", { "aria-hidden": "true" });
    this.tooltip.hidden = true;
    this.live = make("div", "wb-only-read", { "aria-live": "polite", role: "status" });
    this.root.append(this.legend, this.body, this.tooltip, this.live);
    el.append(this.root);
    this.listen();
    this.paint();
  }

  listen() {
    this.abort = new AbortController();
    const options = { signal: this.abort.signal };
    this.body.addEventListener("keydown", (e) => this.keyPressed(e), options);
    this.body.addEventListener("click", (e) => this.clicked(e), options);
    this.body.addEventListener("pointerover", (e) => this.show(this.tokenOf(e.target)), options);
    this.body.addEventListener("pointerleave", () => this.show(null), options);
    this.body.addEventListener("focusin", (e) => this.show(this.tokenOf(e.target)), options);
    this.body.addEventListener("focusout", () => this.show(null), options);
    this.repaint = () => this.paintSoon();
    this.remark = () => this.mark();
    for (const name of ["rows", "scale", "theme"]) this.model.on(`change:${name}`, this.repaint);
    this.model.on("change:selected", this.remark);
    this.themes = new MutationObserver(this.repaint);
    this.themes.observe(document.body, { attributeFilter: ["data-jp-theme-light"] });
  }

  dispose() {
    this.abort?.abort();
    this.themes?.disconnect();
    cancelAnimationFrame(this.frame || 0);
    for (const name of ["rows", "scale", "theme"]) this.model.off(`change:${name}`, /** @type {() => void} */ (this.repaint));
    this.model.off("change:selected", /** @type {() => void} */ (this.remark));
    this.root.remove();
  }

  paintSoon() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.paint();
    });
  }

  /** @returns {Strip[]} */
  get strips() {
    return this.model.get("rows") || [];
  }

  paint() {
    this.dark = isDark(this.model.get("theme"));
    this.root.dataset.theme = this.dark ? "dark" : "light";
    this.scale = commonScale(Number(this.model.get("scale")) || 0, this.strips);
    this.show(null);
    const nodes = this.strips.map((strip, row) => this.stripNode(strip, row));
    this.body.replaceChildren(...(nodes.length ? nodes : [make("p", "wb-empty", {}, "Select a pair to see its tokens.")]));
    this.paintLegend();
    this.mark();
  }

  paintLegend() {
    const unit = this.strips.find((strip) => strip.unit)?.unit || "";
    const dark = Boolean(this.dark);
    const steps = [-1, -0.5, -0.15, 0, 0.15, 0.5, 1].map((part) => background(part, dark));
    const bar = make("span", "wb-scale-bar", { role: "img", "aria-label": `Colour scale from ${signed(-(this.scale || 1))} to ${signed(this.scale || 1)} ${unit}` });
    bar.style.background = `linear-gradient(90deg, ${steps.join(",")})`;
    const low = make("span", "wb-scale-end", {}, signed(-(this.scale || 1)));
    const high = make("span", "wb-scale-end", {}, `${signed(this.scale || 1)}${unit ? ` ${unit}` : ""}`);
    this.legend.replaceChildren(low, bar, high, make("span", "wb-scale-note", {}, this.key()));
    this.legend.hidden = this.strips.length === 0;
  }

  /** What the marks of the tokens on show mean. @returns {string} */
  key() {
    const prompt = this.strips.some((strip) => (strip.kinds || []).includes("prompt"));
    const unscored = this.strips.some((strip) => (strip.tokens || []).some((_, i) => typeof strip.scores?.[i] !== "number"));
    const parts = ["bar under = lowers, bar over = raises", prompt ? "dotted = prompt" : "", unscored ? "hatched = no score" : ""];
    return parts.filter(Boolean).join(" · ");
  }

  /** @param {Strip} strip @param {number} row */
  stripNode(strip, row) {
    const section = make("section", "wb-strip");
    const head = make("div", "wb-strip-head");
    head.append(make("bdi", "wb-strip-title", {}, strip.title || ""));
    if (typeof strip.total === "number") head.append(make("span", "wb-strip-total", {}, `${signed(strip.total)}${strip.unit ? ` ${strip.unit}` : ""}`));
    const list = make("div", "wb-tokens", { role: "listbox", "aria-label": `Tokens of ${strip.title || "the text"}`, "aria-orientation": "horizontal", dir: "auto" });
    const tokens = strip.tokens || [];
    tokens.slice(0, MOST_TOKENS).forEach((token, index) => list.append(...this.tokenNodes(strip, row, token, index)));
    section.append(head, list, ...this.notes(tokens.length));
    return section;
  }

  /** What the reader must know about the number of tokens. @param {number} count @returns {HTMLElement[]} */
  notes(count) {
    if (count > MOST_TOKENS) return [make("p", "wb-empty", {}, `The first ${MOST_TOKENS.toLocaleString("en")} of ${count.toLocaleString("en")} tokens.`)];
    return count ? [] : [make("p", "wb-empty", {}, "No tokens")];
  }

  /** A token, and a line break after one that ends a line. @param {Strip} strip @param {number} row @param {string} token @param {number} index @returns {HTMLElement[]} */
  tokenNodes(strip, row, token, index) {
    const score = (strip.scores || [])[index];
    const part = share(score, this.scale || 1);
    const prompt = (strip.kinds || [])[index] === "prompt";
    const scored = typeof score === "number" && !Number.isNaN(score);
    const node = make("span", `wb-token${prompt ? " wb-prompt" : ""}${scored ? "" : " wb-unscored"}`, { role: "option", tabindex: "-1", "data-row": String(row), "data-index": String(index), "aria-label": `${visibleToken(token)} ${signed(score)}` });
    node.textContent = visibleToken(token);
    node.style.background = part ? background(part, Boolean(this.dark)) : "";
    if (Math.abs(part) >= 0.04) node.append(this.signBar(part));
    return /\n$/.test(token) ? [node, make("span", "wb-break")] : [node];
  }

  /** @param {number} part */
  signBar(part) {
    const bar = make("span", `wb-sign ${part > 0 ? "wb-over" : "wb-under"}`, { "aria-hidden": "true" });
    bar.style.width = `${Math.max(12, Math.abs(part) * 100).toFixed(0)}%`;
    return bar;
  }

  /** @param {EventTarget|null} target @returns {HTMLElement|null} */
  tokenOf(target) {
    return target instanceof Element ? target.closest(".wb-token") : null;
  }

  /** @param {HTMLElement|null} node */
  show(node) {
    this.tooltip.hidden = !node;
    if (!node) return;
    const strip = this.strips[Number(node.dataset.row)];
    const index = Number(node.dataset.index);
    const score = (strip?.scores || [])[index];
    const unit = strip?.unit && typeof score === "number" ? ` ${strip.unit}` : "";
    this.tooltip.replaceChildren(make("bdi", "wb-tip-token", {}, visibleToken(strip?.tokens?.[index] || "")), make("span", "wb-tip-score", {}, signed(score) + unit), make("span", "wb-tip-place", {}, `token ${index + 1} of ${strip?.tokens?.length}`));
    this.placeTip(node);
    this.live.textContent = node === this.active() ? `${node.getAttribute("aria-label")}${unit}` : "";
  }

  /** @param {HTMLElement} node */
  placeTip(node) {
    const [outer, inner] = [this.root.getBoundingClientRect(), node.getBoundingClientRect()];
    const left = Math.min(inner.left - outer.left, outer.width - this.tooltip.offsetWidth - 4);
    this.tooltip.style.left = `${Math.max(0, left)}px`;
    this.tooltip.style.top = `${inner.bottom - outer.top + 5}px`;
  }

  /** @returns {Element|null} */
  active() {
    return /** @type {Document|ShadowRoot} */ (this.root.getRootNode()).activeElement;
  }

  /** @param {number} row @param {number} index @returns {HTMLElement|null} */
  nodeAt(row, index) {
    return this.body.querySelector(`.wb-token[data-row="${row}"][data-index="${index}"]`);
  }

  /** One token of each strip takes the Tab key; the selected one is outlined. */
  mark() {
    const { row = -1, index = -1 } = this.model.get("selected") || {};
    for (const node of this.body.querySelectorAll('.wb-token[aria-selected="true"]')) node.setAttribute("aria-selected", "false");
    for (const node of this.body.querySelectorAll('.wb-token[tabindex="0"]')) node.setAttribute("tabindex", "-1");
    this.strips.forEach((_, each) => this.nodeAt(each, each === row ? index : 0)?.setAttribute("tabindex", "0"));
    this.nodeAt(row, index)?.setAttribute("aria-selected", "true");
  }

  /** @param {MouseEvent} event */
  clicked(event) {
    const node = this.tokenOf(event.target);
    if (node) this.select(node);
  }

  /** @param {HTMLElement} node */
  select(node) {
    this.model.set("selected", { row: Number(node.dataset.row), index: Number(node.dataset.index) });
    this.model.save_changes();
    this.mark();
    node.focus();
  }

  /** @param {KeyboardEvent} event */
  keyPressed(event) {
    const node = this.tokenOf(event.target);
    if (!node || event.ctrlKey || event.metaKey || event.altKey) return;
    const next = this.destination(node, event.key);
    if (next === undefined) return;
    event.preventDefault();
    if (event.key === "Enter" || event.key === " ") this.select(node);
    else next?.focus();
  }

  /** Where a key leads; undefined for keys that are not ours. @param {HTMLElement} node @param {string} key @returns {HTMLElement|null|undefined} */
  destination(node, key) {
    const [row, index] = [Number(node.dataset.row), Number(node.dataset.index)];
    const forward = getComputedStyle(/** @type {Element} */ (node.parentElement)).direction === "rtl" ? -1 : 1;
    const last = this.shownTokens(row) - 1;
    /** @type {Record<string, [number, number]>} */
    const moves = {
      ArrowRight: [row, index + forward], ArrowLeft: [row, index - forward], Home: [row, 0], End: [row, last],
      ArrowDown: [row + 1, this.clamp(row + 1, index)], ArrowUp: [row - 1, this.clamp(row - 1, index)],
      Enter: [row, index], " ": [row, index],
    };
    return moves[key] ? this.nodeAt(...moves[key]) : undefined;
  }

  /** @param {number} row @returns {number} */
  shownTokens(row) {
    return Math.min((this.strips[row]?.tokens || []).length, MOST_TOKENS);
  }

  /** @param {number} row @param {number} index @returns {number} */
  clamp(row, index) {
    return Math.max(0, Math.min(index, this.shownTokens(row) - 1));
  }
}

/** @param {{model: Model, el: HTMLElement}} context @returns {() => void} */
function render({ model, el }) {
  const strips = new Strips(model, el);
  return () => strips.dispose();
}

export default { render };
