import { describe, expect, it } from "vitest";
import { NonceWatch } from "./nonce-watch.js";

describe("nonce watch", () => {
  it("counts the age from the sending of the newest nonce that came back", () => {
    const watch = new NonceWatch(0);
    watch.sent("a", 1_000);
    watch.sent("b", 2_000);
    expect(watch.ageMs(5_000)).toBe(5_000);
    watch.echoed("b");
    watch.echoed("a");
    expect(watch.ageMs(5_000)).toBe(3_000);
  });

  it("believes no nonce that it did not send", () => {
    const watch = new NonceWatch(0);
    watch.echoed("");
    watch.echoed("forged");
    expect(watch.ageMs(9_000)).toBe(9_000);
  });

  it("forgets nonces that are too old to prove anything", () => {
    const watch = new NonceWatch(0);
    for (let sent = 0; sent < 20; sent += 1) watch.sent(`n${sent}`, sent * 1_000);
    watch.echoed("n1");
    expect(watch.ageMs(20_000)).toBe(20_000);
    watch.echoed("n19");
    expect(watch.ageMs(20_000)).toBe(1_000);
  });

  it("starts anew when the carrier was away, and never goes back", () => {
    const watch = new NonceWatch(0);
    watch.restart(8_000);
    watch.restart(3_000);
    expect(watch.ageMs(10_000)).toBe(2_000);
  });
});
