"""The report as one HTML file: no network, no other file, light and dark, by keyboard.

What models wrote goes into the page as JSON and from there into text nodes alone, so
that nothing of it is ever read as markup.
"""

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from seedjax.evaluate.report.table import HEAD, cells, problems_of, remarks

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #5c6670; --page: #fcfcfd;
  --card: #fff; --line: #dde1e6; --good: #1a7f4b; --bad: #b3372f; --new: #ffe08a;
  --chosen: #e4eefb; --focus: #2f7ed8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --soft: #9aa4ae;
  --page: #14171a; --card: #1b1f23; --line: #343b42; --good: #5fc48f; --bad: #f0857c;
  --new: #6d5711; --chosen: #223348; --focus: #6aaef5; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 78rem; padding: 1.5rem; color: var(--ink);
  background: var(--page); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 1rem; }
h2 { font-size: 1.15rem; margin: 2rem 0 .6rem; }
h3 { font-size: 1rem; margin: 0 0 .5rem; overflow-wrap: anywhere; }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px;
  background: var(--card); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .7rem; text-align: left; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
tr:last-child td { border-bottom: 0; } th { color: var(--soft); font-weight: 600; }
td.number, th.number { text-align: right; }
.ours td { font-weight: 600; }
.soft, figcaption { color: var(--soft); } figure { margin: 1rem 0; }
figure svg { max-width: 100%; height: auto; }
.columns { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill,
  minmax(22rem, 1fr)); align-items: start; }
.controls { display: flex; flex-wrap: wrap; gap: .6rem 1rem; margin-bottom: .8rem; }
.browser { display: grid; gap: 1rem; grid-template-columns: 17rem minmax(0, 1fr); }
@media (max-width: 48rem) { .browser { grid-template-columns: 1fr; } }
#list { list-style: none; margin: 0; padding: 0; height: 32rem; overflow-y: auto;
  border: 1px solid var(--line); border-radius: 6px; background: var(--card); }
#list li { padding: .25rem .6rem; cursor: pointer; overflow-wrap: anywhere; }
#list li[aria-selected=true] { background: var(--chosen); }
.mark { display: inline-block; width: 1.3em; } .passed { color: var(--good); }
.failed { color: var(--bad); }
pre { margin: .3rem 0 .9rem; padding: .7rem; overflow-x: auto; background: var(--card);
  border: 1px solid var(--line); border-radius: 6px; white-space: pre-wrap;
  overflow-wrap: anywhere; font: 13px/1.45 ui-monospace, monospace; }
pre mark { background: var(--new); color: inherit; border-radius: 2px; }
pre .open { color: var(--soft); opacity: .6; }
select, input, button { font: inherit; color: inherit; background: var(--card);
  border: 1px solid var(--line); border-radius: 5px; padding: .2rem .5rem; }
button { cursor: pointer; } button[aria-pressed=true] { background: var(--chosen); }
:focus-visible { outline: 2px solid var(--focus); outline-offset: 1px; }
.player { display: flex; gap: .7rem; align-items: center; }
.player input { flex: 1; padding: 0; }
"""

_SCRIPT = """
"use strict";
const runs = JSON.parse(document.getElementById("answers").textContent);
const $ = id => document.getElementById(id);
const make = (tag, text, name) => {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (name) node.className = name;
  return node;
};
const MARKS = {true: "\\u2713", false: "\\u2717", null: "\\u2013"};
let shown = [], at = 0, sample = 0, timer = null;

// A problem passes if one of its answers does; null where nothing was run.
const verdict = problem => {
  const found = problem.answers.map(a => a.passed);
  return found.includes(true) ? true : found.includes(false) ? false : null;
};
const colour = passed => passed === null ? "soft" : passed ? "passed" : "failed";

function fill() {
  const wanted = $("filter").value, word = $("search").value.toLowerCase();
  shown = runs[$("run").value].problems.filter(problem =>
    (wanted === "all" || String(verdict(problem)) === wanted) &&
    (!word || JSON.stringify(problem).toLowerCase().includes(word)));
  $("list").replaceChildren(...shown.map((problem, n) => {
    const item = make("li");
    item.id = "problem-" + n;
    item.setAttribute("role", "option");
    const passed = verdict(problem);
    const mark = make("span", MARKS[passed], "mark " + colour(passed));
    mark.setAttribute("aria-label", passed === null ? "not run"
      : passed ? "passed" : "failed");
    item.append(mark, problem.id);
    item.addEventListener("click", () => choose(n));
    return item;
  }));
  $("count").textContent = shown.length + " problems";
  choose(0);
}

function choose(n) {
  stop();
  at = Math.max(0, Math.min(n, shown.length - 1));
  sample = 0;
  [...$("list").children].forEach((item, m) =>
    item.setAttribute("aria-selected", String(m === at)));
  const item = $("list").children[at];
  if (item) {
    $("list").setAttribute("aria-activedescendant", item.id);
    // Scrolls the list alone: the page stays where its reader is.
    const top = item.offsetTop - $("list").offsetTop;
    if (top < $("list").scrollTop) $("list").scrollTop = top;
    const end = top + item.offsetHeight - $("list").clientHeight;
    if (end > $("list").scrollTop) $("list").scrollTop = end;
  }
  show();
}

