import assert from "node:assert/strict";
import { test } from "node:test";
import { Outbox, ROW_HEIGHT, nextSort, numberText, oneLine, parseValue, visibleRange, wordDiff } from "./widget.js";

globalThis.window = globalThis;

function fakeModel(state = {}) {
  const sent = [];
  const pending = {};
  return {
    sent,
    state,
    get: (name) => state[name],
    set: (name, value) => Object.assign(pending, { [name]: value }),
    save_changes: () => sent.push({ ...pending }),
    on: () => {},
    off: () => {},
  };
}

test("the window covers the rows in sight and never leaves the table", () => {
  const range = visibleRange(50_000 * ROW_HEIGHT, 400, 100_000);
  assert.equal(range.first, 50_000);
  assert.ok(range.offset < range.first && range.offset + range.limit > range.last);
  const end = visibleRange(100_000 * ROW_HEIGHT, 400, 100_000);
  assert.equal(end.offset + end.limit, 100_000);
  assert.deepEqual(visibleRange(0, 400, 0), { first: 0, last: 0, offset: 0, limit: 0 });
});

test("the next message waits for the last one's acknowledgement", () => {
  const model = fakeModel({ acknowledged: 4 });
  const box = new Outbox(model, () => {});
  const first = box.push({ trait: "edit", body: { pair_id: "a", field: "x", value: 1 } });
  const second = box.push({ trait: "edit", body: { pair_id: "b", field: "x", value: 2 } });
  assert.deepEqual([first, second], [5, 6]);
  assert.equal(model.sent.length, 1);
  box.acknowledged(4);
  assert.equal(model.sent.length, 1, "an old acknowledgement releases nothing");
  box.acknowledged(5);
  assert.equal(model.sent.length, 2);
  assert.equal(model.sent[1].edit.pair_id, "b");
  box.acknowledged(6);
  assert.equal(box.queue.length, 0);
});

test("values are parsed by the kind of their column", () => {
  assert.deepEqual(parseValue({ name: "a", kind: "number" }, " −0.5 "), { value: -0.5, error: "" });
  assert.equal(parseValue({ name: "a", kind: "number" }, "").value, null);
  assert.match(parseValue({ name: "a", kind: "number" }, "many").error, /not a number/);
  assert.equal(parseValue({ name: "a", kind: "category", options: [true, false] }, "true").value, true);
  assert.equal(parseValue({ name: "a", kind: "text" }, " kept ").value, " kept ");
});

test("a header goes through ascending, descending and as stored", () => {
  assert.deepEqual(nextSort(null, "a"), ["a", "asc"]);
  assert.deepEqual(nextSort(["a", "asc"], "a"), ["a", "desc"]);
  assert.equal(nextSort(["a", "desc"], "a"), null);
  assert.deepEqual(nextSort(["b", "desc"], "a"), ["a", "asc"]);
});

test("long and odd texts fit one line", () => {
  assert.equal(oneLine("a\nb\0"), "a ↵ b␀");
  assert.ok(oneLine("x".repeat(1_000_000)).length < 300);
  assert.equal(oneLine(null), "");
  assert.equal(numberText(-0.5), "−0.500");
  assert.equal(numberText(null), "–");
});

test("a diff names the words that went and came, and spells both texts", () => {
  assert.deepEqual(wordDiff("I can not help you", "I can help you now"), [
    { kind: "same", text: "I can " },
    { kind: "gone", text: "not " },
    { kind: "same", text: "help " },
    { kind: "gone", text: "you" },
    { kind: "new", text: "you now" },
  ]);
  assert.deepEqual(wordDiff("same", "same"), [{ kind: "same", text: "same" }]);
  assert.deepEqual(wordDiff("", "new"), [{ kind: "new", text: "new" }]);
  let seed = 7;
  const words = () => Array.from({ length: 12 }, () => "abc "[(seed = (seed * 16807) % 2147483647) % 4]).join(" ");
  for (let k = 0; k < 200; k++) {
    const [before, after] = [words(), words()];
    const spelled = (kind) => wordDiff(before, after).filter((each) => each.kind === "same" || each.kind === kind).map((each) => each.text).join("");
    assert.equal(spelled("gone"), before);
    assert.equal(spelled("new"), after);
  }
});

test("two long and quite different texts are set side by side, not aligned word by word", () => {
  const [before, after] = ["a ".repeat(100_000), "b ".repeat(100_000)];
  assert.deepEqual(wordDiff(before, after).map((each) => each.kind), ["gone", "new"]);
});
