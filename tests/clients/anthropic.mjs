// Anthropic's Node client against frugal serve: node anthropic.mjs URL KEY
import assert from "node:assert/strict";
import { test } from "node:test";
import Anthropic from "@anthropic-ai/sdk";

const [url, apiKey] = process.argv.slice(2);
const client = new Anthropic({ baseURL: url, apiKey, maxRetries: 0, timeout: 120_000 });
const messages = [{ role: "user", content: "What is the capital of France?" }];
const ask = { model: "smol", messages, max_tokens: 24, temperature: 0, system: "Be brief." };

test("a message, as a whole and as a stream", async () => {
  const whole = await client.messages.create(ask);
  assert.equal(whole.type, "message");
  assert.ok(whole.content[0].text.length > 2);
  const stream = client.messages.stream(ask);
  let text = "";
  stream.on("text", (part) => (text += part));
  const final = await stream.finalMessage();
  assert.equal(text, whole.content[0].text);
  assert.equal(final.content[0].text, text);
  assert.equal(final.stop_reason, whole.stop_reason);
  assert.equal(final.usage.output_tokens, whole.usage.output_tokens);
});

test("events come in Anthropic's order", async () => {
  const types = [];
  for await (const event of await client.messages.create({ ...ask, max_tokens: 3, stream: true })) types.push(event.type);
  assert.deepEqual(types.slice(0, 2), ["message_start", "content_block_start"]);
  assert.deepEqual(types.slice(-3), ["content_block_stop", "message_delta", "message_stop"]);
  assert.ok(types.slice(2, -3).every((type) => type === "content_block_delta"));
});

test("an aborted stream ends at once", async () => {
  const stream = client.messages.stream({ ...ask, max_tokens: 4000, messages: [{ role: "user", content: "Count to a thousand." }] });
  stream.on("text", () => stream.abort());
  await assert.rejects(stream.finalMessage(), Anthropic.APIUserAbortError);
});

test("tokens are counted, stop sequences obeyed", async () => {
  const { input_tokens } = await client.messages.countTokens({ model: "smol", messages, system: "Be brief." });
  const whole = await client.messages.create(ask);
  const usage = whole.usage;
  assert.equal(input_tokens, usage.input_tokens + usage.cache_read_input_tokens);
  const stop = whole.content[0].text.slice(3, 6);
  const cut = await client.messages.create({ ...ask, stop_sequences: [stop] });
  assert.equal(cut.stop_reason, "stop_sequence");
  assert.equal(cut.stop_sequence, stop);
});

test("errors have their types", async () => {
  await assert.rejects(client.messages.create({ ...ask, temperature: 3 }),
    (error) => error instanceof Anthropic.BadRequestError && error.error.type === "error" && /temperature/.test(error.message));
  await assert.rejects(client.messages.create({ ...ask, model: "claude" }), Anthropic.NotFoundError);
  await assert.rejects(client.messages.create({ ...ask, messages: [{ role: "user", content: [{ type: "image", source: { type: "base64", media_type: "image/png", data: "" } }] }] }),
    Anthropic.BadRequestError);
  const stranger = new Anthropic({ baseURL: url, apiKey: "wrong", maxRetries: 0 });
  await assert.rejects(stranger.messages.create(ask), Anthropic.AuthenticationError);
});

test("models are listed", async () => {
  const ids = [];
  for await (const model of client.models.list()) ids.push(model.id);
  assert.deepEqual(ids, ["smol"]);
});
