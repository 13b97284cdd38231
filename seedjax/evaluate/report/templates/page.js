"use strict";
const runs = JSON.parse(document.getElementById("answers").textContent);
const $ = id => document.getElementById(id);
const make = (tag, text, name) => {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (name) node.className = name;
  return node;
};
const MARKS = {true: "\u2713", false: "\u2717", null: "\u2013"};
let shown = [], at = 0, sample = 0, timer = null;

// A problem passes if one of its answers does; null where nothing was run.
const verdict = problem => {
  const found = problem.answers.map(a => a.passed);
  return found.includes(true) ? true : found.includes(false) ? false : null;
};
const colour = passed => passed === null ? "soft" : passed ? "passed" : "failed";

function fill() {
  const kind = $("filter").value, word = $("search").value.toLowerCase();
  shown = runs[$("run").value].problems.filter(problem =>
    (kind === "all" || String(verdict(problem)) === kind) &&
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
  for (const [name, text] of Object.entries(problem.prompt))
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
    const size = answer.forwards ? " \u00b7 " + answer.tokens + " tokens in "
      + answer.forwards + " forward passes" : "";
    line.append(answer.message && !answer.passed ? ": " + answer.message : "", size,
      answer.finished ? "" : " \u00b7 cut off by the budget");
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
  const slider = make("input"), view = make("pre"), note = make("span", "", "soft");
  const play = make("button", "play");
  const length = 1 + Math.max(...steps.flatMap(step => step[2]));
  slider.type = "range"; slider.min = 0; slider.max = steps.length;
  slider.value = steps.length;
  slider.setAttribute("aria-label", "denoising step");
  const draw = () => {
    const count = Number(slider.value), pieces = new Array(length).fill(null);
    const fresh = new Set();
    steps.slice(0, count).forEach(([block, step, places, texts], n) =>
      places.forEach((place, m) => {
        pieces[place] = texts[m];
        if (n === count - 1) fresh.add(place);
      }));
    view.replaceChildren(...pieces.map((piece, place) =>
      piece === null ? make("span", "\u2591", "open")
        : fresh.has(place) ? make("mark", piece) : document.createTextNode(piece)));
    note.textContent = count ? "step " + count + " of " + steps.length + ", block "
      + (steps[count - 1][0] + 1) : "all masked";
    slider.setAttribute("aria-valuetext", note.textContent);
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
  row.append(play, slider, note);
  box.append(make("div", "how it was unmasked", "soft"), row, view);
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
