import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { isAllowed, parseAllowList } from "./egress.js";

const nothing = parseAllowList([]);

describe("egress", () => {
  it.each([
    ["loopback", "127.0.0.1"],
    ["loopback", "127.255.255.254"],
    ["this host", "0.0.0.0"],
    ["private", "10.0.0.1"],
    ["private", "172.16.0.1"],
    ["private", "172.31.255.255"],
    ["private", "192.168.1.1"],
    ["link-local, metadata", "169.254.169.254"],
    ["carrier-grade NAT", "100.64.0.1"],
    ["carrier-grade NAT, metadata", "100.100.100.200"],
    ["metadata at a public address", "168.63.129.16"],
    ["protocol assignments", "192.0.0.192"],
    ["documentation", "192.0.2.1"],
    ["benchmarks", "198.18.0.1"],
    ["multicast", "224.0.0.1"],
    ["broadcast", "255.255.255.255"],
    ["reserved", "240.0.0.1"],
    ["IPv6 loopback", "::1"],
    ["IPv6 unspecified", "::"],
    ["IPv6 link-local", "fe80::1"],
    ["IPv6 unique local", "fd00:ec2::254"],
    ["IPv6 site-local", "fec0::1"],
    ["IPv6 multicast", "ff02::1"],
    ["v4-mapped loopback", "::ffff:127.0.0.1"],
    ["v4-mapped in hex", "::ffff:a9fe:a9fe"],
    ["v4-compatible", "::127.0.0.1"],
    ["v4-compatible, public inside", "::8.8.8.8"],
    ["with a zone", "fe80::1%eth0"],
    ["6to4 of a private address", "2002:0a00:0001::1"],
    ["6to4 of a public address", "2002:0808:0808::1"],
    ["Teredo", "2001::1"],
    ["NAT64 of a private address", "64:ff9b::10.0.0.1"],
    ["documentation", "2001:db8::1"],
    ["not an address", "example.org"],
    ["not an address", ""],
  ])("refuses %s: %s", (_kind, address) => {
    expect(isAllowed(nothing, "some.host", address)).toBe(false);
  });

  it.each([
    "8.8.8.8",
    "1.1.1.1",
    "172.15.255.255",
    "172.32.0.1",
    "100.63.255.255",
    "100.128.0.1",
    "2606:4700::1",
    "64:ff9b::8.8.8.8",
  ])("allows the public address %s", (address) => {
    expect(isAllowed(nothing, "some.host", address)).toBe(true);
  });

  it("allows exactly what the list names", () => {
    const policy = parseAllowList([
      "127.0.0.1/32",
      "10.1.0.0/16",
      "fd00::/8",
      "::1",
      "Intranet.Example.",
      "192.168.7.7",
    ]);
    const allowed = (address: string, host = "h") => isAllowed(policy, host, address);
    expect([allowed("127.0.0.1"), allowed("127.0.0.2")]).toEqual([true, false]);
    expect([allowed("10.1.255.255"), allowed("10.2.0.0")]).toEqual([true, false]);
    expect([allowed("fd12::1"), allowed("fe80::1"), allowed("::1")]).toEqual([true, false, true]);
    expect([allowed("192.168.7.7"), allowed("192.168.7.8"), allowed("::ffff:192.168.7.7")]).toEqual([
      true,
      false,
      true,
    ]);
    expect([allowed("10.9.9.9", "intranet.example"), allowed("10.9.9.9", "intranet.example.")]).toEqual([true, true]);
    expect(allowed("10.9.9.9", "evil-intranet.example")).toBe(false);
  });

  it("names every entry that is wrong", () => {
    expect(() => parseAllowList(["127.0.0.1", "10.0.0.0/33", "http://x", "127.1", ""])).toThrow(
      'not an IP address, a CIDR range or a host name: "10.0.0.0/33", "http://x", "127.1", ""',
    );
  });

  it("never calls an IPv4 address public whose mapped IPv6 form is not, nor the other way round", () => {
    fc.assert(
      fc.property(fc.ipV4(), (address) => {
        expect(isAllowed(nothing, "h", `::ffff:${address}`)).toBe(isAllowed(nothing, "h", address));
      }),
    );
  });

  it("calls no address public that is outside of 2000::/3 and not NAT64", () => {
    fc.assert(
      fc.property(fc.ipV6(), (address) => {
        if (isAllowed(nothing, "h", address)) expect(address).toMatch(/^([23]...:|0*64:ff9b:|(0*:){1,6}ffff:)/i);
      }),
      { numRuns: 5_000 },
    );
  });
});
