// The page of `tapline serve` in a real browser: tests/browser.sh starts what it needs.
// Usage: page.mjs ADDRESS GO OUT; the dump of `slow` ends when there is the file GO.
import fs from "node:fs";
import assert from "node:assert/strict";
import { createRequire } from "node:module";

const require = createRequire(`${process.env.MODULES}/`);
const puppeteer = require("puppeteer-core");
const axe = fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const [address, go, out] = process.argv.slice(2);
const sizes = { phone: [360, 740], tablet: [820, 1180], desktop: [1440, 900] };
// Of a machine that is busy with other things.
const patience = 120_000;

const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM, args: ["--no-sandbox", "--disable-gpu"], timeout: patience,
});
const page = await browser.newPage();
page.setDefaultTimeout(patience);
await page.setCacheEnabled(false);
const [problems, requests] = [[], []];
page.on("pageerror", (error) => problems.push(String(error)));
page.on("console", (said) => said.type() === "error" && problems.push(said.text()));
page.on("request", (request) => requests.push(request.url()));
const open = (path) => page.goto(`${address}${path}`, { waitUntil: "load" });
const text = (selector) => page.$eval(selector, (element) => element.innerText);
const until = (what) => page.waitForFunction(what);
const press = (selector) =>
  Promise.all([page.waitForNavigation(), page.focus(selector).then(() => page.keyboard.press("Enter"))]);

// At each size and in both colours: a picture, nothing serious for axe, nothing wider than the
// screen, no word too small to be read.
const look = async (name) => {
  for (const [size, [width, height]] of Object.entries(sizes)) {
    for (const scheme of ["light", "dark"]) {
      await page.setViewport({ width, height });
      await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
      const where = `${name} ${size} ${scheme}`;
      const wide = await page.evaluate(() => document.documentElement.scrollWidth);
      assert.ok(wide <= width, `${where} is ${wide} wide`);
      const small = await page.$$eval("figure text, figure span", (all) =>
        all.filter((one) => one.textContent && one.getBoundingClientRect().height < 10).map((one) => one.outerHTML));
      assert.deepEqual(small, [], where);
      await page.screenshot({ path: `${out}/${name}-${size}-${scheme}.png`, fullPage: true });
      // By the protocol, which the page's own policy does not stop.
      await page.evaluate(axe);
      const found = await page.evaluate(() => window.axe.run());
      const serious = found.violations.filter((one) => ["serious", "critical"].includes(one.impact));
      assert.deepEqual(serious.map((one) => [one.id, one.nodes[0].html]), [], where);
    }
  }
};

await open("/");
await look("overview");
const bytes = await page.evaluate(() =>
  [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
    .map((one) => [one.name, one.decodedBodySize]));
const sum = bytes.reduce((all, [, size]) => all + size, 0);
for (const path of ["/", "/style.css", "/script.js"]) {
  assert.ok(bytes.some(([name, size]) => name === address + path && size > 500), `${path}: ${bytes}`);
}
assert.ok(sum < 100_000, `${sum} bytes`);
console.log(`overview with style and script: ${sum} bytes`);

// By keyboard alone: to the database, and a backup is asked for and seen while it is under way.
await press("a[href='/database?name=slow']");
assert.equal(await text("h1"), "slow");
const before = (await page.$$("tbody tr")).length;
await press("button[value=run]");
await open("/");
await until(() => document.querySelector("#runs")?.innerText.match(/slow .* MB\/s/));
assert.equal(await page.$eval("#idle", (idle) => idle.hidden), true);
await look("live");
fs.writeFileSync(go, "");
await until(() => document.querySelector("#runs li") === null);

// It is listed as soon as the store was asked again.
const begin = Date.now();
do {
  await open("/database?name=slow");
} while ((await page.$$("tbody tr")).length !== before + 1 && Date.now() < begin + patience);
assert.equal((await page.$$("tbody tr")).length, before + 1, "the new backup is listed");
assert.equal((await page.$$("figure svg rect")).length, before + 1);
await open("/database?name=shop");
await look("database");
await open("/database?name=broken");
assert.match(await text("main"), /role "backup" does not exist/);
await look("broken");
await open("/runs");
assert.ok((await page.$$("figure title")).length > 0, "a run's bars are named");
await look("runs");

// Without a script the page says the same.
await page.setJavaScriptEnabled(false);
await open("/");
assert.match(await page.content(), /1 database not well/);
assert.deepEqual(requests.filter((url) => !url.startsWith(address)), [], "nothing is asked of others");
assert.deepEqual(problems, []);
await browser.close();
console.log("the page is well");
