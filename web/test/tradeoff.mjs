// node tradeoff.mjs URL URL-WITHOUT-LEDGER: the ledger drawn, a point of the front chosen, two points side by side. The first server has a
// ledger with base, eight and four; base is served as "base", eight as "small", four by itself.
import { accessible, ask, assert, button, ended, message, run, setParameters, shot, turns } from "./support.mjs";

const [url, bare] = process.argv.slice(2);

await run(async ({ open, step }) => {
  const page = await open(url);
  const { rows, groups } = await (await fetch(`${url}v1/ledger`)).json();
  const row = (name) => rows.find((one) => one.name === name);

  await step("the plot has every point, its error bar, and the front", async () => {
    await page.getByRole("link", { name: "Trade-off" }).click();
    const points = page.locator(".plot .point");
    await points.first().waitFor();
    assert.equal(await points.count(), rows.length);
    assert.equal(await page.locator(".plot .point .error").count(), rows.filter((one) => one.ln_ratio_stderr > 0).length);
    assert.ok(await page.locator(".plot path.front").getAttribute("d"));
    for (const one of rows) {
      const label = await page.locator(`.point[aria-label^="${one.name}:"]`).getAttribute("aria-label");
      assert.equal(/on the front/.test(label), one.front.size, label);
      assert.ok(label.includes(`×${Math.exp(one.ln_ratio).toFixed(3)}`), label);
    }
    const at = async (name) => (await page.locator(`.point[aria-label^="${name}:"] .reach`).boundingBox());
    const [base, four] = [await at("base"), await at("four")];
    assert.ok(four.x < base.x === row("four").bytes < row("base").bytes, "left is smaller");
    assert.ok(four.y < base.y === row("four").ln_ratio > row("base").ln_ratio, "up is worse");
    await page.getByText(groups[0].text, { exact: false }).waitFor();
    await shot(page, "tradeoff");
    await accessible(page, "trade-off");
  });

  await step("points are chosen by click, by keys and in the table", async () => {
    const chosen = page.getByRole("region", { name: "The chosen point" }).getByRole("heading");
    const cost = (name) => page.getByRole("group", { name: "Cost" }).getByRole("button", { name });
    const isChosen = (name) => chosen.filter({ hasText: new RegExp(`^${name}`) }).waitFor();
    await page.locator('.point[aria-label^="four:"] .reach').click();
    await isChosen("four");
    assert.match(await page.locator(".table-card tr.selected th").innerText(), /^four/);
    await page.keyboard.press("ArrowRight");
    const order = [...rows].sort((a, b) => a.bytes - b.bytes);
    await isChosen(order[order.indexOf(row("four")) + 1].name);
    await page.getByRole("button", { name: /^base/, exact: false }).and(page.locator(".table-card button")).click();
    await isChosen("base");
    for (const [name, field] of [["Speed", "decode_tps"], ["Memory", "peak_rss_bytes"]]) {
      await cost(name).click();
      assert.equal(await page.locator(".plot .point").count(), rows.filter((one) => one[field] > 0).length);
    }
    await cost("Size").click();
  });

  await step("the table sorts", async () => {
    const names = async () => (await page.locator(".table-card tbody th").allInnerTexts()).map((text) => text.split(/\s/)[0]);
    await button(page, "Perplexity against base").click();
    assert.deepEqual(await names(), [...rows].sort((a, b) => a.ln_ratio - b.ln_ratio).map((one) => one.name));
    await button(page, "Perplexity against base").click();
    assert.deepEqual(await names(), [...rows].sort((a, b) => b.ln_ratio - a.ln_ratio).map((one) => one.name));
  });

  await step("two points answer side by side", async () => {
    assert.equal(row("eight").served_as, "small");
    await page.locator('.point[aria-label^="eight:"] .reach').click();
    await button(page, "Beside the base").click();
    await page.getByRole("heading", { name: "Side by side" }).waitFor();
    assert.equal(await page.getByLabel("Left model").and(page.locator("select")).inputValue(), "base");
    assert.equal(await page.getByLabel("Right model").and(page.locator("select")).inputValue(), "small");
    await page.locator(".column").nth(1).getByText("perplexity ×").waitFor();
    const asked = [];
    page.on("request", (request) => request.method() === "POST" && asked.push(request.postDataJSON()));
    await setParameters(page, { "System prompt of both": "Be brief.", "Most tokens": "6", Temperature: "0" });
    await page.waitForTimeout(100);
    await page.reload();
    await page.locator(".column").nth(1).waitFor();
    await ask(page, "numbers and sparse masks");
    await page.waitForFunction(() => document.querySelectorAll("article.assistant").length === 2);
    await ended(page);
    assert.deepEqual(asked.map((one) => one.model).sort(), ["base", "small"]);
    for (const one of asked) {
      assert.deepEqual(one.messages[0], { role: "system", content: "Be brief." });
      assert.deepEqual([one.max_tokens, one.temperature], [6, 0]);
    }
    for (const column of await page.locator(".column").all()) {
      assert.equal(await column.locator("article.user").count(), 1);
      assert.match(await column.locator(".figures").innerText(), /\d+ tokens/);
    }
    await shot(page, "compare");
    await accessible(page, "side by side");
  });

  await step("a column becomes a conversation; a comparison begins anew", async () => {
    await button(page, "Keep as a conversation").nth(1).click();
    await page.getByRole("link", { name: "numbers and sparse masks" }).waitFor();
    assert.equal(await page.getByLabel("Model", { exact: true }).inputValue(), "small");
    assert.equal(await turns(page, "assistant").count(), 1);
    await page.getByRole("link", { name: "Side by side" }).click();
    await page.locator(".column").nth(1).waitFor();
    assert.equal(await page.locator(".column").nth(1).locator("article").count(), 0);
    await button(page, "Begin anew").click();
    assert.equal(await page.locator("article").count(), 0);
  });

  await step("Chat with it takes that model", async () => {
    await page.getByRole("link", { name: "Trade-off" }).click();
    await page.locator('.point[aria-label^="eight:"] .reach').click();
    await button(page, "Chat with it").click();
    await page.getByText("In the ledger:").waitFor();
    assert.equal(await page.getByLabel("Model", { exact: true }).inputValue(), "small");
    await setParameters(page, { "Most tokens": "4" });
    await ask(page, "Sentence 3");
    await ended(page);
    assert.match(await page.locator(".figures").innerText(), /^small/);
    // One that lies beside the ledger is loaded when it is asked.
    assert.equal(row("four").served_as, "four");
    await page.getByRole("link", { name: "Trade-off" }).click();
    await page.locator('.point[aria-label^="four:"] .reach').click();
    await button(page, "Chat with it").click();
    await ask(page, "Sentence 3");
    await ended(page);
    assert.match(await page.locator(".figures").innerText(), /^four/);
  });

  await step("without a ledger the page says how to get one", async () => {
    const other = await open(bare);
    await other.getByRole("link", { name: "Trade-off" }).click();
    await other.getByText("No ledger yet").waitFor();
    await other.getByText("frugal sweep MODEL").waitFor();
    await accessible(other, "no ledger");
    await other.close();
  });
});
