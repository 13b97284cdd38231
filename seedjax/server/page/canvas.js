// A canvas as cells on the page: one for each token, told apart by colour and by shape.

const AHEAD = 24; // masked positions drawn beyond the current block
const SIGNS = { "\n": "↵\n", "\t": "→\t" };

/** Draws a canvas of the server into an element. */
export function draw(element, canvas) {
  const changed = new Set(canvas.changed);
  const cells = document.createDocumentFragment();
  let place = 0;
  canvas.cells.forEach((cell, number) => {
    const span = document.createElement("span");
    const isFresh = cell.state !== "deleted" && changed.has(place);
    span.className = `cell ${cell.state}${isFresh ? " fresh" : ""}`;
    span.id = `${element.id}-${number}`;
    span.dataset.number = number;
    if (cell.state !== "deleted") place += 1;
    if (element.getAttribute("role") === "listbox") {
      span.setAttribute("role", "option");
      span.setAttribute("aria-label", describe(cell, number));
    }
    if (cell.token !== null) write(span, cell.text);
    cells.append(span);
  });
  const left = canvas.length - canvas.end;
  if (left > 0 && canvas.block !== null) cells.append(ahead(left));
  element.replaceChildren(cells);
}

/** The positions after the current block, all of them masked. */
function ahead(count) {
  const rest = document.createElement("span");
  rest.className = "rest";
  rest.setAttribute("role", "presentation");
  for (let n = 0; n < Math.min(count, AHEAD); n += 1) {
    rest.append(Object.assign(document.createElement("span"), { className: "cell masked" }));
  }
  if (count > AHEAD) rest.append(` … ${count - AHEAD} more`);
  return rest;
}

/** A token's text, with a sign for what would be invisible. */
function write(span, text) {
  if (text === "") return span.append(sign("∎"));
  for (const part of text.split(/(\n|\t)/)) {
    if (part in SIGNS) span.append(sign(SIGNS[part][0]), SIGNS[part].slice(1));
    else if (part) span.append(part);
  }
}

function sign(text) {
  const span = document.createElement("span");
  span.className = "sign";
  span.textContent = text;
  return span;
}

/** A cell in words. */
export function describe(cell, number) {
  const where = `${number + 1}: `;
  if (cell.token === null) return `${where}masked`;
  const text = cell.text === "" ? "end of text" : JSON.stringify(cell.text);
  const sure = cell.confidence === null ? "" : `, confidence ${(100 * cell.confidence).toFixed(1)} %`;
  return `${where}${text}, ${cell.state}${sure}`;
}

/** Lets a pointer and the arrow keys say of each cell what it is; `of` gives the canvas. */
export function inspect(element, output, of) {
  let current = -1;
  function point(number) {
    const cells = of()?.cells ?? [];
    element.querySelector(".pointed")?.classList.remove("pointed");
    current = Math.max(-1, Math.min(number, cells.length - 1));
    const span = element.children[current];
    if (!span || current < 0) return element.removeAttribute("aria-activedescendant");
    span.classList.add("pointed");
    element.setAttribute("aria-activedescendant", span.id);
    output.textContent = describe(cells[current], current);
  }
  element.addEventListener("pointerover", (event) => {
    const span = event.target.closest("[data-number]");
    if (span) point(Number(span.dataset.number));
  });
  element.addEventListener("keydown", (event) => {
    const last = (of()?.cells.length ?? 0) - 1;
    const moves = {
      ArrowRight: current + 1,
      ArrowDown: current + 1,
      ArrowLeft: Math.max(0, current - 1),
      ArrowUp: Math.max(0, current - 1),
      Home: 0,
      End: last,
    };
    if (!(event.key in moves)) return;
    event.preventDefault();
    point(moves[event.key]);
    element.children[current]?.scrollIntoView({ block: "nearest" });
  });
  return { again: () => current >= 0 && point(current) };
}
