// @ts-check
/**
 * A small table that is edited in place, one window of rows at a time.
 *
 * An edit names its column and the row's number in the whole table. Cells and names reach the page
 * through textContent and value only.
 */

/** @param {string} tag @param {Record<string, string>} [attributes] @param {string} [text] @returns {any} */
function make(tag, attributes = {}, text = "") {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text) node.textContent = text;
  return node;
}

/** @param {unknown} cell @returns {string} */
function shown(cell) {
  return cell === null || cell === undefined ? "" : String(cell);
}

/** @param {{ model: any, el: HTMLElement }} context */
function render({ model, el }) {
  let seq = 0;
  const root = make("div", { class: "grid" });
  const table = make("table");
  const bar = make("div", { class: "bar" });
  const words = make("span", { role: "status" });
  const refusal = make("div", { class: "refusal", role: "alert" });
  root.append(bar, refusal, table);
  el.append(root);

  const send = (/** @type {Record<string, unknown>} */ request) => {
    seq += 1;
    model.set("request", { seq, ...request });
    model.save_changes();
  };
  const button = (/** @type {string} */ label, /** @type {() => void} */ act) => {
    const made = make("button", { type: "button" }, label);
    made.addEventListener("click", act);
    return made;
  };
  const move = (/** @type {number} */ by) => send({ name: "go", offset: model.get("page").offset + by });
  const back = button("◀", () => move(-model.get("page").size));
  const on = button("▶", () => move(model.get("page").size));
  back.setAttribute("aria-label", "Rows before");
  on.setAttribute("aria-label", "Rows after");
  bar.append(back, words, on, button("Add a row", () => send({ name: "add" })));

  const cell = (/** @type {string} */ column, /** @type {number} */ row, /** @type {unknown} */ value) => {
    const field = make("input", { "aria-label": `${column}, row ${row + 1}`, spellcheck: "false" });
    field.value = shown(value);
    field.addEventListener("change", () => send({ name: "edit", column, row, text: field.value }));
    field.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      if (event.key === "Escape") field.value = shown(value);
    });
    const box = make("td");
    box.append(field);
    return box;
  };
  const line = (/** @type {string[]} */ names, /** @type {unknown[]} */ values, /** @type {number} */ row) => {
    const made = make("tr");
    made.append(make("th", { scope: "row" }, String(row + 1)));
    made.append(...names.map((name, place) => cell(name, row, values[place])));
    const end = make("td");
    const drop = button("✕", () => send({ name: "delete", row }));
    drop.setAttribute("aria-label", `Delete row ${row + 1}`);
    end.append(drop);
    made.append(end);
    return made;
  };
  const paint = () => {
    const page = model.get("page");
    root.dataset.theme = model.get("theme");
    const head = make("tr");
    head.append(make("th"), ...page.names.map((/** @type {string} */ name) => make("th", { scope: "col" }, name)), make("th"));
    const top = make("thead");
    top.append(head);
    const body = make("tbody");
    body.append(...page.rows.map((/** @type {unknown[]} */ values, /** @type {number} */ i) => line(page.names, values, page.offset + i)));
    table.replaceChildren(top, body);
    const last = page.offset + page.rows.length;
    words.textContent = page.total ? `rows ${page.offset + 1} to ${last} of ${page.total}` : "no rows";
    back.disabled = page.offset === 0;
    on.disabled = last >= page.total;
    refusal.textContent = page.refusal;
  };
  model.on("change:page", paint);
  model.on("change:theme", paint);
  paint();
  return () => {
    model.off("change:page", paint);
    model.off("change:theme", paint);
  };
}

export default { render };
