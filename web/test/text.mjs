// node text.mjs URL: Markdown, code, mathematics, hostile text, import, export, search, delete, phone width, dark and light.
import { readFileSync } from "node:fs";
import { accessible, assert, button, conversationFile, fits, importFile, run, shot } from "./support.mjs";

const [url] = process.argv.slice(2);
const rich = String.raw`# A title

Some **bold**, *italic*, ~~struck~~ and ${"`"}code${"`"}, a [link](https://example.com/?a=1&b=2).

| method | size |
|---|---:|
| awq-4 | 87.5 |

- one
  1. two
- [x] done

${"```"}python
def f(x):  # a comment
    return "<b>" + x
${"```"}

Roots: $x = \frac{-b \pm \sqrt{b^2 - 4ac}}{2a}$, \(e^{i\pi} = -1\), but $5 and $6 are prices.

$$\int_0^\infty e^{-x^2}\,dx = \frac{\sqrt\pi}{2}$$

\[ \begin{pmatrix} a & b \\ c & d \end{pmatrix} \]

Wrong: $\frac{$ and $$\unknowncommand{x}$$ stay text.`;

const hostile = String.raw`<script>window.pwned = 1</script><img src=x onerror="window.pwned = 2"><svg onload="window.pwned = 3"></svg>
<iframe src="javascript:parent.pwned = 4"></iframe><a href="javascript:window.pwned=5">html link</a>

[a](javascript:window.pwned=6) [b](  JaVaScRiPt:window.pwned=7) [c](data:text/html,<script>pwned=8</script>) [d](vbscript:x) [e](&#106;avascript:window.pwned=9)
![picture](https://evil.example/track.png) ![x](x" onerror="window.pwned=10) <https://ok.example/>

<style>* { display: none }</style><base href="https://evil.example/"><meta http-equiv="refresh" content="0;url=https://evil.example/">
<form action="https://evil.example"><input name=a><button>go</button></form><video src="https://evil.example/v"></video><link rel=stylesheet href="https://evil.example/s.css">

$\href{javascript:window.pwned=11}{x}$ $\url{javascript:alert(1)}$ $\includegraphics{https://evil.example/i.png}$ $\style{background:url(https://evil.example/c)}{x}$ $\class{evil}{x}$ $\htmlData{a=b}{x}$

${"```"}html" onmouseover="window.pwned=12
<script>window.pwned = 13</script>
${"```"}

<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=window.pwned=14&gt;"></math>
$\def\x{\x\x}\x$ $\rule{1000000em}{1000000em}$ <details open ontoggle=window.pwned=15>`;

await run(async ({ open, step }) => {
  const page = await open(url, { colorScheme: "light" });
  const prose = page.locator("article.assistant .prose");

  await step("Markdown, code and mathematics", async () => {
    await importFile(page, conversationFile("rich", "Show what you can", rich));
    await page.getByText("Imported 1 conversation.").waitFor();
    await page.getByRole("link", { name: "rich" }).click();
    const count = (selector) => prose.locator(selector).count();
    for (const [selector, wanted] of Object.entries({ h1: 1, strong: 1, em: 1, del: 1, "td[align=right]": 1, "ul ol li": 1, math: 4, mfrac: 2, mtable: 1, ".math-source": 2, ".hljs-keyword": 2 })) {
      assert.equal(await count(selector), wanted, selector);
    }
    assert.match(await prose.innerText(), /but \$5 and \$6 are prices/);
    assert.equal(await prose.locator("pre").innerText(), 'def f(x):  # a comment\n    return "<b>" + x');
    assert.equal(await prose.locator(".code-head span").innerText(), "python");
    assert.equal(await prose.locator("a").getAttribute("href"), "https://example.com/?a=1&b=2");
    assert.match(await prose.locator("a").getAttribute("rel"), /noopener/);
    const root = await prose.locator("mfrac").first().boundingBox();
    assert.ok(root.width > 40 && root.height > 20, "mathematics is laid out");
    await shot(page, "rich");
    await accessible(page, "rich text");
  });

  await step("a click copies the code", async () => {
    await button(page, "Copy this code").click();
    await page.getByText("Copied").waitFor();
    await page.locator("#message").press("Control+v");
    assert.match(await page.locator("#message").inputValue(), /^def f\(x\)/);
    await page.locator("#message").fill("");
  });

  await step("over plain HTTP from elsewhere it does too, and says when it cannot", async () => {
    await page.evaluate(() => Object.defineProperty(navigator, "clipboard", { value: undefined, configurable: true }));
    await page.evaluate(() => getSelection().removeAllRanges());
    await button(page, "Copy this message").click();
    await page.getByText("Copied.").waitFor();
    await page.locator("#message").press("Control+v");
    assert.equal(await page.locator("#message").inputValue(), "Show what you can");
    await page.locator("#message").fill("");
    await page.evaluate(() => (document.execCommand = () => false));
    await button(page, "Copy this code").click();
    await page.getByText("Not allowed").waitFor();
    await page.reload();
  });

  await step("text from right to left", async () => {
    await importFile(page, conversationFile("rtl", "مرحبا English", "أنا بخير\n\n1. أولا\n\n```python\nx = 1\n```\n\nEnglish שלום"));
    await page.getByRole("link", { name: "rtl" }).click();
    await prose.getByText("أولا").waitFor();
    const direction = (selector) => page.locator(selector).first().evaluate((element) => getComputedStyle(element).direction);
    assert.deepEqual(await Promise.all([".bubble", ".prose p", ".prose ol", ".prose li", ".prose pre", ".prose > p:last-child"].map(direction)), ["rtl", "rtl", "rtl", "rtl", "ltr", "ltr"]);
    await button(page, "Delete rtl").focus();
    await page.keyboard.press("Enter");
    await page.getByRole("link", { name: "rtl" }).waitFor({ state: "detached" });
  });

  await step("hostile text stays text", async () => {
    await importFile(page, conversationFile("hostile <img src=x onerror=window.pwned=20>", hostile, hostile));
    await page.getByRole("link", { name: "hostile" }).click();
    await prose.first().waitFor();
    for (const link of await prose.locator("a").all()) assert.match(await link.getAttribute("href") ?? "https:", /^https?:/);
    const bad = await page.locator("article").evaluateAll((articles) =>
      articles.flatMap((article) => [...article.querySelectorAll("*")]).flatMap((element) => [
        ...(/^(script|img|iframe|style|base|meta|form|input|video|link|object|embed|mglyph|details)$/i.test(element.localName) ? [element.localName] : []),
        ...[...element.attributes].filter((one) => /^on|^src|^action/i.test(one.name) || /url\(|javascript:/i.test(one.value)).map((one) => `${element.localName} ${one.name}=${one.value}`),
      ]),
    );
    assert.deepEqual(bad, []);
    await page.mouse.move(500, 400);
    await page.waitForTimeout(300);
    assert.equal(await page.evaluate(() => window.pwned), undefined);
    assert.ok(await page.locator("#message").isVisible());
    await fits(page, "hostile text");
    assert.ok(await page.evaluate(() => document.querySelector(".thread").scrollHeight < 50_000), "no text is larger than it needs");
  });

  await step("scripts that are not the page's own do not run", async () => {
    const victim = await open(url, { expected: /TrustedHTML|evil\.example/, attacks: true });
    const blocked = await victim.evaluate(() => {
      const violations = [];
      document.addEventListener("securitypolicyviolation", (event) => violations.push(event.effectiveDirective));
      const script = document.createElement("p");
      try {
        script.innerHTML = "<img src=x>";
        violations.push("innerHTML was taken");
      } catch {
        // Trusted Types
      }
      const image = new Image();
      image.src = "https://evil.example/x.png";
      return fetch("https://evil.example/").catch(() => new Promise((done) => setTimeout(() => done(violations), 100)));
    });
    assert.deepEqual([...new Set(blocked)].sort(), ["connect-src", "img-src", "require-trusted-types-for"]);
  });

  await step("search goes over the texts", async () => {
    await importFile(page, conversationFile("rivers", "Tell me of Danube", "It ends in the **Black Sea**."), conversationFile("mountains", "Highest?", "Everest"));
    await page.getByRole("link", { name: "mountains" }).waitFor();
    const search = page.getByLabel("Search conversations");
    const names = () => page.locator(".entry a").allInnerTexts();
    await search.fill("black sea");
    await page.waitForFunction(() => document.querySelectorAll(".entry").length === 1);
    assert.deepEqual(await names(), ["rivers"]);
    await search.fill("no such text");
    await page.getByText("Nothing is found.").waitFor();
    await search.fill("");
    assert.equal((await names()).length, 4);
  });

  await step("export and import give the same conversations", async () => {
    const saved = page.waitForEvent("download");
    await button(page, "Export all conversations").click();
    const file = JSON.parse(readFileSync(await (await saved).path(), "utf8"));
    assert.equal(file.conversations.length, 4);
    const kept = file.conversations.find((one) => one.title === "rich");
    assert.equal(Object.values(kept.turns).find((turn) => turn.role === "assistant").content, rich);
    const other = await open(url);
    await importFile(other, JSON.stringify(file));
    await other.getByText("Imported 4 conversations.").waitFor();
    await other.reload();
    await other.getByRole("link", { name: "rich" }).waitFor();
    assert.deepEqual((await other.locator(".entry a").allInnerTexts()).sort(), (await page.locator(".entry a").allInnerTexts()).sort());
    await other.close();
  });

  await step("files that are wrong are refused with the place", async () => {
    const good = conversationFile("x", "a", "b");
    const wrong = (change) => {
      const copy = structuredClone(good);
      change(copy);
      return JSON.stringify({ format: "frugal-conversations", version: 1, conversations: [copy] });
    };
    for (const [text, words] of [
      ["{", "not JSON"],
      ["[]", "no \"format\""],
      [wrong((one) => (one.turns["x-0"].role = "admin")), "turns.x-0.role"],
      [wrong((one) => (one.turns["x-1"].parent = "nowhere")), "hangs on no first turn"],
      [wrong((one) => (one.turns["x-0"].parent = "x-1")), "comes before itself"],
      [wrong((one) => (one.turns["x-0"].content = 3)), "turns.x-0.content must be a text"],
      [wrong((one) => (one.turns["x-0"].parent = "__proto__")), "hangs on no first turn"],
      [wrong((one) => delete one.title), "title must be a text"],
    ]) {
      await importFile(page, text);
      await page.locator(".toast").getByText(words).waitFor();
    }
    assert.equal(await page.locator(".entry").count(), 4);
  });

  await step("a title can be changed", async () => {
    await page.getByRole("link", { name: "rivers" }).hover();
    await button(page, "Rename rivers").click();
    await page.getByLabel("Title").fill("Nothing");
    await page.keyboard.press("Escape");
    await page.getByRole("link", { name: "rivers", exact: true }).hover();
    await button(page, "Rename rivers").click();
    await page.getByLabel("Title").fill("Great rivers");
    await page.keyboard.press("Enter");
    await page.getByRole("link", { name: "Great rivers" }).waitFor();
    await page.getByRole("link", { name: "Great rivers" }).hover();
    await button(page, "Rename Great rivers").click();
    await page.getByLabel("Title").fill("rivers");
    await page.getByLabel("Title").blur();
    await page.getByRole("link", { name: "rivers", exact: true }).waitFor();
  });

  await step("deleting can be undone", async () => {
    await page.getByRole("link", { name: "rivers" }).hover();
    await button(page, "Delete rivers").click();
    await page.getByRole("link", { name: "rivers" }).waitFor({ state: "detached" });
    await button(page, "Undo").click();
    await page.getByRole("link", { name: "rivers" }).waitFor();
    await prose.getByText("Black Sea").waitFor();
    await button(page, "Delete mountains").focus();
    await page.keyboard.press("Enter");
    await page.getByRole("link", { name: "mountains" }).waitFor({ state: "detached" });
    await page.waitForTimeout(400);
    await page.reload();
    await page.getByRole("link", { name: "rivers" }).waitFor();
    assert.equal(await page.getByRole("link", { name: "mountains" }).count(), 0);
  });

  await step("dark and light are kept, and readable", async () => {
    await page.getByRole("link", { name: "rich" }).click();
    await button(page, "Dark colours").click();
    await page.reload();
    await prose.first().waitFor();
    assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), "dark");
    await accessible(page, "dark text");
    await shot(page, "rich-dark");
    await button(page, "Light colours").click();
    const system = await open(url, { colorScheme: "dark" });
    assert.equal(await system.evaluate(() => document.documentElement.dataset.theme), "dark");
    await system.close();
  });

  await step("a phone shows all without scrolling sideways", async () => {
    const phone = await open(url, { viewport: { width: 360, height: 700 }, hasTouch: true, isMobile: true, reducedMotion: "reduce" });
    await fits(phone, "welcome");
    await importFile(phone, conversationFile("rich", "A question with averyveryveryveryveryveryveryverylongwordthatdoesnotfitthelineofaphone", rich));
    await phone.getByText("Imported 1 conversation.").waitFor();
    assert.ok(!(await phone.getByRole("link", { name: "rich" }).isVisible()));
    await button(phone, "Menu").tap();
    await phone.getByRole("link", { name: "rich" }).tap();
    await phone.locator("article.assistant .prose").waitFor();
    await phone.waitForFunction(() => document.querySelector(".side").getBoundingClientRect().right <= 0);
    await fits(phone, "rich text");
    assert.equal(await phone.evaluate(() => document.querySelector(".thread").scrollWidth - document.querySelector(".thread").clientWidth), 0);
    await shot(phone, "phone");
    await button(phone, "Parameters").tap();
    await fits(phone, "parameters");
    await button(phone, "Close the parameters").tap();
    for (const place of ["#/tradeoff", "#/compare"]) {
      await phone.evaluate((to) => (location.hash = to), place);
      await phone.getByRole("heading", { level: 1 }).waitFor();
      await fits(phone, place);
    }
    await accessible(phone, "phone");
    await phone.close();
  });
});
