// The same prompt in two ways: many tokens per denoising step, and one. Each has the
// device for itself, one after the other; what is shown side by side is played back from
// what was measured.
import { draw } from "./canvas.js";
import { figures, record, spread } from "./recording.js";

const $ = (id) => document.getElementById(id);
const SHOWN_SECONDS = 8; // that a race takes at least, so that one can watch it
const TURNS = 3; // of each, alternately; the fastest counts
const LANES = [{}, { policy: "one_by_one" }];

export class Race {
  constructor() {
    this.timer = null;
    $("race-again").addEventListener("click", () => this.play());
    $("race-close").addEventListener("click", () => this.close());
  }

  /** Runs both, then plays them back; returns the figures of both. */
  async run(request, signal) {
    this.open();
    this.lanes = [];
    for (const more of LANES) await record(request, { signal, more }); // warms caches
    const found = LANES.map(() => []);
    for (let turn = 0; turn < TURNS; turn += 1) {
      for (const [number, more] of LANES.entries()) found[number].push(await record(request, { signal, more }));
    }
    const end = (recording) => recording.frames.at(-1).at;
    this.lanes = found.map((recordings) => {
      const recording = recordings.reduce((best, each) => (end(each) < end(best) ? each : best));
      return { recording, times: spread(recording.frames), shown: -1 };
    });
    this.play();
    return this.lanes.map(({ recording }) => figures(recording));
  }

  open() {
    this.stop();
    $("single").hidden = true;
    $("race-view").hidden = false;
    for (const number of LANES.keys()) {
      $(`racer-${number}`).replaceChildren();
      $(`progress-${number}`).value = 0;
      $(`result-${number}`).textContent = "";
      $(`racer-${number}`).closest(".lane").classList.remove("first");
    }
    $("race-note").textContent = "Both run, one after the other, before they are shown …";
  }

  close() {
    this.stop();
    $("single").hidden = false;
    $("race-view").hidden = true;
  }

  stop() {
    cancelAnimationFrame(this.timer);
    this.timer = null;
  }

  play() {
    this.stop();
    if (this.lanes?.length !== LANES.length) return;
    const longest = Math.max(...this.lanes.map(({ recording }) => recording.frames.at(-1).at));
    const slower = Math.max(1, SHOWN_SECONDS / longest);
    const isStill = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const began = isStill ? -1e9 : performance.now();
    this.lanes.forEach((lane) => (lane.shown = -1));
    $("race-note").textContent =
      "Both lanes are this model; the second unmasks one token per step, from the left. " +
      (slower > 1 ? `Played back ${slower.toFixed(1)} times slower than it ran.` : "Played back as fast as it ran.");
    const frame = (now) => {
      const seconds = (now - began) / 1000 / slower;
      this.lanes.forEach((lane, number) => this.draw(lane, number, seconds));
      const isOver = this.lanes.every((lane) => lane.shown === lane.times.length - 1);
      this.timer = isOver ? null : requestAnimationFrame(frame);
    };
    this.timer = requestAnimationFrame(frame);
  }

  draw(lane, number, seconds) {
    const { recording, times } = lane;
    const last = times.length - 1;
    let shown = lane.shown;
    while (shown < last && times[shown + 1] <= seconds) shown += 1;
    if (shown === lane.shown) return;
    lane.shown = shown;
    draw($(`racer-${number}`), recording.frames[shown].canvas);
    const found = figures(recording, shown);
    const whole = figures(recording);
    $(`progress-${number}`).value = shown === last ? 1 : found.tokens / Math.max(1, whole.tokens);
    $(`result-${number}`).textContent = line(found, times[shown]);
    const other = this.lanes[1 - number];
    if (shown === last && recording.frames.at(-1).at <= other.recording.frames.at(-1).at) {
      $(`racer-${number}`).closest(".lane").classList.add("first");
    }
  }
}

const line = (found, seconds) =>
  `${found.tokens} tokens, ${found.forwards} forward passes (${found.perForward.toFixed(2)} tokens each), ` +
  `${(1000 * seconds).toFixed(0)} ms, ${Math.round(found.tokens / seconds)} tokens per second`;
