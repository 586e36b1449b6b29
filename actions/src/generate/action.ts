/**
 * The actions of `taskmesh.generate.v1.GenerateActions`: random values from the system's secure source.
 *
 * Both draw without modulo bias: a draw above the largest multiple of the range is thrown away and repeated.
 */
import { randomBytes } from "node:crypto";
import { type AnyAction, defineAction, fail } from "@taskmesh/action-sdk";
import {
  GenerateActionsService,
  type LoginRequest,
  type LoginResponse,
  type NumberRequest,
  type NumberResponse,
} from "../gen/taskmesh/generate/v1/generate.js";

/** The largest integer that every JSON reader keeps exactly. */
const maxDefault = 9_007_199_254_740_991n;
const lengthDefault = 12;
/** As the contract says. */
const lengthMax = 256;
/** Without 0, o, 1, l and i, which people mistake for each other. */
const alphabetDefault = "abcdefghjkmnpqrstuvwxyz23456789";

/** Makes the actions. */
export function generateActions(): AnyAction[] {
  return [
    defineAction(GenerateActionsService.number, generateNumber),
    defineAction(GenerateActionsService.login, generateLogin),
  ];
}

function generateNumber(input: NumberRequest): NumberResponse {
  const min = input.min ?? 0n;
  const max = input.max ?? maxDefault;
  if (min > max) throw fail.final("RANGE_INVALID", `min ${min} is above max ${max}`);
  return { value: min + drawBelow(max - min + 1n) };
}

/** A random integer of 0 … bound - 1, every one equally likely; `bound` is at most 2^64. */
function drawBelow(bound: bigint): bigint {
  const space = 1n << 64n;
  const usable = space - (space % bound);
  // Each turn succeeds with a probability above one half.
  for (;;) {
    const drawn = randomBytes(8).readBigUInt64BE();
    if (drawn < usable) return drawn % bound;
  }
}

function generateLogin(input: LoginRequest): LoginResponse {
  const length = input.length || lengthDefault;
  const prefix = [...input.prefix];
  if (length > lengthMax || prefix.length >= length) {
    throw fail.final(
      "LENGTH_INVALID",
      `a login of ${length} characters has no room after a prefix of ${prefix.length}`,
    );
  }
  // By code points, so that no character is torn.
  const alphabet = [...new Set(input.alphabet || alphabetDefault)];
  if (alphabet.length < 2) throw fail.final("ALPHABET_INVALID", "the alphabet needs at least two different characters");
  const letters = alphabet.filter((char) => /\p{L}/u.test(char));
  const first = input.startWithLetter && letters.length > 0 ? letters : alphabet;
  const drawn = Array.from({ length: length - prefix.length }, (_, index) => {
    const from = index === 0 ? first : alphabet;
    return from[Number(drawBelow(BigInt(from.length)))];
  });
  return { login: input.prefix + drawn.join("") };
}
