// OpenAI's Node client against frugal serve: node openai.mjs URL KEY
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";

const [url, apiKey] = process.argv.slice(2);
const client = new OpenAI({ baseURL: url + "/v1", apiKey, maxRetries: 0, timeout: 120_000 });
const messages = [{ role: "user", content: "What is the capital of France?" }];
const ask = { model: "smol", messages, temperature: 0, max_tokens: 24 };

test("chat, as a whole and as a stream", async () => {
  const whole = await client.chat.completions.create(ask);
  assert.ok(whole.choices[0].message.content.length > 20);
  assert.equal(whole.usage.total_tokens, whole.usage.prompt_tokens + whole.usage.completion_tokens);
  let text = "", usage = null, reason = null;
  for await (const event of await client.chat.completions.create({ ...ask, stream: true, stream_options: { include_usage: true } })) {
    text += event.choices[0]?.delta.content ?? "";
    reason = event.choices[0]?.finish_reason ?? reason;
    usage = event.usage ?? usage;
  }
  assert.equal(text, whole.choices[0].message.content);
  assert.equal(reason, whole.choices[0].finish_reason);
  assert.equal(usage.completion_tokens, whole.usage.completion_tokens);
});

test("the helper that gathers a stream", async () => {
  const runner = client.chat.completions.stream(ask);
  let text = "";
  runner.on("content", (part) => (text += part));
  const final = await runner.finalChatCompletion();
  assert.equal(final.choices[0].message.content, text);
  assert.equal(final.choices[0].message.role, "assistant");
});

test("completions with log-probabilities", async () => {
  const { choices } = await client.completions.create({ model: "smol", prompt: ["One, two,", "Hello"], max_tokens: 4, temperature: 0, logprobs: 2 });
  assert.deepEqual(choices.map((choice) => choice.index), [0, 1]);
  for (const { logprobs, text } of choices) {
    assert.equal(logprobs.tokens.join(""), text);
    assert.equal(Object.keys(logprobs.top_logprobs[0]).length, 2);
  }
});

test("an aborted stream ends at once, on both sides", async () => {
  const stream = await client.chat.completions.create({ ...ask, max_tokens: 4000, stream: true, ignore_eos: true });
  let events = 0;
  for await (const event of stream) {
    assert.equal(event.object, "chat.completion.chunk");
    if (++events === 5) stream.controller.abort();
  }
  assert.ok(events < 100);
  const controller = new AbortController();
  const waiting = client.chat.completions.create({ ...ask, max_tokens: 4000, ignore_eos: true }, { signal: controller.signal });
  setTimeout(() => controller.abort(), 100);
  await assert.rejects(waiting, OpenAI.APIUserAbortError);
  for (let i = 0; ; ++i) {
    const metrics = await (await fetch(url + "/metrics", { headers: { Authorization: `Bearer ${apiKey}` } })).text();
    if (/num_requests_running\{[^}]*\} 0$/m.test(metrics)) break;
    assert.ok(i < 50, "still running after 5 seconds");
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
});

test("errors have their types", async () => {
  await assert.rejects(client.chat.completions.create({ ...ask, temperature: 3 }),
    (error) => error instanceof OpenAI.BadRequestError && error.param === "temperature" && error.status === 400);
  await assert.rejects(client.chat.completions.create({ ...ask, model: "gpt-4" }),
    (error) => error instanceof OpenAI.NotFoundError && error.code === "model_not_found");
  const stranger = new OpenAI({ baseURL: url + "/v1", apiKey: "wrong", maxRetries: 0 });
  await assert.rejects(stranger.models.list(), OpenAI.AuthenticationError);
  await assert.rejects(client.chat.completions.create({ ...ask, stream: true, n: 9 }), OpenAI.BadRequestError);
});

test("models are listed", async () => {
  const ids = [];
  for await (const model of client.models.list()) ids.push(model.id);
  assert.deepEqual(ids, ["smol"]);
  assert.equal((await client.models.retrieve("smol")).object, "model");
});

test("answers have the structure of a schema", async () => {
  const schema = { type: "object", properties: { city: { enum: ["Paris", "Rome"] }, size: { type: "integer", minimum: 1, maximum: 99 } },
    required: ["city", "size"], additionalProperties: false };
  const format = { type: "json_schema", json_schema: { name: "city", strict: true, schema } };
  const { choices } = await client.chat.completions.create({ ...ask, temperature: 1, n: 3, response_format: format });
  for (const choice of choices) {
    const value = JSON.parse(choice.message.content);
    assert.deepEqual(Object.keys(value), ["city", "size"]);
    assert.ok(["Paris", "Rome"].includes(value.city) && Number.isInteger(value.size) && value.size >= 1 && value.size <= 99);
  }
  const parsed = await client.chat.completions.parse({ ...ask, response_format: format });
  assert.ok(["Paris", "Rome"].includes(JSON.parse(parsed.choices[0].message.content).city));
});
