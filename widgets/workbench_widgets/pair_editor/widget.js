// @ts-check
/**
 * A virtual table of preference pairs with an editor of the selected one.
 *
 * The server sends only the rows in sight (`rows` from `offset`); the table asks for others with
 * `query`. Every change leaves as {seq, pair_id, field, value} or {seq, name, pair_ids}, one at a
 * time and never by row number; the next one waits until the server has acknowledged the last, so
 * none is lost when several are made in quick succession. A row may carry `was`, the earlier values
 * of the fields that differ from it: its cells are marked, and the editor shows what changed. Text
 * reaches the page through textContent and value only.
 */

/** @typedef {{name: string, title?: string, kind?: "text"|"number"|"category"|"live", editable?: boolean, width?: number, options?: any[], help?: string, unit?: string}} Column */
/** @typedef {Record<string, any> & {pair_id: string, offset?: number, truncated?: string[], was?: Record<string, any>}} Row */
/** @typedef {{value: any, sent: any, seq: number, state: "typing"|"pending"|"settled"|"refused", error: string, timer: number, arrivals: number}} Draft */
/** @typedef {{kind: "same"|"gone"|"new", text: string}} Change */
/** @typedef {{column: Column, control: any, message: HTMLElement, box: HTMLElement, diff: HTMLElement}} Field */
/** @typedef {{trait: "edit"|"command", body: Record<string, any>}} Message */
/** @typedef {{get(name: string): any, set(name: string, value: any): void, save_changes(): void, on(event: string, cb: () => void): void, off(event: string, cb: () => void): void}} Model */

export const ROW_HEIGHT = 34;
const OVERSCAN = 40;
/** Rows beyond those in sight that are asked for before they are needed. */
const AHEAD = 20;
const ASK_MS = 40;
const DIFF_WORDS = 400;
const MOST_FILTERS = 8;
const IDLE_MS = 600;
const PATIENCE_MS = 8000;
const CELL_CHARACTERS = 240;

const SHORTCUTS = [
  ["↑ ↓ ← →", "Move between rows and cells"],
  ["Home / End", "First or last pair"],
  ["Enter, F2", "Edit the cell"],
  ["E", "Edit the pair in full; Esc comes back"],
  ["Esc", "Leave the cell unchanged; give up a refused value"],
  ["Ctrl+Enter", "Commit the text at once"],
  ["Space", "Check or uncheck the pair; with Shift, all since the last one"],
  ["Ctrl+A", "Check all matching pairs, or none"],
  ["O", "Sort by the column at the cursor"],
  ["S", "Swap the answers (all evidence changes side)"],
  ["F", "Flip the label (raters' shares stay)"],
  ["D", "Duplicate"],
  ["N", "New pair"],
  ["Delete", "Delete"],
  ["Ctrl+Z", "Undo"],
  ["Ctrl+Shift+Z", "Redo"],
  ["/", "Go to the filter"],
  ["?", "Show or hide this list"],
];

/** name, glyph, label, shortcut, needs pairs */
const ACTIONS = /** @type {[string, string, string, string, boolean][]} */ ([
  ["add", "+", "New pair", "N", false],
  ["duplicate", "⊞", "Duplicate", "D", true],
  ["swap", "⇄", "Swap the answers", "S", true],
  ["flip", "⇅", "Flip the label", "F", true],
  ["delete", "✕", "Delete", "Delete", true],
  ["undo", "↶", "Undo", "Ctrl+Z", false],
  ["redo", "↷", "Redo", "Ctrl+Shift+Z", false],
]);

/* ------------------------------------------------------------- pure helpers */

/** The rows in sight and the window to ask for. @param {number} top @param {number} height @param {number} matching */
export function visibleRange(top, height, matching) {
  const first = Math.max(0, Math.min(Math.floor(top / ROW_HEIGHT), matching - 1));
  const last = Math.min(matching, Math.ceil((top + height) / ROW_HEIGHT) + 1);
  const offset = Math.max(0, first - OVERSCAN);
  return { first, last, offset, limit: Math.min(matching, last + OVERSCAN) - offset };
}

/** One line of a text, with control characters made visible. @param {any} value @returns {string} */
export function oneLine(value) {
  if (value === null || value === undefined || value === "") return "";
  const text = String(value);
  const cut = text.length > CELL_CHARACTERS ? `${text.slice(0, CELL_CHARACTERS)}…` : text;
  return cut.replace(/\r?\n/g, " ↵ ").replace(/\0/g, "␀");
}

/** @param {any} value @returns {string} */
export function numberText(value) {
  if (value === null || value === undefined || value === "") return "–";
  if (typeof value !== "number") return String(value);
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "–" : value > 0 ? "∞" : "−∞";
  const size = Math.abs(value);
  const text = Number.isInteger(value) ? String(value) : size >= 1000 ? value.toFixed(1) : size >= 0.001 ? value.toFixed(3) : value.toPrecision(2);
  return text.replace("-", "−");
}

/** What a control's text means for its column. @param {Column} column @param {string} text @returns {{value: any, error: string}} */
export function parseValue(column, text) {
  if (column.kind === "text" || !column.kind) return { value: text, error: "" };
  if (text.trim() === "") return { value: null, error: "" };
  if (column.kind !== "number") return { value: optionOf(column, text), error: "" };
  const value = Number(text.trim().replace("−", "-"));
  return Number.isFinite(value) ? { value, error: "" } : { value: text, error: `“${text.slice(0, 40)}” is not a number` };
}

/** @param {Column} column @param {string} text @returns {any} */
function optionOf(column, text) {
  const known = (column.options || []).find((option) => String(option) === text);
  return known === undefined ? text : known;
}

/** The next state of a clicked header: ascending, descending, as stored. @param {[string, string]|null} sort @param {string} name @returns {[string, string]|null} */
export function nextSort(sort, name) {
  if (!sort || sort[0] !== name) return [name, "asc"];
  return sort[1] === "asc" ? [name, "desc"] : null;
}

/** What became of a text, word by word; without the words in common where both are long. @param {string} before @param {string} after @returns {Change[]} */
export function wordDiff(before, after) {
  const [a, b] = [before, after].map((text) => text.match(/\S+\s*|^\s+/g) || []);
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start++;
  let end = 0;
  while (end < a.length - start && end < b.length - start && a[a.length - 1 - end] === b[b.length - 1 - end]) end++;
  const middle = alignedWords(a.slice(start, a.length - end), b.slice(start, b.length - end));
  return joinedChanges([...same(a.slice(0, start)), ...middle, ...same(a.slice(a.length - end))]);
}

