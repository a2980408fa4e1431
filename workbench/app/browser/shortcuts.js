// @ts-check
/**
 * Keyboard shortcuts of the whole page.
 *
 * A key that is being typed into a field, or that a widget has used already, is left alone.
 */

/** @param {KeyboardEvent} event @returns {boolean} Whether somebody is writing. */
function writing(event) {
  const target = /** @type {HTMLElement} */ (event.composedPath()[0]);
  if (target.isContentEditable) return true;
  if (target instanceof HTMLInputElement) {
    return !["checkbox", "radio", "range", "button"].includes(target.type);
  }
  return target instanceof HTMLTextAreaElement || target instanceof HTMLSelectElement;
}

/** A space presses the button that has the focus; on a tab it has nothing to press. @param {KeyboardEvent} event @returns {boolean} */
function pressing(event) {
  const target = /** @type {Element} */ (event.composedPath()[0]);
  return event.key === " " && target.matches("button:not([role=tab]), a, input:not([type=range]), [role=combobox], [role=button], [role=menuitem], [role=option]");
}

/** @param {KeyboardEvent} event @returns {string} Such as "1", "?", "Ctrl+z" or "Ctrl+Shift+z". */
function nameOf(event) {
  const control = event.ctrlKey || event.metaKey;
  if (!control) return event.altKey ? "" : event.key;
  return `Ctrl+${event.shiftKey ? "Shift+" : ""}${event.key.toLowerCase()}`;
}

/** @param {{ model: any }} context */
function render({ model }) {
  let seq = 0;
  const press = (/** @type {KeyboardEvent} */ event) => {
    const key = nameOf(event);
    if (event.defaultPrevented || writing(event) || pressing(event) || !model.get("keys").includes(key)) return;
    event.preventDefault();
    seq += 1;
    model.set("pressed", { seq, key });
    model.save_changes();
  };
  document.addEventListener("keydown", press);
  return () => document.removeEventListener("keydown", press);
}

export default { render };
