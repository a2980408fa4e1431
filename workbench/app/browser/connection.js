// @ts-check
/**
 * Says when the page has lost its server, and reconnects to the stored session.
 *
 * After a restart of the server a page looks alive and is dead. This module asks the server for
 * its run's name; while it does not answer the page is covered, and when another run answers the
 * page loads itself again. The address holds the session, so nothing is lost.
 */

const PERIOD_MS = 2000;

/** @param {string} text @returns {HTMLElement} */
function cover(text) {
  const box = document.createElement("div");
  box.setAttribute("role", "alertdialog");
  box.setAttribute("aria-live", "assertive");
  box.id = "workbench-connection";
  box.textContent = text;
  Object.assign(box.style, {
    position: "fixed", inset: "0", zIndex: "5000", display: "flex", alignItems: "center",
    justifyContent: "center", padding: "2rem", textAlign: "center", whiteSpace: "pre-line",
    font: "500 18px/1.5 system-ui, sans-serif", color: "#ffffff", background: "rgba(16, 22, 30, 0.86)",
  });
  document.body.append(box);
  return box;
}

/** @returns {Promise<string | null>} The run's name, or null while the server does not answer. */
async function askRun() {
  try {
    const answer = await fetch(new URL("alive", document.baseURI), { cache: "no-store" });
    return answer.ok ? (await answer.json()).run : null;
  } catch {
    return null;
  }
}

/** @param {{ model: { get(name: string): any } }} context */
function render({ model }) {
  const run = model.get("run");
  /** @type {HTMLElement | null} */
  let shown = null;
  const look = async () => {
    const answer = await askRun();
    if (answer !== null && answer !== run) {
      window.location.reload();
    } else if (answer === null) {
      shown ??= cover("The workbench's server does not answer.\n"
        + "Everything you changed is saved. This page reconnects by itself once the server is back.");
    } else {
      shown?.remove();
      shown = null;
    }
  };
  const timer = setInterval(look, PERIOD_MS);
  return () => clearInterval(timer);
}

export default { render };
