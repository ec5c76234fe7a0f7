// node chat.mjs URL: sending, streaming, stopping, branches, parameters, what a reload keeps. The server has the model "smol".
import { accessible, ask, assert, button, ended, isFirefox, lastBody, message, run, setParameters, shot, turns } from "./support.mjs";

const [url] = process.argv.slice(2);

await run(async ({ open, step }) => {
  const page = await open(url, { expected: /status of 40[04]|ERR_FAILED/ });
  const answers = turns(page, "assistant");
  const body = await lastBody(page);

  await step("the welcome says which model answers", async () => {
    await page.getByText("answers from this machine").waitFor();
    assert.match(await page.locator(".welcome p").innerText(), /smol .*135 M weights, 98\.4 MB, 8,192 tokens/);
    await accessible(page, "welcome");
  });

  await step("an answer streams, with its rate and the context gauge", async () => {
    await setParameters(page, { Temperature: "0", "Most tokens": "24" });
    let steps = 0;
    await page.exposeFunction("grew", () => steps++);
    await page.evaluate(() => new MutationObserver(() => document.querySelector("article.streaming .prose") && window.grew()).observe(document.body, { subtree: true, childList: true, characterData: true }));
    await ask(page, "Name three colours.");
    await ended(page);
    assert.ok(steps > 3, `the answer came in ${steps} steps`);
    assert.ok((await answers.innerText()).length > 10);
    assert.match(await answers.locator(".figures").innerText(), /smol\s*·?\s*[\d.,]+ tok\/s\s*·?\s*\d+ tokens/);
    const [used, context] = await page.getByRole("meter", { name: "Context" }).evaluate((meter) => [meter.ariaValueNow, meter.ariaValueMax].map(Number));
    assert.ok(used > 24 && used < 100, `${used} tokens are used`);
    assert.equal(context, 8192);
    const { temperature, max_tokens, top_p } = await body();
    assert.deepEqual([temperature, max_tokens, top_p], [0, 24, undefined], "what is not set is not sent");
    await shot(page, "chat");
    await accessible(page, "chat");
  });

  await step("another answer is a branch", async () => {
    const first = await answers.locator(".prose").innerText();
    await setParameters(page, { Temperature: "2", Seed: "7" });
    await button(page, "Another answer").click();
    await page.getByText("2/2").waitFor();
    await ended(page);
    assert.notEqual(await answers.locator(".prose").innerText(), first);
    await button(page, "Earlier version").click();
    await page.getByText("1/2").waitFor();
    assert.equal(await answers.locator(".prose").innerText(), first);
    await setParameters(page, { Temperature: "0", Seed: "" });
  });

  await step("an edited message is a branch with its own answer", async () => {
    await turns(page, "user").hover();
    await button(page, "Edit this message").click();
    const editor = page.getByLabel("Edit the message");
    assert.equal(await editor.inputValue(), "Name three colours.");
    await editor.fill("Name three animals.");
    await editor.press("Enter");
    await turns(page, "user").getByText("Name three animals.").waitFor();
    await ended(page);
    assert.deepEqual((await body()).messages, [{ role: "user", content: "Name three animals." }]);
    await turns(page, "user").getByRole("button", { name: "Earlier version" }).click();
    await turns(page, "user").getByText("Name three colours.").waitFor();
    await turns(page, "assistant").getByText("1/2").waitFor();
  });

  await step("a second message carries the turns that are shown, and the system prompt", async () => {
    await setParameters(page, { "System prompt of this conversation": "You are brief.", "Most tokens": "8" });
    await message(page).fill("Two");
    await message(page).press("Shift+Enter");
    await message(page).pressSequentially("lines");
    await message(page).press("Enter");
    await ended(page);
    await page.waitForFunction(() => document.querySelectorAll("article.assistant").length === 2);
    const { messages } = await body();
    assert.deepEqual(messages.map((one) => one.role), ["system", "user", "assistant", "user"]);
    assert.equal(messages[3].content, "Two\nlines");
    await answers.last().getByText("cut off").waitFor();
  });

  await step("Escape and the button stop an answer; the server is told", async () => {
    await button(page, "Parameters").click();
    await page.getByLabel("Further fields of the request, as JSON").fill("{");
    await page.getByText("not a JSON object").waitFor();
    await page.getByLabel("Further fields of the request, as JSON").fill('{"ignore_eos": true}');
    await button(page, "Close the parameters").click();
    await setParameters(page, { "Most tokens": "" });
    for (const how of ["Escape", "button"]) {
      const gone = page.waitForEvent("requestfailed");
      await ask(page, "Count to a million.");
      await page.waitForFunction(() => document.querySelector("article.streaming .prose")?.textContent.length > 20);
      if (how === "Escape") await page.keyboard.press("Escape");
      else await button(page, "Stop").click();
      await ended(page);
      await gone;
      await answers.last().getByText("stopped").waitFor();
      assert.equal(await page.evaluate(() => document.activeElement.id), "message");
      assert.ok((await answers.last().locator(".prose").innerText()).length > 10, "what came stays");
    }
    const headers = { Accept: "text/plain" };
    for (let running = 1, tries = 0; running; tries++) {
      assert.ok(tries < 50, "the server still computes");
      running = Number(/num_requests_running\{[^}]*\} (\d+)/.exec(await (await fetch(`${url}metrics`, { headers })).text())[1]);
      await new Promise((done) => setTimeout(done, 100));
    }
  });

  await step("what the server refuses is shown with its words, and can be tried again", async () => {
    await button(page, "Parameters").click();
    await page.getByLabel("Further fields of the request, as JSON").fill('{"n": 100}');
    await button(page, "Close the parameters").click();
    const complaints = isFirefox || page.waitForEvent("console");
    await ask(page, "Hi");
    await page.getByRole("alert").getByText("n must be in 1..8, is 100").waitFor();
    await complaints;
    await button(page, "Parameters").click();
    await button(page, "All defaults").click();
    await page.getByLabel("Most tokens", { exact: true }).fill("5");
    await button(page, "Close the parameters").click();
    await button(page, "Try again").click();
    await page.getByRole("alert").waitFor({ state: "detached" });
    await ended(page);
  });

  await step("values out of range are brought into it", async () => {
    await setParameters(page, { Temperature: "9" });
    await button(page, "Parameters").click();
    const temperature = page.locator("#p-temperature");
    assert.equal(await temperature.inputValue(), "2");
    await button(page, "Temperature: the server's default").click();
    assert.equal(await temperature.inputValue(), "");
    assert.equal(await temperature.getAttribute("placeholder"), "1");
    await shot(page, "parameters");
    await accessible(page, "parameters");
    await button(page, "Close the parameters").click();
  });

  await step("a reload keeps conversations and parameters", async () => {
    const before = await page.locator(".measure").innerText();
    await page.waitForTimeout(400);
    await page.reload();
    await answers.first().waitFor();
    assert.equal(await page.locator(".measure").innerText(), before);
    await button(page, "Parameters").click();
    assert.equal(await page.locator("#p-max_tokens").inputValue(), "5");
    await button(page, "Close the parameters").click();
  });

  await step("reasoning is folded, calls of tools are JSON", async () => {
    const events = [
      { choices: [{ delta: { role: "assistant", content: "" } }] },
      { choices: [{ delta: { reasoning_content: "First I think." } }] },
      { choices: [{ delta: { content: "Then I say." } }] },
      { choices: [{ delta: { tool_calls: [{ index: 0, id: "1", function: { name: "weather", arguments: '{"city"' } }] } }] },
      { choices: [{ delta: { tool_calls: [{ index: 0, function: { arguments: ': "Bonn"}' } }] } }] },
      { choices: [{ delta: {}, finish_reason: "tool_calls" }] },
      { choices: [], usage: { prompt_tokens: 7, completion_tokens: 9, total_tokens: 16 }, timings: { predicted_per_second: 321.4 } },
    ];
    const body = `${events.map((event) => `data: ${JSON.stringify(event)}\r\n\r\n`).join("")}: a comment\n\ndata: [DONE]\n\n`;
    await page.route("**/v1/chat/completions", (route) => route.fulfill({ contentType: "text/event-stream", body }));
    await ask(page, "Weather?");
    await answers.last().getByText("Then I say.").waitFor();
    assert.ok(!(await answers.last().getByText("First I think.").isVisible()));
    await answers.last().getByText("Reasoning").click();
    assert.ok(await answers.last().getByText("First I think.").isVisible());
    assert.deepEqual(JSON.parse(await answers.last().locator("pre").innerText()), [{ name: "weather", arguments: { city: "Bonn" } }]);
    await answers.last().getByText("321 tok/s").waitFor();
    await page.unroute("**/v1/chat/completions");
  });

  await step("a model that is not loaded says so, and can be chosen", async () => {
    await page.route("**/v1/models", async (route) => {
      const list = await (await route.fetch()).json();
      await route.fulfill({ json: { ...list, data: [...list.data, { id: "other", object: "model", status: { value: "unloaded" } }] } });
    });
    const asked = await lastBody(page);
    const picker = page.getByLabel("Model", { exact: true });
    await picker.focus();
    await picker.locator("option", { hasText: "other (unloaded)" }).waitFor({ state: "attached" });
    await picker.selectOption("other");
    await ask(page, "Hi");
    await page.getByRole("alert").getByText("other").waitFor();
    assert.equal((await asked()).model, "other");
    await picker.selectOption("smol");
    await page.unroute("**/v1/models");
  });

  await step("what is written and not sent stays with its conversation", async () => {
    await message(page).fill("half a mess");
    await page.getByRole("link", { name: "Trade-off" }).click();
    await page.waitForFunction(() => document.title === "Trade-off · frugal");
    await page.getByRole("link", { name: "Chat", exact: true }).click();
    assert.equal(await message(page).inputValue(), "half a mess");
    await button(page, "New conversation").click();
    assert.equal(await message(page).inputValue(), "");
    await page.goBack();
    await page.reload();
    await answers.first().waitFor();
    assert.equal(await message(page).inputValue(), "half a mess");
    await message(page).fill("");
  });

  await step("a long answer stays where a reader has scrolled to, with what is selected", async () => {
    await page.evaluate(() => {
      const part = (content) => new TextEncoder().encode(`data: ${JSON.stringify({ choices: [{ delta: { content } }] })}\n\n`);
      window.fetch = async () =>
        new Response(
          new ReadableStream({
            async start(stream) {
              for (let i = 0; !window.enough; i++) {
                if (i < 1500) stream.enqueue(part(`Paragraph ${i} says little.\n\n`));
                await new Promise((done) => setTimeout(done, 4));
              }
              stream.enqueue(new TextEncoder().encode("data: [DONE]\n\n"));
              stream.close();
            },
          }),
        );
    });
    await ask(page, "At length");
    await answers.last().getByText("Paragraph 60 ").waitFor();
    const below = () => page.locator(".thread").evaluate((box) => box.scrollHeight - box.scrollTop - box.clientHeight);
    assert.ok((await below()) < 60, "the end is in sight");
    await answers.last().getByText("Paragraph 3 ", { exact: false }).first().evaluate((paragraph) => getSelection().selectAllChildren(paragraph));
    const selected = await page.evaluate(() => getSelection().toString());
    await page.mouse.move(700, 400);
    await page.mouse.wheel(0, -40);
    await button(page, "To the end").waitFor();
    const top = await page.locator(".thread").evaluate((box) => box.scrollTop);
    const rest = await below();
    await page.waitForTimeout(600);
    assert.equal(await page.locator(".thread").evaluate((box) => box.scrollTop), top);
    assert.ok((await below()) > rest, "it goes on");
    assert.equal(await page.evaluate(() => getSelection().toString()), selected);
    await accessible(page, "scrolled up");
    await button(page, "To the end").click();
    await page.waitForTimeout(300);
    assert.ok((await below()) < 60, "it follows again");
    await page.evaluate(() => (window.enough = true));
    await ended(page);
    await page.reload();
    await answers.first().waitFor();
  });

  await step("a server that was away is found again", async () => {
    await page.route("**/v1/models", (route) => route.abort());
    await page.getByLabel("Model", { exact: true }).blur();
    await page.getByLabel("Model", { exact: true }).focus();
    await page.locator(".composer").getByText("The server cannot be reached.").waitFor();
    await page.unroute("**/v1/models");
    await page.locator(".composer").getByText("Enter sends").waitFor();
  });

  await step("keys", async () => {
    await page.locator(".thread").click();
    await page.keyboard.press("?");
    await page.getByRole("dialog", { name: "Keyboard shortcuts" }).waitFor();
    await page.keyboard.press("Escape");
    await page.getByRole("dialog").waitFor({ state: "detached" });
    await page.keyboard.press("/");
    assert.equal(await page.evaluate(() => document.activeElement.id), "message");
    await page.keyboard.press("ArrowUp");
    await page.getByLabel("Edit the message").waitFor();
    await page.keyboard.press("Escape");
    await page.waitForFunction(() => document.activeElement.ariaLabel === "Edit this message");
    await page.keyboard.press("p");
    await button(page, "Close the parameters").click();
    await page.waitForFunction(() => document.activeElement.ariaLabel === "Parameters");
    await message(page).focus();
    await page.keyboard.press("Control+k");
    await page.waitForFunction(() => document.activeElement.id === "search");
    await page.locator(".thread").click();
    await page.keyboard.press("s");
    await page.waitForFunction(() => document.activeElement.id === "search");
    await page.locator(".thread").click();
    const theme = () => page.evaluate(() => document.documentElement.dataset.theme);
    assert.equal(await theme(), "light");
    await page.keyboard.press("d");
    assert.equal(await theme(), "dark");
    await accessible(page, "dark chat");
    await page.keyboard.press("n");
    await page.getByText("What is on your mind?").waitFor();
  });
});
