// @ts-check
/** A text to copy, for example a BibTeX entry, with a button that does it. */

/** @param {{ model: any, el: HTMLElement }} context */
function render({ model, el }) {
  const text = document.createElement("pre");
  text.tabIndex = 0;
  text.textContent = model.get("words");
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = model.get("label");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(model.get("words"));
      button.textContent = "Copied";
    } catch {
      // A page that is not served securely has no clipboard: the reader copies the selection.
      getSelection()?.selectAllChildren(text);
      button.textContent = "Selected; press Ctrl+C";
    }
    setTimeout(() => (button.textContent = model.get("label")), 2500);
  });
  el.append(button, text);
  return () => el.replaceChildren();
}

export default { render };