/** @param {string[]} words @returns {Change[]} */
function same(words) {
  return words.map((text) => ({ kind: "same", text }));
}

/** The longest common subsequence of two lists of words. @param {string[]} a @param {string[]} b @returns {Change[]} */
function alignedWords(a, b) {
  if (!a.length || !b.length || a.length > DIFF_WORDS || b.length > DIFF_WORDS) {
    return [{ kind: "gone", text: a.join("") }, { kind: "new", text: b.join("") }];
  }
  const common = commonLengths(a, b);
  /** @type {Change[]} */
  const changes = [];
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    if (i < a.length && a[i] === b[j]) {
      changes.push({ kind: "same", text: a[i++] });
      j++;
    } else if (j >= b.length || (i < a.length && common[i + 1][j] >= common[i][j + 1])) changes.push({ kind: "gone", text: a[i++] });
    else changes.push({ kind: "new", text: b[j++] });
  }
  return changes;
}

/** Entry [i][j]: how many words a[i..] and b[j..] have in common, in order. @param {string[]} a @param {string[]} b @returns {Uint16Array[]} */
function commonLengths(a, b) {
  const table = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      table[i][j] = a[i] === b[j] ? table[i + 1][j + 1] + 1 : Math.max(table[i + 1][j], table[i][j + 1]);
    }
  }
  return table;
}

/** @param {Change[]} changes @returns {Change[]} */
function joinedChanges(changes) {
  /** @type {Change[]} */
  const joined = [];
  for (const { kind, text } of changes) {
    if (!text) continue;
    const last = joined[joined.length - 1];
    if (last && last.kind === kind) last.text += text;
    else joined.push({ kind, text });
  }
  return joined;
}

/** @param {any} value @returns {string} */
function plainText(value) {
  return value === null || value === undefined ? "" : String(value);
}

/** @param {Column} column @returns {string} */
function fullTitle(column) {
  const title = column.title || column.name;
  return column.unit ? `${title} (${column.unit})` : title;
}

/** "auto" follows JupyterLab's theme. @param {string} theme @returns {boolean} */
function isDark(theme) {
  return theme === "dark" || (theme === "auto" && document.body.dataset.jpThemeLight === "false");
}

/** @param {string} tag @param {string} [className] @param {Record<string, string>} [attributes] @param {string} [text] @returns {any} */
function make(tag, className = "", attributes = {}, text = "") {
  const node = document.createElement(tag);
  if (className) node.className = className;
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  // JupyterLab leaves the keys alone that are pressed in such an element.
  if ("tabindex" in attributes || /^(button|input|select)$/.test(tag)) node.setAttribute("data-lm-suppress-shortcuts", "true");
  if (text) node.textContent = text;
  return node;
}

/** @param {EventTarget|null} target @returns {boolean} */
function isTyping(target) {
  return target instanceof HTMLElement && /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName) && target.getAttribute("type") !== "checkbox";
}

/* ------------------------------------------------------------------ outbox */

/** Sends one message at a time, in order; the next leaves when the last is acknowledged. */
export class Outbox {
  /** @param {Model} model @param {() => void} changed */
  constructor(model, changed) {
    this.model = model;
    this.changed = changed;
    /** @type {(Message & {seq: number})[]} */
    this.queue = [];
    this.seq = Number(model.get("acknowledged")) || 0;
    this.flying = 0;
    this.late = false;
    this.timer = 0;
  }

  /** @param {Message} message @returns {number} */
  push(message) {
    this.seq = Math.max(this.seq, Number(this.model.get("acknowledged")) || 0) + 1;
    this.queue.push({ ...message, seq: this.seq });
    this.pump();
    return this.seq;
  }

  pump() {
    if (this.flying || !this.queue.length) return;
    const { trait, body, seq } = this.queue[0];
    this.flying = seq;
    this.timer = window.setTimeout(() => this.waiting(), PATIENCE_MS);
    this.model.set(trait, { seq, ...body });
    this.model.save_changes();
  }

  waiting() {
    this.late = true;
    this.changed();
  }

  /** @param {number} seq */
  acknowledged(seq) {
    if (!this.flying || seq < this.flying) return;
    window.clearTimeout(this.timer);
    this.queue.shift();
    this.flying = 0;
    this.late = false;
    this.pump();
  }
}

/* ------------------------------------------------------------------ editor */

class Editor {
  /** @param {Model} model @param {HTMLElement} el */
  constructor(model, el) {
    this.model = model;
    this.el = el;
    this.id = `wb-${Math.random().toString(36).slice(2)}`;
    this.arrivals = 0;
    /** @type {Map<string, Draft>} */
    this.drafts = new Map();
    /** @type {Map<number, HTMLElement>} */
    this.pool = new Map();
    this.refusal = "";
    this.query = { text: "", filters: {}, sort: null, offset: 0, limit: 80, request: 0, ...(model.get("query") || {}) };
    this.cursor = { offset: 0, column: 0 };
    /** @type {Row|null} */
    this.record = null;
    this.outbox = new Outbox(model, () => this.paintStatus());
    this.abort = new AbortController();
    this.build();
    this.listen();
    this.paint();
    this.ask(true);
  }

  /** @returns {Column[]} */
  get columns() {
    return this.model.get("columns") || [];
  }

  get matching() {
    return Number(this.model.get("matching")) || 0;
  }

  /** @returns {string} */
  get selected() {
    return this.model.get("selected") || "";
  }

  /** @returns {string[]} */
  get checked() {
    return this.model.get("checked") || [];
  }

  /* -- the page */

  build() {
    this.root = make("div", "wb-pair-editor");
    this.bar = this.buildBar();
    this.head = make("div", "wb-row wb-head", { role: "row" });
    this.spacer = make("div", "wb-spacer", { role: "rowgroup" });
    this.note = make("div", "wb-note", { role: "status" });
    this.view = make("div", "wb-view", { role: "grid", tabindex: "0", "aria-label": "Preference pairs", "aria-multiselectable": "true" });
    this.bubble = make("div", "wb-bubble", { role: "alert", id: `${this.id}-refusal` });
    this.bubble.hidden = true;
    this.view.append(this.head, this.spacer);
    const table = make("div", "wb-table");
    table.append(this.view, this.note, this.bubble);
    this.detail = make("section", "wb-detail", { "aria-label": "The selected pair" });
    this.help = this.buildHelp();
    const body = make("div", "wb-body");
    body.append(table, this.detail);
    this.root.append(this.bar, body, this.help);
    this.el.append(this.root);
  }

