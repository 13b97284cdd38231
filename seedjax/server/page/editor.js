// The editor: CodeMirror with what a page of Python takes, as four functions.
import {
  EditorView,
  HighlightStyle,
  LRLanguage,
  bracketMatching,
  defaultKeymap,
  drawSelection,
  history,
  historyKeymap,
  indentUnit,
  keymap,
  lineNumbers,
  pythonParser,
  syntaxHighlighting,
  tags,
} from "./vendor/codemirror.js";

const COLOURS = HighlightStyle.define([
  { tag: [tags.keyword, tags.controlKeyword, tags.definitionKeyword, tags.operatorKeyword], class: "tok-keyword" },
  { tag: tags.string, class: "tok-string" },
  { tag: [tags.number, tags.bool, tags.null], class: "tok-number" },
  { tag: tags.comment, class: "tok-comment" },
]);

/** An editor inside `parent`. Tab moves the focus on, as everywhere on the page. */
export function makeEditor(parent) {
  const view = new EditorView({
    parent,
    extensions: [
      lineNumbers(),
      history(),
      drawSelection(),
      bracketMatching(),
      indentUnit.of("    "),
      LRLanguage.define({ parser: pythonParser }),
      syntaxHighlighting(COLOURS),
      EditorView.lineWrapping,
      EditorView.contentAttributes.of({ "aria-label": "Code", spellcheck: "false" }),
      keymap.of([...defaultKeymap, ...historyKeymap].filter(({ key }) => key !== "Mod-Enter")),
    ],
  });
  return {
    text: () => view.state.doc.toString(),
    selection: () => {
      const { from, to } = view.state.selection.main;
      return { from, to };
    },
    /** Replaces the whole text; `from` to `to` is selected after it. */
    set(text, from, to = from) {
      view.dispatch({
        changes: { from: 0, to: view.state.doc.length, insert: text },
        selection: { anchor: from, head: to },
        scrollIntoView: true,
      });
    },
    focus: () => view.focus(),
  };
}
