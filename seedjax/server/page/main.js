// The page: buttons, the server's state, and one request at a time.
import { ApiError, get, post } from "./api.js";
import { makeEditor } from "./editor.js";
import { EXAMPLES } from "./examples.js";
import { Player } from "./player.js";
import { Race } from "./race.js";
import { record } from "./recording.js";
import * as requests from "./requests.js";
import { makeTour } from "./tour.js";

const $ = (id) => document.getElementById(id);
const editor = makeEditor($("editor"));
const player = new Player();
const race = new Race();
let running = null; // the AbortController of the request in flight
let finished = null; // {request, text, code}: to accept or to reject
let keepsFeedback = false;

const say = (text) => ($("status").textContent = text);

/** Runs one thing at a time; whatever goes wrong becomes the status. */
async function busy(work) {
  if (running) running.abort();
  const own = (running = new AbortController());
  for (const id of ["generate", "infill", "repair", "edit", "race"]) $(id).disabled = true;
  $("stop").disabled = false;
  judge(null);
  try {
    await work(own.signal);
  } catch (error) {
    if (error.name === "AbortError") say("Stopped.");
    else if (error instanceof ApiError) {
      say(`Refused: ${error.message}`);
      if (error.status === 401) $("key").closest("details").open = true;
    } else throw error;
  } finally {
    if (running === own) {
      running = null;
      for (const id of ["generate", "infill", "repair", "edit", "race"]) $(id).disabled = false;
      $("stop").disabled = true;
    }
  }
}

const denoise = (request) =>
  busy(async (signal) => {
    const code = editor.text();
    race.close();
    player.follow(request.before, request.after);
    say("Denoising …");
    const recording = await record(request, { signal, onFrame: (found) => player.grow(found) });
    recording.ended = true;
    const count = recording.frames.at(-1).canvas.step + 1;
    const why = { stop: "", length: " The budget of tokens was used up." }[recording.reason] ?? "";
    if (recording.refused) return say(`Not handed out: ${recording.warning.replace("ignored: ", "")}.`);
    say(`Done: ${recording.frames.at(-1).canvas.cells.length} tokens in ${count} denoising steps.${why}`);
    judge({ request, text: recording.text, code });
  });

const startRace = () =>
  busy(async (signal) => {
    say("Racing …");
    const request = requests.generate(editor.text(), editor.selection());
    const [many, one] = await race.run(request, signal);
    const times = (many.perSecond / one.perSecond).toFixed(1);
    const fewer = (many.perForward / one.perForward).toFixed(1);
    say(`Diffusion wrote ${times} times as many tokens per second, ${fewer} times as many per forward pass.`);
  });

/** Offers a completion to be accepted or rejected; null offers none. */
function judge(found) {
  finished = found;
  $("accept").disabled = $("reject").disabled = !found;
}

async function decide(accepted) {
  const { request, text, code } = finished;
  if (accepted && editor.text() !== code) return say("The code has changed since; run it again.");
  if (accepted) editor.set(request.apply(text), request.before.length + text.length);
  judge(null);
  say(accepted ? "Accepted: it is in the code." : "Rejected.");
  if (accepted) editor.focus();
  if (!keepsFeedback) return;
  try {
    show(await post("v1/feedback", { ...request.choice, completion: text, accepted }));
  } catch (error) {
    say(`Feedback is not stored: ${error.message}`);
  }
}

const show = ({ accepted, rejected }) =>
  ($("feedback").textContent = `Feedback is stored on the server: ${accepted} accepted, ${rejected} rejected.`);

/** Asks until the model is ready. */
async function connect() {
  for (;;) {
    try {
      const found = await get("v1/models");
      const [model] = found.data;
      const tokens = $("tokens");
      tokens.max = model.max_output_length;
      tokens.value = Math.min(tokens.value, tokens.max);
      const health = await fetch("health");
      if (health.ok) {
        $("server").textContent = `model ${model.id}, ready`;
        break;
      }
      $("server").textContent = `model ${model.id}, ${(await health.json()).status} …`;
    } catch (error) {
      $("server").textContent = error.message;
      if (error.status === 401) $("key").closest("details").open = true;
    }
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
  const counts = await get("v1/feedback").catch(() => null);
  keepsFeedback = counts !== null;
  if (counts) show(counts);
  else $("feedback").textContent = "Feedback is not stored.";
}

function choose(example) {
  const { text, from, to, instruction = "" } = EXAMPLES[example];
  editor.set(text, from, to);
  $("instruction").value = instruction;
}

for (const name of Object.keys(EXAMPLES)) $("examples").append(new Option(name, name));
$("examples").addEventListener("change", () => choose($("examples").value));
const actions = {
  generate: () => denoise(requests.generate(editor.text(), editor.selection())),
  infill: () => denoise(requests.infill(editor.text(), editor.selection())),
  repair: () => denoise(requests.edit(editor.text(), editor.selection(), requests.REPAIR)),
  race: startRace,
  stop: () => running?.abort(),
  accept: () => decide(true),
  reject: () => decide(false),
};
for (const [id, action] of Object.entries(actions)) $(id).addEventListener("click", action);
$("edit-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const instruction = $("instruction").value.trim();
  if (!instruction) return say("Write an instruction first.");
  denoise(requests.edit(editor.text(), editor.selection(), instruction));
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") running?.abort();
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    actions.generate();
  }
});
$("key").value = sessionStorage.getItem("seedjax-key") ?? "";
$("key").addEventListener("change", () => sessionStorage.setItem("seedjax-key", $("key").value));

const tour = makeTour(() => {
  choose(Object.keys(EXAMPLES)[0]);
  actions.generate();
});
$("open-tour").addEventListener("click", () => tour.open());
choose(Object.keys(EXAMPLES)[0]);
await connect();
if (tour.isNew()) tour.open();
