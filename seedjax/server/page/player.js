// The time slider: shows a recording's canvases at a pace that eyes can follow.
import { draw, inspect } from "./canvas.js";
import { figures } from "./recording.js";

const $ = (id) => document.getElementById(id);
const STILL = matchMedia("(prefers-reduced-motion: reduce)");

export class Player {
  constructor() {
    this.recording = null;
    this.shown = -1;
    this.timer = null;
    this.inspector = inspect($("canvas"), $("token"), () => this.canvas);
    $("step").addEventListener("input", () => {
      this.pause();
      this.show(Number($("step").value));
    });
    $("play").addEventListener("click", () => (this.timer ? this.pause() : this.replay()));
    $("pace").addEventListener("change", () => this.timer && this.start());
  }

  get canvas() {
    return this.recording?.frames[this.shown]?.canvas;
  }

  /** Begins with a recording that is being made. */
  follow(before, after) {
    this.pause();
    [this.recording, this.shown] = [null, -1];
    $("canvas").replaceChildren();
    $("before").textContent = before.split("\n").slice(-7).join("\n");
    $("after").textContent = after.split("\n").slice(0, 5).join("\n");
    $("token").textContent = "Point at a token, or move to it with the arrow keys.";
    for (const name of ["tokens", "forwards", "per-forward", "per-second"]) {
      $(`figure-${name}`).textContent = "–";
    }
    this.wants = "live";
  }

  /** A recording has one more canvas. */
  grow(recording) {
    this.recording = recording;
    const slider = $("step");
    slider.disabled = $("play").disabled = false;
    slider.max = recording.frames.length - 1;
    if (this.wants !== "live") return;
    if (STILL.matches || Number($("pace").value) === 0) this.show(recording.frames.length - 1);
    else if (!this.timer) this.start();
  }

  start() {
    clearInterval(this.timer);
    this.timer = setInterval(() => this.tick(), Number($("pace").value) || 16);
    $("play").textContent = "Pause";
  }

  tick() {
    const last = this.recording.frames.length - 1;
    if (this.shown < last) this.show(this.shown + 1);
    if (this.shown >= last && this.recording.ended) this.pause();
  }

  pause() {
    clearInterval(this.timer);
    this.timer = this.wants = null;
    $("play").textContent = "Play";
  }

  replay() {
    if (this.shown >= this.recording.frames.length - 1) this.show(0);
    this.start();
  }

  /** Shows one canvas. */
  show(number) {
    const { recording } = this;
    const frame = recording.frames[number];
    this.shown = number;
    draw($("canvas"), frame.canvas);
    this.inspector.again();
    const block = frame.canvas.block === null ? "done" : `block ${frame.canvas.block + 1}`;
    const text = `${number + 1} of ${recording.frames.length}, ${block}`;
    $("step").value = number;
    $("step").setAttribute("aria-valuetext", text);
    $("step-text").textContent = text;
    const found = figures(recording, number);
    $("figure-tokens").textContent = found.tokens;
    $("figure-forwards").textContent = found.forwards;
    $("figure-per-forward").textContent = found.perForward.toFixed(2);
    $("figure-per-second").textContent = Math.round(found.perSecond);
  }
}
