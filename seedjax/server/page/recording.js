// A request while it is denoised: its canvases, and when each of them came.
import { stream } from "./api.js";

/** Sends a request and collects its canvases; `onFrame` is called after each. */
export async function record(request, { signal, onFrame = () => {}, more = {} }) {
  const began = performance.now();
  const recording = { frames: [], text: "", reason: null, warning: null, seconds: 0 };
  for await (const event of stream(request.path, { ...request.body, ...more }, signal)) {
    for (const choice of event.choices) {
      if (choice.canvas) {
        recording.frames.push({ at: (performance.now() - began) / 1000, canvas: choice.canvas });
      }
      recording.reason = choice.finish_reason ?? recording.reason;
      recording.warning = choice.warning ?? event.warning ?? recording.warning;
      recording.content = choice.delta?.content || recording.content;
      if (choice.canvas) onFrame(recording);
    }
  }
  recording.seconds = (performance.now() - began) / 1000;
  const last = recording.frames.at(-1);
  recording.text = last ? last.canvas.cells.map((cell) => cell.text).join("") : "";
  recording.refused = recording.content === "None";
  return recording;
}

/** New tokens, forward passes and rates of a recording, up to a frame of it. */
export function figures(recording, number = recording.frames.length - 1) {
  const frame = recording.frames[number];
  if (!frame) return null;
  const written = (cell) => cell.token !== null && cell.state !== "deleted";
  const tokens = frame.canvas.cells.filter(written).length;
  const forwards = frame.canvas.step + 1;
  return { tokens, forwards, perForward: tokens / forwards, perSecond: tokens / frame.at };
}

/** The time of each frame. The steps of a block come together when it is done: they are
 * spread evenly over the time that it took. */
export function spread(frames) {
  const times = [];
  let start = 0;
  for (let first = 0; first < frames.length; ) {
    let end = first;
    while (end + 1 < frames.length && frames[end + 1].at - frames[end].at < 0.001) end += 1;
    const count = end - first + 1;
    const length = frames[end].at - start;
    for (let n = 1; n <= count; n += 1) times.push(start + (length * n) / count);
    start = frames[end].at;
    first = end + 1;
  }
  return times;
}