function section(title, text) {
  return text ? [make("div", title, "soft"), make("pre", text)] : [];
}

function show() {
  const pane = $("pane"), problem = shown[at];
  if (!problem) { pane.replaceChildren(make("p", "No such problem.", "soft")); return; }
  const parts = [make("h3", problem.id)];
  for (const [name, text] of Object.entries(problem.asked))
    parts.push(...section(name, text));
  const answer = problem.answers[sample];
  if (problem.answers.length > 1) {
    const row = make("div", undefined, "controls");
    problem.answers.forEach((other, n) => {
      const tries = other.turn ? ", try " + (other.turn + 1) : "";
      const button = make("button",
        MARKS[other.passed] + " sample " + (other.sample + 1) + tries);
      button.setAttribute("aria-pressed", String(n === sample));
      button.addEventListener("click", () => {
        stop(); sample = n; show();
        pane.querySelectorAll(".controls button")[n].focus();
      });
      row.append(button);
    });
    parts.push(row);
  }
  if (answer) {
    const line = make("p");
    line.append(make("strong", answer.passed === null ? "not run"
      : answer.passed ? "passed" : answer.reason, colour(answer.passed)));
    const size = answer.forwards ? " \\u00b7 " + answer.tokens + " tokens in "
      + answer.forwards + " forward passes" : "";
    line.append(answer.message && !answer.passed ? ": " + answer.message : "", size,
      answer.finished ? "" : " \\u00b7 cut off by the budget");
    parts.push(line, ...section("the model wrote", answer.text || "(nothing)"),
      ...section("of which was judged", answer.answer),
      ...section("the program printed", answer.output));
  }
  pane.replaceChildren(...parts);
  // Steps are kept of the first sample.
  if (problem.steps.length && answer && answer.sample === 0 && answer.turn === 0)
    pane.append(player(problem.steps));
}

function player(steps) {
  const box = make("section"), row = make("div", undefined, "player");
  const slider = make("input"), view = make("pre"), told = make("span", "", "soft");
  const play = make("button", "play");
  const length = 1 + Math.max(...steps.flatMap(step => step[2]));
  slider.type = "range"; slider.min = 0; slider.max = steps.length;
  slider.value = steps.length;
  slider.setAttribute("aria-label", "refinement step");
  const draw = () => {
    const count = Number(slider.value), pieces = new Array(length).fill(null);
    const fresh = new Set();
    steps.slice(0, count).forEach(([block, step, places, texts], n) =>
      places.forEach((place, m) => {
        pieces[place] = texts[m];
        if (n === count - 1) fresh.add(place);
      }));
    view.replaceChildren(...pieces.map((piece, place) =>
      piece === null ? make("span", "\\u2591", "open")
        : fresh.has(place) ? make("mark", piece) : document.createTextNode(piece)));
    told.textContent = count ? "step " + count + " of " + steps.length + ", block "
      + (steps[count - 1][0] + 1) : "all masked";
    slider.setAttribute("aria-valuetext", told.textContent);
  };
  slider.addEventListener("input", () => { stop(); draw(); });
  play.addEventListener("click", () => {
    if (timer) { stop(); return; }
    if (Number(slider.value) >= steps.length) slider.value = 0;
    play.textContent = "pause";
    timer = {button: play, id: setInterval(() => {
      slider.value = Number(slider.value) + 1;
      draw();
      if (Number(slider.value) >= steps.length) stop();
    }, 120)};
    draw();
  });
  row.append(play, slider, told);
  box.append(make("div", "how it was decided", "soft"), row, view);
  draw();
  return box;
}

function stop() {
  if (!timer) return;
  clearInterval(timer.id);
  timer.button.textContent = "play";
  timer = null;
}

