// Asks a server through ai-sdk: node ai_sdk.cjs BASE_URL; prints what came back as JSON.
const { createOpenAICompatible } = require("@ai-sdk/openai-compatible");
const { generateObject, generateText, jsonSchema, streamText } = require("ai");

const provider = createOpenAICompatible({
  name: "seedjax",
  baseURL: process.argv[2],
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const given = { prompt: "Write gcd.", maxOutputTokens: 12, temperature: 0, maxRetries: 0 };
const chat = { ...given, model: provider("tiny") };
const schema = jsonSchema({
  type: "object",
  properties: { ok: { type: "boolean" } },
  required: ["ok"],
  additionalProperties: false,
});

async function main() {
  const whole = await generateText({ ...chat, system: "Be brief." });
  const stream = streamText({ ...chat, stopSequences: ["never written"] });
  const pieces = [];
  for await (const piece of stream.textStream) pieces.push(piece);
  const object = await generateObject({ ...chat, schema });
  const text = await generateText({ ...given, model: provider.completionModel("tiny") });
  const refused = await generateText({ ...chat, presencePenalty: 1 }).catch((error) => error);
  return {
    whole: { text: whole.text, usage: whole.usage },
    stream: { pieces, reason: await stream.finishReason, usage: await stream.usage },
    object: object.object,
    text: text.text,
    refused: { status: refused.statusCode, message: refused.message },
  };
}

main().then((found) => console.log(JSON.stringify(found)));
