/** Brings text into one form. Linear in the text. */
import { LetterCase, type NormalizeRequest, UnicodeForm } from "../gen/taskmesh/text/v1/text.js";

/** The text in the form that the request asks for. */
export function normalizeText(request: NormalizeRequest): string {
  let { text } = request;
  if (request.stripControl ?? true) text = stripControl(text);
  if (request.stripDiacritics) text = text.normalize("NFD").replace(/\p{Mn}/gu, "");
  text = toForm(text, request.form);
  if (request.letterCase === LetterCase.LETTER_CASE_LOWER) text = text.toLowerCase();
  if (request.letterCase === LetterCase.LETTER_CASE_UPPER) text = text.toUpperCase();
  // Changing case can take a text out of its form.
  if (request.letterCase !== LetterCase.LETTER_CASE_UNSPECIFIED) text = toForm(text, request.form);
  if (request.collapseWhitespace ?? true) text = text.replace(/\s+/gu, " ");
  return (request.trim ?? true) ? text.trim() : text;
}

function toForm(text: string, form: UnicodeForm): string {
  switch (form) {
    case UnicodeForm.UNICODE_FORM_UNSPECIFIED:
    case UnicodeForm.UNICODE_FORM_NFC:
      return text.normalize("NFC");
    case UnicodeForm.UNICODE_FORM_NFKC:
      return text.normalize("NFKC");
    case UnicodeForm.UNICODE_FORM_NONE:
      return text;
  }
}

/** Without control and format characters, but with tab and line ends, and with the joiners that emoji and many scripts need. */
function stripControl(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}]/gu, (char) => (/[\t\n\v\f\r\u0085\u200c\u200d]/.test(char) ? char : ""));
}
