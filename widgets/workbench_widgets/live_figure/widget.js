// @ts-check
/**
 * A canvas figure fed by one binary buffer: axes, hover, selection, zoom and legend.
 *
 * The server writes `spec` (what to draw), `columns` (where each column lies in `buffer`) and
 * `generation`; the figure answers with `selection` and marks the finished paint on
 * `el.dataset.painted`. Only model.get/set/save_changes/on/off are used, so the same file runs
 * under anywidget and under Panel. Text reaches the page through textContent or the canvas only.
 */

/** @typedef {string|{light: string, dark: string}} Colour */
/** @typedef {{dtype: "float32"|"float64"|"int32", offset: number, length: number}} Column */
/** `names` are those of the places 1, 2, 3, ... */
/** @typedef {{label?: string, unit?: string, scale?: "linear"|"log", range?: (number|null)[]|null, names?: string[]}} Axis */
/** @typedef {{label: string, column: string, unit?: string}} TooltipLine */
/**
 * @typedef {object} Layer
 * @property {"points"|"line"|"bars"|"band"|"rule"} kind
 * @property {string|number} [x]
 * @property {string|number} [y]
 * @property {string} [x0] @property {string} [x1] @property {string} [height]
 * @property {string} [y0] @property {string} [y1]
 * @property {string|null} [group]
 * @property {Colour[]} [colours] @property {string[]} [labels]
 * @property {number} [size] @property {number} [width] @property {number[]|string} [dash]
 * @property {number} [opacity] @property {string} [name] @property {boolean} [pickable]
 * @property {boolean} [shapes] @property {boolean} [include] @property {TooltipLine[]} [tooltip]
 * @property {{title: string, low: string, high: string}} [ramp]
 */
/** @typedef {{title?: string, subtitle?: string, axes?: {x?: Axis, y?: Axis}, layers?: Layer[], legend?: boolean, empty?: string, error?: string}} Spec */
/** @typedef {Float32Array|Float64Array|Int32Array} Numbers */
/** @typedef {{to: (v: number) => number, toValue: (t: number) => number, lo: number, hi: number, p0: number, p1: number, log: boolean}} Scale */
/** @typedef {{layer: number, row: number, px: number, py: number}} Pick */
/** @typedef {{px: Float32Array, py: Float32Array, boxes?: {x: number, y: number, width: number, height: number}[]}} Place */
/** @typedef {{x: [number, number], y: [number, number]}} View */
/** @typedef {{get(name: string): any, set(name: string, value: any): void, save_changes(): void, on(event: string, cb: () => void): void, off(event: string, cb: () => void): void}} Model */

/** Used where the spec names none: Okabe and Ito's hues, at a contrast of 3 on either background. */
const PALETTE = [
  { light: "#0072b2", dark: "#22b2ff" }, { light: "#d55e00", dark: "#f25916" },
  { light: "#279782", dark: "#7bf1dc" }, { light: "#770168", dark: "#bf3d86" },
  { light: "#5e4c19", dark: "#fec90b" }, { light: "#2a8fc7", dark: "#8fd0f5" },
];
const SHAPES = ["circle", "triangle", "square", "diamond", "cross", "inverted"];
const ARRAYS = { float32: Float32Array, float64: Float64Array, int32: Int32Array };
const PICK_RADIUS = 22;
const CELL = 24;
/** While the view moves, a layer of more points than this is drawn in part; then again in full. */
const MOVING_POINTS = 20_000;
/** A layer of more points than this is stamped into an image of its own. */
const MANY_POINTS = 2_000;
const SETTLE_MS = 140;
const SELECT_MS = 120;
const SAFE_COLOUR = /^(#[0-9a-f]{3,8}|(rgb|hsl)a?\([\d\s.,%/deg]+\)|[a-z]+)$/i;

/* ---------------------------------------------------------------- numbers */

/**
 * Typed arrays over one binary blob; copied only where a column is not aligned.
 * @param {Record<string, Column>} columns
 * @param {DataView|ArrayBuffer|Uint8Array|null|undefined} blob
 * @returns {Map<string, Numbers>}
 */
export function decodeColumns(columns, blob) {
  /** @type {Map<string, Numbers>} */
  const decoded = new Map();
  for (const [name, column] of Object.entries(columns || {})) {
    decoded.set(name, decodeColumn(name, column, blob));
  }
  return decoded;
}

/** @param {string} name @param {Column} column @param {any} blob @returns {Numbers} */
function decodeColumn(name, column, blob) {
  const type = ARRAYS[column.dtype];
  if (!type) throw new Error(`column ${name}: unknown dtype ${column.dtype}`);
  const bytes = column.length * type.BYTES_PER_ELEMENT;
  const held = blob ? blob.byteLength : 0;
  if (column.offset + bytes > held) {
    throw new Error(`column ${name} ends at byte ${column.offset + bytes}, the buffer at ${held}`);
  }
  if (column.length === 0) return new type(0);
  const buffer = blob instanceof ArrayBuffer ? blob : blob.buffer;
  const start = (blob instanceof ArrayBuffer ? 0 : blob.byteOffset) + column.offset;
  if (start % type.BYTES_PER_ELEMENT === 0) return new type(buffer, start, column.length);
  return new type(buffer.slice(start, start + bytes));
}

/**
 * Round numbers that cover [lo, hi] with about `count` steps of 1, 2 or 5 times a power of ten.
 * @param {number} lo @param {number} hi @param {number} count
 * @returns {number[]}
 */
export function niceTicks(lo, hi, count) {
  if (!(hi > lo) || count < 1) return [lo];
  const raw = (hi - lo) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999) || raw;
  const first = Math.ceil(lo / step - 1e-9);
  const last = Math.floor(hi / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, i) => (first + i) * step);
}

/**
 * Ticks of a logarithmic axis; `lo` and `hi` are exponents of ten.
 * @param {number} lo @param {number} hi @param {number} count @returns {number[]} exponents
 */
export function logTicks(lo, hi, count) {
  const stride = Math.max(1, Math.ceil((hi - lo) / Math.max(count, 1)));
  const ticks = [];
  for (let e = Math.ceil(lo - 1e-9); e <= hi + 1e-9; e += stride) ticks.push(e);
  if (ticks.length >= 2) return ticks;
  return niceTicks(10 ** lo, 10 ** hi, count).filter((v) => v > 0).map(Math.log10);
}

/** A short label with a true minus sign. @param {number} value @param {number} [digits] @returns {string} */
export function formatNumber(value, digits = 4) {
  if (Number.isNaN(value)) return "not a number";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text = size >= 1e6 || size < 1e-4 ? exponential(value, digits) : String(+value.toPrecision(digits));
  return text.replace("-", "−");
}

/** @param {number} value @param {number} digits @returns {string} */
function exponential(value, digits) {
  const [mantissa, power] = value.toExponential(Math.max(0, digits - 2)).split("e");
  return `${+mantissa}e${power.replace("+", "")}`;
}

/**
 * The finite extent of some columns, in scale space (exponents for a log axis).
 * @param {(Numbers|number[])[]} columns @param {boolean} log @returns {[number, number]|null}
 */
export function extent(columns, log) {
  let lo = Infinity;
  let hi = -Infinity;
  for (const column of columns) {
    for (let i = 0; i < column.length; i++) {
      const v = column[i];
      if (!Number.isFinite(v) || (log && v <= 0)) continue;
      if (v < lo) lo = v;
      if (v > hi) hi = v;
    }
  }
  if (lo > hi) return null;
  return log ? [Math.log10(lo), Math.log10(hi)] : [lo, hi];
}

/** Where stacked bars end. @param {Numbers|number[]} base @param {Numbers|number[]} height @returns {Numbers|number[]} */
export function stackedEnds(base, height) {
  return base.length ? Float64Array.from(height, (tall, i) => base[i] + tall) : height;
}

/** A text cut to fit a width. @param {string} text @param {number} width @param {(text: string) => number} measure @returns {string} */
export function fitted(text, width, measure) {
  if (measure(text) <= width) return text;
  const letters = Array.from(text.slice(0, 400));
  let [fits, fails] = [0, letters.length + 1];
  while (fails - fits > 1) {
    const middle = (fits + fails) >> 1;
    if (measure(`${letters.slice(0, middle).join("")}…`) <= width) fits = middle;
    else fails = middle;
  }
  return fits ? `${letters.slice(0, fits).join("")}…` : "";
}

