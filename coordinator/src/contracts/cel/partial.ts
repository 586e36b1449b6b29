/**
 * Parts of messages with required fields (proto2). A message that is made of constants, copies and evaluated fields is encoded in these
 * parts, each of which lacks what the others hold.
 */
import type { DescField, DescMessage } from "@bufbuild/protobuf";
import { FeatureSet_FieldPresence } from "@bufbuild/protobuf/wkt";

const { LEGACY_REQUIRED, EXPLICIT } = FeatureSet_FieldPresence;

/** Whether a message without the field has no encoding. */
export const isRequired = (field: DescField): boolean => field.presence === LEGACY_REQUIRED;

const partials = new WeakMap<DescMessage, DescMessage>();

/** The same type without required fields, to encode a part of a message with. Not for what is in its fields. */
export function partialOf(desc: DescMessage): DescMessage {
  if (!desc.fields.some(isRequired)) return desc;
  const known = partials.get(desc);
  if (known !== undefined) return known;
  const optional = { value: EXPLICIT, enumerable: true };
  const fields = desc.fields.map(
    (field): DescField => (isRequired(field) ? Object.create(field, { presence: optional }) : field),
  );
  const partial: DescMessage = Object.create(desc, { fields: { value: fields, enumerable: true } });
  partials.set(desc, partial);
  return partial;
}
