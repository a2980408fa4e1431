import assert from "node:assert/strict";
import { test } from "node:test";
import { commonScale, share, signed, visibleToken } from "./widget.js";

test("white space and control characters are visible", () => {
  assert.equal(visibleToken("  the"), "··the");
  assert.equal(visibleToken("\n"), "↵");
  assert.equal(visibleToken("\t"), "⇥");
  assert.equal(visibleToken("\0"), "␀");
  assert.equal(visibleToken(""), "∅");
  assert.equal(visibleToken(" "), "·");
  assert.equal(visibleToken("تعلم"), "تعلم");
  assert.ok(visibleToken("x".repeat(1_000_000)).length < 300);
});

test("scores carry their sign", () => {
  assert.equal(signed(1.5), "+1.500");
  assert.equal(signed(-12.34), "−12.3");
  assert.equal(signed(0), "0");
  assert.equal(signed(null), "no score");
});

test("a share lies in [-1, 1] and is 0 where there is no score", () => {
  assert.equal(share(5, 2), 1);
  assert.equal(share(-1, 2), -0.5);
  assert.equal(share(null, 2), 0);
  assert.equal(share(1, 0), 0);
});

test("the scale is the one given or the largest score of all strips", () => {
  assert.equal(commonScale(3, []), 3);
  assert.equal(commonScale(0, [{ scores: [1, -4] }, { scores: [2, NaN, null] }]), 4);
  assert.equal(commonScale(0, []), 1);
});
