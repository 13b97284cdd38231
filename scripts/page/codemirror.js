// The parts of CodeMirror 6 that the page's editor uses.
export {
  EditorView,
  drawSelection,
  keymap,
  lineNumbers,
} from "@codemirror/view";
export { defaultKeymap, history, historyKeymap } from "@codemirror/commands";
export {
  HighlightStyle,
  LRLanguage,
  bracketMatching,
  indentUnit,
  syntaxHighlighting,
} from "@codemirror/language";
export { tags } from "@lezer/highlight";
export { parser as pythonParser } from "@lezer/python";
