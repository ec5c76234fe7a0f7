// What the scenarios share: a browser, a page that may neither ask another origin nor complain, and steps with names.
// BROWSER=firefox: Debian's firefox-esr in place of Chromium (playwright speaks WebDriver BiDi with it); not a part of the tests.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { chromium, firefox } from "playwright-core";

export { assert };
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
export const isFirefox = process.env.BROWSER === "firefox";
const launch = () =>
  isFirefox
    ? firefox.launch({ channel: "moz-firefox", executablePath: process.env.FIREFOX ?? "/usr/bin/firefox-esr" })
    : chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });

// Runs `scenario` in a browser; ends the process with 1 and the name of the step where it failed.
export async function run(scenario) {
  const browser = await launch();
  let at = "start";
  const step = async (name, does) => {
    at = name;
    const began = performance.now();
    await does();
    console.log(`ok ${name} (${((performance.now() - began) / 1000).toFixed(1)} s)`);
  };
  const pages = [];
  // `expected`: console messages that are no fault, such as those of answers that are meant to fail. `attacks`: it is made to ask others.
  // `beside`: another page, of which this is a further tab.
  const open = async (url, { expected = /^$/, attacks = false, beside, ...options } = {}) => {
    const context = beside?.context() ?? (await browser.newContext({ viewport: { width: 1280, height: 800 }, acceptDownloads: true, ...options }));
    context.setDefaultTimeout(20_000);
    const page = await context.newPage();
    const complaints = [];
    const origin = new URL(url).origin;
    context.on("request", (request) => {
      if (!attacks && !request.url().startsWith(`${origin}/`) && !/^(data|blob):/.test(request.url())) complaints.push(`asked ${request.url()}`);
    });
    page.on("console", (message) => {
      if (["error", "warning"].includes(message.type()) && !expected.test(message.text())) complaints.push(`console: ${message.text()}`);
    });
    page.on("pageerror", (error) => complaints.push(`error: ${error.message}`));
    page.on("dialog", (dialog) => complaints.push(`a dialog: ${dialog.message()}`));
    pages.push({ page, complaints });
    await page.goto(url);
    return page;
  };
  try {
    await scenario({ open, step });
    at = "what the pages complained about";
    for (const { complaints } of pages) assert.deepEqual(complaints, []);
  } catch (error) {
    console.log(`FAILED at: ${at}\n${error.stack}`);
    for (const { page, complaints } of pages) {
      console.log(complaints.join("\n"));
      if (!page.isClosed()) console.log((await page.locator("body").innerText()).slice(-2000));
    }
    if (process.env.SHOTS) await Promise.all(pages.map(({ page }, i) => page.screenshot({ path: `${process.env.SHOTS}/failed-${i}.png` }).catch(() => {})));
    process.exitCode = 1;
  } finally {
    await browser.close();
  }
}

export const shot = async (page, name) => {
  if (process.env.SHOTS) await page.screenshot({ path: `${process.env.SHOTS}/${name}.png` });
};

// Rules of axe-core: names, roles, contrast (AA), keyboard. Each violation as one line.
export async function accessible(page, where) {
  await page.evaluate(() => Promise.all(document.getAnimations().map((animation) => animation.effect.getTiming().iterations !== Infinity && animation.finished)));
  await page.evaluate(axe);
  const found = await page.evaluate(() => window.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"] }));
  assert.deepEqual(found.violations.flatMap((rule) => rule.nodes.map((node) => `${where}: ${rule.id}: ${node.html.slice(0, 160)} ${node.any[0]?.message ?? ""}`)), []);
}

export const fits = async (page, where) =>
  assert.equal(await page.evaluate(() => Math.max(document.documentElement.scrollWidth, document.body.scrollWidth) - innerWidth), 0, `${where} is wider than the window`);

export const message = (page) => page.getByLabel("Message", { exact: true });
export const ask = async (page, text) => {
  await message(page).fill(text);
  await message(page).press("Enter");
};
// What was asked last for an answer; until the page is loaded again.
export const lastBody = async (page) => {
  await page.evaluate(() => {
    const real = window.fetch;
    window.bodies = [];
    window.fetch = (path, options) => (options?.body && window.bodies.push(JSON.parse(options.body)), real(path, options));
  });
  return () => page.evaluate(() => window.bodies.at(-1));
};
export const turns = (page, kind) => page.locator(`article.${kind}`);
export const ended = (page) => page.waitForFunction(() => document.querySelector("article.assistant") && !document.querySelector("article.streaming"));
export const button = (page, name) => page.getByRole("button", { name, exact: true });
export const setParameters = async (page, values) => {
  await button(page, "Parameters").click();
  for (const [label, value] of Object.entries(values)) {
    await page.getByLabel(label, { exact: true }).and(page.locator("input[type=number], textarea")).fill(value);
    await page.keyboard.press("Tab");
  }
  await button(page, "Close the parameters").click();
};
// A file that the page imports, with one conversation of the given texts.
export const conversationFile = (title, ...texts) => {
  const ids = texts.map((_, i) => `${title.replace(/[^a-z]+/gi, "-")}-${i}`);
  const list = texts.map((content, i) => [ids[i], { parent: i ? ids[i - 1] : "", role: i % 2 ? "assistant" : "user", content, state: "done", created: i, model: "smol" }]);
  return { id: title, title, created: 1, updated: 1, model: "smol", system: "", chosen: {}, turns: Object.fromEntries(list) };
};
export const importFile = (page, ...conversations) =>
  page.locator("#import").setInputFiles({
    name: "import.json",
    mimeType: "application/json",
    buffer: Buffer.from(typeof conversations[0] === "string" ? conversations[0] : JSON.stringify({ format: "frugal-conversations", version: 1, conversations })),
  });