runs.forEach((run, n) => {
  const option = make("option", run.name);
  option.value = n;
  $("run").append(option);
});
["run", "filter"].forEach(id => $(id).addEventListener("change", fill));
$("search").addEventListener("input", fill);
$("list").addEventListener("keydown", event => {
  const page = 12, moves = {ArrowDown: at + 1, ArrowUp: at - 1, Home: 0,
    End: shown.length - 1, PageDown: at + page, PageUp: at - page};
  if (!(event.key in moves)) return;
  event.preventDefault();
  choose(moves[event.key]);
});
fill();
"""

# Nothing may be loaded, whatever a model wrote.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def make_page(
    found: Mapping[str, Any],
    runs: Sequence[Mapping[str, Any]],
    pictures: Mapping[str, str],
) -> str:
    """The page.

    Args:
      found: the report, as `report.report` makes it.
      runs: what the browser shows, as `report.browsed` makes it.
      pictures: SVG by name ("quality", "beside"); empty ones are left out.
    """
    scores = _table(HEAD, [cells(entry) for entry in found["runs"]], first=3)
    said = "".join(
        f"<li>{escape(remark)}</li>"
        for entry in found["runs"]
        for remark in remarks(entry)
    )
    devices = sorted({_device(entry["machine"]) for entry in found["runs"]})
    parts = [
        "<h1>Scores</h1>",
        scores,
        f"<ul class=soft>{said}</ul>" if said else "",
        f"<p class=soft>{escape('; '.join(devices))}</p>",
        _quality(found, pictures.get("quality", "")),
        _beside(found, pictures.get("beside", "")),
        _BROWSER,
        _settings(found),
    ]
    # As "<" is the only way into markup, no text can end the element that holds it.
    data = json.dumps(runs, ensure_ascii=True).replace("<", "\\u003c")
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>seedjax eval</title>\n<style>{_STYLE}</style>\n<body>\n"
        + "\n".join(filter(None, parts))
        + f'\n<script type="application/json" id="answers">{data}</script>\n'
        f"<script>{_SCRIPT}</script>\n</body>\n</html>\n"
    )


_BROWSER = """<h2 id="browse">Problems</h2>
<div class="controls">
<label>Run <select id="run"></select></label>
<label>Show <select id="filter"><option value="all">all</option>
<option value="true">passed</option><option value="false">failed</option>
<option value="null">not run</option></select></label>
<label>Find <input id="search" type="search" size="16"></label>
<span id="count" class="soft" role="status"></span>
</div>
<div class="browser">
<ul id="list" role="listbox" tabindex="0" aria-label="problems"></ul>
<div id="pane"></div>
</div>"""


def _device(machine: Mapping[str, Any]) -> str:
    if not machine:
        return "answers of another system"
    return (
        f"{machine['devices']} x {machine['device']}, {machine['cpus']} processors, "
        f"jax {machine['jax']}"
    )


def _table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, first: int, ours: int = 0
) -> str:
    """A table whose columns from `first` on are numbers, and whose first `ours` rows
    stand out."""

    def row(cells: Sequence[str], tag: str, name: str = "") -> str:
        made = [
            f"<{tag}{' class=number' if n >= first else ''}>{escape(cell)}</{tag}>"
            for n, cell in enumerate(cells)
        ]
        return f"<tr{name}>{''.join(made)}</tr>"

    body = [row(r, "td", " class=ours" if n < ours else "") for n, r in enumerate(rows)]
    return (
        f'<div class="wide" role="region" aria-label="{escape(head[0])}" tabindex="0">'
        f"<table><thead>{row(head, 'th')}</thead>"
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _figure(picture: str, caption: str) -> str:
    if not picture:
        return ""
    return (
        f'<figure role="img" aria-label="{escape(caption)}">{picture}'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _quality(found: Mapping[str, Any], picture: str) -> str:
    caption = "pass@1 with 95 % intervals against tokens a forward pass"
    rows = [
        [curve["suite"], curve["model"], f"{curve['aup']:.1f}"]
        for curve in found["curves"]
    ]
    made = _figure(picture, caption)
    if rows:
        made += _table(("suite", "model", "AUP"), rows, first=2)
    return f"<h2>Quality against speed</h2>{made}" if made else ""


def _beside(found: Mapping[str, Any], picture: str) -> str:
    if not found["beside"]:
        return ""
    cards = []
    for column in found["beside"]:
        ours = [[name, f"{o['score']:.1f}"] for name, o in column["ours"].items()]
        printed = [[name, f"{s:.1f}"] for name, s in column["printed"].items()]
        notes = "".join(
            f"<p class=soft>{escape(name)}: {escape(note)}.</p>"
            for name, note in column["misprints"].items()
        )
        counts = {problems_of({"left_out": {}} | o) for o in column["ours"].values()}
        here = f"Here over {' or '.join(sorted(counts))} problems."
        said = f"{column['condition']}. {column['source']}. {here}"
        cards.append(
            f"<section><h3>{escape(column['title'])}</h3>"
            + _table(("system", "score"), ours + printed, first=1, ours=len(ours))
            + f"<p class=soft>{escape(said)}</p>{notes}</section>"
        )
    speeds = [
        [s["system"], f"{s['tokens_per_second']:.0f}", s["condition"]]
        for s in found["speeds"]
    ]
    return (
        "<h2>Beside what is printed</h2>"
        + _figure(picture, "scores here among the printed ones")
        + f'<div class="columns">{"".join(cards)}</div>'
        + "<h3>Printed rates (tokens a second)</h3>"
        + _table(("system", "tokens/s", "measured"), speeds, first=9)
    )


def _settings(found: Mapping[str, Any]) -> str:
    made = [
        f"<details><summary>{escape(entry['settings']['suite'])}: "
        f"{escape(entry['model'])}, {escape(entry['recipe'])}: "
        f"{escape(entry['title'])}</summary>"
        f"<pre>{escape(json.dumps(entry['settings'], indent=1))}</pre></details>"
        for entry in found["runs"]
    ]
    return f"<h2>Settings</h2>{''.join(made)}"
