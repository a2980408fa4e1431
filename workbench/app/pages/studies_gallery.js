// @ts-check
/**
 * The studies as cards: search, filters by family and tag, and the keyboard.
 *
 * Everything that a study says of itself reaches the page through textContent only.
 */

/** @typedef {{slug: string, title: string, paper: string, authors: string, family: string, tags: string[], badge: string, sign: string, question: string, origin: string}} Card */
/** @typedef {{slug: string, origin: string, error: string}} Failure */

const MEANING = {
  passed: "Every gated claim held when the study was last checked here",
  failed: "A gated claim failed when the study was last checked here",
  "not checked": "The study has run here, but its claims were not checked over several seeds since its sources last changed",
  "never run": "The study has not run here yet",
};

/** @param {string} tag @param {string} [className] @param {string} [text] @returns {HTMLElement} */
function make(tag, className = "", text = "") {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text) node.textContent = text;
  return node;
}

/** @param {Card} card @returns {string} What the search looks at. */
export function searchable(card) {
  const parts = [card.title, card.paper, card.authors, card.family, card.question, card.slug, ...card.tags];
  return parts.join("\n").toLocaleLowerCase();
}

/** @param {Card[]} cards @param {{words: string, family: string, tag: string, badge: string}} wanted @returns {Card[]} */
export function matching(cards, wanted) {
  const words = wanted.words.toLocaleLowerCase().split(/\s+/).filter(Boolean);
  return cards.filter(
    (card) =>
      (!wanted.family || card.family === wanted.family) &&
      (!wanted.tag || card.tags.includes(wanted.tag)) &&
      (!wanted.badge || card.badge === wanted.badge) &&
      words.every((word) => searchable(card).includes(word)),
  );
}

/** @param {string[]} names @returns {string[]} Each once, in order. */
export function distinct(names) {
  return [...new Set(names)].sort((a, b) => a.localeCompare(b));
}

class Gallery {
  /** @param {any} model @param {HTMLElement} el */
  constructor(model, el) {
    this.model = model;
    this.seq = 0;
    this.root = make("div", "gallery");
    this.search = /** @type {HTMLInputElement} */ (make("input"));
    this.search.type = "search";
    this.search.placeholder = "Search titles, papers, authors, tags …   ( / )";
    this.search.setAttribute("aria-label", "Search studies");
    this.family = this.select("Family");
    this.tag = this.select("Tag");
    this.badge = this.select("Verdict");
    this.count = make("span", "count");
    this.count.setAttribute("role", "status");
    const bar = make("div", "bar");
    bar.append(this.search, this.family, this.tag, this.badge, this.count);
    this.list = make("ul", "cards");
    this.list.setAttribute("aria-label", "Studies");
    this.empty = make("div", "empty");
    this.failures = make("section", "failures");
    this.root.append(bar, this.empty, this.list, this.failures);
    el.append(this.root);
    this.listen();
    this.refill();
  }

  /** @param {string} label @returns {HTMLSelectElement} */
  select(label) {
    const node = /** @type {HTMLSelectElement} */ (make("select"));
    node.setAttribute("aria-label", label);
    node.dataset.label = label;
    return node;
  }

  listen() {
    this.abort = new AbortController();
    const options = { signal: this.abort.signal };
    this.search.addEventListener("input", () => this.paint(), options);
    for (const node of [this.family, this.tag, this.badge]) node.addEventListener("change", () => this.paint(), options);
    this.search.addEventListener("keydown", (event) => this.searchKey(event), options);
    this.list.addEventListener("keydown", (event) => this.cardKey(event), options);
    this.list.addEventListener("click", (event) => this.clicked(event), options);
    document.addEventListener("keydown", (event) => this.pageKey(event), options);
    this.refilled = () => this.refill();
    for (const name of ["cards", "failures", "note", "theme"]) this.model.on(`change:${name}`, this.refilled);
  }

  dispose() {
    this.abort?.abort();
    for (const name of ["cards", "failures", "note", "theme"]) this.model.off(`change:${name}`, this.refilled);
    this.root.remove();
  }

  refill() {
    this.root.dataset.theme = this.model.get("theme");
    /** @type {Card[]} */
    const cards = this.model.get("cards");
    this.options(this.family, distinct(cards.map((card) => card.family)));
    this.options(this.tag, distinct(cards.flatMap((card) => card.tags)));
    this.options(this.badge, distinct(cards.map((card) => card.badge)));
    this.paintFailures();
    this.paint();
  }

  /** @param {HTMLSelectElement} node @param {string[]} names */
  options(node, names) {
    const before = node.value;
    const all = /** @type {HTMLOptionElement} */ (make("option", "", `${node.dataset.label}: all`));
    all.value = "";
    node.replaceChildren(all, ...names.map((name) => make("option", "", name)));
    node.value = names.includes(before) ? before : "";
  }