  buildBar() {
    const bar = make("div", "wb-bar", { role: "toolbar", "aria-label": "Pairs" });
    this.search = make("input", "wb-search", { type: "search", placeholder: "Filter  ( / )", "aria-label": "Filter the pairs", spellcheck: "false" });
    this.search.addEventListener("input", () => this.searchTyped());
    this.search.addEventListener("keydown", (/** @type {KeyboardEvent} */ e) => this.searchKey(e));
    this.clear = make("button", "wb-button wb-clear", { type: "button" }, "Show all");
    this.clear.addEventListener("click", () => this.clearFilters());
    this.filters = make("span", "wb-filters");
    this.count = make("span", "wb-count", { role: "status" });
    this.status = make("span", "wb-status", { role: "status" });
    this.buttons = new Map();
    const group = make("span", "wb-buttons");
    for (const action of ACTIONS) group.append(this.actionButton(action));
    group.append(this.helpButton());
    bar.append(this.search, this.filters, this.clear, this.count, this.status, group);
    return bar;
  }

  /** @param {[string, string, string, string, boolean]} action */
  actionButton([name, glyph, label, key]) {
    const button = make("button", "wb-button", { type: "button", title: `${label} (${key})`, "aria-label": label, "aria-keyshortcuts": key.replace("Ctrl", "Control") });
    button.append(make("span", "wb-glyph", { "aria-hidden": "true" }, glyph), make("span", "wb-label", {}, label));
    button.addEventListener("click", () => this.command(name));
    this.buttons.set(name, button);
    return button;
  }

  helpButton() {
    const button = make("button", "wb-button", { type: "button", title: "Keyboard shortcuts (?)", "aria-label": "Keyboard shortcuts" }, "?");
    button.addEventListener("click", () => this.toggleHelp());
    return button;
  }

  buildHelp() {
    const help = make("div", "wb-help", { role: "dialog", "aria-label": "Keyboard shortcuts", tabindex: "-1" });
    help.hidden = true;
    help.append(make("div", "wb-help-title", {}, "Keyboard"));
    const list = make("dl", "wb-help-list");
    for (const [key, meaning] of SHORTCUTS) {
      const term = make("dt");
      term.append(make("kbd", "", {}, key));
      list.append(term, make("dd", "", {}, meaning));
    }
    help.append(list);
    return help;
  }

  toggleHelp() {
    this.help.hidden = !this.help.hidden;
    (this.help.hidden ? this.view : this.help).focus();
  }

  listen() {
    const options = { signal: this.abort.signal };
    this.view.addEventListener("scroll", () => this.scrolled(), options);
    this.view.addEventListener("keydown", (/** @type {KeyboardEvent} */ e) => this.gridKey(e), options);
    this.root.addEventListener("keydown", (/** @type {KeyboardEvent} */ e) => this.globalKey(e), options);
    this.spacer.addEventListener("click", (/** @type {MouseEvent} */ e) => this.clicked(e), options);
    this.spacer.addEventListener("dblclick", (/** @type {MouseEvent} */ e) => this.doubleClicked(e), options);
    /** @type {[string, () => void][]} */
    this.watchers = [
      ["columns", () => this.paint()], ["theme", () => this.paintTheme()], ["height", () => this.paintTheme()],
      ["rows", () => this.rowsArrived()], ["offset", () => this.rowsArrived()], ["detail", () => this.rowsArrived()],
      ["matching", () => this.sizeChanged()], ["total", () => this.sizeChanged()],
      ["selected", () => this.selectionChanged()], ["checked", () => this.paintSoon()],
      ["acknowledged", () => this.settle()], ["can_undo", () => this.paintStatus()],
      ["can_redo", () => this.paintStatus()], ["busy", () => this.paintStatus()],
    ];
    for (const [name, act] of this.watchers) this.model.on(`change:${name}`, act);
    this.sizes = new ResizeObserver(() => this.scrolled());
    this.sizes.observe(this.view);
    this.themes = new MutationObserver(() => this.paintTheme());
    this.themes.observe(document.body, { attributeFilter: ["data-jp-theme-light"] });
  }

  dispose() {
    this.flush();
    this.abort.abort();
    this.sizes?.disconnect();
    this.themes?.disconnect();
    for (const [name, act] of this.watchers || []) this.model.off(`change:${name}`, act);
    cancelAnimationFrame(this.frame || 0);
    window.clearTimeout(this.asking);
    window.clearTimeout(this.outbox.timer);
    this.root.remove();
  }

  paint() {
    this.paintTheme();
    this.paintHead();
    this.paintFilters();
    this.detailKey = "";
    this.pool.forEach((node) => node.remove());
    this.pool.clear();
    this.paintRows();
    this.paintDetail();
    this.paintStatus();
  }

