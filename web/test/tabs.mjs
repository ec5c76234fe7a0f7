// node tabs.mjs URL: several tabs of one browser in the same conversations; none takes a message from another. The server has the model "smol".
import { ask, assert, button, conversationFile, ended, importFile, message, run, setParameters, turns } from "./support.mjs";

const [url] = process.argv.slice(2);
const streams = (page) => page.waitForFunction(() => document.querySelector("article.streaming .prose")?.textContent.trim().length > 20);

await run(async ({ open, step }) => {
  const one = await open(url);
  const link = (page, name) => page.getByRole("link", { name });
  const texts = (page) => page.locator("article .bubble, article .prose").allInnerTexts();
  // Every turn that this browser keeps.
  const kept = (page) =>
    page.evaluate(
      () =>
        new Promise((done) => {
          const asked = indexedDB.open("frugal");
          asked.onsuccess = () => {
            const all = asked.result.transaction("turns").objectStore("turns").getAll();
            all.onsuccess = () => (asked.result.close(), done(all.result));
          };
        }),
    );
  // Clicks before the page has heard of what `act` does in another tab.
  const atOnce = async (target, act) => {
    const clicked = target.evaluate((button) => {
      for (const end = performance.now() + 1500; performance.now() < end; );
      button.click();
    });
    await target.page().waitForTimeout(300);
    await act();
    await clicked;
  };
  let two;

  await step("another tab shows an answer while it is written, and can stop it", async () => {
    await setParameters(one, { Temperature: "0", "Further fields of the request, as JSON": '{"ignore_eos": true}' });
    two = await open(url, { beside: one });
    await ask(one, "Count to a million.");
    await link(two, "Count to a million.").click();
    await streams(one);
    await streams(two);
    const gone = one.waitForEvent("requestfailed");
    await button(two, "Stop").click();
    await gone;
    for (const page of [one, two]) await page.getByText("stopped", { exact: true }).waitFor();
    assert.deepEqual(await texts(two), await texts(one));
    await button(one, "Parameters").click();
    await button(one, "All defaults").click();
    await one.getByLabel("Most tokens", { exact: true }).fill("12");
    await button(one, "Close the parameters").click();
    await button(two, "Parameters").click();
    await two.waitForFunction(() => document.querySelector("#p-max_tokens").value === "12"); // parameters are those of all tabs
    await button(two, "Close the parameters").click();
  });

  await step("messages sent at once are branches, and each tab goes on showing its own", async () => {
    for (const page of [one, two]) await page.bringToFront(), await message(page).fill(page === one ? "From the first tab" : "From the second tab");
    await atOnce(button(one, "Send"), () => message(two).press("Enter"));
    await one.getByText("From the first tab", { exact: true }).first().waitFor();
    await two.getByText("From the second tab", { exact: true }).first().waitFor();
    for (const page of [one, two]) {
      await page.waitForFunction(() => document.querySelectorAll("article.assistant").length === 2);
      await ended(page);
      await page.locator("article.user").last().getByText(/[12]\/2/).waitFor();
    }
    assert.equal((await texts(one)).at(-2), "From the first tab");
    assert.equal((await texts(two)).at(-2), "From the second tab");
    const answers = [(await texts(one)).at(-1), (await texts(two)).at(-1)];
    await two.reload();
    await turns(two, "user").last().getByText(/[12]\/2/).waitFor();
    const seen = new Set();
    for (const way of ["Earlier version", "Later version"]) {
      const turn = turns(two, "user").last().getByRole("button", { name: way });
      if (await turn.isEnabled()) await turn.click();
      await two.waitForTimeout(100);
      seen.add((await texts(two)).slice(-2).join("|"));
    }
    assert.deepEqual([...seen].sort(), [`From the first tab|${answers[0]}`, `From the second tab|${answers[1]}`].sort());
  });

  await step("a new title is that of all tabs, and an answer on its way does not undo it", async () => {
    // Words without an end: what is kept is compared with what is shown, and of Markdown the page would show other characters.
    const words = '{"logit_bias": {"0": -100, "2": -100}, "structured_outputs": {"regex": "[a-z]+( [a-z]+)*"}}';
    await setParameters(one, { "Most tokens": "40", "Further fields of the request, as JSON": words });
    await ask(one, "Go on.");
    await streams(one);
    await link(two, "Count to a million.").hover();
    await button(two, "Rename Count to a million.").click();
    await two.getByLabel("Title").fill("Counting");
    await two.keyboard.press("Enter");
    await link(one, "Counting").waitFor();
    await ended(one);
    await two.reload();
    await link(two, "Counting").waitFor();
    const answers = (await kept(two)).filter((turn) => turn.role === "assistant");
    const last = answers.reduce((a, b) => (b.created > a.created ? b : a));
    assert.deepEqual([last.state, last.content.trim()], ["length", (await texts(one)).at(-1).trim()]);
  });

  await step("what one tab removes goes in all, unless another one writes in it", async () => {
    await importFile(one, conversationFile("rivers", "Danube", "It is long."), conversationFile("hills", "High", "Not very."));
    await link(two, "rivers").click();
    await two.getByText("It is long.").waitFor();
    await link(one, "rivers").hover();
    await button(one, "Delete rivers").click();
    await two.getByText("Deleted “rivers” in another tab.").waitFor();
    await two.getByText("What is on your mind?").waitFor();
    await button(one, "Undo").click();
    await link(two, "rivers").click();
    await two.getByText("It is long.").waitFor();
    // Removed while the other one has said something that has not arrived.
    await link(one, "hills").click();
    await link(two, "hills").click();
    await two.getByText("Not very.").waitFor();
    await message(two).fill("How high?");
    await atOnce(button(one, "Delete hills"), () => message(two).press("Enter"));
    await two.getByText("How high?").waitFor();
    await ended(two);
    await link(one, "hills").waitFor();
    await two.waitForTimeout(700);
    await two.reload();
    await two.getByText("How high?").waitFor();
    assert.equal((await texts(two)).length, 4);
    await link(one, "hills").click();
    await one.waitForFunction(() => document.querySelectorAll("article").length === 4);
    assert.deepEqual(await texts(one), await texts(two));
  });

  await step("a tab that is closed while it writes leaves what came", async () => {
    await setParameters(one, { "Most tokens": "" });
    await link(one, "rivers").click();
    await link(two, "rivers").click();
    await ask(one, "Tell me all.");
    await streams(one);
    await streams(two);
    await one.close();
    await two.getByRole("alert").getByText("The page was left before the answer ended.").waitFor();
    const shown = await texts(two);
    assert.ok(shown.at(-1).length > 20);
    await two.reload();
    await two.getByRole("alert").getByText("The page was left before the answer ended.").waitFor();
    const after = await texts(two);
    assert.deepEqual(after.slice(0, -1), shown.slice(0, -1));
    assert.ok(after.at(-1).startsWith(shown.at(-1)));
    await two.evaluate(() => localStorage.setItem("extra", '""'));
  });

  await step("what an older version kept is taken over, and turns that lost their conversation too", async () => {
    const old = await open(`${url}health`, { expected: /status of 404/ }); // its picture
    const conversation = conversationFile("old", "An old question", "An old answer");
    for (const [id, turn] of Object.entries(conversation.turns)) turn.id = id;
    await old.evaluate(
      (conversation) =>
        new Promise((done) => {
          const asked = indexedDB.open("frugal", 1);
          asked.onupgradeneeded = () => asked.result.createObjectStore("conversations", { keyPath: "id" }).put(conversation);
          asked.onsuccess = () => (asked.result.close(), done());
        }),
      conversation,
    );
    await old.goto(`${url}#/c/old`);
    await old.getByText("An old answer").waitFor();
    assert.deepEqual((await kept(old)).map((turn) => [turn.conversation, turn.content]), [["old", "An old question"], ["old", "An old answer"]]);
    await old.evaluate(
      () =>
        new Promise((done) => {
          const asked = indexedDB.open("frugal");
          asked.onsuccess = () => {
            const change = asked.result.transaction(["conversations", "turns"], "readwrite");
            change.objectStore("conversations").delete("old");
            change.objectStore("turns").delete(["old", "old-0"]);
            change.oncomplete = () => (asked.result.close(), done());
          };
        }),
    );
    await old.reload();
    await old.getByText("An old answer").waitFor();
    assert.deepEqual(await texts(old), ["An old answer"]);
  });
});
