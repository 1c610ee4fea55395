// The page of `tapline serve` in a real browser: tests/browser.sh starts what it needs.
// Usage: browser.mjs ADDRESS OUT
import fs from "node:fs";
import assert from "node:assert/strict";
import { createRequire } from "node:module";

const require = createRequire(`${process.env.MODULES}/`);
const puppeteer = require("puppeteer-core");
const axe = fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const [address, out] = process.argv.slice(2);
const sizes = { phone: [360, 740], tablet: [820, 1180], desktop: [1440, 900] };

const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM, args: ["--no-sandbox", "--disable-gpu"],
});
const page = await browser.newPage();
const [problems, requests] = [[], []];
page.on("pageerror", (error) => problems.push(String(error)));
page.on("console", (said) => said.type() === "error" && problems.push(said.text()));
page.on("request", (request) => requests.push(request.url()));
let bytes = 0;
page.on("response", async (response) => {
  if (!response.url().endsWith("/events")) { bytes += (await response.buffer().catch(() => "")).length; }
});
const open = (path) => page.goto(`${address}${path}`, { waitUntil: "load" });
const text = (selector) => page.$eval(selector, (element) => element.innerText);
const until = (what) => page.waitForFunction(what, { timeout: 20000 });

// Each page at each size and in both colours: nothing serious for axe, nothing wider than the screen.
for (const path of ["/", "/database?name=shop", "/database?name=broken", "/runs"]) {
  for (const [name, [width, height]] of Object.entries(sizes)) {
    for (const scheme of ["light", "dark"]) {
      await page.setViewport({ width, height });
      await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
      await open(path);
      const wide = await page.evaluate(() => document.documentElement.scrollWidth);
      assert.ok(wide <= width, `${path} is ${wide} wide on ${width}`);
      const file = path.replace(/[^a-z]+/g, "-").replace(/^-|-$/g, "") || "overview";
      await page.screenshot({ path: `${out}/${file}-${name}-${scheme}.png` });
      // By the protocol, which the page's own policy does not stop.
      await page.evaluate(axe);
      const found = await page.evaluate(() => window.axe.run());
      const serious = found.violations.filter((one) => ["serious", "critical"].includes(one.impact));
      assert.deepEqual(serious.map((one) => [one.id, one.nodes[0].html]), [], `${path} ${name} ${scheme}`);
    }
  }
}
bytes = 0;
await open("/");
await new Promise((done) => setTimeout(done, 500));
assert.ok(bytes > 0 && bytes < 100_000, `${bytes} bytes`);
console.log(`overview with style and script: ${bytes} bytes`);

// By keyboard alone: to the database, and a backup is asked for.
await page.focus("a[href='/database?name=slow']");
await Promise.all([page.waitForNavigation(), page.keyboard.press("Enter")]);
assert.equal(await text("h1"), "slow");
const before = (await page.$$("tbody tr")).length;
await page.focus("button[value=run]");
await Promise.all([page.waitForNavigation(), page.keyboard.press("Enter")]);
await open("/");
await until(() => document.querySelector("#runs")?.innerText.includes("slow"));
await until(() => document.querySelector("#runs")?.innerText.includes("MB/s"));
assert.equal(await page.$eval("#idle", (idle) => idle.hidden), true);
await page.screenshot({ path: `${out}/live.png` });
await until(() => document.querySelector("#runs li") === null);
await open("/database?name=slow");
await until(() => true);
assert.equal((await page.$$("tbody tr")).length, before + 1, "the new backup is listed");
assert.equal((await page.$$("figure svg rect")).length, before + 1);
await open("/runs");
assert.match(await text("h2 + figure, main"), /./);
assert.ok((await page.$$("figure title")).length > 0, "a run's bars are named");
// Without a script the page says the same.
await page.setJavaScriptEnabled(false);
await open("/");
assert.match(await page.content(), /All databases are well|not well/);
const outside = requests.filter((url) => !url.startsWith(address) && !url.startsWith("data:"));
assert.deepEqual(outside, []);
assert.deepEqual(problems, []);
await browser.close();
console.log("the page is well");