/** Room around the data; a single value gets a unit of its own size. @param {[number, number]} range @param {boolean} keepLow @returns {[number, number]} */
export function padded([lo, hi], keepLow) {
  const span = hi - lo;
  if (span <= Math.abs(hi) * 1e-12) {
    const half = Math.abs(hi) * 0.1 || 0.5;
    return [lo - half, hi + half];
  }
  return [keepLow ? lo : lo - 0.04 * span, hi + 0.04 * span];
}

/** @param {number} lo @param {number} hi @param {number} p0 @param {number} p1 @param {boolean} log @returns {Scale} */
export function makeScale(lo, hi, p0, p1, log) {
  const k = (p1 - p0) / (hi - lo);
  const to = log ? (/** @type {number} */ v) => p0 + (Math.log10(v) - lo) * k : (/** @type {number} */ v) => p0 + (v - lo) * k;
  return { to, toValue: (t) => (log ? 10 ** t : t), lo, hi, p0, p1, log };
}

/* ----------------------------------------------------------------- picking */

/**
 * Points sorted into square cells of the screen, so that hover looks at a few, not at all.
 */
export class GridIndex {
  /** @param {ArrayLike<number>} px @param {ArrayLike<number>} py */
  constructor(px, py) {
    this.px = px;
    this.py = py;
    /** @type {Map<number, number[]>} */
    this.cells = new Map();
    for (let i = 0; i < px.length; i++) {
      if (Number.isFinite(px[i]) && Number.isFinite(py[i])) this.add(i);
    }
  }

  /** @param {number} column @param {number} row @returns {number} */
  static key(column, row) {
    return column * 65536 + row;
  }

  /** @param {number} i */
  add(i) {
    const key = GridIndex.key(Math.floor(this.px[i] / CELL), Math.floor(this.py[i] / CELL));
    const cell = this.cells.get(key);
    if (cell) cell.push(i);
    else this.cells.set(key, [i]);
  }

  /** The nearest point within `radius` pixels, or -1. @param {number} x @param {number} y @param {number} radius @returns {number} */
  nearest(x, y, radius) {
    let best = -1;
    let closest = radius * radius;
    const reach = Math.ceil(radius / CELL);
    const column = Math.floor(x / CELL);
    const row = Math.floor(y / CELL);
    for (let c = column - reach; c <= column + reach; c++) {
      for (let r = row - reach; r <= row + reach; r++) {
        for (const i of this.cells.get(GridIndex.key(c, r)) || []) {
          const distance = (this.px[i] - x) ** 2 + (this.py[i] - y) ** 2;
          if (distance <= closest) [best, closest] = [i, distance];
        }
      }
    }
    return best;
  }
}

/** All readable marks of a figure; their grid is made when it is first needed. */
class Picks {
  /** @param {Float32Array} px @param {Float32Array} py @param {Int32Array} layer @param {Int32Array} row */
  constructor(px, py, layer, row) {
    this.px = px;
    this.py = py;
    this.layer = layer;
    this.row = row;
  }

  /** @returns {GridIndex} */
  get grid() {
    return (this.made ??= new GridIndex(this.px, this.py));
  }
}

/* ----------------------------------------------------------------- drawing */

/** @param {CanvasRenderingContext2D|OffscreenCanvasRenderingContext2D} ctx @param {string} shape @param {number} x @param {number} y @param {number} r */
function tracePath(ctx, shape, x, y, r) {
  ctx.beginPath();
  if (shape === "circle") ctx.arc(x, y, r, 0, 2 * Math.PI);
  else if (shape === "square") ctx.rect(x - 0.87 * r, y - 0.87 * r, 1.74 * r, 1.74 * r);
  else if (shape === "cross") traceCross(ctx, x, y, r);
  else tracePolygon(ctx, shape, x, y, r * 1.2);
}

/** @param {CanvasRenderingContext2D|OffscreenCanvasRenderingContext2D} ctx @param {number} x @param {number} y @param {number} r */
function traceCross(ctx, x, y, r) {
  const w = r * 0.4;
  ctx.rect(x - r, y - w, 2 * r, 2 * w);
  ctx.rect(x - w, y - r, 2 * w, 2 * r);
}

/** @param {CanvasRenderingContext2D|OffscreenCanvasRenderingContext2D} ctx @param {string} shape @param {number} x @param {number} y @param {number} r */
function tracePolygon(ctx, shape, x, y, r) {
  const corners = shape === "diamond" ? 4 : 3;
  const turn = shape === "inverted" ? Math.PI / 2 : -Math.PI / 2;
  for (let i = 0; i < corners; i++) {
    const angle = turn + (2 * Math.PI * i) / corners;
    ctx.lineTo(x + r * Math.cos(angle), y + r * Math.sin(angle));
  }
  ctx.closePath();
}

/** One marker drawn once, to be stamped many times. @param {string} shape @param {string} colour @param {number} r @param {number} opacity @param {number} ratio @returns {ImageBitmap} */
function makeSprite(shape, colour, r, opacity, ratio) {
  const half = Math.ceil(r * 1.3 + 1);
  const pixels = Math.ceil(2 * half * ratio);
  const sprite = new OffscreenCanvas(pixels, pixels);
  const ctx = /** @type {OffscreenCanvasRenderingContext2D} */ (sprite.getContext("2d"));
  ctx.scale(ratio, ratio);
  ctx.globalAlpha = opacity;
  ctx.fillStyle = colour;
  tracePath(ctx, shape, half, half, r);
  ctx.fill();
  return sprite.transferToImageBitmap();
}

/** @type {WeakMap<ImageBitmap, Float32Array>} */
const readSprites = new WeakMap();

/** The pixels of a sprite: red, green, blue and alpha as parts of 1, colours times alpha. @param {ImageBitmap} sprite @returns {Float32Array} */
function spritePixels(sprite) {
  let pixels = readSprites.get(sprite);
  if (pixels) return pixels;
  const canvas = new OffscreenCanvas(sprite.width, sprite.height);
  const ctx = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d"));
  ctx.drawImage(sprite, 0, 0);
  const { data } = ctx.getImageData(0, 0, sprite.width, sprite.height);
  pixels = new Float32Array(data.length);
  for (let i = 0; i < data.length; i++) pixels[i] = i % 4 === 3 ? data[i] / 255 : (data[i] * data[i | 3]) / 65025;
  readSprites.set(sprite, pixels);
  return pixels;
}

/** Stamps markers into an image of its own: for thousands of them several times quicker than a canvas. */
class Stamper {
  /** @param {number} width @param {number} height Device pixels. */
  constructor(width, height) {
    this.width = width;
    this.height = height;
    this.sums = new Float32Array(4 * width * height);
  }

  /** Later markers cover earlier ones. @param {ImageBitmap} sprite @param {number} left @param {number} top */
  stamp(sprite, left, top) {
    const { sums, width } = this;
    const pixels = spritePixels(sprite);
    const side = sprite.width;
    const [from, to] = [Math.max(0, -left), Math.min(side, width - left)];
    for (let row = Math.max(0, -top); row < Math.min(side, this.height - top); row++) {
      let source = 4 * (row * side + from);
      let target = 4 * ((top + row) * width + left + from);
      for (let column = from; column < to; column++, source += 4, target += 4) {
        const alpha = pixels[source + 3];
        if (alpha === 0) continue;
        const through = 1 - alpha;
        sums[target] = pixels[source] + sums[target] * through;
        sums[target + 1] = pixels[source + 1] + sums[target + 1] * through;
        sums[target + 2] = pixels[source + 2] + sums[target + 2] * through;
        sums[target + 3] = alpha + sums[target + 3] * through;
      }
    }
  }

  /** @returns {OffscreenCanvas} What was stamped; the next stamp begins anew. */
  take() {
    const { sums, width, height } = this;
    const image = new ImageData(width, height);
    for (let i = 0; i < sums.length; i += 4) {
      const alpha = sums[i + 3];
      if (alpha === 0) continue;
      for (let c = 0; c < 3; c++) image.data[i + c] = (255 * sums[i + c]) / alpha;
      image.data[i + 3] = 255 * alpha;
    }
    sums.fill(0);
    const canvas = new OffscreenCanvas(width, height);
    /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d")).putImageData(image, 0, 0);
    return canvas;
  }
}

/** @param {string} tag @param {string} className @param {Record<string, string>} [attributes] @returns {HTMLElement} */
function make(tag, className, attributes = {}) {
  const node = document.createElement(tag);
  node.className = className;
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  // JupyterLab leaves the keys alone that are pressed in such an element.
  if ("tabindex" in attributes || /^(button|input|select)$/.test(tag)) node.setAttribute("data-lm-suppress-shortcuts", "true");
  return node;
}

