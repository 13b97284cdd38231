// Requests to the server that sent this page.

/** A refusal of the server; its message is one line for people. */
export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function request(path, options) {
  const key = document.getElementById("key").value.trim();
  const headers = { "Content-Type": "application/json" };
  if (key) headers.Authorization = `Bearer ${key}`;
  let response;
  try {
    response = await fetch(path, { headers, ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "the server does not answer");
  }
  if (response.ok) return response;
  const found = await response.json().catch(() => ({}));
  throw new ApiError(response.status, found.error?.message ?? `status ${response.status}`);
}

export const get = async (path) => (await request(path, {})).json();

export const post = async (path, body) =>
  (await request(path, { method: "POST", body: JSON.stringify(body) })).json();

/** The events of a stream, as they come; leaving early ends the request. */
export async function* stream(path, body, signal) {
  const response = await request(path, { method: "POST", body: JSON.stringify(body), signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    rest += value;
    let end;
    while ((end = rest.indexOf("\n\n")) >= 0) {
      const data = rest.slice(0, end).replace(/^data: /, "");
      rest = rest.slice(end + 2);
      if (data === "[DONE]") return;
      const event = JSON.parse(data);
      if (event.error) throw new ApiError(0, event.error.message);
      yield event;
    }
  }
  throw new ApiError(0, "the server ended the stream early");
}
