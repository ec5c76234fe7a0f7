// node key.mjs URL KEY PID: a server that wants a key, has an odd ledger (tests/test_web.py) and dies while it answers.
import { accessible, ask, assert, button, ended, fits, run, setParameters, shot, turns } from "./support.mjs";

const [url, key, pid] = process.argv.slice(2);

await run(async ({ open, step }) => {
  const page = await open(url, { expected: /status of 401|net::ERR_/ });
  const box = page.getByRole("dialog", { name: "API key" });

  await step("the page asks for the key, and says when it is wrong", async () => {
    await box.waitFor();
    await accessible(page, "key box");
    await shot(page, "key");
    await page.getByLabel("Key", { exact: true }).fill("wrong");
    await button(page, "Use this key").click();
    await box.getByText("did not take this key").waitFor();
    await page.getByLabel("Key", { exact: true }).fill(key);
    await page.keyboard.press("Enter");
    await page.getByText("The server takes this key.").waitFor();
    await page.getByText("answers from this machine").waitFor();
  });

  await step("it is kept for the tab, or on the device where that is wished", async () => {
    const kept = () => page.evaluate(() => [sessionStorage.getItem("key"), localStorage.getItem("key")]);
    assert.deepEqual(await kept(), [key, null]);
    await button(page, "API key").click();
    await page.getByLabel("Remember it on this device").check();
    await button(page, "Use this key").click();
    await box.waitFor({ state: "detached" });
    assert.deepEqual(await kept(), [null, key]);
    await page.reload();
    await page.getByText("answers from this machine").waitFor();
    assert.ok(!(await box.isVisible()));
  });

  await step("a ledger of several models and machines, with gaps and hostile names", async () => {
    await page.getByRole("link", { name: "Trade-off" }).click();
    const group = page.getByLabel("Model and text");
    const cost = (name) => page.getByRole("group", { name: "Cost" }).getByRole("button", { name }).click();
    const points = page.locator(".plot .point");
    await group.waitFor();
    assert.equal(await group.locator("option").count(), 2);
    assert.equal(await points.count(), 2, "points without a size are in the table only");
    assert.equal(await page.locator(".table-card tbody tr").count(), 3);
    await page.locator(".plot").getByText("perplexity — down is better").waitFor();
    assert.ok((await page.locator(".plot .tick").count()) > 5, "both axes have ticks");
    await page.locator(".table-card button").getByText("<img").click();
    await page.locator(".details h2").getByText("<img src=x onerror").waitFor();
    await cost("Speed");
    const machine = page.getByLabel("Machine");
    assert.equal(await points.count(), 1);
    await machine.selectOption({ index: 1 });
    await page.waitForFunction(() => document.querySelectorAll(".plot .point").length === 2);
    await accessible(page, "an odd ledger");
    await group.selectOption({ index: 1 });
    await page.locator('.point[aria-label*="far off"]').click();
    await page.locator(".details").getByText("×445.858 ± 18 %").waitFor();
    await cost("Memory");
    await page.getByText("No point of the ledger has both values.").waitFor();
    assert.equal(await page.evaluate(() => window.pwned), undefined);
    await page.setViewportSize({ width: 360, height: 700 });
    await fits(page, "an odd ledger on a phone");
    await page.setViewportSize({ width: 1280, height: 800 });
    await page.getByRole("link", { name: "Chat", exact: true }).click();
  });

  await step("a server that dies: what came stays, and it can be tried again", async () => {
    await setParameters(page, { "Further fields of the request, as JSON": '{"ignore_eos": true}' });
    await ask(page, "Tell me a long story.");
    await page.waitForFunction(() => document.querySelector("article.streaming .prose")?.textContent.length > 20);
    process.kill(Number(pid), "SIGKILL");
    await page.getByRole("alert").getByText("The connection broke before the answer ended.").waitFor();
    assert.ok((await turns(page, "assistant").locator(".prose").innerText()).length > 15);
    await button(page, "Try again").click();
    await page.getByRole("alert").getByText("The server cannot be reached.").waitFor();
    await ended(page);
    await page.getByText("2/2").waitFor();
    await button(page, "Earlier version").click();
    assert.ok((await turns(page, "assistant").locator(".prose").innerText()).length > 15);
    await accessible(page, "a broken answer");
  });
});