/** "auto" follows JupyterLab's theme. @param {string} theme @returns {boolean} */
function isDark(theme) {
  return theme === "dark" || (theme === "auto" && document.body.dataset.jpThemeLight === "false");
}

/** @param {Axis|undefined} axis @param {string} fallback @returns {string} */
function axisTitle(axis, fallback) {
  const label = (axis && axis.label) || fallback;
  return axis && axis.unit ? `${label} (${axis.unit})` : label;
}

/** @param {number[]|string|undefined} dash @returns {number[]} */
function dashPattern(dash) {
  if (Array.isArray(dash)) return dash;
  return { dash: [6, 4], dot: [1.5, 4], dashdot: [8, 4, 1.5, 4] }[dash || ""] || [];
}

/* ------------------------------------------------------------------ figure */

class Figure {
  /** @param {Model} model @param {HTMLElement} el */
  constructor(model, el) {
    this.model = model;
    this.el = el;
    /** @type {Set<string>} */
    this.hidden = new Set();
    /** @type {Map<string, ImageBitmap>} */
    this.sprites = new Map();
    /** @type {View|null} */
    this.zoom = null;
    this.axesKey = "";
    this.moving = false;
    /** @type {Pick|null} */
    this.hover = null;
    this.frame = 0;
    this.legendKey = "";
    this.build();
    this.listen();
    this.request();
  }

  /* -- the page */

  build() {
    this.root = make("div", "wb-live-figure");
    this.title = make("div", "wb-title");
    this.subtitle = make("div", "wb-subtitle");
    this.legend = make("div", "wb-legend", { role: "group", "aria-label": "Legend" });
    this.stage = make("div", "wb-stage", { tabindex: "0", role: "group", "aria-roledescription": "interactive figure" });
    this.canvas = /** @type {HTMLCanvasElement} */ (make("canvas", "wb-canvas", { role: "img" }));
    this.overlay = /** @type {HTMLCanvasElement} */ (make("canvas", "wb-overlay", { "aria-hidden": "true" }));
    this.tooltip = make("div", "wb-tooltip", { "aria-hidden": "true" });
    this.tooltip.hidden = true;
    this.live = make("div", "wb-only-read", { "aria-live": "polite", role: "status" });
    this.tools = this.buildTools();
    this.stage.append(this.canvas, this.overlay, this.tooltip, this.tools);
    const head = make("div", "wb-head");
    head.append(this.title, this.subtitle, this.legend);
    this.root.append(head, this.stage, this.live);
    this.el.append(this.root);
  }

  buildTools() {
    const tools = make("div", "wb-tools", { role: "toolbar", "aria-label": "Zoom" });
    /** @type {[string, string, () => void][]} */
    const buttons = [
      ["+", "Zoom in (+)", () => this.zoomAt(0.7)],
      ["−", "Zoom out (-)", () => this.zoomAt(1 / 0.7)],
      ["↺", "Show everything (0)", () => this.resetZoom()],
    ];
    for (const [text, label, act] of buttons) {
      const button = make("button", "wb-tool", { type: "button", title: label, "aria-label": label });
      button.textContent = text;
      button.addEventListener("click", act);
      tools.append(button);
    }
    return tools;
  }

  listen() {
    this.abort = new AbortController();
    const options = { signal: this.abort.signal };
    /** @param {string} name @param {(e: any) => void} act */
    const on = (name, act) => this.stage.addEventListener(name, act, options);
    on("pointermove", (e) => this.pointerMoved(e));
    on("pointerdown", (e) => this.pointerPressed(e));
    on("pointerup", (e) => this.pointerReleased(e));
    on("pointerleave", () => this.setHover(null));
    on("dblclick", () => this.resetZoom());
    on("keydown", (e) => this.keyPressed(e));
    this.stage.addEventListener("wheel", (e) => this.wheeled(e), { ...options, passive: false });
    this.repaint = () => this.request();
    this.rehighlight = () => this.paintOverlay();
    for (const name of ["spec", "columns", "buffer", "generation", "theme", "height"]) {
      this.model.on(`change:${name}`, this.repaint);
    }
    this.model.on("change:selected", this.rehighlight);
    this.sizes = new ResizeObserver(() => this.request());
    this.sizes.observe(this.stage);
    this.themes = new MutationObserver(this.repaint);
    this.themes.observe(document.body, { attributeFilter: ["data-jp-theme-light"] });
    window.matchMedia(`(resolution: ${window.devicePixelRatio}dppx)`).addEventListener("change", this.repaint, options);
  }

  dispose() {
    this.abort?.abort();
    this.sizes?.disconnect();
    this.themes?.disconnect();
    window.clearTimeout(this.settling);
    window.clearTimeout(this.selecting);
    cancelAnimationFrame(this.frame);
    for (const name of ["spec", "columns", "buffer", "generation", "theme", "height"]) {
      this.model.off(`change:${name}`, /** @type {() => void} */ (this.repaint));
    }
    this.model.off("change:selected", /** @type {() => void} */ (this.rehighlight));
    this.root?.remove();
  }

