import assert from "node:assert/strict";
import { test } from "node:test";
import { GridIndex, decodeColumns, extent, fitted, formatNumber, logTicks, makeScale, niceTicks, padded, stackedEnds } from "./widget.js";

test("ticks are round, inside the range and evenly spaced", () => {
  assert.deepEqual(niceTicks(0, 1, 5), [0, 0.2, 0.4, 0.6000000000000001, 0.8, 1]);
  assert.deepEqual(niceTicks(-3, 7, 4), [0, 5]);
  for (const [lo, hi] of [[-1e-9, 2e-9], [1e12, 3e12], [-0.4, 0.1]]) {
    const ticks = niceTicks(lo, hi, 6);
    assert.ok(ticks.length >= 3 && ticks.length <= 13, `${ticks}`);
    assert.ok(ticks[0] >= lo - 1e-9 * Math.abs(lo) && ticks.at(-1) <= hi + 1e-9 * Math.abs(hi));
  }
});

test("log ticks are whole powers of ten, or round values within one decade", () => {
  assert.deepEqual(logTicks(-2, 2, 10), [-2, -1, 0, 1, 2]);
  assert.ok(logTicks(-40, 40, 8).length <= 9);
  assert.ok(logTicks(0.1, 0.6, 5).length >= 2);
});

test("columns are read from the blob at any alignment", () => {
  const raw = new ArrayBuffer(3 + 16);
  new Float32Array(raw, 4, 2).set([1.5, -2]);
  const view = new DataView(raw, 4, 8);
  const aligned = decodeColumns({ a: { dtype: "float32", offset: 0, length: 2 } }, view);
  assert.deepEqual([...aligned.get("a")], [1.5, -2]);
  const odd = new Uint8Array(1 + 8);
  odd.set(new Uint8Array(new Float32Array([7, 8]).buffer), 1);
  const copied = decodeColumns({ b: { dtype: "float32", offset: 1, length: 2 } }, new DataView(odd.buffer));
  assert.deepEqual([...copied.get("b")], [7, 8]);
});

test("a column beyond the blob or of an unknown type is refused by name", () => {
  assert.throws(() => decodeColumns({ far: { dtype: "float32", offset: 0, length: 9 } }, new ArrayBuffer(8)), /far/);
  assert.throws(() => decodeColumns({ odd: { dtype: "object", offset: 0, length: 1 } }, new ArrayBuffer(8)), /odd/);
  assert.throws(() => decodeColumns({ none: { dtype: "int32", offset: 0, length: 1 } }, null), /none/);
});

test("the extent skips what cannot be drawn", () => {
  assert.deepEqual(extent([new Float32Array([NaN, 3, -1, Infinity])], false), [-1, 3]);
  assert.deepEqual(extent([[0, -5, 10, 100]], true), [1, 2]);
  assert.equal(extent([[NaN], []], false), null);
  const [lo, hi] = padded([4, 4], false);
  assert.ok(lo < 4 && hi > 4);
});

test("scales map both ends and powers of ten", () => {
  const scale = makeScale(0, 2, 100, 300, true);
  assert.equal(scale.to(10), 200);
  assert.equal(scale.toValue(2), 100);
});

test("the grid finds what a full search finds", () => {
  const n = 2000;
  const random = (seed) => () => ((seed = (seed * 16807) % 2147483647) / 2147483647);
  const next = random(42);
  const px = Float32Array.from({ length: n }, () => next() * 800);
  const py = Float32Array.from({ length: n }, () => next() * 300);
  px[5] = NaN;
  const grid = new GridIndex(px, py);
  for (let k = 0; k < 300; k++) {
    const [x, y] = [next() * 800, next() * 300];
    let best = -1;
    let closest = 22 * 22;
    for (let i = 0; i < n; i++) {
      const d = (px[i] - x) ** 2 + (py[i] - y) ** 2;
      if (d <= closest) [best, closest] = [i, d];
    }
    const found = grid.nearest(x, y, 22);
    const distance = (i) => (i < 0 ? Infinity : (px[i] - x) ** 2 + (py[i] - y) ** 2);
    assert.equal(distance(found), distance(best));
  }
});

test("numbers are short and carry a true minus", () => {
  assert.equal(formatNumber(-0.30000000000000004), "−0.3");
  assert.equal(formatNumber(NaN), "not a number");
  assert.equal(formatNumber(1234567), "1.23e6");
  assert.equal(formatNumber(-Infinity), "−∞");
});

test("stacked bars end at the sum of base and height, others at their height", () => {
  assert.deepEqual([...stackedEnds([1, 2], [3, 4])], [4, 6]);
  assert.deepEqual([...stackedEnds([], [3, 4])], [3, 4]);
});

test("a text is cut to the longest beginning that fits, between whole characters", () => {
  const measure = (text) => Array.from(text).length;
  assert.equal(fitted("margin", 6, measure), "margin");
  assert.equal(fitted("reward margin", 6, measure), "rewar…");
  assert.equal(fitted("🍂🍂🍂🍂", 3, measure), "🍂🍂…");
  assert.equal(fitted("anything", 0, measure), "");
});
