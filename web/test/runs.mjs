// node runs.mjs URL RUNS: the page of frugal runs --html, with RUNS runs: curves and table, values under the pointer, dark, on a phone.
import { accessible, assert, run, shot } from "./support.mjs";

const [url, count] = process.argv.slice(2);

await run(async ({ open, step }) => {
  for (const options of [{}, { colorScheme: "dark" }, { viewport: { width: 360, height: 700 } }]) {
    const name = options.colorScheme ?? (options.viewport ? "phone" : "light");
    const page = await open(url, { expected: /status of 404/, ...options });
    await step(`${name}: every run has its row and its curves, and nothing is cut off`, async () => {
      assert.equal(await page.locator("tbody tr").count(), Number(count));
      const figures = page.locator(".curves figure");
      assert.equal(await figures.count(), 6);
      const curves = await figures.first().locator("path.curve:not(.held)").evaluateAll((paths) => paths.map((path) => [path.getBoundingClientRect().width, getComputedStyle(path).stroke]));
      assert.ok(curves.every(([width]) => width > 100));
      assert.equal(new Set(curves.map(([, stroke]) => stroke)).size, Number(count), "each has a colour of its own");
      assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), "the page scrolls sideways");
      const size = await figures.first().locator(".tick").first().evaluate((text) => text.getBoundingClientRect().height);
      assert.ok(size >= 9, `labels are ${size} px high`);
      await accessible(page, name);
      await shot(page, `runs-${name}`);
    });
    await step(`${name}: the pointer shows the values of all runs at a step`, async () => {
      const figure = page.locator(".curves svg").first();
      const data = JSON.parse(await page.locator("#data").textContent());
      const { left, right, first, last, series } = data[0];
      const point = series[0].points[Math.floor(series[0].points.length / 2)];
      const box = await figure.boundingBox();
      await figure.hover({ position: { x: ((left + ((point[0] - first) / (last - first)) * (right - left)) / 470) * box.width, y: box.height / 2 } });
      const lines = (await page.locator("#tip").innerText()).trim().split("\n");
      assert.equal(lines[0], `step ${point[0]}`);
      assert.equal(lines.length, Number(count) + 1);
      assert.equal(series.length, 2 * count, "training and held out");
      assert.match(lines[1], new RegExp(`^${series[0].name}: ${Number(point[1].toPrecision(4))}, held out [\\d.]+`));
      await page.mouse.move(1, 1);
      assert.ok(await page.locator("#tip").isHidden());
    });
  }
});
