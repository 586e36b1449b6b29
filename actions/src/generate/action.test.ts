import { runAction } from "@taskmesh/action-sdk/testing";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { builtinDescriptors } from "../gen/descriptors.js";
import {
  LoginRequest,
  type LoginResponse,
  NumberRequest,
  type NumberResponse,
} from "../gen/taskmesh/generate/v1/generate.js";
import { generateActions } from "./action.js";

const [number, login] = generateActions();
const options = { descriptors: builtinDescriptors };
const numberOf = async (input: Partial<NumberRequest>) => {
  const { output, failure } = await runAction(number!, NumberRequest.fromPartial(input));
  return { value: (output as NumberResponse | undefined)?.value, failure };
};
const loginOf = async (input: Partial<LoginRequest>) => {
  const { output, failure } = await runAction(login!, LoginRequest.fromPartial(input));
  return { login: (output as LoginResponse | undefined)?.login ?? "", failure };
};

const int64Max = 9_223_372_036_854_775_807n;

describe("Number", () => {
  it("stays within any range, both ends included", async () => {
    const range = fc.tuple(fc.bigInt(-int64Max - 1n, int64Max), fc.bigInt(-int64Max - 1n, int64Max));
    await fc.assert(
      fc.asyncProperty(range, async ([a, b]) => {
        const [min, max] = a < b ? [a, b] : [b, a];
        const { value } = await numberOf({ min, max });
        expect(value! >= min && value! <= max).toBe(true);
      }),
    );
    const seen = new Set<bigint>();
    // The chance to miss one of four values in 400 draws is below 10^-49.
    for (let turn = 0; turn < 400; turn++) seen.add((await numberOf({ min: -1n, max: 2n })).value!);
    expect([...seen].toSorted((a, b) => Number(a - b))).toEqual([-1n, 0n, 1n, 2n]);
  });

  it("draws from the whole of int64, from what JSON keeps by default, and refuses an empty range", async () => {
    expect((await numberOf({ min: -int64Max - 1n, max: int64Max })).failure).toBeUndefined();
    for (let turn = 0; turn < 100; turn++) expect(Number.isSafeInteger(Number((await numberOf({})).value))).toBe(true);
    expect(await numberOf({ min: 7n, max: 7n })).toMatchObject({ value: 7n });
    expect((await numberOf({ min: 1n, max: 0n })).failure).toMatchObject({ reason: "RANGE_INVALID", retryable: false });
  });

  it("is not biased towards small numbers", async () => {
    // Of 3 * 2^62 numbers, a plain remainder would draw the lowest third twice as often (6.7 standard deviations of 2,000 draws away).
    const max = 3n * (1n << 61n) - 1n;
    let low = 0;
    for (let turn = 0; turn < 2_000; turn++) if ((await numberOf({ max })).value! < max / 3n) low++;
    expect(Math.abs(low - 667)).toBeLessThan(6 * Math.sqrt(2_000 * (1 / 3) * (2 / 3)));
  });
});

describe("Login", () => {
  it("has the length, alphabet and prefix that it was asked for, and sensible ones by default", async () => {
    expect((await loginOf({})).login).toMatch(/^[a-hjkmnp-z2-9]{12}$/);
    expect((await loginOf({ length: 40, alphabet: "xyxy" })).login).toMatch(/^[xy]{40}$/);
    expect((await loginOf({ length: 10, prefix: "team-" })).login).toMatch(/^team-[a-z2-9]{5}$/);
    expect([...(await loginOf({ length: 5, alphabet: "😀ü" })).login]).toHaveLength(5);
    for (let turn = 0; turn < 50; turn++) {
      expect((await loginOf({ alphabet: "ab0123456789", startWithLetter: true })).login).toMatch(/^[ab]/);
    }
    expect((await loginOf({ length: 3, alphabet: "01", startWithLetter: true })).login).toMatch(/^[01]{3}$/);
  });

  it("makes a different one each time", async () => {
    const made = new Set<string>();
    for (let turn = 0; turn < 200; turn++) made.add((await loginOf({ length: 20 })).login);
    expect(made.size).toBe(200);
  });

  it.each([
    ["ALPHABET_INVALID", { alphabet: "aaaa" }],
    ["LENGTH_INVALID", { length: 4, prefix: "team" }],
    ["INPUT_INVALID", { length: 257 }],
    ["INPUT_INVALID", { length: -1 }],
  ])("refuses with %s: %j", async (reason, input) => {
    const { failure } = await runAction(login!, LoginRequest.fromPartial(input), options);
    expect(failure).toMatchObject({ reason, retryable: false });
  });
});