  /** Several traits of one message are painted once. */
  paintSoon() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.paintRows();
      this.paintDetail();
      this.paintStatus();
      this.paintBubble();
    });
  }

  paintTheme() {
    this.root.dataset.theme = isDark(this.model.get("theme")) ? "dark" : "light";
    this.root.style.height = `${Number(this.model.get("height")) || 620}px`;
  }

  /* -- the table */

  template() {
    const widths = this.columns.map((column) => (column.kind === "text" || !column.kind ? `minmax(${column.width || 160}px, 1fr)` : `${column.width || 96}px`));
    return ["38px", ...widths].join(" ");
  }

  paintHead() {
    this.root.style.setProperty("--wb-columns", this.template());
    const all = make("input", "wb-check", { type: "checkbox", "aria-label": "Check all matching pairs", title: "Check all matching pairs" });
    all.addEventListener("change", () => this.checkAll(all.checked));
    const corner = make("span", "wb-cell wb-corner", { role: "columnheader" });
    corner.append(all);
    this.all = all;
    this.view.setAttribute("aria-colcount", String(this.columns.length + 1));
    this.head.replaceChildren(corner, ...this.columns.map((column) => this.headCell(column)));
  }

  /** @param {Column} column */
  headCell(column) {
    const sort = this.query.sort;
    const direction = sort && sort[0] === column.name ? sort[1] : "";
    const cell = make("span", `wb-cell wb-${column.kind || "text"}`, { role: "columnheader", "aria-sort": direction === "asc" ? "ascending" : direction ? "descending" : "none", "aria-colindex": String(this.columns.indexOf(column) + 2) });
    const button = make("button", "wb-sort", { type: "button", title: `${fullTitle(column)}${column.help ? `: ${column.help}` : ""}. Click to sort` });
    button.append(make("span", "wb-head-text", {}, column.title || column.name), make("span", "wb-arrow", { "aria-hidden": "true" }, direction === "asc" ? "▲" : direction ? "▼" : ""));
    button.addEventListener("click", () => this.sortBy(column.name));
    cell.append(button);
    return cell;
  }

  paintFilters() {
    const listed = this.columns.filter((column) => column.kind === "category" && (column.options || []).length).slice(0, MOST_FILTERS);
    this.filters.replaceChildren(...listed.map((column) => this.filterSelect(column)));
  }

  /** @param {Column} column */
  filterSelect(column) {
    const select = make("select", "wb-filter", { "aria-label": `Filter by ${column.title || column.name}` });
    const options = column.options || [];
    select.append(make("option", "", { value: "" }, `${column.title || column.name}: all`));
    options.forEach((option, i) => select.append(make("option", "", { value: String(i) }, String(option))));
    const at = options.indexOf(/** @type {any} */ (this.query.filters)[column.name]);
    select.value = at < 0 ? "" : String(at);
    select.classList.toggle("wb-on", at >= 0);
    select.addEventListener("change", () => {
      const filters = { ...this.query.filters, [column.name]: options[Number(select.value)] };
      if (select.value === "") delete filters[column.name];
      select.classList.toggle("wb-on", select.value !== "");
      this.restart({ filters });
    });
    return select;
  }

  range() {
    const inner = this.view.clientHeight - ROW_HEIGHT;
    return visibleRange(this.view.scrollTop, Math.max(inner, ROW_HEIGHT), this.matching);
  }

  paintRows() {
    const { first, last } = this.range();
    this.spacer.style.height = `${this.matching * ROW_HEIGHT}px`;
    this.view.setAttribute("aria-rowcount", String(this.matching + 1));
    const loaded = this.loaded();
    for (const [offset, node] of this.pool) {
      if (offset < first || offset >= last) {
        if (this.cell?.node && node.contains(this.cell.node)) continue;
        node.remove();
        this.pool.delete(offset);
      }
    }
    for (let offset = first; offset < last; offset++) this.paintRow(offset, loaded.get(offset));
    this.paintNote();
  }

  /** @returns {Map<number, Row>} */
  loaded() {
    const start = Number(this.model.get("offset")) || 0;
    return new Map((this.model.get("rows") || []).map((/** @type {Row} */ row, /** @type {number} */ i) => [row.offset ?? start + i, row]));
  }

  /** @param {number} offset @param {Row|undefined} row */
  paintRow(offset, row) {
    let node = this.pool.get(offset);
    if (!node) {
      node = make("div", "wb-row", { role: "row", "aria-rowindex": String(offset + 2) });
      node.style.transform = `translateY(${offset * ROW_HEIGHT}px)`;
      node.dataset.offset = String(offset);
      this.pool.set(offset, node);
      this.spacer.append(node);
    }
    if (this.cell && node.contains(this.cell.node)) return;
    const key = row ? JSON.stringify([row.pair_id, this.columns.map((c) => oneLine(this.shownValue(row, c.name))), this.columns.map((c) => this.drafts.get(this.draftKey(row.pair_id, c.name))?.state), row.was]) : "skeleton";
    if (node.dataset.key !== key) this.fillRow(node, row);
    node.dataset.key = key;
    this.markRow(node, offset, row);
  }

  /** @param {HTMLElement} node @param {Row|undefined} row */
  fillRow(node, row) {
    node.dataset.pair = row ? row.pair_id : "";
    const check = make("span", "wb-cell wb-corner", { role: "gridcell" });
    if (row) check.append(make("input", "wb-check", { type: "checkbox", tabindex: "-1", "aria-label": `Check pair ${row.pair_id}` }));
    node.replaceChildren(check, ...this.columns.map((column, i) => (row ? this.bodyCell(column, i, row) : this.skeleton(column))));
  }

  /** @param {Column} column */
  skeleton(column) {
    const cell = make("span", `wb-cell wb-${column.kind || "text"}`, { role: "gridcell" });
    cell.append(make("span", "wb-skeleton"));
    return cell;
  }

  /** @param {Column} column @param {number} index @param {Row} row */
  bodyCell(column, index, row) {
    const value = this.shownValue(row, column.name);
    const numeric = column.kind === "number" || column.kind === "live";
    const cell = make("span", `wb-cell wb-${column.kind || "text"}`, { role: "gridcell", "data-field": column.name, "data-column": String(index), "aria-colindex": String(index + 2), dir: numeric ? "ltr" : "auto" });
    cell.textContent = numeric ? numberText(value) : oneLine(value);
    if (column.kind === "live" && typeof value === "number" && value < 0) cell.classList.add("wb-negative");
    if (numeric && typeof value !== "number") cell.classList.add("wb-missing");
    const draft = this.drafts.get(this.draftKey(row.pair_id, column.name));
    if (draft && draft.state !== "settled") cell.classList.add(draft.state === "refused" ? "wb-refused" : "wb-pending");
    if (draft?.error) {
      cell.title = draft.error;
      cell.setAttribute("aria-invalid", "true");
      cell.setAttribute("aria-errormessage", this.bubble.id);
    } else if (row.was && column.name in row.was) {
      cell.classList.add("wb-changed");
      cell.title = `Changed. It was: ${oneLine(row.was[column.name]) || "empty"}`;
    }
    return cell;
  }

  /** @param {HTMLElement} node @param {number} offset @param {Row|undefined} row */
  markRow(node, offset, row) {
    const selected = Boolean(row && row.pair_id === this.selected);
    node.classList.toggle("wb-selected", selected);
    node.classList.toggle("wb-odd", offset % 2 === 1);
    node.setAttribute("aria-selected", String(selected));
    const check = /** @type {HTMLInputElement|null} */ (node.querySelector(".wb-check"));
    if (check) check.checked = this.checked.includes(row ? row.pair_id : "");
    node.querySelectorAll("[data-column]").forEach((cell, i) => cell.classList.toggle("wb-cursor", selected && i === this.cursor.column));
    if (selected) this.markActive(node.querySelector(".wb-cursor"));
  }

  /** The grid keeps the focus; this is the cell that a screen reader takes for it. @param {Element|null} cell */
  markActive(cell) {
    if (!cell) return;
    if (!cell.id) cell.id = `${this.id}-${(this.cellCount = (this.cellCount || 0) + 1)}`;
    if (this.view.getAttribute("aria-activedescendant") !== cell.id) this.view.setAttribute("aria-activedescendant", cell.id);
  }

  paintNote() {
    const [total, matching] = [Number(this.model.get("total")) || 0, this.matching];
    const empty = matching === 0 && !this.model.get("busy");
    this.note.hidden = !empty;
    this.note.textContent = !empty ? "" : total ? "No pair matches the filter." : "No pairs yet. Press N for a new one, or import a file.";
    this.clear.hidden = !this.query.text && !Object.keys(this.query.filters || {}).length;
    const text = matching === total ? `${total.toLocaleString("en")} pairs` : `${matching.toLocaleString("en")} of ${total.toLocaleString("en")} pairs`;
    const checked = this.checked.length ? ` · ${this.checked.length.toLocaleString("en")} checked` : "";
    if (this.count.textContent !== text + checked) this.count.textContent = text + checked;
    this.all.checked = this.checked.length > 0 && this.checked.length >= matching;
    this.all.indeterminate = this.checked.length > 0 && !this.all.checked;
  }

  scrolled() {
    this.paintRows();
    this.paintBubble();
    this.ask(false);
  }

  /** Ask for the rows in sight and near, unless they are here; while scrolling, every ASK_MS. @param {boolean} now */
  ask(now) {
    const first = now || !this.asked;
    this.forced = this.forced || first;
    if (this.asking && !first) return;
    window.clearTimeout(this.asking);
    this.asking = window.setTimeout(() => this.askNow(), first ? 0 : ASK_MS);
  }

  askNow() {
    this.asking = 0;
    const { first, last, offset, limit } = this.range();
    const loaded = this.loaded();
    const missing = this.matching > 0 && !(loaded.has(Math.max(0, first - AHEAD)) && loaded.has(Math.min(this.matching, last + AHEAD) - 1));
    if (this.forced || missing) this.sendQuery({ offset, limit: Math.max(limit, 2 * OVERSCAN) });
    this.forced = false;
    this.asked = true;
  }

  /** Numbered, so that asking again for the same rows is still a change. @param {Record<string, any>} change */
  sendQuery(change) {
    this.query = { ...this.query, ...change, request: (Number(this.query.request) || 0) + 1 };
    this.model.set("query", { ...this.query });
    this.model.save_changes();
  }

  /** A new order or filter begins at the top. @param {Record<string, any>} change */
  restart(change) {
    this.view.scrollTop = 0;
    this.sendQuery({ ...change, offset: 0 });
  }

  /** @param {KeyboardEvent} event */
  searchKey(event) {
    const away = event.key === "Enter" || event.key === "ArrowDown" || (event.key === "Escape" && !this.search.value);
    if (!away) return;
    event.preventDefault();
    this.view.focus({ preventScroll: true });
  }

  clearFilters() {
    window.clearTimeout(this.typing);
    this.search.value = "";
    this.restart({ text: "", filters: {} });
    this.paintFilters();
    this.search.focus();
  }

  searchTyped() {
    window.clearTimeout(this.typing);
    this.typing = window.setTimeout(() => this.restart({ text: this.search.value }), 150);
  }

  /** @param {string} name */
  sortBy(name) {
    this.restart({ sort: nextSort(/** @type {any} */ (this.query.sort), name) });
    this.paintHead();
    /** @type {HTMLElement|null} */ (this.head.querySelectorAll(".wb-sort")[this.columns.findIndex((c) => c.name === name)])?.focus();
  }

  rowsArrived() {
    this.arrivals++;
    for (const [key, draft] of this.drafts) if (draft.state === "settled") this.drafts.delete(key);
    this.paintSoon();
  }

  sizeChanged() {
    this.paintSoon();
    this.ask(false);
  }

  /* -- selection */

  /** @param {MouseEvent} event */
  clicked(event) {
    const target = /** @type {HTMLElement} */ (event.target);
    const node = /** @type {HTMLElement|null} */ (target.closest(".wb-row"));
    if (!node || !node.dataset.pair || isTyping(target)) return;
    if (target.classList.contains("wb-check")) return this.check(node.dataset.pair, event.shiftKey);
    const cell = /** @type {HTMLElement|null} */ (target.closest("[data-column]"));
    if (cell) this.cursor.column = Number(cell.dataset.column);
    this.select(node.dataset.pair, Number(node.dataset.offset));
    this.view.focus({ preventScroll: true });
  }

  /** @param {string} pair @param {boolean} range */
  check(pair, range) {
    const ids = range && this.lastCheck ? this.between(this.lastCheck, pair) : [pair];
    const adding = !this.checked.includes(pair);
    const kept = this.checked.filter((id) => !ids.includes(id));
    this.lastCheck = pair;
    this.model.set("checked", adding ? [...kept, ...ids] : kept);
    this.model.save_changes();
    this.paintSoon();
  }

  /** The loaded pairs from one to another. @param {string} a @param {string} b @returns {string[]} */
  between(a, b) {
    const ids = [...this.loaded().values()].map((row) => row.pair_id);
    const [i, j] = [ids.indexOf(a), ids.indexOf(b)];
    return i < 0 || j < 0 ? [b] : ids.slice(Math.min(i, j), Math.max(i, j) + 1);
  }

  /** @param {string} pair @param {number} offset */
  select(pair, offset) {
    this.cursor.offset = offset;
    if (pair !== this.selected) {
      this.flush();
      this.model.set("selected", pair);
      this.model.save_changes();
    }
    this.paintSoon();
  }

  selectionChanged() {
    this.flush();
    const row = [...this.loaded().entries()].find(([, each]) => each.pair_id === this.selected);
    if (row) this.cursor.offset = row[0];
    this.paintSoon();
  }

  /** @param {number} offset */
  moveTo(offset) {
    const target = Math.max(0, Math.min(offset, this.matching - 1));
    this.reveal(target);
    this.cursor.offset = target;
    const row = this.loaded().get(target);
    if (row) this.select(row.pair_id, target);
  }

  /** @param {number} offset */
  reveal(offset) {
    const top = offset * ROW_HEIGHT;
    const inner = this.view.clientHeight - ROW_HEIGHT;
    if (top < this.view.scrollTop) this.view.scrollTop = top;
    else if (top + ROW_HEIGHT > this.view.scrollTop + inner) this.view.scrollTop = top + ROW_HEIGHT - inner;
  }

  /* -- keyboard */

  /** @param {KeyboardEvent} event */
  gridKey(event) {
    if (isTyping(event.target) || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target !== this.view && event.key !== "Escape") return;
    const page = Math.max(1, Math.floor(this.view.clientHeight / ROW_HEIGHT) - 2);
    /** @type {Record<string, () => void>} */
    const actions = {
      ArrowDown: () => this.moveTo(this.selected ? this.cursor.offset + 1 : 0), ArrowUp: () => this.moveTo(this.cursor.offset - 1),
      PageDown: () => this.moveTo(this.cursor.offset + page), PageUp: () => this.moveTo(this.cursor.offset - page),
      Home: () => this.moveTo(0), End: () => this.moveTo(this.matching - 1),
      ArrowRight: () => this.moveColumn(1), ArrowLeft: () => this.moveColumn(-1),
      Enter: () => this.editCursor(), F2: () => this.editCursor(), " ": () => this.selected && this.check(this.selected, event.shiftKey),
      Escape: () => this.giveUp(), e: () => this.focusDetail(""), E: () => this.focusDetail(""),
      o: () => this.sortAtCursor(), O: () => this.sortAtCursor(),
    };
    const act = actions[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  /** @param {number} step */
  moveColumn(step) {
    this.cursor.column = Math.max(0, Math.min(this.cursor.column + step, this.columns.length - 1));
    this.revealColumn();
    this.paintSoon();
  }

  revealColumn() {
    const cell = /** @type {HTMLElement|undefined} */ (this.head.children[this.cursor.column + 1]);
    if (!cell) return;
    const [left, right] = [cell.offsetLeft, cell.offsetLeft + cell.offsetWidth];
    if (left < this.view.scrollLeft) this.view.scrollLeft = left;
    else if (right > this.view.scrollLeft + this.view.clientWidth) this.view.scrollLeft = right - this.view.clientWidth;
  }

  sortAtCursor() {
    const column = this.columns[this.cursor.column];
    if (!column) return;
    this.sortBy(column.name);
    this.view.focus({ preventScroll: true });
  }

  /** Forget a refused value: the one at the cursor, else the last one. */
  giveUp() {
    const refused = [...this.drafts].filter(([, draft]) => draft.state === "refused").map(([key]) => key);
    const here = this.draftKey(this.selected, this.columns[this.cursor.column]?.name || "");
    const key = refused.includes(here) ? here : refused[refused.length - 1];
    if (key) this.drafts.delete(key);
    this.refusal = "";
    this.paintSoon();
  }

  /** @param {KeyboardEvent} event */
  globalKey(event) {
    const control = event.ctrlKey || event.metaKey;
    if (event.key === "Escape" && !this.help.hidden) return this.toggleHelp();
    if (isTyping(event.target)) return;
    const key = event.key.toLowerCase();
    const name = control ? { z: event.shiftKey ? "redo" : "undo", y: "redo" }[key] : { s: "swap", f: "flip", d: "duplicate", n: "add", delete: "delete" }[key];
    if (name) this.command(name);
    else if (control && key === "a") this.checkAll(!this.all.checked);
    else if (control) return;
    else if (key === "/") this.search.focus();
    else if (key === "?") this.toggleHelp();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /* -- changes */

  /** @param {Message} message @returns {number} */
  send(message) {
    const seq = this.outbox.push(message);
    this.paintStatus();
    return seq;
  }

  /** @param {string} name */
  command(name) {
    if (this.buttons.get(name)?.disabled) return;
    this.flush();
    const all = !["add", "undo", "redo"].includes(name);
    const targets = all && this.checked.length ? this.checked : this.selected ? [this.selected] : [];
    this.send({ trait: "command", body: { name, pair_ids: name === "undo" || name === "redo" ? [] : [...targets] } });
  }

  /** Only the server knows all the pairs that match. @param {boolean} every */
  checkAll(every) {
    this.send({ trait: "command", body: { name: every ? "check_all" : "check_none", pair_ids: [] } });
  }

  /** @param {string} pair @param {string} field */
  draftKey(pair, field) {
    return JSON.stringify([pair, field]);
  }

  /** The value to show: what the user wrote, else what the server sent. @param {Row} row @param {string} field @returns {any} */
  shownValue(row, field) {
    const draft = this.drafts.get(this.draftKey(row.pair_id, field));
    return draft ? draft.value : row[field];
  }

  /** Keep what was typed, send it after a pause. @param {string} pair @param {Column} column @param {any} value @param {string} [error] */
  type(pair, column, value, error = "") {
    const key = this.draftKey(pair, column.name);
    const old = this.drafts.get(key);
    if (old) window.clearTimeout(old.timer);
    /** @type {Draft} */
    const draft = { value, sent: old?.sent, seq: old?.seq || 0, state: error ? "refused" : "typing", error, timer: 0, arrivals: 0 };
    if (!error) draft.timer = window.setTimeout(() => this.commit(pair, column), IDLE_MS);
    this.drafts.set(key, draft);
    this.paintSoon();
  }

  /** @param {string} pair @param {Column} column */
  commit(pair, column) {
    const draft = this.drafts.get(this.draftKey(pair, column.name));
    if (!draft || draft.state !== "typing") return;
    window.clearTimeout(draft.timer);
    draft.sent = draft.value;
    draft.state = "pending";
    draft.arrivals = this.arrivals;
    draft.seq = this.send({ trait: "edit", body: { pair_id: pair, field: column.name, value: draft.value } });
    this.paintSoon();
  }

  /** Send everything that is still being typed. */
  flush() {
    for (const key of [...this.drafts.keys()]) {
      const [pair, name] = JSON.parse(key);
      const column = this.columns.find((each) => each.name === name);
      if (column) this.commit(pair, column);
    }
  }

  /** The server has answered up to `acknowledged`. */
  settle() {
    const seq = Number(this.model.get("acknowledged")) || 0;
    const refused = this.model.get("rejected_edit") || {};
    for (const [key, draft] of this.drafts) {
      if (draft.state !== "pending" || draft.seq > seq) continue;
      draft.state = refused.seq === draft.seq ? "refused" : "settled";
      // Rows that came since hold the value as the server took it.
      if (draft.state === "settled" && this.arrivals > draft.arrivals) this.drafts.delete(key);
      draft.error = refused.seq === draft.seq ? String(refused.message || "The server refused this edit") : "";
    }
    this.refusal = refused.seq === seq ? String(refused.message || "") : "";
    this.outbox.acknowledged(seq);
    this.paintSoon();
  }

  paintStatus() {
    const waiting = this.outbox.queue.length;
    const text = this.outbox.late ? "Not saved: the server does not answer" : this.refusal ? this.refusal : waiting ? "Saving…" : this.model.get("busy") ? "Working…" : "";
    if (this.status.textContent !== text) this.status.textContent = text;
    this.status.title = text;
    this.status.classList.toggle("wb-bad", Boolean(this.outbox.late || this.refusal));
    const usable = Boolean(this.selected || this.checked.length);
    for (const [name, , , , needs] of ACTIONS) this.buttons.get(name).disabled = needs && !usable;
    this.buttons.get("undo").disabled = !this.model.get("can_undo");
    this.buttons.get("redo").disabled = !this.model.get("can_redo");
    this.view.setAttribute("aria-busy", String(Boolean(this.model.get("busy"))));
  }

  /** The last refusal, at its cell. */
  paintBubble() {
    const refused = [...this.drafts].filter(([, draft]) => draft.state === "refused").pop();
    const cell = refused && !this.cell ? this.cellOf(...JSON.parse(refused[0])) : null;
    this.bubble.hidden = !cell;
    if (!cell || !refused) return;
    const text = `${refused[1].error}. Enter goes on editing, Esc gives it up.`.replace("..", ".");
    if (this.bubble.textContent !== text) this.bubble.textContent = text;
    const [outer, inner] = [this.view.getBoundingClientRect(), cell.getBoundingClientRect()];
    const below = inner.bottom + this.bubble.offsetHeight + 6 < outer.bottom;
    const left = Math.min(inner.left - outer.left, outer.width - this.bubble.offsetWidth - 20);
    this.bubble.style.left = `${Math.max(4, left)}px`;
    this.bubble.style.top = `${(below ? inner.bottom + 4 : inner.top - this.bubble.offsetHeight - 4) - outer.top}px`;
    this.bubble.hidden = inner.top < outer.top || inner.bottom > outer.bottom;
  }

  /** The cell of a pair's field, where it is on the page. @param {string} pair @param {string} field @returns {HTMLElement|null} */
  cellOf(pair, field) {
    const index = this.columns.findIndex((column) => column.name === field);
    const node = [...this.pool.values()].find((each) => each.dataset.pair === pair);
    return node ? node.querySelector(`[data-column="${index}"]`) : null;
  }

  /* -- editing in the table */

  editCursor() {
    const node = this.pool.get(this.cursor.offset);
    const cell = /** @type {HTMLElement|null|undefined} */ (node?.querySelector(`[data-column="${this.cursor.column}"]`));
    if (cell) this.editCell(cell);
  }

  /** @param {MouseEvent} event */
  doubleClicked(event) {
    const cell = /** @type {HTMLElement|null} */ (/** @type {HTMLElement} */ (event.target).closest("[data-column]"));
    if (cell && !isTyping(event.target)) this.editCell(cell);
  }

  /** @param {HTMLElement} node */
  editCell(node) {
    const column = this.columns[Number(node.dataset.column)];
    const offset = Number(/** @type {HTMLElement} */ (node.closest(".wb-row")).dataset.offset);
    const row = this.loaded().get(offset);
    if (!column?.editable || !row) return;
    if ((row.truncated || []).includes(column.name)) return this.focusDetail(column.name);
    const control = this.control(column, this.shownValue(row, column.name));
    control.classList.add("wb-in-cell");
    node.replaceChildren(control);
    node.classList.add("wb-editing");
    node.classList.toggle("wb-upward", (offset + 1) * ROW_HEIGHT - this.view.scrollTop > this.view.clientHeight / 2);
    this.cell = { node, row, column, control, offset };
    control.addEventListener("keydown", (/** @type {KeyboardEvent} */ e) => this.cellKey(e));
    control.addEventListener("blur", () => this.closeCell(true));
    control.focus();
    if (control.select) control.select();
    this.paintBubble();
  }

  /** @param {KeyboardEvent} event */
  cellKey(event) {
    event.stopPropagation();
    if (event.key === "Escape") this.closeCell(false);
    else if (event.key === "Tab") this.closeAndMove(event.shiftKey ? -1 : 1);
    else if (event.key === "Enter" && !event.shiftKey) this.closeCell(true);
    else return;
    event.preventDefault();
    if (event.key !== "Tab") this.view.focus({ preventScroll: true });
  }

  /** @param {number} step */
  closeAndMove(step) {
    this.closeCell(true);
    this.view.focus({ preventScroll: true });
    const next = this.cursor.column + step;
    if (next >= 0 && next < this.columns.length) return this.moveColumn(step);
    this.cursor.column = step > 0 ? 0 : this.columns.length - 1;
    this.moveTo(this.cursor.offset + step);
    this.revealColumn();
  }

  /** @param {boolean} keep */
  closeCell(keep) {
    const cell = this.cell;
    if (!cell) return;
    this.cell = undefined;
    const { value, error } = parseValue(cell.column, cell.control.value);
    const node = this.pool.get(cell.offset);
    if (node) node.dataset.key = "";
    if (keep && value !== (this.shownValue(cell.row, cell.column.name) ?? (cell.column.kind === "text" ? "" : null))) {
      this.type(cell.row.pair_id, cell.column, value, error);
      this.commit(cell.row.pair_id, cell.column);
    }
    this.paintRows();
    this.paintDetail();
    this.paintBubble();
  }

  /** The control for a column's values. @param {Column} column @param {any} value @returns {any} */
  control(column, value) {
    const label = { "aria-label": column.title || column.name };
    const text = value === null || value === undefined ? "" : String(value);
    if (column.kind === "category" && column.options?.length) return this.chooser(column, text, label);
    const multi = column.kind === "text" || !column.kind;
    const control = multi ? make("textarea", "wb-text", { ...label, dir: "auto", rows: "3" }) : make("input", "wb-input", { ...label, type: "text", inputmode: column.kind === "number" ? "decimal" : "text" });
    control.value = text;
    return control;
  }

  /** @param {Column} column @param {string} text @param {Record<string, string>} label */
  chooser(column, text, label) {
    const select = make("select", "wb-input", label);
    const known = (column.options || []).map(String);
    for (const option of ["", ...known, ...(text && !known.includes(text) ? [text] : [])]) select.append(make("option", "", { value: option }, option || "–"));
    select.value = text;
    return select;
  }

  /* -- the detail editor */

  /** The selected pair in full: `detail` when it is this pair, else its row. @returns {Row|null} */
  current() {
    const detail = this.model.get("detail");
    if (detail && detail.pair_id === this.selected) return (this.record = detail);
    const row = (this.model.get("rows") || []).find((/** @type {Row} */ each) => each.pair_id === this.selected);
    if (row) return (this.record = row);
    return this.record && this.record.pair_id === this.selected ? this.record : null;
  }

  paintDetail() {
    const row = this.selected ? this.current() : null;
    const key = row ? JSON.stringify([row.pair_id, this.columns]) : "";
    if (key !== this.detailKey || !this.detail.firstChild) this.buildDetail(row);
    this.detailKey = key;
    if (row) for (const field of this.fields || []) this.refreshField(field, row);
  }

  /** @param {Row|null} row */
  buildDetail(row) {
    /** @type {Field[]} */
    this.fields = [];
    if (!row) {
      this.detail.replaceChildren(make("p", "wb-hint", {}, "Select a pair to read and edit it in full."));
      return;
    }
    const texts = make("div", "wb-texts");
    const small = make("div", "wb-fields");
    for (const column of this.columns) (column.kind === "text" || !column.kind ? texts : small).append(this.buildField(column, row));
    const title = make("div", "wb-detail-title");
    title.append(make("span", "", {}, "Pair "), make("bdi", "wb-id", {}, oneLine(row.pair_id)));
    this.detail.replaceChildren(title, texts, small);
  }

  /** @param {Column} column @param {Row} row */
  buildField(column, row) {
    const box = make("div", `wb-field wb-field-${column.kind || "text"}`);
    const control = column.editable ? this.control(column, "") : make("output", "wb-output", { dir: "auto", "aria-label": fullTitle(column) });
    const message = make("span", "wb-message", { role: "status" });
    const head = make("span", "wb-field-head");
    const diff = make("div", "wb-diff");
    control.id = `${this.id}-field-${this.columns.indexOf(column)}`;
    head.append(make("label", "wb-field-name", { for: control.id }, fullTitle(column)), message);
    box.append(head, control, diff);
    control.dataset.field = column.name;
    if (column.editable) this.wireField(column, control, row.pair_id);
    /** @type {any[]} */ (this.fields).push({ column, control, message, box, diff });
    return box;
  }

  /** @param {Column} column @param {any} control @param {string} pair */
  wireField(column, control, pair) {
    const read = () => {
      const { value, error } = parseValue(column, control.value);
      this.type(pair, column, value, error);
      this.refusal = "";
    };
    control.addEventListener("input", read);
    control.addEventListener("blur", () => this.commit(pair, column));
    if (control.tagName === "SELECT") control.addEventListener("change", () => this.commit(pair, column));
    control.addEventListener("keydown", (/** @type {KeyboardEvent} */ e) => {
      if (e.key === "Enter" && (e.ctrlKey || e.metaKey || control.tagName === "INPUT")) this.commit(pair, column);
      if (e.key === "Escape") this.leaveField(pair, column);
    });
  }

  /** Esc gives up a refused value and goes back to the table. @param {string} pair @param {Column} column */
  leaveField(pair, column) {
    const key = this.draftKey(pair, column.name);
    if (this.drafts.get(key)?.state === "refused") this.drafts.delete(key);
    this.refusal = "";
    this.view.focus({ preventScroll: true });
    this.paintSoon();
  }

  /** Never overwrites what is being typed: a draft is what is shown. @param {Field} field @param {Row} row */
  refreshField({ column, control, message, box, diff }, row) {
    const draft = this.drafts.get(this.draftKey(row.pair_id, column.name));
    const partial = (row.truncated || []).includes(column.name);
    const value = draft ? draft.value : row[column.name];
    const text = value === null || value === undefined ? "" : String(value);
    if (!column.editable) control.textContent = column.kind === "text" ? text.replace(/\0/g, "␀") : numberOrText(column, value);
    else if (control.value !== text && !(draft && draft.state !== "settled" && this.focused() === control)) this.setControl(column, control, text);
    if (column.editable) control.disabled = partial;
    message.textContent = draft?.error || (partial ? "Loading the whole text…" : draft && draft.state === "pending" ? "saving…" : draft && draft.state === "typing" ? "not sent yet" : "");
    box.classList.toggle("wb-bad", Boolean(draft?.error));
    control.setAttribute("aria-invalid", String(Boolean(draft?.error)));
    this.paintDiff(diff, column, row, value);
  }

  /** @returns {Element|null} */
  focused() {
    return /** @type {Document|ShadowRoot} */ (this.root.getRootNode()).activeElement;
  }

  /** What the field was, and how to have it back. @param {HTMLElement} node @param {Column} column @param {Row} row @param {any} value */
  paintDiff(node, column, row, value) {
    const was = row.was && column.name in row.was ? row.was[column.name] : value;
    const [before, after] = [plainText(was), plainText(value)];
    const key = before === after ? "" : `${before}\u0000${after}`;
    if (node.dataset.key === key) return;
    node.dataset.key = key;
    if (!key) return node.replaceChildren();
    const text = make("bdi", "wb-diff-text", { role: "group", "aria-label": `Changed; it was ${oneLine(was) || "empty"}` });
    text.append(...this.diffParts(column, before, after));
    const button = make("button", "wb-button wb-back", { type: "button", title: "Put the earlier value back" }, "Put back");
    button.addEventListener("click", () => this.putBack(row.pair_id, column, was));
    node.replaceChildren(text, ...(column.editable ? [button] : []));
  }

  /** @param {Column} column @param {string} before @param {string} after @returns {HTMLElement[]} */
  diffParts(column, before, after) {
    const short = (column.kind || "text") !== "text";
    /** @type {Change[]} */
    const changes = short ? [{ kind: "gone", text: before || "empty" }, { kind: "new", text: after || "empty" }] : wordDiff(before, after);
    const tags = { same: "span", gone: "del", new: "ins" };
    return changes.map(({ kind, text }) => make(tags[kind], "", {}, text.length > 2000 ? `${text.slice(0, 2000)}…` : text));
  }

  /** @param {string} pair @param {Column} column @param {any} was */
  putBack(pair, column, was) {
    this.type(pair, column, was ?? (column.kind === "text" || !column.kind ? "" : null));
    this.commit(pair, column);
    this.focusDetail(column.name);
  }

  /** @param {Column} column @param {any} control @param {string} text */
  setControl(column, control, text) {
    if (control.tagName === "SELECT" && ![...control.options].some((o) => o.value === text)) control.append(make("option", "", { value: text }, text));
    const [start, end] = [control.selectionStart, control.selectionEnd];
    control.value = text;
    if (this.focused() === control && control.setSelectionRange) control.setSelectionRange(Math.min(start, text.length), Math.min(end, text.length));
  }

  /** The named field, or the one of the cursor's column; the first that can be edited else. @param {string} name */
  focusDetail(name) {
    const editable = (this.fields || []).filter((field) => field.column.editable);
    const wanted = name || this.columns[this.cursor.column]?.name;
    (editable.find((field) => field.column.name === wanted) || editable[0])?.control.focus();
  }
}

/** @param {Column} column @param {any} value @returns {string} */
function numberOrText(column, value) {
  return column.kind === "category" ? oneLine(value) : numberText(value);
}

/** @param {{model: Model, el: HTMLElement}} context @returns {() => void} */
function render({ model, el }) {
  const editor = new Editor(model, el);
  return () => editor.dispose();
}

export default { render };
