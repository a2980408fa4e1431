// @ts-check
/**
 * Saves a file that the server sends over the page's own connection.
 *
 * No route of the server is needed for it, so nothing can be asked for by a guessed address.
 */

/** @param {{ model: any }} context */
function render({ model }) {
  const save = () => {
    const file = model.get("file");
    if (!file.seq) return;
    const url = URL.createObjectURL(new Blob([model.get("content")], { type: file.mime }));
    const link = document.createElement("a");
    link.href = url;
    link.download = file.name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  };
  // The content may be set a moment after the name, in the same message.
  const soon = () => setTimeout(save, 0);
  model.on("change:file", soon);
  return () => model.off("change:file", soon);
}

export default { render };
