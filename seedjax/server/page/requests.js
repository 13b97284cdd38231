// What can be asked of the model, and how its completion goes back into the code.
//
// A request has
//   path, body   for the server
//   before       text around the completion, to be shown
//   after
//   apply        (completion) => the whole code with it
//   choice       what feedback on the completion is about

export const REPAIR = "Fix the function so that it does what the docstring says.";

const settings = () => ({
  max_tokens: Number(document.getElementById("tokens").value),
  temperature: Number(document.getElementById("temperature").value),
  seed: Number(document.getElementById("seed").value),
  stream: true,
  stream_mode: "denoise",
});

/** Continues the text before the cursor. */
export function generate(text, { from }) {
  const prompt = text.slice(0, from);
  return {
    path: "v1/completions",
    body: { prompt, ...settings() },
    before: prompt,
    after: "",
    apply: (completion) => prompt + completion + text.slice(from),
    choice: { prompt },
  };
}

/** Writes what stands between the two sides of a selection, or at the cursor. */
export function infill(text, { from, to }) {
  const [prompt, suffix] = [text.slice(0, from), text.slice(to)];
  return {
    path: "v1/completions",
    body: { prompt, suffix, ...settings() },
    before: prompt,
    after: suffix,
    apply: (completion) => prompt + completion + suffix,
    choice: { prompt, suffix },
  };
}

/** Changes the selected code, or all of it, as an instruction says. */
export function edit(text, { from, to }, instruction) {
  const [start, end] = from === to ? [0, text.length] : [from, to];
  const code = text.slice(start, end);
  const content = `<|code_to_edit|>\n${code}\n<|/code_to_edit|>\n${instruction}`;
  const { max_tokens, ...rest } = settings(); // a program is as long as it is
  return {
    path: "v1/edit/completions",
    body: { messages: [{ role: "user", content }], ...rest },
    before: text.slice(0, start),
    after: text.slice(end),
    apply: (completion) => text.slice(0, start) + completion + text.slice(end),
    choice: { prompt: code, instruction },
  };
}
