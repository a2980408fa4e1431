// @ts-check
/**
 * A Plotly figure, drawn by the plotly.js that the server reads from the plotly package.
 *
 * The script is fetched with the first figure and once a page, so that pages without such a figure
 * do not wait for it.
 */

const SCRIPT = "plotly/plotly.min.js";
/** @type {Promise<any> | undefined} */
let loading;

/** @returns {Promise<any>} Plotly. */
function plotly() {
  loading ??= new Promise((done, fail) => {
    const script = document.createElement("script");
    script.src = new URL(SCRIPT, document.baseURI).href;
    script.onload = () => done(/** @type {any} */ (window).Plotly);
    script.onerror = () => {
      loading = undefined;
      fail(new Error("plotly.js could not be read from the server; reload the page."));
    };
    document.head.append(script);
  });
  return loading;
}

/** @param {string} text @param {number} most @returns {string[]} Lines of at most so many characters. */
export function wrapped(text, most) {
  /** @type {string[]} */
  const lines = [];
  for (const word of text.split(" ")) {
    const last = lines.length - 1;
    if (last >= 0 && lines[last].length + word.length < most) lines[last] += ` ${word}`;
    else lines.push(word);
  }
  return lines;
}

/**
 * The layout for a box of this width: titles broken into lines, the legend below the axis title.
 *
 * Plotly cuts long titles off, and places a legend by shares of the height.
 *
 * @param {any[]} data @param {any} layout @param {number} width @param {number} height
 */
export function fitted(data, layout, width, height) {
  const title = wrapped(layout.title?.text || "", width / 9.5);
  const across = wrapped(layout.xaxis?.title?.text || "", (width - 110) / 7.5);
  const names = data.filter((trace) => trace.name && trace.showlegend !== false).map((trace) => trace.name.length);
  const shown = names.length > 1 || layout.showlegend === true;
  const room = width - 110;
  const widest = 7 * Math.max(0, ...names) + 52;
  const whole = names.reduce((sum, length) => sum + 7 * length + 52, 0);
  const rows = !shown ? 0 : whole <= room ? 1 : Math.ceil(names.length / Math.max(1, Math.floor(room / widest)));
  const [top, axis] = [26 + 19 * title.length, 42 + 18 * across.length];
  const below = axis + 19 * rows + 14;
  const up = wrapped(layout.yaxis?.title?.text || "", (height - top - below) / 7.8);
  return {
    ...layout,
    height,
    autosize: true,
    title: { ...layout.title, text: title.join("<br>"), font: { size: 16, ...layout.title?.font }, y: 1 - 14 / height, yanchor: "top" },
    xaxis: { ...layout.xaxis, title: { ...layout.xaxis?.title, text: across.join("<br>") } },
    yaxis: { ...layout.yaxis, title: { ...layout.yaxis?.title, text: up.join("<br>") } },
    margin: { ...layout.margin, t: top, b: below },
    legend: { ...layout.legend, y: -axis / Math.max(60, height - top - below), yanchor: "top" },
    // What the reader zoomed into stays when the numbers change.
    uirevision: "kept",
  };
}

/**
 * Plotly puts its style into the head of the document, where no shadow root sees it.
 *
 * @param {HTMLElement} box
 */
function style(box) {
  const root = box.getRootNode();
  if (!(root instanceof ShadowRoot) || root.querySelector("style.plotly-style")) return;
  const sheets = [...document.head.querySelectorAll("style")].filter((node) => node.id.startsWith("plotly.js-style"));
  const rules = sheets.flatMap((node) => [...(node.sheet?.cssRules || [])].map((rule) => rule.cssText));
  const own = document.createElement("style");
  own.className = "plotly-style";
  own.textContent = rules.join("\n");
  root.append(own);
}

/** @param {{ model: any, el: HTMLElement }} context */
function render({ model, el }) {
  const box = document.createElement("div");
  box.className = "study-figure";
  el.append(box);
  let gone = false;
  let wanted = 0;

  const draw = async () => {
    const turn = ++wanted;
    const { data, layout, seq } = model.get("figure");
    if (!data) return;
    try {
      const Plotly = await plotly();
      style(box);
      if (gone || turn !== wanted) return;
      const size = fitted(data, layout, el.clientWidth || 700, model.get("tall"));
      const config = { displaylogo: false, displayModeBar: false };
      await Plotly.react(box, data, size, config);
      box.dataset.drawn = String(seq);
    } catch (error) {
      box.textContent = error instanceof Error ? error.message : String(error);
    }
  };

  let wide = 0;
  const fit = new ResizeObserver(() => {
    if (gone || !box.dataset.drawn || !el.clientWidth || el.clientWidth === wide) return;
    wide = el.clientWidth;
    draw();
  });
  fit.observe(el);
  model.on("change:figure", draw);
  draw();
  return () => {
    gone = true;
    fit.disconnect();
    model.off("change:figure", draw);
    /** @type {any} */ (window).Plotly?.purge(box);
  };
}

export default { render };