  /** One paint for all the changes that arrive together. */
  request() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.paint();
    });
  }

  /* -- state read from the model */

  /** @returns {Spec} */
  get spec() {
    return this.model.get("spec") || {};
  }

  /** @returns {Layer[]} */
  get layers() {
    return this.spec.layers || [];
  }

  get dark() {
    return isDark(this.model.get("theme"));
  }

  /** The numbers of a column name, or of a constant. @param {string|number|null|undefined} ref @returns {Numbers|number[]} */
  values(ref) {
    if (typeof ref === "number") return [ref];
    if (ref === null || ref === undefined || ref === "") return [];
    const column = this.data.get(ref);
    if (!column) throw new Error(`the figure names a column that was not sent: ${ref}`);
    return column;
  }

  /** @param {Colour|undefined} colour @param {number} index @returns {string} */
  colour(colour, index = 0) {
    const named = typeof colour === "object" && colour ? (this.dark ? colour.dark : colour.light) : colour;
    if (named && SAFE_COLOUR.test(named)) return named;
    return PALETTE[index % PALETTE.length][this.dark ? "dark" : "light"];
  }

  /** @param {Layer} layer @param {number} code @returns {string} */
  groupColour(layer, code) {
    if (code < 0) return this.style.muted;
    const colours = layer.colours || [];
    return this.colour(colours[colours.length ? code % colours.length : 0], code);
  }

  /** @param {Layer} layer @param {number} code @returns {string} */
  shape(layer, code) {
    const several = (layer.labels || []).length;
    if (layer.shapes === false || layer.ramp || several < 2 || several > SHAPES.length || code < 0) return "circle";
    return SHAPES[code % SHAPES.length];
  }

  /** Whether a mark of the layer can be selected. @param {Layer} layer @returns {boolean} */
  selectable(layer) {
    return layer.pickable ?? layer.kind === "points";
  }

  /** Whether a mark tells its value: lines only where no points are drawn over them. @param {Layer} layer @returns {boolean} */
  readable(layer) {
    if (layer.pickable !== undefined) return layer.pickable;
    if (layer.kind === "line") return !this.layers.some((each) => each.kind === "points");
    return layer.kind === "points" || layer.kind === "bars";
  }

  /** @param {Layer} layer @param {number} code @returns {boolean} */
  shown(layer, code) {
    const label = layer.group ? (layer.labels || [])[code] : layer.name;
    return !label || !this.hidden.has(label);
  }

  /* -- painting */

  paint() {
    if (!this.stage.clientWidth) return this.waitForPlace();
    this.waited = false;
    const started = performance.now();
    try {
      this.applyTheme();
      this.paintText();
      this.measure();
      this.prepare();
      this.paintData();
      this.followHover();
    } catch (error) {
      this.paintMessage(`This figure could not be drawn: ${error instanceof Error ? error.message : error}`, true);
    }
    this.paintOverlay();
    this.el.dataset.paintMs = (performance.now() - started).toFixed(1);
    this.el.dataset.painted = String(this.model.get("generation") ?? 0);
  }

  /**
   * A hidden figure has no size. JupyterLab hides all for less than a frame, which the size observer
   * does not see: look again once, and leave the rest to the observer.
   */
  waitForPlace() {
    if (!this.waited) this.request();
    this.waited = true;
  }

  /** A hovered point keeps its row when the numbers under it move. */
  followHover() {
    const place = this.hover && this.places ? this.places[this.hover.layer] : null;
    const row = this.hover ? this.hover.row : -1;
    if (!this.hover || !place || row >= place.px.length || !this.inside(place.px[row], place.py[row])) this.hover = null;
    else this.hover = { ...this.hover, px: place.px[row], py: place.py[row] };
  }

  applyTheme() {
    this.root.dataset.theme = this.dark ? "dark" : "light";
    const style = getComputedStyle(this.root);
    /** @param {string} name */
    const read = (name) => style.getPropertyValue(name).trim() || "#888";
    this.style = {
      ink: read("--wb-ink"), muted: read("--wb-muted"), grid: read("--wb-grid"),
      surface: read("--wb-surface"), accent: read("--wb-accent"), bad: read("--wb-bad"),
      font: `12px ${style.fontFamily}`,
    };
  }

  paintText() {
    const { title = "", subtitle = "" } = this.spec;
    this.title.textContent = title;
    this.subtitle.textContent = subtitle;
    this.title.hidden = !title;
    this.subtitle.hidden = !subtitle;
    this.title.title = title;
    this.subtitle.title = subtitle;
    this.stage.setAttribute("aria-label", `${title || "Figure"}. Arrow keys, Home and End select a point, plus and minus zoom, Shift with an arrow moves the view, 0 shows everything.`);
    const entries = this.spec.legend === false ? [] : this.legendEntries();
    const key = JSON.stringify([entries, [...this.hidden], this.dark]);
    if (key !== this.legendKey) this.paintLegend(entries);
    this.legendKey = key;
  }

  /** @returns {{label: string, colour: string, shape: string, kind: string, dash: number[], ramp: any, colours: string[]}[]} */
  legendEntries() {
    const seen = new Map();
    for (const layer of this.layers) {
      const labels = layer.ramp ? [layer.ramp.title] : layer.group ? layer.labels || [] : layer.name ? [layer.name] : [];
      labels.forEach((label, code) => {
        if (!label || seen.has(label)) return;
        const colours = layer.ramp ? (layer.colours || []).map((c, i) => this.colour(c, i)) : [];
        const plain = layer.kind === "rule" && !layer.colours?.length;
        seen.set(label, { label, colour: plain ? this.style.ink : this.groupColour(layer, code), shape: this.shape(layer, code), kind: layer.kind, dash: dashPattern(layer.dash), ramp: layer.ramp, colours });
      });
    }
    return [...seen.values()];
  }

  /** @param {ReturnType<Figure["legendEntries"]>} entries */
  paintLegend(entries) {
    const focused = this.focusedLabel();
    this.legend.replaceChildren(...entries.map((entry) => (entry.ramp ? this.rampNode(entry) : this.legendButton(entry))));
    this.legend.hidden = entries.length === 0;
    if (focused !== null) /** @type {HTMLElement|undefined} */ (this.legend.children[focused])?.focus();
  }

  /** A rebuilt legend keeps the keyboard where it was. @returns {number|null} */
  focusedLabel() {
    const root = /** @type {Document|ShadowRoot} */ (this.root.getRootNode());
    const at = [...this.legend.children].indexOf(/** @type {Element} */ (root.activeElement));
    return at < 0 ? null : at;
  }

  /** @param {any} entry @returns {HTMLElement} */
  legendButton(entry) {
    const on = !this.hidden.has(entry.label);
    const button = make("button", "wb-entry", { type: "button", "aria-pressed": String(on), title: `${on ? "Hide" : "Show"} this layer` });
    const swatch = /** @type {HTMLCanvasElement} */ (make("canvas", "wb-swatch", { "aria-hidden": "true" }));
    this.paintSwatch(swatch, entry);
    const text = make("span", "wb-entry-text");
    text.textContent = entry.label;
    button.append(swatch, text);
    button.addEventListener("click", () => {
      if (on) this.hidden.add(entry.label);
      else this.hidden.delete(entry.label);
      this.request();
    });
    return button;
  }

  /** @param {any} entry @returns {HTMLElement} */
  rampNode(entry) {
    const node = make("span", "wb-ramp", { role: "img", "aria-label": `${entry.label}: from ${entry.ramp.low} to ${entry.ramp.high}` });
    const bar = make("span", "wb-ramp-bar");
    bar.style.background = `linear-gradient(90deg, ${entry.colours.join(",")})`;
    const [title, low, high] = [entry.label, entry.ramp.low, entry.ramp.high].map((text) => {
      const span = make("span", "wb-ramp-text");
      span.textContent = text;
      return span;
    });
    node.append(title, low, bar, high);
    return node;
  }

  /** @param {HTMLCanvasElement} swatch @param {any} entry */
  paintSwatch(swatch, entry) {
    const ratio = window.devicePixelRatio || 1;
    swatch.width = 22 * ratio;
    swatch.height = 12 * ratio;
    const ctx = /** @type {CanvasRenderingContext2D} */ (swatch.getContext("2d"));
    ctx.scale(ratio, ratio);
    ctx.fillStyle = ctx.strokeStyle = entry.colour;
    ctx.lineWidth = 2.5;
    ctx.globalAlpha = entry.kind === "band" ? 0.35 : 1;
    if (entry.kind === "line" || entry.kind === "rule") this.strokeSwatch(ctx, entry.dash);
    else if (entry.kind === "points") {
      tracePath(ctx, entry.shape, 11, 6, 4.5);
      ctx.fill();
    } else ctx.fillRect(5, 1, 12, 10);
  }

  /** @param {CanvasRenderingContext2D} ctx @param {number[]} dash */
  strokeSwatch(ctx, dash) {
    ctx.lineWidth = 2;
    ctx.setLineDash(dash);
    ctx.beginPath();
    ctx.moveTo(0, 6);
    ctx.lineTo(22, 6);
    ctx.stroke();
  }

  measure() {
    const height = Number(this.model.get("height")) || 320;
    this.root.style.height = `${height}px`;
    const ratio = window.devicePixelRatio || 1;
    this.width = Math.max(this.stage.clientWidth, 60);
    this.tall = Math.max(this.stage.clientHeight, 60);
    for (const canvas of [this.canvas, this.overlay]) {
      const [w, h] = [Math.round(this.width * ratio), Math.round(this.tall * ratio)];
      if (canvas.width !== w) canvas.width = w;
      if (canvas.height !== h) canvas.height = h;
    }
    if (ratio !== this.ratio) this.sprites.clear();
    this.ratio = ratio;
    this.ctx = this.contextOf(this.canvas);
    this.top = this.contextOf(this.overlay);
    this.ctx.clearRect(0, 0, this.width, this.tall);
  }

  /** Drawn by the CPU: thousands of stamps are slower when they are recorded for later. @param {HTMLCanvasElement} canvas @returns {CanvasRenderingContext2D} */
  contextOf(canvas) {
    const ctx = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
    ctx.setTransform(this.ratio || 1, 0, 0, this.ratio || 1, 0, 0);
    ctx.font = this.style.font;
    return ctx;
  }

  /** Decode, find the shown range of both axes, lay out the plot's box. */
  prepare() {
    /** @type {Map<string, Numbers>} */
    this.data = decodeColumns(this.model.get("columns"), this.model.get("buffer"));
    /** @type {Place[]} */
    this.places = [];
    this.index = null;
    this.order = {};
    this.forgetZoom();
    const [x, y] = [this.domain("x"), this.domain("y")];
    this.blank = !x || !y;
    if (!x || !y) return;
    const shownX = this.zoom ? this.zoom.x : x;
    const shownY = this.zoom ? this.zoom.y : y;
    this.yTicks = this.ticks("y", shownY, Math.max(2, this.tall / 46));
    const box = this.box();
    this.x = makeScale(shownX[0], shownX[1], box.left, box.right, this.isLog("x"));
    this.y = makeScale(shownY[0], shownY[1], box.bottom, box.top, this.isLog("y"));
    this.xTicks = this.ticks("x", shownX, Math.max(2, (box.right - box.left) / 78));
  }

  /** New numbers keep the reader's zoom; other axes do not. */
  forgetZoom() {
    const { x, y } = this.spec.axes || {};
    const key = JSON.stringify([x?.label, x?.scale, y?.label, y?.scale]);
    if (key !== this.axesKey) this.zoom = null;
    this.axesKey = key;
  }

  box() {
    const labels = this.yTicks.map((tick) => this.textWidth(tick.text));
    const left = Math.ceil(Math.min(Math.max(18, ...labels), this.width * 0.3)) + 34;
    return (this.plot = { left, right: this.width - 14, top: 10, bottom: this.tall - 44 });
  }

  /** @param {"x"|"y"} axis @returns {boolean} */
  isLog(axis) {
    return this.spec.axes?.[axis]?.scale === "log";
  }

  /** @param {"x"|"y"} axis @returns {[number, number]|null} */
  domain(axis) {
    const log = this.isLog(axis);
    const range = this.spec.axes?.[axis]?.range || [null, null];
    const found = extent(this.layers.flatMap((layer) => this.extentColumns(layer, axis)), log);
    const fixed = range.map((v) => (typeof v === "number" && (!log || v > 0) ? (log ? Math.log10(v) : v) : null));
    if (!found) return null;
    const keepLow = axis === "y" && found[0] === 0 && this.layers.some((layer) => layer.kind === "bars");
    const [lo, hi] = padded(found, keepLow);
    const domain = /** @type {[number, number]} */ ([fixed[0] ?? lo, fixed[1] ?? hi]);
    return domain[1] > domain[0] ? domain : padded([domain[0], domain[0]], false);
  }

  /** @param {Layer} layer @param {"x"|"y"} axis @returns {(Numbers|number[])[]} */
  extentColumns(layer, axis) {
    if (layer.kind === "rule") return layer.include ? [this.values(layer[axis])] : [];
    if (axis === "x") return [layer.x, layer.x0, layer.x1].map((ref) => this.values(ref));
    const height = this.values(layer.height);
    const own = [layer.y, layer.y0, layer.y1].map((ref) => this.values(ref));
    return height.length ? [...own, stackedEnds(this.values(layer.y0), height), [0]] : own;
  }

  /** @param {"x"|"y"} axis @param {[number, number]} range @param {number} count */
  ticks(axis, range, count) {
    const log = this.isLog(axis);
    const names = this.spec.axes?.[axis]?.names;
    if (names?.length) return this.namedTicks(names, range);
    const at = log ? logTicks(range[0], range[1], count) : niceTicks(range[0], range[1], count);
    const step = at.length > 1 ? at[1] - at[0] : 1;
    const digits = log ? 3 : Math.max(3, Math.ceil(Math.log10(Math.max(...at.map(Math.abs), step) / step)) + 1);
    return at.map((t) => ({ t, text: formatNumber(log ? 10 ** t : Math.abs(t) < step * 1e-6 ? 0 : t, Math.min(digits, 12)) }));
  }

  /** A tick at each named place in sight. @param {string[]} names @param {[number, number]} range */
  namedTicks(names, [lo, hi]) {
    return names.map((text, i) => ({ t: i + 1, text: String(text) })).filter(({ t }) => t >= lo && t <= hi);
  }

  paintData() {
    if (this.spec.error) return this.paintMessage(this.spec.error, true);
    if (this.blank) return this.paintMessage(this.spec.empty || "No data yet", false);
    this.paintGrid();
    this.ctx.save();
    this.ctx.beginPath();
    this.ctx.rect(this.plot.left, this.plot.top, this.plot.right - this.plot.left, this.plot.bottom - this.plot.top);
    this.ctx.clip();
    this.layers.forEach((layer, at) => this.paintLayer(layer, at));
    this.ctx.restore();
    this.paintAxes();
    this.canvas.setAttribute("aria-label", this.summary());
  }

  /** @returns {string} */
  summary() {
    const { px, py } = this.picks();
    let missing = 0;
    for (let i = 0; i < px.length; i++) if (!Number.isFinite(px[i] + py[i])) missing++;
    const gaps = missing ? `, ${missing} of them not drawn` : "";
    const x = axisTitle(this.spec.axes?.x, "x");
    const y = axisTitle(this.spec.axes?.y, "y");
    /** @param {Scale} scale */
    const span = (scale) => `from ${formatNumber(scale.toValue(scale.lo), 3)} to ${formatNumber(scale.toValue(scale.hi), 3)}`;
    return `${this.spec.title || "Figure"}: ${y} ${span(this.y)} against ${x} ${span(this.x)}, ${px.length} points${gaps}.`;
  }

  /** @param {string} text @param {boolean} bad */
  paintMessage(text, bad) {
    this.blank = true;
    if (!this.ctx) return;
    this.ctx.clearRect(0, 0, this.width, this.tall);
    this.ctx.fillStyle = bad ? this.style.bad : this.style.muted;
    this.ctx.textAlign = "center";
    this.ctx.textBaseline = "middle";
    const lines = this.wrapped(text, this.width - 60);
    lines.forEach((line, i) => this.ctx.fillText(line, this.width / 2, this.tall / 2 + (i - (lines.length - 1) / 2) * 18));
    this.canvas.setAttribute("aria-label", text);
  }

  /** @param {string} text @param {number} width @returns {string[]} */
  wrapped(text, width) {
    const lines = [""];
    for (const word of text.slice(0, 600).split(/\s+/)) {
      const longer = `${lines[lines.length - 1]} ${word}`.trim();
      if (this.ctx.measureText(longer).width > width && lines[lines.length - 1]) lines.push(word);
      else lines[lines.length - 1] = longer;
    }
    return lines.slice(0, 8);
  }

  paintGrid() {
    const { ctx, plot } = this;
    ctx.strokeStyle = this.style.grid;
    ctx.lineWidth = 1;
    ctx.beginPath();
    for (const { t } of this.xTicks) {
      const px = Math.round(this.place(this.x, t)) + 0.5;
      ctx.moveTo(px, plot.top);
      ctx.lineTo(px, plot.bottom);
    }
    for (const { t } of this.yTicks) {
      const py = Math.round(this.place(this.y, t)) + 0.5;
      ctx.moveTo(plot.left, py);
      ctx.lineTo(plot.right, py);
    }
    ctx.stroke();
  }

  /** The pixel of a place in scale space. @param {Scale} scale @param {number} t @returns {number} */
  place(scale, t) {
    return scale.p0 + ((t - scale.lo) / (scale.hi - scale.lo)) * (scale.p1 - scale.p0);
  }

  paintAxes() {
    const { ctx, plot } = this;
    ctx.fillStyle = this.style.muted;
    ctx.textAlign = "center";
    ctx.textBaseline = "top";
    const room = this.tickRoom();
    for (const { t, text } of this.xTicks) {
      const shown = this.fit(text, room);
      const rightmost = this.width - this.textWidth(shown) / 2 - 2;
      ctx.fillText(shown, Math.min(this.place(this.x, t), rightmost), plot.bottom + 7);
    }
    ctx.textAlign = "right";
    ctx.textBaseline = "middle";
    for (const { t, text } of this.yTicks) ctx.fillText(this.fit(text, plot.left - 32), plot.left - 8, this.place(this.y, t));
    this.paintFrame();
    this.paintAxisTitles();
  }

  /** The width that one label below the plot may take. @returns {number} */
  tickRoom() {
    if (!this.spec.axes?.x?.names?.length) return Infinity;
    return (this.plot.right - this.plot.left) / Math.max(1, this.x.hi - this.x.lo) - 8;
  }

  /** @param {string} text @returns {number} */
  textWidth(text) {
    return this.ctx.measureText(text).width;
  }

  /** @param {string} text @param {number} width @returns {string} */
  fit(text, width) {
    return fitted(text, width, (each) => this.textWidth(each));
  }

  paintFrame() {
    const { ctx, plot } = this;
    ctx.strokeStyle = this.style.muted;
    ctx.lineWidth = 1;
    ctx.beginPath();
    ctx.moveTo(plot.left + 0.5, plot.top);
    ctx.lineTo(plot.left + 0.5, plot.bottom + 0.5);
    ctx.lineTo(plot.right, plot.bottom + 0.5);
    ctx.stroke();
  }

  paintAxisTitles() {
    const { ctx, plot } = this;
    ctx.fillStyle = this.style.ink;
    ctx.textAlign = "center";
    ctx.textBaseline = "bottom";
    ctx.fillText(this.fit(axisTitle(this.spec.axes?.x, ""), plot.right - plot.left), (plot.left + plot.right) / 2, this.tall - 3);
    const vertical = this.fit(axisTitle(this.spec.axes?.y, ""), this.tall - 20);
    // Beside the middle of the plot, but a title longer than the plot must not leave the canvas.
    const half = this.textWidth(vertical) / 2 + 4;
    ctx.save();
    ctx.translate(13, Math.max(half, Math.min(this.tall - half, (plot.top + plot.bottom) / 2)));
    ctx.rotate(-Math.PI / 2);
    ctx.textBaseline = "middle";
    ctx.fillText(vertical, 0, 0);
    ctx.restore();
  }

  /** @param {Layer} layer @param {number} at */
  paintLayer(layer, at) {
    if (layer.kind === "rule") return this.paintRule(layer);
    if (layer.kind === "bars") return this.paintBars(layer, at);
    if (layer.kind === "band") return this.paintBand(layer);
    if (layer.kind !== "points" && layer.kind !== "line") throw new Error(`unknown layer kind ${layer.kind}`);
    const place = this.placed(layer);
    if (this.readable(layer)) this.places[at] = place;
    return layer.kind === "points" ? this.stampPoints(layer, place) : this.strokeLine(layer, place);
  }

  /** Pixels of every row of a layer; NaN where it has none. @param {Layer} layer @returns {{px: Float32Array, py: Float32Array, codes: ArrayLike<number>}} */
  placed(layer) {
    const [xs, ys] = [this.values(layer.x), this.values(layer.y)];
    const codes = this.values(layer.group);
    const n = Math.min(xs.length, ys.length);
    const px = new Float32Array(n);
    const py = new Float32Array(n);
    for (let i = 0; i < n; i++) {
      const visible = this.shown(layer, codes.length ? codes[i] : 0);
      px[i] = visible ? this.x.to(xs[i]) : NaN;
      py[i] = visible ? this.y.to(ys[i]) : NaN;
    }
    return { px, py, codes };
  }

  /** Stamps land on whole device pixels: no resampling, and a sharp marker. @param {Layer} layer @param {ReturnType<Figure["placed"]>} place */
  stampPoints(layer, { px, py, codes }) {
    const radius = (layer.size ?? 6) / 2;
    const opacity = layer.opacity ?? (px.length > 2000 ? 0.55 : 0.85);
    const side = 2 * Math.ceil(radius * 1.3 + 1);
    const { left, right, top, bottom } = this.plot;
    const { ctx, ratio = 1 } = this;
    /** @type {(ImageBitmap|undefined)[]} */
    const stamps = [];
    const stride = this.moving ? Math.ceil(px.length / MOVING_POINTS) : 1;
    const [originX, originY] = [Math.round(left * ratio), Math.round(top * ratio)];
    const many = px.length > MANY_POINTS ? this.stamper(Math.ceil((right - left) * ratio), Math.ceil((bottom - top) * ratio)) : null;
    for (let i = 0; i < px.length; i += stride) {
      const x = px[i];
      const y = py[i];
      if (!(x >= left - side && x <= right + side && y >= top - side && y <= bottom + side)) continue;
      const code = codes.length ? codes[i] : 0;
      const stamp = (stamps[code + 1] ??= this.sprite(layer, code, radius, opacity));
      const [deviceX, deviceY] = [Math.round((x - side / 2) * ratio), Math.round((y - side / 2) * ratio)];
      if (many) many.stamp(stamp, deviceX - originX, deviceY - originY);
      else ctx.drawImage(stamp, deviceX / ratio, deviceY / ratio, side, side);
    }
    if (many) ctx.drawImage(many.take(), originX / ratio, originY / ratio, many.width / ratio, many.height / ratio);
  }

  /** @param {number} width @param {number} height @returns {Stamper} */
  stamper(width, height) {
    if (this.kept?.width !== width || this.kept?.height !== height) this.kept = new Stamper(width, height);
    return this.kept;
  }

  /** @param {Layer} layer @param {number} code @param {number} radius @param {number} opacity */
  sprite(layer, code, radius, opacity) {
    const colour = this.groupColour(layer, code);
    const shape = this.shape(layer, code);
    const key = `${shape}|${colour}|${radius}|${opacity}`;
    let sprite = this.sprites.get(key);
    if (!sprite) {
      sprite = makeSprite(shape, colour, radius, opacity, this.ratio || 1);
      this.sprites.set(key, sprite);
    }
    return sprite;
  }

  /** A line breaks where a value is missing or the group changes. @param {Layer} layer @param {ReturnType<Figure["placed"]>} place */
  strokeLine(layer, { px, py, codes }) {
    let start = 0;
    for (let i = 0; i <= px.length; i++) {
      const same = i < px.length && (!codes.length || codes[i] === codes[start]);
      if (same) continue;
      this.strokeRun(layer, px, py, start, i, codes.length ? codes[start] : 0);
      start = i;
    }
  }

  /** @param {Layer} layer @param {Float32Array} px @param {Float32Array} py @param {number} start @param {number} end @param {number} code */
  strokeRun(layer, px, py, start, end, code) {
    const { ctx } = this;
    ctx.save();
    ctx.strokeStyle = this.groupColour(layer, code);
    ctx.globalAlpha = layer.opacity ?? 1;
    ctx.lineWidth = layer.width ?? 2;
    ctx.lineJoin = "round";
    ctx.setLineDash(dashPattern(layer.dash));
    ctx.beginPath();
    let pen = false;
    for (let i = start; i < end; i++) {
      const drawn = Number.isFinite(px[i]) && Number.isFinite(py[i]);
      if (drawn && pen) ctx.lineTo(px[i], py[i]);
      else if (drawn) ctx.moveTo(px[i], py[i]);
      pen = drawn;
    }
    ctx.stroke();
    ctx.restore();
  }

  /** @param {Layer} layer */
  paintBand(layer) {
    if (!this.shown(layer, 0)) return;
    const [xs, lows, highs] = [this.values(layer.x), this.values(layer.y0), this.values(layer.y1)];
    const { ctx } = this;
    ctx.save();
    ctx.fillStyle = this.groupColour(layer, 0);
    ctx.globalAlpha = layer.opacity ?? 0.2;
    ctx.beginPath();
    for (let i = 0; i < xs.length; i++) this.lineTo(xs[i], lows[i]);
    for (let i = xs.length - 1; i >= 0; i--) this.lineTo(xs[i], highs[i]);
    ctx.fill();
    ctx.restore();
  }

  /** @param {number} x @param {number} y */
  lineTo(x, y) {
    const [px, py] = [this.x.to(x), this.y.to(y)];
    if (Number.isFinite(px) && Number.isFinite(py)) this.ctx.lineTo(px, py);
  }

  /** @param {Layer} layer @param {number} at */
  paintBars(layer, at) {
    const codes = this.values(layer.group);
    const n = this.values(layer.height).length;
    /** @type {Place} */
    const centres = { px: new Float32Array(n).fill(NaN), py: new Float32Array(n).fill(NaN), boxes: [] };
    this.ctx.save();
    this.ctx.globalAlpha = layer.opacity ?? 0.75;
    for (let i = 0; i < n; i++) {
      const code = codes.length ? codes[i] : 0;
      if (!this.shown(layer, code)) continue;
      const bar = this.barBox(layer, i);
      this.ctx.fillStyle = this.groupColour(layer, code);
      this.ctx.fillRect(bar.x, bar.y, bar.width, bar.height);
      centres.px[i] = bar.x + bar.width / 2;
      centres.py[i] = bar.y;
      /** @type {any[]} */ (centres.boxes)[i] = bar;
    }
    this.ctx.restore();
    if (this.readable(layer)) this.places[at] = centres;
  }

  /** @param {Layer} layer @param {number} i */
  barBox(layer, i) {
    const base = this.values(layer.y0).length ? this.values(layer.y0)[i] : 0;
    const floor = this.y.log && base <= 0 ? this.y.p0 : this.y.to(base);
    const tip = this.y.to(base + this.values(layer.height)[i]);
    const [a, b] = [this.x.to(this.values(layer.x0)[i]), this.x.to(this.values(layer.x1)[i])];
    const gap = Math.abs(b - a) > 5 ? 1 : 0;
    return { x: Math.min(a, b) + gap / 2, y: Math.min(floor, tip), width: Math.max(Math.abs(b - a) - gap, 1), height: Math.abs(floor - tip) };
  }

  /** @param {Layer} layer */
  paintRule(layer) {
    if (!this.shown(layer, 0)) return;
    const { ctx, plot } = this;
    ctx.save();
    ctx.strokeStyle = layer.colours?.length ? this.groupColour(layer, 0) : this.style.ink;
    ctx.globalAlpha = layer.opacity ?? 0.8;
    ctx.lineWidth = layer.width ?? 1.5;
    ctx.setLineDash(dashPattern(layer.dash));
    ctx.beginPath();
    for (const v of this.values(layer.x)) this.segment(this.x.to(v), plot.top, this.x.to(v), plot.bottom);
    for (const v of this.values(layer.y)) this.segment(plot.left, this.y.to(v), plot.right, this.y.to(v));
    ctx.stroke();
    ctx.restore();
  }

  /** @param {number} x0 @param {number} y0 @param {number} x1 @param {number} y1 */
  segment(x0, y0, x1, y1) {
    this.ctx.moveTo(x0, y0);
    this.ctx.lineTo(x1, y1);
  }

  /* -- hover, selection */

  paintOverlay() {
    if (!this.top) return;
    this.top.clearRect(0, 0, this.width, this.tall);
    if (this.blank || !this.places) return this.showTooltip(null);
    const selected = this.model.get("selected");
    this.places.forEach((place, layer) => {
      if (place && this.selectable(this.layers[layer]) && Number.isInteger(selected) && selected >= 0 && selected < place.px.length) {
        this.ring(place.px[selected], place.py[selected], layer, true);
      }
    });
    if (this.hover) this.point(this.hover);
    this.showTooltip(this.hover);
  }

  /** Outline the hovered bar, or ring the hovered point. @param {Pick} pick */
  point(pick) {
    const box = this.places[pick.layer]?.boxes?.[pick.row];
    if (!box) return this.ring(pick.px, pick.py, pick.layer, false);
    this.top.setLineDash([]);
    this.top.strokeStyle = this.style.ink;
    this.top.lineWidth = 2;
    this.top.strokeRect(box.x, Math.max(box.y, this.plot.top), box.width, Math.min(box.height, this.plot.bottom - box.y));
  }

  /** @param {number} x @param {number} y @param {number} layer @param {boolean} selected */
  ring(x, y, layer, selected) {
    if (!this.inside(x, y)) return;
    const radius = Math.max((this.layers[layer]?.size ?? 6) / 2, 3) + (selected ? 4 : 3);
    const ctx = this.top;
    if (selected) this.crosshair(x, y);
    ctx.setLineDash([]);
    for (const [colour, width] of /** @type {[string, number][]} */ ([[this.style.surface, 5], [selected ? this.style.accent : this.style.ink, 2.5]])) {
      ctx.strokeStyle = colour;
      ctx.lineWidth = width;
      ctx.beginPath();
      ctx.arc(x, y, radius, 0, 2 * Math.PI);
      ctx.stroke();
    }
  }

  /** @param {number} x @param {number} y */
  crosshair(x, y) {
    const ctx = this.top;
    ctx.strokeStyle = this.style.accent;
    ctx.globalAlpha = 0.55;
    ctx.lineWidth = 1;
    ctx.setLineDash([3, 3]);
    ctx.beginPath();
    ctx.moveTo(x, this.plot.top);
    ctx.lineTo(x, this.plot.bottom);
    ctx.moveTo(this.plot.left, y);
    ctx.lineTo(this.plot.right, y);
    ctx.stroke();
    ctx.globalAlpha = 1;
  }

  /** @param {number} x @param {number} y @returns {boolean} */
  inside(x, y) {
    const { left, right, top, bottom } = this.plot;
    return x >= left - 1 && x <= right + 1 && y >= top - 1 && y <= bottom + 1;
  }

  /** All pickable points of the figure in one grid, gathered when first needed after a paint. @returns {Picks} */
  picks() {
    if (this.index) return this.index;
    const total = this.places.reduce((sum, place) => sum + (place ? place.px.length : 0), 0);
    const px = new Float32Array(total);
    const py = new Float32Array(total);
    const layer = new Int32Array(total);
    const row = new Int32Array(total);
    let at = 0;
    this.places.forEach((place, l) => {
      if (!place) return;
      px.set(place.px, at);
      py.set(place.py, at);
      layer.fill(l, at, at + place.px.length);
      for (let i = 0; i < place.px.length; i++) row[at + i] = i;
      at += place.px.length;
    });
    return (this.index = new Picks(px, py, layer, row));
  }

  /** @param {number} i @returns {Pick|null} */
  pickAt(i) {
    const { px, py, layer, row } = this.picks();
    return i < 0 ? null : { layer: layer[i], row: row[i], px: px[i], py: py[i] };
  }

  /** Only what the keyboard reaches is spoken. @param {Pick|null} pick @param {boolean} [spoken] */
  setHover(pick, spoken = false) {
    if (!pick && !this.hover) return;
    this.hover = pick;
    this.paintOverlay();
    this.live.textContent = pick && spoken ? this.describe(pick).map(([label, value]) => `${label} ${value}`).join(", ") : "";
  }

  /** The mark under the pointer: the bar that holds it, else the nearest point. @param {number} x @param {number} y @returns {Pick|null} */
  pickNear(x, y) {
    const pick = this.barAt(x, y) || this.pickAt(this.picks().grid.nearest(x, y, PICK_RADIUS));
    return pick && this.inside(pick.px, Math.max(pick.py, this.plot.top)) ? pick : null;
  }

  /** @param {number} x @param {number} y @returns {Pick|null} */
  barAt(x, y) {
    for (let layer = this.places.length - 1; layer >= 0; layer--) {
      const { px, py, boxes = [] } = this.places[layer] || {};
      const row = boxes.findIndex((bar) => bar && x >= bar.x && x <= bar.x + bar.width && y >= bar.y && y <= bar.y + bar.height);
      if (row >= 0 && px && py) return { layer, row, px: px[row], py: py[row] };
    }
    return null;
  }

  /** @param {Pick|null} pick */
  showTooltip(pick) {
    this.tooltip.hidden = !pick;
    if (!pick) return;
    this.tooltip.replaceChildren(...this.describe(pick).map(([label, value]) => this.tooltipLine(label, value)));
    const { offsetWidth: w, offsetHeight: h } = this.tooltip;
    const right = pick.px + 14 + w < this.width;
    this.tooltip.style.left = `${right ? pick.px + 14 : Math.max(2, pick.px - 14 - w)}px`;
    this.tooltip.style.top = `${Math.min(Math.max(2, pick.py - h / 2), this.tall - h - 2)}px`;
  }

  /** @param {string} label @param {string} value @returns {HTMLElement} */
  tooltipLine(label, value) {
    const line = make("div", "wb-tooltip-line");
    const name = make("span", "wb-tooltip-label");
    const number = make("span", "wb-tooltip-value");
    name.textContent = label;
    number.textContent = value;
    line.append(name, number);
    return line;
  }

  /** @param {Pick} pick @returns {[string, string][]} */
  describe(pick) {
    const layer = this.layers[pick.layer];
    const group = layer.group ? (layer.labels || [])[this.values(layer.group)[pick.row]] : layer.name;
    /** @type {[string, string][]} */
    const lines = group && !layer.ramp ? [["", group]] : [];
    for (const { label, column, unit } of layer.tooltip || this.defaultTooltip(layer)) {
      const value = formatNumber(this.values(column)[pick.row], 5);
      lines.push([label, unit ? `${value} ${unit}` : value]);
    }
    return lines;
  }

  /** @param {Layer} layer @returns {TooltipLine[]} */
  defaultTooltip(layer) {
    const { x, y } = this.spec.axes || {};
    /** @type {[string|number|undefined, Axis|undefined, string][]} */
    const parts = layer.kind === "bars"
      ? [[layer.x0, x, "from "], [layer.x1, x, "to "], [layer.height, y, ""]]
      : [[layer.x, x, ""], [layer.y, y, ""]];
    return parts.map(([column, axis, lead]) => ({ label: `${lead}${axis?.label || String(column)}`, column: String(column), unit: axis?.unit }));
  }

  /** @param {Pick|null} pick */
  select(pick) {
    window.clearTimeout(this.selecting);
    if (!pick || !this.selectable(this.layers[pick.layer])) return;
    this.model.set("selection", { generation: this.model.get("generation") ?? 0, index: pick.row, layer: pick.layer });
    this.model.set("selected", pick.row);
    this.model.save_changes();
    this.paintOverlay();
  }

  /* -- pointer */

  /** @param {PointerEvent|WheelEvent} event @returns {[number, number]} */
  at(event) {
    const box = this.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  /** @param {PointerEvent} event */
  pointerMoved(event) {
    if (this.blank || !this.x) return;
    const [x, y] = this.at(event);
    if (this.drag) return this.dragged(x, y);
    this.setHover(this.pickNear(x, y));
    this.stage.classList.toggle("wb-pointing", Boolean(this.hover && this.selectable(this.layers[this.hover.layer])));
  }

  /** @param {PointerEvent} event */
  pointerPressed(event) {
    if (this.blank || event.button !== 0 || this.tools.contains(/** @type {Node} */ (event.target))) return;
    const [x, y] = this.at(event);
    this.drag = { x, y, moved: false, from: this.view(), box: event.shiftKey };
    try {
      this.stage.setPointerCapture(event.pointerId);
    } catch {
      // a synthetic pointer cannot be captured; panning then ends at the figure's edge
    }
  }

  /** @param {number} x @param {number} y */
  dragged(x, y) {
    const drag = this.drag;
    if (!drag || (!drag.moved && Math.hypot(x - drag.x, y - drag.y) < 4)) return;
    drag.moved = true;
    this.setHover(null);
    if (drag.box) return this.paintBox(drag.x, drag.y, x, y);
    const dx = ((x - drag.x) / (this.x.p1 - this.x.p0)) * (this.x.hi - this.x.lo);
    const dy = ((y - drag.y) / (this.y.p1 - this.y.p0)) * (this.y.hi - this.y.lo);
    this.zoom = { x: [drag.from.x[0] - dx, drag.from.x[1] - dx], y: [drag.from.y[0] - dy, drag.from.y[1] - dy] };
    this.move();
  }

  /** The rectangle that Shift and a drag zoom to. @param {number} x0 @param {number} y0 @param {number} x1 @param {number} y1 */
  paintBox(x0, y0, x1, y1) {
    this.paintOverlay();
    const ctx = this.top;
    ctx.setLineDash([4, 3]);
    ctx.lineWidth = 1.5;
    ctx.strokeStyle = this.style.accent;
    ctx.strokeRect(x0, y0, x1 - x0, y1 - y0);
  }

  /** @param {number} x0 @param {number} y0 @param {number} x1 @param {number} y1 */
  zoomToBox(x0, y0, x1, y1) {
    if (Math.abs(x1 - x0) < 6 || Math.abs(y1 - y0) < 6) return this.paintOverlay();
    /** @param {Scale} s @param {number} a @param {number} b @returns {[number, number]} */
    const span = (s, a, b) => {
      const ends = [a, b].map((px) => s.lo + ((px - s.p0) / (s.p1 - s.p0)) * (s.hi - s.lo));
      return [Math.min(...ends), Math.max(...ends)];
    };
    this.zoom = { x: span(this.x, x0, x1), y: span(this.y, y0, y1) };
    this.request();
  }

  /** Paint a moving view, and once more when it rests. */
  move() {
    this.moving = true;
    window.clearTimeout(this.settling);
    this.settling = window.setTimeout(() => {
      this.moving = false;
      this.request();
    }, SETTLE_MS);
    this.request();
  }

  /** @param {PointerEvent} event */
  pointerReleased(event) {
    const drag = this.drag;
    this.drag = undefined;
    const [x, y] = this.at(event);
    if (drag?.moved && drag.box) this.zoomToBox(drag.x, drag.y, x, y);
    if (!drag || drag.moved || this.blank) return;
    this.select(this.pickNear(x, y));
  }

  /** The wheel zooms only a focused figure (or with Ctrl), so that the page still scrolls. @param {WheelEvent} event */
  wheeled(event) {
    const root = /** @type {Document|ShadowRoot} */ (this.root.getRootNode());
    if (this.blank || (!event.ctrlKey && root.activeElement !== this.stage)) return;
    event.preventDefault();
    const [x, y] = this.at(event);
    this.zoomAt(event.deltaY > 0 ? 1.15 : 1 / 1.15, x, y);
  }

  /** @returns {View} */
  view() {
    return { x: [this.x.lo, this.x.hi], y: [this.y.lo, this.y.hi] };
  }

  /** @param {number} factor @param {number} [px] @param {number} [py] */
  zoomAt(factor, px, py) {
    if (this.blank) return;
    const fx = px === undefined ? 0.5 : (px - this.x.p0) / (this.x.p1 - this.x.p0);
    const fy = py === undefined ? 0.5 : (py - this.y.p0) / (this.y.p1 - this.y.p0);
    /** @param {Scale} s @param {number} f @returns {[number, number]} */
    const around = (s, f) => {
      const centre = s.lo + f * (s.hi - s.lo);
      return [centre + (s.lo - centre) * factor, centre + (s.hi - centre) * factor];
    };
    this.zoom = { x: around(this.x, fx), y: around(this.y, fy) };
    this.hover = null;
    this.move();
  }

  resetZoom() {
    this.zoom = null;
    this.hover = null;
    this.request();
  }

  /* -- keyboard */

  /** @param {KeyboardEvent} event */
  keyPressed(event) {
    if (event.target !== this.stage || event.ctrlKey || event.metaKey || event.altKey) return;
    const act = this.keyAction(event);
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    if (!this.blank || event.key === "0") act();
  }

  /** @param {KeyboardEvent} event @returns {(() => void)|undefined} */
  keyAction(event) {
    const arrows = { ArrowRight: ["x", 1], ArrowLeft: ["x", -1], ArrowUp: ["y", 1], ArrowDown: ["y", -1] };
    const arrow = /** @type {["x"|"y", number]|undefined} */ (arrows[/** @type {"ArrowUp"} */ (event.key)]);
    if (arrow) return () => (event.shiftKey ? this.pan(arrow[0], arrow[1]) : this.walk(arrow[0], arrow[1]));
    /** @type {Record<string, () => void>} */
    const actions = {
      "+": () => this.zoomAt(0.7), "=": () => this.zoomAt(0.7), "-": () => this.zoomAt(1 / 0.7), 0: () => this.resetZoom(),
      Enter: () => this.select(this.hover), " ": () => this.select(this.hover),
      Home: () => this.walkTo(0), End: () => this.walkTo(-1), Escape: () => this.leave(),
    };
    return actions[event.key];
  }

  /** @param {"x"|"y"} axis @param {number} step */
  pan(axis, step) {
    const view = this.view();
    const shift = 0.15 * step * (view[axis][1] - view[axis][0]);
    view[axis] = [view[axis][0] + shift, view[axis][1] + shift];
    this.zoom = view;
    this.hover = null;
    this.move();
  }

  /** Visible points in the order of one axis, sorted once a paint. @param {"x"|"y"} axis @returns {number[]} */
  ordered(axis) {
    const cache = /** @type {Record<string, number[]>} */ (this.order);
    if (cache[axis]) return cache[axis];
    const { px, py } = this.picks();
    const visible = [];
    for (let i = 0; i < px.length; i++) if (this.inside(px[i], py[i])) visible.push(i);
    const key = axis === "x" ? (/** @type {number} */ i) => px[i] : (/** @type {number} */ i) => -py[i];
    return (cache[axis] = visible.sort((a, b) => key(a) - key(b) || a - b));
  }

  /** @param {"x"|"y"} axis @param {number} step */
  walk(axis, step) {
    const order = this.ordered(axis);
    if (!order.length) return;
    const now = order.indexOf(this.startIndex());
    const next = now < 0 ? (step > 0 ? 0 : order.length - 1) : Math.min(Math.max(now + step, 0), order.length - 1);
    this.choose(this.pickAt(order[next]));
  }

  /** The selection follows the keyboard, once it rests: a held key sends one, not dozens. @param {Pick|null} pick */
  choose(pick) {
    this.setHover(pick, true);
    window.clearTimeout(this.selecting);
    this.selecting = window.setTimeout(() => this.select(pick), SELECT_MS);
  }

  /** Where the keyboard stands: at the hovered point, else at the selected one. @returns {number} */
  startIndex() {
    const { layer, row } = this.picks();
    const selected = this.model.get("selected");
    const at = this.hover || (Number.isInteger(selected) && selected >= 0 ? { layer: layer[0], row: selected } : null);
    if (!at) return -1;
    for (let i = 0; i < row.length; i++) if (row[i] === at.row && layer[i] === at.layer) return i;
    return -1;
  }

  /** Nothing is hovered, and nothing more will be selected. */
  leave() {
    window.clearTimeout(this.selecting);
    this.setHover(null);
  }

  /** @param {number} position */
  walkTo(position) {
    const order = this.ordered("x");
    const at = order.at(position);
    if (at !== undefined) this.choose(this.pickAt(at));
  }
}

/** @param {{model: Model, el: HTMLElement}} context @returns {() => void} */
function render({ model, el }) {
  const figure = new Figure(model, el);
  return () => figure.dispose();
}

export default { render };