  paint() {
    /** @type {Card[]} */
    const cards = this.model.get("cards");
    const wanted = { words: this.search.value, family: this.family.value, tag: this.tag.value, badge: this.badge.value };
    const found = matching(cards, wanted);
    this.list.replaceChildren(...found.map((card) => this.card(card)));
    this.count.textContent = cards.length ? `${found.length} of ${cards.length} studies` : "";
    this.paintEmpty(found.length > 0, cards.length > 0);
    const first = this.buttons()[0];
    if (first) first.tabIndex = 0;
  }

  /** @param {boolean} any @param {boolean} some */
  paintEmpty(any, some) {
    this.empty.hidden = any;
    if (any) return;
    const note = this.model.get("note");
    this.empty.replaceChildren(make("p", "", note || (some ? "No study matches the search and the filters." : "There are no studies.")));
    if (!some || note) return;
    const clear = make("button", "clear", "Show all studies");
    clear.addEventListener("click", () => this.clear());
    this.empty.append(clear);
  }

  clear() {
    this.search.value = "";
    for (const node of [this.family, this.tag, this.badge]) node.value = "";
    this.paint();
    this.search.focus();
  }

  /** @param {Card} card @returns {HTMLElement} */
  card(card) {
    const item = make("li");
    const button = make("button", "card");
    button.dataset.slug = card.slug;
    button.tabIndex = -1;
    const head = make("span", "head");
    const badge = make("span", `badge ${card.badge.replace(" ", "-")}`, `${card.sign} ${card.badge}`);
    badge.title = MEANING[card.badge] || "";
    head.append(make("span", "family", card.family), badge);
    const tags = make("span", "tags");
    tags.append(...card.tags.map((tag) => make("span", "tag", tag)));
    button.append(head, make("span", "title", card.title), make("span", "paper", card.paper), make("span", "authors", card.authors), tags);
    if (card.origin !== "workbench") button.append(make("span", "origin", `from ${card.origin}`));
    item.append(button);
    return item;
  }

  paintFailures() {
    /** @type {Failure[]} */
    const failures = this.model.get("failures");
    this.failures.hidden = !failures.length;
    const rows = failures.map((failure) => {
      const row = make("li", "failure");
      row.append(make("strong", "", failure.slug), make("span", "origin", ` from ${failure.origin}: `), make("span", "why", failure.error));
      return row;
    });
    const list = make("ul");
    list.append(...rows);
    this.failures.replaceChildren(make("h3", "", "Studies that could not be loaded"), list);
  }

  /** @returns {HTMLButtonElement[]} */
  buttons() {
    return [...this.list.querySelectorAll("button")];
  }

  /** @param {Event} event */
  clicked(event) {
    const button = /** @type {HTMLElement} */ (event.target).closest("button");
    if (!button) return;
    this.seq += 1;
    this.model.set("opened", { seq: this.seq, slug: button.dataset.slug });
    this.model.save_changes();
  }

  /** @param {KeyboardEvent} event */
  searchKey(event) {
    if (event.key === "Escape" && this.search.value) {
      event.preventDefault();
      this.clear();
    }
    if (event.key !== "ArrowDown") return;
    event.preventDefault();
    this.focus(0);
  }

  /** @param {KeyboardEvent} event */
  cardKey(event) {
    const buttons = this.buttons();
    const place = buttons.indexOf(/** @type {HTMLButtonElement} */ (event.target));
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: this.across(), ArrowUp: -this.across(), Home: -place, End: buttons.length - 1 - place };
    if (place < 0 || !(event.key in steps)) return;
    event.preventDefault();
    const next = place + steps[event.key];
    if (event.key === "ArrowUp" && next < 0) this.search.focus();
    else this.focus(Math.max(0, Math.min(buttons.length - 1, next)));
  }

  /** @returns {number} Cards in one line. */
  across() {
    const tops = this.buttons().map((button) => button.getBoundingClientRect().top);
    return Math.max(1, tops.filter((top) => Math.abs(top - tops[0]) < 2).length);
  }

  /** @param {number} place */
  focus(place) {
    const buttons = this.buttons();
    for (const [i, button] of buttons.entries()) button.tabIndex = i === place ? 0 : -1;
    buttons[place]?.focus();
  }

  /** @param {KeyboardEvent} event */
  pageKey(event) {
    const target = /** @type {HTMLElement} */ (event.composedPath()[0]);
    const writing = target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName);
    if (event.key !== "/" || event.defaultPrevented || writing || !this.root.offsetParent) return;
    event.preventDefault();
    this.search.focus();
  }
}

/** @param {{ model: any, el: HTMLElement }} context */
function render({ model, el }) {
  const gallery = new Gallery(model, el);
  return () => gallery.dispose();
}

export default { render };
