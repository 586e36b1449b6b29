/** Brings text into one form. Linear in the text. */
import { LetterCase, type NormalizeRequest, UnicodeForm } from "../gen/taskmesh/text/v1/text.js";

/** The text in the form that the request asks for. */
export function normalizeText(request: NormalizeRequest): string {
  let { text } = request;
  if (request.stripControl ?? true) text = stripControl(text);
  // Each of these can undo the one before: ℻ is FAX in NFKC and has to be made small after, İ made small has a dot to strip.
  text = toForm(text, request.form);
  text = toCase(text, request.letterCase);
  if (request.stripDiacritics) text = stripDiacritics(text, request.form);
  text = toForm(text, request.form);
  if (request.collapseWhitespace ?? true) text = text.replace(/\s+/gu, " ");
  return (request.trim ?? true) ? text.trim() : text;
}

function toCase(text: string, letterCase: LetterCase): string {
  if (letterCase === LetterCase.LETTER_CASE_LOWER) return text.toLowerCase();
  return letterCase === LetterCase.LETTER_CASE_UPPER ? text.toUpperCase() : text;
}

/** Takes characters apart first; those that are one only by compatibility, too, where the form does so. */
function stripDiacritics(text: string, form: UnicodeForm): string {
  return text.normalize(form === UnicodeForm.UNICODE_FORM_NFKC ? "NFKD" : "NFD").replace(/\p{Mn}/gu, "");
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
