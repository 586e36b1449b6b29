/** Changes of rpcs, of validation rules, and of what authors promise. */
import {
  type Change,
  gone,
  limited,
  loose,
  none,
  order,
  otherwise,
  part,
  receipt,
  rpc,
  tight,
} from "./change-forms-fixture.js";

const action = (option: string) => `rpc Do(Order) returns (Receipt) { option (taskmesh.v1.action) = { ${option} }; }`;
const level = (option: string) => `rpc Do(Order) returns (Receipt) { option idempotency_level = ${option}; }`;
const plain = "rpc Do(Order) returns (Receipt);";

export const rpcs: Change[] = [
  rpc(
    "another input type",
    [plain, "rpc Do(Part) returns (Receipt);"],
    [["RPC_SAME_REQUEST_TYPE O/Do"], ["RPC_SAME_REQUEST_TYPE O/Do"]],
  ),
  rpc(
    "another output type",
    [plain, "rpc Do(Order) returns (Part);"],
    [["RPC_SAME_RESPONSE_TYPE O/Do"], ["RPC_SAME_RESPONSE_TYPE O/Do"]],
  ),
  rpc(
    "a stream in",
    [plain, "rpc Do(stream Order) returns (Receipt);"],
    [["RPC_SAME_CLIENT_STREAMING O/Do"], ["RPC_SAME_CLIENT_STREAMING O/Do"]],
  ),
  rpc(
    "a stream out",
    [plain, "rpc Do(Order) returns (stream Receipt);"],
    [["RPC_SAME_SERVER_STREAMING O/Do"], ["RPC_SAME_SERVER_STREAMING O/Do"]],
  ),
  rpc(
    "streams both ways",
    [plain, "rpc Do(stream Order) returns (stream Receipt);"],
    [
      ["RPC_SAME_CLIENT_STREAMING O/Do", "RPC_SAME_SERVER_STREAMING O/Do"],
      ["RPC_SAME_CLIENT_STREAMING O/Do", "RPC_SAME_SERVER_STREAMING O/Do"],
    ],
  ),
  rpc(
    "another idempotency level",
    [plain, level("IDEMPOTENT")],
    [["RPC_SAME_IDEMPOTENCY_LEVEL O/Do"], ["RPC_SAME_IDEMPOTENCY_LEVEL O/Do"]],
  ),
  rpc(
    "no side effects any more",
    [level("IDEMPOTENT"), level("NO_SIDE_EFFECTS")],
    [["RPC_SAME_IDEMPOTENCY_LEVEL O/Do"], ["RPC_SAME_IDEMPOTENCY_LEVEL O/Do"]],
  ),
  rpc("idempotent", [plain, action("idempotent: true")], [none, ["MESH_IDEMPOTENCY_LOST O/Do"]]),
  rpc("exclusive", [plain, action("exclusive: true")], [none, ["MESH_EXCLUSIVE_LOST O/Do"]]),
  rpc("an inverse", [plain, action('inverse: "a.v1.O/Undo"')], [none, ["MESH_INVERSE_CHANGED O/Do"]]),
  rpc(
    "another inverse",
    [action('inverse: "a.v1.O/Undo"'), action('inverse: "a.v1.O/Redo"')],
    [["MESH_INVERSE_CHANGED O/Do"], ["MESH_INVERSE_CHANGED O/Do"]],
  ),
  rpc("another time limit", [plain, action("start_to_close: { seconds: 5 }")], [none, none]),
];

export const rules: Change[] = [
  order(
    "an input becomes sensitive",
    ["string a = 1;", "string a = 1 [(taskmesh.v1.sensitive) = true];"],
    [none, ["MESH_SENSITIVITY_REMOVED Order.a"]],
  ),
  receipt(
    "an output becomes sensitive",
    ["string a = 1;", "string a = 1 [(taskmesh.v1.sensitive) = true];"],
    [none, ["MESH_SENSITIVITY_REMOVED Receipt.a"]],
  ),
  ...limited("string", "", "required = true"),
  ...limited("string", "", "string.min_len = 1"),
  ...limited("string", "string.max_len = 9", "string.max_len = 5"),
  ...limited("string", "", "string.email = true"),
  ...limited("string", "string.in = 'x', (buf.validate.field).string.in = 'y'", "string.in = 'x'"),
  ...limited("string", "string.not_in = 'x'", "string.not_in = 'x', (buf.validate.field).string.not_in = 'y'"),
  ...limited("int32", "int32.gte = 1", "int32.gt = 1"),
  ...limited("int32", "int32.lt = 10", "int32.lte = 8"),
  ...limited("double", "double.lte = 1.5", "double.lte = 1.25"),
  ...limited("repeated string", "", "repeated.unique = true"),
  ...limited("repeated string", "repeated.items.string.min_len = 1", "repeated.items.string.min_len = 2"),
  ...limited("map<string, string>", "map.max_pairs = 5", "map.max_pairs = 4"),
  ...limited("int32", "ignore = IGNORE_ALWAYS", "ignore = IGNORE_IF_ZERO_VALUE"),
  ...otherwise("string", "string.pattern = '^a'", "string.pattern = '^b'"),
  ...otherwise("int32", "int32.const = 1", "int32.const = 2"),
  ...otherwise("int32", "int32 = { lt: 1, gt: 10 }", "int32 = { lt: 2, gt: 10 }"),
  ...limited("string", "", `cel = { id: "x", message: "no", expression: "this != 'x'" }`),
  part(
    "a rule of a type in both",
    ["string a = 1;", "string a = 1 [(buf.validate.field).string.max_len = 3];"],
    [tight("Part.a"), loose("Part.a")],
  ),
  order(
    "a rule of the message",
    [
      "string a = 1;",
      'option (buf.validate.message).cel = { id: "x", message: "no", expression: "this.a != \'\'" }; string a = 1;',
    ],
    [tight("Order"), none],
  ),
  order(
    "a oneof is required",
    ["oneof o { string a = 1; }", "oneof o { option (buf.validate.oneof).required = true; string a = 1; }"],
    [tight("Order.o"), none],
  ),
  order(
    "a field that must be there is added",
    ["", "string a = 1 [(buf.validate.field).required = true];"],
    [["MESH_FIELD_REQUIRED Order.a"], gone("Order.a")],
  ),
  order(
    "a field that must not be empty is added",
    ["", "string a = 1 [(buf.validate.field).string.min_len = 1];"],
    [["MESH_FIELD_REQUIRED Order.a"], gone("Order.a")],
  ),
  order(
    "a field with rules for what is there is added",
    ["", "optional string a = 1 [(buf.validate.field).string.min_len = 1];"],
    [none, gone("Order.a")],
  ),
  receipt(
    "a field that must be there is added to an output",
    ["", "string a = 1 [(buf.validate.field).required = true];"],
    [none, gone("Receipt.a")],
  ),
];
