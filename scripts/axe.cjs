// axe-core over built pages in a headless Chromium: `make axe`. Exit code 1 for a serious fault.
const fs = require("fs");
const path = require("path");
const puppeteer = require("puppeteer-core");

const axe = fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const BROWSERS = ["/usr/bin/chromium", "/usr/bin/google-chrome", "/usr/bin/chromium-browser"];
// A phone in daylight and a screen at night.
const VIEWS = [[360, "light"], [1200, "dark"]];

function pages(root) {
  const skipped = new Set(["_static", "_sources", "_downloads", "generated"]);
  return fs.readdirSync(root, { withFileTypes: true }).flatMap((entry) => {
    const name = path.join(root, entry.name);
    if (entry.isDirectory()) return skipped.has(entry.name) ? [] : pages(name);
    return entry.name.endsWith(".html") ? [name] : [];
  });
}

async function check(browser, file, [width, scheme]) {
  const page = await browser.newPage();
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  await page.setViewport({ width, height: 800 });
  await page.setRequestInterception(true); // nothing from elsewhere: the pages are checked as they lie
  page.on("request", (r) => (r.url().startsWith("http") ? r.abort() : r.continue()));
  await page.goto(`file://${path.resolve(file)}`, { waitUntil: "load" });
  await page.evaluate(axe);
  const found = await page.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
  await page.close();
  const serious = found.violations.filter((v) => ["serious", "critical"].includes(v.impact));
  for (const v of serious) {
    console.log(`${file} ${width} ${scheme}: ${v.id}, ${v.help}: ${v.nodes[0].html.slice(0, 120)}`);
  }
  return serious.length;
}

(async () => {
  const named = process.argv.slice(2);
  const files = named.flatMap((name) => (fs.statSync(name).isDirectory() ? pages(name) : [name]));
  const executablePath = process.env.CHROMIUM || BROWSERS.find((name) => fs.existsSync(name));
  if (!files.length || !executablePath) throw new Error("no pages, or no browser: set CHROMIUM");
  const args = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"];
  const browser = await puppeteer.launch({ executablePath, args });
  let faults = 0;
  for (const file of files) for (const view of VIEWS) faults += await check(browser, file, view);
  await browser.close();
  console.log(`${files.length} pages, ${faults} serious faults`);
  process.exit(faults ? 1 : 0);
})();
