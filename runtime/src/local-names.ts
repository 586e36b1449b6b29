/**
 * Names of fields that every JavaScript object has already.
 *
 * protobuf-es keeps fields as properties of plain objects. It knows that `constructor`, `toString`, `toJSON` and `valueOf` are taken, and
 * appends a `$` to them; a field that is called `hasOwnProperty` reads as set where it is not, and its message can't be read at all.
 */
import type { DescFile, DescMessage } from "@bufbuild/protobuf";

/** Gives such fields and oneofs the names that the library would have given them. Call it once files are linked, before they are used. */
export function guardLocalNames(files: Iterable<DescFile>): void {
  for (const file of files) for (const message of file.messages) guard(message);
}

function guard(message: DescMessage): void {
  for (const member of [...message.fields, ...message.oneofs]) {
    if (member.localName in Object.prototype) Object.assign(member, { localName: `${member.localName}$` });
  }
  for (const nested of message.nestedMessages) guard(nested);
}
