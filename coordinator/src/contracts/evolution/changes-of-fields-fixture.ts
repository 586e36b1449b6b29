/** Changes of fields. */
import {
  type Change,
  cardinality,
  gone,
  none,
  oneof,
  order,
  part,
  receipt,
  resigned,
  retyped,
  sign,
  type,
} from "./change-forms-fixture.js";

export const fields: Change[] = [
  part("nothing", ["string a = 1;", "string a = 1;"], [none, none]),
  part("a comment", ["string a = 1;", "/* said */ string a = 1;"], [none, none]),
  order("a field is added", ["string a = 1;", "string a = 1; string b = 2;"], [none, gone("Order.b")]),
  receipt("a field is added", ["string a = 1;", "string a = 1; string b = 2;"], [none, gone("Receipt.b")]),
  order(
    "a field is reserved",
    ["string a = 1;", 'reserved 1; reserved "a";'],
    [none, ["RESERVED_MESSAGE_NO_DELETE Order"]],
  ),
  order(
    "only the number is reserved",
    ["string a = 1;", "reserved 1;"],
    [["FIELD_NO_DELETE_UNLESS_NAME_RESERVED Order.a"], ["RESERVED_MESSAGE_NO_DELETE Order"]],
  ),
  order(
    "only the name is reserved",
    ["string a = 1;", 'reserved "a";'],
    [["FIELD_NO_DELETE_UNLESS_NUMBER_RESERVED Order.a"], ["RESERVED_MESSAGE_NO_DELETE Order"]],
  ),
  order(
    "a reserved range shrinks",
    ["reserved 5 to 9;", "reserved 5 to 8;"],
    [["RESERVED_MESSAGE_NO_DELETE Order"], none],
  ),
  order("a reserved range is split", ["reserved 5 to 9;", "reserved 5 to 7, 8, 9;"], [none, none]),
  order("a reserved name goes", ['reserved "x", "y";', 'reserved "x";'], [["RESERVED_MESSAGE_NO_DELETE Order"], none]),
  order(
    "a field is renamed",
    ["string a = 1;", "string b = 1;"],
    [
      ["FIELD_SAME_NAME Order.b", "FIELD_SAME_JSON_NAME Order.b"],
      ["FIELD_SAME_NAME Order.a", "FIELD_SAME_JSON_NAME Order.a"],
    ],
  ),
  order(
    "a field is renamed under its JSON name",
    ["string a = 1;", 'string b = 1 [json_name = "a"];'],
    [["FIELD_SAME_NAME Order.b"], ["FIELD_SAME_NAME Order.a"]],
  ),
  order(
    "a JSON name changes",
    ["string a = 1;", 'string a = 1 [json_name = "x"];'],
    [["FIELD_SAME_JSON_NAME Order.a"], ["FIELD_SAME_JSON_NAME Order.a"]],
  ),
  order("a field is renumbered", ["string a = 1;", "string a = 2;"], [gone("Order.a"), gone("Order.a")]),
  order(
    "a number is used again",
    ["string a = 1;", 'int32 b = 1; reserved "a";'],
    [
      ["FIELD_SAME_NAME Order.b", "FIELD_SAME_JSON_NAME Order.b", ...type("Order.b")],
      [
        "FIELD_SAME_NAME Order.a",
        "FIELD_SAME_JSON_NAME Order.a",
        ...type("Order.a"),
        "RESERVED_MESSAGE_NO_DELETE Order",
      ],
    ],
  ),
  order(
    "two fields swap numbers",
    ["string a = 1; string b = 2;", "string b = 1; string a = 2;"],
    [
      [
        "FIELD_SAME_NAME Order.b",
        "FIELD_SAME_JSON_NAME Order.b",
        "FIELD_SAME_NAME Order.a",
        "FIELD_SAME_JSON_NAME Order.a",
      ],
      [
        "FIELD_SAME_NAME Order.b",
        "FIELD_SAME_JSON_NAME Order.b",
        "FIELD_SAME_NAME Order.a",
        "FIELD_SAME_JSON_NAME Order.a",
      ],
    ],
  ),
  part(
    "a single field becomes a list",
    ["string a = 1;", "repeated string a = 1;"],
    [cardinality("Part.a"), cardinality("Part.a")],
  ),
  part(
    "a single number becomes a list",
    ["int32 a = 1;", "repeated int32 a = 1;"],
    [cardinality("Part.a"), cardinality("Part.a")],
  ),
  part(
    "a list becomes a map",
    ["repeated string a = 1;", "map<string, string> a = 1;"],
    [
      [...cardinality("Part.a"), ...type("Part.a")],
      [...cardinality("Part.a"), ...type("Part.a")],
    ],
  ),
  part("a field gets presence", ["string a = 1;", "optional string a = 1;"], [none, none]),
  part("a list is packed otherwise", ["repeated int32 a = 1;", "repeated int32 a = 1 [packed = false];"], [none, none]),
  part(
    "a field joins a oneof",
    ["string a = 1; string b = 2;", "oneof o { string a = 1; } string b = 2;"],
    [oneof("Part.a"), oneof("Part.a")],
  ),
  part(
    "a field changes its oneof",
    ["oneof o { string a = 1; string b = 2; }", "oneof o { string a = 1; } oneof p { string b = 2; }"],
    [oneof("Part.b"), oneof("Part.b")],
  ),
  part(
    "a oneof is renamed",
    ["oneof o { string a = 1; string b = 2; }", "oneof p { string a = 1; string b = 2; }"],
    [oneof("Part.a", "Part.b"), oneof("Part.a", "Part.b")],
  ),
  part(
    "a oneof gets a member",
    ["oneof o { string a = 1; }", "oneof o { string a = 1; string b = 2; }"],
    [none, gone("Part.b")],
  ),
  part(
    "an optional field joins a oneof",
    ["optional string a = 1;", "oneof o { string a = 1; }"],
    [oneof("Part.a"), oneof("Part.a")],
  ),
  part(
    "a map gets another key",
    ["map<string, string> a = 1;", "map<int32, string> a = 1;"],
    [type("Part.a"), type("Part.a")],
  ),
  part(
    "a map gets another value",
    ["map<string, string> a = 1;", "map<string, int64> a = 1;"],
    [type("Part.a"), type("Part.a")],
  ),
  part(
    "a list gets other items",
    ["repeated string a = 1;", "repeated bytes a = 1;"],
    [type("Part.a"), type("Part.a")],
  ),
  part(
    "a map's key loses its sign",
    ["map<int32, string> a = 1;", "map<uint32, string> a = 1;"],
    [sign("Part.a"), sign("Part.a")],
  ),
  retyped("int32", "int64"),
  retyped("int32", "sint32"),
  retyped("int32", "fixed32"),
  retyped("int32", "bool"),
  retyped("int32", "string"),
  retyped("float", "double"),
  retyped("string", "bytes"),
  retyped("sint64", "int64"),
  retyped("string", "Order"),
  resigned("int32", "uint32"),
  resigned("int64", "uint64"),
  resigned("fixed32", "sfixed32"),
  resigned("fixed64", "sfixed64"),
];
