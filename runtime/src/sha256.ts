import * as crypto from "node:crypto";

/** SHA-256 of `bytes`, 32 bytes. One shot: no hash object, which would cost more than hashing a small message. */
export function sha256(bytes: Uint8Array): Buffer {
  // Typed by hand: the declarations know hash() with a string result only in some releases of Node 20.
  return (crypto.hash as unknown as (algorithm: string, data: Uint8Array, encoding: "buffer") => Buffer)(
    "sha256",
    bytes,
    "buffer",
  );
}
